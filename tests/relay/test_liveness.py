"""When a leg is dead."""

from __future__ import annotations

import math
import unittest
from dataclasses import replace
from typing import Any

from wsproxy.relay.liveness import Liveness, Look

_INTERVAL = 8.0
_PART = 1.0  # an eighth


class LivenessTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.seen = Look(received=10, taken=20)
        self.liveness = Liveness(_INTERVAL, self.now)

    def pass_time(self, seconds: float, **seen: Any) -> str:
        """Let time pass, look, and return the verdict."""
        self.now += seconds
        self.seen = replace(self.seen, **seen)
        return self.liveness.look(self.now, self.seen)

    def ping(self, seconds: float = _INTERVAL, **seen: Any) -> str:
        """Let an interval pass, as it does between two pings, and ping; return the verdict before that."""
        verdict = self.pass_time(seconds, **seen)
        self.liveness.asked(self.now)
        return verdict

    def hear(self, ago: float | None = None) -> dict[str, Any]:
        """Return the state of a leg from which one more byte came."""
        return {"received": self.seen.received + 1, "heard_ago": ago}

    def assert_due(self, seconds: float) -> None:
        """Assert in how many seconds the next look is due, apart from those at the pings."""
        self.assertAlmostEqual(self.liveness.due - self.now, seconds)

    def test_leg_that_answers(self) -> None:
        """A leg that answers every ping is alive, and no look is due between the pings."""
        self.assertEqual(self.ping(), "")
        for _ in range(10):
            self.assertGreaterEqual(self.liveness.due, self.now + _INTERVAL)
            self.assertEqual(self.ping(**self.hear(ago=_INTERVAL - 0.01)), "")

    def test_two_intervals_after_the_last_byte(self) -> None:
        """A leg is dead two intervals after its last byte, by the kernel's time of it, and not before."""
        self.ping(**self.hear())
        self.assertEqual(self.ping(**self.hear(ago=7.5)), "")  # half a second after the ping
        self.assert_due(_INTERVAL + 0.5)
        self.assertEqual(self.ping(), "")
        self.assert_due(0.5)
        self.assertEqual(self.pass_time(0.49), "")
        self.assertEqual(self.pass_time(0.01), "no answer")

    def test_without_the_kernels_word(self) -> None:
        """Where the kernel does not say when bytes came, the last look that saw some counts."""
        self.ping(**self.hear())
        self.ping(**self.hear())
        self.assertEqual(self.ping(), "")
        self.assert_due(_INTERVAL)
        self.assertEqual(self.ping(), "no answer")

    def test_silent_from_the_start(self) -> None:
        """A leg that never says anything is dead after two intervals, the first of them without a ping."""
        self.seen = Look()
        self.assertEqual(self.ping(), "")
        self.assert_due(_INTERVAL)
        self.assertEqual(self.ping(), "no answer")

    def test_kernel_is_not_believed_beyond_the_last_look(self) -> None:
        """Bytes that are new to a look count from the look before it, even if they came earlier."""
        self.ping(**self.hear())
        self.ping(**self.hear(ago=100.0))
        self.assert_due(_INTERVAL)
        self.assertEqual(self.ping(), "no answer")  # two intervals after the look before

    def test_nobody_is_judged_without_a_ping(self) -> None:
        """However long nothing comes, a leg is not dead before a ping had an interval to be answered."""
        for _ in range(5):
            self.assertEqual(self.pass_time(_INTERVAL), "")
        self.assertEqual(self.liveness.due, math.inf)
        self.ping(0)
        self.assert_due(_INTERVAL)
        self.assertEqual(self.ping(_INTERVAL - 0.01), "")
        self.assertEqual(self.pass_time(0.01), "no answer")

    def test_any_byte_is_an_answer(self) -> None:
        """A byte just before the end of two intervals saves a leg, and begins two new ones."""
        self.ping(**self.hear())
        self.ping()
        self.assertEqual(self.pass_time(7.9, **self.hear(ago=0.0)), "")
        self.assertEqual(self.ping(0.1), "")
        self.assertEqual(self.ping(), "")
        self.assertEqual(self.pass_time(7.8), "")
        self.assertEqual(self.pass_time(0.1), "no answer")

    def test_partner_is_full(self) -> None:
        """A leg that is not read is not judged, and has two intervals from when it is read again."""
        self.ping(**self.hear())
        for _ in range(5):
            self.assertEqual(self.ping(reading=False), "")
        self.assertEqual(self.ping(reading=True), "")
        self.assertEqual(self.ping(), "")
        self.assertEqual(self.ping(), "no answer")

    def test_ping_that_is_not_with_the_kernel(self) -> None:
        """A ping that could not be sent does not count as unanswered."""
        self.ping(**self.hear())
        for _ in range(5):
            self.assertEqual(self.ping(waiting=True), "")
        self.assertEqual(self.ping(waiting=False), "")
        self.assertEqual(self.ping(), "no answer")

    def test_ping_behind_what_is_taken(self) -> None:
        """A ping in our kernel's buffer is not unanswered while the peer takes what stands before it."""
        self.ping(**self.hear())
        for _ in range(5):
            self.assertEqual(self.ping(in_flight=True, taken=self.seen.taken + 1), "")
        self.assertEqual(self.ping(), "")
        self.assertEqual(self.ping(), "no answer")

    def test_taken_but_not_in_flight(self) -> None:
        """A frozen peer's kernel still takes our pings: that is no sign of life."""
        self.ping(**self.hear())
        self.assertEqual(self.ping(taken=self.seen.taken + 10), "")
        self.assertEqual(self.ping(taken=self.seen.taken + 10), "no answer")

    def test_takes_nothing(self) -> None:
        """A leg that has something to take is dead two intervals after the last byte was sent to it."""
        self.ping(**self.hear())
        self.assertEqual(self.ping(blocked=True, waiting=True, taken=30, sent_ago=5.0), "")
        self.assert_due(_PART)
        for _ in range(10):
            self.assertEqual(self.pass_time(_PART), "")
        self.assert_due(_PART)
        self.assertEqual(self.pass_time(_PART), "takes nothing")

    def test_takes_nothing_without_the_kernels_word(self) -> None:
        """Where the kernel does not say when bytes went, the look that found it full counts."""
        self.ping(**self.hear())
        self.assertEqual(self.ping(blocked=True, waiting=True), "")
        for _ in range(15):
            self.assertEqual(self.pass_time(_PART), "")
        self.assertEqual(self.pass_time(_PART), "takes nothing")

    def test_slow_but_moving(self) -> None:
        """A leg that takes a byte now and then lives, however slow it is."""
        self.ping(**self.hear())
        self.ping(blocked=True, waiting=True, sent_ago=5.0)
        for step in range(1, 200):
            taken = self.seen.taken + (step % 13 == 10)
            self.assertEqual(self.pass_time(_PART, taken=taken, sent_ago=0.0), "")

    def test_free_again(self) -> None:
        """A leg that took everything begins anew when it is full again."""
        self.ping(**self.hear())
        self.ping(blocked=True)
        self.pass_time(_PART, blocked=False, **self.hear(ago=0.0))
        self.pass_time(_PART, blocked=True, **self.hear(ago=0.0))
        for _ in range(15):
            self.assertEqual(self.pass_time(_PART, **self.hear(ago=0.0)), "")
        self.assertEqual(self.pass_time(_PART, **self.hear(ago=0.0)), "takes nothing")

    def test_we_were_stopped(self) -> None:
        """A late look judges no leg, because answers may still be unread; the next look comes soon."""
        self.ping(**self.hear())
        self.assertEqual(self.ping(1000), "")
        self.assert_due(_PART)
        self.assertEqual(self.pass_time(_PART), "no answer")

    def test_answer_that_was_unread_while_we_were_stopped(self) -> None:
        """An answer that is read before the next look counts."""
        self.ping(**self.hear())
        self.assertEqual(self.ping(1000), "")
        self.assertEqual(self.pass_time(_PART, **self.hear(ago=900.0)), "")
        self.assertEqual(self.ping(_INTERVAL - _PART), "")

    def test_always_late(self) -> None:
        """If every look is late, a dead leg is found nevertheless."""
        self.ping(**self.hear())
        verdicts = [self.ping(20) for _ in range(3)]
        self.assertEqual(verdicts, ["", "no answer", ""])


if __name__ == "__main__":
    unittest.main()
