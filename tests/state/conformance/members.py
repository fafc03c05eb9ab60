"""Members, their leases, what they publish, and what becomes of a store that lost its data."""

from __future__ import annotations

from wsproxy.state.console_policies import Policy
from wsproxy.state.membership import Beat, Publication
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.values import BusyReason, Held, MessageKind, Outcome, SlotLimits, Stage

from .case import LEASE, StoreCase, TestMember, session
from .tickets import ticket

__all__ = ["Epochs", "Leases", "Publications"]

ONE = SlotLimits(sessions=1)


def open_session(id: str, user: str = "alice", policy: str = "passthrough", *, ending: bool = False) -> Held:
    """Return what a member publishes of an open session."""
    return Held(session(id, user), Stage.OPEN, Policy(policy), ending)


class Leases(StoreCase):
    def test_beats_renew(self) -> None:
        """A member that beats holds what it has for as long as it likes."""
        self.a.open(session("s1"))
        self.passes(10 * LEASE)
        self.assert_full(self.b.admit(session("s2", "bob", "other"), limits=ONE), "sessions")

    def test_dead(self) -> None:
        """What is not heard from for a lease holds nothing: no slot, no console."""
        self.a.open(session("s1"), "refuse", ONE)
        self.dies(self.a)
        self.passes(LEASE - 0.5)
        self.assert_full(self.b.admit(session("s2", "bob"), "refuse", ONE), "sessions")
        self.passes(0.5)
        self.b.open(session("s2", "bob"), "refuse", ONE)
        self.assertEqual(self.store.members(), (self.b.member,))

    def test_only_beats_renew(self) -> None:
        """Requests alone renew no lease."""
        self.dies(self.a)
        for number in range(int(LEASE) + 1):
            self.a.admit(session(f"s{number}", number, str(number)))
            self.passes(1)
        self.assertNotIn(self.a.member, self.store.members())
        self.assert_outcome(Outcome.UNSETTLED, self.a.admit(session("t")))

    def test_own_lease(self) -> None:
        """Each member has its own lease."""
        short = self.join("short", 0.6)
        self.dies(short)
        self.passes(0.5)
        self.assertIn(short.member, self.store.members())
        self.passes(0.5)
        self.assertNotIn(short.member, self.store.members())

    def test_leaving(self) -> None:
        """One that leaves holds nothing at once, and may leave twice."""
        self.a.open(session("s1"), "refuse", ONE)
        for _ in range(2):
            self.store.leave(self.a.id)
        self.b.open(session("s2", "bob"), "refuse", ONE)
        self.assertFalse(self.a.beat().known)

    def test_strangers(self) -> None:
        """Who has not published is not known, gets nothing, and changes nothing."""
        stranger = TestMember(self.harness, "stranger")
        self.assertFalse(stranger.beat().known)
        self.assert_outcome(Outcome.UNSETTLED, stranger.admit(session("s1")))
        self.assertFalse(stranger.opened("s1").admitted)
        self.assertFalse(stranger.evict("s1"))
        stranger.released("s1")
        self.store.leave(stranger.id)
        self.assertEqual(self.store.sessions(stranger.id).sessions, ())
        self.assertEqual(self.store.members(), (self.a.member, self.b.member))

    def test_pulse(self) -> None:
        """A pulse says what the store has of its member, and who there is if that has changed."""
        self.a.open(session("s1"))
        self.a.admit(session("s2", vmi="other"))
        pulse = self.a.beat()
        self.assertEqual((pulse.known, pulse.settled, pulse.held), (True, True, 2))
        self.assertEqual(set(pulse.members or ()), {self.a.id, self.b.id})
        self.assertIsNone(self.a.beat(roster=pulse.roster).members)
        self.store.leave(self.b.id)
        self.assertEqual(self.a.beat(roster=pulse.roster).members, (self.a.id,))


class Publications(StoreCase):
    def test_back_after_a_cut(self) -> None:
        """Its sessions count again, above the limit too; nobody is admitted until there is room."""
        self.a.open(session("s1"), limits=ONE)
        self.dies(self.a)
        self.passes(LEASE)
        self.b.open(session("s2", "bob", "other"), limits=ONE)
        self.assertFalse(self.a.beat().known)
        self.assert_outcome(Outcome.UNSETTLED, self.a.admit(session("s3")))
        pulse = self.a.publish(open_session("s1"))
        self.assertEqual((pulse.known, pulse.held), (True, 1))
        self.assert_full(self.a.admit(session("s3", "eve", "third"), limits=ONE), "sessions")
        self.b.released("s2")
        self.assert_full(self.a.admit(session("s3", "eve", "third"), limits=ONE), "sessions")
        self.a.released("s1")
        self.a.open(session("s3", "eve", "third"), limits=ONE)

    def test_parts(self) -> None:
        """The member is known after the last part; what it held before counts until then."""
        self.a.open(session("s1"), limits=ONE)
        self.assertFalse(self.a.publish(part=0, last=False).known)
        self.assert_full(self.b.admit(session("s9", "bob", "other"), limits=ONE), "sessions")
        self.assert_outcome(Outcome.UNSETTLED, self.a.admit(session("s8")))
        self.assertFalse(self.a.publish(open_session("s2"), part=1, last=False).known)
        pulse = self.a.publish(open_session("s3", "bob"), part=2)
        self.assertEqual((pulse.known, pulse.held), (True, 2))
        self.assertEqual([id for id, _, _ in self.a.held()], ["s2", "s3"])

    def test_not_named_again(self) -> None:
        """What a member does not name again it does not hold any more."""
        self.a.open(session("s1"), "refuse", ONE)
        self.a.publish()
        self.b.open(session("s2", "bob"), "refuse", ONE)

    def test_named_again(self) -> None:
        """What a member names again, and the store has, counts once and keeps its console."""
        self.a.open(session("s1"), "refuse")
        self.a.publish(open_session("s1", policy="refuse"))
        decision = self.b.admit(session("s2", "bob"), "refuse")
        self.assertIs(decision.busy, BusyReason.IN_USE)
        self.assert_full(self.b.admit(session("s2", "bob"), limits=SlotLimits(vmi=1)), "vmi")
        self.a.released("s1")
        self.b.open(session("s2", "bob"), "refuse", ONE)

    def test_consoles(self) -> None:
        """An open session has its console again, and one that dials its turn."""
        for stage in (Stage.OPEN, Stage.DIALLING):
            with self.subTest(stage):
                self.store.leave(self.a.id)
                self.a.publish(Held(session("s1"), stage, Policy.REFUSE))
                self.assertIs(self.b.admit(session("s2", "bob"), "refuse").busy, BusyReason.IN_USE)
                self.assertTrue(self.a.opened("s1").admitted)
                self.assertIs(self.b.admit(session("s2", "bob"), "refuse").busy, BusyReason.IN_USE)

    def test_answer_was_lost(self) -> None:
        """A member that had no answer publishes what it knows: the console is opened, or given up."""
        self.a.admit(session("s1"), "refuse")
        self.a.publish(open_session("s1", policy="refuse"))
        self.assertEqual(self.b.admit(session("s2", "bob"), "refuse").by, "alice")
        self.a.publish(open_session("s1", ending=True))
        self.b.open(session("s2", "bob"), "refuse")

    def test_last_of_a_member(self) -> None:
        """Of several sessions with one console the last one of a member has it."""
        for _ in range(2):
            self.a.publish(*(open_session(id, id, "takeover") for id in ("s1", "s2")))
            self.assertEqual(self.b.admit(session("s3", "bob"), "refuse").by, "s2")
            self.store.leave(self.a.id)

    def test_holder_comes_later(self) -> None:
        """If the one who has the console is published while another reaches for it, it is taken over."""
        for evicted in (False, True):
            with self.subTest(evicted=evicted):
                self.store.leave(self.a.id)
                self.assert_outcome(Outcome.ADMITTED, self.b.admit(session("s2", "bob"), "takeover"))
                self.a.publish(open_session("s1", policy="takeover"))
                self.assertEqual(self.a.told(), [(MessageKind.EXPECT, "s1")])
                if evicted:
                    self.assertTrue(self.b.evict("s2"))
                self.assertTrue(self.b.opened("s2").admitted)
                self.assertEqual(self.a.told(), [(MessageKind.LOST, "s1")])
                self.b.released("s2")

    def test_holder_comes_later_where_nobody_takes_over(self) -> None:
        """If KubeVirt opens the console all the same, the one who had it has lost it."""
        self.assert_outcome(Outcome.ADMITTED, self.b.admit(session("s2", "bob"), "refuse"))
        self.a.publish(open_session("s1", policy="refuse"))
        self.assertEqual(self.a.told(), [])
        self.assertTrue(self.b.opened("s2").admitted)
        self.assertEqual(self.a.told(), [(MessageKind.LOST, "s1")])
        self.a.released("s1")
        self.assertEqual(self.a.admit(session("s3", "eve"), "refuse").by, "bob")

    def test_console_of_another_by_now(self) -> None:
        """If another has the console by now, it keeps it; the session that comes back stays as well."""
        self.a.open(session("s1"), "takeover")
        self.dies(self.a)
        self.passes(LEASE)
        self.b.open(session("s2", "bob"), "takeover")
        self.a.publish(open_session("s1", policy="takeover"))
        self.assertEqual(self.a.held(), [("s1", Stage.OPEN, False)])
        self.assertEqual(self.a.told(), [])
        self.assertEqual(self.b.admit(session("s3", "eve"), "refuse").by, "bob")
        self.a.released("s1")
        self.assertEqual(self.b.admit(session("s3", "eve"), "refuse").by, "bob")

    def test_dial_that_lost_its_turn(self) -> None:
        """One that dials may have lost its turn to another: then it does not get the console."""
        self.a.admit(session("s1"), "refuse")
        self.dies(self.a)
        self.passes(LEASE)
        self.b.open(session("s2", "bob"), "refuse")
        self.assertFalse(self.a.opened("s1").admitted)
        self.a.publish(Held(session("s1"), Stage.DIALLING, Policy.REFUSE))
        self.assertFalse(self.a.opened("s1").admitted)

    def test_ending(self) -> None:
        """A session that is published as ending is waited for."""
        self.a.publish(open_session("s1", policy="refuse", ending=True))
        decision = self.b.admit(session("s2", "bob"), "refuse", may_wait=True)
        self.assertEqual((decision.outcome, decision.ending), (Outcome.WAIT, True))

    def test_dies_while_publishing(self) -> None:
        """What was published in part is void with the lease."""
        self.store.leave(self.a.id)
        self.a.publish(open_session("s1"), last=False)
        self.dies(self.a)
        self.passes(LEASE)
        self.b.open(session("s2", "bob"), limits=ONE)


class Epochs(StoreCase):
    """The store starts again, with its data or without."""

    def restart(self, data: bool) -> None:
        self.harness.restart(data=data)

    def test_until_all_have_published(self) -> None:
        """Nobody is admitted until all that were known have published; then the limits hold."""
        for data in (True, False):
            with self.subTest(data=data):
                self.a.open(session("s1"), limits=ONE)
                roster, epoch = (self.a.id, self.b.id), self.a.epoch
                self.restart(data)
                for member in (self.a, self.b):
                    pulse = member.beat()
                    self.assertEqual((pulse.known, pulse.settled), (False, False))
                    self.assertNotEqual(pulse.epoch, epoch)
                self.b.publish(knew=roster)
                self.passes(2)
                self.assert_outcome(Outcome.UNSETTLED, self.b.admit(session("s2"), limits=ONE))
                self.a.publish(open_session("s1"), knew=roster)
                self.passes(2)
                self.assertTrue(self.a.beat().settled)
                self.assert_full(self.b.admit(session("s2", "bob", "other"), limits=ONE), "sessions")
                self.a.released("s1")

    def test_not_at_once(self) -> None:
        """For a second it is unsettled in any case: an old copy does not name those who came later."""
        for data in (True, False):
            with self.subTest(data=data):
                self.restart(data)
                for member in (self.a, self.b):
                    self.assertFalse(member.publish(knew=(self.a.id, self.b.id)).settled)
                self.passes(0.5)
                self.assert_outcome(Outcome.UNSETTLED, self.b.admit(session("s2")))
                self.passes(1)
                self.b.open(session("s2"))
                self.b.released("s2")

    def test_dead_member_is_awaited_for_a_lease(self) -> None:
        """A member that does not come is awaited for one lease."""
        for data in (True, False):
            with self.subTest(data=data):
                self.restart(data)
                self.b.publish(knew=(self.a.id, self.b.id))
                if self.a in self.alive:
                    self.dies(self.a)
                self.passes(LEASE - 1)
                self.assert_outcome(Outcome.UNSETTLED, self.b.admit(session("s2")))
                self.passes(1)
                self.b.open(session("s2"))
                self.b.released("s2")

    def test_lease_from_the_restart_on(self) -> None:
        """A member that was not heard from for a while before the restart has a whole lease from then on."""
        for data in (True, False):
            with self.subTest(data=data):
                silent = self.join(f"silent-{data}")
                self.dies(silent)
                self.passes(LEASE - 1)
                self.restart(data)
                for member in self.alive:
                    member.publish(knew=(self.a.id, self.b.id, silent.id))
                self.passes(LEASE - 1)
                self.assert_outcome(Outcome.UNSETTLED, self.b.admit(session("s2")))
                self.passes(1)
                self.b.open(session("s2"))
                self.b.released("s2")

    def test_nobody_says_who_there_was(self) -> None:
        """A store without data admits nobody for a lease if its first members have just begun."""
        self.restart(False)
        self.store.leave(self.a.id)
        self.store.leave(self.b.id)
        self.alive.clear()
        new = self.join("new")
        self.passes(LEASE - 1)
        if self.store.members() != (new.member,):
            self.skipTest("this store keeps its data")
        self.assert_outcome(Outcome.UNSETTLED, new.admit(session("s1")))
        self.passes(1)
        new.open(session("s1"))

    def test_dial_across_the_restart(self) -> None:
        """A dial that was admitted before is not let in unless its member has published it."""
        self.a.admit(session("s1"), "refuse")
        self.restart(False)
        self.assertFalse(self.a.opened("s1").admitted)
        self.a.publish(Held(session("s1"), Stage.DIALLING, Policy.REFUSE), knew=(self.a.id,))
        self.assertTrue(self.a.opened("s1").admitted)

    def test_tickets(self) -> None:
        """Tickets of an earlier epoch are void."""
        for data in (True, False):
            with self.subTest(data=data):
                self.store.issue("11", ticket())
                self.restart(data)
                self.assertIsNone(self.store.redeem("11"))

    def test_rules(self) -> None:
        """The revocation rules that a member publishes hold again, and all members are behind."""
        for data in (True, False):
            with self.subTest(data=data):
                rule = Rule(f"r{data}", f"k{data}", 1.7e9, 1.8e9, Match(user="alice"))
                version = self.store.revoke((rule,)).version
                self.a.beat(applied=version)
                self.restart(data)
                self.a.publish(rules=(rule,))
                self.assertIn(self.a.member, self.store.behind(self.store.rules(0).version))
                page = self.store.rules(0)
                self.assertIn(rule, page.rules)
                self.a.beat(applied=0)
                self.assertIn(self.a.member, self.store.behind(page.version))

    def test_acknowledged_before(self) -> None:
        """What a member acknowledges of an earlier epoch does not count."""
        self.restart(False)
        self.store.publish(Publication(self.a.member))
        version = self.store.revoke((Rule("r", "k", 1.7e9, 1.8e9, Match(user="alice")),)).version
        self.store.beat(self.a.id, Beat(99, self.a.epoch, applied=version))
        self.assertIn(self.a.member, self.store.behind(version))
