"""What a model knows of the sessions in a store, and what it counts, slowly and simply."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.state.conformance.case import TestMember
from wsproxy.state.console_policies import Policy
from wsproxy.state.revocations import RuleSet
from wsproxy.state.values import SharedSession, SlotLimits, Stage

__all__ = ["LIMITS", "Counts", "Known", "Process"]

LIMITS = SlotLimits(sessions=5, user=2, vmi=3)


@dataclass(eq=False)
class Known:
    """A session as the store must know it.

    :ivar decided: whether the store has said that it will have its console, whatever happens meanwhile.
    """

    session: SharedSession
    policy: Policy
    stage: Stage = Stage.WAITING
    ending: bool = False
    given: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    lost: bool = False
    restored: bool = False
    decided: bool = False

    @property
    def keys(self) -> dict[str, object]:
        return {"sessions": None, "user": self.session.user, "vmi": self.session.console}


@dataclass(eq=False)
class Process:
    """A member, and what the model knows of it.

    :ivar known: the sessions that the store must know of it.
    :ivar expires: when its lease passes.
    :ivar published: the epoch in which it has published.
    """

    member: TestMember
    expires: float = 0.0
    published: str = ""
    known: dict[str, Known] = field(default_factory=dict)
    rules: RuleSet = field(default_factory=RuleSet)
    version: int = 0
    knew: tuple[str, ...] = ()


@dataclass
class Counts:
    """How many sessions count, and who inherits whose slot.

    :ivar sessions: those that the store must count.
    """

    sessions: list[Known]

    def counted(self, key: str, value: object) -> int:
        return sum(key not in one.given | one.failed and one.keys[key] == value for one in self.sessions)

    def failed(self, key: str, value: object) -> int:
        return sum(key in one.failed and one.keys[key] == value for one in self.sessions)

    def given(self, key: str, value: object) -> int:
        return sum(key in one.given and one.keys[key] == value for one in self.sessions)

    def inheritable(self, donor: Known, newcomer: Known) -> frozenset[str]:
        shared = LIMITS._fields if donor.session.user == newcomer.session.user else ("vmi",)
        mosts = LIMITS._asdict()
        return frozenset(
            key
            for key in shared
            if key not in donor.given | donor.failed and self.given(key, donor.keys[key]) < mosts[key]
        )

    def donor(self, newcomer: Known) -> Known | None:
        for one in self.sessions:
            same = (one.session.user, one.session.console) == (
                newcomer.session.user,
                newcomer.session.console,
            )
            if one.ending and not one.given and same and len(self.inheritable(one, newcomer)) == 3:
                return one
        return None

    def reached(self, newcomer: Known, donor: Known | None, replaced: Known | None) -> set[str]:
        """Return the limits that keep a newcomer out."""
        inherited: list[str] = []
        for other in (donor, replaced if newcomer.policy is Policy.TAKEOVER else None):
            if other:
                inherited += self.inheritable(other, newcomer)
        others = 0 if "sessions" in inherited else self.given("sessions", None)
        return {
            key
            for key, most in LIMITS._asdict().items()
            if self.counted(key, newcomer.keys[key]) - (key in inherited) + others * (key == "sessions")
            >= most
        }

    def fail(self, one: Known) -> None:
        """Take note that an opening was given up."""
        one.failed |= {
            key
            for key, most in LIMITS._asdict().items()
            if key not in one.given | one.failed and (one.restored or self.failed(key, one.keys[key]) < most)
        }
