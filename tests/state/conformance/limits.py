"""How many sessions there may be, in all members together."""

from __future__ import annotations

from collections.abc import Callable

from wsproxy.state.values import (
    NO_LIMITS,
    Event,
    EventKind,
    MessageKind,
    Outcome,
    SessionRef,
    SharedSession,
    SlotLimits,
    Stage,
)

from .case import StoreCase, at_once, session

__all__ = ["Inheritance", "Limits"]


class Limits(StoreCase):
    def test_each_limit(self) -> None:
        """Whoever reaches a limit is refused, wherever the others are; one that is released makes room."""
        cases: tuple[tuple[SlotLimits, str, Callable[[int], SharedSession]], ...] = (
            (SlotLimits(sessions=2), "sessions", lambda n: session(f"s{n}", n, f"vm{n}")),
            (SlotLimits(user=2), "user", lambda n: session(f"s{n}", "alice", f"vm{n}")),
            (SlotLimits(vmi=2), "vmi", lambda n: session(f"s{n}", n)),
        )
        for limits, name, nth in cases:
            with self.subTest(name):
                self.a.open(nth(1), limits=limits)
                self.assert_outcome(Outcome.ADMITTED, self.b.admit(nth(2), limits=limits))
                self.assert_full(self.a.admit(nth(3), limits=limits), name)
                self.assert_full(self.b.admit(nth(3), limits=limits, may_wait=name == "sessions"), name)
                self.b.released("s2")
                self.b.open(nth(3), limits=limits)
                self.a.released("s1", "s3")
                self.b.released("s3")

    def test_others(self) -> None:
        """Another user, another VMI and another subresource count apart; the users 5 and "5" are two."""
        limits = SlotLimits(user=1, vmi=1)
        self.a.open(session("s1", "5", "one"), limits=limits)
        self.a.open(session("s2", 5, "two"), limits=limits)
        other = session("s3", "bob", "one")
        self.a.open(other._replace(console=other.console._replace(subresource="console")), limits=limits)
        other = session("s4", "eve", "one")
        self.a.open(other._replace(console=other.console._replace(namespace="lab-2")), limits=limits)

    def test_first_limit(self) -> None:
        """Of several limits that are reached the first is named: in all, of the user, of the console."""
        self.a.open(session("s1"))
        for limits, name in (
            (SlotLimits(1, 1, 1), "sessions"),
            (SlotLimits(2, 1, 1), "user"),
            (SlotLimits(2, 2, 1), "vmi"),
        ):
            self.assert_full(self.b.admit(session("s2"), limits=limits), name)

    def test_own_numbers(self) -> None:
        """Each member enforces its own numbers on the common count."""
        self.a.open(session("s1"))
        self.assert_full(self.a.admit(session("s2"), limits=SlotLimits(user=1)), "user")
        self.b.open(session("s2"), limits=SlotLimits(user=2))
        self.a.open(session("s3"), limits=NO_LIMITS)
        self.assert_full(self.b.admit(session("s4"), limits=SlotLimits(user=3)), "user")

    def test_same_names(self) -> None:
        """Sessions of two members may have the same id."""
        self.a.open(session("s1"))
        self.b.open(session("s1"))
        self.a.released("s1")
        self.assert_full(self.a.admit(session("s2"), limits=SlotLimits(user=1)), "user")

    def test_refused_counts_nothing(self) -> None:
        """Who is refused has nothing: neither slots nor the console."""
        limits = SlotLimits(user=1)
        self.a.open(session("s1"), "refuse", limits)
        self.b.admit(session("s2"), "refuse", limits)
        self.b.admit(session("s3", "bob"), "refuse", limits)
        self.assertEqual(self.b.held(), [])
        self.a.released("s1")
        self.b.open(session("s4"), "refuse", limits)
        self.b.open(session("s5", "bob", "other"), "refuse", limits)

    def test_repeated(self) -> None:
        """What is said twice counts once: a member that had no answer says it again."""
        limits = SlotLimits(user=2)
        for _ in range(2):
            self.assert_outcome(Outcome.ADMITTED, self.a.admit(session("s1"), "refuse", limits))
        for _ in range(2):
            self.assertTrue(self.a.opened("s1").admitted)
        self.assert_outcome(Outcome.ADMITTED, self.a.admit(session("s2", vmi="two"), "refuse", limits))
        for _ in range(2):
            self.a.ending("s1")
        for _ in range(2):
            self.a.released("s1")
        self.assertEqual(self.a.held(), [("s2", Stage.DIALLING, False)])
        self.a.open(session("s3"), "refuse", limits)
        self.assert_full(self.a.admit(session("s4"), "refuse", limits), "user")

    def test_events_come_first(self) -> None:
        """What a member has to report counts before its request."""
        limits = SlotLimits(sessions=1)
        self.a.open(session("s1"), limits=limits)
        events = (Event(EventKind.RELEASED, "s1"),)
        decision = self.a.admit(session("s2", "bob"), limits=limits, events=events)
        self.assert_outcome(Outcome.ADMITTED, decision)

    def test_race(self) -> None:
        """Of many threads that ask at once as many are admitted as the limit says."""
        admitted: list[str] = []

        def ask(number: int) -> None:
            member = (self.a, self.b)[number % 2]
            for attempt in range(50):
                id = f"s{number}-{attempt}"
                decision = member.admit(session(id, id, id), limits=SlotLimits(sessions=101))
                if decision.outcome is Outcome.ADMITTED:
                    admitted.append(id)

        at_once(ask)
        self.assertEqual(len(admitted), 101)


class Inheritance(StoreCase):
    """Who inherits whose slot. All limits are one."""

    limits = SlotLimits(1, 1, 1)

    def test_ending_counts(self) -> None:
        """A session that is ending counts until it is released, for everybody else."""
        self.a.open(session("s1"), limits=self.limits)
        self.a.ending("s1")
        for wanted, limit in ((session("s2", "bob", "other"), "sessions"), (session("s2", "bob"), "vmi")):
            limits = self.limits if limit == "sessions" else SlotLimits(vmi=1)
            self.assert_full(self.b.admit(wanted, limits=limits), limit)
        self.assert_full(self.b.admit(session("s2", "alice", "other"), limits=SlotLimits(user=1)), "user")

    def test_page_loaded_anew(self) -> None:
        """The same user with the same console inherits the slot, in whatever member; then nobody else can."""
        self.a.open(session("s1"), limits=self.limits)
        self.assert_full(self.b.admit(session("s2"), limits=self.limits), "sessions")
        self.a.ending("s1")
        self.b.open(session("s2"), limits=self.limits)
        self.assert_full(self.b.admit(session("s3"), limits=self.limits), "sessions")
        self.a.released("s1")
        self.assert_full(self.b.admit(session("s3"), limits=self.limits), "sessions")
        self.b.released("s2")
        self.a.open(session("s3", "bob"), limits=self.limits)

    def test_slot_is_inherited_though_there_are_others(self) -> None:
        """The newcomer inherits it also where it need not, so a further session still finds room."""
        limits = SlotLimits(user=2)
        self.a.open(session("s1"), limits=limits)
        self.a.ending("s1")
        self.a.open(session("s2"), limits=limits)
        self.a.open(session("s3", vmi="other"), limits=limits)
        self.assert_full(self.a.admit(session("s4", vmi="third"), limits=limits), "user")

    def test_as_many_as_the_limit(self) -> None:
        """For each limit at most as many sessions as it says may have given their slots away."""
        for limits, name, most in (
            (SlotLimits(sessions=2), "sessions", 3),  # those that gave it away count for who inherits none
            (SlotLimits(user=2), "user", 4),
            (SlotLimits(vmi=2), "vmi", 4),
        ):
            with self.subTest(name):
                for number in range(most):
                    self.a.open(session(f"s{number}"), limits=limits)
                    self.a.ending(f"s{number}")
                self.assert_full(self.a.admit(session("s9"), limits=limits), name)
                self.a.released("s0")
                self.a.open(session("s9"), limits=limits)
                self.a.released("s1", "s2", "s3", "s9")  # not all of these were there

    def test_waits_for_own_session(self) -> None:
        """If the user's session is still there, its member looks whether the client has left."""
        self.a.open(session("s1"), limits=self.limits)
        self.a.told()
        decision = self.b.admit(session("s2"), limits=self.limits, may_wait=True)
        self.assertEqual((decision.outcome, decision.limit), (Outcome.WAIT, "sessions"))
        self.assertEqual((decision.ending, decision.in_way), (False, (SessionRef(self.a.id, "s1"),)))
        self.assertEqual(self.b.held(), [])
        self.assertEqual(self.a.told(), [(MessageKind.LOOK, "s1")])
        self.assertEqual(self.b.told(), [])
        self.a.ending("s1")
        self.assertEqual(self.b.told(), [(MessageKind.FREE, "s2")])
        self.b.open(session("s2"), limits=self.limits)

    def test_looks_itself(self) -> None:
        """A member is not told to look at its own sessions: the decision says which."""
        self.a.open(session("s1"), limits=self.limits)
        decision = self.a.admit(session("s2"), limits=self.limits, may_wait=True)
        self.assertEqual(decision.in_way, (SessionRef(self.a.id, "s1"),))
        self.assertEqual(self.a.told(), [])

    def test_waits_for_an_end(self) -> None:
        """If one of those that count for the user or the console is ending, its end is waited for."""
        for limits, wanted in (
            (SlotLimits(user=1), session("s2", vmi="other")),
            (SlotLimits(vmi=1), session("s2", "bob")),
        ):
            with self.subTest(limits=limits):
                self.a.open(session("s1"), limits=limits)
                self.assert_outcome(Outcome.FULL, self.b.admit(wanted, limits=limits, may_wait=True))
                self.a.ending("s1")
                decision = self.b.admit(wanted, limits=limits, may_wait=True)
                self.assertEqual((decision.outcome, decision.ending), (Outcome.WAIT, True))
                self.b.told()
                self.a.released("s1")
                self.assertEqual(self.b.told(), [(MessageKind.FREE, "s2")])
                self.b.open(wanted, limits=limits)
                self.b.released("s2")

    def test_no_wait_for_a_slot_that_is_given(self) -> None:
        """The end of a session whose slot another has makes no room, so nobody waits for it."""
        limits = SlotLimits(user=1)
        self.a.open(session("s1"), limits=limits)
        self.a.ending("s1")
        self.a.open(session("s2"), limits=limits)
        elsewhere = session("s3", vmi="other")
        self.assert_full(self.b.admit(elsewhere, limits=limits, may_wait=True), "user")
        self.a.released("s1")
        self.assert_full(self.b.admit(elsewhere, limits=limits, may_wait=True), "user")

    def test_takeover_inherits_the_console(self) -> None:
        """Who takes a console over needs no further place there, again and again."""
        limits = SlotLimits(vmi=1)
        self.a.open(session("s1"), "takeover", limits)
        self.b.open(session("s2", "bob"), "takeover", limits)
        self.a.released("s1")
        self.a.open(session("s3", "eve"), "takeover", limits)

    def test_takeover_needs_the_rest(self) -> None:
        """The slots of its user, and in all, it needs; those it shares if it is the same user."""
        for limits, name in ((SlotLimits(sessions=1), "sessions"), (SlotLimits(user=1), "user")):
            with self.subTest(name):
                self.a.open(session("s1"), "takeover", limits)
                if name == "user":
                    self.a.open(session("s2", "bob", "other"), "takeover", limits)
                newcomer = session("s3", "bob")
                self.assert_full(self.b.admit(newcomer, "takeover", limits), name)
                self.b.open(session("s4", token_id="another"), "takeover", limits)
                self.a.released("s1", "s2")
                self.b.released("s4")

    def test_takeovers_leave_no_crowd(self) -> None:
        """The losers that are still there are as many as the limit at most."""
        limits = SlotLimits(vmi=2)
        for number in range(3):
            self.a.open(session(f"s{number}", number), "takeover", limits)
        self.a.open(session("s3", 3), "takeover", limits)
        self.assert_full(self.a.admit(session("s4", 4), "takeover", limits), "vmi")
        self.a.released("s0")
        self.a.open(session("s4", 4), "takeover", limits)

    def test_takeover_that_fails(self) -> None:
        """If it comes to nothing, the one before has its slot as ever."""
        limits = SlotLimits(vmi=1)
        self.a.open(session("s1"), "takeover", limits)
        self.assert_outcome(Outcome.ADMITTED, self.b.admit(session("s2", "bob"), "takeover", limits))
        self.b.released("s2")
        self.assert_full(self.b.admit(session("s3", "bob"), "passthrough", limits), "vmi")
        self.a.released("s1")
        self.b.open(session("s3", "bob"), "passthrough", limits)

    def test_all_sessions_still_cost(self) -> None:
        """For everybody else, a session that gave its slot away is one of all sessions until its release."""
        limits = SlotLimits(sessions=2, user=1, vmi=1)
        self.a.open(session("s1"), limits=limits)
        self.a.ending("s1")
        self.b.open(session("s2"), limits=limits)
        self.assert_full(self.b.admit(session("s3", "bob", "two"), limits=limits), "sessions")
        self.a.released("s1")
        self.assert_outcome(Outcome.ADMITTED, self.b.admit(session("s3", "bob", "two"), limits=limits))

    def test_opening_given_up(self) -> None:
        """It leaves its slot to anybody; for each limit as many may do so as may count."""
        for limits in (SlotLimits(sessions=1), SlotLimits(user=1), SlotLimits(vmi=1)):
            with self.subTest(limits):
                self.assert_outcome(Outcome.ADMITTED, self.a.admit(session("s1"), limits=limits))
                self.a.given_up("s1")
                self.assert_outcome(Outcome.ADMITTED, self.b.admit(session("s2"), limits=limits))
                self.b.given_up("s2")
                last = self.a.admit(session("s3"), limits=limits, may_wait=False)
                self.assert_outcome(Outcome.FULL, last)
                self.b.released("s2")
                self.a.open(session("s3"), limits=limits)
                self.a.released("s1", "s3")
