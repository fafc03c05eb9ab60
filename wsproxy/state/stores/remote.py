"""The calls of a store as JSON: for a store in another process. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast, get_type_hints

from ...exceptions import StoreUnavailable
from ..codec import from_json, to_json
from ..membership import Beat, Copy, Issued, Member, Publication, Pulse, Revoked, RulesPage, SessionsPage
from ..revocations import Rule
from ..store import Store
from ..tickets import Ticket
from ..values import Confirmed, Decision, Event, Evicted, Message, Request

__all__ = ["Ask", "RemoteCalls", "answer_call", "no_answer"]

T = TypeVar("T")

Ask = Callable[[str, list[Any]], Any]
"""Sends the name of an operation and the JSON form of its arguments, and returns that of its result."""

_OPERATIONS = frozenset(
    {
        "publish", "beat", "leave", "members", "admit", "opened", "evict", "report",
        "issue", "redeem", "revoke", "lift", "rules", "behind", "borrow", "keep", "sessions",
        "tell",
    }
)  # fmt: skip


def answer_call(store: Store, operation: str, arguments: list[Any]) -> Any:
    """Call a store for somebody else.

    :param operation: its name.
    :param arguments: the JSON form of its arguments.
    :returns: the JSON form of its result.
    :raises ValueError: if there is no such operation, or the arguments do not fit.
    """
    if operation not in _OPERATIONS:
        raise ValueError(f"there is no operation {operation!r}")
    kinds = _kinds(operation)
    if len(arguments) != len(kinds):
        raise ValueError(f"{operation} has {len(kinds)} arguments, not {len(arguments)}")
    decoded = [from_json(kind, data) for kind, data in zip(kinds, arguments, strict=True)]
    return to_json(getattr(store, operation)(*decoded))


@cache
def _kinds(operation: str) -> tuple[Any, ...]:
    """Return the types of an operation's arguments."""
    hints = get_type_hints(getattr(Store, operation))
    return tuple(kind for name, kind in hints.items() if name != "return")


def no_answer(operation: str) -> StoreUnavailable:
    """Return what to raise if a store's answer cannot be understood. It quotes none of it."""
    return StoreUnavailable(
        f"the store answers {operation} by what this version does not understand; "
        "see whether others write to it, and which versions use it"
    )


class RemoteCalls:
    """The operations of :class:`.Store` but for ``listen`` and ``close``, as calls of what answers elsewhere.

    Any thread may use it if any thread may use ``ask``; it blocks and raises as that does. If the answer is
    none, it raises :class:`.StoreUnavailable`: others may have written to the store.

    :param ask: carries them there and back.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def _call(self, kind: type[T], operation: str, *arguments: object) -> T:
        answer = self._ask(operation, [to_json(argument) for argument in arguments])
        try:
            return from_json(kind, answer)
        except ValueError:
            raise no_answer(operation) from None

    def publish(self, publication: Publication) -> Pulse:
        """See :meth:`.Store.publish`."""
        return self._call(Pulse, "publish", publication)

    def beat(self, member: str, beat: Beat) -> Pulse:
        """See :meth:`.Store.beat`."""
        return self._call(Pulse, "beat", member, beat)

    def leave(self, member: str) -> None:
        """See :meth:`.Store.leave`."""
        self._ask("leave", [member])

    def members(self) -> tuple[Member, ...]:
        """See :meth:`.Store.members`."""
        return self._call(tuple[Member, ...], "members")

    def admit(self, member: str, request: Request, events: tuple[Event, ...] = ()) -> Decision:
        """See :meth:`.Store.admit`."""
        return self._call(Decision, "admit", member, request, events)

    def opened(self, member: str, session: str) -> Confirmed:
        """See :meth:`.Store.opened`."""
        return self._call(Confirmed, "opened", member, session)

    def evict(self, member: str, session: str) -> Evicted:
        """See :meth:`.Store.evict`."""
        return self._call(Evicted, "evict", member, session)

    def report(self, member: str, events: tuple[Event, ...]) -> tuple[Message, ...]:
        """See :meth:`.Store.report`."""
        return self._call(tuple[Message, ...], "report", member, events)

    def issue(self, digest: str, ticket: Ticket) -> Issued:
        """See :meth:`.Store.issue`."""
        return self._call(Issued, "issue", digest, ticket)

    def redeem(self, digest: str) -> Ticket | None:
        """See :meth:`.Store.redeem`."""
        ticket: Ticket | None = self._call(cast(Any, Ticket | None), "redeem", digest)
        return ticket

    def revoke(self, rules: tuple[Rule, ...]) -> Revoked:
        """See :meth:`.Store.revoke`."""
        return self._call(Revoked, "revoke", rules)

    def lift(self, kick: str, lifted_at: float) -> Revoked:
        """See :meth:`.Store.lift`."""
        return self._call(Revoked, "lift", kick, lifted_at)

    def rules(self, since: int) -> RulesPage:
        """See :meth:`.Store.rules`."""
        return self._call(RulesPage, "rules", since)

    def behind(self, version: int) -> tuple[Member, ...]:
        """See :meth:`.Store.behind`."""
        return self._call(tuple[Member, ...], "behind", version)

    def borrow(self, member: str, name: str, max_age: float, turn_seconds: float) -> Copy:
        """See :meth:`.Store.borrow`."""
        return self._call(Copy, "borrow", member, name, max_age, turn_seconds)

    def keep(self, member: str, name: str, text: str | None, seconds: float, age: float) -> None:
        """See :meth:`.Store.keep`."""
        self._ask("keep", [member, name, text, seconds, age])

    def sessions(self, member: str, after: str = "") -> SessionsPage:
        """See :meth:`.Store.sessions`."""
        return self._call(SessionsPage, "sessions", member, after)

    def tell(self, member: str, session: str, code: int, reason: str) -> bool:
        """See :meth:`.Store.tell`."""
        return self._call(bool, "tell", member, session, code, reason)
