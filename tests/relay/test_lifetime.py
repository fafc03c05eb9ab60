"""When a session's time is over."""

from __future__ import annotations

import math
import unittest

from wsproxy.relay.lifetime import Lifetime, LifetimeRules

_TOKEN = 1000.0


class LifetimeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 50.0

    def begin(self, token_seconds: float = _TOKEN, **rules: float) -> Lifetime:
        return Lifetime(LifetimeRules(**rules), self.now, token_seconds)

    def assert_lasts(self, lifetime: Lifetime, until: float, code: int, reason: str, data: int = 0) -> None:
        """Assert that a session ends after ``seconds``, and not before, with a look whenever one is due."""
        end = self.now + until
        while (over := lifetime.look(self.now, data)) is None:
            self.assertLess(self.now, end)
            self.assertGreater(lifetime.due, self.now)
            self.now = lifetime.due
        self.assertAlmostEqual(self.now, end)
        self.assertEqual(over, (code, reason))

    def test_expired(self) -> None:
        """A session ends when its token expires; that is the only look that is due."""
        lifetime = self.begin()
        self.assertEqual(lifetime.due, self.now + _TOKEN)
        self.assertIsNone(lifetime.look(self.now + _TOKEN - 0.001, 0))
        self.assertEqual(lifetime.look(self.now + _TOKEN, 0), (4411, "expired: the token's time is over"))

    def test_expired_before_it_began(self) -> None:
        """If the token expired during the dial, the session ends at the first look."""
        self.assert_lasts(self.begin(-1), 0, 4411, "expired: the token's time is over")

    def test_grace(self) -> None:
        """The grace is added to the token's time, and the reason names it."""
        reason = "expired: the token's time is over, and 30 s of grace"
        self.assert_lasts(self.begin(grace=30), _TOKEN + 30, 4411, reason)

    def test_clock_set_forward(self) -> None:
        """If the token has expired by UNIX time, the session ends, however little time the clock shows."""
        lifetime = self.begin(grace=30)
        self.assertIsNone(lifetime.look(self.now + 1, 0, 10))
        self.assertEqual(lifetime.due, self.now + 41)
        self.assertIsNone(lifetime.look(self.now + 2, 0, -29))
        over = lifetime.look(self.now + 3, 0, -30)
        self.assertEqual(over, (4411, "expired: the token's time is over, and 30 s of grace"))

    def test_clock_set_back(self) -> None:
        """If the UNIX time is set back, no session gets longer."""
        lifetime = self.begin()
        self.assertIsNone(lifetime.look(self.now + 1, 0, _TOKEN + 3600))
        self.assertEqual(lifetime.due, self.now + _TOKEN)

    def test_eternal(self) -> None:
        """Nothing is due for a session without any limit."""
        for lifetime in (self.begin(math.inf), self.begin(grace=math.inf)):
            self.assertIsNone(lifetime.look(self.now + 1e12, 5))
            self.assertEqual(lifetime.due, math.inf)

    def test_age(self) -> None:
        """A session ends at its maximum age, whatever its client sends."""
        lifetime = self.begin(age=600)
        self.assert_lasts(lifetime, 600, 4412, "max-age: a session lasts 600 s at most", data=10)

    def test_whatever_is_first(self) -> None:
        """Of maximum age and token, the earlier one ends the session."""
        expired = "expired: the token's time is over"
        self.assert_lasts(self.begin(age=_TOKEN + 1), _TOKEN, 4411, expired)
        too_old = f"max-age: a session lasts {_TOKEN - 1:g} s at most"
        self.assert_lasts(self.begin(age=_TOKEN - 1), _TOKEN - 1, 4412, too_old)

    def test_idle(self) -> None:
        """A session ends when its client has sent no data for as long as it may."""
        self.assert_lasts(self.begin(idle=60), 60, 4408, "idle: the client sent no data for 60 s")

    def test_data(self) -> None:
        """Data restarts the idle time at the look that finds it, which comes within a tenth of that time."""
        lifetime = self.begin(math.inf, idle=60)
        for size in range(1, 50):
            self.now += 59
            self.assertIsNone(lifetime.look(self.now, size))
            self.assertLessEqual(lifetime.due, self.now + 6)
        self.assert_lasts(lifetime, 60, 4408, "idle: the client sent no data for 60 s", data=49)

    def test_data_at_the_last_moment(self) -> None:
        """Data counts even if the look that finds it comes after the idle time."""
        lifetime = self.begin(idle=60)
        self.assertIsNone(lifetime.look(self.now + 61, 1))
        self.assertEqual(lifetime.look(self.now + 121, 1), (4408, "idle: the client sent no data for 60 s"))

    def test_idle_and_expired(self) -> None:
        """If a session is idle and expired, its client is told that it is expired."""
        lifetime = self.begin(60, idle=60)
        self.assert_lasts(lifetime, 60, 4411, "expired: the token's time is over")

    def test_reasons_fit(self) -> None:
        """Every reason fits into a Close frame, whatever the numbers are."""
        for rules in ({"grace": 1e300}, {"age": 123456789.123}, {"idle": 123456789.123}):
            over = self.begin(-math.inf if "grace" in rules else _TOKEN * 1e9, **rules).look(1e12, 0)
            assert over
            self.assertLess(len(over.reason), 124)


if __name__ == "__main__":
    unittest.main()
