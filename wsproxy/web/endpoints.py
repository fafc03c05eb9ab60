"""Answers requests without an upgrade: the named HTTP endpoints, and files. No I/O of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..access.control import AccessControl
from ..exceptions import (
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    Refused,
    UnsupportedMediaType,
    VMINoConsole,
    VMINotFound,
    VMINotRunning,
)
from ..protocol.client import Client
from ..protocol.names import is_dns_label, is_dns_subdomain
from ..protocol.representation import Redirect, Representation
from ..protocol.request import OWS, RequestHead
from ..protocol.response import http_response, refusal_response
from ..protocol.routing import RouteRules, endpoint_of, file_path, screenshot_route
from ..protocol.strict_json import parse_json
from ..runtime.deadline import Deadline
from ..state.limits import AddressSlot
from ..telemetry.record import Admitted, SessionRecord
from .in_flight import InFlight, Place

__all__ = ["EndpointRules", "HTTPRequest", "answer", "endpoint_names"]

_JSON = "application/json"
_PROBES = ("healthz", "readyz")
_MAX_TICKET_BODY = 4096
_MAX_TICKET_BRACKETS = 8  # an IPv6 host in an origin has some
_TICKET_METHODS = "POST, OPTIONS"
_PREFLIGHT = (
    ("Access-Control-Allow-Methods", "POST"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type"),
    ("Access-Control-Max-Age", "600"),  # seconds
)
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True)
class EndpointRules:
    """The settings that decide which endpoints there are.

    :ivar routes: how request targets are parsed.
    :ivar tickets: whether ``POST /ticket`` exchanges a token for a one-time ticket.
    :ivar console_page: whether the endpoint of the console page, ``console/grant``, is served.
    :ivar screenshots: whether screenshots are served.
    :ivar grace: seconds for which a session outlives its token.
    """

    routes: RouteRules
    tickets: bool
    console_page: bool
    screenshots: bool
    grace: float


class Ready(Protocol):
    """Knows whether the proxy is ready."""

    def is_ready(self, deadline: Deadline) -> bool: ...


class Files(Protocol):
    """Finds the files that are served to browsers, by the path below the prefix."""

    def find(self, path: str) -> Representation | Redirect | None: ...


class Pictures(Protocol):
    """Returns screenshots as whole responses; see :class:`.ScreenshotSource`."""

    def picture(
        self,
        head: RequestHead,
        client: Client,
        deadline: Deadline,
        on_admitted: Callable[[Admitted], None],
    ) -> bytes: ...


@dataclass(frozen=True)
class HTTPRequest:
    """A request without an upgrade, and what counts for its client.

    :ivar client: the client that sent it.
    :ivar deadline: bounds everything up to the answer, except requests to the Kubernetes API.
    :ivar read_body: returns the whole body; its argument is the most bytes that the body may have. An
        endpoint calls it at most once, and only if the head gives it no reason to refuse.
    :ivar record: gets the user, if the endpoint authenticates the request.
    :ivar slot: counts the client's address until the client has authenticated.
    :ivar in_flight: counts the request in a place of its user from then on.
    :ivar places: gets that place. The caller releases it when it has sent the answer.
    :ivar root: the path under which an embedding server mounts the proxy, "" for none.
    :ivar on_authenticated: called when the client has authenticated, before the request waits for anything
        more; may raise a refusal.
    """

    head: RequestHead
    client: Client
    deadline: Deadline
    read_body: Callable[[int], bytes]
    record: SessionRecord
    slot: AddressSlot
    in_flight: InFlight
    places: list[Place]
    root: str = ""
    on_authenticated: Callable[[], object] = bool

    def note_user(self, user: str | int) -> None:
        """Note that the client has authenticated, and as whom; may refuse it."""
        self.places.append(self.in_flight.enter(user))
        self.slot.release()
        self.on_authenticated()


def answer(
    request: HTTPRequest,
    rules: EndpointRules,
    access: AccessControl,
    readiness: Ready,
    files: Files,
    pictures: Pictures,
    healthy: bool = True,
    status: str = "",
) -> bytes:
    """Return the whole response to a request without an upgrade.

    Blocks while it reads the body, probes the API, or waits for a screenshot.

    :param rules: which endpoints there are.
    :param readiness: what ``/readyz`` reports.
    :param files: the files that are served beside the endpoints.
    :param pictures: the source of screenshots.
    :param healthy: whether the threads work that all sessions need; ``/healthz`` and ``/readyz`` report it.
    :param status: a further line of ``/readyz``, "" for none. It does not change whether the proxy is ready.
    :raises Refused: if there is no such endpoint or file, if the method is wrong, or if the endpoint refuses
        the request.
    """
    endpoints: dict[str, Callable[[], bytes]] = {
        "healthz": lambda: _health(request, lambda deadline: healthy, b"not healthy\n"),
        "readyz": lambda: _health(
            request, lambda deadline: healthy and readiness.is_ready(deadline), status=status
        ),
        "ticket": lambda: _ticket(request, access),
        "console/grant": lambda: _grant(request, rules, access),
    }
    head = request.head
    endpoint = endpoint_of(head.target, rules.routes.prefix, endpoint_names(rules))
    if endpoint is None or endpoint.name not in _PROBES:  # those are answered whatever else goes on
        request.slot.check(request.client.network)
    if endpoint:
        return endpoints[endpoint.name]()
    if rules.screenshots and screenshot_route(head.target, rules.routes.prefix):
        picture = _screenshot(request, pictures)
        for place in request.places:
            place.hold(len(picture))
        return picture
    path = file_path(head.target, rules.routes.prefix)
    if file := files.find(path) if path is not None else None:
        return file.answer(head)
    raise NotFound("there is no such page; a console is opened by a WebSocket client at /TOKEN/VMI")


def endpoint_names(rules: EndpointRules) -> tuple[str, ...]:
    """Return the names of the endpoints that are switched on."""
    switched = {"ticket": rules.tickets, "console/grant": rules.console_page}
    return (*_PROBES, *(name for name, on in switched.items() if on))


def _health(
    request: HTTPRequest,
    is_good: Callable[[Deadline], bool],
    otherwise: bytes = b"not ready\n",
    status: str = "",
) -> bytes:
    head = request.head
    _check_reading(head)
    code, body = (200, b"ok\n") if is_good(request.deadline) else (503, otherwise)
    if status:
        body += f"{status}\n".encode()
    return http_response(code, body, head_only=head.method == "HEAD")


def _check_reading(head: RequestHead) -> None:
    if head.method not in ("GET", "HEAD"):
        raise MethodNotAllowed("GET, HEAD")
    head.refuse_body()


def _screenshot(request: HTTPRequest, pictures: Pictures) -> bytes:
    head = request.head
    _check_reading(head)
    head_only = head.method == "HEAD"

    def on_admitted(admitted: Admitted) -> None:
        request.record.admitted = admitted
        request.note_user(admitted.user)

    try:
        response = pictures.picture(head, request.client, request.deadline, on_admitted)
    except (VMINotFound, VMINotRunning, VMINoConsole) as refused:
        accepted = {value.partition(";")[0].strip(OWS).lower() for value in head.tokens("accept")}
        if _JSON not in accepted:
            raise
        # For the page, a VMI without a screen is no error. Browsers log every status but 200 as one.
        return refusal_response(refused, status=200, head_only=head_only)
    # Unchanged: all clients that ask for the same screenshot share these bytes.
    return response[: response.index(_END_OF_HEAD) + len(_END_OF_HEAD)] if head_only else response


def _grant(request: HTTPRequest, rules: EndpointRules, access: AccessControl) -> bytes:
    """Tell the console page what its token grants."""
    head = request.head
    _check_reading(head)
    grant = access.authenticate_bearer(head, request.client, request.deadline)
    request.note_user(grant.user)
    routes = rules.routes
    body = {
        "user": grant.user,
        "namespace": grant.namespace,
        "vmis": grant.vmis,
        "expires_in": _seconds(grant.seconds_left()),
        "grace": _seconds(rules.grace),
        "subresources": [routes.default, *sorted(routes.enabled - {routes.default})],
        "screenshots": rules.screenshots,
    }
    return http_response(
        200,
        json.dumps(body).encode() + b"\n",
        content_type=_JSON,
        head_only=head.method == "HEAD",
    )


def _seconds(seconds: float) -> float | None:
    """Round to milliseconds; return None for infinity, which JSON does not have."""
    return round(seconds, 3) if seconds < math.inf else None


def _ticket(request: HTTPRequest, access: AccessControl) -> bytes:
    """Exchange a token for a one-time ticket; scripts of allowed pages may do so (Fetch, "CORS")."""
    head, cors = request.head, [("Vary", "Origin")]
    origin, allowed = head.origin, access.allows_page(head, request.client)
    if origin is not None and allowed:
        cors.append(("Access-Control-Allow-Origin", origin))
    try:
        if head.method == "POST":
            return _issue(request, access, cors)
        if head.method != "OPTIONS":
            raise MethodNotAllowed(_TICKET_METHODS)
        if origin is not None and not allowed:
            raise Forbidden("the page's origin is not allowed here")
        preflight = _PREFLIGHT if allowed else ()
        return http_response(200, b"", headers=[("Allow", _TICKET_METHODS), *cors, *preflight])
    except Refused as refused:
        refused.headers += tuple(cors)  # without them, the page's script could not read the refusal
        raise


def _issue(request: HTTPRequest, access: AccessControl, cors: list[tuple[str, str]]) -> bytes:
    head = request.head
    grant = access.authenticate_bearer(head, request.client, request.deadline)
    request.note_user(grant.user)
    types = [value.partition(";")[0].strip(OWS).lower() for value in head.values("content-type")]
    if types != [_JSON]:
        raise UnsupportedMediaType("the body must be application/json")
    wanted = _wanted(request.read_body(_MAX_TICKET_BODY))
    page = wanted.pop("origin", head.origin)
    if head.origin not in (None, page):
        raise BadRequest("the body names another origin than the Origin header")
    ticket, path, seconds = access.issue_ticket(grant, request.client, origin=page, **wanted)
    body = {"ticket": ticket, "path": request.root + path, "expires_in": int(seconds)}
    return http_response(201, json.dumps(body).encode() + b"\n", content_type=_JSON, headers=cors)


def _wanted(body: bytes) -> dict[str, str]:
    """Return the members of a ticket request's body: ``vmi``, and optional ones that narrow the ticket."""
    try:
        wanted = parse_json(body, _MAX_TICKET_BRACKETS)
    except ValueError:
        raise BadRequest("the body must be a JSON object without duplicate members") from None
    if not isinstance(wanted, dict) or not all(isinstance(value, str) for value in wanted.values()):
        raise BadRequest("the body must be a JSON object of strings")
    if "vmi" not in wanted or not wanted.keys() <= {"vmi", "namespace", "subresource", "origin"}:
        raise BadRequest("the body must name a vmi, and may name a namespace, a subresource and an origin")
    if not is_dns_subdomain(wanted["vmi"]) or not is_dns_label(wanted.get("namespace", "x")):
        raise BadRequest("the vmi or the namespace in the body is not a Kubernetes name")
    return wanted
