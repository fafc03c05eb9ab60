"""A viewer for tests: RFB 3.8 (RFC 6143) over any byte stream, and over a WebSocket.

`RFBClient` speaks the protocol over a `ByteStream`: a socket, or a `WebSocketStream`. Errors::

    ConnectionError
    ├── ConsoleClosed     the connection ended; code and reason as in RFC 6455 section 7.1.5
    ├── UpgradeRefused    the opening handshake was answered with an HTTP status
    └── RFBRefused        the RFB handshake was refused with a reason
    TimeoutError          an operation's time is over
    RFBError              the server sent something that is not RFB
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Protocol, final

from wsproxy.deadline import Deadline
from wsproxy.rfb import SECURITY_NONE, VERSION_3_8, RFBError, parse_version
from wsproxy.testing.canvas import Rectangle
from wsproxy.testing.png import Image
from wsproxy.testing.rfb_messages import (
    RGBX,
    SECURITY_OK,
    Encoding,
    FramebufferUpdateRequest,
    KeyEvent,
    PointerEvent,
    ServerInit,
    SetEncodings,
    SetPixelFormat,
)
from wsproxy.testing.rfb_updates import (
    Bell,
    CopyRectangle,
    CutText,
    Framebuffer,
    NewSize,
    RawRectangle,
    ServerMessage,
    ServerParser,
    UpdateEnd,
)
from wsproxy.testing.websocket_stream import (
    ABNORMAL,
    ConsoleClosed,
    UpgradeRefused,
    WebSocketStream,
    open_websocket,
)

__all__ = [
    "ByteStream",
    "ConsoleClosed",
    "RFBClient",
    "RFBRefused",
    "UpgradeRefused",
    "WebSocketStream",
    "open_websocket",
]

_CHUNK = 65536
_MAX_REASON = 65536  # bytes of a refusal's reason; a name is bounded by it as well
_GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)
_KEYSYMS = {"\b": 0xFF08, "\t": 0xFF09, "\n": 0xFF0D, "\x1b": 0xFF1B}


class RFBRefused(ConnectionError):
    """The server refused the RFB handshake and said why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ByteStream(Protocol):
    """What `RFBClient` speaks over; a `socket.socket` is one.

    `recv` blocks and returns at least one byte, or b"" at the end. It may raise TimeoutError after a while of
    its own: the client then asks again until its operation's timeout is over. A `recv` that never does
    cannot be bounded by the client.
    """

    def recv(self, max_bytes: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...

    def close(self) -> None: ...


@final
class RFBClient:
    """A viewer without a window. Owns the stream: `close`, or leaving the context, closes it.

    `timeout` is in seconds and bounds each operation that is not given its own, as far as the stream allows
    (see `ByteStream`). Every method may raise TimeoutError, ConsoleClosed or RFBError; after one of them the
    viewer can only be closed, but after TimeoutError from `screenshot` or `wait_until` it goes on. One thread
    at a time.
    """

    def __init__(self, stream: ByteStream, timeout: float = 10.0) -> None:
        self.stream = stream
        self.name = ""
        self.bells = 0
        self.cut_text = b""
        self._timeout = timeout
        self._pending = bytearray()  # bytes of the handshake not looked at yet
        self._parser = ServerParser()
        self._ready: Iterator[ServerMessage] = iter(())
        self._framebuffer = Framebuffer(1, 1)
        self._requested = False

    @classmethod
    def connect(
        cls,
        url: str,
        timeout: float = 10.0,
        *,
        header: Iterable[str] = (),
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> RFBClient:
        """Open a URL as `open_websocket` does and return a viewer over it, before its handshake."""
        connection = open_websocket(
            url, timeout, header=header, origin=origin, subprotocols=subprotocols, tls=tls
        )
        return cls(WebSocketStream(connection, timeout), timeout)

    def __enter__(self) -> RFBClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size(self) -> tuple[int, int]:
        """The screen's width and height in pixels; (1, 1) before the handshake."""
        return self._framebuffer.size

    def handshake(self, timeout: float | None = None) -> None:
        """Go through the RFB handshake with security type None (RFC 6143 section 7.1); blocks.

        Raises RFBRefused with the server's reason if it refuses.
        """
        deadline = self._deadline(timeout)
        if parse_version(self._take(12, deadline)) < (3, 8):
            raise RFBError("the server does not speak RFB 3.8")
        self._send(VERSION_3_8)
        self._agree_on_security(deadline)
        self._send(b"\x01")  # ClientInit: other viewers may stay
        head = self._take(ServerInit.HEAD, deadline)
        self._start(ServerInit.parse(head + self._take_counted(ServerInit.name_length(head), deadline)))

    def screenshot(self, timeout: float | None = None) -> Image:
        """Ask for the whole screen and return it once every pixel has come; blocks."""
        deadline = self._deadline(timeout)
        missing = self._ask_for_all()
        # Not "the next update": that one may answer an earlier request.
        while missing:
            message = self._next_message(deadline)
            if isinstance(message, NewSize):
                missing = self._ask_for_all()
            elif isinstance(message, RawRectangle | CopyRectangle):
                missing = [rest for area in missing for rest in area.difference(message.area)]
        return self._framebuffer.image()

    def wait_until(self, predicate: Callable[[Image], bool], timeout: float | None = None) -> Image:
        """Watch the screen until a picture of it satisfies `predicate`, and return that picture; blocks."""
        deadline = self._deadline(timeout)
        image = self.screenshot(deadline.remaining())
        while not predicate(image):
            self._await_update(deadline)
            image = self._framebuffer.image()
        return image

    def wait_closed(self, timeout: float | None = None) -> ConsoleClosed:
        """Drop what still comes until the connection ends, and return how it ended; blocks."""
        deadline = self._deadline(timeout)
        try:
            while True:
                self._receive(deadline)
        except ConsoleClosed as end:
            return end

    def type(self, text: str) -> None:
        """Press and release the key of each character; a newline is Return, a backspace Backspace."""
        self._send(b"".join(_stroke(_keysym(character)) for character in text))

    def key(self, keysym: int) -> None:
        """Press and release one key, named by its X keysym."""
        self._send(_stroke(keysym))

    def move(self, x: int, y: int) -> None:
        """Move the pointer, no button down, to a place in pixels."""
        self._send(PointerEvent(0, x, y).encode())

    def click(self, x: int, y: int, button: int = 1) -> None:
        """Press and release a button of the pointer, 1 = left, at a place in pixels."""
        pressed = PointerEvent(1 << (button - 1), x, y)
        self._send(pressed.encode() + PointerEvent(0, x, y).encode())

    def close(self, code: int = 1000) -> None:
        """End the connection, over a WebSocket with this code. Idempotent; the stream's timeout bounds it."""
        if isinstance(self.stream, WebSocketStream):
            self.stream.close(code)
        else:
            self.stream.close()

    # --- handshake ---

    def _agree_on_security(self, deadline: Deadline) -> None:
        offered = self._take(self._take(1, deadline)[0], deadline)
        if not offered:
            raise RFBRefused(self._take_reason(deadline))
        if SECURITY_NONE not in offered:
            raise RFBError(f"the server offers security types {list(offered)}, not None")
        self._send(bytes((SECURITY_NONE,)))
        if self._take(4, deadline) != SECURITY_OK:
            raise RFBRefused(self._take_reason(deadline))

    def _start(self, init: ServerInit) -> None:
        self.name = init.name
        self._framebuffer = Framebuffer(init.width, init.height)
        encodings = SetEncodings((Encoding.COPY_RECT, Encoding.RAW, Encoding.DESKTOP_SIZE))
        self._send(SetPixelFormat(RGBX).encode() + encodings.encode())
        self._ready = self._parser.receive(bytes(self._pending))
        self._pending.clear()

    def _take_reason(self, deadline: Deadline) -> str:
        length = int.from_bytes(self._take(4, deadline), "big")
        return self._take_counted(length, deadline).decode("utf-8", "replace")

    def _take_counted(self, length: int, deadline: Deadline) -> bytes:
        if length > _MAX_REASON:
            raise RFBError(f"a text of {length} bytes: at most {_MAX_REASON}")
        return self._take(length, deadline)

    def _take(self, length: int, deadline: Deadline) -> bytes:
        while len(self._pending) < length:
            self._pending += self._receive(deadline)
        data = bytes(self._pending[:length])
        del self._pending[:length]
        return data

    # --- updates ---

    def _ask_for_all(self) -> list[Rectangle]:
        """Ask for the whole screen and return it as what is missing."""
        self._request(incremental=False)
        return [Rectangle(0, 0, *self.size)]

    def _await_update(self, deadline: Deadline) -> None:
        if not self._requested:
            self._request(incremental=True)
        while not isinstance(self._next_message(deadline), UpdateEnd):
            pass

    def _request(self, *, incremental: bool) -> None:
        self._send(FramebufferUpdateRequest(incremental, 0, 0, *self.size).encode())
        self._requested = True

    def _next_message(self, deadline: Deadline) -> ServerMessage:
        """Return the next message, already applied."""
        while (message := next(self._ready, None)) is None:
            self._ready = self._parser.receive(self._receive(deadline))
        self._framebuffer.apply(message)
        if isinstance(message, UpdateEnd):
            self._requested = False
        elif isinstance(message, Bell):
            self.bells += 1
        elif isinstance(message, CutText):
            self.cut_text = message.text
        return message

    def _receive(self, deadline: Deadline) -> bytes:
        while True:
            deadline.remaining()
            with suppress(TimeoutError):
                try:
                    data = self.stream.recv(_CHUNK)
                except _GONE as exc:
                    raise ConsoleClosed(ABNORMAL, str(exc)) from exc
                if not data:
                    raise ConsoleClosed(ABNORMAL, "the connection ended without a Close frame")
                return data

    def _send(self, data: bytes) -> None:
        try:
            self.stream.sendall(data)
        except _GONE as exc:
            # What the server said before it went, a Close perhaps, is still to be read.
            raise self.wait_closed() from exc

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)


def _keysym(character: str) -> int:
    """Return a character's X keysym: Latin-1 stands for itself, Unicode is offset by 0x01000000."""
    code = ord(character)
    return _KEYSYMS.get(character, code if code < 0x100 else 0x01000000 + code)


def _stroke(keysym: int) -> bytes:
    return KeyEvent(True, keysym).encode() + KeyEvent(False, keysym).encode()
