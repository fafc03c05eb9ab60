"""One process with a store of its own: every report is told at once, and nobody waits for anybody."""

from __future__ import annotations

import gc
import unittest
import weakref
from typing import Any
from unittest import mock

from wsproxy.exceptions import ConsoleBusy, LimitExceeded, TransportClosed
from wsproxy.runtime.deadline import Deadline
from wsproxy.state.participant.private_link import PrivateLink
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.values import MessageKind, SlotLimits

from .fakes import Process


class PrivateCase(unittest.TestCase):
    policy = "takeover"

    def setUp(self) -> None:
        self.now = 100.0
        self.process = Process(None, "one", lambda: self.now, policy=self.policy)
        assert isinstance(self.link, PrivateLink)

    @property
    def link(self) -> Any:
        return self.process.participant._link

    @property
    def store(self) -> MemoryStore:
        assert isinstance(self.process.participant.store, MemoryStore)
        return self.process.participant.store

    def assert_acknowledged(self) -> None:
        """Assert that the store keeps no message that has been heeded."""
        [record] = list(self.store._state._roster)
        self.assertEqual(record.messages, ())


class Takeover(PrivateCase):
    def test_taken_over(self) -> None:
        """Whoever loses the console is told before the call that takes it returns."""
        alice, _ = self.process.open("a", "alice")
        bob, holding = self.process.admit("b", "bob")
        self.assertEqual((alice.ends, alice.expected), ([], ["taken-over: by bob"]))
        with self.assertLogs("wsproxy.state", "INFO"):
            holding.opened()
        self.assertEqual(alice.ends, [(4410, "taken-over: by bob")])
        self.assertEqual(bob.ends, [])
        self.assert_acknowledged()

    def test_keep(self) -> None:
        """If the newcomer gives up, a loss is a loss again."""
        alice, _ = self.process.open("a", "alice")
        _, holding = self.process.admit("b", "bob")
        holding.given_up()
        self.assertEqual(alice.expected, ["taken-over: by bob", None])
        self.assert_acknowledged()

    def test_reentrant(self) -> None:
        """A session that ends as it is told reports that meanwhile, which wakes another one at once."""
        alice, _ = self.process.open("a", "alice")
        _, bob = self.process.admit("b", "bob")
        _, carol = self.process.session("c", "carol")
        waits: list[bool] = []

        def take() -> None:
            if not waits:
                bob.opened()  # alice's end reports, and the answer to that is for carol
            waits.append(carol._free is not None and carol._free.is_set())

        with self.assertLogs("wsproxy.state", "INFO"):
            carol.admit(Deadline(10.0), take)
        self.assertEqual(alice.ends, [(4410, "taken-over: by bob")])
        self.assertTrue(waits[0])
        self.assert_acknowledged()

    def test_marks(self) -> None:
        """A mark that waits in the queue is known to the store before the next question."""
        alice, _ = self.process.open("a", "alice")
        _, holding = self.process.admit("b", "bob")
        mark = holding.mark()
        assert mark
        self.assertEqual(self.store.sizes["waiters"], 0)
        self.link.evict("x")
        [place] = self.store._state._openings._places.values()
        self.assertEqual(len(place.marks), 1)
        holding.released()
        self.assertEqual(alice.expected[-1], "taken-over: by bob")
        mark.remove()
        self.assertEqual((alice.expected[-1], len(place.marks)), (None, 0))


class Slots(PrivateCase):
    def test_limit(self) -> None:
        """What is released makes room at once; nothing is left when all have gone."""
        held = [self.process.open(id, vmi=f"vm-{id}")[1] for id in "ab"]
        with self.assertRaises(LimitExceeded):
            self.process.admit("c", vmi="vm-c")
        self.assertEqual(self.process.limits.hits()["user"], 1)
        held[0].released()
        held.append(self.process.admit("d", vmi="vm-d")[1])
        for holding in held:
            holding.given_up()
            holding.released()
        self.assertEqual((self.process.participant.held, self.store.sizes["consoles"]), (0, 0))
        self.assertEqual(self.store.sizes["users"], 0)

    def test_between_dial_and_open(self) -> None:
        """An opening that fails after its admission leaves its console to others, and later its slots."""
        _, holding = self.process.admit("a")
        holding.given_up()
        with self.assertRaises(ConsoleBusy):
            holding.opened()
        self.process.open("b", "bob")
        holding.released()
        self.assertEqual(self.process.participant.held, 1)

    def test_left_unnoticed(self) -> None:
        """A client that has left unnoticed is in nobody's way, as a look finds."""
        self.process = Process(None, "one", lambda: self.now, limits=SlotLimits(vmi=1))
        alice, _ = self.process.open("a")
        alice.has_left = True
        self.process.open("b")
        self.assertEqual(self.process.participant.held, 2)

    def test_gives_up_waiting(self) -> None:
        """Whoever waits for the end of another session, and leaves, is not waited for."""
        self.process = Process(None, "one", lambda: self.now, limits=SlotLimits(vmi=1))
        _, first = self.process.open("a", "alice")
        first.ending()
        session, holding = self.process.session("b", "bob")
        with self.assertRaises(TransportClosed):
            holding.admit(Deadline(10.0), holding.given_up)
        self.assertEqual((self.process.participant.held, session.ends), (1, []))

    def test_freed(self) -> None:
        """Once holdings are released nothing refers to their sessions."""
        session, holding = self.process.open("a")
        kept = weakref.ref(session)
        holding.released()
        session.holding = None
        del session, holding
        gc.collect()
        self.assertIsNone(kept())

    def test_nothing_shared(self) -> None:
        """Where there is no limit and no rule, the store is asked nothing."""
        process = Process(None, "one", lambda: self.now, policy="passthrough", limits=SlotLimits())
        with mock.patch.object(MemoryStore, "admit", side_effect=AssertionError):
            _, holding = process.open("a")
        holding.released()


class Failures(PrivateCase):
    def test_store_fails(self) -> None:
        """A bug of the store's in one report does not block those after it."""
        _, holding = self.process.open("a")
        with (
            mock.patch.object(self.store, "report", side_effect=ArithmeticError),
            self.assertRaises(ArithmeticError),
        ):
            holding.released()
        self.assertTrue(self.link._outbox.is_idle)
        _, other = self.process.open("b", "bob")
        other.released()
        self.assertEqual(self.process.participant.held, 0)


class Revocations(PrivateCase):
    def test_kick(self) -> None:
        """A kick's rules end sessions, and the rules for their tokens are known and stored as well."""
        self.process.more = [Rule("k.d", "k", 1e9, 2e9, Match(digest="d"))]
        kick = self.process.participant.kick([Match(user="5")], 2e9)
        self.assertEqual([rule.match for rule in self.process.ended_by], [Match(user="5")])
        self.assertEqual(kick.behind, ())
        self.assertEqual(len(list(self.process.participant.known)), 2)
        self.assertEqual(len(self.store.rules(0).rules), 2)

    def test_lift(self) -> None:
        participant = self.process.participant
        kick = participant.kick([Match(user="5")], 2e9)
        self.assertTrue(participant.lift(kick.id))
        self.assertFalse(participant.lift("unknown"))
        [lift] = list(participant.known)
        self.assertEqual((lift.match, lift.until), (None, 2e9))


class TellsNobody(PrivateCase):
    def test_kinds(self) -> None:
        """Every kind of message has somebody that heeds it."""
        _, holding = self.process.open("a")
        for kind in MessageKind:
            with mock.patch.object(holding, "heed") as heed:
                [record] = list(self.store._state._roster)
                record.post(kind, "a", None)
                self.link.evict("none")
            self.assertEqual([call.args[0].kind for call in heed.call_args_list], [kind])
            self.assert_acknowledged()


if __name__ == "__main__":
    unittest.main()
