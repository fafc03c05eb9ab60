"""What a process fetches for others: its side of the store."""

from __future__ import annotations

import unittest

from wsproxy.exceptions import StoreUnavailable
from wsproxy.net.shared_copy import ALONE, Found, borrowed
from wsproxy.state.membership import Copy
from wsproxy.state.participant.copies import Copies
from wsproxy.state.stores.memory import MemoryStore


class CountingStore(MemoryStore):
    """Counts calls, and may be away."""

    away = False
    calls = 0

    def borrow(self, member: str, name: str, max_age: float, turn_seconds: float) -> Copy:
        self._count()
        return super().borrow(member, name, max_age, turn_seconds)

    def keep(self, member: str, name: str, text: str | None, seconds: float, age: float) -> None:
        self._count()
        super().keep(member, name, text, seconds, age)

    def _count(self) -> None:
        self.calls += 1
        if self.away:
            raise StoreUnavailable("away")


class CopiesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.store = CountingStore(lambda: self.now)
        self.in_step = True
        self.first, self.second = (
            Copies(self.store, id, lambda: self.in_step, lambda: self.now).copy_of("x", 10.0, 60.0)
            for id in ("a", "b")
        )

    def test_bytes(self) -> None:
        """Any bytes come as they were."""
        value = bytes(range(256))
        self.assertEqual(self.first.borrow(5.0), Found(is_turn=True))
        self.first.keep(value, 1.0)
        self.now += 1.0
        self.assertEqual(self.second.borrow(5.0), Found(value, 2.0))

    def test_given_up(self) -> None:
        self.first.borrow(5.0)
        self.assertEqual(self.second.borrow(5.0), Found())
        self.first.give_up()
        self.assertTrue(self.second.borrow(5.0).is_turn)

    def test_too_long(self) -> None:
        """What the store would not keep is not sent there; the turn ends."""
        self.first.borrow(5.0)
        self.first.keep(bytes(4 << 20), 0.0)
        self.assertTrue(self.second.borrow(5.0).is_turn)

    def test_away(self) -> None:
        """Without the store it is always the process's turn; the store is asked again after five seconds."""
        self.store.away = True
        for _ in range(3):
            self.assertEqual(self.first.borrow(5.0), Found(is_turn=True))
            self.first.keep(b"x", 0.0)
        self.assertEqual(self.store.calls, 1)
        self.store.away = False
        self.now += 5.0
        self.first.borrow(5.0)
        self.first.keep(b"x", 0.0)
        self.assertEqual(self.second.borrow(5.0), Found(b"x", 0.0))

    def test_away_in_turn(self) -> None:
        """A store that goes while the process fetches is no error."""
        self.first.borrow(5.0)
        self.store.away = True
        self.first.keep(b"x", 0.0)
        self.first.give_up()

    def test_out_of_step(self) -> None:
        """A process that is out of step does not ask the store."""
        self.in_step = False
        self.assertTrue(self.first.borrow(5.0).is_turn)
        self.first.keep(b"x", 0.0)
        self.assertEqual(self.store.calls, 0)

    def test_no_base64(self) -> None:
        """What no process of this kind has kept does not count."""
        self.first.borrow(5.0)
        self.store.keep("a", "x", "%%%", 60.0, 0.0)
        self.assertEqual(self.second.borrow(5.0), Found(is_turn=True))


class BorrowedTest(unittest.TestCase):
    def test_alone(self) -> None:
        """A process without others fetches, and does not wait."""
        self.assertIsNone(borrowed(ALONE, 0.0, lambda seconds: self.fail("it waits")))

    def test_since(self) -> None:
        """What was fetched before a time is too old, however long the wait for another takes."""
        now = [100.0]
        store = MemoryStore(lambda: now[0])
        first, second = (
            Copies(store, id, clock=lambda: now[0]).copy_of("x", 10.0, 60.0) for id in ("a", "b")
        )
        first.borrow(0.0)

        def wait(seconds: float) -> bool:
            now[0] += 3.0
            first.keep(b"x", 2.0)  # it was fetched at 101 s
            return False

        found = borrowed(second, 100.5, wait, lambda: now[0])
        self.assertEqual(found, (b"x", 101.0, 101.0))
        self.assertIsNone(borrowed(second, 101.5, wait, lambda: now[0]))

    def test_patience(self) -> None:
        """Who has waited long enough fetches all the same."""
        store = MemoryStore()
        first, second = (Copies(store, id).copy_of("x", 10.0, 60.0) for id in ("a", "b"))
        first.borrow(0.0)
        self.assertIsNone(borrowed(second, 0.0, lambda seconds: True))
