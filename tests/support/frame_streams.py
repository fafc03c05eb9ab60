"""Streams of WebSocket frames for tests: made, cut, scanned as the relay does it, and judged by wsproto."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from wsproto.frame_protocol import CloseReason, FrameProtocol, ParseFailed

from wsproxy.protocol.frames import MAX_CONTROL_FRAME, FrameScanner, Opcode, parse_close_payload

__all__ = [
    "MASK",
    "Passed",
    "Verdict",
    "as_judged",
    "bytewise",
    "frame",
    "judged",
    "passed",
    "random_cuts",
]

MASK = b"\x12\x34\x56\x78"


def frame(
    first: int, payload: bytes = b"", *, masked: bool, mask: bytes = MASK, length: bytes | None = None
) -> bytes:
    """Return a frame with any first byte, right or wrong; ``length`` overrides the length's encoding."""
    size = len(payload)
    if length is None and size < 126:
        length = bytes([size])
    elif length is None and size < 65536:
        length = b"\x7e" + size.to_bytes(2, "big")
    elif length is None:
        length = b"\x7f" + size.to_bytes(8, "big")
    assert length is not None
    if not masked:
        return bytes([first]) + length + payload
    stream = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([first, length[0] | 0x80]) + length[1:] + mask + stream


def random_cuts(data: bytes, dice: random.Random) -> list[bytes]:
    """Return the data in pieces of random lengths, empty ones among them."""
    places = sorted(dice.choices(range(len(data) + 1), k=dice.randrange(1, 20)))
    return [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True)]


def bytewise(data: bytes) -> list[bytes]:
    """Return the data in pieces of one byte."""
    return [data[i : i + 1] for i in range(len(data))]


Control = tuple[int, Opcode, bytes, bytes]
"""A control frame: where in the stream, what, its payload, and all of it."""


@dataclass
class Passed:
    """What came of a stream.

    :ivar stops: the control frames that the scanner stopped at.
    :ivar controls: all of them, found in what it let pass by somebody else.
    :ivar passed_by: bytes of control frames that it did not stop at, as it says.
    """

    forwarded: bytes = b""  # data and control frames, as they would be sent on
    stops: list[Control] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    passed_by: int = 0
    violation: tuple[int, str] | None = None
    mid_frame: bool = False
    held: bytes = b""
    scans: list[tuple[int, int, int, bool]] = field(default_factory=list)  # start, cut, boundary, mid_frame

    def outcome(self) -> object:
        """Return what must not depend on how the stream was cut."""
        return self.forwarded, self.stops, self.violation, self.mid_frame, self.held, self.passed_by


def passed(scanner: FrameScanner, chunks: Iterable[bytes], *, past_close: bool = False) -> Passed:
    """Run a stream through the scanner as the relay does, up to its Close or its first mistake."""
    result = Passed()
    _scan(scanner, chunks, result, past_close)
    result.controls = list(_controls(result.forwarded))
    assert result.passed_by + sum(len(raw) for *_, raw in result.stops) == sum(
        len(raw) for *_, raw in result.controls
    ), "control frames are counted as something else"
    return result


def _controls(stream: bytes) -> Iterator[Control]:
    """Find the control frames in a stream of valid frames, which may end within one of data."""
    position = 0
    while len(stream) >= position + 2:
        start, second = position, stream[position + 1]
        size, position = second & 127, position + 2
        if extended := {126: 2, 127: 8}.get(size, 0):
            size = int.from_bytes(stream[position : position + extended], "big")
            position += extended
        mask = stream[position : position + 4] if second & 128 else b""
        position += len(mask) + size
        if stream[start] & 8:
            payload = stream[position - size : position]
            if mask:
                payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
            yield start, Opcode(stream[start] & 15), payload, stream[start:position]


def _scan(scanner: FrameScanner, chunks: Iterable[bytes], result: Passed, past_close: bool) -> None:
    buffer = bytearray()
    start = offset = 0  # of the buffer's first byte in the stream
    for chunk in chunks:
        offset, buffer, start = offset + start, buffer[start:] + chunk, 0
        result.held = b""
        while True:
            cut = scanner.scan(buffer, start, len(buffer))
            boundary = offset + scanner.boundary if scanner.boundary >= 0 else -1
            result.scans.append((offset + start, offset + cut, boundary, scanner.mid_frame))
            result.forwarded += buffer[start:cut]
            result.passed_by += scanner.passed_by
            result.mid_frame = scanner.mid_frame
            start = cut
            if scanner.violation:
                result.violation = scanner.violation.code, str(scanner.violation)
                return
            if scanner.control is None:
                break
            control = scanner.control
            result.stops.append((offset + cut, control.opcode, control.payload, control.raw))
            result.forwarded += control.raw
            start += len(control.raw)
            if control.opcode is Opcode.CLOSE and not past_close:
                return
        result.held = bytes(buffer[start:])
        assert len(result.held) < MAX_CONTROL_FRAME


@dataclass
class Verdict:
    """What wsproto makes of a stream.

    :ivar ends: how much of the stream it had been given when it saw a frame end.
    :ivar controls: opcodes and payloads of the control frames.
    :ivar size: bytes, or characters, in data frames.
    :ivar code: the close code of the first mistake, None without one.
    """

    ends: list[int] = field(default_factory=list)
    controls: list[tuple[int, object]] = field(default_factory=list)
    size: int = 0
    code: int | None = None


def judged(pieces: Iterable[bytes], masked: bool) -> Verdict:
    """Let wsproto parse a stream up to its Close or its first mistake."""
    verdict, given = Verdict(), 0
    parser = FrameProtocol(client=not masked, extensions=[])
    try:
        for piece in pieces:
            given += len(piece)
            parser.receive_bytes(piece)
            for found in parser.received_frames():
                if found.opcode.iscontrol():
                    verdict.controls.append((int(found.opcode), found.payload))
                else:
                    verdict.size += len(found.payload)
                if found.frame_finished:
                    verdict.ends.append(given)
    except ParseFailed as failure:
        verdict.code = int(failure.code)
    return verdict


def as_judged(result: Passed) -> list[tuple[int, object]]:
    """Return the control frames in wsproto's form."""
    found: list[tuple[int, object]] = []
    for _, opcode, payload, _ in result.controls:
        if opcode is Opcode.CLOSE:
            code, reason = parse_close_payload(payload)
            found.append((8, (CloseReason.NO_STATUS_RCVD if code is None else code, reason)))
        else:
            found.append((int(opcode), payload))
    return found
