"""The messages of an RFB endpoint (RFC 6143) as dataclasses and functions. No I/O.

The desktop and the viewer of `wsproxy.testing` use them in both directions. The proxy itself needs only
`wsproxy.protocol.rfb`. Nothing here blocks, and any thread may use the frozen dataclasses.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from ...protocol.rfb import RFBError

__all__ = [
    "RGBX",
    "SECURITY_OK",
    "ClientCutText",
    "Encoding",
    "ExtendedKeyEvent",
    "FramebufferUpdateRequest",
    "KeyEvent",
    "PixelFormat",
    "PointerEvent",
    "ServerInit",
    "ServerMessageType",
    "SetEncodings",
    "SetPixelFormat",
    "bell",
    "framebuffer_update_header",
    "rectangle_header",
    "security_types",
    "server_cut_text",
]

_PIXEL_FORMAT = struct.Struct(">BBBBHHHBBB3x")
_SERVER_INIT = struct.Struct(">HH16sI")
_RECTANGLE = struct.Struct(">HHHHi")

SECURITY_OK = struct.pack(">I", 0)
"""The SecurityResult of a successful handshake (RFC 6143 section 7.1.3)."""


class ServerMessageType(IntEnum):
    """Message ids of the server (RFC 6143 section 7.6)."""

    FRAMEBUFFER_UPDATE = 0
    SET_COLOUR_MAP_ENTRIES = 1
    BELL = 2
    SERVER_CUT_TEXT = 3


class Encoding(IntEnum):
    """The encodings that wsproxy supports (RFC 6143 section 7.7). Others are plain integers."""

    RAW = 0
    COPY_RECT = 1
    DESKTOP_SIZE = -223


# --- pixels ---


@dataclass(frozen=True)
class PixelFormat:
    """PIXEL_FORMAT (RFC 6143 section 7.4): how one pixel becomes bytes. The fields are in wire order."""

    bits_per_pixel: int
    depth: int
    big_endian: bool
    true_colour: bool
    red_max: int
    green_max: int
    blue_max: int
    red_shift: int
    green_shift: int
    blue_shift: int

    @property
    def bytes_per_pixel(self) -> int:
        """1, 2 or 4."""
        return self.bits_per_pixel // 8

    def encode(self) -> bytes:
        """Return the 16 bytes of the wire form."""
        return _PIXEL_FORMAT.pack(
            self.bits_per_pixel,
            self.depth,
            self.big_endian,
            self.true_colour,
            self.red_max,
            self.green_max,
            self.blue_max,
            self.red_shift,
            self.green_shift,
            self.blue_shift,
        )

    @classmethod
    def parse(cls, data: bytes) -> PixelFormat:
        """Read 16 bytes. Raises RFBError for an impossible format."""
        bits, depth, big, true, *colours = _unpack(_PIXEL_FORMAT, data)
        found = cls(bits, depth, bool(big), bool(true), *colours)
        if bits not in (8, 16, 32):
            raise RFBError(f"a pixel has {bits} bits, not 8, 16 or 32")
        if found.true_colour and not found._fits():
            raise RFBError("a colour does not fit into the pixel")
        return found

    def _fits(self) -> bool:
        channels = (
            (self.red_max, self.red_shift),
            (self.green_max, self.green_shift),
            (self.blue_max, self.blue_shift),
        )
        return all(top > 0 and (top << shift) < (1 << self.bits_per_pixel) for top, shift in channels)


RGBX = PixelFormat(32, 24, False, True, 255, 255, 255, 0, 8, 16)
"""One byte each for red, green, blue and padding, in this order. noVNC requests this format."""


def _unpack(form: struct.Struct, data: bytes) -> tuple[int, ...]:
    if len(data) != form.size:
        raise RFBError(f"got {len(data)} bytes instead of {form.size}")
    return form.unpack(data)


# --- handshake ---


def security_types(*types: int) -> bytes:
    """Return the server's list of at least one security type (RFC 6143 section 7.1.2)."""
    if not types:
        raise ValueError("an empty list of security types is a refusal; use refusal()")
    return bytes((len(types), *types))


@dataclass(frozen=True)
class ServerInit:
    """ServerInit (RFC 6143 section 7.3.2): size in pixels, the server's pixel format, the desktop's name."""

    HEAD = _SERVER_INIT.size

    width: int
    height: int
    pixel_format: PixelFormat
    name: str

    def encode(self) -> bytes:
        """Return the wire form."""
        name = self.name.encode("utf-8", "replace")
        return _SERVER_INIT.pack(self.width, self.height, self.pixel_format.encode(), len(name)) + name

    @classmethod
    def name_length(cls, head: bytes) -> int:
        """Return how many bytes follow the first `ServerInit.HEAD` bytes."""
        return int.from_bytes(head[20 : cls.HEAD], "big")

    @classmethod
    def parse(cls, data: bytes) -> ServerInit:
        """Read one whole ServerInit. Raises RFBError if it is truncated, too long or impossible."""
        if len(data) < cls.HEAD or len(data) != cls.HEAD + cls.name_length(data):
            raise RFBError("ServerInit has a wrong length")
        width, height, pixel_format, _ = _SERVER_INIT.unpack(data[: cls.HEAD])
        name = data[cls.HEAD :].decode("utf-8", "replace")
        return cls(width, height, PixelFormat.parse(pixel_format), name)


# --- messages of the client ---


@dataclass(frozen=True)
class SetPixelFormat:
    """Message 0: the pixel format that the client wants (RFC 6143 section 7.5.1)."""

    FORM = struct.Struct(">B3x16s")

    pixel_format: PixelFormat

    def encode(self) -> bytes:
        """Return the 20 bytes of the wire form."""
        return self.FORM.pack(0, self.pixel_format.encode())

    @classmethod
    def parse(cls, data: bytes) -> SetPixelFormat:
        """Read one whole message. Raises RFBError for an impossible format."""
        return cls(PixelFormat.parse(data[4:20]))


@dataclass(frozen=True)
class SetEncodings:
    """Message 2: the encodings that the client can read, best first (RFC 6143 section 7.5.2)."""

    encodings: tuple[int, ...]

    def encode(self) -> bytes:
        """Return the wire form, 4 bytes and 4 per encoding."""
        count = len(self.encodings)
        return struct.pack(f">BxH{count}i", 2, count, *self.encodings)

    @classmethod
    def parse(cls, data: bytes) -> SetEncodings:
        """Read one whole message."""
        return cls(struct.unpack(f">{(len(data) - 4) // 4}i", data[4:]))


@dataclass(frozen=True)
class FramebufferUpdateRequest:
    """Message 3: the client requests an area, in pixels (RFC 6143 section 7.5.3)."""

    FORM = struct.Struct(">B?HHHH")

    incremental: bool
    x: int
    y: int
    width: int
    height: int

    def encode(self) -> bytes:
        """Return the 10 bytes of the wire form."""
        return self.FORM.pack(3, self.incremental, self.x, self.y, self.width, self.height)

    @classmethod
    def parse(cls, data: bytes) -> FramebufferUpdateRequest:
        """Read one whole message."""
        _, incremental, x, y, width, height = _unpack(cls.FORM, data)
        return cls(bool(incremental), x, y, width, height)


@dataclass(frozen=True)
class KeyEvent:
    """Message 4: a key, by its X keysym, went down or up (RFC 6143 section 7.5.4)."""

    FORM = struct.Struct(">B?xxI")

    down: bool
    keysym: int

    def encode(self) -> bytes:
        """Return the 8 bytes of the wire form."""
        return self.FORM.pack(4, self.down, self.keysym)

    @classmethod
    def parse(cls, data: bytes) -> KeyEvent:
        """Read one whole message."""
        _, down, keysym = _unpack(cls.FORM, data)
        return cls(bool(down), keysym)


@dataclass(frozen=True)
class ExtendedKeyEvent:
    """Message 255, submessage 0: a key with its XT keycode (QEMU's extension of RFB)."""

    FORM = struct.Struct(">BBHII")

    down: bool
    keysym: int
    keycode: int

    def encode(self) -> bytes:
        """Return the 12 bytes of the wire form."""
        return self.FORM.pack(255, 0, self.down, self.keysym, self.keycode)

    @classmethod
    def parse(cls, data: bytes) -> ExtendedKeyEvent:
        """Read one whole message."""
        _, _, down, keysym, keycode = _unpack(cls.FORM, data)
        return cls(bool(down), keysym, keycode)


@dataclass(frozen=True)
class PointerEvent:
    """Message 5: the pointer's place, and its buttons as bits. Bit 0 is left (RFC 6143 section 7.5.5)."""

    FORM = struct.Struct(">BBHH")

    buttons: int
    x: int
    y: int

    def encode(self) -> bytes:
        """Return the 6 bytes of the wire form."""
        return self.FORM.pack(5, self.buttons, self.x, self.y)

    @classmethod
    def parse(cls, data: bytes) -> PointerEvent:
        """Read one whole message. A seventh byte (extended mouse buttons) is ignored."""
        _, buttons, x, y = _unpack(cls.FORM, data[:6])
        return cls(buttons, x, y)


@dataclass(frozen=True)
class ClientCutText:
    """Message 6: the client's clipboard in Latin-1 (RFC 6143 section 7.5.6)."""

    text: bytes

    def encode(self) -> bytes:
        """Return the wire form, 8 bytes and the text."""
        return struct.pack(">B3xi", 6, len(self.text)) + self.text

    @classmethod
    def parse(cls, data: bytes) -> ClientCutText:
        """Read one whole message."""
        return cls(data[8:])


# --- messages of the server ---


def framebuffer_update_header(rectangles: int) -> bytes:
    """Return the head of a FramebufferUpdate with that many rectangles (RFC 6143 section 7.6.1)."""
    return struct.pack(">BxH", ServerMessageType.FRAMEBUFFER_UPDATE, rectangles)


def rectangle_header(x: int, y: int, width: int, height: int, encoding: int = Encoding.RAW) -> bytes:
    """Return the head of one rectangle, in pixels. Its data follows (RFC 6143 section 7.6.1)."""
    return _RECTANGLE.pack(x, y, width, height, encoding)


def bell() -> bytes:
    """Return the message that rings the client's bell (RFC 6143 section 7.6.3)."""
    return bytes((ServerMessageType.BELL,))


def server_cut_text(text: bytes) -> bytes:
    """Return the server's clipboard, Latin-1 text (RFC 6143 section 7.6.4)."""
    return struct.pack(">B3xI", ServerMessageType.SERVER_CUT_TEXT, len(text)) + text
