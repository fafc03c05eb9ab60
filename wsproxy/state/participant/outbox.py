"""Keeps what a process has to report of its sessions, in order, until the store has it. No I/O."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ...runtime.deadline import Clock
from ..values import Event

__all__ = ["Batch", "Outbox"]

_MOST = 500  # events in one batch


class Batch:
    """Events that one call carries to the store. Later ones wait for its end, so that none overtakes it.

    :ivar is_behind: whether it is empty because another one is under way.
    """

    def __init__(
        self, outbox: Outbox, number: int, events: tuple[Event, ...], is_behind: bool = False
    ) -> None:
        self.events = events
        self.is_behind = is_behind
        self._outbox = outbox
        self.number = number

    def done(self) -> None:
        """The store has the events, or they are void. Any thread, once."""
        self._outbox._done(self)

    def failed(self) -> None:
        """The store may not have the events: they are reported again, before later ones. Any thread, once."""
        self._outbox._failed(self)


class Outbox:
    """The events that wait, the oldest first. Safe from every thread.

    :param clock: seconds that never go backwards.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        # Guards the attributes below; notified when a batch ends.
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._since = 0.0  # when the oldest event began to wait
        self._batches: dict[int, Batch] = {}  # those that are under way
        self._number = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and nothing is under way."""
        with self._changed:
            return not self._events and not self._batches

    def seconds_until(self, age: float) -> float:
        """Return for how long the oldest event has yet to wait, to have waited for so many seconds.

        That is 0 or less if it has, and ``age`` at most. It is ``math.inf`` if no event waits.
        """
        with self._changed:
            return self._since + age - self._clock() if self._events else math.inf

    def post(self, event: Event) -> None:
        """Add an event. Never blocks."""
        with self._changed:
            if not self._events:
                self._since = self._clock()
            self._events.append(event)

    @contextmanager
    def carried(self, seconds: float) -> Iterator[Batch]:
        """Context manager for a call that carries what :meth:`take` takes; if it fails, all waits again."""
        batch = self.take(seconds)
        try:
            yield batch
        except BaseException:
            batch.failed()
            raise
        batch.done()

    def take(self, seconds: float) -> Batch:
        """Take the events that wait, to carry them to the store. It may be empty.

        Blocks until the batches that are under way have ended, but no longer than so many seconds. If one is
        under way even then, it takes no events.
        """
        with self._changed:
            if seconds and self._batches:
                self._wait_for_others(seconds)
            if self._batches:
                return Batch(self, 0, (), is_behind=True)
            events = tuple(self._events.popleft() for _ in range(min(len(self._events), _MOST)))
            self._number += 1
            batch = Batch(self, self._number, events)
            if events:
                self._batches[batch.number] = batch
            return batch

    @property
    def is_under_way(self) -> bool:
        """Whether a call carries events now."""
        return bool(self._batches)

    def wait_for_others(self, seconds: float) -> None:
        """Wait until the batches that are under way have ended, or the time is over."""
        with self._changed:
            self._wait_for_others(seconds)

    def _wait_for_others(self, seconds: float) -> None:
        """Needs the lock. Later batches do not count, as there may be some all the time."""
        last = self._number
        self._changed.wait_for(lambda: not any(number <= last for number in self._batches), seconds)

    def clear(self) -> None:
        """Forget the events that wait, because the store is told all there is."""
        with self._changed:
            self._events.clear()

    def _done(self, batch: Batch) -> None:
        with self._changed:
            if self._batches.pop(batch.number, None):
                self._changed.notify_all()

    def _failed(self, batch: Batch) -> None:
        with self._changed:
            self._events.extendleft(reversed(batch.events))
            if self._batches.pop(batch.number, None):
                self._changed.notify_all()
