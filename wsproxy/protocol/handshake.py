"""The opening handshake on the server's side (RFC 6455 section 4.2), bytes in and bytes out.

The head is parsed by h11 and the handshake is answered by wsproto. Neither checks all that a proxy on
the Internet has to, so the checks that they leave out stand here, before they are asked. No text raised
here quotes the request: the path holds a token.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from http import HTTPStatus

import h11
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection
from wsproto.utilities import RemoteProtocolError

from ..exceptions import (
    BadRequest,
    ContentTooLarge,
    HeadTooLarge,
    LengthRequired,
    MethodNotAllowed,
    Refused,
    UpgradeRequired,
)

__all__ = [
    "MAX_HEAD_SIZE",
    "PLAIN_KUBEVIRT",
    "HeadReader",
    "RequestHead",
    "Upgrade",
    "answered_subprotocol",
    "http_response",
    "offered_upstream",
    "refusal_response",
]

MAX_HEAD_SIZE = 16 * 1024
"""Bytes of a request head; what h11 and many servers take."""

PLAIN_KUBEVIRT = "plain.kubevirt.io"
"""The one subprotocol that KubeVirt's streams know."""

_BEARER_SUBPROTOCOL = "base64url.bearer."  # Kubernetes' way to carry a token; never passed on
_MAX_LINES = 100  # as Apache has it; a line costs far more than its bytes
_END_OF_HEAD = b"\r\n\r\n"
# What wsproto judges (RFC 6455 section 4.2.1), but for Connection, which is checked here.
_JUDGED = frozenset(
    {b"host", b"upgrade", b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol"}
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


class RequestHead:
    """A parsed request head.

    :ivar method: as sent.
    :ivar target: the request target; holds a token, so it must never be logged or quoted.
    :ivar http_version: such as "1.1".
    :ivar headers: names in lower case, and values; as many of a name as there were lines of it.
    """

    def __init__(
        self, method: str, target: str, http_version: str, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.method = method
        self.target = target
        self.http_version = http_version
        self.headers = headers
        self._values: dict[str, list[str]] = {}
        for name, value in headers:
            self._values.setdefault(name.decode("ascii"), []).append(value.decode("latin-1"))

    def values(self, name: str) -> list[str]:
        """Return the values of all header lines of that lower-case name."""
        return self._values.get(name, [])

    def tokens(self, name: str) -> list[str]:
        """Return the elements of a comma-separated header (RFC 9110 section 5.6.1)."""
        parts = ",".join(self.values(name)).split(",")
        return [stripped for part in parts if (stripped := part.strip())]

    @property
    def asks_for_websocket(self) -> bool:
        """Whether this is an upgrade request; any other ``Upgrade`` is ignored (RFC 9110 section 7.8)."""
        return "websocket" in (token.lower() for token in self.tokens("upgrade"))

    @property
    def origin(self) -> str | None:
        """The Origin header, None for a client that is no browser.

        :raises BadRequest: if there is more than one.
        """
        values = self.values("origin")
        if len(values) > 1:
            raise BadRequest("more than one Origin header")
        return values[0] if values else None

    def body_size(self, most: int) -> int:
        """Return how many bytes of body follow the head, 1 to ``most``.

        :raises LengthRequired: if the request does not say (RFC 9110 section 15.5.12).
        :raises ContentTooLarge: if there are more.
        :raises BadRequest: if it says it in two ways (RFC 9112 section 6.3), or there is no body.
        """
        lengths, chunked = self.values("content-length"), self.values("transfer-encoding")
        if len(lengths) > 1 or (lengths and (chunked or not re.fullmatch("[0-9]+", lengths[0]))):
            raise BadRequest("the length of the body is ambiguous")
        if not lengths:
            raise LengthRequired("a Content-Length is needed here")
        digits = lengths[0].lstrip("0")
        if len(digits) > len(str(most)) or int(digits or 0) > most:
            raise ContentTooLarge(f"the body is larger than {most} bytes")
        if not digits:
            raise BadRequest("a body is needed here")
        return int(digits)

    def refuse_body(self) -> None:
        """Refuse a request that has a body.

        :raises BadRequest: if it has.
        """
        if self.values("transfer-encoding") or any(v.strip() != "0" for v in self.values("content-length")):
            raise BadRequest("a request here has no body")


class HeadReader:
    """Collects bytes until the request head is complete.

    :ivar rest: the bytes behind the head, once it is complete: WebSocket data already.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self.rest = b""

    def feed(self, data: bytes) -> RequestHead | None:
        """Take received bytes and return the head as soon as it is complete.

        :raises HeadTooLarge: if the head is larger than :data:`MAX_HEAD_SIZE`, or has too many lines.
        :raises BadRequest: if it is not HTTP.
        """
        searched = max(0, len(self._data) - len(_END_OF_HEAD))
        self._data += data
        if self._data and not 0x41 <= self._data[0] <= 0x7A:
            # Methods begin with a letter. Said at once, because a TLS client waits for an answer.
            raise BadRequest("this is not HTTP; is the client using https or wss on a port without TLS?")
        end = self._data.find(_END_OF_HEAD, searched)
        if max(end + len(_END_OF_HEAD), 0 if end >= 0 else len(self._data)) > MAX_HEAD_SIZE:
            raise HeadTooLarge(f"the request head is larger than {MAX_HEAD_SIZE} bytes")
        if self._has_bare_lf(searched, end if end >= 0 else len(self._data)):
            raise BadRequest("lines of the request head must end with CR LF")
        if end < 0:
            return None
        if self._data.count(b"\r\n", 0, end) > _MAX_LINES:
            raise HeadTooLarge(f"the request head has more than {_MAX_LINES} header lines")
        head = bytes(self._data[: end + len(_END_OF_HEAD)])
        self.rest = bytes(self._data[len(head) :])
        return self._parse(head)

    def _has_bare_lf(self, start: int, stop: int) -> bool:
        ends = self._data.count(b"\r\n", max(0, start - 1), stop)
        return self._data.count(b"\n", start, stop) != ends

    @staticmethod
    def _parse(head: bytes) -> RequestHead:
        if b"\r\n " in head or b"\r\n\t" in head:
            # h11 joins them, others see another header: RFC 9112 section 5.2 lets it be refused.
            raise BadRequest("a header must not go on in the next line")
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_SIZE)
        try:
            connection.receive_data(head)
            event = connection.next_event()
        except h11.RemoteProtocolError:
            raise BadRequest("the request head is malformed") from None  # h11's text quotes it
        if not isinstance(event, h11.Request):
            raise BadRequest("the request head is malformed")
        return RequestHead(
            event.method.decode("ascii"),
            event.target.decode("ascii"),
            event.http_version.decode("ascii"),
            [(name.lower(), value) for name, value in event.headers.raw_items()],
        )


class Upgrade:
    """A well-formed upgrade request that has not been answered yet.

    :param head: a head that asks for a WebSocket.
    :ivar subprotocols: what the client offers, in its order and spelling.
    :ivar origin: the Origin header, None for a client that is no browser.
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

        :param subprotocol: one of :attr:`subprotocols`, or None for none.
        """
        return self.connection.send(AcceptConnection(subprotocol=subprotocol))


def _request_to_judge(head: RequestHead) -> bytes:
    """Return what wsproto is shown of a request: it would parse every other header once more, for nothing.

    Not the target either: its errors must not quote it. One Connection line, as it looks at the last only.
    """
    judged = [b"%s: %s\r\n" % field for field in head.headers if field[0] in _JUDGED]
    return b"GET / HTTP/1.1\r\nConnection: Upgrade\r\n%s\r\n" % b"".join(judged)


def _check_upgrade(head: RequestHead) -> None:
    if head.method != "GET":
        raise MethodNotAllowed("GET")
    if head.http_version != "1.1":
        raise BadRequest("a WebSocket needs HTTP/1.1")
    if not all(value.isascii() for _, value in head.headers):
        raise BadRequest("header values must be ASCII")
    head.refuse_body()
    if [value.strip().lower() for value in head.values("upgrade")] != ["websocket"]:
        raise BadRequest("the Upgrade header must be websocket alone")
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
    """RFC 6455 section 4.2.1: one key, the base64 form of 16 bytes."""
    if len(keys) != 1:
        raise BadRequest("there must be one Sec-WebSocket-Key header")
    try:
        nonce = base64.b64decode(keys[0], validate=True)
    except (ValueError, binascii.Error):
        nonce = b""
    if len(nonce) != 16:
        raise BadRequest("the Sec-WebSocket-Key header is not 16 bytes in base64")


def offered_upstream(client: Sequence[str]) -> tuple[str, ...]:
    """Return the subprotocols to offer upstream: the client's, less those with a token, plus KubeVirt's."""
    passed = [name for name in client if not name.lower().startswith(_BEARER_SUBPROTOCOL)]
    return tuple(dict.fromkeys([*passed, PLAIN_KUBEVIRT]))


def answered_subprotocol(client: Sequence[str], upstream: str | None) -> str | None:
    """Return the subprotocol to answer the client with, in its own spelling; None for none.

    The upstream's choice if the client offered it, else ``binary``, which old noVNC insists on.
    """
    for wanted in (upstream, "binary"):
        for name in client:
            if wanted is not None and name.lower() == wanted.lower():
                return name
    return None


def http_response(
    status: int,
    body: bytes,
    *,
    content_type: str = "text/plain; charset=utf-8",
    cache_control: str = "no-store",
    headers: Sequence[tuple[str, str]] = (),
    head_only: bool = False,
) -> bytes:
    """Return a whole HTTP/1.1 response that closes the connection.

    :param cache_control: who may keep it.
    :param head_only: leave the body out, as the answer to HEAD.
    """
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    fields = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", cache_control),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),  # the path may hold a token
        ("Connection", "close"),
        *headers,
    ]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (b"" if head_only else body)


def refusal_response(refused: Refused, *, status: int | None = None, head_only: bool = False) -> bytes:
    """Return the HTTP response that refuses a request, with the reason as JSON.

    :param status: of the response, where that is not the refusal's own.
    """
    body = {
        "status": refused.status,
        "code": refused.close_code,
        "reason": refused.slug,
        "message": refused.message,
    }
    return http_response(
        status or refused.status,
        json.dumps(body).encode() + b"\n",
        content_type="application/json",
        headers=refused.headers,
        head_only=head_only,
    )
