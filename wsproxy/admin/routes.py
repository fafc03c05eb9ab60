"""Finds the endpoint that answers a request at the operator's listener, or refuses the request. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from ..exceptions import BadRequest, Forbidden, MethodNotAllowed, NotFound, UnsupportedMediaType
from ..protocol.request import OWS, RequestHead

__all__ = ["AdminEndpoint", "AdminRequest", "AdminRoutes", "Reply", "body_size"]

_MAX_BODY = 16 * 1024

Reply = Callable[[Callable[[], bytes]], None]
"""Takes a function that makes a whole response or raises :class:`.Refused`.

An endpoint calls this now or later, in the thread that serves. The first call calls the function at once.
Later calls do nothing, nor does any call after the client has left or has got a 504.
"""


@dataclass(frozen=True)
class AdminRequest:
    """A request that an endpoint answers.

    :ivar path: the path of the target, without the query.
    :ivar name: the path's last segment, if the endpoint's path ends with a slash; "" otherwise.
    :ivar body: the body of a POST, whose Content-Type is JSON; not parsed yet.
    """

    head: RequestHead
    path: str
    name: str = ""
    body: bytes = b""


@dataclass(frozen=True)
class AdminEndpoint:
    """An endpoint at one path.

    :ivar method: the only method that it takes.
    :ivar handle: answers; may raise :class:`.Refused`. Must not block.
    :ivar fetch: makes the answer elsewhere, instead of ``handle``: see :data:`.Fetch`. Must not block.
    :ivar guard: raises :class:`.Refused` if the client is not the operator, before the method is checked;
        None if every client may ask.
    """

    method: str
    handle: Callable[[AdminRequest, Reply], None]
    guard: Callable[[RequestHead], None] | None = None
    fetch: Callable[[AdminRequest], Any] | None = None


class AdminRoutes:
    """The endpoints, by path.

    :param endpoints: as for :class:`.AdminServer`.
    :param hosts: as for :class:`.AdminServer`.
    """

    def __init__(self, endpoints: Mapping[str, AdminEndpoint], hosts: Collection[str]) -> None:
        self._endpoints = endpoints
        self._hosts = frozenset(name.lower() for name in hosts)

    def find(self, head: RequestHead) -> tuple[AdminEndpoint, AdminRequest]:
        """Return the endpoint for a request, and the request without its body.

        :raises Refused: if no endpoint may answer it.
        """
        if not self._is_host(head.values("host")):
            # A page's own host name may resolve to our address (DNS rebinding).
            raise Forbidden("the Host header must be an address, localhost, or a name listed in admin_hosts")
        if head.values("origin"):
            raise Forbidden("the operator's listener does not serve web pages")
        path = head.target.partition("?")[0]
        endpoint, name = self._endpoints.get(path), ""
        if endpoint is None:
            parent, slash, name = path.rpartition("/")
            endpoint = self._endpoints.get(parent + slash)
        if endpoint is None or path.endswith("/"):
            raise NotFound("there is no such endpoint")
        if endpoint.guard:
            endpoint.guard(head)
        if head.method != endpoint.method:
            raise MethodNotAllowed(endpoint.method)
        return endpoint, AdminRequest(head, path, name)

    def _is_host(self, values: list[str]) -> bool:
        if len(values) != 1:
            raise BadRequest("there must be one Host header")
        value = values[0].strip(OWS).lower()
        host = value[1:].partition("]")[0] if value.startswith("[") else value.partition(":")[0]
        if host == "localhost" or host in self._hosts:
            return True
        try:
            ip_address(host)
        except ValueError:
            return False
        return True


def body_size(head: RequestHead) -> int:
    """Return the number of body bytes that follow a head.

    :raises Refused: if the request may not have such a body.
    """
    if head.method != "POST":
        head.refuse_body()
        return 0
    # A page cannot send JSON here without a CORS preflight, which fails; forms have other types.
    types = [value.partition(";")[0].strip(OWS).lower() for value in head.values("content-type")]
    if types != ["application/json"]:
        raise UnsupportedMediaType("the body must be application/json")
    return head.body_size(_MAX_BODY)
