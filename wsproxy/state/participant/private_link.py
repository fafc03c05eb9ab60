"""The way to a store that only this process uses: every report is told at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from ..membership import Beat, Issued, Member, publications
from ..revocations import Rule
from ..stores.memory import MemoryStore
from ..tickets import Ticket
from ..values import Confirmed, Decision, Event, Evicted, Message, Request, SessionRef
from .holding import Holding
from .holdings import Holdings
from .known_rules import KnownRules
from .outbox import Outbox

__all__ = ["PrivateLink"]

_MEMBER = "self"
_SECONDS = 10.0  # no thread is ever in the store that long

R = TypeVar("R", Decision, Confirmed, Evicted)


class PrivateLink:
    """See :class:`.Link`. It needs no thread, and its lease never passes.

    :param store: the store of this process.
    :param rules: the revocation rules that the process applies; the store gets those that there are.
    :param on_rules: as for :class:`.SharedLink`.
    """

    blocks = may_report_opened = False

    def __init__(
        self,
        store: MemoryStore,
        rules: KnownRules,
        on_rules: Callable[[list[Rule]], list[Rule]],
        *,
        show_user: bool,
    ) -> None:
        self.member = _MEMBER
        self.show_user = show_user
        self.store = store
        self._rules = rules
        self._on_rules = on_rules
        self.holdings = Holdings(_MEMBER)
        self._outbox = Outbox()
        self._beats = count(1)
        for part in publications(Member(_MEMBER, "", math.inf), (), list(rules), ()):
            self._epoch = store.publish(part).epoch

    def admit(self, request: Request) -> Decision:
        """See :meth:`.Store.admit`."""
        return self._asked(lambda: self.store.admit(_MEMBER, request))

    def opened(self, session: str) -> Confirmed:
        """See :meth:`.Store.opened`."""
        return self._asked(lambda: self.store.opened(_MEMBER, session))

    def evict(self, session: str) -> Evicted:
        """See :meth:`.Store.evict`."""
        return self._asked(lambda: self.store.evict(_MEMBER, session))

    def _asked(self, ask: Callable[[], R]) -> R:
        self.flush()  # marks may wait
        answer = ask()
        self._heed(answer.messages)
        return answer

    def _heed(self, messages: tuple[Message, ...]) -> None:
        if messages:
            self.holdings.heed(messages, 0)
            self.store.beat(_MEMBER, Beat(next(self._beats), self._epoch, seen=self.holdings.seen))

    def post(self, event: Event) -> None:
        """See :meth:`.Link.post`."""
        self._outbox.post(event)

    def flush(self) -> None:
        """See :meth:`.Link.flush`. When it returns, the store has all reports that were queued before."""
        while len(self._outbox):
            batch = self._outbox.take(_SECONDS)
            try:
                messages = self.store.report(_MEMBER, batch.events)
            finally:
                batch.done()
            self._heed(messages)
        if self._outbox.is_under_way:
            self._outbox.wait_for_others(_SECONDS)

    def keep(self, holding: Holding) -> None:
        """See :meth:`.Link.keep`."""
        self.holdings.keep(holding)

    def drop(self, holding: Holding) -> None:
        """See :meth:`.Link.drop`."""
        self.holdings.drop(holding)

    def issue(self, digest: str, ticket: Ticket) -> Issued:
        """See :meth:`.Store.issue`."""
        return self.store.issue(digest, ticket)

    def redeem(self, digest: str) -> Ticket | None:
        """See :meth:`.Store.redeem`."""
        return self.store.redeem(digest)

    def apply(self, rules: list[Rule], *, is_away: bool = False) -> None:
        """See :meth:`.SharedLink.apply`."""
        if (fresh := self._rules.learn(rules)) and (more := self._on_rules(fresh)):
            self._rules.learn(more)
            self.store.revoke(tuple(more))

    def look(self, sessions: tuple[SessionRef, ...]) -> bool:
        """See :meth:`.Link.look`."""
        return self.holdings.look(sessions)
