"""Messages of the Remote Framebuffer Protocol (RFC 6143). No I/O.

A VNC console speaks RFB inside the WebSocket. The proxy needs two parts of it: the refusal that noVNC shows
to its user, and the boundaries of a client's messages. Nothing here blocks. One thread at a time may use a
parser; functions and values are safe from every thread.

A faulty byte raises `RFBError`. The parser fails closed: it cannot know the length of an unknown message, so
it could not find the next one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "SECURITY_NONE",
    "VERSION_3_8",
    "ClientMessage",
    "ClientMessageType",
    "ClientParser",
    "RFBError",
    "client_message_length",
    "parse_version",
    "reason_text",
    "refusal",
]

VERSION_3_8 = b"RFB 003.008\n"
"""ProtocolVersion of both sides (RFC 6143 section 7.1.1), 12 bytes."""

SECURITY_NONE = 1
"""The security type None (RFC 6143 section 7.2.1)."""

_MAX_FENCE = 64  # bytes; the fence extension limits its payload to that


class RFBError(ValueError):
    """The peer sent bytes that are not RFB, or a part of RFB that this parser does not support."""


class ClientMessageType(IntEnum):
    """Types of a client's messages, from RFC 6143 section 7.5 and from the extensions in use.

    The three values above 255 name the parts of the handshake; no message carries them.
    """

    SET_PIXEL_FORMAT = 0
    SET_ENCODINGS = 2
    FRAMEBUFFER_UPDATE_REQUEST = 3
    KEY_EVENT = 4
    POINTER_EVENT = 5
    CLIENT_CUT_TEXT = 6
    ENABLE_CONTINUOUS_UPDATES = 150
    CLIENT_FENCE = 248
    XVP = 250
    SET_DESKTOP_SIZE = 251
    QEMU = 255
    VERSION = 256
    SECURITY_TYPE = 257
    CLIENT_INIT = 258


# --- handshake ---


def parse_version(data: bytes) -> tuple[int, int]:
    """Return (major, minor) of a 12-byte ProtocolVersion. Raises RFBError for any other bytes."""
    numbers = (data[4:7], data[8:11])
    shaped = len(data) == 12 and data[:4] == b"RFB " and data[7:8] == b"." and data[11:] == b"\n"
    if not shaped or not all(number.isdigit() for number in numbers):
        raise RFBError("not an RFB protocol version")
    return int(numbers[0]), int(numbers[1])


def reason_text(reason: str) -> bytes:
    """Return a reason in RFB's encoding: its length in UTF-8 bytes as u32, then the bytes."""
    text = reason.encode("utf-8", "replace")
    return struct.pack(">I", len(text)) + text


def refusal(reason: str) -> tuple[bytes, bytes]:
    """Return the two messages by which a server refuses a client and gives its user the reason.

    The first is the ProtocolVersion. The second is a list of zero security types and the reason (RFC 6143
    section 7.1.2). A server sends it when the client's 12 bytes have come, and then closes the connection.
    noVNC shows the reason behind "New connection has been rejected with reason".
    """
    return VERSION_3_8, b"\0" + reason_text(reason)


# --- reading a client ---

_FIXED_LENGTH = {0: 20, 3: 10, 4: 8, 150: 10, 250: 4}


def client_message_length(head: bytes | bytearray, *, extended_pointer: bool = False) -> int | None:
    """Return the whole length in bytes of the client message that begins with `head`.

    None means that `head` is too short to tell. `extended_pointer`: the server enabled the pseudo-encoding
    ExtendedMouseButtons (-316), with which a PointerEvent may have 7 bytes. Raises RFBError for a message
    of unknown length.
    """
    if not head:
        return None
    kind = head[0]
    fixed = _FIXED_LENGTH.get(kind)
    if fixed is not None:
        return fixed
    if kind == ClientMessageType.POINTER_EVENT:
        return _pointer_length(head) if extended_pointer else 6
    return _variable_length(kind, head)


def _pointer_length(head: bytes | bytearray) -> int | None:
    if len(head) < 2:
        return None
    return 7 if head[1] & 0x80 else 6


def _variable_length(kind: int, head: bytes | bytearray) -> int | None:
    counter = _COUNTERS.get(kind)
    if counter is None:
        raise RFBError(f"unknown client message {kind}")
    needed, length = counter
    return length(head) if len(head) >= needed else None


def _set_encodings_length(head: bytes | bytearray) -> int:
    return 4 + 4 * int.from_bytes(head[2:4], "big")


def _cut_text_length(head: bytes | bytearray) -> int:
    # A negative length marks the extended clipboard; its size is the absolute value.
    return 8 + abs(int.from_bytes(head[4:8], "big", signed=True))


def _fence_length(head: bytes | bytearray) -> int:
    if head[8] > _MAX_FENCE:
        raise RFBError(f"a fence of {head[8]} bytes: at most {_MAX_FENCE}")
    return 9 + head[8]


def _desktop_size_length(head: bytes | bytearray) -> int:
    return 8 + 16 * head[6]


def _qemu_length(head: bytes | bytearray) -> int:
    if head[1] != 0:
        raise RFBError(f"unknown QEMU submessage {head[1]}")
    return 12


_COUNTERS = {
    2: (4, _set_encodings_length),
    6: (8, _cut_text_length),
    248: (9, _fence_length),
    251: (7, _desktop_size_length),
    255: (2, _qemu_length),
}


@dataclass(frozen=True)
class ClientMessage:
    """One whole message of a client, or one part of its handshake, with its bytes as received."""

    kind: ClientMessageType
    data: bytes


class ClientParser:
    """Splits a client's bytes, from the first on, into messages.

    The parser supports RFB 3.7 and 3.8 with the security type None. With another type it could not find the
    end of the authentication. A message of more than `max_message` bytes raises RFBError, which bounds the
    memory. `extended_pointer`: see `client_message_length`; the caller may set it between messages.
    """

    def __init__(self, *, max_message: int = 1 << 20, extended_pointer: bool = False) -> None:
        self.extended_pointer = extended_pointer
        self._max_message = max_message
        self._buffer = bytearray()
        self._handshake = [
            (ClientMessageType.CLIENT_INIT, 1),
            (ClientMessageType.SECURITY_TYPE, 1),
            (ClientMessageType.VERSION, 12),
        ]

    def receive(self, data: bytes) -> Iterator[ClientMessage]:
        """Take bytes, cut anywhere, and return an iterator over the messages that are now complete.

        If the client violated the protocol, the iterator first yields the messages before that, and then
        raises RFBError. So do the iterators of all later calls.
        """
        self._buffer += data
        return self._messages()

    def _messages(self) -> Iterator[ClientMessage]:
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> ClientMessage | None:
        length = self._handshake[-1][1] if self._handshake else self._message_length()
        if length is None or len(self._buffer) < length:
            return None
        data = bytes(self._buffer[:length])
        kind = self._handshake[-1][0] if self._handshake else ClientMessageType(data[0])
        self._check_handshake(kind, data)  # before it consumes anything, so that later calls fail, too
        del self._buffer[:length]
        if self._handshake:
            self._handshake.pop()
        return ClientMessage(kind, data)

    def _message_length(self) -> int | None:
        length = client_message_length(self._buffer, extended_pointer=self.extended_pointer)
        if length is not None and length > self._max_message:
            raise RFBError(f"a message of {length} bytes: at most {self._max_message}")
        return length

    def _check_handshake(self, kind: ClientMessageType, data: bytes) -> None:
        if kind is ClientMessageType.VERSION and parse_version(data) not in ((3, 7), (3, 8)):
            raise RFBError("the client speaks neither RFB 3.7 nor 3.8")
        if kind is ClientMessageType.SECURITY_TYPE and data[0] != SECURITY_NONE:
            raise RFBError(f"the client chose security type {data[0]}, not None")
