"""Authorises requests for screenshots, and has KubeVirt take them."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..access.control import AccessControl
from ..exceptions import Draining, Refused, TransportClosed, UpstreamRefused
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
from .screenshot_cache import MAX_SIZE, Screenshots, picture_fault

__all__ = ["PictureRules", "ScreenshotSource"]

logger = get_logger("wsproxy.screenshots")

# If KubeVirt's bytes are not a picture, no browser may run them, even if it opens them as a page.
_NOTHING_BUT_A_PICTURE = ("Content-Security-Policy", "default-src 'none'; sandbox")
_VERSION_SECONDS = 600.0  # for which the proxy relies on KubeVirt's version


@dataclass(frozen=True)
class PictureRules:
    """The settings for screenshots.

    :ivar api_path: path of a VMI's subresource at the API.
    :ivar timeout: seconds for one screenshot.
    """

    api_path: ApiPath
    timeout: float


class ScreenshotSource:
    """Answers requests for screenshots. Safe from every thread.

    :param rules: the settings.
    :param access: authorises each request before anything else happens.
    :param dialler: sends requests to KubeVirt.
    :param screenshots: caches screenshots, and shares them between requests.
    :param counters: gets the seconds that each screenshot took.
    """

    def __init__(
        self,
        rules: PictureRules,
        access: AccessControl,
        dialler: Dialler,
        screenshots: Screenshots,
        counters: Counters,
        clock: Clock = time.monotonic,
    ) -> None:
        self._rules = rules
        self._access = access
        self._dialler = dialler
        self._screenshots = screenshots
        self._counters = counters
        self._clock = clock
        # Assigned as a whole: until when the proxy need not ask for KubeVirt's version again.
        self._trusted_until = -math.inf
        self._complained = False
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._blocked: dict[object, socket.socket] = {}  # the socket that each request to the API blocks on
        self._stopped = False

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
            (namespace, vmi), grant.user, lambda: self._take(path, Deadline(timeout)), Deadline(timeout)
        )

    def stop(self) -> None:
        """Refuse every request for a screenshot, waiting or new. Any thread, never blocks, idempotent."""
        with self._lock:
            self._stopped = True
            blocked = list(self._blocked.values())
        for sock in blocked:
            wake(sock)

    def _take(self, path: str, deadline: Deadline) -> bytes:
        started = self._clock()
        if started >= self._trusted_until:
            self._check_version(deadline)
        picture = self._get(path, MAX_SIZE, deadline)
        if fault := picture_fault(picture):
            raise UpstreamRefused("the Kubernetes API sent no valid screenshot", log_detail=fault)
        self._counters.take_screenshot(self._clock() - started)
        return http_response(200, picture, content_type="image/png", headers=[_NOTHING_BUT_A_PICTURE])

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
                stopped = self._stopped
            if stopped:
                raise TransportClosed("the proxy is stopping")

        try:
            return self._dialler.get(path, max_size, deadline, watch)
        except Refused:
            if self._stopped:
                raise Draining("the proxy is stopping") from None
            raise
        finally:
            with self._lock:
                self._blocked.pop(request, None)
