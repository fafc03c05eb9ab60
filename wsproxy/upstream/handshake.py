"""The opening handshake with the Kubernetes API (RFC 6455 section 4).

websocket-client does the handshake over :class:`HandshakeStream`, which stands in for a socket. The stream
reads the whole response head, and shows websocket-client only the headers that it has to check. It adds the
credentials when it sends the request, so websocket-client's errors and traces cannot contain them.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Sequence
from contextlib import closing

import websocket
from wsproto.utilities import generate_accept_token

from ..exceptions import TransportClosed, UpstreamRefused
from ..net.addresses import WebURL
from ..net.http_client import ResponseStream, read_good
from ..net.transport import Transport
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger
from .errors import refusal_of

__all__ = ["HandshakeStream", "Unauthorized", "chosen_subprotocol", "shake_hands"]

logger = get_logger("wsproxy.upstream")

_MAX_RESPONSE_HEAD = 64 * 1024
_MAX_ERROR_BODY = 64 * 1024
_RECEIVE = 16 * 1024
_KEY = b"Sec-WebSocket-Key: "
_SHOWN = (b"upgrade:", b"connection:", b"sec-websocket-accept:")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?= |\r)")


class Unauthorized(Exception):
    """The API does not accept the proxy's token (401)."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


def shake_hands(stream: HandshakeStream, url: WebURL, path: str, subprotocols: Sequence[str]) -> None:
    """Request a WebSocket at ``path``, and check the response. Blocks until the stream's deadline.

    :param subprotocols: the subprotocols to offer.
    :raises TimeoutError: if the deadline passes.
    :raises TransportClosed: if the stream ends first, or the response is not HTTP.
    :raises Unauthorized: if the API does not accept the proxy's token.
    :raises Refused: if it refuses for another reason, or its handshake is wrong.
    """
    client = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
    headers = {
        # With websocket-client's option "subprotocols", an API that chooses none would be an error.
        "Sec-WebSocket-Protocol": ", ".join(subprotocols),
        "User-Agent": "wsproxy",
    }
    error: Exception | None = None
    try:
        client.connect(  # type: ignore[no-untyped-call]
            url.below(path), socket=stream, header=headers, suppress_origin=True, redirect_limit=0
        )
    except websocket.WebSocketTimeoutException:  # it turns the stream's TimeoutError into this
        raise TimeoutError("no answer to the opening handshake in time") from None
    except (websocket.WebSocketException, ValueError) as exc:
        error = exc
    finally:
        # The client must not close the stream. It refers to itself, which leaves it to the garbage collector.
        vars(client).clear()
    status = stream.status
    if status == 401:
        raise Unauthorized(stream.read_body())
    if status is not None and status != 101:
        raise refusal_of(status, stream.read_body())
    accepted = stream.values(b"sec-websocket-accept") == [generate_accept_token(stream.key).decode("ascii")]
    if error is not None or status is None or not accepted:
        detail = f"the handshake failed: {type(error).__name__ if error else 'Sec-WebSocket-Accept is wrong'}"
        raise UpstreamRefused("the Kubernetes API did not answer as a WebSocket server", log_detail=detail)
    if any(stream.values(b"sec-websocket-extensions")):
        raise UpstreamRefused("the Kubernetes API agreed to an extension that was not offered")


def chosen_subprotocol(stream: HandshakeStream, offered: Sequence[str]) -> str | None:
    """Return the subprotocol that the API chose; None without the header, or if the header is empty.

    :raises UpstreamRefused: if it was not offered, or if there are several.
    """
    chosen = [value for value in stream.values(b"sec-websocket-protocol") if value]
    if not chosen:
        return None
    if len(chosen) > 1 or chosen[0].lower() not in (name.lower() for name in offered):
        raise UpstreamRefused("the Kubernetes API chose a subprotocol that was not offered")
    return chosen[0]


class HandshakeStream:
    """The socket that websocket-client uses during the opening handshake.

    :param transport: a connected transport.
    :param deadline: bounds all calls together.
    :param credentials: bearer token that the stream adds to the request; None to add none.
    :ivar key: the request's Sec-WebSocket-Key, b"" before the request was sent.
    :ivar status: the response's status, None before the response came.
    """

    def __init__(self, transport: Transport, deadline: Deadline, credentials: str | None) -> None:
        self._transport = transport
        self._deadline = deadline
        self._credentials = credentials
        self._shown = b""  # what websocket-client may still read
        self._head = b""
        self._fields: list[tuple[bytes, bytes]] = []  # the response's headers, names in lower case
        self._rest = b""  # bytes that came after the head
        self.key = b""
        self.status: int | None = None

    @property
    def is_unanswered(self) -> bool:
        """Whether the server may have the request, but has not answered."""
        return bool(self.key) and self.status is None

    # The methods of a socket that websocket-client calls

    def send(self, data: bytes) -> int:
        # Drop cookies: websocket-client's jar is process-wide, and other code may have put cookies in it.
        lines = [line for line in data.split(b"\r\n")[:-2] if not line.lower().startswith(b"cookie:")]
        self.key = next((line[len(_KEY) :] for line in lines if line.startswith(_KEY)), b"")
        if self._credentials is not None:
            lines.append(b"Authorization: Bearer " + self._credentials.encode("ascii"))
        self._transport.send(b"\r\n".join([*lines, b"", b""]), self._deadline)
        return len(data)

    def recv(self, size: int) -> bytes:
        # websocket-client asks for single bytes, and looks only for a line feed. So it gets lines and line
        # feeds in turn, whatever the size: byte by byte, this was the longest step of an opening.
        if self.status is None:
            self.read_head()
        cut = self._shown.find(b"\n") or 1
        part, self._shown = self._shown[:cut], self._shown[cut:]
        return part

    def gettimeout(self) -> float | None:
        return None

    def settimeout(self, timeout: float | None) -> None:
        pass  # the deadline bounds the call

    def close(self) -> None:
        pass  # the transport's owner closes it

    # For the proxy's own code

    def read_head(self) -> int:
        """Read the response head and return its status.

        :raises TransportClosed: if the stream ends first, the head is too large, or it is not HTTP.
        :raises TimeoutError: if the deadline passes.
        """
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > _MAX_RESPONSE_HEAD:
                raise TransportClosed("the response head is too large")
            received = self._transport.recv(_RECEIVE, self._deadline)
            if not received:
                raise TransportClosed("the connection ended before a response")
            data += received
        self._head, self._rest = data[: end + 4], data[end + 4 :]
        match = _STATUS_LINE.match(self._head)
        if match is None:
            raise TransportClosed("the response is not HTTP/1.1")
        self.status = int(match[1])
        # Show only the headers that websocket-client has to check. It would keep a cookie for every other
        # session of this process, and read a body without a limit.
        first, *lines = self._head.split(b"\r\n")
        shown = [line for line in lines if line.lower().startswith(_SHOWN)]
        self._shown = b"\r\n".join([first, *shown, b"", b""])
        fields = [line.partition(b":") for line in lines]
        self._fields = [(name.strip().lower(), value.strip()) for name, _, value in fields]
        return self.status

    def values(self, name: bytes) -> list[str]:
        """Return the values of a response header, by its lower-case name."""
        return [value.decode("latin-1") for key, value in self._fields if key == name]

    def read_body(self) -> bytes:
        """Read the body of a refusal: what comes before the deadline, at most 64 KiB. Never raises."""
        self._transport.unread(self._head + self._rest)  # http.client reads the response from its first byte
        stream, body = ResponseStream(self._transport, self._deadline), b""
        try:
            # Closed here: if the garbage collector frees a response that was not read to its end, Python may
            # write a complaint to stderr.
            with closing(http.client.HTTPResponse(stream)) as response:  # type: ignore[arg-type]
                response.begin()
                while len(body) < _MAX_ERROR_BODY and (part := response.read1(_RECEIVE)):
                    body += part
        except (http.client.HTTPException, OSError, TransportClosed, ValueError) as exc:
            logger.debug("the body of a refusal is cut short: %s", type(exc).__name__)
        return body[:_MAX_ERROR_BODY]

    def read_good(self, max_size: int) -> bytes:
        """Read the body of a 200: see :func:`.read_good`."""
        self._transport.unread(self._head + self._rest)
        return read_good(ResponseStream(self._transport, self._deadline), max_size)

    def hand_over(self) -> None:
        """Give the bytes that came after the 101, which are frames, back to the transport's next reader."""
        self._transport.unread(self._rest)
