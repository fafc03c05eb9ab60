"""WebSocket frames: a scanner for headers and a builder for short frames (RFC 6455 section 5). No I/O.

The relay forwards the bytes of frames unchanged. The scanner walks from header to header and says how far
the relay may forward. It stops at a Close, at an awaited Pong, and at the first violation of RFC 6455.
It passes other control frames like data, because a peer may send any number of them.
It never reads the payload of a data frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ..exceptions import ProtocolViolation

__all__ = [
    "AWAITED_SIZE",
    "MAX_CLOSE_REASON",
    "MAX_CONTROL_FRAME",
    "ControlFrame",
    "FrameScanner",
    "Opcode",
    "build_frame",
    "close_payload",
    "may_be_sent",
    "parse_close_payload",
]


class Opcode(IntEnum):
    """RFC 6455 section 11.8."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


MAX_CONTROL_FRAME = 2 + 4 + 125
"""Bytes of the longest control frame: header, mask, payload (RFC 6455 section 5.5)."""

MAX_CLOSE_REASON = 123
"""Bytes of the longest close reason: a control frame's payload without the code (RFC 6455 section 5.5)."""

AWAITED_SIZE = 8
"""Bytes of payload in a Pong that :attr:`FrameScanner.awaited` can name."""

_MAX_LENGTH = 2**63 - 1
_MAX_CONTROL_PAYLOAD = 125

# What a first header byte means, by whether a fragmented message is open (RFC 6455 section 5.4).
_MESSAGE_ENDS, _MESSAGE_GOES_ON, _PING, _PONG, _CLOSE, _INVALID = 0, 1, 2, 3, 4, 5


def _first_bytes(fragmented: bool) -> tuple[int, ...]:
    table = [_INVALID] * 256
    for opcode, meaning in ((Opcode.CLOSE, _CLOSE), (Opcode.PING, _PING), (Opcode.PONG, _PONG)):
        table[0x80 | opcode] = meaning
    for opcode in (Opcode.CONTINUATION,) if fragmented else (Opcode.TEXT, Opcode.BINARY):
        table[opcode] = _MESSAGE_GOES_ON
        table[0x80 | opcode] = _MESSAGE_ENDS
    return tuple(table)


_FIRST_BYTES = (_first_bytes(False), _first_bytes(True))


@dataclass(frozen=True)
class ControlFrame:
    """A whole control frame.

    :ivar raw: the frame as received, mask included.
    :ivar payload: the unmasked payload.
    """

    opcode: Opcode
    raw: bytes
    payload: bytes


class FrameScanner:
    """Finds the frame boundaries of one direction of a connection.

    The scanner keeps no bytes. The caller presents what ``scan`` did not consume again, with more behind it.
    That rest is shorter than :data:`MAX_CONTROL_FRAME`.

    :param masked: whether this direction must be masked (client to server) or must not be.
    :param max_frame_size: largest payload of one data frame, bytes.
    :ivar awaited: payloads of the Pongs to stop at, as big-endian numbers of :data:`AWAITED_SIZE` bytes. Any
        thread may assign it, before it sends the Ping.
    :ivar control: the control frame at which the last scan stopped, or None.
    :ivar passed_by: bytes of control frames that the last scan consumed.
    :ivar violation: the violation at which the last scan stopped, or None. After one, do not scan again.
    :ivar boundary: index of the last frame boundary that the last scan found, or -1.
    :ivar mid_frame: whether the consumed bytes end inside a data frame.
    """

    __slots__ = (
        "_fragmented",
        "_mask_bit",
        "_mask_size",
        "_max_frame_size",
        "_max_short",
        "_remaining",
        "awaited",
        "boundary",
        "control",
        "passed_by",
        "violation",
    )

    def __init__(self, masked: bool, max_frame_size: int = _MAX_LENGTH) -> None:
        self._mask_bit = 0x80 if masked else 0
        self._mask_size = 4 if masked else 0
        self._max_frame_size = max_frame_size
        self._max_short = min(125, max_frame_size)
        self._remaining = 0
        self._fragmented = 0
        self.awaited: frozenset[int] = frozenset()
        self.boundary = -1
        self.passed_by = 0
        self.control: ControlFrame | None = None
        self.violation: ProtocolViolation | None = None

    @property
    def mid_frame(self) -> bool:
        return self._remaining > 0

    def scan(self, buffer: bytearray, start: int, end: int) -> int:
        """Scan ``buffer[start:end]`` and return the index up to which the caller may forward it.

        If ``control`` is set, that frame begins at the returned index, ``len(control.raw)`` bytes long. If
        ``violation`` is set, the violation begins there. If neither is set, the input ends there, or with an
        incomplete header or control frame.
        """
        self.control = None
        self.passed_by = 0
        self.boundary = -1
        pos = start
        if remaining := self._remaining:
            if remaining > end - start:
                self._remaining = remaining - (end - start)
                return end
            pos += remaining
            self._remaining = 0
        short_header, max_short, mask_bit = 2 + self._mask_size, self._max_short, self._mask_bit
        first_bytes = _FIRST_BYTES[fragmented := self._fragmented]
        try:
            while end - pos >= 2:
                # No call for short frames: a chunk may hold thousands of them.
                state, length = first_bytes[buffer[pos]], buffer[pos + 1] ^ mask_bit
                stop = pos + short_header + length
                if state > _MESSAGE_GOES_ON or length > max_short or stop > end:
                    if (
                        _MESSAGE_GOES_ON < state <= _PONG
                        and length <= _MAX_CONTROL_PAYLOAD
                        and stop <= end
                        and not (state == _PONG and self.awaited and self._is_awaited(buffer, stop, length))
                    ):
                        self.passed_by += stop - pos
                        pos = stop
                        continue
                    stop = self._frame(buffer, pos, end, state)
                    if stop == pos:
                        break
                    if stop > end:
                        self.boundary = pos
                        self._remaining = stop - end
                        return end
                    state = self._fragmented
                if state != fragmented:
                    fragmented = self._fragmented = state
                    first_bytes = _FIRST_BYTES[state]
                pos = stop
        except ProtocolViolation as violation:
            self.violation = violation
        self.boundary = pos
        return pos

    def _is_awaited(self, buffer: bytearray, stop: int, length: int) -> bool:
        """Whether the Pong that ends at index ``stop`` is in ``awaited``."""
        if length != AWAITED_SIZE:
            return False
        number = int.from_bytes(buffer[stop - AWAITED_SIZE : stop], "big")
        if self._mask_size:
            mask_at = stop - AWAITED_SIZE - self._mask_size
            number ^= int.from_bytes(buffer[mask_at : mask_at + self._mask_size] * 2, "big")
        return number in self.awaited

    def _frame(self, buffer: bytearray, pos: int, end: int, state: int) -> int:
        """Return the index where the data frame at ``pos`` ends; ``pos`` if the scan has to stop before it.

        :param state: the meaning of the frame's first byte, such as ``_MESSAGE_ENDS``.
        """
        if state > _MESSAGE_GOES_ON:
            return self._control(buffer, pos, end, state)
        second = buffer[pos + 1]
        if second & 0x80 != self._mask_bit:
            raise self._wrong_mask()
        length = second & 0x7F
        header = 2 + self._mask_size
        if length >= 126:
            extended = 2 if length == 126 else 8
            if end - pos < 2 + extended:
                return pos
            length = self._extended_length(buffer, pos + 2, extended)
            header += extended
        if length > self._max_frame_size:
            raise ProtocolViolation(f"frame of {length} bytes is larger than the limit", 1009)
        if end - pos < header:
            return pos
        self._fragmented = state
        return pos + header + length

    @staticmethod
    def _extended_length(buffer: bytearray, pos: int, size: int) -> int:
        length = int.from_bytes(buffer[pos : pos + size], "big")
        if length <= (125 if size == 2 else 0xFFFF):
            raise ProtocolViolation("payload length is not minimally encoded")
        if length > _MAX_LENGTH:
            raise ProtocolViolation("most significant bit of the payload length is set")
        return length

    def _wrong_mask(self) -> ProtocolViolation:
        return ProtocolViolation("frame is masked" if self._mask_bit == 0 else "frame is not masked")

    def _control(self, buffer: bytearray, pos: int, end: int, state: int) -> int:
        if state == _INVALID:
            raise self._invalid_first_byte(buffer[pos])
        if buffer[pos + 1] & 0x80 != self._mask_bit:
            raise self._wrong_mask()
        size = 2 + self._mask_size + (buffer[pos + 1] & 0x7F)
        if size > 2 + self._mask_size + _MAX_CONTROL_PAYLOAD:
            raise ProtocolViolation("control frame is longer than 125 bytes")
        if end - pos >= size:
            raw = bytes(buffer[pos : pos + size])
            payload = raw[2 + self._mask_size :]
            if self._mask_size:
                payload = _masked(payload, raw[2:6])
            opcode = Opcode(raw[0] & 0x0F)
            if opcode is Opcode.CLOSE:
                parse_close_payload(payload)
            self.control = ControlFrame(opcode, raw, payload)
        return pos

    def _invalid_first_byte(self, first: int) -> ProtocolViolation:
        opcode = first & 0x0F
        if first & 0x70:
            return ProtocolViolation("reserved bits are set, but no extension was negotiated")
        if opcode not in list(Opcode):
            return ProtocolViolation(f"unknown opcode {opcode}")
        if opcode >= Opcode.CLOSE:
            return ProtocolViolation("control frame is fragmented")
        if opcode == Opcode.CONTINUATION:
            return ProtocolViolation("continuation without a message to continue")
        return ProtocolViolation("new message inside a fragmented message")


def _masked(payload: bytes, mask: bytes) -> bytes:
    """Mask a payload, or unmask it: both are the same operation (RFC 6455 section 5.3)."""
    size = len(payload)
    if not size:
        return b""
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")).to_bytes(size, "big")


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may carry ``code`` (RFC 6455 section 7.4 and the IANA registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def parse_close_payload(payload: bytes) -> tuple[int | None, str]:
    """Return the close code and reason, ``(None, "")`` for an empty payload (RFC 6455 section 5.5.1).

    :raises ProtocolViolation: if the payload is one byte, the code may not be sent, or the reason is
        not UTF-8.
    """
    if not payload:
        return None, ""
    if len(payload) == 1:
        raise ProtocolViolation("Close payload is one byte")
    code = int.from_bytes(payload[:2], "big")
    if not may_be_sent(code):
        raise ProtocolViolation(f"close code {code} may not be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError as exc:
        raise ProtocolViolation("close reason is not UTF-8") from exc


def close_payload(code: int | None, reason: str = "") -> bytes:
    """Return the payload of a Close, which is empty if ``code`` is None.

    The reason is cut to 123 bytes, at a character boundary.

    :raises ValueError: if a Close frame may not carry ``code``.
    """
    if code is None:
        return b""
    if not may_be_sent(code):
        raise ValueError(f"close code {code} may not be sent")
    cut = reason.encode()[:MAX_CLOSE_REASON].decode(errors="ignore").encode()
    return code.to_bytes(2, "big") + cut


def build_frame(opcode: Opcode, payload: bytes, mask: bytes | None = None) -> bytes:
    """Return an unfragmented frame with a payload of at most 65535 bytes.

    :param mask: four bytes for a frame from client to server (RFC 6455 section 5.3), else None.
    """
    masked = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        header = bytes((0x80 | opcode, masked | size))
    else:
        header = bytes((0x80 | opcode, masked | 126)) + size.to_bytes(2, "big")
    return header + (mask + _masked(payload, mask) if mask else payload)
