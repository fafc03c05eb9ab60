"""Messages reach their sessions once each, in order, and never from an earlier epoch."""

from __future__ import annotations

import unittest
from typing import Any, cast

from wsproxy.state.console_policies import Policy
from wsproxy.state.participant.holdings import Holdings
from wsproxy.state.values import Held, Message, MessageKind, SessionRef, Stage

from .fakes import shared


class FakeHolding:
    """Keeps what it is told."""

    def __init__(self, id: str, *, left: bool = False) -> None:
        self.id = id
        self.heeded: list[int] = []
        self.expects = self.counts = True
        self.looks = 0
        self._left = left

    def heed(self, message: Message) -> None:
        self.heeded.append(message.number)

    def has_left(self) -> bool:
        self.looks += 1
        return self._left

    def begin_epoch(self) -> None:
        self.expects = False

    def held(self) -> Held:
        return Held(shared(self.id), Stage.OPEN, Policy.TAKEOVER)


def messages(*numbers: int, session: str = "a") -> tuple[Message, ...]:
    return tuple(Message(number, MessageKind.LOOK, session) for number in numbers)


class HoldingsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.holdings = Holdings("own")
        self.a, self.b = self.keep("a"), self.keep("b", left=True)

    def keep(self, id: str, *, left: bool = False) -> FakeHolding:
        holding = FakeHolding(id, left=left)
        self.holdings.keep(cast(Any, holding))
        return holding

    def test_each_once(self) -> None:
        """Answers repeat what is not acknowledged, and may come in any order."""
        for numbers in ((1, 2), (1, 2, 3), (2,), ()):
            self.holdings.heed(messages(*numbers), 0)
        self.assertEqual((self.a.heeded, self.holdings.seen), ([1, 2, 3], 3))

    def test_unknown_session(self) -> None:
        """A message for a session that has gone counts as heeded."""
        self.holdings.heed(messages(4, session="z"), 0)
        self.assertEqual((self.holdings.seen, self.a.heeded, self.b.heeded), (4, [], []))

    def test_dropped(self) -> None:
        """Who is dropped is told nothing more, and is not published. Dropping twice is no fault."""
        for _ in range(2):
            self.holdings.drop(cast(Any, self.a))
        self.holdings.heed(messages(1), 0)
        self.assertEqual((self.a.heeded, len(self.holdings)), ([], 1))
        self.assertEqual([held.session.id for held in self.holdings.held()], ["b"])

    def test_epoch(self) -> None:
        """The numbers begin anew; what an older answer says is void, and nobody expects anything."""
        self.holdings.heed(messages(7), 0)
        self.holdings.begin_epoch()
        self.assertEqual((self.holdings.epoch, self.holdings.seen), (1, 0))
        self.assertEqual((self.a.expects, self.b.expects), (False, False))
        self.holdings.heed(messages(8), 0)
        self.assertEqual(self.holdings.seen, 0)
        self.holdings.heed(messages(1), 1)
        self.assertEqual(self.a.heeded, [7, 1])

    def test_reentrant(self) -> None:
        """Heeding one message may bring the next ones; none is heeded twice, and none is left out."""
        heed = self.a.heed

        def report(message: Message) -> None:
            heed(message)
            self.holdings.heed(messages(1, 2, 3), 0)

        self.a.heed = report  # type: ignore[method-assign]
        self.holdings.heed(messages(1, 2), 0)
        self.assertEqual((self.a.heeded, self.holdings.seen), ([1, 2, 3], 3))

    def test_one_that_fails(self) -> None:
        """A message whose session fails is not repeated; those after it are in the next answer again."""

        def fail(message: Message) -> None:
            raise ArithmeticError

        self.a.heed = fail  # type: ignore[method-assign]
        self.assertRaises(ArithmeticError, self.holdings.heed, messages(1), 0)
        self.holdings.heed((*messages(1), *messages(2, session="b")), 0)
        self.assertEqual((self.b.heeded, self.holdings.seen), ([2], 2))

    def test_look(self) -> None:
        """Only own sessions are looked at, and each of them, as each must report that it has left."""
        other = self.keep("c", left=True)
        refs = [SessionRef("own", id) for id in ("b", "a", "c", "z")]
        self.assertTrue(self.holdings.look(refs))
        self.assertEqual((self.a.looks, self.b.looks, other.looks), (1, 1, 1))
        self.assertFalse(self.holdings.look([SessionRef("own", "a"), SessionRef("other", "b")]))
        self.assertEqual(self.b.looks, 1)


if __name__ == "__main__":
    unittest.main()
