"""Processes that share a store: in step or not, with lost calls and answers, and with a store that forgets.

No test has a thread of the heartbeat: each step is done by the test, at a time that the test sets.
"""

from __future__ import annotations

import itertools
import threading
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from wsproxy.exceptions import BadToken, LimitExceeded, StateUnavailable, StoreUnavailable
from wsproxy.runtime.deadline import Deadline
from wsproxy.state.membership import RulesPage
from wsproxy.state.participant.participant import Participant
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.tickets import Ticket
from wsproxy.state.values import Event, EventKind, Message, Request, SlotLimits, Stage
from wsproxy.testing.case import LeakTestCase
from wsproxy.tokens.claims import Grant

from .fakes import Process, ShakyStore, shared

_LONG = 10.0
_SLEEP = "wsproxy.state.participant.participant.time.sleep"


class SharedCase(unittest.TestCase):
    """Two processes in step."""

    alone = False

    def setUp(self) -> None:
        self.now = 100.0
        self.store = ShakyStore(lambda: self.now, lambda: 1e9)
        self.one, self.two = self.process("one"), self.process("two")

    def process(self, name: str, **options: Any) -> Process:
        process = Process(self.store, name, lambda: self.now, alone=self.alone, **options)
        process.turn()
        return process

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.one.turn()
            self.two.turn()

    def held(self, process: Process) -> list[tuple[str, Stage]]:
        return [(held.session.id, held.stage) for held in self.store.sessions(process.id).sessions]

    def marks(self) -> int:
        return sum(len(place.marks) for place in self.store._state._openings._places.values())

    def begin_epoch(self) -> None:
        """Have the store begin an epoch, as after a restart; all its data but rules stays."""
        self.store.was_stopped(1e9)


class InStep(SharedCase):
    def test_first_turn(self) -> None:
        """Before its first beat a process admits nobody; then it is a member, and does."""
        new = Process(self.store, "new", lambda: self.now)
        self.assertRaises(StateUnavailable, new.admit, "a")
        new.turn()
        self.assertTrue(new.link.is_in_step and new.link.is_settled)
        new.admit("a")
        self.assertEqual(self.held(new), [("a", Stage.DIALLING)])

    def test_one_second(self) -> None:
        """Without an answer to a beat for a second it is out of step, and back with the next answer."""
        self.now += 0.99
        self.one.admit("a")
        self.now += 0.01
        with self.assertRaises(StateUnavailable) as caught:
            self.one.admit("b", vmi="vm-b")
        self.assertIn(("Retry-After", "2"), caught.exception.headers)
        self.assertEqual(self.store.calls("admit")[-1][1].session.id, "a")
        self.one.turn()
        self.one.admit("b", vmi="vm-b")

    def test_time_of_the_question(self) -> None:
        """What counts is when a beat was sent: its answer says nothing of what happened after that."""
        beat = self.store.beat

        def slow(*given: Any) -> Any:
            answer = beat(*given)
            self.now += 0.9
            return answer

        with mock.patch.object(self.store, "beat", slow, create=True):
            self.one.link.beat()
        self.now += 0.1
        self.assertFalse(self.one.link.is_in_step)

    def test_one_limit(self) -> None:
        """Sessions of all processes count together, and a release anywhere makes room."""
        _, first = self.one.open("a", vmi="vm-1")
        self.two.open("b", vmi="vm-2")
        with self.assertRaises(LimitExceeded):
            self.two.admit("c", vmi="vm-3")
        first.released()
        self.assertTrue(self.one.link.wake.is_set())
        self.one.turn()
        self.two.admit("c", vmi="vm-3")

    def test_reports_go_with_requests(self) -> None:
        """What waits to be reported goes with the next request, before it."""
        _, first = self.one.open("a", vmi="vm-1")
        self.one.open("b", vmi="vm-2")
        reports = len(self.store.calls("report"))
        first.released()
        self.one.admit("c", vmi="vm-3")
        [event] = self.store.calls("admit")[-1][2]
        self.assertEqual((event.kind, event.session), (EventKind.RELEASED, "a"))
        self.assertEqual(len(self.store.calls("report")), reports)

    def test_takeover(self) -> None:
        """A session of another process is told with that one's next beat, which acknowledges it later."""
        alice, _ = self.one.open("a", "alice")
        _, holding = self.two.admit("b", "bob")
        self.one.turn()
        self.assertEqual(alice.expected, ["taken-over: by bob"])
        holding.opened()
        with self.assertLogs("wsproxy.state", "INFO"):
            self.one.turn()
        self.assertEqual(alice.ends, [(4410, "taken-over: by bob")])
        self.one.turn()
        self.assertEqual(len(alice.ends), 1)
        record = next(one for one in self.store._state._roster if one.id == self.one.id)
        self.assertEqual(record.messages, ())


class LostCallsAndAnswers(SharedCase):
    def test_report_again(self) -> None:
        """A report that failed is made again, in order, before what came later."""
        _, first = self.one.open("a", vmi="vm-1")
        _, second = self.one.open("b", vmi="vm-2")
        first.ending()
        self.store.lost_calls = ["report"]
        self.assertRaises(StoreUnavailable, self.one.turn)
        second.ending()
        first.released()
        self.one.turn()
        _, events = self.store.calls("report")[-1]
        self.assertEqual(
            [(event.kind, event.session) for event in events],
            [(EventKind.ENDING, "a"), (EventKind.ENDING, "b"), (EventKind.RELEASED, "a")],
        )

    def test_report_without_answer(self) -> None:
        """It is made again also if it had arrived."""
        _, first = self.one.open("a")
        reports = len(self.store.calls("report"))
        first.released()
        self.store.lost_answers = ["report"]
        self.assertRaises(StoreUnavailable, self.one.turn)
        self.one.turn()
        self.assertEqual(len(self.store.calls("report")), reports + 2)
        self.assertEqual(self.held(self.one), [])

    def test_admission_without_answer(self) -> None:
        """A session whose admission has no answer is refused, and released."""
        for lost in (self.store.lost_answers, self.store.lost_calls):
            lost.append("admit")
            with self.assertRaises(StateUnavailable):
                self.one.admit("a")
            self.one.turn()
            self.assertEqual((self.held(self.one), self.one.participant.held), ([], 0))

    def test_beat_without_answer(self) -> None:
        """A beat is repeated with the same number, so its failures count once."""
        one = self.process("failing", failures=2)
        with self.assertRaises(BadToken), one.limits.attempt("10.0.0.1"):
            raise BadToken("bad")
        self.store.lost_answers = ["beat"]
        self.assertRaises(StoreUnavailable, one.turn)
        one.turn()
        first, second = (beat for member, beat in self.store.calls("beat")[-2:])
        self.assertEqual((first.number, first.failures), (second.number, second.failures))
        self.assertEqual([failure.bucket for failure in second.failures], ["10.0.0.1"])
        one.turn()
        self.assertEqual(self.store.calls("beat")[-1][1].failures, ())

    def test_failures_of_one_who_is_unknown(self) -> None:
        """Failures that the store has ignored, as it does not know the process, are told again."""
        one = self.process("failing", failures=2)
        with self.assertRaises(BadToken), one.limits.attempt("10.0.0.1"):
            raise BadToken("bad")
        self.store.leave(one.id)
        one.turn()
        one.turn()
        self.assertEqual(len(self.store.calls("beat")[-1][1].failures), 1)
        self.assertEqual(self.store.sizes["failures"], 1)

    def test_held_mismatch(self) -> None:
        """A session that only the store knows is gone after two beats in which nothing else happened."""
        self.one.open("a")
        self.store.admit(self.one.id, Request(shared("ghost", vmi="vm-2")))
        self.one.turn()
        self.assertEqual(len(self.held(self.one)), 2)
        self.one.turn()
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN)])
        published = len(self.store.calls("publish"))
        self.turn(3)
        self.assertEqual(len(self.store.calls("publish")), published)

    def test_publication_without_answer(self) -> None:
        """Marks are told again although the publication seems to have failed."""
        self.one.open("a", "alice")
        _, holding = self.one.admit("b", "bob")
        self.assertTrue(holding.mark())
        self.one.turn()
        self.store.leave(self.one.id)
        self.assertEqual(self.marks(), 0)
        self.store.lost_answers = ["publish"]
        self.assertRaises(StoreUnavailable, self.one.turn)
        self.one.turn()
        self.one.turn()
        self.assertEqual(self.marks(), 1)


class Epochs(SharedCase):
    def test_published_again(self) -> None:
        """Who was known publishes all; then everybody may be admitted again. Nobody expects anything."""
        alice, _ = self.one.open("a", "alice")
        _, holding = self.two.admit("b", "bob")
        self.one.turn()
        mark = holding.mark()
        self.assertTrue(mark)
        self.two.turn()
        self.assertEqual(alice.expected[-1], "taken-over: by bob")
        self.begin_epoch()
        with self.assertRaises(StateUnavailable):
            self.one.admit("c", vmi="vm-c")
        self.one.turn()
        self.assertEqual(alice.expected[-2:], [None, "taken-over: by bob"])  # taken back, and told anew
        with self.assertRaises(StateUnavailable):
            self.one.admit("c", vmi="vm-c")
        self.now += 0.9
        self.turn(2)
        self.now += 0.5
        self.turn(1)
        self.one.admit("c", vmi="vm-c")
        self.assertEqual(self.held(self.two), [("b", Stage.DIALLING)])
        self.assertEqual(self.marks(), 1)

    def test_numbers_begin_anew(self) -> None:
        """A message of the new epoch is heeded though its number is lower than those before."""
        for number in range(3):  # some messages
            _, first = self.one.open(f"a{number}", "alice")
            _, second = self.two.open(f"b{number}", "bob")
            self.turn()
            for holding in (first, second):
                holding.released()
            self.turn()
        self.begin_epoch()
        self.turn()
        self.now += 1.1
        self.turn()
        alice, _ = self.one.open("a", "alice")
        self.two.open("b", "bob")
        self.one.turn()
        self.assertEqual(alice.ends[-1:], [(4410, "taken-over: by bob")])

    def test_calls_of_the_epoch_before(self) -> None:
        """While a process begins an epoch no call is under way that would take its answer for a new one."""
        begin, closed = self.one.link.holdings.begin_epoch, []

        def noted() -> None:
            closed.append(self.one.link._gate._closed)
            begin()

        self.begin_epoch()
        with mock.patch.object(self.one.link.holdings, "begin_epoch", noted):
            self.one.turn()
        self.assertEqual(closed, [True])

    def test_opened_in_another_epoch(self) -> None:
        """A client is not let in if the rules of the moment cannot be known any more."""
        self.two.open("b", "bob")
        _, holding = self.one.admit("a")
        self.store.revoke((Rule("r", "k", 1e9, 2e9, Match(user="5")),))
        opened = self.store.opened

        def begin(*given: Any) -> Any:
            answer = opened(*given)
            self.begin_epoch()
            return answer

        self.one.link._asked = mock.Mock(wraps=self.store, opened=begin)
        with mock.patch.object(type(self.one.link), "is_alone", False):
            self.assertRaises(StateUnavailable, holding.opened)

    def test_opened_before_the_publication(self) -> None:
        """A session whose store begins anew during its dial is told to come again, and not of another one."""
        self.two.open("b", "bob")
        _, holding = self.one.admit("a")
        self.begin_epoch()
        self.assertRaises(StateUnavailable, holding.opened)
        self.one.turn()
        holding.opened()
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN)])


class Alone(SharedCase):
    """The store is away, and each process decides by itself meanwhile."""

    alone = True

    def test_alone_and_back(self) -> None:
        """It counts for itself; when the store is back all count again, also above the limit, and stay."""
        held = [self.one.open("a", vmi="vm-1"), self.two.open("b", vmi="vm-2")]
        self.store.away = True
        self.one.fail()
        self.assertFalse(self.one.link.is_alone)
        self.now += 1.0
        with self.assertLogs("wsproxy.state", "WARNING") as logs:
            self.one.fail()
            self.one.fail()
        self.assertIn("away: nobody answers; this process counts for itself", logs.output[0])
        self.assertEqual(len(logs.output), 1)
        self.assertTrue(self.one.link.is_alone)
        held.append(self.one.open("c", vmi="vm-3"))
        with self.assertRaises(LimitExceeded):
            self.one.admit("d", vmi="vm-4")
        self.store.away = False
        with self.assertLogs("wsproxy.state", "INFO"):
            self.one.turn()
        self.assertEqual((self.one.link.is_alone, self.one.link.is_in_step), (False, True))
        self.assertEqual([id for id, _ in self.held(self.one)], ["a", "c"])
        self.assertEqual([session.ends for session, _ in held], [[], [], []])
        self.two.turn()
        for process in (self.one, self.two):
            with self.assertRaises(LimitExceeded):
                process.admit("e", vmi="vm-5")

    def test_reports_while_alone(self) -> None:
        """What ends meanwhile is told to its own store, and not to the shared one later."""
        _, holding = self.one.open("a")
        self.store.away = True
        self.now += 1.0
        with self.assertLogs("wsproxy.state", "WARNING"):
            self.one.fail()
        holding.released()
        self.one.fail()
        self.assertEqual(len(self.one.link.outbox), 0)
        self.store.away = False
        self.one.turn()
        self.assertEqual(self.held(self.one), [])

    def test_tickets(self) -> None:
        """There are none meanwhile."""
        self.store.away = True
        self.now += 1.0
        with self.assertLogs("wsproxy.state", "WARNING"):
            self.one.fail()
        ticket = Ticket(Grant(5, "lab-1", ("vm",), 2e9, "t"), "vnc", None)
        self.assertRaises(StateUnavailable, self.one.participant.issue, "d", ticket)
        self.assertRaises(StateUnavailable, self.one.participant.redeem, "d")


class Refusing(SharedCase):
    def test_away(self) -> None:
        """Without a store of its own a process admits nobody; its sessions go on."""
        session, _ = self.one.open("a")
        self.store.away = True
        self.now += 1.0
        with self.assertLogs("wsproxy.state", "WARNING") as logs:
            self.one.fail()
        self.assertIn("new sessions are refused until it is back", logs.output[0])
        self.assertFalse(self.one.link.is_alone)
        self.assertRaises(StateUnavailable, self.one.admit, "b")
        self.assertEqual((session.ends, self.one.heartbeat.numbers.failures), ([], 1))

    def test_away_before_it_is_noticed(self) -> None:
        """Each call that has no answer refuses its client, and no other."""
        self.two.open("c", "carol")
        _, holding = self.one.admit("a")
        self.store.away = True
        for ask in (holding.opened, holding.evict, lambda: self.one.admit("b", vmi="vm-b")):
            self.assertRaises(StateUnavailable, ask)
        self.store.away = False
        holding.opened()
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN)])


class Revocations(SharedCase):
    def test_learned_before_in_step(self) -> None:
        """A beat whose new rules cannot be fetched does not count."""
        self.two.participant.store.revoke((Rule("r", "k", 1e9, 2e9, Match(user="5")),))
        self.now += 1.0
        self.store.lost_calls = ["rules"]
        self.assertRaises(StoreUnavailable, self.one.turn)
        self.assertFalse(self.one.link.is_in_step)
        self.one.turn()
        self.assertTrue(self.one.link.is_in_step)
        self.assertEqual(len(self.one.ended_by), 1)

    def test_opened(self) -> None:
        """Who asks the store knows all rules of that moment then; else it refuses its client."""
        self.two.open("b", "bob")
        _, holding = self.one.admit("a")
        self.store.revoke((Rule("r", "k", 1e9, 2e9, Match(user="5")),))
        self.store.lost_calls = ["rules"]
        self.assertRaises(StateUnavailable, holding.opened)
        holding.opened()
        self.assertEqual(len(list(self.one.participant.known)), 1)

    def test_acknowledged_at_once(self) -> None:
        """A process that has applied new rules beats at once, and then not again: a kick waits for it."""
        version = self.store.revoke((Rule("r", "k", 1e9, 2e9, Match(user="eve")),)).version
        self.two.link.beat()
        self.assertEqual(len(self.store.behind(version)), 2)
        self.assertTrue(self.two.link.has_news and self.two.link.wake.is_set())
        self.two.link.has_news = False
        self.two.link.beat()
        self.assertEqual([one.id for one in self.store.behind(version)], [self.one.id])
        self.assertFalse(self.two.link.has_news)

    def test_kick_waits(self) -> None:
        """A kick returns when the other process has applied it, and acknowledged that."""
        with mock.patch(_SLEEP, lambda seconds: self.two.turn()):
            kick = self.one.participant.kick([Match(user="5")], 2e9)
        self.assertEqual(kick.behind, ())
        self.assertEqual(len(self.two.ended_by), 1)
        self.assertEqual(len(self.one.ended_by), 1)

    def begin_anew(self) -> None:
        """Have another store in the place of the first, which knows nobody."""
        self.store = ShakyStore(lambda: self.now, lambda: 1e9, settled=False)
        for link in (self.one.link, self.two.link):
            link.store = link._asked = self.store
        self.now += 0.5

    def test_kick_in_new_store(self) -> None:
        """A store that knows nobody yet cannot say that nobody is behind."""
        self.begin_anew()

        def turn(seconds: float) -> None:
            self.turn()
            self.now += 0.25

        with mock.patch(_SLEEP, turn):
            kick = self.one.participant.kick([Match(user="5")], 2e9)
        self.assertEqual((kick.behind, len(self.two.ended_by)), ((), 1))

    def test_kick_in_store_that_does_not_settle(self) -> None:
        """If the store still waits for processes after a second, the operator is told so."""
        self.begin_anew()
        with mock.patch("wsproxy.state.participant.participant._KICK_SECONDS", 0.0):
            [who] = self.one.participant.kick([Match(user="5")], 2e9).behind
        self.assertIn("has not heard", who)

    def test_kick_does_not_wait_for_ever(self) -> None:
        with mock.patch("wsproxy.state.participant.participant._KICK_SECONDS", 0.0):
            self.assertEqual(self.one.participant.kick([Match(user="5")], 2e9).behind, ("two",))
            self.store.lost_calls = ["behind"]
            [who] = self.one.participant.kick([Match(user="5")], 2e9).behind
        self.assertIn("all others", who)

    def test_kick_while_away(self) -> None:
        """Then the process refuses the tokens itself, and tells the store when it answers again."""
        self.store.away = True
        self.one.more = [Rule("k.d", "k", 1e9, 2e9, Match(digest="d"))]
        self.assertRaises(StateUnavailable, self.one.participant.kick, [Match(user="5")], 2e9)
        self.assertEqual(len(list(self.one.participant.known)), 2)
        self.store.away = False
        self.turn()
        self.assertEqual(set(self.two.participant.known), set(self.one.participant.known))
        self.turn()
        self.assertEqual(len(self.store.calls("revoke")), 1)

    def test_tokens_of_ended_sessions(self) -> None:
        """Rules for the tokens of sessions that have ended reach the others, also if the first try fails."""
        self.one.more = [Rule("k.d", "k", 1e9, 2e9, Match(digest="d"))]
        self.store.revoke((Rule("r", "k", 1e9, 2e9, Match(user="5")),))
        self.store.lost_calls = ["revoke"]
        self.assertRaises(StoreUnavailable, self.one.turn)
        self.turn()
        self.assertIn(self.one.more[0], list(self.two.participant.known))

    def test_many_tokens(self) -> None:
        """The rules for many tokens are told in parts, so that the store has time for others."""
        self.one.more = [Rule(f"k.{n}", "k", 1e9, 2e9, Match(digest=f"{n}")) for n in range(1200)]
        self.one.link.apply([Rule("r", "k", 1e9, 2e9, Match(user="5"))])
        self.assertEqual([len(rules) for [rules] in self.store.calls("revoke")], [500, 500, 200])

    def test_no_room(self) -> None:
        """Rules for which the store has no room reach the others as soon as it has."""
        self.one.more = [Rule("k.d", "k", 1e9, 2e9, Match(digest="d"))]
        with (
            mock.patch("wsproxy.state.shared.rule_log.MAX_RULES", 1),
            self.assertLogs("wsproxy.state", "WARNING") as logged,
        ):
            self.store.revoke((Rule("r", "k", 1e9, 2e9, Match(user="5")),))
            for _ in range(3):
                self.turn()
        self.assertEqual(len(logged.output), 1)
        self.assertNotIn(self.one.more[0], list(self.two.participant.known))
        self.turn()
        self.assertIn(self.one.more[0], list(self.two.participant.known))

    def test_rules_of_another_epoch(self) -> None:
        """If the epoch ends before a process has the rules of an answer, that answer keeps it not in step."""
        self.store.revoke((Rule("r", "k", 1e9, 2e9, Match(user="5")),))
        rules = self.store.rules

        def rules_of_the_next(since: int) -> RulesPage:
            self.begin_epoch()
            return rules(since)

        self.now += 0.9
        with mock.patch.object(self.store, "rules", rules_of_the_next):
            self.one.turn()
        self.now += 0.2
        self.assertFalse(self.one.link.is_in_step)
        self.one.turn()
        self.assertTrue(self.one.link.is_in_step)

    def test_rules_survive_the_store(self) -> None:
        """A store that has lost its data is told the rules again by each process that publishes."""
        with mock.patch(_SLEEP, lambda seconds: self.two.turn()):
            self.one.participant.kick([Match(user="5")], 2e9)
        self.store = ShakyStore(lambda: self.now, lambda: 1e9)
        for link in (self.one.link, self.two.link):
            link.store = link._asked = self.store
        self.one.turn()
        self.assertEqual([rule.match for rule in self.store.rules(0).rules], [Match(user="5")])

    def test_lift(self) -> None:
        """A lift reaches the other process with its next beat."""
        with mock.patch(_SLEEP, lambda seconds: self.two.turn()):
            kick = self.one.participant.kick([Match(user="5")], 2e9)
        self.assertTrue(self.one.participant.lift(kick.id))
        self.two.turn()
        self.assertEqual([rule.match for rule in self.two.participant.known], [None])


class OperatorsList(SharedCase):
    def test_others(self) -> None:
        """Each process shows the sessions of all others, with who has them."""
        self.two.open("b")
        self.one.open("a", vmi="vm-2")
        found = [(member.name, held.session.id) for member, held in self.one.participant.others()]
        self.assertEqual(found, [("two", "b")])


class Threads(LeakTestCase):
    def test_start_and_stop(self) -> None:
        """Both threads end, the process has left the store, and what waited has been reported."""
        store = ShakyStore()
        participant = Process(store, "one", lambda: 0.0).participant
        self.run_and_stop(participant)
        self.assertEqual(store.members(), ())
        self.assertTrue(store._closed)

    def test_stop_while_away(self) -> None:
        """They end also if the store is away."""
        store = ShakyStore()
        store.away = True
        with self.assertLogs("wsproxy.state", "WARNING"):
            clock = itertools.count(0.0, 10.0).__next__  # its start is long ago whenever it looks
            self.run_and_stop(Process(store, "one", clock, limits=SlotLimits()).participant)
        self.assertTrue(store._closed)

    def test_bug_of_the_store(self) -> None:
        """They end also if the store fails as nobody expects."""
        store = ShakyStore()
        with (
            mock.patch.object(store, "leave", side_effect=ArithmeticError, create=True),
            self.assertRaises(ArithmeticError),
        ):
            self.run_and_stop(Process(store, "one", lambda: 0.0).participant)
        self.assertTrue(store._closed)

    def run_and_stop(self, participant: Participant) -> None:
        assert participant.heartbeat
        heartbeat, turned = participant.heartbeat, threading.Event()
        turn, failed = heartbeat._note_answer, heartbeat._note_failure

        def answered() -> None:
            turn()
            turned.set()

        def not_answered(exc: StoreUnavailable) -> None:
            failed(exc)
            turned.set()

        with (
            mock.patch.object(heartbeat, "_note_answer", answered),
            mock.patch.object(heartbeat, "_note_failure", not_answered),
        ):
            participant.start(self)
            self.assertTrue(turned.wait(10))
            self.assertTrue(heartbeat.is_healthy)
            self.assertEqual(len([thread for thread in threading.enumerate() if "state" in thread.name]), 2)
            participant.stop()
        participant.stop()


class Waiting(SharedCase):
    """A session waits for a slot, of which another one's end is about to make one."""

    def setUp(self) -> None:
        super().setUp()
        self.one.open("a", vmi="vm-1")
        _, ending = self.one.open("b", vmi="vm-2")
        ending.ending()

    def wait(self, *steps: Callable[[], None]) -> None:
        """Have a session wait until some steps have been done."""
        left = list(steps)
        _, holding = self.one.session("c", vmi="vm-3")
        with self.assertRaises(LimitExceeded):
            holding.admit(Deadline(0.0), lambda: left.pop(0)() if left else None)
        self.assertEqual((left, self.one.participant.held), ([], 2))

    def test_no_mismatch(self) -> None:
        """The store has nothing of it, so that is no mismatch."""
        self.wait(self.one.turn, lambda: self.turn(3))
        self.assertEqual(len(self.store.calls("publish")), 2)

    def test_publication(self) -> None:
        """It is in no publication: otherwise it would count above the limit, and be admitted."""
        self.wait(self.one.turn, self.begin_epoch_and_turn)
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN), ("b", Stage.OPEN)])

    def begin_epoch_and_turn(self) -> None:
        self.begin_epoch()
        self.turn()
        self.now += 1.0
        self.turn()

    def test_for_console(self) -> None:
        """Who waits for a console asks anew after a publication, and at once."""
        _, holder = self.two.open("d", user="bob", vmi="vm-4")
        holder.ending()
        self.two.turn()
        _, holding = self.one.session("e", user="carol", vmi="vm-4")

        def release() -> None:
            holder.released()
            self.two.turn()
            self.one.turn()

        steps = [self.one.turn, self.begin_epoch_and_turn, release]
        holding.admit(Deadline(10.0), lambda: steps.pop(0)())
        self.assertEqual(steps, [])
        self.assertIn(("e", Stage.DIALLING), self.held(self.one))


class Busy(SharedCase):
    def test_held_mismatch(self) -> None:
        """A process with calls between all of its beats notices that the store has a session too many."""
        self.one.open("a", vmi="vm-1")
        self.store.admit(self.one.id, Request(shared("lost", "bob", "vm-2")))
        for number in range(2):
            _, holding = self.one.open(f"b{number}", vmi="vm-3")
            holding.released()
            self.one.turn()
        self.assertEqual(self.held(self.one), [("a", Stage.OPEN)])

    def test_unsettled(self) -> None:
        """Who finds out with an opening that another epoch has begun beats at once."""
        self.begin_epoch()
        with self.assertRaises(StateUnavailable):
            self.one.admit("a")
        self.assertTrue(self.one.link.wake.is_set() and self.one.link.has_news)

    def test_failures_at_the_end(self) -> None:
        """Who leaves tells the failed attempts that nobody else would tell."""
        old = self.process("old", failures=2)
        for _ in range(2):
            with self.assertRaises(BadToken), old.limits.attempt("198.51.100.7"):
                raise BadToken("no token")
        old.link.leave()
        self.assertEqual(len(self.store.calls("beat")[-1][1].failures), 1)


class Order(SharedCase):
    def test_admission_after_a_failed_report(self) -> None:
        """An id that is admitted again after its release is never released by the report of before."""
        self.one.open("x", vmi="vm-1")
        self.one.open("y", vmi="vm-2")
        _, holding = self.one.session("a", vmi="vm-3")
        for _ in range(2):
            with self.assertRaises(LimitExceeded):
                holding.admit(Deadline(0.0), lambda: None)
        self.assertEqual(self.one.participant.held, 2)
        self.one.turn()
        self.assertEqual(len(self.held(self.one)), 2)

    def test_no_wait_for_reports(self) -> None:
        """A call that carries events holds up no admission, and the later events wait for its end."""
        outbox = self.one.link.outbox
        self.one.open("a", vmi="vm-1")[1].released()
        with outbox.carried(_LONG), mock.patch.object(outbox._changed, "wait_for", self.fail):
            _, second = self.one.admit("b", vmi="vm-2")
            second.released()
            self.one.admit("c", user="bob", vmi="vm-3")
        self.assertEqual([given[2] for given in self.store.calls("admit")], [(), (), ()])
        self.one.admit("d", user="bob", vmi="vm-4")
        [event] = self.store.calls("admit")[-1][2]
        self.assertEqual(event.session, "b")

    def test_room_that_a_report_makes(self) -> None:
        """Who is refused asks again when the call that carries events has ended. They may make room."""
        link = self.one.link
        _, first = self.one.open("a", vmi="vm-1")
        self.one.open("b", vmi="vm-2")
        first.released()
        asked, wait_for = threading.Event(), link.outbox._changed.wait_for

        def waiting(*given: Any) -> Any:
            asked.set()
            return wait_for(*given)

        _, holding = self.one.session("c", vmi="vm-3")
        thread = threading.Thread(target=lambda: holding.admit(Deadline(0.0), lambda: None))
        with (
            link.outbox.carried(_LONG) as batch,
            mock.patch.object(link.outbox._changed, "wait_for", waiting),
        ):
            thread.start()
            self.assertTrue(asked.wait(_LONG))
            self.assertTrue(
                holding._held and not holding._refused, "it took note of a refusal that may change"
            )
            self.store.report(self.one.id, batch.events)
        thread.join(_LONG)
        self.assertIn(("c", Stage.DIALLING), self.held(self.one))

    def test_reports_go_together(self) -> None:
        """What is reported while the heartbeat gathers goes with one call."""
        _, holding = self.one.open("a")
        holding.ending()
        self.turn_after(holding.released, seconds=1.0)
        kinds = [[event.kind for event in events] for _, events in self.store.calls("report")]
        self.assertEqual(kinds, [[EventKind.OPENED], [EventKind.ENDING, EventKind.RELEASED]])

    def test_an_opening_takes_reports_along(self) -> None:
        """If an opening does so while the heartbeat gathers, there is no call for what came after it."""
        _, first = self.one.open("a", vmi="vm-1")
        first.released()
        link, reports = self.one.link, len(self.store.calls("report"))

        def open_another() -> None:
            _, second = self.one.admit("b", vmi="vm-2")
            link.wake.clear()
            second.ending()
            link.wake.clear()

        self.turn_after(open_another, seconds=0.0)
        self.assertEqual(len(self.store.calls("report")), reports)
        self.assertTrue(link.wake.is_set(), "it would come back with its next beat only")
        self.assertEqual(len(link.outbox), 1)
        self.turn_after(lambda: None, seconds=1.0)
        self.assertEqual(len(self.store.calls("report")), reports + 1)
        self.assertEqual(len(link.outbox), 0)

    def test_the_heartbeat_waits_for_the_oldest(self) -> None:
        """A report waits for a moment, and not for another one if it has waited already."""
        _, holding = self.one.open("a")
        holding.ending()
        waits: list[float] = []
        outbox = self.one.link.outbox
        with (
            mock.patch.object(self.one.heartbeat._stopping, "wait", waits.append),
            mock.patch.object(outbox, "_clock", lambda: outbox._since + 10.0),
        ):
            self.one.turn()
        self.assertEqual(waits, [])
        self.assertEqual(len(self.store.calls("report")), 2)

    def test_reports_without_end(self) -> None:
        """If there is more to report with each call, the heartbeat still beats, and comes back."""
        self.one.open("a")[1].ending()
        link, report, beats = self.one.link, self.store.report, len(self.store.calls("beat"))
        reports: list[object] = []

        def report_and_more(member: str, events: tuple[Event, ...]) -> tuple[Message, ...]:
            self.assertLess(len(reports), 3, "it reports all the time")
            reports.append(events)
            link.post(Event(EventKind.ENDING, "a"))
            return report(member, events)

        with mock.patch.object(self.store, "report", report_and_more, create=True):
            link.outbox._since = -_LONG
            link.wake.clear()
            self.one.turn()
        self.assertEqual(len(reports), 1)
        self.assertEqual(len(self.store.calls("beat")), beats + 1)
        self.assertTrue(link.wake.is_set())

    def test_others_report_without_end(self) -> None:
        """If openings carry reports all the time, the heartbeat waits for the end of one call, and beats."""
        self.one.open("a")[1].ending()
        link, beats = self.one.link, len(self.store.calls("beat"))
        outbox = link.outbox
        batches = [outbox.take(0.0)]
        outbox.post(Event(EventKind.ENDING, "a"))
        outbox._since = -_LONG

        def next_batch(is_over: Callable[[], bool], seconds: float) -> bool:
            self.assertFalse(is_over())
            batches[-1].done()
            batches.append(outbox.take(0.0))
            outbox.post(Event(EventKind.RELEASED, "a"))
            self.assertTrue(is_over(), "it waits for calls that have begun since")
            return True

        reports = len(self.store.calls("report"))
        with mock.patch.object(outbox._changed, "wait_for", next_batch):
            self.one.turn()
        self.assertEqual(len(self.store.calls("report")), reports, "it would overtake what is under way")
        self.assertEqual(len(self.store.calls("beat")), beats + 1)
        self.assertTrue(link.wake.is_set())
        batches[-1].done()
        self.one.turn()
        self.assertEqual(self.store.calls("report")[-1][1], (Event(EventKind.RELEASED, "a"),))

    def turn_after(self, act: Callable[[], None], seconds: float) -> None:
        """Do what the heartbeat's thread does. Act while it gathers, and let so many seconds pass there."""
        outbox, times = self.one.link.outbox, [0.0]

        def gather(wanted: float) -> bool:
            self.assertGreater(wanted, 0.0)
            act()
            times[0] += seconds
            return False

        outbox._since = 0.0
        with (
            mock.patch.object(self.one.heartbeat._stopping, "wait", gather),
            mock.patch.object(outbox, "_clock", lambda: times[0]),
        ):
            self.one.turn()


if __name__ == "__main__":
    unittest.main()
