"""Target: the frame scanner, judged by a parser that is slow, plain and holds everything."""

from __future__ import annotations

import random

from tests.support.frame_streams import Passed, bytewise, passed, random_cuts
from wsproxy.exceptions import ProtocolViolation
from wsproxy.protocol.frames import AWAITED_SIZE, FrameScanner, Opcode, close_payload, parse_close_payload

from .texts import assert_own_text

__all__ = ["check"]

_NO_LIMIT = 2**63 - 1
_LIMITS = (_NO_LIMIT, 0, 100, 126, 1000, 70000)
_AWAITED = frozenset({0, 5, 0x7878787878787878})


def check(data: bytes) -> None:
    """Scan a stream, whole and in pieces.

    The first byte says whether it is masked, the size limit, and whether Pongs are awaited.
    """
    if not data:
        return
    masked, limit, stream = bool(data[0] & 1), _LIMITS[(data[0] >> 1) % len(_LIMITS)], data[1:]
    awaited = _AWAITED if data[0] & 0x80 else frozenset[int]()

    def scanner() -> FrameScanner:
        made = FrameScanner(masked, limit)
        made.awaited = awaited
        return made

    whole = passed(scanner(), [stream])
    cuts = [random_cuts(stream, random.Random(data))]
    if len(stream) <= 2000:
        cuts.append(bytewise(stream))
    for pieces in cuts:
        again = passed(scanner(), pieces)
        assert again.outcome() == whole.outcome(), "the cuts make a difference"
        assert len(again.scans) <= len(pieces) + len(again.stops), "a scan without progress"
        _check_boundaries(again)
    assert whole.stops == [control for control in whole.controls if _is_stop(*control[1:3], awaited)]
    _compare(whole, _Reference(stream, masked, limit))


def _is_stop(opcode: Opcode, payload: bytes, awaited: frozenset[int]) -> bool:
    pong = opcode is Opcode.PONG and len(payload) == AWAITED_SIZE
    return opcode is Opcode.CLOSE or (pong and int.from_bytes(payload, "big") in awaited)


def _check_boundaries(result: Passed) -> None:
    for start, cut, boundary, mid_frame in result.scans:
        assert start <= cut and (boundary == -1 or start <= boundary <= cut)
        assert mid_frame or boundary == cut, "at a boundary, but it does not say so"


def _compare(result: Passed, expected: _Reference) -> None:
    assert len(result.forwarded) == expected.forwarded, "another size is forwarded"
    assert [(int(opcode), payload) for _, opcode, payload, _ in result.controls] == expected.controls
    assert (result.violation and result.violation[0]) == expected.code
    assert result.mid_frame == expected.mid_frame
    if result.violation:
        assert_own_text(ProtocolViolation(result.violation[1]))
    for _, opcode, payload, _ in result.controls:
        if opcode is Opcode.CLOSE:
            assert close_payload(*parse_close_payload(payload)) == payload


class _Reference:
    """RFC 6455 section 5, frame by frame, with the whole stream at hand.

    :ivar forwarded: how many bytes pass: up to the Close, the mistake, or an incomplete header.
    :ivar code: the close code of the mistake, None without one.
    """

    def __init__(self, stream: bytes, masked: bool, limit: int) -> None:
        self.forwarded = 0
        self.controls: list[tuple[int, bytes]] = []
        self.code: int | None = None
        self.mid_frame = False
        self._stream, self._masked, self._limit = stream, masked, limit
        self._in_message = False
        while self._frame(self.forwarded):
            pass

    def _frame(self, start: int) -> bool:
        """Take the frame that begins at ``start``; False if there is no going on behind it."""
        stream = self._stream
        if len(stream) < start + 2:
            return False
        fin, reserved, opcode = stream[start] >> 7, stream[start] >> 4 & 7, stream[start] & 15
        size = stream[start + 1] & 127
        mask_at = start + 2 + {126: 2, 127: 8}.get(size, 0)
        if reserved or opcode not in (0, 1, 2, 8, 9, 10) or (stream[start + 1] >> 7) != self._masked:
            return self._mistake(1002)
        if opcode < 8 and (opcode == 0) != self._in_message:
            return self._mistake(1002)
        if opcode >= 8 and (not fin or size > 125):
            return self._mistake(1002)
        if len(stream) < mask_at:
            return False
        if size > 125:
            extended = int.from_bytes(stream[start + 2 : mask_at], "big")
            if extended < (126 if size == 126 else 65536) or extended >= 2**63:
                return self._mistake(1002)
            size = extended
        payload_at = mask_at + 4 * self._masked
        if opcode >= 8:
            return self._control(opcode, start, payload_at, size)
        if size > self._limit:
            return self._mistake(1009)
        if len(stream) < payload_at:
            return False
        self._in_message = not fin
        self.forwarded = min(payload_at + size, len(stream))
        self.mid_frame = payload_at + size > len(stream)
        return not self.mid_frame

    def _control(self, opcode: int, start: int, payload_at: int, size: int) -> bool:
        if len(self._stream) < payload_at + size:
            return False
        payload = self._stream[payload_at : payload_at + size]
        if self._masked:
            mask = self._stream[payload_at - 4 : payload_at]
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        if opcode == 8 and not _is_close(payload):
            return self._mistake(1002)
        self.controls.append((opcode, payload))
        self.forwarded = payload_at + size
        return opcode != 8

    def _mistake(self, code: int) -> bool:
        self.code = code
        return False


def _is_close(payload: bytes) -> bool:
    code = int.from_bytes(payload[:2], "big")
    registered = code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code < 5000
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return False
    return not payload or (len(payload) > 1 and registered)
