"""Sessions that report that they are open, because the store had decided all when it admitted them.

As in ``test_shared_link``, each step is done by the test, at a time that the test sets.
"""

from __future__ import annotations

import unittest
from typing import Any
from unittest import mock

from wsproxy.exceptions import ConsoleBusy, StateUnavailable, StoreUnavailable
from wsproxy.runtime.deadline import Deadline
from wsproxy.state.participant.holding import Holding
from wsproxy.state.revocations import Match
from wsproxy.state.values import Decision, EventKind, Message, MessageKind, Request, Stage

from .fakes import Process
from .test_shared_link import SharedCase

_SLEEP = "wsproxy.state.participant.participant.time.sleep"
_LONG = 10.0


class OpenedCase(SharedCase):
    def asked(self) -> int:
        """Return how often the store was asked whether a session has its console."""
        return len(self.store.calls("opened"))

    def assert_asks(self, holding: Holding) -> None:
        """Check that a session asks the store, which gives it its console."""
        before = self.asked()
        holding.opened()
        self.assertEqual(self.asked(), before + 1)

    def assert_reports(self, holding: Holding) -> None:
        """Check that a session only reports, and that the store knows of it with the next report."""
        before = self.asked()
        holding.opened()
        self.assertEqual(self.asked(), before)
        self.assertIs(holding.held().stage, Stage.OPEN)

    def reported(self) -> list[tuple[EventKind, str]]:
        """Return all that reached the store, by whatever call."""
        batches = [given[2] for given in self.store.calls("admit")]
        batches += [given[1] for given in self.store.calls("report")]
        return [(event.kind, event.session) for events in batches for event in events]


class OneRoundTrip(OpenedCase):
    def test_free(self) -> None:
        """Whoever finds the console free asks once. The report goes with the next call, or the heartbeat."""
        for policy in ("passthrough", "takeover", "refuse"):
            with self.subTest(policy):
                process = self.process(policy, policy=policy)
                before = len(self.store.called)
                _, holding = process.admit(f"a-{policy}", policy, vmi=policy)
                self.assert_reports(holding)
                self.assertEqual([name for name, *_ in self.store.called[before:]], ["admit"])
                self.assertTrue(process.link.wake.is_set())
                process.turn()
                self.assertEqual(self.held(process), [(f"a-{policy}", Stage.OPEN)])

    def test_with_the_next_admission(self) -> None:
        """So the next client finds the console taken, whoever it is."""
        self.assert_reports(self.one.admit("a", "alice")[1])
        _, holding = self.one.admit("b", "bob")
        self.assertEqual(self.reported(), [(EventKind.OPENED, "a")])
        self.assert_asks(holding)
        self.one.turn()
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN), ("b", Stage.OPEN)])

    def test_taken(self) -> None:
        """Whoever takes a console over asks, so that the loser is told before the client is let in."""
        loser, _ = self.one.open("a", "alice")
        _, holding = self.two.admit("b", "bob")
        self.assert_asks(holding)
        with self.assertLogs("wsproxy.state", "INFO"):
            self.one.turn()
        self.assertEqual(loser.ends, [(4410, "taken-over: by bob")])

    def test_evicted(self) -> None:
        """Whoever KubeVirt has told that the console is in use asks."""
        _, holding = self.one.admit("a")
        holding.evict()
        self.assert_asks(holding)

    def test_told(self) -> None:
        """Whoever is told anything during the dial asks, so that those concerned learn of it at once."""
        kinds = MessageKind.FREE, MessageKind.EXPECT, MessageKind.KEEP, MessageKind.LOOK
        for kind in kinds:
            with self.subTest(kind):
                _, holding = self.one.admit(kind.value, kind.value, kind.value)
                holding.heed(Message(1, kind, kind.value))
                self.assert_asks(holding)

    def test_given_up(self) -> None:
        """An opening that was given up reports nothing more: the store might take it for one that goes on."""
        _, holding = self.one.admit("a")
        holding.given_up()
        holding.opened()
        self.one.turn()
        self.assertEqual(self.reported(), [(EventKind.GIVEN_UP, "a")])

    def test_private(self) -> None:
        """A process without a shared store asks its own, which costs no round trip."""
        process = Process(None, "alone", lambda: self.now)
        _, holding = process.admit("a")
        with mock.patch.object(process.participant._link, "opened", side_effect=StateUnavailable) as opened:
            self.assertRaises(StateUnavailable, holding.opened)
        opened.assert_called_once_with("a")


class Kicks(OpenedCase):
    """When a kick has returned, every process in step has ended the sessions and refuses the tokens."""

    def kick(self, process: Process) -> tuple[str, ...]:
        """Kick somebody at a process; return who is behind, while the other one does what it always does."""
        other = self.two if process is self.one else self.one
        with mock.patch(_SLEEP, lambda seconds: other.turn()):
            return process.participant.kick([Match(user="alice")], 2e9).behind

    def test_opened_before(self) -> None:
        """A session that has opened without asking is among those that the other process ends."""
        _, holding = self.two.admit("a", "alice")
        self.assert_reports(holding)
        self.assertEqual(self.kick(self.one), ())
        self.assertEqual([rule.match for rule in self.two.ended_by], [Match(user="alice")])

    def test_opens_after(self) -> None:
        """One that opens after the kick has returned finds the rule among those that its process knows."""
        _, holding = self.two.admit("a", "alice")
        self.assertEqual(self.kick(self.one), ())
        self.assert_reports(holding)
        self.assertEqual([rule.match for rule in self.two.participant.known], [Match(user="alice")])

    def test_out_of_step(self) -> None:
        """A process that cannot have heard of a kick asks, and knows the rule then; or it refuses."""
        _, holding = self.two.admit("a", "alice")
        with mock.patch("wsproxy.state.participant.participant._KICK_SECONDS", 0.0):
            self.assertEqual(self.one.participant.kick([Match(user="alice")], 2e9).behind, ("two",))
        self.now += 1.0
        self.store.lost_calls = ["opened"]
        self.assertRaises(StateUnavailable, holding.opened)
        self.assert_asks(holding)
        self.assertEqual([rule.match for rule in self.two.participant.known], [Match(user="alice")])


class StoreThatForgets(OpenedCase):
    def test_opened_before_it_is_noticed(self) -> None:
        """A session that opens meanwhile is published as an open one. Nobody is admitted before that."""
        _, holding = self.one.admit("a", "alice")
        self.begin_epoch()
        self.assert_reports(holding)
        self.now += 0.9
        self.two.turn()
        with self.assertRaises(StateUnavailable):
            self.two.admit("b", "bob")
        self.one.turn()
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN)])
        self.now += 0.2
        self.turn()
        self.assert_asks(self.two.admit("b", "bob")[1])  # it takes the console over from the first one

    def test_noticed(self) -> None:
        """What the store had decided is void after a publication: the session asks."""
        _, holding = self.one.admit("a", "alice")
        self.begin_epoch()
        self.one.turn()
        self.assert_asks(holding)

    def test_store_without_data(self) -> None:
        """A report to a store that knows nobody changes nothing, and is no reason to forget the session."""
        _, holding = self.one.admit("a")
        self.store.leave(self.one.id)
        self.assert_reports(holding)
        self.one.link.report()
        self.assertEqual(self.held(self.one), [])
        self.one.turn()
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN)])

    def test_publication_at_the_same_time(self) -> None:
        """Whether a session opens before a publication or after its begin: the store knows of it then."""
        for when in ("before", "after"):
            with self.subTest(when):
                _, holding = self.one.admit(when, vmi=when)
                begin = holding.begin_epoch

                def begin_epoch(when: str = when, holding: Holding = holding, begin: Any = begin) -> None:
                    if when == "before":
                        self.assert_reports(holding)
                    begin()
                    if when == "after":
                        self.assertFalse(holding._reports_opened(self.one.link))

                self.begin_epoch()
                with mock.patch.object(holding, "begin_epoch", begin_epoch):
                    self.one.turn()
                stage = Stage.OPEN if when == "before" else Stage.DIALLING
                self.assertIn((when, stage), self.held(self.one))
                self.assertEqual(len(self.one.link.outbox), 0)
                self.turn()
                self.now += 1.0
                self.turn()


class Stopped(OpenedCase):
    """A process is stopped between the admission and the 101."""

    def test_longer_than_a_lease(self) -> None:
        """The console may be another one's by then: the client is not let in."""
        one, two = (self.process(name, policy="refuse") for name in ("three", "four"))
        _, holding = one.admit("a", "alice")
        self.now += 16.0
        two.turn()
        two.open("b", "bob")
        self.assertRaises(StateUnavailable, holding.opened)
        one.turn()
        self.assertRaises(ConsoleBusy, holding.opened)

    def test_short_lease(self) -> None:
        """A lease may be shorter than the second after which a process is out of step."""
        one = self.process("short", lease=0.3)
        _, first = one.admit("a", "alice")
        self.now += 0.29
        self.assert_reports(first)
        one.turn()
        _, second = one.admit("c", "carol", vmi="vm-2")
        self.now += 0.31
        self.two.open("b", "bob", vmi="vm-2")
        self.assertTrue(one.link.is_in_step)
        self.assertRaises(StateUnavailable, second.opened)

    def test_a_second(self) -> None:
        """One that has not heard from the store for a second asks it, and need not refuse its client."""
        _, holding = self.one.admit("a")
        self.now += 1.0
        self.assert_asks(holding)


class TwoProcesses(OpenedCase):
    """Two processes want one console."""

    def test_until_it_is_reported(self) -> None:
        """Until the report the first one reaches for it, and nobody else can have it. Then they are told."""
        _, first = self.one.admit("a", "alice")
        self.assert_reports(first)
        steps = [self.one.turn, self.two.turn]
        _, second = self.two.session("b", "bob")
        second.admit(Deadline(_LONG), lambda: steps.pop(0)() if steps else None)
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN)])
        self.assert_asks(second)

    def test_refused_before(self) -> None:
        _, first = self.one.admit("a", "alice")
        self.assert_reports(first)
        with mock.patch("wsproxy.state.participant.holding._MOMENT", 0.0), self.assertRaises(ConsoleBusy):
            self.two.admit("b", "bob")
        self.assertEqual(self.held(self.two), [])

    def test_within_a_process(self) -> None:
        """If another call carries the report meanwhile, the second one asks again when that has ended."""
        _, first = self.one.admit("a", "alice")
        self.assert_reports(first)
        outbox, waits = self.one.link.outbox, list[Any]()
        with outbox.carried(0.0) as batch:

            def arrive(*given: Any) -> bool:
                waits.append(given)
                self.store.report(self.one.id, batch.events)
                batch.done()
                return True

            with mock.patch.object(outbox._changed, "wait_for", arrive):
                _, second = self.one.admit("b", "bob")
        self.assertEqual(len(waits), 1)
        self.assert_asks(second)


class Order(OpenedCase):
    def test_ends_at_once(self) -> None:
        """Whatever becomes of a session is reported after it was open, in one batch or in several."""
        for batches in (1, 3):
            _, holding = self.one.admit("a")
            for step in (holding.opened, holding.ending, holding.released):
                step()
                if batches > 1:
                    self.one.link.report()
            self.one.turn()
            kinds = [kind for kind, _ in self.reported()[-3:]]
            self.assertEqual(kinds, [EventKind.OPENED, EventKind.ENDING, EventKind.RELEASED])
            self.assertEqual(self.held(self.one), [])

    def test_given_up_after(self) -> None:
        """An opening that fails after its console was open leaves it to others."""
        _, holding = self.one.admit("a", "alice")
        self.assert_reports(holding)
        holding.given_up()
        self.one.turn()
        self.assert_reports(self.two.admit("b", "bob")[1])

    def test_report_without_answer(self) -> None:
        """It is reported again, and changes nothing: not even if somebody has the console by then."""
        _, first = self.one.admit("a", "alice")
        self.assert_reports(first)
        self.store.lost_answers = ["report"]
        self.assertRaises(StoreUnavailable, self.one.turn)
        winner, second = self.two.admit("b", "bob")
        self.assert_asks(second)
        with self.assertLogs("wsproxy.state", "INFO"):
            self.turn()
        self.assertEqual(self.reported().count((EventKind.OPENED, "a")), 2)
        self.assertEqual(winner.ends, [])
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN)])

    def test_lost_report(self) -> None:
        _, holding = self.one.admit("a", "alice")
        self.assert_reports(holding)
        self.store.lost_calls = ["report"]
        self.assertRaises(StoreUnavailable, self.one.turn)
        self.one.turn()
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN)])


class Versions(OpenedCase):
    def test_older_store(self) -> None:
        """A store of an older version does not say that it has decided. So it is asked, as it expects."""
        admit = self.store.admit

        def older(member: str, request: Request, *given: Any) -> Decision:
            return admit(member, request, *given)._replace(decided=False)

        with mock.patch.object(self.store, "admit", older, create=True):
            _, holding = self.one.admit("a")
        self.assert_asks(holding)

    def test_older_process(self) -> None:
        """A process of an older version asks in any case, also where it could report."""
        _, holding = self.one.admit("a")
        self.assertTrue(self.store.opened(self.one.id, "a").admitted)
        holding.opened()
        self.one.turn()
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN)])


class Alone(OpenedCase):
    """The store is away, and the process decides by itself."""

    alone = True

    def test_asks_its_own_store(self) -> None:
        """A session that the shared store has admitted asks, too: its decision is void."""
        _, before = self.one.admit("a", "alice")
        self.store.away = True
        self.now += 1.0
        with self.assertLogs("wsproxy.state", "WARNING"):
            self.one.fail()
        own: Any = self.one.link._asked
        opened = mock.Mock(wraps=own.opened)
        with mock.patch.object(own, "opened", opened):
            before.opened()
            self.one.admit("b", "bob", vmi="vm-2")[1].opened()
        self.assertEqual([call.args[1] for call in opened.call_args_list], ["a", "b"])

    def test_back(self) -> None:
        """One that was admitted while the process was alone asks the shared store when that is back."""
        self.store.away = True
        self.now += 1.0
        with self.assertLogs("wsproxy.state", "WARNING"):
            self.one.fail()
        _, holding = self.one.admit("a")
        self.store.away = False
        with self.assertLogs("wsproxy.state", "INFO"):
            self.one.turn()
        self.assert_asks(holding)


if __name__ == "__main__":
    unittest.main()
