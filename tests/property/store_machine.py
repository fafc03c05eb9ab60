"""Several members, crashes, cuts, restarts and leaps of time: a store against a model that counts anew.

The model is slow and simple: it knows what each member has told the store, and adds up. What the store
decides must be what the model allows, in both directions.
"""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.state.conformance.case import LEASE, Harness, TestMember, session
from tests.state.conformance.tickets import ticket
from wsproxy.state.console_policies import Policy
from wsproxy.state.revocations import Match, Rule, Subject
from wsproxy.state.values import EventKind, Held, MessageKind, Outcome, Stage

from .store_model import LIMITS, Counts, Known, Process

__all__ = ["StoreMachine"]

_UNTIL = 1.7e9 + 1e6
_TURN = 10.0

_MEMBERS = st.integers(0, 2)
_PICK = st.integers(0, 50)
_INCIDENTS = st.sampled_from(("cut", "dies", "leaves", "restart", "loss", "none", "none", "none", "none"))


class StoreMachine(RuleBasedStateMachine):
    """Subclasses say which store."""

    make: type[Harness]

    @initialize()
    def begin(self) -> None:
        self.harness = self.make()
        self.now = 0.0
        self.names = count()
        self.heard: set[str] = set()  # those who have published or left since the last restart
        self.processes = [self.new() for _ in range(3)]
        self.gone: list[Process] = []  # dead ones, which the store may not know to be so
        self.holders: dict[object, Known] = {}
        self.challengers: dict[object, Known] = {}
        self.tickets: dict[str, float] = {}
        self.turns: dict[str, tuple[Process, float]] = {}
        self.granted: dict[str, float] = {}  # when a turn was last given, whoever may have lost it
        self.copies: dict[str, tuple[str, float]] = {}
        self.kicks: dict[str, set[str]] = {}  # which members have applied it
        self.lifted: dict[str, set[str]] = {}
        self.restarted = -100.0
        self.awaited: set[str] = set()
        self.epoch = self.processes[0].member.epoch

    def new(self) -> Process:
        process = Process(TestMember(self.harness, f"m{next(self.names)}"))
        self.publish(process)
        return process

    # Members

    def publish(self, process: Process, parts: int = 1) -> None:
        """Publish all that a process holds."""
        member = process.member
        held = [Held(one.session, one.stage, one.policy, one.ending) for one in process.known.values()]
        for one in process.known.values():
            one.decided = False
        pulse = None
        for part in range(parts):
            some = tuple(held[part::parts])
            rules = tuple(process.rules)[part::parts]
            pulse = member.publish(*some, rules=rules, knew=process.knew, part=part, last=part == parts - 1)
        assert pulse and pulse.known and pulse.held == len(held), (pulse, held)
        if member.epoch != process.published:
            process.version = 0
        process.published = self.epoch = member.epoch
        process.expires = self.now + LEASE
        self.heard.add(process.member.id)

    @rule(index=_MEMBERS, parts=st.integers(1, 3))
    def beat(self, index: int, parts: int) -> None:
        """A member beats, and publishes if it has to."""
        process = self.processes[index]
        process.member.epoch = process.published or process.member.epoch
        pulse = process.member.beat(applied=process.version)
        assert pulse.known == self.is_known(process)
        process.expires = self.now + LEASE if self.is_known(process) else process.expires
        if not pulse.known:
            waiting = [id for id, one in process.known.items() if one.stage is Stage.WAITING]
            for id in waiting:
                del process.known[id]
            was_there = self.is_there(process)
            self.awaited |= set(process.knew)
            self.publish(process, parts)
            self.restore(process, was_there)
        process.knew = pulse.members or process.knew
        self.sync(process)

    def is_there(self, process: Process) -> bool:
        """Whether the store has what the process last published."""
        return self.now < process.expires and bool(process.published)

    def is_known(self, process: Process) -> bool:
        return self.is_there(process) and process.published == self.epoch

    def restore(self, process: Process, was_there: bool) -> None:
        """What was published counts again, and the consoles that nobody has."""
        for one in process.known.values():
            if not was_there:
                one.given, one.failed, one.lost = frozenset(), frozenset(), False
                one.restored = True
            if one.policy is Policy.PASSTHROUGH:
                self.vacate(one)
                continue
            place = one.session.console
            if one.stage is Stage.OPEN:
                if self.holders.get(place) in (None, *process.known.values()):
                    self.holders[place] = one
            elif self.challengers.get(place) is not one and not self.blocked(one):
                self.challengers[place] = one

    def blocked(self, one: Known) -> bool | None:
        """Whether a session cannot have its console; None if it may be held off."""
        place = one.session.console
        holder, challenger = self.holders.get(place), self.challengers.get(place)
        if holder is None and challenger is None:
            return False
        if challenger or one.policy is Policy.REFUSE:
            return True
        return None

    @rule(index=_MEMBERS, what=_INCIDENTS)
    def incident(self, index: int, what: str) -> None:
        """A member dies without a word, or leaves, and another begins; or the store starts again."""
        process = self.processes[index]
        if what == "cut":
            self.leap(16.0)
        elif what in ("restart", "loss"):
            self.restarts(data=what == "restart")
        elif what == "dies":
            self.gone.append(process)
            self.processes[index] = self.new()
        elif what == "leaves":
            self.harness.store.leave(process.member.id)
            self.forget(process)
            self.heard.add(process.member.id)
            self.processes[index] = self.new()

    def forget(self, process: Process) -> None:
        process.expires = 0.0
        self.turns = {name: turn for name, turn in self.turns.items() if turn[0] is not process}
        for one in process.known.values():
            self.vacate(one)

    def vacate(self, one: Known) -> None:
        for contest in (self.holders, self.challengers):
            if contest.get(one.session.console) is one:
                del contest[one.session.console]

    @rule(seconds=st.sampled_from((0.125, 1.0, 3.0, 10.0, 14.0)))
    def time_passes(self, seconds: float) -> None:
        """All members beat, and time passes."""
        self.all_beat()
        self.leap(seconds)

    @rule()
    def all_beat(self) -> None:
        for index in range(3):
            self.beat(index, 1)

    def leap(self, seconds: float) -> None:
        self.now += seconds
        self.harness.advance(seconds)
        for process in (*self.processes, *self.gone):
            if process.published and process.expires <= self.now:
                self.forget(process)
        self.gone = [process for process in self.gone if self.is_there(process)]

    def restarts(self, data: bool) -> None:
        """The store starts again, with its data or without."""
        there = [process for process in (*self.processes, *self.gone) if self.is_there(process)]
        self.harness.restart(data=data)
        self.restarted, self.epoch = self.now, ""
        self.tickets.clear()
        self.turns.clear()
        self.awaited, self.heard = {process.member.id for process in there} if data else set(), set()
        for process in (*self.processes, *self.gone):
            if data and self.is_there(process):
                process.expires = self.now + LEASE
            else:
                self.forget(process)
                process.published = process.published and "lost"
        self.gone = [process for process in self.gone if self.is_there(process)]
        self.epoch = "new"
        for process in self.processes:
            process.version = 0

    # Sessions

    def everybody(self) -> list[Known]:
        """Return the sessions that the store must count."""
        there = [process for process in (*self.processes, *self.gone) if self.is_there(process)]
        return [one for process in there for one in process.known.values()]

    @rule(
        index=_MEMBERS,
        user=st.sampled_from(("alice", "bob", 5)),
        vmi=st.sampled_from(("one", "two")),
        policy=st.sampled_from(Policy),
        may_wait=st.booleans(),
    )
    def admit(self, index: int, user: str | int, vmi: str, policy: Policy, may_wait: bool) -> None:
        """Somebody wants a console."""
        process = self.processes[index]
        newcomer = Known(session(f"s{next(self.names)}", user, vmi), policy)
        self.ask(process, newcomer, may_wait)

    @rule(
        index=_MEMBERS,
        user=st.sampled_from(("alice", "bob")),
        vmi=st.sampled_from(("one", "two")),
        policy=st.sampled_from((Policy.TAKEOVER, Policy.TAKEOVER, Policy.REFUSE)),
        token_id=st.sampled_from((None, "one", "two", "three")),
        reports=st.booleans(),
    )
    def opens(
        self, index: int, user: str, vmi: str, policy: Policy, token_id: str | None, reports: bool
    ) -> None:
        """Somebody opens a console, as fast as can be."""
        newcomer = Known(session(f"s{next(self.names)}", user, vmi, token_id=token_id), policy)
        self.ask(self.processes[index], newcomer, False)
        if newcomer.stage is Stage.DIALLING:
            self.open(self.processes[index], newcomer, reports)

    def ask(self, process: Process, newcomer: Known, may_wait: bool) -> None:
        wanted = newcomer.session
        is_new = wanted.id not in process.known
        counts = Counts(self.everybody())
        donor = counts.donor(newcomer) if is_new else None
        holder = self.holders.get(wanted.console)
        blocked = self.blocked(newcomer) if newcomer.policy is not Policy.PASSTHROUGH else False
        reached = {
            held_off: counts.reached(newcomer, donor, None if held_off else holder)
            for held_off in (True, False)
        }
        decision = process.member.admit(wanted, newcomer.policy.value, LIMITS, may_wait=may_wait)
        if decision.outcome is Outcome.UNSETTLED:
            assert not (self.is_known(process) and self.now - self.restarted >= LEASE), decision
            return
        assert self.is_known(process), decision
        assert self.awaited <= self.heard or self.now - self.restarted >= LEASE, (decision, self.awaited)
        if decision.outcome is Outcome.FULL or (decision.outcome is Outcome.WAIT and decision.limit):
            assert is_new and decision.limit in (reached[True] | reached[False]), (decision, reached)
            return
        if decision.outcome is Outcome.BUSY:
            assert holder or self.challengers.get(wanted.console)
            assert blocked is not False
            process.known.pop(wanted.id, None)
            return
        takes_over = decision.outcome is Outcome.ADMITTED and holder is not None
        if is_new:
            allowed = reached[not takes_over] if blocked is not None else reached[True] & reached[False]
            assert not allowed, (decision, reached)
            process.known[wanted.id] = newcomer
            if donor:
                donor.given = frozenset(LIMITS._fields)
        if decision.outcome is Outcome.ADMITTED:
            assert blocked is not True, (decision, holder)
            assert not (decision.decided and blocked is not False), (decision, holder)
            newcomer.stage, newcomer.decided = Stage.DIALLING, decision.decided
            if newcomer.policy is not Policy.PASSTHROUGH:
                self.challengers[wanted.console] = newcomer

    def pick(self, index: int, number: int, *stages: Stage) -> tuple[Process, Known | None]:
        process = self.processes[index]
        found = [one for one in process.known.values() if one.stage in stages]
        return process, found[number % len(found)] if found else None

    @rule(index=_MEMBERS, number=_PICK, may_wait=st.booleans())
    def asks_again(self, index: int, number: int, may_wait: bool) -> None:
        process, one = self.pick(index, number, Stage.WAITING)
        if one and self.is_there(process):
            self.ask(process, one, may_wait)

    @rule(index=_MEMBERS, number=_PICK, reports=st.booleans())
    def opened(self, index: int, number: int, reports: bool) -> None:
        """A dial is done: who had the console loses it."""
        process, one = self.pick(index, number, Stage.DIALLING)
        if one and not one.ending:
            self.open(process, one, reports)

    def open(self, process: Process, one: Known, reports: bool) -> None:
        place = one.session.console
        holder = self.holders.get(place)
        mine = one.policy is Policy.PASSTHROUGH or self.challengers.get(place) is one
        assert mine or not (one.decided and self.is_known(process)), one
        if reports:
            process.member.report(EventKind.OPENED, one.session.id)
            has_it = (one.session.id, Stage.OPEN, False) in process.member.held()
        else:
            has_it = process.member.opened(one.session.id).admitted
        assert has_it == (self.is_known(process) and mine), one
        if not has_it:
            return
        one.stage = Stage.OPEN
        if one.policy is Policy.PASSTHROUGH:
            return
        del self.challengers[place]
        self.holders[place] = one
        if holder:
            holder.lost = True
            holder.given |= Counts(self.everybody()).inheritable(holder, one)
            self.check_told(holder)

    def check_told(self, loser: Known) -> None:
        """Who has lost a console is told at the next beat, at the latest."""
        for process in self.processes:
            if loser in process.known.values() and self.is_known(process):
                messages = process.member.store.report(process.member.id, ())
                told = [(one.kind, one.session) for one in (*messages, *process.member.messages)]
                assert (MessageKind.LOST, loser.session.id) in told
                process.member.ending(loser.session.id)
                loser.ending, loser.policy = True, Policy.PASSTHROUGH

    @rule(index=_MEMBERS, number=_PICK, kind=st.sampled_from((EventKind.ENDING, EventKind.RELEASED)))
    def ends(self, index: int, number: int, kind: EventKind) -> None:
        """A session begins to end, or is released. A member that is cut off says so when it publishes."""
        process, one = self.pick(index, number, *Stage)
        if one is None:
            return
        if self.is_there(process):
            process.member.report(kind, one.session.id)
        if kind is EventKind.RELEASED:
            del process.known[one.session.id]
            if self.is_there(process):
                self.vacate(one)
        else:
            one.ending = True

    @rule(index=_MEMBERS, number=_PICK)
    def gives_up(self, index: int, number: int) -> None:
        process, one = self.pick(index, number, Stage.DIALLING)
        if one is None:
            return
        if self.is_there(process):
            process.member.given_up(one.session.id)
            Counts(self.everybody()).fail(one)
            self.vacate(one)
        one.ending, one.policy = True, Policy.PASSTHROUGH

    # Tickets

    @rule(number=_PICK)
    def issues(self, number: int) -> None:
        digest = f"{next(self.names):x}"
        if not self.harness.store.issue(digest, ticket(number)).limit:
            self.tickets[digest] = self.now

    @precondition(lambda self: self.tickets)
    @rule(number=_PICK)
    def redeems(self, number: int) -> None:
        """A ticket is redeemed once, within its time."""
        digest = list(self.tickets)[number % len(self.tickets)]
        is_valid = self.now - self.tickets.pop(digest) < 29.99
        found = self.harness.store.redeem(digest)
        assert (found is not None) or not is_valid
        assert self.harness.store.redeem(digest) is None

    # Copies

    @rule(index=_MEMBERS, name=st.sampled_from("xy"), ends=st.booleans())
    def fetches(self, index: int, name: str, ends: bool) -> None:
        """One member at a time fetches; what it has kept serves all while it is young."""
        process = self.processes[index]
        found = self.harness.store.borrow(process.member.id, name, 4.0, _TURN)
        if found.text is not None:
            text, made = self.copies[name]
            assert found.text == text and self.now - made < 4.01, (found, self.copies[name])
            return
        holder = self.turns.get(name)
        if holder and holder[0] is not process and self.now < holder[1] - 0.01:
            assert not found.is_turn, holder
        if self.now - self.granted.get(name, -100.0) > _TURN:
            assert found.is_turn
        if found.is_turn:
            self.turns[name], self.granted[name] = (process, self.now + _TURN), self.now
            if ends:
                del self.turns[name]
                self.copies[name] = f"text {next(self.names)}", self.now
                self.harness.store.keep(process.member.id, name, self.copies[name][0], 60.0, 0.0)

    # Revocations

    @rule(index=_MEMBERS)
    def kicks_user(self, index: int) -> None:
        """An operator's kick returns once the member has applied it."""
        process = self.processes[index]
        if not self.is_known(process):
            return
        kick = f"k{next(self.names)}"
        assert self.harness.store.revoke((Rule(kick, kick, 1.7e9, _UNTIL, Match(user=kick)),)).done
        self.kicks[kick] = set()
        self.sync(process)

    @precondition(lambda self: self.kicks)
    @rule(index=_MEMBERS, number=_PICK)
    def lifts(self, index: int, number: int) -> None:
        process = self.processes[index]
        kick = list(self.kicks)[number % len(self.kicks)]
        if self.is_known(process) and process.rules.get(kick):
            self.sync(process)
            if self.harness.store.lift(kick, 1.7e9).done:
                self.lifted.setdefault(kick, set())
                self.sync(process)

    def sync(self, process: Process) -> None:
        """A member reads what has changed: it knows all that those who have published in this epoch know."""
        more = True
        while more:
            page = self.harness.store.rules(process.version)
            for one in page.rules:
                process.rules.add(one)
            process.version, more = page.version, page.more
        here = {one.member.id for one in self.processes if self.is_known(one)}
        for kick, appliers in self.kicks.items():
            refused = process.rules.find(Subject(kick, "n", None, "", "", None), 1.7e9, 5.0)
            if self.lifted.get(kick, set()) & here:
                assert refused is None, kick
            elif appliers & here and kick not in self.lifted:
                assert refused is not None, kick
            if refused:
                appliers.add(process.member.id)
            elif process.rules.is_lifted(kick):
                self.lifted.setdefault(kick, set()).add(process.member.id)

    def teardown(self) -> None:
        """Nothing is left when all have gone."""
        for process in (*self.processes, *self.gone):
            self.harness.store.leave(process.member.id)
        left = {kind: size for kind, size in self.harness.sizes().items() if size}
        self.harness.close()
        # A member that the store did not know any more may have got a turn, which lasts for its seconds.
        assert left.keys() <= {"tickets", "rules", "failures", "copies", "turns"}, left
