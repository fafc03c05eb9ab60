"""Which Pongs answer a ping of ours."""

from __future__ import annotations

import unittest

from wsproxy.protocol.frames import FrameScanner, Opcode, build_frame
from wsproxy.relay.pings import Pings


class PingsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.scanner = FrameScanner(False)
        self.pings = Pings(self.scanner)

    def stops_at(self, payload: bytes) -> bool:
        pong = bytearray(build_frame(Opcode.PONG, payload))
        at = self.scanner.scan(pong, 0, len(pong))
        self.assertEqual(at, 0 if self.scanner.control else len(pong))
        return self.scanner.control is not None

    def test_answer(self) -> None:
        """The scanner stops at an answer, which yields the time since the ping."""
        self.assertFalse(self.stops_at(bytes(8)))
        payload = self.pings.next(10.0)
        self.assertEqual((len(payload), payload[4:]), (8, b"\0\0\0\1"))
        self.assertTrue(self.stops_at(payload))
        self.assertEqual(self.pings.answered(payload, 10.25), 0.25)

    def test_once(self) -> None:
        """If an answer comes again, the scanner does not stop at it, and it yields no time."""
        payload = self.pings.next(10.0)
        self.pings.answered(payload, 11.0)
        self.assertFalse(self.stops_at(payload))
        self.assertEqual(self.scanner.awaited, frozenset())

    def test_any_order(self) -> None:
        """Several pings may be answered in any order; only the answer to the last one yields a time."""
        payloads = [self.pings.next(float(now)) for now in range(3)]
        for payload, seconds in ((payloads[1], None), (payloads[2], 3.0), (payloads[0], None)):
            self.assertTrue(self.stops_at(payload))
            self.assertEqual(self.pings.answered(payload, 5.0), seconds)
        self.assertFalse(any(map(self.stops_at, payloads)))

    def test_no_answers(self) -> None:
        """If a peer answers nothing, the proxy remembers the last 64 pings, and no more."""
        payloads = [self.pings.next(0.0) for _ in range(1000)]
        self.assertEqual([self.stops_at(payload) for payload in payloads], [False] * 936 + [True] * 64)
        self.assertEqual(len(self.scanner.awaited), 64)

    def test_other_pongs(self) -> None:
        """A Pong that only resembles an answer is not taken for one."""
        payload = self.pings.next(0.0)
        for other in (payload[:7], payload + b"x", payload[1:], bytes(8), b"", payload[4:] + payload[:4]):
            self.assertFalse(self.stops_at(other), other)

    def test_legs_differ(self) -> None:
        """An answer of another leg is not taken for one, because each leg starts at a random number."""
        others = {Pings(FrameScanner(False)).next(0.0) for _ in range(20)}
        self.assertGreater(len(others), 15)


if __name__ == "__main__":
    unittest.main()
