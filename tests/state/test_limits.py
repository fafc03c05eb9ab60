"""Limits of connections and of failed attempts: who is refused, by what, and that all is given back.

The limits of sessions are the store's: see the conformance suite.
"""

from __future__ import annotations

import contextlib
import random
import threading
import unittest
import unittest.mock

from wsproxy.exceptions import BadToken, Forbidden, LimitExceeded, Refused
from wsproxy.state import limits
from wsproxy.state.limits import AddressSlot, LimitRules, Limits, Slot
from wsproxy.state.membership import Failure
from wsproxy.telemetry.causes import LIMITS


class LimitsCase(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 100.0

    def limits(self, **rules: int) -> Limits:
        return Limits(LimitRules(**rules), lambda: self.now)

    def assert_refused(self, slug: str, status: int, retry_after: int, refused: Refused) -> None:
        self.assertEqual((refused.slug, refused.status, refused.close_code), (slug, status, 4000 + status))
        self.assertEqual(dict(refused.headers)["Retry-After"], str(retry_after))

    def assert_hits(self, limits: Limits, **hits: int) -> None:
        self.assertEqual(limits.hits(), dict.fromkeys(LIMITS, 0) | hits)


class PlacesTest(LimitsCase):
    """Places of connections."""

    def test_no_limits(self) -> None:
        """Without limits anybody may do anything, and nothing is remembered."""
        limits = self.limits()
        for _ in range(100):
            slot = limits.take_connection("10.0.0.1")
            slot.check()
            slot.end()
            with self.assertRaises(BadToken), limits.attempt("10.0.0.1"):
                raise BadToken("bad")
        slot.release()
        self.assert_hits(limits)
        self.assertEqual((limits._taken, limits._ending, limits._full_at), ({}, {}, {}))

    def test_ending(self) -> None:
        """A connection that is ending is in nobody's way, but no more of them are than the limit."""
        limits = self.limits(address=2)
        ending = []
        for _ in range(4):
            ending.append(limits.take_connection("10.0.0.1"))
            ending[-1].check()
            for _ in range(3):
                ending[-1].end()
        for left in ending[:2]:
            with self.assertRaises(LimitExceeded):
                limits.take_connection("10.0.0.1").check()
            for _ in range(3):
                left.release()
                left.end()
            limits.take_connection("10.0.0.1").check()
        with self.assertRaises(LimitExceeded):
            limits.take_connection("10.0.0.1").check()
        limits.take_connection("10.0.0.2").check()  # somebody else
        self.assert_hits(limits, address=3)

    def test_address(self) -> None:
        """A connection beyond the limit is refused when it asks, and counts neither before nor after."""
        limits = self.limits(address=1)
        first = limits.take_connection("10.0.0.1")
        second = limits.take_connection("10.0.0.1")
        self.assert_hits(limits)
        with self.assertRaises(LimitExceeded) as caught:
            second.check()
        self.assert_refused("limit-address", 429, 5, caught.exception)
        self.assert_hits(limits, address=1)
        limits.take_connection("10.0.0.2").check()
        second.release()
        first.check()
        first.release()
        limits.take_connection("10.0.0.1").check()

    def test_address_that_a_request_tells(self) -> None:
        """A connection counts at its peer's address until it is known whose it is, and then only there."""
        limits = self.limits(address=1)
        slot = AddressSlot(limits, "10.0.0.1")
        with self.assertRaises(LimitExceeded):
            limits.take_connection("10.0.0.1").check()
        slot.check("10.0.0.2")
        slot.check("10.0.0.2")
        limits.take_connection("10.0.0.1").check()
        with self.assertRaises(LimitExceeded):
            limits.take_connection("10.0.0.2").check()
        slot.release()
        slot.release()
        limits.take_connection("10.0.0.2").check()

    def test_given_back_once(self) -> None:
        """A slot is released once, however often and by however many threads at once."""
        limits = self.limits(address=3)
        kept = [limits.take_connection("10.0.0.1") for _ in range(2)]
        slot = limits.take_connection("10.0.0.1")
        together = threading.Barrier(8)

        def release() -> None:
            together.wait(60)
            for _ in range(100):
                slot.release()

        threads = [threading.Thread(target=release) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        limits.take_connection("10.0.0.1").check()
        with self.assertRaises(LimitExceeded):
            limits.take_connection("10.0.0.1").check()
        self.assertEqual(len(kept), 2)

    def test_nothing_is_left(self) -> None:
        """After any coming and going nothing is remembered."""
        limits, rng = self.limits(address=5), random.Random(1)
        slots: list[Slot] = []
        for _ in range(5000):
            if rng.random() < 0.5 and slots:
                slots.pop(rng.randrange(len(slots))).release()
            if rng.random() < 0.3 and slots:
                slots[rng.randrange(len(slots))].end()
            slot = limits.take_connection(str(rng.randrange(5)))
            with contextlib.suppress(LimitExceeded):
                slot.check()
                slots.append(slot)
        self.assertGreater(sum(limits.hits().values()), 100)
        for slot in slots:
            slot.release()
        self.assertEqual((limits._taken, limits._ending), ({}, {}))


class AttemptsCase(LimitsCase):
    """Has failed attempts to authenticate."""

    def fails(self, limits: Limits, network: str = "10.0.0.1") -> None:
        with self.assertRaises(BadToken), limits.attempt(network):
            raise BadToken("bad")

    def assert_shut_out(self, limits: Limits, retry_after: int, network: str = "10.0.0.1") -> None:
        with self.assertRaises(LimitExceeded) as caught, limits.attempt(network):
            self.fails(limits)  # never reached
        self.assert_refused("limit-failures", 429, retry_after, caught.exception)

    def succeed(self, limits: Limits, network: str = "10.0.0.1") -> None:
        with limits.attempt(network):
            pass


class AttemptsTest(AttemptsCase):
    """Failed attempts to authenticate."""

    def test_burst_and_refill(self) -> None:
        """A minute's worth of attempts may fail at once; then as many as the bucket fills with."""
        limits = self.limits(failures=6)
        for _ in range(6):
            self.fails(limits)
        self.assert_shut_out(limits, 10)
        self.now += 9
        self.assert_shut_out(limits, 1)
        self.now += 1
        self.fails(limits)
        self.assert_shut_out(limits, 10)
        self.assert_hits(limits, failures=3)
        self.now += 60
        for _ in range(6):
            self.fails(limits)
        self.assert_shut_out(limits, 10)

    def test_weights(self) -> None:
        """An attempt that counts a tenth costs a tenth."""
        limits = self.limits(failures=2)
        for _ in range(11):
            with self.assertRaises(BadToken), limits.attempt("10.0.0.1"):
                raise BadToken("unknown", attempts=0.1)
        self.assert_shut_out(limits, 3)
        self.now += 3
        self.succeed(limits)

    def test_foreign_pages(self) -> None:
        """What foreign pages have a client try counts apart, in both directions."""
        limits = self.limits(failures=1)
        with self.assertRaises(BadToken), limits.attempt("10.0.0.1", foreign=True):
            raise BadToken("bad")
        with self.assertRaises(LimitExceeded), limits.attempt("10.0.0.1", foreign=True):
            raise BadToken("never reached")
        self.succeed(limits)
        self.fails(limits)
        self.assert_shut_out(limits, 60)
        with limits.attempt("10.0.0.2", foreign=True):
            pass

    def test_only_failures_count(self) -> None:
        """Attempts that succeed, or are refused for something else, cost nothing."""
        limits = self.limits(failures=1)
        for _ in range(10):
            self.succeed(limits)
            with self.assertRaises(Forbidden), limits.attempt("10.0.0.1"):
                raise Forbidden("not this one")
        self.fails(limits)
        self.assert_shut_out(limits, 60)

    def test_each_address(self) -> None:
        """Each address has a bucket of its own."""
        limits = self.limits(failures=1)
        self.fails(limits)
        self.succeed(limits, "10.0.0.2")
        self.assert_shut_out(limits, 60)

    def test_being_shut_out_costs_nothing(self) -> None:
        """Attempts while shut out do not put off the end of that."""
        limits = self.limits(failures=1)
        self.fails(limits)
        for left in range(60, 0, -1):
            self.assert_shut_out(limits, left)
            self.now += 1
        self.succeed(limits)

    def test_at_once(self) -> None:
        """Of many at once more may fail than the bucket held: that is made up for, up to a bucketful."""
        limits = self.limits(failures=2)
        for _ in range(100):
            limits._failed("10.0.0.1")
        self.assert_shut_out(limits, 90)  # 3 are missing, of which one comes in 30 s
        self.now += 90
        self.fails(limits)
        self.assert_shut_out(limits, 30)

    def test_memory(self) -> None:
        """Addresses are forgotten when their buckets are full again, and the oldest if there are too many."""
        limits = self.limits(failures=1)
        for number in range(1000):
            self.fails(limits, str(number))
            self.now += 1
        self.assertEqual(len(limits._full_at), 60)
        self.now += 120
        self.fails(limits, "x")
        self.assertEqual(list(limits._full_at), ["x"])

    def test_flood_of_addresses(self) -> None:
        """However many addresses there are at one moment, a bounded number is remembered: the latest."""
        limits_ = self.limits(failures=1)
        with unittest.mock.patch.object(limits, "_MOST_ADDRESSES", 10):
            for number in range(100):
                self.fails(limits_, str(number))
        self.assertEqual(list(limits_._full_at), [str(number) for number in range(90, 100)])
        self.assert_shut_out(limits_, 60, "99")

    def test_clock_and_wait(self) -> None:
        """Whoever waits as long as Retry-After says is let in."""
        for failures in (1, 7, 60, 1000):
            limits_ = self.limits(failures=failures)
            for _ in range(failures):
                self.fails(limits_)
            with self.assertRaises(LimitExceeded) as caught, limits_.attempt("10.0.0.1"):
                pass
            self.now += int(dict(caught.exception.headers)["Retry-After"])
            self.succeed(limits_)


class SharedFailures(AttemptsCase):
    """What a process tells others of failed attempts, and learns of theirs."""

    def told(self, limits: Limits, members: int = 1) -> dict[str, float]:
        return {failure.bucket: failure.seconds for failure in limits.failures_to_tell(members)}

    def test_half_of_the_limit(self) -> None:
        """Others need not know of a network before it has failed half as often as it may, nor twice."""
        limits = self.limits(failures=6)
        for _ in range(2):
            self.fails(limits)
        self.assertEqual(self.told(limits), {})
        self.fails(limits)
        self.fails(limits, "10.0.0.2")
        self.assertEqual(self.told(limits), {"10.0.0.1": 30.0})
        self.assertEqual(self.told(limits), {})
        self.fails(limits)
        self.assertEqual(self.told(limits), {"10.0.0.1": 10.0})

    def test_share(self) -> None:
        """If several processes may each see a part, each tells of half of its share of the limit."""
        limits = self.limits(failures=6)
        self.assertEqual(self.told(limits, 3), {})
        self.fails(limits)
        self.assertEqual(self.told(limits, 3), {"10.0.0.1": 10.0})

    def test_over_time(self) -> None:
        """A network that fails as slowly as its bucket fills is told of never, and costs no memory."""
        limits = self.limits(failures=6)
        for _ in range(20):
            self.fails(limits)
            self.now += 10
        self.assertEqual(self.told(limits), {})
        self.now += 60
        self.fails(limits, "10.0.0.2")
        self.assertEqual(list(limits._to_tell), ["10.0.0.2"])

    def test_foreign_pages_apart(self) -> None:
        """What foreign pages do has a bucket of its own at others, too."""
        limits, other = self.limits(failures=1), self.limits(failures=1)
        with self.assertRaises(BadToken), limits.attempt("10.0.0.1", foreign=True):
            raise BadToken("bad")
        other.learn_failures(limits.failures_to_tell(2))
        self.succeed(other)
        with self.assertRaises(LimitExceeded), other.attempt("10.0.0.1", foreign=True):
            raise BadToken("never reached")

    def test_batches(self) -> None:
        """A flood of networks is told of in bounded batches, each network once."""
        limits_ = self.limits(failures=1)
        for number in range(25):
            self.fails(limits_, str(number))
        with unittest.mock.patch.object(limits, "_MOST_TOLD", 10):
            batches = [self.told(limits_) for _ in range(4)]
        self.assertEqual([len(batch) for batch in batches], [10, 10, 5, 0])
        self.assertEqual(len({network for batch in batches for network in batch}), 25)

    def test_learned(self) -> None:
        """The later time counts: the own one, or that of all together."""
        limits = self.limits(failures=6)
        limits.learn_failures([Failure("10.0.0.1", 60.0), Failure("10.0.0.2", 20.0)])
        self.assert_shut_out(limits, 10)
        self.succeed(limits, "10.0.0.2")
        limits.learn_failures([Failure("10.0.0.1", 5.0)])
        self.assert_shut_out(limits, 10)
        self.now += 10
        self.succeed(limits)
        self.assertEqual(self.told(limits), {})  # what was learned is not told on

    def test_nonsense(self) -> None:
        """Whatever others say, a network is shut out for no longer than one that has failed often here."""
        limits_ = self.limits(failures=1)
        with unittest.mock.patch.object(limits, "_MOST_ADDRESSES", 10):
            limits_.learn_failures(Failure(str(number), 1e9) for number in range(100))
        self.assertEqual(len(limits_._full_at), 10)
        self.assert_shut_out(limits_, 120, "99")


if __name__ == "__main__":
    unittest.main()
