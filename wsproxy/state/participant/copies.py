"""What a process has others fetch for it, and fetches for others, through the store."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from ...exceptions import StoreUnavailable
from ...net.shared_copy import Found
from ...runtime.deadline import Clock
from ...runtime.logs import get_logger
from ..store import MOST_TEXT, Store

__all__ = ["Copies"]

logger = get_logger("wsproxy.state.copies")

_PAUSE = 5.0  # seconds without the store after a call without an answer


class Copies:
    """The copies of one process. Safe from every thread.

    If the store is away, the process fetches for itself, and does not ask the store for a while.

    :param store: the shared one.
    :param member: id of this process.
    :param answers: whether the store is worth asking; must not block.
    """

    def __init__(
        self,
        store: Store,
        member: str,
        answers: Callable[[], bool] = lambda: True,
        clock: Clock = time.monotonic,
    ) -> None:
        self.store = store
        self.member = member
        self._answers = answers
        self._clock = clock
        self._not_before = clock()  # assigned as a whole; any thread

    def copy_of(self, name: str, turn_seconds: float, seconds: float) -> _StoredCopy:
        """See :data:`.CopyOf`. Does not block."""
        return _StoredCopy(self, name, turn_seconds, seconds)

    def close(self) -> None:
        """Close the store. Nobody else uses it if the process shares nothing but copies."""
        self.store.close()

    @property
    def is_away(self) -> bool:
        """Whether the store is away, as far as this process knows."""
        return self._clock() < self._not_before or not self._answers()

    def note_absence(self, exc: StoreUnavailable) -> None:
        """Take note that the store did not answer."""
        self._not_before = self._clock() + _PAUSE
        logger.debug("this process fetches for itself: %s", exc)


class _StoredCopy:
    """A :class:`.SharedCopy` in the store. The text there is the value in base64."""

    def __init__(self, copies: Copies, name: str, turn_seconds: float, seconds: float) -> None:
        self._copies = copies
        self._name = name
        self._turn_seconds = turn_seconds
        self._seconds = seconds

    def borrow(self, max_age: float) -> Found:
        """See :meth:`.SharedCopy.borrow`."""
        copies = self._copies
        if copies.is_away:
            return Found(is_turn=True)
        try:
            copy = copies.store.borrow(copies.member, self._name, max_age, self._turn_seconds)
            value = None if copy.text is None else base64.b64decode(copy.text, validate=True)
        except StoreUnavailable as exc:
            copies.note_absence(exc)
            return Found(is_turn=True)
        except ValueError:  # not of this program
            return Found(is_turn=True)
        return Found(value, copy.age, copy.is_turn)

    def keep(self, value: bytes, age: float) -> None:
        """See :meth:`.SharedCopy.keep`."""
        text = base64.b64encode(value).decode("ascii")
        self._end_turn(text if len(text) <= MOST_TEXT else None, age)

    def give_up(self) -> None:
        """See :meth:`.SharedCopy.give_up`."""
        self._end_turn(None, 0.0)

    def _end_turn(self, text: str | None, age: float) -> None:
        copies = self._copies
        if copies.is_away:
            return  # the turn passes
        try:
            copies.store.keep(copies.member, self._name, text, self._seconds, age)
        except StoreUnavailable as exc:
            copies.note_absence(exc)
