"""The state of a simulated cluster, and its answer to each request. No I/O."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote

from .backends import Backend, Echo, SocketBackend
from .hanging import Hanging
from .http import (
    Answer,
    Behaviour,
    RecordedRequest,
    json_answer,
    status_answer,
    text_answer,
    upgrade_fault,
)
from .vmi import FakeVMI, vmi_not_found

if TYPE_CHECKING:
    from ..screen.desktop import Desktop

__all__ = ["Cluster", "Upgrade"]

_GROUP = "subresources.kubevirt.io"
_USER = "system:serviceaccount:wsproxy:wsproxy"
_ROUTE = re.compile(
    r"/apis/subresources\.kubevirt\.io/(?:v1|v1alpha3)/namespaces/([^/]+)/virtualmachineinstances/([^/]+)/"
    r"(vnc/screenshot|vnc|console|usbredir|vsock|portforward/[0-9]+(?:/tcp|/udp)?)"
)
_SCREENSHOT = "vnc/screenshot"
_KUBEVIRT_VERSIONS = tuple(f"/apis/{_GROUP}/{version}/version" for version in ("v1", "v1alpha3"))
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_UNAUTHORIZED = status_answer(401, "Unauthorized", "Unauthorized")
_NO_RESOURCE = status_answer(404, "NotFound", "the server could not find the requested resource", {})
_NO_METHOD = status_answer(
    405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {}
)
_DOWN = text_answer(503, "service unavailable")
_OK = Answer(200, b"ok", (("Content-Type", "text/plain; charset=utf-8"),))
_VERSION = json_answer(200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0", "platform": "linux/amd64"})
_PUBLIC = {"/readyz": _OK, "/livez": _OK, "/healthz": _OK, "/version": _VERSION}
_PRESERVES = (1, 6, 3)  # the first version that supports preserveSession
# The true values of strconv.ParseBool, with which virt-api reads preserveSession.
_TRUE = ("1", "t", "T", "true", "TRUE", "True")


class Upgrade(NamedTuple):
    """The decision to answer a request with 101.

    :ivar refusal: returns why the VMI refuses the session by now; None if it accepts the session.
    """

    vmi: FakeVMI
    subresource: str
    refusal: Callable[[], Answer | None]


def _forbidden(namespace: str, name: str, subresource: str) -> Answer:
    """Return kube-apiserver's answer to a service account without the role."""
    resource = f"virtualmachineinstances/{subresource.partition('/')[0]}"
    message = (
        f'virtualmachineinstances.{_GROUP} "{name}" is forbidden: User "{_USER}" cannot get resource '
        f'"{resource}" in API group "{_GROUP}" in the namespace "{namespace}"'
    )
    details = {"name": name, "group": _GROUP, "kind": "virtualmachineinstances"}
    return status_answer(403, "Forbidden", message, details)


class Cluster:
    """The VMIs and permissions of a simulated cluster.

    :ivar token: the bearer token that the API accepts.
    :ivar old_token: another token that the API accepts; None for none.
    :ivar namespace: the default namespace for adding and removing VMIs.
    :ivar behaviour: how the API misbehaves, unless a request's VMI has its own behaviour. When this changes,
        the API carries out the requests that hung, even if their clients have disconnected.
    :ivar kubevirt_version: KubeVirt's version. Before 1.6.3, KubeVirt ignores ``preserveSession``, and a
        screenshot ends the VNC session. From 1.6.3 on, KubeVirt refuses a screenshot during a VNC session.
        Since 1.7 a screenshot does not affect sessions. 1.6.3 does not say why it refuses.
    :ivar forbid: whether the API answers 403 to every request about VMIs, as if the role were missing.
    :ivar down: whether the API answers 503 to every request, as if virt-api were down.
    """

    def __init__(self, token: str, *, demand_token: bool, namespace: str) -> None:
        self.token = token
        self.old_token: str | None = None
        self._behaviour: Behaviour | None = None
        self.namespace = namespace
        self.kubevirt_version = "v1.7.0"
        self.forbid = False
        self.down = False
        self._demand_token = demand_token
        # Guards the state that threads share and tests wait for: _vmis, every VMI's sessions, and the
        # attributes of subclasses that say so.
        self._changed = threading.Condition()
        self._vmis: dict[tuple[str, str], FakeVMI] = {}
        self._hanging = Hanging(self._changed)

    @property
    def behaviour(self) -> Behaviour | None:
        return self._behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour | None) -> None:
        self._behaviour = behaviour
        self._hanging.recover()

    def add_vmi(
        self,
        name: str,
        namespace: str | None = None,
        *,
        backend: Backend | None = None,
        console_backend: Backend | None = None,
        screen: Callable[[], bytes] | None = None,
        phase: str = "Running",
        display: bool = True,
        serial: bool = True,
        behaviour: Behaviour | None = None,
    ) -> FakeVMI:
        """Add a VMI and return it. If it replaces a VMI of the same name, the old one's sessions continue.

        :param namespace: None for the attribute ``namespace``.
        :param backend: serves the VMI's sessions; None for :class:`Echo`.
        :param console_backend: serves the VMI's serial console; None for ``backend``.
        :param screen: is called for each screenshot, and returns a PNG file's bytes. It may block. If None,
            the screen is small and grey.
        """
        vmi = FakeVMI(
            name,
            namespace or self.namespace,
            backend or Echo(),
            self._changed,
            console_backend=console_backend,
            screen=screen,
            phase=phase,
            display=display,
            serial=serial,
            behaviour=behaviour,
            hanging=self._hanging,
        )
        with self._changed:
            self._vmis[vmi.namespace, name] = vmi
        self._hanging.recover()
        return vmi

    def add_desktop(
        self, desktop: Desktop, name: str | None = None, namespace: str | None = None, **options: Any
    ) -> FakeVMI:
        """Add a VMI whose console and screenshots show a desktop. Returns the VMI, as ``desktop.vmi`` does.

        :param name: the VMI's name; None for the desktop's.
        :param options: further arguments of :meth:`add_vmi`.
        """
        options.setdefault("screen", lambda: desktop.screenshot().to_png())
        vmi = self.add_vmi(name or desktop.name, namespace, backend=SocketBackend(desktop.serve), **options)
        desktop._vmi = vmi
        return vmi

    def remove_vmi(self, name: str, namespace: str | None = None) -> None:
        """Remove a VMI and drop its sessions. Later requests for it get 404.

        :param namespace: None for the attribute ``namespace``.
        :raises KeyError: if there is no such VMI.
        """
        with self._changed:
            vmi = self._vmis.pop((namespace or self.namespace, name))
        vmi.drop_sessions()

    @property
    def vmis(self) -> list[FakeVMI]:
        """The existing VMIs, in the order in which they were added."""
        with self._changed:
            return list(self._vmis.values())

    def decide(self, request: RecordedRequest, body: bytes) -> tuple[FakeVMI | None, Answer | Upgrade]:
        """Return the VMI that a request names, if it exists, and the API's decision."""
        path, _, query = request.target.partition("?")
        # The aggregation layer decodes and encodes the path again, so virt-api gets an escaped slash as "/".
        path = unquote(path)
        route = _ROUTE.fullmatch(path)
        if route is None:
            return None, self._refusal(request) or self._other(request.method, path, body)
        namespace, name, subresource = route.groups()
        with self._changed:
            vmi = self._vmis.get((namespace, name))
        refusal = self._refusal(request)
        if refusal is None and self.forbid:
            refusal = _forbidden(namespace, name, subresource)
        if refusal is None and request.method != "GET":
            refusal = _NO_METHOD
        if refusal is not None:
            return vmi, refusal
        return vmi, self._open(request, vmi, name, subresource, query)

    def _open(
        self, request: RecordedRequest, vmi: FakeVMI | None, name: str, subresource: str, query: str
    ) -> Answer | Upgrade:
        if subresource == _SCREENSHOT:
            return self._screenshot(vmi, name)
        if vmi is None:
            return vmi_not_found(name)
        release = self._release()
        preserve = parse_qs(query).get("preserveSession", [""])[0] in _TRUE and release >= _PRESERVES
        refusal = partial(vmi.refusal, subresource, preserve, vague=release == _PRESERVES)
        if (refused := refusal()) is not None:
            return refused
        if upgrade_fault(request) is not None:
            return text_answer(400, "Bad Request\n", (("Sec-Websocket-Version", "13"),))
        return Upgrade(vmi, subresource, refusal)

    def _screenshot(self, vmi: FakeVMI | None, name: str) -> Answer:
        """Return a VMI's screen. virt-api answers every failure with 500 and the text of its cause."""
        release = self._release()
        by_vnc = release < (1, 7, 0)
        preserve = by_vnc and release >= _PRESERVES
        refusal = vmi.refusal("vnc", preserve) if vmi else vmi_not_found(name)
        if vmi is None or refusal is not None:
            assert refusal is not None
            return text_answer(500, json.loads(refusal.body)["message"])
        if by_vnc:
            for console in vmi.sessions:
                if console.subresource == "vnc":
                    console.kill()
        return Answer(200, vmi.screen(), (("Content-Type", "image/png"),))

    def _release(self) -> tuple[int, ...]:
        """Return KubeVirt's version; a very high one if ``kubevirt_version`` is not a version."""
        found = re.match(r"v(\d+)\.(\d+)\.(\d+)", self.kubevirt_version)
        return tuple(map(int, found.groups())) if found else (9999,)

    def _refusal(self, request: RecordedRequest) -> Answer | None:
        """Return the API's refusal of a client, whatever the client requests; None if there is none."""
        if self.down:
            return _DOWN
        if not self._demand_token:
            return None
        given = request.values("authorization")
        if not given and request.target.partition("?")[0] in _PUBLIC:
            return None
        accepted = [[f"Bearer {token}"] for token in (self.token, self.old_token) if token is not None]
        return None if given in accepted else _UNAUTHORIZED

    def _other(self, method: str, path: str, body: bytes) -> Answer:
        if path == _ACCESS_REVIEWS and method == "POST":
            return self._access_review(body)
        if path in _KUBEVIRT_VERSIONS and method == "GET":
            return json_answer(200, {"gitVersion": self.kubevirt_version, "platform": "linux/amd64"})
        return _PUBLIC.get(path, _NO_RESOURCE) if method == "GET" else _NO_RESOURCE

    def _access_review(self, body: bytes) -> Answer:
        """Answer a SelfSubjectAccessReview. The service account is allowed everything unless ``forbid``."""
        try:
            review: Any = json.loads(body)
            spec = review["spec"]
        except (ValueError, KeyError, TypeError):
            return status_answer(400, "BadRequest", "the object provided is unrecognized")
        status = {"allowed": not self.forbid}
        kind = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
        return json_answer(201, {**kind, "metadata": {}, "spec": spec, "status": status})
