"""Keeps screenshots for a few seconds, and limits how many are being taken. No I/O.

For five seconds, a screenshot serves every user that may see that screen. If a user asks while it is being
taken, the user waits for it. So a class that watches one machine costs the API as much as one student.
:class:`.AccessControl` decides beforehand which user may see which screen.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

from ..exceptions import LimitExceeded, Refused, UpstreamTimeout
from ..runtime.deadline import Clock, Deadline
from .in_flight import FairShare

__all__ = ["GOOD_SECONDS", "MAX_SIZE", "Screenshots", "Taken", "picture_fault"]

MAX_SIZE = 8 * 1024 * 1024
"""Most bytes of a screenshot. Only a 4K screen full of noise has more."""

GOOD_SECONDS = 5.0
"""For which a screenshot serves other requests."""

_BAD_SECONDS = 2.0  # for which a refusal serves other requests
_FORGET_SECONDS = 5.0  # between two looks for results that have expired
_MOST_TAKEN = 8  # at the same time, of all machines, shared among users
_MOST_ASKED = 4  # requests of one user at the same time, those that wait for a screenshot included
_MOST_KEPT = 256
_MOST_BYTES = 4 * MAX_SIZE

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">I4sIIBBBBB")  # the first chunk, without its checksum
_END = b"\0\0\0\0IEND\xaeB`\x82"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_MOST_PIXELS = 1 << 26  # which a browser must decompress


def picture_fault(data: bytes) -> str | None:
    """Return why ``data`` is not a whole PNG (W3C PNG, sections 5.2 and 11.2.2); None if it is one.

    This checks the first and the last chunk. The browser checks what is in between.
    """
    if not data.startswith(_SIGNATURE) or len(data) < len(_SIGNATURE) + _HEADER.size:
        return "it is not a PNG"
    size, kind, width, height, depth, colour, *methods = _HEADER.unpack_from(data, len(_SIGNATURE))
    if (size, kind) != (13, b"IHDR") or depth not in _DEPTHS.get(colour, ()):
        return "its PNG header is invalid"
    if methods not in ([0, 0, 0], [0, 0, 1]) or not 0 < width * height <= _MOST_PIXELS:
        return "its PNG header is invalid"
    return None if data.endswith(_END) else "it is cut short"


class Taken(NamedTuple):
    """A screenshot.

    :ivar age: seconds since it was taken, by another process.
    """

    picture: bytes
    age: float = 0.0


@dataclass(frozen=True)
class _Outcome:
    """The result of taking a screenshot.

    :ivar picture: the PNG; b"" if there is a refusal.
    :ivar refused: the refusal; None if there is a screenshot.
    :ivar until: when the result expires, by the cache's clock.
    """

    picture: bytes
    refused: Refused | None
    until: float

    def result(self) -> bytes:
        if self.refused:
            raise copy(self.refused)  # a copy, because several threads raise it
        return self.picture


class Screenshots:
    """The screenshots of one process. Safe from every thread.

    :param clock: seconds that never go backwards.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        # Guards the attributes below. No thread holds it while it takes a screenshot.
        self._changed = threading.Condition()
        self._outcomes: OrderedDict[Hashable, _Outcome] = OrderedDict()  # by machine, the oldest first
        self._taken: set[Hashable] = set()  # machines whose screenshot is being taken
        self._places = FairShare(_MOST_TAKEN)  # places for taking one
        self._asked: Counter[Hashable] = Counter()  # by user: requests that wait for one or take one

    def get(self, machine: Hashable, user: Hashable, take: Callable[[], Taken], deadline: Deadline) -> bytes:
        """Return a screenshot of a machine that is at most five seconds old.

        If another thread is taking one, this blocks until the deadline at most. Otherwise it calls ``take``,
        and blocks for as long as that does.

        :param machine: names the machine and its namespace. The caller has checked that the user may see it.
        :param user: the user that asks.
        :param take: takes a screenshot, or gets one that another process has taken, or raises
            :class:`.Refused`; called in this thread.
        :raises LimitExceeded: if too many screenshots are being taken, in all or for this user, or if the
            user waits for too many.
        :raises UpstreamTimeout: if the deadline passes while another thread takes the screenshot.
        :raises Refused: what ``take`` raised, in this thread, or in another one up to two seconds ago.
        """
        with self._changed:
            if known := self._known(machine):
                return known.result()
            if self._asked[user] >= _MOST_ASKED:
                raise _too_many("you are waiting for too many screenshots")
            self._asked[user] += 1
        try:
            return (self._awaited(machine, user, deadline) or self._take(machine, user, take)).result()
        finally:
            with self._changed:
                self._asked[user] -= 1
                if not self._asked[user]:
                    del self._asked[user]

    def tick(self, now: float) -> float:
        """Forget results that have expired. Housekeeping calls this, see :class:`.Ticking`."""
        with self._changed:
            for machine in [name for name, outcome in self._outcomes.items() if outcome.until <= now]:
                del self._outcomes[machine]
        return now + _FORGET_SECONDS

    def __len__(self) -> int:
        return len(self._outcomes)

    def _known(self, machine: Hashable) -> _Outcome | None:
        """Return a machine's result if it has not expired. Needs the lock."""
        outcome = self._outcomes.get(machine)
        return outcome if outcome and self._clock() < outcome.until else None

    def _awaited(self, machine: Hashable, user: Hashable, deadline: Deadline) -> _Outcome | None:
        """Return the result of another thread; None if this thread must take the screenshot, for all."""
        with self._changed:
            while (known := self._known(machine)) is None and machine in self._taken:
                try:
                    self._changed.wait(deadline.remaining())
                except TimeoutError:
                    raise UpstreamTimeout("the screenshot was not taken in time") from None
            if known is None:
                if not self._places.take(user):
                    raise _too_many("too many screenshots are being taken")
                self._taken.add(machine)
            return known

    def _take(self, machine: Hashable, user: Hashable, take: Callable[[], Taken]) -> _Outcome:
        outcome: _Outcome | None = None
        try:
            try:
                taken = take()
                outcome = _Outcome(taken.picture, None, self._clock() + GOOD_SECONDS - taken.age)
            except Refused as refused:
                outcome = _Outcome(b"", refused, self._clock() + _BAD_SECONDS)
            return outcome
        finally:
            with self._changed:
                self._taken.discard(machine)
                self._places.release(user)
                if outcome:
                    self._keep(machine, outcome)
                self._changed.notify_all()

    def _keep(self, machine: Hashable, outcome: _Outcome) -> None:
        """Keep a result, and drop the oldest ones if there are too many. Needs the lock."""
        self._outcomes[machine] = outcome
        self._outcomes.move_to_end(machine)
        size = sum(len(kept.picture) for kept in self._outcomes.values())
        while len(self._outcomes) > _MOST_KEPT or size > _MOST_BYTES:
            _, oldest = self._outcomes.popitem(last=False)
            size -= len(oldest.picture)


def _too_many(message: str) -> LimitExceeded:
    return LimitExceeded("screenshots", message, retry_after=2)
