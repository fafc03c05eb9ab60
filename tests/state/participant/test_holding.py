"""What one session holds: how it is admitted, what it reports, and what it does as it is told."""

from __future__ import annotations

import unittest
from collections.abc import Callable

from wsproxy.exceptions import Busy, ConsoleBusy, LimitExceeded, StateUnavailable, TransportClosed
from wsproxy.runtime.deadline import Deadline
from wsproxy.state.console_policies import Policy
from wsproxy.state.participant.holding import TAKEN_OVER, Holding
from wsproxy.state.values import (
    BusyReason,
    Confirmed,
    Decision,
    Event,
    EventKind,
    Evicted,
    Held,
    Message,
    MessageKind,
    Outcome,
    Request,
    SessionRef,
    SlotLimits,
    Stage,
)

from .fakes import FakeSession, shared

_LONG = 10.0
_ADMITTED = Decision(Outcome.ADMITTED)
_ENDING = Decision(Outcome.WAIT, busy=BusyReason.IN_USE, ending=True)
_LIMITS = SlotLimits(user=2)


class FakeLink:
    """Gives the answers that the test has prepared."""

    member, show_user, blocks = "own", False, False
    may_report_opened = False

    def __init__(self) -> None:
        self.decisions: list[Decision | Callable[[], Decision]] = []
        self.requests: list[Request] = []
        self.confirmed = Confirmed(True, 0)
        self.said: list[object] = []  # what was done, in order
        self.looks: list[bool] = []

    def admit(self, request: Request) -> Decision:
        self.requests.append(request)
        self.said.append("admit")
        decision = self.decisions.pop(0)
        return decision if isinstance(decision, Decision) else decision()

    def opened(self, session: str) -> Confirmed:
        self.said.append("opened")
        return self.confirmed

    def evict(self, session: str) -> Evicted:
        return Evicted(True)

    def post(self, event: Event) -> None:
        self.said.append(event.kind)

    def flush(self) -> None:
        self.said.append("flush")

    def keep(self, holding: Holding) -> None:
        self.said.append("keep")

    def drop(self, holding: Holding) -> None:
        self.said.append("drop")

    def look(self, sessions: tuple[SessionRef, ...]) -> bool:
        return self.looks.pop(0) if self.looks else False


class HoldingCase(unittest.TestCase):
    policy = Policy.TAKEOVER

    def setUp(self) -> None:
        self.link, self.session = FakeLink(), FakeSession()
        self.hits: list[str] = []
        self.holding = Holding(self.link, self.session, shared("a"), self.policy, _LIMITS, self.hits.append)
        self.told = 0

    def admit(self, *decisions: Decision | Callable[[], Decision], seconds: float = _LONG) -> None:
        self.link.decisions += decisions
        self.holding.admit(Deadline(seconds), self.tell)

    def tell(self) -> None:
        self.told += 1
        self.link.said.append("told")

    def message(self, kind: MessageKind, **more: object) -> Message:
        return Message(1, kind, "a", **more)  # type: ignore[arg-type]

    def free(self) -> Decision:
        """Say that it has to wait, and that it need not wait longer."""
        self.holding.heed(self.message(MessageKind.FREE))
        return _ENDING


class Admission(HoldingCase):
    def test_admitted(self) -> None:
        """It is known to the process before the store is asked, so that no message is lost."""
        self.admit(_ADMITTED)
        self.assertEqual(self.link.said, ["keep", "admit"])
        self.assertEqual(self.link.requests, [Request(shared("a"), Policy.TAKEOVER, _LIMITS, True)])
        self.assertEqual(self.holding.held(), Held(shared("a"), Stage.DIALLING, Policy.TAKEOVER, False))
        self.assertEqual(self.told, 0)

    def test_store_elsewhere(self) -> None:
        """Asking a store elsewhere is a wait, of which others are told before."""
        self.link.blocks = True
        self.admit(_ADMITTED)
        self.assertEqual(self.link.said, ["keep", "told", "admit"])

    def test_refused(self) -> None:
        """Each answer has its refusal; what the store may know is released, and nothing is told in vain."""
        for decision, kind, words in (
            (Decision(Outcome.FULL, "user"), LimitExceeded, "as many sessions as you may"),
            (Decision(Outcome.FULL, "vmi"), LimitExceeded, "this console has"),
            (Decision(Outcome.FULL, "sessions"), Busy, "the proxy has"),
            (Decision(Outcome.BUSY, busy=BusyReason.IN_USE, by="bob"), ConsoleBusy, "in use$"),
            (Decision(Outcome.BUSY, busy=BusyReason.HELD_OFF, by="bob"), ConsoleBusy, "was taken over;"),
            (Decision(Outcome.BUSY, busy=BusyReason.BEING_TAKEN), ConsoleBusy, "right now"),
            (Decision(Outcome.UNSETTLED), StateUnavailable, "cannot reach"),
        ):
            with self.subTest(decision), self.assertRaisesRegex(kind, words):
                self.admit(decision)
            is_told = decision.outcome is Outcome.UNSETTLED
            self.assertEqual(self.link.said[1:3], ["admit", "drop"])
            self.assertEqual(self.link.said[3:], [EventKind.RELEASED, "flush"] if is_told else [])
            del self.link.said[:]
        self.assertEqual(self.hits, ["user", "vmi", "sessions"])

    def test_show_user(self) -> None:
        """The refusal names the other user if clients may know."""
        self.link.show_user = True
        for reason, words in ((BusyReason.IN_USE, "in use by bob"), (BusyReason.HELD_OFF, "over by bob;")):
            with self.subTest(reason), self.assertRaisesRegex(ConsoleBusy, words):
                self.admit(Decision(Outcome.BUSY, busy=reason, by="bob"))

    def test_store_fails(self) -> None:
        """If the store does not answer, it may know of the session, which is released."""

        def fail() -> Decision:
            raise StateUnavailable()

        self.assertRaises(StateUnavailable, self.admit, fail)
        self.assertIn(EventKind.RELEASED, self.link.said)

    def test_again(self) -> None:
        """After a refusal it may be admitted by another request, and reports its end again."""
        self.assertRaises(LimitExceeded, self.admit, Decision(Outcome.FULL, "user"))
        self.admit(_ADMITTED)
        self.assertFalse(self.holding.held().ending)
        self.holding.ending()
        self.assertEqual(self.link.said[-2:], [EventKind.ENDING, "flush"])


class Waiting(HoldingCase):
    def test_free(self) -> None:
        """It asks again when it is told that what it waits for may be free."""
        self.admit(self.free, self.free, _ADMITTED)
        self.assertEqual([request.may_wait for request in self.link.requests], [True] * 3)
        self.assertEqual(self.told, 2)

    def test_deadline(self) -> None:
        """It asks a last time when its deadline has passed."""
        self.assertRaises(LimitExceeded, self.admit, _ENDING, Decision(Outcome.FULL, "user"), seconds=0.0)
        self.assertEqual([request.may_wait for request in self.link.requests], [True, False])

    def test_nobody_is_ending(self) -> None:
        """If nobody in the way is ending, and all are of this process, there is nothing to wait for."""
        own = Decision(Outcome.WAIT, busy=BusyReason.IN_USE, in_way=(SessionRef("own", "b"),))
        self.assertRaises(ConsoleBusy, self.admit, own, Decision(Outcome.BUSY, busy=BusyReason.IN_USE))
        self.assertEqual([request.may_wait for request in self.link.requests], [True, False])

    def test_look(self) -> None:
        """If a look finds that somebody has left, it asks again at once, and may still wait."""
        self.link.looks = [True]
        own = Decision(Outcome.WAIT, busy=BusyReason.IN_USE, in_way=(SessionRef("own", "b"),))
        self.admit(own, _ADMITTED)
        self.assertEqual([request.may_wait for request in self.link.requests], [True, True])

    def test_given_up(self) -> None:
        """An opening that is given up while it waits ends at once, and holds nothing."""

        def give_up() -> Decision:
            self.holding.given_up()
            return _ENDING

        self.assertRaises(TransportClosed, self.admit, give_up)
        self.assertEqual(self.link.said[-3:], ["drop", EventKind.RELEASED, "flush"])
        self.assertEqual(len(self.link.requests), 1)

    def test_given_up_before(self) -> None:
        """One that was given up before it has asked does not wait for what nobody will tell it."""
        self.holding.given_up()
        self.assertRaises(TransportClosed, self.admit, _ENDING)
        self.assertEqual(self.link.requests, [])

    def test_ends(self) -> None:
        """A session that ends by itself while it waits asks no more."""

        def end() -> Decision:
            self.session.is_ending = True
            return self.free()

        self.assertRaises(TransportClosed, self.admit, end)
        self.assertEqual(self.link.said[-3:], ["drop", EventKind.RELEASED, "flush"])


class Dial(HoldingCase):
    def test_opened(self) -> None:
        self.admit(_ADMITTED)
        self.holding.opened()
        self.assertIs(self.holding.held().stage, Stage.OPEN)

    def test_decided(self) -> None:
        """It reports only, if nothing is left to decide, and its process has not been away."""
        self.link.may_report_opened = True
        self.admit(_ADMITTED._replace(decided=True))
        del self.link.said[:]
        self.holding.opened()
        self.assertEqual(self.link.said, [EventKind.OPENED, "flush"])
        self.assertIs(self.holding.held().stage, Stage.OPEN)

    def test_not_decided(self) -> None:
        """It asks if the process may have been away, or has published what it holds since."""
        for was_away in (True, False):
            with self.subTest(was_away=was_away):
                self.setUp()
                self.admit(_ADMITTED._replace(decided=True))
                self.link.may_report_opened = not was_away
                if not was_away:
                    self.holding.begin_epoch()
                self.holding.note(_ADMITTED._replace(decided=True))  # once more, when its messages are heeded
                del self.link.said[:]
                self.holding.opened()
                self.assertEqual(self.link.said, ["opened"])

    def test_lost_meanwhile(self) -> None:
        """If another session has the console by now, the client is not let in."""
        self.admit(_ADMITTED)
        self.link.confirmed = Confirmed(False, 0)
        self.assertRaises(ConsoleBusy, self.holding.opened)
        self.assertIs(self.holding.held().stage, Stage.DIALLING)

    def test_evict(self) -> None:
        self.assertTrue(self.holding.evict())

    def test_mark(self) -> None:
        """A mark is queued at once, and told when the caller holds no lock; removing it is, too."""
        mark = self.holding.mark()
        assert mark
        self.assertEqual(self.link.said, [EventKind.MARK])
        self.assertEqual(mark.event, Event(EventKind.MARK, "a", shared("a").console, "alice"))
        mark.tell()
        mark.remove()
        self.assertEqual(self.link.said[1:], ["flush", EventKind.UNMARK, "flush"])


class End(HoldingCase):
    def test_nothing_held(self) -> None:
        """Nothing is reported of a session that the store cannot know."""
        self.holding.ending()
        self.holding.given_up()
        self.holding.released()
        self.assertEqual(self.link.said, [])

    def test_each_once(self) -> None:
        """Its end is reported once; that it is released as well, and then nothing more."""
        self.admit(_ADMITTED)
        del self.link.said[:]
        for _ in range(2):
            self.holding.ending()
        self.holding.given_up()
        self.assertEqual(self.holding.held(), Held(shared("a"), Stage.DIALLING, Policy.PASSTHROUGH, True))
        for _ in range(2):
            self.holding.released()
        self.holding.given_up()
        self.holding.ending()
        self.assertEqual(
            self.link.said,
            [EventKind.ENDING, "flush", EventKind.GIVEN_UP, "flush", "drop", EventKind.RELEASED, "flush"],
        )


class Told(HoldingCase):
    def setUp(self) -> None:
        super().setUp()
        self.session.holding = self.holding
        self.admit(_ADMITTED)
        del self.link.said[:]

    def test_expect_and_keep(self) -> None:
        self.holding.heed(self.message(MessageKind.EXPECT, by="bob"))
        self.link.show_user = True
        self.holding.heed(self.message(MessageKind.EXPECT, by="bob"))
        self.holding.heed(self.message(MessageKind.KEEP))
        self.holding.begin_epoch()
        self.assertEqual(self.session.expected, ["taken-over", "taken-over: by bob", None, None])

    def test_lost(self) -> None:
        """It ends, and is published without a console from then on."""
        with self.assertLogs("wsproxy.state", "INFO") as logs:
            self.holding.heed(self.message(MessageKind.LOST, by="bob"))
        self.assertEqual(self.session.ends, [(TAKEN_OVER, "taken-over")])
        self.assertEqual(self.link.said, [EventKind.ENDING, "flush"])
        self.assertEqual(self.holding.held(), Held(shared("a"), Stage.DIALLING, Policy.PASSTHROUGH, True))
        [line] = logs.records
        words = "session a lost the vnc console of lab-1/vm to another session"
        self.assertEqual(line.getMessage(), words)

    def test_end(self) -> None:
        self.holding.heed(self.message(MessageKind.END, code=4499, reason="kicked"))
        self.assertEqual(self.session.ends, [(4499, "kicked")])

    def test_end_that_cannot_be_sent(self) -> None:
        """Whatever others wrote to the store, the session ends by what a Close can carry."""
        for code in (-1, 0, 5, 1005, 1006, 65536, 99_999_999):
            self.holding.heed(self.message(MessageKind.END, code=code, reason="\ud800"))
        self.link.show_user = True
        with self.assertLogs("wsproxy.state", "INFO"):
            self.holding.heed(self.message(MessageKind.LOST, by="\udfff"))
        self.assertEqual(self.session.ends, [(4499, "?")] * 7 + [(TAKEN_OVER, "taken-over: by ?")])

    def test_look(self) -> None:
        """It looks, and reports its end only if its client has left."""
        self.holding.heed(self.message(MessageKind.LOOK))
        self.assertEqual(self.link.said, [])
        self.session.has_left = True
        self.holding.heed(self.message(MessageKind.LOOK))
        self.assertEqual(self.link.said, [EventKind.ENDING, "flush"])


class Passthrough(HoldingCase):
    policy = Policy.PASSTHROUGH

    def test_no_console(self) -> None:
        """Where KubeVirt decides, there is no mark, and nobody is evicted."""
        self.assertFalse(self.holding.asks_first)
        self.assertIsNone(self.holding.mark())
        self.assertFalse(self.holding.evict())


class NothingShared(unittest.TestCase):
    def test_no_link(self) -> None:
        """If nothing is counted or arbitrated, a holding does nothing, and nobody waits."""
        holding = Holding(None, FakeSession(), shared("a"), Policy.TAKEOVER, _LIMITS)
        holding.admit(Deadline(0.0), self.fail)
        holding.opened()
        holding.ending()
        holding.given_up()
        holding.released()
        holding.give_up_waiting()
        self.assertFalse(holding.evict())
        self.assertIsNone(holding.mark())


if __name__ == "__main__":
    unittest.main()
