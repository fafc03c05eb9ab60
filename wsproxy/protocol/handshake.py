"""The opening handshake on the server's side (RFC 6455 section 4.2). No I/O.

h11 parses the head, and wsproto answers the handshake. A proxy on the Internet needs more checks than
these libraries make; this file makes them first. No error text quotes the request, because the path may
hold a token.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

import h11
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection
from wsproto.utilities import RemoteProtocolError

from ..exceptions import (
    BadRequest,
    MethodNotAllowed,
    Refused,
    UpgradeRequired,
)
from .request import OWS, RequestHead

__all__ = ["PLAIN_KUBEVIRT", "Upgrade", "answered_subprotocol", "offered_upstream", "upgrade_of"]


PLAIN_KUBEVIRT = "plain.kubevirt.io"
"""The only subprotocol that KubeVirt's streams support."""

_BEARER_SUBPROTOCOL = "base64url.bearer."  # carries a token in Kubernetes; never passed on
# Headers that wsproto checks (RFC 6455 section 4.2.1), without Connection, which this file checks.
_JUDGED = frozenset(
    {b"host", b"upgrade", b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol"}
)
_READ = _JUDGED | {b"connection", b"origin"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


class Upgrade:
    """A well-formed upgrade request that the proxy has not answered yet.

    :param head: a head that asks for a WebSocket.
    :ivar subprotocols: the subprotocols that the client offers, in its order and spelling.
    :ivar origin: the Origin header; None without one, as from clients that are not browsers.
    :raises MethodNotAllowed: if the method is not GET.
    :raises UpgradeRequired: if the WebSocket version is not 13.
    :raises BadRequest: for every other fault.
    """

    def __init__(self, head: RequestHead) -> None:
        _check_upgrade(head)
        self.subprotocols = tuple(head.tokens("sec-websocket-protocol"))
        self.origin = head.origin
        self.connection = WSConnection(ConnectionType.SERVER)
        try:
            self.connection.receive_data(_request_to_judge(head))
            next(self.connection.events())
        except (RemoteProtocolError, h11.LocalProtocolError, UnicodeError):
            raise BadRequest("the upgrade request is malformed") from None

    def accept(self, subprotocol: str | None) -> bytes:
        """Return the 101 response, without extensions.

        :param subprotocol: one of :attr:`subprotocols`; None for a response without a subprotocol.
        """
        return self.connection.send(AcceptConnection(subprotocol=subprotocol))


def upgrade_of(head: RequestHead | None) -> Upgrade | None:
    """Return the upgrade request of a head that the proxy refuses for another fault.

    :returns: None if the head is not a well-formed upgrade request.
    """
    try:
        return Upgrade(head) if head and head.asks_for_websocket else None
    except Refused:
        return None


def _request_to_judge(head: RequestHead) -> bytes:
    """Return the part of a request that wsproto has to check, so that it does not parse all headers again.

    The target is left out, because wsproto's errors must not quote it. There is one Connection line, because
    wsproto looks at the last one only.
    """
    judged = [b"%s: %s\r\n" % field for field in head.headers if field[0] in _JUDGED]
    return b"GET / HTTP/1.1\r\nConnection: Upgrade\r\n%s\r\n" % b"".join(judged)


def _check_upgrade(head: RequestHead) -> None:
    if head.method != "GET":
        raise MethodNotAllowed("GET")
    if head.http_version != "1.1":
        raise BadRequest("a WebSocket needs HTTP/1.1")
    # The proxy ignores other headers. A login proxy may add names there, or another site a cookie.
    if any(name in _READ and not value.isascii() for name, value in head.headers):
        raise BadRequest("the headers of the WebSocket handshake must be ASCII")
    head.refuse_body()
    if [value.strip(OWS).lower() for value in head.values("upgrade")] != ["websocket"]:
        raise BadRequest("the Upgrade header must contain websocket only")
    if "upgrade" not in (token.lower() for token in head.tokens("connection")):
        raise BadRequest("the Connection header must contain Upgrade")
    versions = head.values("sec-websocket-version")
    if len(versions) > 1:
        raise BadRequest("more than one Sec-WebSocket-Version header")
    if versions != ["13"]:
        raise UpgradeRequired()
    _check_key(head.values("sec-websocket-key"))
    if not all(_TOKEN.fullmatch(name) for name in head.tokens("sec-websocket-protocol")):
        raise BadRequest("the Sec-WebSocket-Protocol header is malformed")


def _check_key(keys: Sequence[str]) -> None:
    """Check that there is one key, 16 bytes in base64 (RFC 6455 section 4.2.1)."""
    if len(keys) != 1:
        raise BadRequest("there must be one Sec-WebSocket-Key header")
    try:
        nonce = base64.b64decode(keys[0], validate=True)
    except (ValueError, binascii.Error):
        nonce = b""
    if len(nonce) != 16:
        raise BadRequest("the Sec-WebSocket-Key header is not 16 bytes in base64")


def offered_upstream(client: Sequence[str]) -> tuple[str, ...]:
    """Return the subprotocols to offer the upstream: the client's, without tokens, and KubeVirt's."""
    passed = [name for name in client if not name.lower().startswith(_BEARER_SUBPROTOCOL)]
    return tuple(dict.fromkeys([*passed, PLAIN_KUBEVIRT]))


def answered_subprotocol(client: Sequence[str], upstream: str | None) -> str | None:
    """Return the subprotocol for the answer to the client, in the client's spelling; None for none.

    It is the upstream's choice if the client offered that. Otherwise it is ``binary`` if the client offered
    it, because old noVNC fails without it.
    """
    for wanted in (upstream, "binary"):
        for name in client:
            if wanted is not None and name.lower() == wanted.lower():
                return name
    return None
