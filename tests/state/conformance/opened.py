"""Sessions that report that they are open, in place of asking whether they have their console."""

from __future__ import annotations

from wsproxy.state.console_policies import Policy
from wsproxy.state.values import (
    BusyReason,
    Event,
    EventKind,
    Held,
    MessageKind,
    Outcome,
    SlotLimits,
    Stage,
)

from .case import session
from .consoles import ConsoleCase

__all__ = ["Opened"]

_POLICIES = ("passthrough", "takeover", "refuse")
_OPENED = EventKind.OPENED


class Opened(ConsoleCase):
    def decided(self, id: str, policy: str, vmi: str = "ubuntu", user: str = "bob") -> bool:
        """Admit a session, and return whether it need not ask when it is open."""
        decision = self.b.admit(session(id, user, vmi), policy)
        self.assert_outcome(Outcome.ADMITTED, decision)
        return decision.decided

    def report(self, *ids: str) -> None:
        self.a.report(_OPENED, *ids)

    # Who may

    def test_free(self) -> None:
        """With any rule, whoever finds nobody at the console need not ask."""
        for policy in _POLICIES:
            with self.subTest(policy):
                self.assertTrue(self.decided(f"of-{policy}", policy, f"vm-{policy}"))

    def test_not_free(self) -> None:
        """Whoever takes a console over has to, since the loser is told before the client is let in."""
        self.a.open(session("s1"), "takeover")
        self.assertFalse(self.decided("s2", "takeover"))
        self.assertTrue(self.decided("s3", "passthrough"))

    def test_marks(self) -> None:
        """So has whoever may lose the console to an opening that was given up, and expects that then."""
        self.a.report_all(Event(EventKind.MARK, "m", session("m").console, "alice"))
        self.assertFalse(self.decided("s1", "refuse"))
        self.assertTrue(self.decided("s2", "passthrough"))

    def test_waiters(self) -> None:
        """So has whoever others wait for."""
        self.a.open(session("s1"), "passthrough")
        decision = self.a.admit(session("s2"), "refuse", SlotLimits(vmi=1), may_wait=True)
        self.assert_outcome(Outcome.WAIT, decision)
        self.assertFalse(self.decided("s3", "takeover"))

    def test_asked_again(self) -> None:
        """Whoever is admitted already is not told so: a lot may have happened since."""
        self.assertTrue(self.decided("s1", "takeover"))
        self.assertFalse(self.decided("s1", "takeover"))

    def test_after_waiting(self) -> None:
        """Whoever has waited for a console need not ask either, if it is free then."""
        self.a.open(session("s1"), "refuse")
        self.a.ending("s1")
        self.assert_outcome(Outcome.WAIT, self.b.admit(session("s2", "bob"), "refuse", may_wait=True))
        self.a.released("s1")
        self.assertTrue(self.decided("s2", "refuse"))

    # What it does

    def test_console(self) -> None:
        """It has its console from the report on, as if it had asked."""
        for policy in _POLICIES:
            with self.subTest(policy):
                self.a.admit(session("s1"), policy)
                self.report("s1")
                self.assertEqual(self.a.held(), [("s1", Stage.OPEN, False)])
                if policy == "refuse":
                    self.assert_busy(self.b.admit(session("s2", "bob"), "refuse"), BusyReason.IN_USE)
                if policy == "takeover":
                    self.reach(self.b, "s2", "bob")
                    self.assertEqual(self.a.told(), [(MessageKind.EXPECT, "s1")])
                    self.assertTrue(self.b.opened("s2").admitted)
                    self.assertEqual(self.a.told(), [(MessageKind.LOST, "s1")])
                self.a.released("s1")
                self.b.released("s2")

    def test_with_an_admission(self) -> None:
        """It happens before what the same call asks for."""
        self.a.admit(session("s1"), "takeover")
        decision = self.a.admit(session("s2", "bob"), "takeover", events=(Event(_OPENED, "s1"),))
        self.assert_outcome(Outcome.ADMITTED, decision)
        self.assertFalse(decision.decided)
        [expect] = decision.messages
        self.assertEqual((expect.kind, expect.session, expect.by), (MessageKind.EXPECT, "s1", "bob"))

    def test_until_then(self) -> None:
        """Until the report nobody else gets the console. Those who wait are told of the report."""
        self.a.admit(session("s1"), "takeover")
        self.assert_busy(self.b.admit(session("s2", "bob"), "takeover"), BusyReason.IN_USE)
        self.assert_outcome(Outcome.WAIT, self.b.admit(session("s2", "bob"), "takeover", may_wait=True))
        self.report("s1")
        self.assertEqual(self.b.told(), [(MessageKind.FREE, "s2")])
        self.reach(self.b, "s2", "bob")

    def test_mark_meanwhile(self) -> None:
        """It learns with the report's answer, at the latest, of an opening that was given up meanwhile."""
        self.a.admit(session("s1"), "takeover")
        self.b.report_all(Event(EventKind.MARK, "m", session("m").console, "bob"))
        self.report("s1")
        self.assertEqual([(one.kind, one.by) for one in self.a.messages], [(MessageKind.EXPECT, "bob")])

    def test_published_meanwhile(self) -> None:
        """Whoever is published with the console meanwhile loses it, also by the rule refuse."""
        for policy in (Policy.TAKEOVER, Policy.REFUSE):
            with self.subTest(policy):
                self.a.admit(session("s1"), policy.value)
                self.b.publish(Held(session("s2", "bob"), Stage.OPEN, policy))
                self.report("s1")
                self.assertIn((MessageKind.LOST, "s2"), self.b.told())
                self.assert_busy(self.b.admit(session("s3", "eve"), "refuse"), BusyReason.IN_USE)
                self.b.released("s2")
                self.a.released("s1")

    # What it does not

    def test_twice(self) -> None:
        """A second time it changes nothing, also if somebody else has the console by then."""
        self.a.admit(session("s1"), "takeover")
        self.report("s1", "s1")
        self.b.open(session("s2", "bob"), "takeover")
        self.a.told()
        self.report("s1")
        self.assertEqual((self.a.told(), self.b.told()), ([], []))
        self.assert_busy(self.b.admit(session("s3", "eve"), "refuse"), BusyReason.IN_USE, "bob")

    def test_batch_twice(self) -> None:
        """So it is with all that became of a session since, in the same batch or in a later one."""
        for kind in (EventKind.RELEASED, EventKind.GIVEN_UP):
            with self.subTest(kind):
                self.a.admit(session("s1"), "refuse")
                for _ in range(2):
                    self.a.report_all(Event(_OPENED, "s1"), Event(kind, "s1"))
                self.report("s1")
                self.assertTrue(self.decided("s2", "refuse"))
                self.b.opened("s2")
                self.report("s1")
                self.assert_busy(self.a.admit(session("s3", "eve"), "refuse"), BusyReason.IN_USE, "bob")
                self.a.released("s1")
                self.b.released("s2")
                self.assertEqual((self.a.held(), self.b.held()), ([], []))

    def test_given_up_before(self) -> None:
        """Whoever was given up before does not get the console any more."""
        self.a.admit(session("s1"), "takeover")
        self.a.report_all(Event(EventKind.GIVEN_UP, "s1"), Event(_OPENED, "s1"))
        self.assertEqual(self.a.held(), [("s1", Stage.DIALLING, True)])
        self.b.open(session("s2", "bob"), "refuse")

    def test_not_admitted(self) -> None:
        """Nothing is made of a report of somebody who waits, or whom the store does not know."""
        self.b.open(session("s1", "bob"), "refuse")
        self.a.admit(session("s2"), "refuse", may_wait=True)
        self.report("s2", "s3")
        self.assertEqual(self.a.held(), [("s2", Stage.WAITING, False)])
        self.assertEqual([stage for _, stage, _ in self.b.held()], [Stage.OPEN])

    def test_while_publishing(self) -> None:
        """While a member publishes, its publication alone says what it has."""
        self.a.admit(session("s1"), "refuse")
        self.a.publish(part=0, last=False)
        self.report("s1")
        self.assertEqual(self.a.held(), [("s1", Stage.DIALLING, False)])
        self.a.publish(Held(session("s1"), Stage.OPEN, Policy.REFUSE), part=1)
        self.assertEqual(self.a.held(), [("s1", Stage.OPEN, False)])
