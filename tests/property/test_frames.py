"""The frame scanner against wsproto's own parser: the same streams, the same verdicts."""

from __future__ import annotations

import unittest
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason

from tests.support.frame_streams import Passed, as_judged, bytewise, frame, judged, passed
from wsproxy.exceptions import ProtocolViolation
from wsproxy.protocol.frames import (
    FrameScanner,
    Opcode,
    build_frame,
    close_payload,
    may_be_sent,
    parse_close_payload,
)

from .profile import few, many

_MORE = bytes(300)
"""Put behind a stream, so that neither waits for the rest of a frame of which the other has seen enough."""

_SIZES = st.sampled_from((0, 0, 1, 2, 7, 124, 125, 126, 127, 200))
_CLOSE = st.sampled_from((1000, 1001, 1002, 1007, 1011, 1012, 1013, 3000, 4411, 4999)).flatmap(
    lambda code: st.text(max_size=10).map(lambda reason: close_payload(code, reason))
)


def scanned(stream: bytes, masked: bool) -> tuple[Passed, list[int]]:
    """Give the scanner a stream byte by byte; return what came of it and the boundaries that it found."""
    result = passed(FrameScanner(masked), bytewise(stream))
    ends = {boundary for _, _, boundary, _ in result.scans if boundary > 0}
    ends |= {offset + len(raw) for offset, _, _, raw in result.controls}
    return result, sorted(ends)


@dataclass(frozen=True)
class Difference:
    """Where the two are known to disagree.

    :ivar example: an unmasked stream that shows it.
    :ivar judge: the close code that wsproto gives, None if it accepts.
    :ivar ours: the one that the scanner gives.
    """

    why: str
    example: bytes
    judge: int | None
    ours: int | None


TEXT = Difference(
    "no payload is looked at: whether a text is UTF-8 is between the two ends",
    frame(0x81, b"\xff", masked=False),
    1007,
    None,
)
REGISTERED_LATER = Difference(
    "1014 (bad gateway) was registered with IANA; wsproto does not know it",
    frame(0x88, (1014).to_bytes(2, "big"), masked=False),
    1002,
    None,
)
CLOSE_REASON = Difference(
    "a Close that is malformed is a protocol error, whatever is wrong with it; the reason's UTF-8 as well",
    frame(0x88, b"\x03\xe8\xff", masked=False),
    1007,
    1002,
)
DIFFERENCES = (TEXT, REGISTERED_LATER, CLOSE_REASON)


@st.composite
def streams(draw: st.DrawFn, masked: bool) -> bytes:
    """Return a valid stream: whole and fragmented messages, with control frames in between."""
    frames: list[bytes] = []
    in_message = False
    for _ in range(draw(st.integers(1, 8))):
        mask = draw(st.binary(min_size=4, max_size=4))
        if draw(st.booleans()):
            fin = draw(st.booleans())
            opcode = (
                Opcode.CONTINUATION if in_message else draw(st.sampled_from((Opcode.TEXT, Opcode.BINARY)))
            )
            first, in_message = opcode | fin << 7, not fin
            payload = b"t" * draw(_SIZES)
        else:
            first = draw(st.sampled_from((0x89, 0x8A)))
            payload = draw(st.binary(max_size=125))
        frames.append(frame(first, payload, masked=masked, mask=mask))
    if draw(st.booleans()):
        frames.append(frame(0x88, draw(st.just(b"") | _CLOSE), masked=masked))
    return b"".join(frames)


@st.composite
def mutated(draw: st.DrawFn, masked: bool) -> bytes:
    """Return a stream with some bytes changed, taken out or put in, most of them near its front."""
    stream = bytearray(draw(streams(masked)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, min(len(stream), draw(st.sampled_from((4, 40, 400))))))
        new = draw(
            st.binary(max_size=2) | st.sampled_from((b"\x88", b"\x89", b"\xff", b"\x7e\0", b"\x7f\x80"))
        )
        stream[place : place + draw(st.integers(0, 2))] = new
    return bytes(stream)


class JudgeTest(unittest.TestCase):
    """Both sides of a connection: frames that must be masked and frames that must not."""

    def compare(self, stream: bytes, masked: bool) -> None:
        """Assert that the two agree on a stream, or disagree in one of the known ways."""
        judge = judged(bytewise(stream + _MORE), masked)
        ours, ends = scanned(stream + _MORE, masked)
        code = ours.violation[0] if ours.violation else None
        if code == judge.code:
            self.assertEqual(as_judged(ours), judge.controls)
            self.assertEqual(ends, judge.ends)
            return
        known = self.difference(ours, len(judge.controls), judge.code)
        self.assertEqual((judge.code, None if known is TEXT else code), (known.judge, known.ours))
        # Up to there they agree.
        self.assertEqual(as_judged(ours)[: len(judge.controls)], judge.controls)
        self.assertEqual(ends[: len(judge.ends)], judge.ends)

    def difference(self, ours: Passed, agreed: int, judge_code: int | None) -> Difference:
        """Return which difference it must be: the judge has stopped, after so many control frames."""
        self.assertIsNotNone(judge_code, ours.violation)
        if ours.violation and "reason" in ours.violation[1] and agreed == len(ours.controls):
            return CLOSE_REASON
        if judge_code == CloseReason.INVALID_FRAME_PAYLOAD_DATA:
            return TEXT
        _, opcode, payload, _ = ours.controls[agreed]
        self.assertEqual((opcode, payload[:2]), (Opcode.CLOSE, (1014).to_bytes(2, "big")))
        return REGISTERED_LATER

    @many
    @given(st.booleans().flatmap(lambda masked: st.tuples(streams(masked), st.just(masked))))
    def test_valid(self, given: tuple[bytes, bool]) -> None:
        """A valid stream passes whole, with the boundaries and control frames that wsproto sees."""
        stream, masked = given
        ours, ends = scanned(stream, masked)
        judge = judged(bytewise(stream), masked)
        self.assertEqual((ours.violation, judge.code), (None, None))
        self.assertEqual(ours.forwarded, stream)
        self.assertEqual(as_judged(ours), judge.controls)
        self.assertEqual(ends, judge.ends)
        self.assertEqual(ends[-1], len(stream))

    @many
    @given(st.booleans().flatmap(lambda masked: st.tuples(mutated(masked), st.just(masked))))
    def test_mutated(self, given: tuple[bytes, bool]) -> None:
        """A stream with mistakes is accepted as far, and refused with the same code."""
        self.compare(*given)

    @few
    @given(st.binary(max_size=40), st.booleans())
    def test_random_bytes(self, stream: bytes, masked: bool) -> None:
        """So are bytes without any order."""
        self.compare(stream, masked)

    @few
    @given(st.booleans().flatmap(lambda masked: st.tuples(streams(not masked), st.just(masked))))
    def test_other_side(self, given: tuple[bytes, bool]) -> None:
        """What the other side would have to send is refused at its first frame."""
        self.compare(*given)
        self.assertEqual(scanned(*given)[0].forwarded, b"")

    def test_differences(self) -> None:
        """Each known difference exists: its example is judged as it says."""
        for difference in DIFFERENCES:
            with self.subTest(why=difference.why):
                ours, _ = scanned(difference.example, False)
                self.assertEqual(judged([difference.example], False).code, difference.judge)
                self.assertEqual(ours.violation[0] if ours.violation else None, difference.ours)

    def test_every_header(self) -> None:
        """They agree on every first byte with every kind of length, in a fragmented message and outside."""
        lengths = [bytes([size]) for size in (0, 1, 125)]
        lengths += [b"\x7e" + size.to_bytes(2, "big") for size in (0, 125, 126, 65535)]
        lengths += [
            b"\x7f" + size.to_bytes(8, "big") for size in (0, 65535, 65536, 2**63 - 1, 2**63, 2**64 - 1)
        ]
        for masked, other, before in product((False, True), (False, True), (b"", b"part")):
            start = frame(0x02, before, masked=masked) if before else b""
            for first, length in product(range(256), lengths):
                stream = start + frame(first, masked=masked ^ other, length=length) + _MORE
                ours, judge = passed(FrameScanner(masked), [stream]), judged([stream], masked)
                self.assertEqual(ours.violation[0] if ours.violation else None, judge.code, stream[:20])
                self.assertEqual(as_judged(ours), judge.controls, stream[:20])

    def test_every_close_code(self) -> None:
        """They agree on every close code but the one that was registered later."""
        for code in range(65536):
            stream = frame(0x88, code.to_bytes(2, "big"), masked=False)
            ours, judge = passed(FrameScanner(False), [stream]), judged([stream], False)
            if stream != REGISTERED_LATER.example:
                self.assertEqual(ours.violation is None, judge.code is None, code)

    def test_lengths(self) -> None:
        """The two agree on frames around each change of the length's encoding, and on what follows them."""
        for size in (125, 126, 65535, 65536):
            for masked in (False, True):
                stream = frame(0x82, bytes(size), masked=masked) + frame(0x89, b"p", masked=masked)
                ours = passed(FrameScanner(masked), [stream])
                self.assertEqual(ours.forwarded, stream)
                verdict = judged([stream[:-1], stream[-1:]], masked)
                self.assertEqual(as_judged(ours), verdict.controls)
                self.assertEqual(verdict.ends, [len(stream) - 1, len(stream)])


class CutsTest(unittest.TestCase):
    @many
    @given(
        st.booleans().flatmap(lambda masked: st.tuples(st.just(masked), streams(masked) | mutated(masked))),
        st.lists(st.integers(0, 400), max_size=12),
        st.sampled_from((2**63 - 1, 0, 100, 130)),
    )
    def test_cuts(self, given: tuple[bool, bytes], cuts: Sequence[int], limit: int) -> None:
        """However a stream is cut, and whatever the size limit, the same comes of it."""
        masked, stream = given
        places = sorted(min(cut, len(stream)) for cut in cuts)
        pieces = [
            stream[start:stop] for start, stop in zip([0, *places], [*places, len(stream)], strict=True)
        ]
        in_pieces, whole = (passed(FrameScanner(masked, limit), data) for data in (pieces, [stream]))
        self.assertEqual(in_pieces.outcome(), whole.outcome())


class PayloadTest(unittest.TestCase):
    @few
    @given(st.binary(max_size=125))
    def test_parsed_payload(self, payload: bytes) -> None:
        """A Close payload is refused, or built again from what was read."""
        try:
            code, reason = parse_close_payload(payload)
        except ProtocolViolation as violation:
            self.assertEqual(violation.code, 1002)
        else:
            self.assertEqual(close_payload(code, reason), payload)

    @few
    @given(st.integers(0, 65535).filter(may_be_sent), st.text(max_size=130))
    def test_built_payload(self, code: int, reason: str) -> None:
        """A built Close payload is read as the code and the beginning of the reason, in at most 125 bytes."""
        payload = close_payload(code, reason)
        self.assertLessEqual(len(payload), 125)
        self.assertEqual((code, reason[: len(parse_close_payload(payload)[1])]), parse_close_payload(payload))
        if len(reason.encode()) <= 123:
            self.assertEqual(parse_close_payload(payload), (code, reason))

    @few
    @given(st.sampled_from((Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG)), st.binary(), st.binary())
    def test_built_frames(self, opcode: Opcode, payload: bytes, mask: bytes) -> None:
        """A frame that was built is one frame, for the scanner and for wsproto."""
        if opcode >= Opcode.CLOSE:
            payload = payload[:125]
        mask = (mask + b"mask")[:4]
        for key in (None, mask):
            raw = build_frame(opcode, b"t" * len(payload), key)
            ours, ends = scanned(raw, key is not None)
            self.assertEqual((ours.forwarded, ends), (raw, [len(raw)]))
            self.assertEqual(judged([raw], key is not None).ends, [len(raw)])
