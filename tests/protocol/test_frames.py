"""The frame scanner: what it lets pass, what it stops at, and that cuts make no difference."""

from __future__ import annotations

import random
import unittest

from wsproto.frame_protocol import CloseReason

from tests.support.frame_streams import MASK, Passed, as_judged, bytewise, frame, judged, passed, random_cuts
from wsproxy.exceptions import ProtocolViolation
from wsproxy.protocol.frames import (
    FrameScanner,
    Opcode,
    build_frame,
    close_payload,
    may_be_sent,
    parse_close_payload,
)

GOOD_CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4411, 4999]
BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


class FrameCase(unittest.TestCase):
    """Scans every input whole, byte by byte and at random cuts, and compares the results."""

    def check(self, data: bytes, masked: bool, limit: int = 1 << 40) -> Passed:
        """Return the result for ``data``, which must be the same for all cuts."""
        whole = passed(FrameScanner(masked, limit), [data])
        if len(data) <= 4000:
            single = passed(FrameScanner(masked, limit), bytewise(data))
            self.assertEqual(single.outcome(), whole.outcome())
        dice = random.Random(len(data))
        for _ in range(10):
            pieces = passed(FrameScanner(masked, limit), random_cuts(data, dice))
            self.assertEqual(pieces.outcome(), whole.outcome())
        return whole

    def check_valid(self, data: bytes, masked: bool) -> Passed:
        """Check that all of ``data`` passes unchanged."""
        result = self.check(data, masked)
        self.assertIsNone(result.violation)
        self.assertEqual(result.forwarded, data)
        self.assertEqual((result.held, result.mid_frame), (b"", False))
        return result

    def check_violation(self, data: bytes, masked: bool, code: int = 1002, limit: int = 1 << 40) -> str:
        """Check that ``data`` is a violation, also behind valid frames, which pass; return the text."""
        text = ""
        for before in (b"", frame(0x82, b"good", masked=masked), frame(0x89, b"ping", masked=masked)):
            result = self.check(before + data, masked, limit)
            self.assertIsNotNone(result.violation)
            assert result.violation
            found, text = result.violation
            self.assertEqual(found, code)
            self.assertTrue(result.forwarded.startswith(before))
        return text


class ValidTest(FrameCase):
    def test_data_frames(self) -> None:
        """Text and binary frames of every length form pass unchanged."""
        for masked in (False, True):
            for size in (0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 1000, 65535, 65536, 70000):
                for first in (0x81, 0x82):
                    with self.subTest(masked=masked, size=size, first=first):
                        self.check_valid(frame(first, b"x" * size, masked=masked), masked)

    def test_fragments(self) -> None:
        """A fragmented message passes, empty fragments and an empty last frame included."""
        for masked in (False, True):
            with self.subTest(masked=masked):
                parts = [(0x02, b"one"), (0x00, b""), (0x00, b"two" * 100), (0x80, b""), (0x81, b"next")]
                data = b"".join(frame(first, payload, masked=masked) for first, payload in parts)
                self.assertEqual(self.check_valid(data, masked).controls, [])

    def test_control_frames_between_fragments(self) -> None:
        """Control frames may stand between the fragments of a message and do not end it."""
        for masked in (False, True):
            with self.subTest(masked=masked):
                parts = [(0x01, b"one"), (0x89, b"are you there"), (0x00, b"two"), (0x8A, b""), (0x80, b"!")]
                data = b"".join(frame(first, payload, masked=masked) for first, payload in parts)
                controls = [
                    (opcode, payload) for _, opcode, payload, _ in self.check_valid(data, masked).controls
                ]
                self.assertEqual(controls, [(Opcode.PING, b"are you there"), (Opcode.PONG, b"")])

    def test_control_frames(self) -> None:
        """A control frame of any size is given whole, with its raw bytes and its unmasked payload."""
        for masked in (False, True):
            for first, opcode in ((0x89, Opcode.PING), (0x8A, Opcode.PONG)):
                for size in (0, 1, 3, 4, 5, 8, 124, 125):
                    with self.subTest(masked=masked, opcode=opcode, size=size):
                        payload = bytes(range(size))
                        raw = frame(first, payload, masked=masked)
                        result = self.check_valid(raw, masked)
                        self.assertEqual(result.controls, [(0, opcode, payload, raw)])

    def test_close_frames(self) -> None:
        """A Close passes with every code that may be sent, with and without a reason, or without a code."""
        payloads = [
            code.to_bytes(2, "big") + reason for code in GOOD_CODES for reason in (b"", b"bye \xc3\xa4")
        ]
        payloads += [b"", b"\x03\xe8" + b"r" * 123]
        for masked in (False, True):
            for payload in payloads:
                with self.subTest(masked=masked, payload=payload):
                    raw = frame(0x88, payload, masked=masked)
                    result = self.check_valid(raw, masked)
                    self.assertEqual(result.controls, [(0, Opcode.CLOSE, payload, raw)])

    def test_awaited_pongs(self) -> None:
        """The scanner stops at a Pong that is awaited, wherever the cuts are, and passes all others by."""
        wanted = b"\x81\0\0\0\xff\0\0\x01"
        payloads = [wanted, bytes(8), wanted[:7], wanted + b"x", b"", wanted[::-1], bytes(125)]
        for masked in (False, True):
            frames = [frame(first, each, masked=masked) for each in payloads for first in (0x8A, 0x89, 0x82)]
            data = frame(0x02, b"part", masked=masked) + frames[0] + frame(0x80, b"", masked=masked)
            data += b"".join(frames[1:])
            for pieces in ([data], bytewise(data), random_cuts(data, random.Random(5))):
                scanner = FrameScanner(masked)
                scanner.awaited = frozenset({int.from_bytes(wanted, "big"), 5})
                result = passed(scanner, pieces)
                self.assertEqual((result.violation, result.forwarded), (None, data))
                self.assertEqual([stop[1:] for stop in result.stops], [(Opcode.PONG, wanted, frames[0])])

    def test_only_a_close_stops(self) -> None:
        """One scan passes, and counts, any number of control frames except a Close."""
        for masked in (False, True):
            control = b"".join(
                frame(first, bytes(size), masked=masked) for first in (0x89, 0x8A) for size in (0, 125)
            )
            close = frame(0x88, b"", masked=masked)
            data = (control + frame(0x82, b"x", masked=masked)) * 100
            scanner = FrameScanner(masked, 5)  # the limit is one of data frames
            self.assertEqual(scanner.scan(bytearray(data + close), 0, len(data + close)), len(data))
            self.assertEqual(scanner.passed_by, len(control) * 100)
            assert scanner.control
            self.assertEqual(scanner.control.raw, close)

    def test_mask_of_zeros(self) -> None:
        """A mask of zero bytes is a mask."""
        raw = frame(0x89, b"ping", masked=True, mask=bytes(4))
        self.assertEqual(self.check_valid(raw, True).controls, [(0, Opcode.PING, b"ping", raw)])

    def test_payload_is_not_looked_at(self) -> None:
        """Text that is not UTF-8 passes, because only the peers check it."""
        self.check_valid(frame(0x81, b"\xff\xfe", masked=False), False)

    def test_huge_frame_is_counted(self) -> None:
        """A frame of a size that never fits into memory is counted to its last byte."""
        for size in (1 << 32, (1 << 63) - 1):
            with self.subTest(size=size):
                scanner = FrameScanner(False)
                header = b"\x82\x7f" + size.to_bytes(8, "big")
                buffer = bytearray(header + bytes(1000))
                self.assertEqual(scanner.scan(buffer, 0, len(buffer)), len(buffer))
                self.assertIsNone(scanner.violation)
                self.assertEqual((scanner.boundary, scanner.mid_frame), (0, True))
                for _ in range(100):
                    self.assertEqual(scanner.scan(buffer, 0, len(buffer)), len(buffer))
                    self.assertEqual((scanner.boundary, scanner.mid_frame), (-1, True))

    def test_at_the_limit(self) -> None:
        """A frame of exactly the limit passes; the limit does not concern whole messages."""
        for size in (100, 126, 65536):
            with self.subTest(size=size):
                data = frame(0x02, b"x" * size, masked=True) + frame(0x80, b"y" * size, masked=True)
                result = self.check(data, True, size)
                self.assertIsNone(result.violation)
                self.assertEqual(result.forwarded, data)

    def test_window_of_the_buffer(self) -> None:
        """Only the given part of the buffer is looked at."""
        inner = frame(0x82, b"data", masked=False)
        buffer = bytearray(b"\xff\xff" + inner + b"\xff\xff")
        scanner = FrameScanner(False)
        self.assertEqual(scanner.scan(buffer, 2, 2 + len(inner)), 2 + len(inner))
        self.assertIsNone(scanner.violation)
        self.assertEqual(scanner.boundary, 2 + len(inner))


class ViolationTest(FrameCase):
    def test_reserved_bits(self) -> None:
        """A frame with any reserved bit set is refused, because no extension was negotiated."""
        for masked in (False, True):
            for opcode in Opcode:
                for bits in range(0x10, 0x80, 0x10):
                    with self.subTest(masked=masked, opcode=opcode, bits=bits):
                        text = self.check_violation(frame(0x80 | bits | opcode, b"", masked=masked), masked)
                        self.assertIn("reserved bits", text)

    def test_unknown_opcodes(self) -> None:
        """A frame with a reserved opcode is refused, final or not."""
        for masked in (False, True):
            for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
                for fin in (0, 0x80):
                    with self.subTest(masked=masked, opcode=opcode, fin=fin):
                        text = self.check_violation(frame(fin | opcode, b"", masked=masked), masked)
                        self.assertIn("unknown opcode", text)

    def test_fragmented_control_frames(self) -> None:
        """A control frame that is not final is refused."""
        for masked in (False, True):
            for opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG):
                with self.subTest(masked=masked, opcode=opcode):
                    text = self.check_violation(frame(opcode, b"", masked=masked), masked)
                    self.assertIn("fragmented", text)

    def test_long_control_frames(self) -> None:
        """A control frame of more than 125 bytes is refused as soon as its length is seen."""
        for masked in (False, True):
            for first in (0x88, 0x89, 0x8A):
                for size in (126, 127, 65536):
                    with self.subTest(masked=masked, first=first, size=size):
                        data = frame(first, b"x" * size, masked=masked)
                        self.assertIn("125 bytes", self.check_violation(data[:2], masked))
                        self.check_violation(data, masked)

    def test_wrong_mask_bit(self) -> None:
        """A client that does not mask and a server that masks are refused, for every opcode."""
        for masked in (False, True):
            for first in (0x81, 0x82, 0x01, 0x02, 0x88, 0x89, 0x8A):
                with self.subTest(masked=masked, first=first):
                    data = frame(first, b"", masked=masked)
                    result = self.check(data, not masked)
                    self.assertEqual(
                        result.violation, (1002, "frame is masked" if masked else "frame is not masked")
                    )

    def test_lengths_that_are_not_minimal(self) -> None:
        """A length that would have fitted a shorter form is refused (RFC 6455 section 5.2)."""
        for masked in (False, True):
            for size in (0, 1, 125):
                length = b"\x7e" + size.to_bytes(2, "big")
                with self.subTest(masked=masked, size=size, form=2):
                    data = frame(0x82, b"x" * size, masked=masked, length=length)
                    self.assertIn("minimal", self.check_violation(data, masked))
            for size in (0, 125, 126, 65535):
                length = b"\x7f" + size.to_bytes(8, "big")
                with self.subTest(masked=masked, size=size, form=8):
                    data = frame(0x82, b"x" * size, masked=masked, length=length)
                    self.assertIn("minimal", self.check_violation(data, masked))

    def test_length_with_highest_bit(self) -> None:
        """A length with its most significant bit set is refused, whatever the limit."""
        for masked in (False, True):
            for size in (1 << 63, (1 << 64) - 1):
                with self.subTest(masked=masked, size=size):
                    data = frame(0x82, masked=masked, length=b"\x7f" + size.to_bytes(8, "big"))
                    self.check_violation(data, masked)

    def test_bad_continuation(self) -> None:
        """A continuation without a message, and a new message inside one, are refused."""
        for masked in (False, True):
            with self.subTest(masked=masked):
                for first in (0x00, 0x80):
                    self.check_violation(frame(first, b"x", masked=masked), masked)
                start = frame(0x02, b"start", masked=masked)
                for first in (0x01, 0x02, 0x81, 0x82):
                    self.check_violation(start + frame(first, b"x", masked=masked), masked)
                ended = start + frame(0x80, b"end", masked=masked)
                self.check_violation(ended + frame(0x80, b"x", masked=masked), masked)

    def test_close_of_one_byte(self) -> None:
        """A Close with one byte of payload is refused."""
        for masked in (False, True):
            self.check_violation(frame(0x88, b"\x03", masked=masked), masked)

    def test_close_codes_that_may_not_be_sent(self) -> None:
        """A Close with a code that never goes on the wire is refused."""
        for masked in (False, True):
            for code in BAD_CODES:
                with self.subTest(masked=masked, code=code):
                    data = frame(0x88, code.to_bytes(2, "big") + b"why", masked=masked)
                    self.check_violation(data, masked)

    def test_close_reason_that_is_not_utf_8(self) -> None:
        """A Close whose reason is not UTF-8 is refused."""
        for masked in (False, True):
            for reason in (b"\xff", b"ok \xc3", b"\xed\xa0\x80", b"\xc0\xaf"):
                with self.subTest(masked=masked, reason=reason):
                    self.check_violation(frame(0x88, b"\x03\xe8" + reason, masked=masked), masked)

    def test_above_the_limit(self) -> None:
        """A frame above the limit is refused with 1009 as soon as its length is seen."""
        for masked in (False, True):
            for limit, size in ((100, 101), (125, 126), (65535, 65536), (1 << 20, 1 << 40)):
                with self.subTest(masked=masked, limit=limit):
                    if size <= 125:
                        length = bytes([size])
                    elif size < 65536:
                        length = b"\x7e" + size.to_bytes(2, "big")
                    else:
                        length = b"\x7f" + size.to_bytes(8, "big")
                    data = frame(0x82, masked=masked, length=length)
                    if masked:
                        data = data[:-4]  # not even the mask is there
                    self.check_violation(data, masked, 1009, limit)

    def test_first_of_two_mistakes_counts(self) -> None:
        """The scanner reads nothing behind the first violation."""
        data = frame(0x83, b"", masked=True) + frame(0x89, b"ping", masked=True)
        result = self.check(data, True)
        self.assertEqual((result.forwarded, result.controls), (b"", []))

    def test_frames_before_a_mistake_pass(self) -> None:
        """Valid frames in front of a violation are forwarded, control frames included."""
        good = (
            frame(0x02, b"a" * 300, masked=True)
            + frame(0x89, b"p", masked=True)
            + frame(0x80, b"", masked=True)
        )
        result = self.check(good + frame(0x80, b"x", masked=True), True)
        self.assertEqual(result.forwarded, good)
        self.assertEqual(result.violation, (1002, "continuation without a message to continue"))

    def test_text_quotes_no_payload(self) -> None:
        """The text of a violation goes to a peer and to the log, and holds nothing of a payload."""
        for data in (
            frame(0x88, b"\x03\xe8secret\xff", masked=False),
            frame(0x82, b"secret", masked=True),
            frame(0x80, b"secret", masked=False),
        ):
            result = self.check(data, False)
            assert result.violation
            self.assertNotIn("secret", result.violation[1])
            self.assertLess(len(result.violation[1]), 90)


def random_stream(dice: random.Random, masked: bool) -> list[bytes]:
    """Return the frames of a valid stream; text is ASCII, so that wsproto accepts it in every piece."""
    frames: list[bytes] = []
    open_message = False
    for _ in range(dice.randrange(1, 12)):
        mask = dice.randbytes(4)
        if dice.random() < 0.3:
            first = dice.choice((0x89, 0x8A))
            payload = dice.randbytes(dice.choice((0, 1, 7, 8, 125)))
        else:
            fin = dice.choice((0, 0x80))
            opcode = Opcode.CONTINUATION if open_message else dice.choice((Opcode.TEXT, Opcode.BINARY))
            first, open_message = fin | opcode, not fin
            payload = b"t" * dice.choice(
                (0, 1, 5, 125, 126, 300, 65535, 65537) if dice.random() < 0.1 else (0, 9, 130)
            )
        frames.append(frame(first, payload, masked=masked, mask=mask))
    if dice.random() < 0.3:
        code = dice.choice((1000, 1001, 1011, 3000, 4999)).to_bytes(2, "big")
        frames.append(
            frame(0x88, dice.choice((b"", code, code + b"bye")), masked=masked, mask=dice.randbytes(4))
        )
    return frames


class BoundaryTest(unittest.TestCase):
    def test_boundaries(self) -> None:
        """After every scan of randomly cut streams, boundary and mid_frame are right."""
        dice = random.Random(1)
        for _ in range(300):
            masked = dice.random() < 0.5
            frames = random_stream(dice, masked)
            ends = {0}
            for each in frames:
                ends.add(max(ends) + len(each))
            result = passed(FrameScanner(masked), random_cuts(b"".join(frames), dice))
            self.assertIsNone(result.violation)
            for start, cut, boundary, mid_frame in result.scans:
                within = [end for end in ends if start <= end <= cut]
                self.assertEqual(boundary, max(within, default=-1))
                self.assertEqual(mid_frame, cut not in ends)

    def test_incomplete_header_is_held(self) -> None:
        """A scan ends in front of a header that is not complete, and that is a boundary."""
        whole = frame(0x82, b"x" * 300, masked=True)
        for size in range(1, 8):
            scanner = FrameScanner(True)
            self.assertEqual(scanner.scan(bytearray(whole), 0, size), 0)
            self.assertEqual((scanner.boundary, scanner.mid_frame), (0, False))
            self.assertEqual((scanner.control, scanner.violation), (None, None))

    def test_complete_header_passes(self) -> None:
        """A header that is complete passes without a byte of its payload."""
        scanner = FrameScanner(True)
        whole = frame(0x82, b"x" * 300, masked=True)
        self.assertEqual(scanner.scan(bytearray(whole), 0, 8), 8)
        self.assertEqual((scanner.boundary, scanner.mid_frame), (0, True))

    def test_nothing_to_scan(self) -> None:
        """An empty input changes nothing."""
        scanner = FrameScanner(False)
        self.assertEqual(scanner.scan(bytearray(), 0, 0), 0)
        self.assertEqual((scanner.boundary, scanner.mid_frame), (0, False))


class JudgeTest(unittest.TestCase):
    """wsproto, an independent implementation, gets the same streams."""

    def test_valid_streams(self) -> None:
        """Streams that wsproto accepts pass unchanged, with the same control frames."""
        dice = random.Random(2)
        for _ in range(400):
            masked = dice.random() < 0.5
            data = b"".join(random_stream(dice, masked))
            verdict = judged([data], masked)
            self.assertIsNone(verdict.code)
            result = passed(FrameScanner(masked), random_cuts(data, dice))
            self.assertIsNone(result.violation)
            self.assertEqual(result.forwarded, data)
            self.assertEqual(as_judged(result), verdict.controls)

    def test_mutated_streams(self) -> None:
        """A stream with changed bytes is refused if and only if wsproto refuses it."""
        dice = random.Random(3)
        refused = 0
        for _ in range(3000):
            masked = dice.random() < 0.5
            data = bytearray(b"".join(random_stream(dice, masked)[:4])[:2000])
            for _ in range(dice.randrange(1, 4)):
                # Most headers are near the front; the mistakes that count are there.
                place = min(dice.randrange(len(data)), dice.randrange(len(data)))
                data[place] = dice.choice((dice.randrange(256), data[place] ^ (1 << dice.randrange(8))))
            refused += self.compare(bytes(data), masked, dice)
        self.assertGreater(refused, 500)

    def test_random_bytes(self) -> None:
        """The two agree on random bytes, too."""
        dice = random.Random(4)
        for _ in range(2000):
            masked = dice.random() < 0.5
            first = dice.choice((0x81, 0x82, 0x88, 0x89, 0x02, 0x00))
            second = dice.choice((0, 1, 2, 5, 125, 126, 127)) | (0x80 if masked else 0)
            data = bytes((first, second)) + dice.randbytes(dice.randrange(300))
            self.compare(data, masked, dice)

    def compare(self, data: bytes, masked: bool, dice: random.Random) -> bool:
        """Compare the two on one stream; return whether both refuse it."""
        verdict = judged([data], masked)
        result = passed(FrameScanner(masked), random_cuts(data, dice))
        if verdict.code == CloseReason.INVALID_FRAME_PAYLOAD_DATA and not result.violation:
            return False  # it looked into text, which is not ours to do
        if 1014 in (
            parse_close_payload(found[2])[0] for found in result.controls if found[1] is Opcode.CLOSE
        ):
            return False  # registered after wsproto
        if verdict.code is not None:
            self.assertIsNotNone(result.violation, data[:40])
        if result.violation is None:
            self.assertEqual(as_judged(result), verdict.controls)
            return False
        # It may wait for the end of a header of which we have seen enough; so it is given that end.
        verdict = judged([data, bytes(70000)], masked)
        self.assertIsNotNone(verdict.code, data[:40])
        return True


class ClosePayloadTest(unittest.TestCase):
    def test_may_be_sent(self) -> None:
        """Exactly the registered codes below 3000, and all from 3000 to 4999, may be sent."""
        for code in GOOD_CODES:
            self.assertTrue(may_be_sent(code), code)
        for code in (*BAD_CODES, -1, 10**6):
            self.assertFalse(may_be_sent(code), code)

    def test_round_trip(self) -> None:
        """A payload that was built is parsed into the same code and reason."""
        for code in GOOD_CODES:
            for reason in ("", "bye", "zu spät \N{SNOWMAN}"):
                self.assertEqual(parse_close_payload(close_payload(code, reason)), (code, reason))

    def test_no_code(self) -> None:
        """Without a code the payload is empty, whatever the reason."""
        self.assertEqual(close_payload(None), b"")
        self.assertEqual(close_payload(None, "lost"), b"")
        self.assertEqual(parse_close_payload(b""), (None, ""))

    def test_reason_is_cut_at_a_character(self) -> None:
        """A long reason is cut to 123 bytes without leaving half a character."""
        self.assertEqual(len(close_payload(1000, "x" * 200)), 125)
        for shift in range(4):
            payload = close_payload(1000, "x" * shift + "\N{SNOWMAN}" * 60)
            self.assertLessEqual(len(payload), 125)
            code, reason = parse_close_payload(payload)
            self.assertEqual((code, reason.strip("x\N{SNOWMAN}")), (1000, ""))

    def test_codes_that_are_never_sent(self) -> None:
        """A payload with a code that may not be sent cannot be built."""
        for code in BAD_CODES:
            with self.subTest(code=code), self.assertRaises(ValueError):
                close_payload(code)

    def test_parse_violations(self) -> None:
        """A payload that breaks RFC 6455 section 5.5.1 raises a protocol error."""
        for payload in (b"\x03", b"\x03\xed", b"\x03\xe8\xff", b"\0\0"):
            with self.subTest(payload=payload), self.assertRaises(ProtocolViolation) as caught:
                parse_close_payload(payload)
            self.assertEqual(caught.exception.code, 1002)


class BuildFrameTest(unittest.TestCase):
    def test_against_wsproto(self) -> None:
        """Frames that are built are understood by wsproto, masked and not."""
        for mask in (None, MASK):
            for size in (0, 1, 125, 126, 127, 300, 65535):
                payload = bytes(size)
                verdict = judged([build_frame(Opcode.BINARY, payload, mask)], mask is not None)
                self.assertEqual((verdict.code, verdict.size), (None, size))

    def test_control_frames(self) -> None:
        """Control frames that are built come out of the scanner with the same payload."""
        for mask in (None, MASK):
            for opcode, payload in (
                (Opcode.PING, b"12345678"),
                (Opcode.PONG, b""),
                (Opcode.CLOSE, b"\x03\xe8bye"),
            ):
                raw = build_frame(opcode, payload, mask)
                result = passed(FrameScanner(mask is not None), [raw])
                self.assertEqual(result.controls, [(0, opcode, payload, raw)])

    def test_rfc_examples(self) -> None:
        """The examples of RFC 6455 section 5.7 are built byte for byte."""
        mask = b"\x37\xfa\x21\x3d"
        self.assertEqual(build_frame(Opcode.TEXT, b"Hello").hex(), "810548656c6c6f")
        self.assertEqual(build_frame(Opcode.TEXT, b"Hello", mask).hex(), "818537fa213d7f9f4d5158")
        self.assertEqual(build_frame(Opcode.PING, b"Hello").hex(), "890548656c6c6f")
        self.assertEqual(build_frame(Opcode.PONG, b"Hello", mask).hex(), "8a8537fa213d7f9f4d5158")
        self.assertEqual(build_frame(Opcode.BINARY, bytes(256)).hex(), "827e0100" + "00" * 256)
