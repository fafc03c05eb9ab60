"""What the sessions and the operator of one process use of the shared state."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ...exceptions import Busy, ConfigError, StateUnavailable, StoreUnavailable
from ...runtime.deadline import Clock, Deadline, since_boot
from ...runtime.wall_clock import unix_time
from ...telemetry.state_numbers import StateNumbers
from ..console_policies import ConsolePolicies, Policy
from ..limits import Limits
from ..membership import Issued, Member
from ..revocations import Match, Rule
from ..store import SCHEMA, Store
from ..stores.choice import store_faults
from ..stores.memory import MemoryStore
from ..stores.rule_file import RuleFile
from ..tickets import Ticket
from ..values import NO_LIMITS, Held, SharedSession, SlotLimits
from .copies import Copies
from .heartbeat import Heartbeat
from .held_session import HeldSession
from .holding import Holding
from .known_rules import KnownRules, RevocationRules
from .private_link import PrivateLink
from .rules_version import RulesVersion, has_heard_all
from .shared_link import SharedLink

__all__ = ["Kick", "Participant", "ParticipantRules"]

_KICK_SECONDS = 1.0
_PAUSE = 0.02
_BY_DEFAULT = RevocationRules()
_UNKNOWN = "all others, since the store is away"
_UNHEARD = "all others that the store has not heard since it began anew"


@dataclass(frozen=True)
class ParticipantRules:
    """The settings of one process that concern the shared state.

    :ivar name: of this process, for the operator's list.
    :ivar lease: seconds after which the store forgets a process that it does not hear from.
    :ivar alone: whether the process decides by itself while the store is away.
    :ivar show_user: whether a client may learn the user that has or took its console.
    """

    policies: ConsolePolicies
    limits: SlotLimits = NO_LIMITS
    revocations: RevocationRules = _BY_DEFAULT
    show_user: bool = False
    name: str = ""
    lease: float = 15.0
    alone: bool = False


@dataclass(frozen=True)
class Kick:
    """What became of a kick, or of its lift.

    :ivar id: names it, for a lift.
    :ivar until: UNIX time until which its rules hold; ``math.inf`` for as long as nobody lifts them.
    :ivar behind: names of the processes that had not applied it in time; they admit nobody until they have.
    :ivar unsaved: why it is not in the file of this process, so that a restart forgets it; "" if it is, or if
        there is no file.
    """

    id: str
    until: float
    behind: tuple[str, ...] = ()
    unsaved: str = ""


class Participant:
    """One process among those that share a state. Safe from every thread.

    :param store: the store that processes share; None for one of this process's own.
    :param limits: counts failed attempts, and hits of limits.
    :param end_sessions: called with rules that are new; ends the sessions that they concern, and returns a
        rule for the token of each. Any thread; must not block.
    :param clock: seconds that never go backwards, and pass while the machine is suspended, as leases do.
    :param wall_clock: UNIX time, seconds.
    :param rule_file: keeps the rules over a restart, without a store; None for none. :meth:`stop` closes it.
    :param observe: as for :class:`.Heartbeat`.
    :ivar known: the revocation rules that this process applies.
    :ivar copies: what processes fetch for each other; None if they share no store.
    """

    def __init__(
        self,
        store: Store | None,
        rules: ParticipantRules,
        limits: Limits,
        end_sessions: Callable[[list[Rule]], list[Rule]],
        clock: Clock = since_boot,
        wall_clock: Clock = unix_time,
        rule_file: RuleFile | None = None,
        observe: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._rules = rules
        self._rule_file = rule_file
        self._hit = limits.hit
        self._wall_clock = wall_clock
        self.known = KnownRules(rules.revocations, wall_clock)
        self.known.learn(rule_file.rules if rule_file else ())
        self.member = Member(secrets.token_hex(8), rules.name, rules.lease, SCHEMA)
        self.heartbeat: Heartbeat | None = None
        self.copies: Copies | None = None
        self._link: PrivateLink | SharedLink
        if store is None:
            own = MemoryStore(clock, wall_clock)
            self._link = PrivateLink(own, self.known, end_sessions, show_user=rules.show_user)
        else:
            link = self._link = SharedLink(
                store,
                self.member,
                self.known,
                limits,
                end_sessions,
                show_user=rules.show_user,
                alone=rules.alone,
                clock=clock,
            )
            self.copies = Copies(store, self.member.id, lambda: link.is_in_step, clock)
            self.heartbeat = Heartbeat(self._link, rules.lease, observe, refuses=not rules.alone, clock=clock)

    @property
    def numbers(self) -> StateNumbers:
        """What this process has seen of a shared store."""
        return self.heartbeat.numbers if self.heartbeat else StateNumbers()

    @property
    def status(self) -> str:
        """A line for people who ask whether the proxy is ready; "" if processes share no store."""
        if not isinstance(self._link, SharedLink):
            return ""
        if self._link.is_alone:
            return "state: the store is away; this process counts for itself"
        if not self._link.is_in_step:
            return "state: the store is away; new sessions are refused"
        return "state: in step" if self._link.is_settled else "state: the store waits for all processes"

    @property
    def store(self) -> Store:
        """The store, for what the operator asks."""
        return self._link.store

    @property
    def is_shared(self) -> bool:
        """Whether other processes may use the store."""
        return self.heartbeat is not None

    def start(self, owner: object) -> None:
        """Start the threads that keep the process in step, which work for ``owner``. Once only.

        If processes share the store, it blocks until this one is in step, for five seconds at most.

        :raises ConfigError: if the store answers, and is unfit.
        """
        if self.heartbeat:
            self.heartbeat.start(owner)
            with suppress(StoreUnavailable):
                if faults := store_faults(self.store):
                    raise ConfigError(faults)

    def stop(self) -> None:
        """End the threads, and give up all that the process holds. Idempotent.

        Blocks for a few timeouts of the store. Call it after the last session has ended.
        """
        if self.heartbeat:
            self.heartbeat.stop()
        if self._rule_file:
            self._rule_file.close(self.known)

    # Sessions

    def holding(self, session: HeldSession, shared: SharedSession) -> Holding:
        """Return what a session holds: nothing yet. Does not block."""
        policy, limits = self._rules.policies.of(*shared.console), self._rules.limits
        nothing = not self.is_shared and policy is Policy.PASSTHROUGH and limits == NO_LIMITS
        return Holding(None if nothing else self._link, session, shared, policy, limits, self._hit)

    @property
    def now(self) -> float:
        """UNIX time, seconds."""
        return self._wall_clock()

    # Tickets

    def issue(self, digest: str, ticket: Ticket) -> Issued:
        """See :meth:`.Store.issue`.

        :raises StateUnavailable: if the store is away.
        """
        return self._link.issue(digest, ticket)

    def redeem(self, digest: str) -> Ticket | None:
        """See :meth:`.Store.redeem`.

        :raises StateUnavailable: if the store is away.
        """
        return self._link.redeem(digest)

    @property
    def held(self) -> int:
        """How many sessions of this process the store may know; for tests."""
        return len(self._link.holdings)

    # Revocations

    def kick(self, matches: Iterable[Match], until: float) -> Kick:
        """Refuse tokens from now on, and end their sessions in all processes.

        Blocks until every process in step has done so, for a second and the store's timeout at most. If there
        is a file of rules, it also blocks on the file system.

        :param until: UNIX time until which the tokens are refused; ``math.inf`` for no end.
        :raises Busy: if there are too many rules.
        :raises StateUnavailable: if the store is away. This process refuses the tokens all the same.
        """
        kick, now = secrets.token_hex(8), self._wall_clock()
        rules = [self._rule(kick, now, until, match) for match in matches]
        return self._added(rules, kick, until)

    def _rule(self, kick: str, made_at: float, until: float, match: Match) -> Rule:
        return Rule(secrets.token_hex(8), kick, made_at, until, match, self._rules.name)

    def _added(self, rules: list[Rule], kick: str, until: float) -> Kick:
        epoch = self._epoch
        try:
            revoked = self.store.revoke(tuple(rules))
        except StoreUnavailable as exc:
            self._link.apply(rules, is_away=True)
            raise StateUnavailable(f"the state that processes share is away: {exc}") from None
        if not revoked.done:
            raise Busy("there are as many revocation rules as there may be; lift some of them")
        with suppress(StoreUnavailable):  # then others learn the tokens of the sessions later
            self._link.apply(rules)
            if (now := self._epoch) != epoch:  # the process may have published before it knew the rules
                epoch, revoked = now, self.store.revoke(tuple(rules))
        return self._done(kick, until, RulesVersion(epoch, revoked.version))

    def _done(self, kick: str, until: float, version: RulesVersion) -> Kick:
        """Keep the rules over a restart, and wait for the other processes."""
        unsaved = self._rule_file.save(self.known) if self._rule_file else ""
        return Kick(kick, until, self._awaited(version), unsaved)

    def _awaited(self, version: RulesVersion) -> tuple[str, ...]:
        """Wait until all processes have applied a version; return the names of those that have not.

        A store that has just begun anew names nobody, because it knows nobody yet.
        """
        link, deadline = self._link, Deadline(_KICK_SECONDS)
        if not isinstance(link, SharedLink):
            return ()
        while True:
            try:
                version = version.now(link)
                has_all = has_heard_all(link, version.number)
                found = self.store.behind(version.number)
                has_all = has_all and has_heard_all(link, version.number)  # in the same epoch all the while
            except StoreUnavailable:
                return (_UNKNOWN,)
            behind = tuple(one.name or one.id for one in found if one.id != self.member.id)
            if (has_all and not behind) or deadline.passed:
                return behind if has_all else (*behind, _UNHEARD)
            time.sleep(_PAUSE)

    @property
    def _epoch(self) -> str:
        pulse = self._link.pulse if isinstance(self._link, SharedLink) else None
        return pulse.epoch if pulse else ""

    def lift(self, kick: str) -> Kick | None:
        """Take the rules of a kick out of force, in all processes. Blocks as a kick does.

        :returns: what became of it; None if there are no such rules.
        :raises StateUnavailable: if the store is away.
        """
        epoch, now = self._epoch, self._wall_clock()
        try:
            lifted = self.store.lift(kick, now)
        except StoreUnavailable as exc:
            raise StateUnavailable(f"the state that processes share is away: {exc}") from None
        if not lifted.done:
            return None
        until = self._end_of(kick)
        self.known.learn([Rule.lift(kick, now, until)])
        return self._done(kick, until, RulesVersion(epoch, lifted.version))

    def _end_of(self, kick: str) -> float:
        return max((rule.until for rule in self.known if rule.kick == kick), default=0.0)

    # The operator's list

    def others(self) -> Iterator[tuple[Member, Held]]:
        """Yield the sessions of the other processes, with who has them. Blocks for the store's answers.

        :raises StoreUnavailable: if it is away.
        """
        if not self.is_shared:
            return
        for member in self.store.members():
            if member.id != self.member.id:
                yield from ((member, held) for held in self._sessions_of(member))

    def _sessions_of(self, member: Member) -> Iterator[Held]:
        after = ""
        while True:
            page = self.store.sessions(member.id, after)
            yield from page.sessions
            if not (after := page.after):
                return
