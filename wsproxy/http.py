"""The named HTTP endpoints: everything that is answered without an upgrade. No I/O of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .access import AccessControl
from .deadline import Deadline
from .exceptions import BadRequest, Forbidden, MethodNotAllowed, Refused, UnsupportedMediaType
from .forwarded import Client
from .routing import endpoint_of, is_dns_label, is_dns_subdomain
from .strict_json import parse_json
from .upgrade import RequestHead, http_response

__all__ = ["HTTPRequest", "answer", "endpoint_names"]

_MAX_TICKET_BODY = 4096
_MAX_TICKET_BRACKETS = 8  # a host in an origin may have some
_TICKET_METHODS = "POST, OPTIONS"
_PREFLIGHT = (
    ("Access-Control-Allow-Methods", "POST"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type"),
    ("Access-Control-Max-Age", "600"),  # seconds
)


class Ready(Protocol):
    """Knows whether the proxy is ready."""

    def is_ready(self, deadline: Deadline) -> bool: ...


@dataclass(frozen=True)
class HTTPRequest:
    """A request that is no upgrade.

    :ivar client: who sent it.
    :ivar deadline: bounds all of it, the answer included.
    :ivar read_body: returns the whole body, which must not have more bytes than it is given. An endpoint
        calls it at most once, and only for a request that it would answer otherwise.
    :ivar root: the path that everything here is mounted under by others, "" for none.
    """

    head: RequestHead
    client: Client
    deadline: Deadline
    read_body: Callable[[int], bytes]
    root: str = ""


def answer(request: HTTPRequest, prefix: tuple[str, ...], access: AccessControl, readiness: Ready) -> bytes:
    """Return the whole response to a request that is no upgrade. Blocks while it reads the body, or probes.

    :param prefix: the configured path prefix.
    :param readiness: what ``/readyz`` says.
    :raises Refused: if there is no such endpoint, or not for this method, or it refuses the request.
    """
    endpoints: dict[str, Callable[[], bytes]] = {
        "healthz": lambda: _health(request, lambda deadline: True),
        "readyz": lambda: _health(request, readiness.is_ready),
        "ticket": lambda: _ticket(request, access),
    }
    endpoint = endpoint_of(request.head.target, prefix, endpoint_names(access.issues_tickets))
    return endpoints[endpoint.name]()


def endpoint_names(tickets: bool) -> tuple[str, ...]:
    """Return the names of the endpoints that there are.

    :param tickets: whether tickets are switched on.
    """
    return ("healthz", "readyz", "ticket") if tickets else ("healthz", "readyz")


def _health(request: HTTPRequest, is_good: Callable[[Deadline], bool]) -> bytes:
    head = request.head
    if head.method not in ("GET", "HEAD"):
        raise MethodNotAllowed("GET, HEAD")
    head.refuse_body()
    status, body = (200, b"ok\n") if is_good(request.deadline) else (503, b"not ready\n")
    return http_response(status, body, head_only=head.method == "HEAD")


def _ticket(request: HTTPRequest, access: AccessControl) -> bytes:
    """Exchange a token for a one-time ticket, for scripts of the pages that are allowed (Fetch, "CORS")."""
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
        refused.headers += tuple(cors)  # without them the page would not learn why
        raise


def _issue(request: HTTPRequest, access: AccessControl, cors: list[tuple[str, str]]) -> bytes:
    head = request.head
    grant = access.authenticate_bearer(head, request.client, request.deadline)
    types = [value.partition(";")[0].strip().lower() for value in head.values("content-type")]
    if types != ["application/json"]:
        raise UnsupportedMediaType("the body must be application/json")
    wanted = _wanted(request.read_body(_MAX_TICKET_BODY))
    page = wanted.pop("origin", head.origin)
    if head.origin not in (None, page):
        raise BadRequest("the body names another origin than the Origin header")
    ticket, path, seconds = access.issue_ticket(grant, request.client, origin=page, **wanted)
    body = {"ticket": ticket, "path": request.root + path, "expires_in": int(seconds)}
    return http_response(
        201, json.dumps(body).encode() + b"\n", content_type="application/json", headers=cors
    )


def _wanted(body: bytes) -> dict[str, str]:
    """Return the members of a request for a ticket: ``vmi``, and perhaps those that narrow it further."""
    try:
        wanted = parse_json(body, _MAX_TICKET_BRACKETS)
    except ValueError:
        raise BadRequest("the body must be a JSON object, no member of which comes twice") from None
    if not isinstance(wanted, dict) or not all(isinstance(value, str) for value in wanted.values()):
        raise BadRequest("the body must be a JSON object of strings")
    if "vmi" not in wanted or not wanted.keys() <= {"vmi", "namespace", "subresource", "origin"}:
        raise BadRequest("the body must name a vmi, and may name a namespace, a subresource and an origin")
    if not is_dns_subdomain(wanted["vmi"]) or not is_dns_label(wanted.get("namespace", "x")):
        raise BadRequest("the vmi or the namespace in the body is not a Kubernetes name")
    return wanted
