"""Authorises requests for screenshots, and has KubeVirt take them."""

from __future__ import annotations

import hashlib
import json
import math
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..access.control import AccessControl
from ..exceptions import Draining, Refused, TransportClosed, UpstreamRefused, UpstreamTimeout
from ..net.shared_copy import ALONE, CopyOf, SharedCopy, borrowed
from ..net.sockets import wake
from ..protocol.client import Client
from ..protocol.request import RequestHead
from ..protocol.response import http_response
from ..runtime.deadline import Clock, Deadline
from ..runtime.logs import get_logger
from ..telemetry.counters import Counters
from ..telemetry.record import Admitted
from ..upstream.dialler import Dialler
from ..upstream.kubevirt import kubevirt_version, leaves_console_alone
from ..upstream.location import ApiPath
from .screenshot_cache import GOOD_SECONDS, MAX_SIZE, Screenshots, Taken, picture_fault

__all__ = ["PictureRules", "ScreenshotSource"]

logger = get_logger("wsproxy.screenshots")

# If KubeVirt's bytes are not a picture, no browser may run them, even if it opens them as a page.
_NOTHING_BUT_A_PICTURE = ("Content-Security-Policy", "default-src 'none'; sandbox")
_VERSION_SECONDS = 600.0  # for which the proxy relies on KubeVirt's version
_SLACK = 2.0  # seconds that a turn to take a screenshot lasts longer than the timeout


@dataclass(frozen=True)
class PictureRules:
    """The settings for screenshots.

    :ivar api_path: path of a VMI's subresource at the API.
    :ivar timeout: seconds for one screenshot.
    :ivar way: names the API, and how the proxy reaches it. Processes with the same one have each other's
        screenshots.
    """

    api_path: ApiPath
    timeout: float
    way: str = ""


class ScreenshotSource:
    """Answers requests for screenshots. Safe from every thread.

    :param rules: the settings.
    :param access: authorises each request before anything else happens.
    :param dialler: sends requests to KubeVirt.
    :param screenshots: caches screenshots, and shares them between requests.
    :param counters: gets the seconds that each screenshot took.
    :param copy_of: how it learns what other processes have taken.
    """

    def __init__(
        self,
        rules: PictureRules,
        access: AccessControl,
        dialler: Dialler,
        screenshots: Screenshots,
        counters: Counters,
        clock: Clock = time.monotonic,
        copy_of: CopyOf = lambda *_: ALONE,
    ) -> None:
        self._rules = rules
        self._access = access
        self._dialler = dialler
        self._screenshots = screenshots
        self._counters = counters
        self._clock = clock
        self._copy_of = copy_of
        # Assigned as a whole: until when the proxy need not ask for KubeVirt's version again.
        self._trusted_until = -math.inf
        self._complained = False
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._blocked: dict[object, socket.socket] = {}  # the socket that each request to the API blocks on
        self._stopped = threading.Event()

    def picture(
        self,
        head: RequestHead,
        client: Client,
        deadline: Deadline,
        on_admitted: Callable[[Admitted], None],
    ) -> bytes:
        """Return the whole response with the requested screenshot, a PNG.

        All requests for the same screenshot share the very same bytes. Blocks for at most the dial
        timeout after ``deadline``, and while the embedder's hook decides. Only this method and
        :meth:`.Session.open` can reach the upstream for a client.

        :param client: the client that sent the request.
        :param deadline: bounds the wait for the token's key.
        :param on_admitted: called with the user and the VMI when the client is authorised.
        :raises Refused: if the client gets no screenshot, for any reason.
        """
        route, grant = self._access.admit_screenshot(head, client, deadline)
        namespace, vmi = grant.namespace, route.vmi
        on_admitted(Admitted.by(grant, route))
        path = self._rules.api_path.path(namespace, vmi, route.subresource)
        timeout = self._rules.timeout
        return self._screenshots.get(
            (namespace, vmi), grant.user, lambda: self._taken(path, Deadline(timeout)), Deadline(timeout)
        )

    def stop(self) -> None:
        """Refuse every request for a screenshot, waiting or new. Any thread, never blocks, idempotent."""
        with self._lock:
            self._stopped.set()
            blocked = list(self._blocked.values())
        for sock in blocked:
            wake(sock)

    def _taken(self, path: str, deadline: Deadline) -> Taken:
        """Return the response with a screenshot that another process has taken, or take one, for all."""
        copy = self._copy_of(self._name(path), self._rules.timeout + _SLACK, GOOD_SECONDS)
        since = self._clock() - GOOD_SECONDS
        found = borrowed(copy, since, lambda seconds: self._rest(seconds, deadline), self._clock)
        if found and picture_fault(found.value) is None:
            return Taken(_response(found.value), max(self._clock() - found.after, 0.0))
        return Taken(_response(self._taken_for_all(path, copy, deadline)))

    def _name(self, path: str) -> str:
        """Return the name of a screen among processes, whoever asks for it."""
        text = json.dumps([self._rules.way, path])
        return f"picture:{hashlib.sha256(text.encode()).hexdigest()}"

    def _rest(self, seconds: float, deadline: Deadline) -> bool:
        """Wait while another process takes the screenshot."""
        if self._stopped.wait(seconds):
            raise Draining("the proxy is stopping")
        if deadline.passed:
            raise UpstreamTimeout("the screenshot was not taken in time")
        return False

    def _taken_for_all(self, path: str, copy: SharedCopy, deadline: Deadline) -> bytes:
        try:
            picture = self._take(path, deadline)
        except BaseException:
            copy.give_up()
            raise
        copy.keep(picture, 0.0)
        return picture

    def _take(self, path: str, deadline: Deadline) -> bytes:
        started = self._clock()
        if started >= self._trusted_until:
            self._check_version(deadline)
        picture = self._get(path, MAX_SIZE, deadline)
        if fault := picture_fault(picture):
            raise UpstreamRefused("the Kubernetes API sent no valid screenshot", log_detail=fault)
        self._counters.take_screenshot(self._clock() - started)
        return picture

    def _check_version(self, deadline: Deadline) -> None:
        """Refuse unless KubeVirt can take a screenshot without evicting a VNC client."""
        path = self._rules.api_path.version_path
        assert path is not None, "the settings have been checked"
        version = kubevirt_version(path, self._get, deadline)
        if leaves_console_alone(version):
            self._trusted_until = self._clock() + _VERSION_SECONDS
            return
        if not self._complained:
            self._complained = True
            logger.warning(
                "screenshots are refused: they need KubeVirt 1.7 or newer, because older versions use the "
                "VNC console for them, and versions before 1.6.3 evict its client; this is %r",
                version,
            )
        raise UpstreamRefused("screenshots need KubeVirt 1.7 or newer", log_detail=f"this is {version!r}")

    def _get(self, path: str, max_size: int, deadline: Deadline) -> bytes:
        request = object()

        def watch(sock: socket.socket) -> None:
            with self._lock:
                self._blocked[request] = sock
                stopped = self._stopped.is_set()
            if stopped:
                raise TransportClosed("the proxy is stopping")

        try:
            return self._dialler.get(path, max_size, deadline, watch)
        except Refused:
            if self._stopped.is_set():
                raise Draining("the proxy is stopping") from None
            raise
        finally:
            with self._lock:
                self._blocked.pop(request, None)


def _response(picture: bytes) -> bytes:
    return http_response(200, picture, content_type="image/png", headers=[_NOTHING_BUT_A_PICTURE])
