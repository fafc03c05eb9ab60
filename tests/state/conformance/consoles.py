"""Who keeps a console, whichever members the clients come to."""

from __future__ import annotations

from wsproxy.state.values import BusyReason, Decision, Event, EventKind, MessageKind, Outcome, SessionRef

from .case import StoreCase, TestMember, session

__all__ = ["ConsoleCase", "Contests", "HoldOff", "Marks", "Waiting"]

EXPECT, KEEP, LOST = MessageKind.EXPECT, MessageKind.KEEP, MessageKind.LOST


class ConsoleCase(StoreCase):
    def assert_busy(self, decision: Decision, reason: BusyReason, by: str = "alice") -> None:
        self.assertEqual((decision.outcome, decision.busy, decision.by), (Outcome.BUSY, reason, by))

    def reach(self, member: TestMember, id: str, user: str, policy: str = "takeover") -> None:
        """Have a session reach for the console."""
        self.assert_outcome(Outcome.ADMITTED, member.admit(session(id, user), policy))


class Contests(ConsoleCase):
    def test_passthrough(self) -> None:
        """Everybody may reach for the console, and nobody is told anything."""
        for member, id in ((self.a, "s1"), (self.b, "s2"), (self.a, "s3")):
            member.open(session(id))
        self.assertFalse(self.b.evict("s2"))
        self.assertEqual((self.a.told(), self.b.told()), ([], []))

    def test_refuse(self) -> None:
        """Whoever has a console keeps it, from when it was reached for to the release."""
        self.reach(self.a, "s1", "alice", "refuse")
        self.assert_busy(self.b.admit(session("s2", "bob"), "refuse"), BusyReason.IN_USE)
        self.assertTrue(self.a.opened("s1").admitted)
        for policy in ("refuse", "refuse"):
            self.assert_busy(self.b.admit(session("s2", "bob"), policy), BusyReason.IN_USE)
        self.a.ending("s1")
        self.assert_busy(self.b.admit(session("s2", "bob"), "refuse"), BusyReason.IN_USE)
        self.a.released("s1")
        self.b.open(session("s2", "bob"), "refuse")
        self.assertEqual((self.a.told(), self.b.told()), ([], []))

    def test_other_consoles(self) -> None:
        """Another VMI is another console."""
        self.a.open(session("s1"), "refuse")
        self.b.open(session("s2", vmi="debian"), "refuse")

    def test_takeover(self) -> None:
        """The newcomer gets the console; who had it expects that meanwhile, and is told then."""
        self.a.open(session("s1"), "takeover")
        self.reach(self.b, "s2", "bob")
        self.assertEqual(self.a.told(), [(EXPECT, "s1")])
        self.assertTrue(self.b.opened("s2").admitted)
        self.a.beat()
        [lost] = [message for message in self.a.messages if message.kind is LOST]
        self.assertEqual((lost.session, lost.by), ("s1", "bob"))
        self.a.released("s1")
        self.assert_busy(self.b.admit(session("s3", "eve"), "refuse"), BusyReason.IN_USE, "bob")

    def test_within_a_member(self) -> None:
        """The answer itself says what another session of the same member has to know."""
        self.a.open(session("s1"), "takeover")
        self.reach(self.a, "s2", "bob")
        self.a.opened("s2")
        found = [(message.kind, message.session, message.by) for message in self.a.messages]
        self.assertEqual(found, [(EXPECT, "s1", "bob"), (LOST, "s1", "bob")])

    def test_failed_takeover(self) -> None:
        """If the newcomer cannot have it, who has it keeps it, and expects nothing any more."""
        for end in (self.b.released, self.b.given_up):
            with self.subTest(end.__name__):
                self.a.open(session("s1"), "takeover")
                self.reach(self.b, "s2", "bob")
                self.a.told()
                end("s2")
                self.assertEqual(self.a.told(), [(KEEP, "s1")])
                self.assertFalse(self.b.opened("s2").admitted)
                self.reach(self.b, "s3", "eve")
                self.a.released("s1")
                self.b.released("s2", "s3")

    def test_one_at_a_time(self) -> None:
        """While one reaches for the console, nobody else can, whether somebody has it or not."""
        self.reach(self.a, "s1", "alice")
        self.assert_busy(self.b.admit(session("s2", "bob"), "takeover"), BusyReason.IN_USE)
        self.a.opened("s1")
        self.reach(self.b, "s2", "bob")
        self.assert_busy(self.a.admit(session("s3", "eve"), "takeover"), BusyReason.BEING_TAKEN, "bob")

    def test_may_not_take_over(self) -> None:
        """A token may be denied to take over; it opens a console that is free."""
        meek = session("s2", "bob", may_take_over=False)
        self.a.open(session("s1"), "takeover")
        self.assert_busy(self.b.admit(meek, "takeover"), BusyReason.IN_USE)
        self.assertEqual(self.a.told(), [])
        self.a.released("s1")
        self.b.open(meek, "takeover")

    def test_not_admitted(self) -> None:
        """Who was not admitted, or was released, cannot have the console."""
        self.assertFalse(self.a.opened("s1").admitted)
        self.reach(self.a, "s1", "alice")
        self.a.released("s1")
        self.assertFalse(self.a.opened("s1").admitted)

    def test_eviction(self) -> None:
        """KubeVirt says that the console is in use: who has it is told, once, and again makes sense."""
        self.a.open(session("s1"), "takeover")
        self.reach(self.b, "s2", "bob")
        self.a.told()
        self.assertTrue(self.b.evict("s2"))
        self.assertEqual(self.a.told(), [(LOST, "s1")])
        self.assertTrue(self.b.evict("s2"))
        self.assertEqual(self.a.told(), [])
        self.a.released("s1")
        self.passes(4.9)
        self.assertTrue(self.b.evict("s2"))
        self.passes(0.2)
        self.assertFalse(self.b.evict("s2"))
        self.assertTrue(self.b.opened("s2").admitted)
        self.assertEqual(self.a.told(), [])

    def test_eviction_of_nobody(self) -> None:
        """If it is nobody of ours, or the console is not to be taken over, nobody is told."""
        self.reach(self.a, "s1", "alice")
        self.assertFalse(self.a.evict("s1"))
        self.assertFalse(self.b.evict("s1"))
        self.reach(self.b, "s2", "bob", "passthrough")
        self.assertFalse(self.b.evict("s2"))
        self.assertEqual(self.a.told(), [])

    def test_just_ended(self) -> None:
        """For five seconds after a session KubeVirt may take it for one that is there."""
        for policy in ("refuse", "takeover"):
            with self.subTest(policy):
                self.a.open(session("s1"), policy)
                self.a.released("s1")
                self.reach(self.b, "s2", "bob", policy)
                self.assertTrue(self.b.evict("s2"))
                self.passes(5.1)
                self.assertFalse(self.b.evict("s2"))
                self.b.released("s2")


class HoldOff(ConsoleCase):
    def setUp(self) -> None:
        """``a`` loses its console to ``b``."""
        super().setUp()
        self.a.open(session("s1"), "takeover")
        self.b.open(session("s2", "bob"), "takeover")
        self.a.released("s1")

    def assert_held_off(self, member: TestMember, by: str = "bob") -> None:
        self.assert_busy(member.admit(session("s3"), "takeover"), BusyReason.HELD_OFF, by)

    def test_loser(self) -> None:
        """Who lost it is refused at every member for 30 s; each attempt begins the time anew."""
        for _ in range(3):
            self.assert_held_off(self.a)
            self.passes(29.5)
            self.assert_held_off(self.b)
            self.passes(29.5)
        self.passes(1)
        self.b.open(session("s3"), "takeover")

    def test_waiting_is_no_attempt(self) -> None:
        """A request that may wait is refused by its last word only."""
        self.passes(20)
        for _ in range(2):
            self.assert_outcome(Outcome.WAIT, self.a.admit(session("s3"), "takeover", may_wait=True))
        self.a.released("s3")
        self.passes(10.5)
        self.a.open(session("s3"), "takeover")

    def test_only_the_loser(self) -> None:
        """Another token, user or network is not held off."""
        for number, other in enumerate(
            (
                session("s4", token_id="another"),
                session("s4", network="198.51.100.8"),
                session("s4", "eve", token_id="token-of-alice"),
            )
        ):
            with self.subTest(number):
                self.assert_outcome(Outcome.ADMITTED, self.a.admit(other, "takeover"))
                self.a.released("s4")

    def test_free(self) -> None:
        """When the winner goes, the loser gets the console at once."""
        self.b.released("s2")
        self.a.open(session("s3"), "takeover")

    def test_only_from_the_winner(self) -> None:
        """Once the winner has gone, the loser is not held off from whoever comes then."""
        self.a.open(session("beside", "eve"), "passthrough")
        self.b.released("s2")
        self.b.open(session("s4", "dave"), "takeover")
        self.a.open(session("s3"), "takeover")

    def test_from_eviction_on(self) -> None:
        """Who is evicted is held off from then on, and who takes over no more."""
        self.passes(31)
        self.reach(self.a, "s3", "alice")
        self.assertTrue(self.a.evict("s3"))
        self.b.released("s2")
        self.a.opened("s3")
        self.assert_busy(self.b.admit(session("s4", "bob"), "takeover"), BusyReason.HELD_OFF)

    def test_dropped_before_the_winner_is_in(self) -> None:
        """KubeVirt may drop who had the console before the newcomer's dial is done: still it is the loser."""
        self.passes(31)
        self.reach(self.a, "s3", "alice")
        self.b.released("s2")
        self.a.opened("s3")
        self.assert_busy(self.b.admit(session("s4", "bob"), "takeover"), BusyReason.HELD_OFF)

    def test_own_second_tab(self) -> None:
        """The same client takes over from itself, and the first tab does not steal it back."""
        self.passes(31)
        self.reach(self.b, "s4", "bob")
        self.b.opened("s4")
        self.assert_busy(self.a.admit(session("s5", "bob"), "takeover"), BusyReason.HELD_OFF, "bob")

    def test_crowd(self) -> None:
        """Many losers of one console take no more and more room: the oldest are let in."""
        for number in range(100):
            self.a.open(session(f"t{number}", f"user-{number}"), "takeover")
        self.assert_outcome(Outcome.ADMITTED, self.a.admit(session("s3"), "takeover"))
        self.a.released("s3")
        decision = self.a.admit(session("s4", "user-90"), "takeover")
        self.assert_busy(decision, BusyReason.HELD_OFF, "user-99")


class Waiting(ConsoleCase):
    def test_ending(self) -> None:
        """Whoever wants the console waits while it is about to be free, and keeps their slot meanwhile."""
        for policy in ("refuse", "takeover"):
            with self.subTest(policy):
                self.a.open(session("s1"), policy)
                self.a.ending("s1")
                decision = self.b.admit(session("s2", "bob"), policy, may_wait=True)
                self.assertEqual((decision.outcome, decision.ending), (Outcome.WAIT, True))
                self.assertEqual((decision.busy, decision.in_way), (BusyReason.IN_USE, ()))
                self.assertEqual([id for id, _, _ in self.b.held()], ["s2"])
                self.assertEqual((self.a.told(), self.b.told()), ([], []))
                self.a.released("s1")
                self.assertEqual(self.b.told(), [(MessageKind.FREE, "s2")])
                self.b.open(session("s2", "bob"), policy)
                self.b.released("s2")

    def test_opening(self) -> None:
        """One that only reached for it is waited for, too; if it is given up, the console is free."""
        self.reach(self.a, "s1", "alice", "refuse")
        self.a.ending("s1")
        decision = self.b.admit(session("s2", "bob"), "refuse", may_wait=True)
        self.assertEqual((decision.outcome, decision.ending), (Outcome.WAIT, True))
        self.a.given_up("s1")
        self.assertEqual(self.b.told(), [(MessageKind.FREE, "s2")])
        self.b.open(session("s2", "bob"), "refuse")

    def test_last_word(self) -> None:
        """At its deadline the session that is ending counts as one that has the console."""
        self.a.open(session("s1"), "refuse")
        self.a.ending("s1")
        self.assert_outcome(Outcome.WAIT, self.b.admit(session("s2", "bob"), "refuse", may_wait=True))
        self.assert_busy(self.b.admit(session("s2", "bob"), "refuse"), BusyReason.IN_USE)
        self.assertEqual(self.b.held(), [])
        self.assertEqual(self.b.told(), [])

    def test_looking(self) -> None:
        """Whoever is in the way is looked at first: its client may have left unnoticed."""
        self.a.open(session("s1"), "refuse")
        decision = self.b.admit(session("s2", "bob"), "refuse", may_wait=True)
        self.assertEqual((decision.outcome, decision.ending, decision.by), (Outcome.WAIT, False, "alice"))
        self.assertEqual(decision.in_way, (SessionRef(self.a.id, "s1"),))
        self.assertEqual(self.a.told(), [(MessageKind.LOOK, "s1")])
        self.a.ending("s1")
        self.assertEqual(self.b.told(), [(MessageKind.FREE, "s2")])

    def test_takeover_needs_no_look_elsewhere(self) -> None:
        """Another member's client loses the console at once; its own ones a member looks at first."""
        self.a.open(session("s1"), "takeover")
        own = self.a.admit(session("s2", "bob"), "takeover", may_wait=True)
        self.assertEqual((own.outcome, own.in_way), (Outcome.WAIT, (SessionRef(self.a.id, "s1"),)))
        self.a.released("s2")
        self.assert_outcome(Outcome.ADMITTED, self.b.admit(session("s3", "bob"), "takeover", may_wait=True))

    def test_two(self) -> None:
        """All who wait are told, and one of them gets it."""
        self.a.open(session("s1"), "refuse")
        self.a.ending("s1")
        for member, id in ((self.a, "s2"), (self.b, "s3")):
            self.assert_outcome(Outcome.WAIT, member.admit(session(id, id), "refuse", may_wait=True))
        self.a.released("s1")
        self.assertEqual(self.a.told(), [(MessageKind.FREE, "s2")])
        self.assertEqual(self.b.told(), [(MessageKind.FREE, "s3")])
        self.reach(self.b, "s3", "s3", "refuse")
        self.assert_busy(self.a.admit(session("s2", "s2"), "refuse"), BusyReason.IN_USE, "s3")

    def test_waits_no_more(self) -> None:
        """Who waits and is given up is told nothing, and has no slot."""
        self.a.open(session("s1"), "refuse")
        self.a.ending("s1")
        self.b.admit(session("s2", "bob"), "refuse", may_wait=True)
        self.b.released("s2")
        self.a.released("s1")
        self.assertEqual((self.b.told(), self.b.held()), ([], []))

    def test_dead_member(self) -> None:
        """When a member's lease has passed, those who wait for its session are told."""
        self.a.open(session("s1"), "refuse")
        self.a.ending("s1")
        self.b.admit(session("s2", "bob"), "refuse", may_wait=True)
        self.dies(self.a)
        self.passes(15.5)
        self.assertIn((MessageKind.FREE, "s2"), self.b.told())
        self.b.open(session("s2", "bob"), "refuse")


class Marks(ConsoleCase):
    """What is left of openings that were given up."""

    def mark(self, member: TestMember, id: str, user: str) -> None:
        member.report_all(Event(EventKind.MARK, id, session(id).console, user))

    def unmark(self, member: TestMember, id: str) -> None:
        member.report(EventKind.UNMARK, id)

    def test_holder(self) -> None:
        """Who has the console expects to lose it to that one, until the mark goes."""
        self.a.open(session("s1"), "takeover")
        self.mark(self.b, "s2", "bob")
        self.a.beat()
        self.assertEqual([(one.kind, one.by) for one in self.a.messages], [(EXPECT, "bob")])
        self.a.told()
        for _ in range(2):
            self.unmark(self.b, "s2")
        self.assertEqual(self.a.told(), [(KEEP, "s1")])

    def test_newcomer(self) -> None:
        """It keeps nobody from the console; whoever gets it is told, and KubeVirt may be mistaken."""
        self.mark(self.b, "s2", "bob")
        self.reach(self.a, "s1", "alice", "refuse")
        self.assertTrue(self.a.evict("s1"))
        self.a.opened("s1")
        self.assertEqual(self.a.told(), [(EXPECT, "s1")])
        self.unmark(self.b, "s2")
        self.assertEqual(self.a.told(), [(KEEP, "s1")])

    def test_challenger_comes_first(self) -> None:
        """While somebody takes the console over, that is the one who is expected."""
        self.a.open(session("s1"), "takeover")
        self.mark(self.a, "s2", "bob")
        self.reach(self.b, "s3", "eve")
        self.assertEqual(self.a.messages[-1].by, "bob")
        self.a.beat()
        self.assertEqual(self.a.messages[-1].by, "eve")
        self.b.released("s3")
        self.a.beat()
        self.assertEqual(self.a.messages[-1].by, "bob")

    def test_many(self) -> None:
        """Of one console's marks the oldest go."""
        for number in range(17):
            self.mark(self.b, f"m{number}", f"user-{number}")
        self.a.open(session("s1"), "refuse")
        for number in range(1, 17):
            self.assertNotIn((KEEP, "s1"), self.a.told())
            self.unmark(self.b, f"m{number}")
        self.assertEqual(self.a.told(), [(KEEP, "s1")])

    def test_dead_member(self) -> None:
        """A mark goes with its member."""
        self.a.open(session("s1"), "refuse")
        self.mark(self.b, "s2", "bob")
        self.a.told()
        self.store.leave(self.b.id)
        self.assertEqual(self.a.told(), [(KEEP, "s1")])
