"""Writes WebSocket frames as virt-handler does, and reads those of clients. No I/O.

It shares no code with :mod:`wsproxy.protocol.frames`, because it would then also share its bugs.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "FrameBuffer",
    "apply_mask",
    "close_payload",
    "encode_frame",
    "encode_message",
    "parse_close",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# gorilla/websocket with KubeVirt's WriteBufferSize of 10240. If a message is larger than two buffers and two
# maximal frame headers (14 bytes each), gorilla/websocket does not copy it into the buffer.
_WRITE_BUFFER = 10240
_DIRECT_WRITE = 2 * (_WRITE_BUFFER + 14)
_NO_STATUS = 1005


class Frame(NamedTuple):
    """A received frame.

    :ivar payload: the payload, unmasked.
    :ivar raw: header and payload, byte for byte as received.
    """

    fin: bool
    opcode: int
    payload: bytes
    raw: bytes

    @property
    def rsv(self) -> int:
        """The three reserved bits, 0 to 7."""
        return (self.raw[0] >> 4) & 7

    @property
    def masked(self) -> bool:
        """Whether it has a masking key."""
        return bool(self.raw[1] & 0x80)


def apply_mask(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask ``payload`` with the four bytes of ``key``."""
    size = len(payload)
    stretched = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")


def encode_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = None
) -> bytes:
    """Return one frame. It checks nothing, so that tests can make faulty frames.

    :param rsv: the three reserved bits, 0 to 7.
    :param mask: a client's masking key of four bytes; None for an unmasked frame.
    """
    size, masked = len(payload), 0x80 if mask is not None else 0
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if size < 126:
        header = struct.pack("!BB", first, masked | size)
    elif size < 65536:
        header = struct.pack("!BBH", first, masked | 126, size)
    else:
        header = struct.pack("!BBQ", first, masked | 127, size)
    if mask is None:
        return header + payload
    return header + mask + apply_mask(payload, mask)


def encode_message(payload: bytes, opcode: int = BINARY) -> bytes:
    """Return the frames in which virt-handler sends one message.

    Up to 10240 bytes fit in one frame. Up to 20508 bytes become frames of 10240 bytes and the rest. A longer
    message becomes one frame without FIN, and an empty continuation with FIN.
    """
    if len(payload) <= _WRITE_BUFFER:
        return encode_frame(opcode, payload)
    if len(payload) > _DIRECT_WRITE:
        return encode_frame(opcode, payload, fin=False) + encode_frame(CONTINUATION)
    frames = []
    while len(payload) > _WRITE_BUFFER:
        frames.append(encode_frame(opcode, payload[:_WRITE_BUFFER], fin=False))
        payload, opcode = payload[_WRITE_BUFFER:], CONTINUATION
    frames.append(encode_frame(opcode, payload))
    return b"".join(frames)


def close_payload(code: int | None, reason: str = "") -> bytes:
    """Return the payload of a Close frame; empty for None and for 1005 (no status)."""
    if code is None or code == _NO_STATUS:
        return b""
    return struct.pack("!H", code) + reason.encode()


def parse_close(payload: bytes) -> tuple[int, str]:
    """Return code and reason of a Close frame's payload; 1005 if it has none."""
    if len(payload) < 2:
        return _NO_STATUS, ""
    code: int = struct.unpack_from("!H", payload)[0]
    return code, payload[2:].decode(errors="replace")


class FrameBuffer:
    """Cuts received bytes into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def rest(self) -> bytes:
        """The bytes that are not part of a returned frame yet."""
        return bytes(self._data)

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._data += data

    def take(self, size: int) -> bytes:
        """Remove and return up to ``size`` bytes, regardless of frames."""
        data = bytes(self._data[:size])
        del self._data[:size]
        return data

    def next(self) -> Frame | None:
        """Remove and return the next frame; None until it is complete."""
        if (sizes := self._sizes()) is None:
            return None
        header, key, payload = sizes
        start = header + key
        if len(self._data) < start + payload:
            return None
        raw = self.take(start + payload)
        plain = apply_mask(raw[start:], raw[header:start]) if key else raw[start:]
        return Frame(bool(raw[0] & 0x80), raw[0] & 0x0F, plain, raw)

    def _sizes(self) -> tuple[int, int, int] | None:
        """Return the bytes of header, masking key and payload of the frame at the front."""
        data = self._data
        if len(data) < 2:
            return None
        key, size = 4 if data[1] & 0x80 else 0, data[1] & 0x7F
        if size < 126:
            return 2, key, size
        length = 2 if size == 126 else 8
        if len(data) < 2 + length:
            return None
        return 2 + length, key, int.from_bytes(data[2 : 2 + length], "big")
