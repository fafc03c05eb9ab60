"""Gives each session the messages that the store has for it, each once and in order. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ..values import Decision, Held, Message, SessionRef
from .holding import Holding

__all__ = ["Holdings"]


class Holdings:
    """What the sessions of this process hold, by session id. Safe from every thread, never blocks.

    :param member: id of the member that this process is.
    """

    def __init__(self, member: str) -> None:
        self._member = member
        self._holdings: dict[str, Holding] = {}  # each operation on it is one of the dict
        # Held while a message is heeded, so that each is heeded once, and the later one last. Reentrant,
        # because a session that ends reports that, and gets the messages of the answer. Whoever takes it
        # holds no lock of a session.
        self._lock = threading.RLock()
        self._seen = 0
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._holdings)

    def keep(self, holding: Holding) -> None:
        """Add a holding."""
        self._holdings[holding.id] = holding

    def drop(self, holding: Holding) -> None:
        """Remove a holding. Idempotent."""
        self._holdings.pop(holding.id, None)

    @property
    def counted(self) -> int:
        """How many of the sessions the store counts."""
        return sum(holding.counts for holding in list(self._holdings.values()))

    def held(self) -> list[Held]:
        """Return what the sessions hold that the store counts, the oldest first."""
        return [holding.held() for holding in list(self._holdings.values()) if holding.counts]

    def note(self, session: str, decision: Decision) -> None:
        """Have a session take note of what the store has decided."""
        if holding := self._holdings.get(session):
            holding.note(decision)

    def look(self, sessions: Iterable[SessionRef]) -> bool:
        """See :meth:`.Link.look`."""
        found = [self._holdings.get(ref.session) for ref in sessions if ref.member == self._member]
        return sum(holding.has_left() for holding in found if holding) > 0  # not any(): each must report it

    # Messages

    @property
    def seen(self) -> int:
        """The highest number of a message that was heeded, with all before it."""
        return self._seen

    @property
    def epoch(self) -> int:
        """Grows with :meth:`begin_epoch`."""
        return self._epoch

    def begin_epoch(self) -> None:
        """The numbers of messages begin anew. See :meth:`.Holding.begin_epoch`."""
        with self._lock:
            self._epoch += 1
            self._seen = 0
            for holding in list(self._holdings.values()):
                holding.begin_epoch()

    def heed(self, messages: tuple[Message, ...], epoch: int) -> None:
        """Do what new messages say.

        An answer has all messages that are not acknowledged, in the order of their numbers. So the number of
        the last one that was heeded says which are new.

        :param epoch: the value of :attr:`epoch` when the store was asked; older answers say nothing any more.
        """
        with self._lock:
            for message in messages:
                if epoch != self._epoch or message.number <= self._seen:
                    continue
                self._seen = message.number
                if holding := self._holdings.get(message.session):
                    holding.heed(message)
