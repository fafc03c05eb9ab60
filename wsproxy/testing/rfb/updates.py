"""Parses the messages of an RFB server after the handshake (RFC 6143 section 7.6). No I/O.

`ServerParser` cuts the byte stream into messages, and `Framebuffer` applies them. They support Raw, CopyRect
and DesktopSize with `RGBX` pixels: the viewer requests nothing else. Nothing here blocks. Only one thread at
a time may use an object.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from ...protocol.rfb import RFBError
from ..screen.canvas import Rectangle, rgb_bytes
from ..screen.image import Image
from .messages import RGBX, Encoding, ServerMessageType

__all__ = [
    "Bell",
    "CopyRectangle",
    "CutText",
    "Framebuffer",
    "NewSize",
    "RawRectangle",
    "ServerMessage",
    "ServerParser",
    "UpdateEnd",
]

_MAX_PIXELS = 1 << 24
_RECTANGLE = struct.Struct(">HHHHi")


@dataclass(frozen=True)
class RawRectangle:
    """Pixels for an area, `RGBX`, row by row (RFC 6143 section 7.7.1)."""

    area: Rectangle
    pixels: bytes = field(repr=False)


@dataclass(frozen=True)
class CopyRectangle:
    """A copy of the pixels at (from_x, from_y) to an area (RFC 6143 section 7.7.2)."""

    area: Rectangle
    from_x: int
    from_y: int


@dataclass(frozen=True)
class NewSize:
    """The new size of the screen, in pixels (RFC 6143 section 7.8.2)."""

    width: int
    height: int


@dataclass(frozen=True)
class UpdateEnd:
    """The end of a FramebufferUpdate, after its rectangles."""


@dataclass(frozen=True)
class Bell:
    """The server's bell (RFC 6143 section 7.6.3)."""


@dataclass(frozen=True)
class CutText:
    """The server's clipboard, in Latin-1 (RFC 6143 section 7.6.4)."""

    text: bytes


ServerMessage = RawRectangle | CopyRectangle | NewSize | UpdateEnd | Bell | CutText

_Steps = Generator[ServerMessage | None, None, None]  # None: more bytes are needed
_Taken = Generator[None, None, bytes]


class ServerParser:
    """Splits the bytes after ServerInit into messages. Each rectangle is a message.

    `max_text` bounds the clipboard in bytes. A constant bounds the pixels of a rectangle.
    """

    def __init__(self, *, max_text: int = 1 << 20) -> None:
        self._max_text = max_text
        self._buffer = bytearray()
        self._steps = self._read_messages()
        self._error: RFBError | None = None

    def receive(self, data: bytes) -> Iterator[ServerMessage]:
        """Take bytes, which may be cut anywhere, and return an iterator over the complete messages.

        If the bytes are not valid, this iterator and every later one raise RFBError.
        """
        self._buffer += data
        return self._messages()

    def _messages(self) -> Iterator[ServerMessage]:
        while (message := self._step()) is not None:
            yield message

    def _step(self) -> ServerMessage | None:
        if self._error is not None:
            raise self._error
        try:
            return next(self._steps)
        except RFBError as exc:
            self._error = exc
            raise

    def _take(self, length: int) -> _Taken:
        while len(self._buffer) < length:
            yield None
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    def _read_messages(self) -> _Steps:
        while True:
            kind = (yield from self._take(1))[0]
            if kind == ServerMessageType.FRAMEBUFFER_UPDATE:
                yield from self._read_update()
            elif kind == ServerMessageType.BELL:
                yield Bell()
            elif kind == ServerMessageType.SERVER_CUT_TEXT:
                yield from self._read_cut_text()
            else:
                raise RFBError(f"unknown server message {kind}")

    def _read_update(self) -> _Steps:
        head = yield from self._take(3)
        for _ in range(int.from_bytes(head[1:], "big")):
            yield from self._read_rectangle()
        yield UpdateEnd()

    def _read_rectangle(self) -> _Steps:
        x, y, width, height, encoding = _RECTANGLE.unpack((yield from self._take(_RECTANGLE.size)))
        if width * height > _MAX_PIXELS:
            raise RFBError(f"a rectangle of {width} x {height} pixels is too big")
        area = Rectangle(x, y, width, height)
        if encoding == Encoding.RAW:
            pixels = yield from self._take(width * height * RGBX.bytes_per_pixel)
            yield RawRectangle(area, pixels)
        elif encoding == Encoding.COPY_RECT:
            from_x, from_y = struct.unpack(">HH", (yield from self._take(4)))
            yield CopyRectangle(area, from_x, from_y)
        elif encoding == Encoding.DESKTOP_SIZE:
            yield NewSize(width, height)
        else:
            raise RFBError(f"the viewer did not request encoding {encoding}")

    def _read_cut_text(self) -> _Steps:
        head = yield from self._take(7)
        length = int.from_bytes(head[3:], "big")
        if length > self._max_text:
            raise RFBError(f"the clipboard has {length} bytes; at most {self._max_text} are allowed")
        yield CutText((yield from self._take(length)))


class Framebuffer:
    """The viewer's copy of the screen. Raises RFBError for a rectangle outside the screen."""

    def __init__(self, width: int, height: int) -> None:
        self._resize(width, height)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._area.width, self._area.height

    def apply(self, message: ServerMessage) -> None:
        """Apply a message. Messages without pixels change nothing."""
        if isinstance(message, RawRectangle):
            self._put(message.area, message.pixels)
        elif isinstance(message, CopyRectangle):
            source = Rectangle(message.from_x, message.from_y, message.area.width, message.area.height)
            self._put(message.area, self._read(source))
        elif isinstance(message, NewSize):
            self._resize(message.width, message.height)

    def image(self) -> Image:
        """Return a copy as an image."""
        return Image(*self.size, rgb_bytes(self._pixels))

    def _resize(self, width: int, height: int) -> None:
        if not 0 < width * height <= _MAX_PIXELS:
            raise RFBError(f"a screen of {width} x {height} pixels is empty or too big")
        self._area = Rectangle(0, 0, width, height)
        self._pixels = bytearray(4 * width * height)

    def _read(self, area: Rectangle) -> bytes:
        return b"".join([self._pixels[start : start + 4 * area.width] for start in self._starts(area)])

    def _put(self, area: Rectangle, pixels: bytes) -> None:
        row = 4 * area.width
        for number, start in enumerate(self._starts(area)):
            self._pixels[start : start + row] = pixels[number * row : (number + 1) * row]

    def _starts(self, area: Rectangle) -> range:
        if not self._area.contains(area):
            raise RFBError("a rectangle reaches outside the screen")
        row = 4 * self._area.width
        first = area.y * row + 4 * area.x
        return range(first, first + area.height * row, row)
