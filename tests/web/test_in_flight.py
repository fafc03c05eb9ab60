"""The bounds of users that have authenticated: places and bytes, and that all are released."""

from __future__ import annotations

import threading
import unittest

from wsproxy.exceptions import LimitExceeded
from wsproxy.web.in_flight import FairShare, InFlight

_MIB = 1024 * 1024


class FairShareTest(unittest.TestCase):
    def given(self, share: FairShare, user: str, amount: int = 1) -> int:
        """Return how often a user gets ``amount`` before it is refused."""
        times = 0
        while share.take(user, amount):
            times += 1
        return times

    def test_neither_one_nor_two(self) -> None:
        """One user gets half of it and two get three quarters; what is left is for others."""
        share = FairShare(8)
        self.assertEqual([self.given(share, user) for user in "abcde"], [4, 2, 1, 1, 0])
        share.release("a")
        self.assertFalse(share.take("a"))
        self.assertTrue(share.take("e"))

    def test_given_back(self) -> None:
        """The share forgets a user that has released everything, or was refused."""
        share = FairShare(8)
        for _ in range(3):
            for user in "ab":
                for _ in range(self.given(share, user)):
                    share.release(user)
        self.assertFalse(share.take("c", 9))
        self.assertEqual((share._left, dict(share._held)), (8, {}))

    def test_amounts(self) -> None:
        """Large things are shared out as small ones are."""
        share = FairShare(64)
        self.assertEqual([self.given(share, user, 8) for user in "abcde"], [4, 2, 1, 1, 0])
        self.assertTrue(FairShare(64).take("a", 64))


class InFlightTest(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.in_flight = InFlight()

    def assert_empty(self) -> None:
        self.assertFalse(self.in_flight._requests)
        self.assertFalse(self.in_flight._bytes._held)

    def test_requests_of_one_user(self) -> None:
        """Each user has its own number of places."""
        places = [self.in_flight.enter("alice") for _ in range(32)]
        with self.assertRaises(LimitExceeded) as caught:
            self.in_flight.enter("alice")
        self.assertEqual(caught.exception.slug, "limit-requests")
        self.in_flight.enter("bob").release()
        places.pop().release()
        self.in_flight.enter("alice").release()
        for place in places:
            place.release()
            place.release()
        self.assert_empty()

    def test_bytes(self) -> None:
        """All pictures that are being sent share one bound, which one user cannot use up."""
        places = [self.in_flight.enter("alice") for _ in range(5)]
        for place in places[:4]:
            place.hold(8 * _MIB)
        with self.assertRaises(LimitExceeded) as caught:
            places[4].hold(8 * _MIB)
        self.assertEqual(caught.exception.slug, "limit-screenshots")
        bob = self.in_flight.enter("bob")
        bob.hold(8 * _MIB)
        for place in (*places, bob):
            place.release()
        self.assert_empty()

    def test_threads(self) -> None:
        """Places of several threads are counted once each."""

        def run() -> None:
            for _ in range(500):
                place = self.in_flight.enter(threading.get_ident() % 2)
                place.hold(1000)
                place.release()

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assert_empty()
        self.assertEqual(self.in_flight._bytes._left, 64 * _MIB)


if __name__ == "__main__":
    unittest.main()
