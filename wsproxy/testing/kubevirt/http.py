"""HTTP of the simulated API: recorded requests, Kubernetes' answers, and scripted misbehaviour."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...net.transport import Transport
from ...runtime.deadline import Deadline

__all__ = [
    "Answer",
    "BadRequest",
    "Behaviour",
    "RecordedRequest",
    "accept_value",
    "in_use_answer",
    "json_answer",
    "parse_request",
    "read_body",
    "read_head",
    "send_answer",
    "send_bytes",
    "status_answer",
    "text_answer",
    "upgrade_fault",
    "upgrade_head",
]

Headers = Sequence[tuple[str, str]]

_MAX_HEAD = 1 << 20
_MAX_BODY = 1 << 20
_RECEIVE = 16384
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ENDLESS = b"x" * 4096
_CHUNK = 16
_LINGER = 1.0
_IN_USE = (
    "dialing virt-handler: Can't connect to websocket (503): websocket: bad handshake: "
    "application info: Active VNC connection. Request denied."
)
_VAGUE = "dialing virt-handler: websocket: bad handshake"
_PHRASES = {
    101: "Switching Protocols",
    200: "OK",
    201: "Created",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class BadRequest(Exception):
    """The client's bytes are not an HTTP/1.1 request."""


@dataclass
class RecordedRequest:
    """A request as the client sent it.

    :ivar method: the method.
    :ivar target: the target, with its query.
    :ivar headers: pairs in the order and spelling of the request.
    :ivar peer: the client's address.
    :ivar at: ``time.monotonic()`` when its head was complete.
    :ivar status: the status of the answer, set before it is sent. None before that, and if the answer has no
        status (``hang``, ``raw``).
    """

    method: str
    target: str
    headers: list[tuple[str, str]]
    peer: Any
    at: float = field(default_factory=time.monotonic)
    status: int | None = None

    def __str__(self) -> str:
        outcome = "no answer" if self.status is None else str(self.status)
        return f"{self.method} {self.target} -> {outcome}"

    def values(self, name: str) -> list[str]:
        """Return the values of every header with that name, in any case."""
        return [value for header, value in self.headers if header.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the first value of a header; None if the request does not have it."""
        return next(iter(self.values(name)), None)

    def tokens(self, name: str) -> list[str]:
        """Return the comma-separated elements of a header's values."""
        return [token.strip() for value in self.values(name) for token in value.split(",") if token.strip()]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: Headers = ()

    def head(self, framing: Headers = ()) -> bytes:
        """Return status line and headers, the empty line included."""
        phrase = _PHRASES.get(self.status, "Unknown")
        lines = [f"HTTP/1.1 {self.status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in (*self.headers, *framing)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(frozen=True)
class Behaviour:
    """How the simulated API misbehaves. Fields may be combined if they make sense together.

    :ivar accept: value of ``Sec-WebSocket-Accept`` instead of the right one.
    :ivar subprotocol: value of ``Sec-WebSocket-Protocol``, whether or not the client offered it.
    :ivar headers: further header pairs of the answer (``Set-Cookie``, ``Sec-WebSocket-Extensions``, ...).
    :ivar early: raw bytes (frames) in the same write as the 101.
    :ivar coalesce: whether the API sends the 101 in the same write as the backend's first bytes.
    :ivar eof: whether the API drops the connection right after the 101 (and ``early``).
    :ivar answer: the answer instead of the right one.
    :ivar body_framing: how an answer's body is delimited: by ``length``, ``chunked``, by the ``close`` of
        the connection, or ``truncated`` (the connection ends before Content-Length is reached).
    :ivar hang: whether the API does not answer. The connection stays open until the client or ``stop`` ends
        it. An upgrade request stays pending, and the API carries it out when the behaviour changes. It then
        takes the console over, even if its client has disconnected.
    :ivar drip: seconds between single bytes of the answer.
    :ivar endless_headers: whether the API sends headers until the client disconnects.
    :ivar endless_body: whether the API sends a body until the client disconnects.
    :ivar delay: seconds by which each byte of an open session is delayed, in each direction.
    :ivar bandwidth: bytes a second of an open session, in each direction; None for no limit.
    :ivar raw: bytes that the API sends instead of an answer, before it drops the connection.
    """

    accept: str | None = None
    subprotocol: str | None = None
    headers: Headers = ()
    early: bytes = b""
    coalesce: bool = False
    eof: bool = False
    answer: Answer | None = None
    body_framing: Literal["length", "chunked", "truncated", "close"] = "length"
    hang: bool = False
    drip: float | None = None
    endless_headers: bool = False
    endless_body: bool = False
    raw: bytes | None = None
    delay: float = 0.0
    bandwidth: float | None = None

    @classmethod
    def redirect(cls, location: str, status: int = 302) -> Behaviour:
        """Return a behaviour that answers with a redirect."""
        return cls(answer=Answer(status, headers=(("Location", location),)))

    @classmethod
    def busy(cls) -> Behaviour:
        """Return a behaviour that answers every request as if another client had the display."""
        return cls(answer=in_use_answer())

    @property
    def slow_link(self) -> bool:
        """Whether an open session has a :class:`.Link` with a delay or a bandwidth."""
        return self.delay > 0 or self.bandwidth is not None

    @property
    def replaces_upgrade(self) -> bool:
        """Whether the API answers a valid upgrade request with something else than 101."""
        special = self.hang or self.endless_headers or self.endless_body
        return special or self.answer is not None or self.raw is not None


def read_head(transport: Transport, deadline: Deadline) -> bytes:
    """Receive a request's head, including the empty line. Later bytes go back to the transport. Blocks.

    :raises EOFError: if the stream ends before the head is complete.
    :raises BadRequest: if the head has more than 1 MiB.
    :raises TimeoutError: if the deadline passes.
    """
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        received = transport.recv(_RECEIVE, deadline)
        if not received:
            raise EOFError("the client ended its stream")
        data += received
        if len(data) > _MAX_HEAD:
            raise BadRequest("head too large")
    if len(data) > end + 4:
        transport.unread(bytes(data[end + 4 :]))
    return bytes(data[: end + 4])


def parse_request(head: bytes, peer: Any) -> RecordedRequest:
    """Parse the head of a request.

    :raises BadRequest: if it is not HTTP/1.1.
    """
    line, *fields = head.decode("latin-1")[:-4].split("\r\n")
    parts = line.split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1" or not parts[1].startswith("/"):
        raise BadRequest(f"not a request line: {line[:80]!r}")
    headers = []
    for text in fields:
        name, colon, value = text.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(f"not a header: {text[:80]!r}")
        headers.append((name, value.strip(" \t")))
    request = RecordedRequest(parts[0], parts[1], headers, peer)
    if len(request.values("host")) != 1:
        raise BadRequest("one Host header is required")
    return request


def read_body(transport: Transport, request: RecordedRequest, deadline: Deadline) -> bytes:
    """Receive the body that Content-Length announces. Blocks until the deadline at most.

    :raises BadRequest: if the body has more than 1 MiB, or the length is not a number.
    :raises EOFError: if the stream ends before the body is complete.
    :raises TimeoutError: if the deadline passes.
    """
    length = request.header("content-length") or "0"
    if not length.isascii() or not length.isdigit() or int(length) > _MAX_BODY:
        raise BadRequest("content-length")
    body = b""
    while len(body) < int(length):
        received = transport.recv(int(length) - len(body), deadline)
        if not received:
            raise EOFError("the client ended its stream")
        body += received
    return body


def status_answer(code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> Answer:
    """Return Kubernetes' ``Status`` object as an answer."""
    status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    status |= {"message": message, "reason": reason}
    if details is not None:
        status["details"] = details
    status["code"] = code
    return json_answer(code, status)


def in_use_answer(vague: bool = False) -> Answer:
    """Return virt-api's answer if the display is in use and the request must not end that session.

    :param vague: whether the answer omits virt-handler's text, which names the reason.
    """
    text = _VAGUE if vague else _IN_USE
    causes = {"causes": [{"message": text}]}
    return status_answer(500, "InternalError", f"Internal error occurred: {text}", causes)


def json_answer(code: int, value: Any) -> Answer:
    """Return an answer with a JSON document, which is encoded as Go encodes it."""
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    return Answer(code, body, (("Content-Type", "application/json"),))


def text_answer(code: int, text: str, headers: Headers = ()) -> Answer:
    """Return an answer with text, and with the headers of Go's ``http.Error``."""
    always = (("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff"))
    return Answer(code, text.encode(), (*headers, *always))


def accept_value(key: str) -> str:
    """Return the right ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key``."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def upgrade_fault(request: RecordedRequest) -> str | None:
    """Return why gorilla/websocket refuses a GET as an opening handshake; None if it accepts it."""
    if "upgrade" not in [token.lower() for token in request.tokens("connection")]:
        return "'upgrade' token not found in 'Connection' header"
    if "websocket" not in [token.lower() for token in request.tokens("upgrade")]:
        return "'websocket' token not found in 'Upgrade' header"
    if "13" not in request.tokens("sec-websocket-version"):
        return "unsupported version: 13 not found in 'Sec-Websocket-Version' header"
    try:
        key = base64.b64decode(request.header("sec-websocket-key") or "", validate=True)
    except binascii.Error:
        key = b""
    return None if len(key) == 16 else "'Sec-WebSocket-Key' header must be Base64 encoded value of 16-byte"


def upgrade_head(request: RecordedRequest, subprotocol: str | None, behaviour: Behaviour) -> bytes:
    """Return the head of the 101, with its headers in the order of gorilla/websocket."""
    key = request.header("sec-websocket-key") or ""
    accept = behaviour.accept if behaviour.accept is not None else accept_value(key)
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    if subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    return Answer(101, headers=(*headers, *behaviour.headers)).head()


def _framed(answer: Answer, framing: str) -> bytes:
    """Return an answer as bytes, with its body delimited as ``framing`` says."""
    body, close = answer.body, ("Connection", "close")
    if framing == "chunked":
        chunks = [body[start : start + _CHUNK] for start in range(0, len(body), _CHUNK)]
        coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        return answer.head((("Transfer-Encoding", "chunked"), close)) + coded
    if framing == "close":
        return answer.head((close,)) + body
    missing = 100 if framing == "truncated" else 0
    return answer.head((("Content-Length", str(len(body) + missing)), close)) + body


def _drip(transport: Transport, data: bytes, seconds: float, stop: threading.Event) -> None:
    for index in range(len(data)):
        transport.sendall(data[index : index + 1])
        if stop.wait(seconds):
            return


def send_bytes(transport: Transport, data: bytes, behaviour: Behaviour, stop: threading.Event) -> None:
    """Send ``data`` at once, or byte by byte if the behaviour says so. ``stop`` ends a slow answer."""
    if behaviour.drip is None:
        transport.sendall(data)
    else:
        _drip(transport, data, behaviour.drip, stop)


def _hang(transport: Transport) -> None:
    scratch = memoryview(bytearray(_RECEIVE))
    while transport.recv_into(scratch):
        pass


def send_answer(transport: Transport, answer: Answer, behaviour: Behaviour, stop: threading.Event) -> None:
    """Send an answer other than 101 as the behaviour says, and let the client read all of it.

    After the last byte it waits for a second at most until the client ends its side. ``hang`` and endless
    answers last until the client or an abort of the transport ends the connection.
    """
    if behaviour.hang:
        return _hang(transport)
    if behaviour.raw is not None:
        send_bytes(transport, behaviour.raw, behaviour, stop)
    elif behaviour.endless_headers:
        transport.sendall(answer.head()[:-2])
        while not stop.is_set():
            transport.sendall(b"X-Filler: %s\r\n" % _ENDLESS)
    elif behaviour.endless_body:
        transport.sendall(answer.head((("Connection", "close"),)))
        while not stop.is_set():
            transport.sendall(_ENDLESS)
    else:
        answer = Answer(answer.status, answer.body, (*answer.headers, *behaviour.headers))
        send_bytes(transport, _framed(answer, behaviour.body_framing), behaviour, stop)
    transport.linger(Deadline(_LINGER))
