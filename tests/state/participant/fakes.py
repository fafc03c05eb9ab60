"""Sessions and stores of the tests, and processes that do one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsproxy.exceptions import StoreUnavailable
from wsproxy.runtime.deadline import Deadline
from wsproxy.state.console_policies import ConsolePolicies
from wsproxy.state.limits import LimitRules, Limits
from wsproxy.state.participant.heartbeat import Heartbeat
from wsproxy.state.participant.holding import Holding
from wsproxy.state.participant.participant import Participant, ParticipantRules
from wsproxy.state.participant.shared_link import SharedLink
from wsproxy.state.revocations import Rule
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.values import Console, SharedSession, SlotLimits, User

__all__ = ["FakeSession", "Process", "ShakyStore", "shared"]


def shared(id: str, user: User = "alice", vmi: str = "vm") -> SharedSession:
    """Return a session with the display of a VMI."""
    return SharedSession(id, user, Console("lab-1", vmi, "vnc"), "198.51.100.7", "198.51.100.7", f"of-{user}")


_TWO_OF_A_USER = SlotLimits(user=2)


class FakeSession:
    """A session that reports its end to its holding, as sessions do."""

    def __init__(self) -> None:
        self.holding: Holding | None = None
        self.is_ending = self.has_left = False
        self.ends: list[tuple[int, str]] = []
        self.expected: list[str | None] = []

    def note_departure(self) -> bool:
        if self.has_left and self.holding:
            self.holding.ending()
        return self.has_left

    def expect_takeover(self, reason: str | None) -> None:
        self.expected.append(reason)

    def end(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        if self.holding:
            self.holding.ending()


class ShakyStore(MemoryStore):
    """Loses calls and answers.

    :ivar away: whether nobody answers.
    :ivar lost_calls: names of operations that do not happen; each entry counts once.
    :ivar lost_answers: names of operations that happen, but do not answer; each entry counts once.
    :ivar called: all operations that happened, with their arguments.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        self.away = False
        self.lost_calls: list[str] = []
        self.lost_answers: list[str] = []
        self.called: list[tuple[Any, ...]] = []
        super().__init__(*given, **options)

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        operations = ("publish", "beat", "admit", "opened", "evict", "report", "revoke", "rules", "behind")
        return self._shaky(name, found) if name in operations else found

    def _shaky(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*given: Any) -> Any:
            if self.away or name in self.lost_calls:
                if not self.away:
                    self.lost_calls.remove(name)
                raise StoreUnavailable("nobody answers")
            self.called.append((name, *given))
            answer = operation(*given)
            if name in self.lost_answers:
                self.lost_answers.remove(name)
                raise StoreUnavailable("the answer is lost")
            return answer

        return ask

    def calls(self, name: str) -> list[tuple[Any, ...]]:
        """Return the arguments of all calls of one operation."""
        return [tuple(given) for called, *given in self.called if called == name]


class Process:
    """One process without threads, of which a test does the steps.

    :param store: the one that processes share; None for one of its own.
    :param clock: seconds.
    """

    def __init__(
        self,
        store: MemoryStore | None,
        name: str,
        clock: Callable[[], float],
        *,
        policy: str = "takeover",
        limits: SlotLimits = _TWO_OF_A_USER,
        alone: bool = False,
        failures: int = 0,
        lease: float = 15.0,
    ) -> None:
        self.ended_by: list[Rule] = []
        self.more: list[Rule] = []  # what the end of sessions by new rules comes to
        policies = ConsolePolicies([policy])
        rules = ParticipantRules(policies, limits, name=name, alone=alone, show_user=True, lease=lease)
        self.limits = Limits(LimitRules(failures=failures), clock)
        self.participant = Participant(store, rules, self.limits, self._end, clock, lambda: 1e9)
        self.id = self.participant.member.id

    def _end(self, rules: list[Rule]) -> list[Rule]:
        self.ended_by += rules
        return self.more

    @property
    def link(self) -> SharedLink:
        assert isinstance(self.participant._link, SharedLink)
        return self.participant._link

    @property
    def heartbeat(self) -> Heartbeat:
        assert self.participant.heartbeat
        return self.participant.heartbeat

    def turn(self) -> None:
        """Do what the heartbeat's thread does at once; fails if the store does."""
        self.heartbeat._next_beat = 0.0
        self.heartbeat._turn()

    def fail(self) -> None:
        """Do the same, while the store is away."""
        try:
            self.turn()
        except StoreUnavailable as exc:
            self.heartbeat._note_failure(exc)
        else:
            raise AssertionError("the store has answered")

    def session(self, id: str, user: User = "alice", vmi: str = "vm") -> tuple[FakeSession, Holding]:
        """Return a session that holds nothing yet."""
        session = FakeSession()
        session.holding = self.participant.holding(session, shared(id, user, vmi))
        return session, session.holding

    def admit(self, id: str, user: User = "alice", vmi: str = "vm") -> tuple[FakeSession, Holding]:
        """Return a session that has been admitted."""
        session, holding = self.session(id, user, vmi)
        holding.admit(Deadline(0.0), lambda: None)
        return session, holding

    def open(self, id: str, user: User = "alice", vmi: str = "vm") -> tuple[FakeSession, Holding]:
        """Return a session whose console is open, as the store knows."""
        session, holding = self.admit(id, user, vmi)
        holding.opened()
        if isinstance(self.participant._link, SharedLink):
            self.link.report()
        return session, holding
