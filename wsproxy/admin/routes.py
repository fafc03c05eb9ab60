"""Which requests at the operator's listener may be answered, and what answers them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from ..exceptions import BadRequest, Forbidden, MethodNotAllowed, NotFound, UnsupportedMediaType
from ..protocol.request import OWS, RequestHead

__all__ = ["AdminEndpoint", "AdminRequest", "AdminRoutes", "Reply", "body_size"]

_MAX_BODY = 16 * 1024

Reply = Callable[[Callable[[], bytes]], None]
"""Takes what makes a whole response or raises :class:`.Refused`, now or later, in the thread that serves.

It is called at once, but only the first time, and not if the client has gone or was told it took too long.
"""


@dataclass(frozen=True)
class AdminRequest:
    """A request that may be answered.

    :ivar path: without the query.
    :ivar name: the last element of a path whose others are one of the endpoints'.
    :ivar body: of a POST: JSON, as its sender says.
    """

    head: RequestHead
    path: str
    name: str = ""
    body: bytes = b""


@dataclass(frozen=True)
class AdminEndpoint:
    """What answers at one path.

    :ivar method: the one that it takes.
    :ivar handle: answers; may raise :class:`.Refused`. Must not block.
    :ivar guard: raises :class:`.Refused` for who may not ask, before anything else is looked at.
    """

    method: str
    handle: Callable[[AdminRequest, Reply], None]
    guard: Callable[[RequestHead], None] | None = None


class AdminRoutes:
    """The endpoints, by their paths.

    :param endpoints: as for :class:`.AdminServer`, as are ``hosts``.
    """

    def __init__(self, endpoints: Mapping[str, AdminEndpoint], hosts: Collection[str]) -> None:
        self._endpoints = endpoints
        self._hosts = frozenset(name.lower() for name in hosts)

    def find(self, head: RequestHead) -> tuple[AdminEndpoint, AdminRequest]:
        """Return what answers a request, if it is one that may be answered.

        :raises Refused: if not.
        """
        if not self._is_host(head.values("host")):
            # A page may have its own name point to our address (DNS rebinding).
            raise Forbidden("the Host header must be an address, localhost, or a name listed in admin_hosts")
        if head.values("origin"):
            raise Forbidden("this is not for pages")
        path = head.target.partition("?")[0]
        endpoint, name = self._endpoints.get(path), ""
        if endpoint is None:
            parent, slash, name = path.rpartition("/")
            endpoint = self._endpoints.get(parent + slash)
        if endpoint is None or path.endswith("/"):
            raise NotFound("there is no such page")
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
    """Return how many bytes follow a head that may be answered.

    :raises Refused: if it is not what should follow.
    """
    if head.method != "POST":
        head.refuse_body()
        return 0
    # A page can send JSON nowhere without being asked first (CORS); what forms send is of other types.
    types = [value.partition(";")[0].strip(OWS).lower() for value in head.values("content-type")]
    if types != ["application/json"]:
        raise UnsupportedMediaType("the body must be application/json")
    return head.body_size(_MAX_BODY)
