"""Pictures of screens: which are kept, who may have another one taken, and what is taken for one. No I/O.

A picture that somebody asked for is good for a few seconds for everybody who may see that screen, and
who asks while it is being taken waits for it. So a class that watches a machine costs the Kubernetes API as
much as one student. What may be seen by whom is decided before, by :class:`.AccessControl`.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import dataclass

from ..exceptions import LimitExceeded, Refused, UpstreamTimeout
from ..runtime.deadline import Clock, Deadline
from .in_flight import FairShare

__all__ = ["MAX_SIZE", "Screenshots", "picture_fault"]

MAX_SIZE = 8 * 1024 * 1024
"""Bytes of a picture, at most; one of 4K, of noise, has more, and no screen shows that."""

_GOOD_SECONDS = 5.0  # for so long a picture serves others
_BAD_SECONDS = 2.0  # and so long the reason why there is none
_MOST_TAKEN = 8  # at a time, of all machines, shared out among users
_MOST_ASKED = 4  # at a time, by one user; those that wait for a picture that is being taken included
_MOST_KEPT = 256
_MOST_BYTES = 4 * MAX_SIZE

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">I4sIIBBBBB")  # the first chunk, without its checksum
_END = b"\0\0\0\0IEND\xaeB`\x82"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_MOST_PIXELS = 1 << 26  # what a browser has to unpack


def picture_fault(data: bytes) -> str | None:
    """Return what makes ``data`` no whole picture (W3C PNG, sections 5.2 and 11.2.2); None if nothing does.

    What is between its first chunk and its last is left to whoever shows it.
    """
    if not data.startswith(_SIGNATURE) or len(data) < len(_SIGNATURE) + _HEADER.size:
        return "it is no PNG"
    size, kind, width, height, depth, colour, *methods = _HEADER.unpack_from(data, len(_SIGNATURE))
    if (size, kind) != (13, b"IHDR") or depth not in _DEPTHS.get(colour, ()):
        return "its header is none of PNG"
    if methods not in ([0, 0, 0], [0, 0, 1]) or not 0 < width * height <= _MOST_PIXELS:
        return "its header is none of PNG"
    return None if data.endswith(_END) else "it is cut short"


@dataclass(frozen=True)
class _Outcome:
    """What came of taking a picture.

    :ivar until: how long that counts.
    """

    picture: bytes
    refused: Refused | None
    until: float

    def result(self) -> bytes:
        if self.refused:
            raise copy(self.refused)  # several threads do
        return self.picture


class Screenshots:
    """The pictures of one process. Safe from every thread.

    :param clock: seconds that never go backwards.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        # Guards the attributes below. Never held while a picture is taken.
        self._changed = threading.Condition()
        self._outcomes: OrderedDict[Hashable, _Outcome] = OrderedDict()  # the oldest first
        self._taken: set[Hashable] = set()  # of which a picture is being taken
        self._places = FairShare(_MOST_TAKEN)  # for that
        self._asked: Counter[Hashable] = Counter()  # by user: how many wait, or take one

    def get(self, machine: Hashable, user: Hashable, take: Callable[[], bytes], deadline: Deadline) -> bytes:
        """Return a picture of a machine's screen that is seconds old at most.

        Blocks while another thread takes one, until the deadline; or for as long as ``take`` does.

        :param machine: names it, its namespace included; whoever asks may see it.
        :param user: who asks.
        :param take: takes a picture, or raises :class:`.Refused`; called in this thread.
        :raises LimitExceeded: if as many are being taken as may be, by all or by this user, or it waits for
            as many.
        :raises UpstreamTimeout: if the deadline passes first.
        :raises Refused: what ``take`` raised, for whoever asked at that time.
        """
        with self._changed:
            if known := self._known(machine):
                return known.result()
            if self._asked[user] >= _MOST_ASKED:
                raise _too_many("you are waiting for as many pictures as you may")
            self._asked[user] += 1
        try:
            return (self._awaited(machine, user, deadline) or self._take(machine, user, take)).result()
        finally:
            with self._changed:
                self._asked[user] -= 1
                if not self._asked[user]:
                    del self._asked[user]

    def tick(self, now: float) -> float:
        """Housekeeping: see :class:`.Ticking`. Forgets what serves nobody any more."""
        with self._changed:
            for machine in [name for name, outcome in self._outcomes.items() if outcome.until <= now]:
                del self._outcomes[machine]
        return now + _GOOD_SECONDS

    def __len__(self) -> int:
        return len(self._outcomes)

    def _known(self, machine: Hashable) -> _Outcome | None:
        """Return what was found out a moment ago. Needs the lock."""
        outcome = self._outcomes.get(machine)
        return outcome if outcome and self._clock() < outcome.until else None

    def _awaited(self, machine: Hashable, user: Hashable, deadline: Deadline) -> _Outcome | None:
        """Return what another thread finds out; None if this one has to, for whoever asks from now on."""
        with self._changed:
            while (known := self._known(machine)) is None and machine in self._taken:
                try:
                    self._changed.wait(deadline.remaining())
                except TimeoutError:
                    raise UpstreamTimeout("the picture was not taken in time") from None
            if known is None:
                if not self._places.take(user):
                    raise _too_many("as many pictures are being taken as may be")
                self._taken.add(machine)
            return known

    def _take(self, machine: Hashable, user: Hashable, take: Callable[[], bytes]) -> _Outcome:
        outcome: _Outcome | None = None
        try:
            try:
                outcome = _Outcome(take(), None, self._clock() + _GOOD_SECONDS)
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
        """Needs the lock."""
        self._outcomes[machine] = outcome
        self._outcomes.move_to_end(machine)
        size = sum(len(kept.picture) for kept in self._outcomes.values())
        while len(self._outcomes) > _MOST_KEPT or size > _MOST_BYTES:
            _, oldest = self._outcomes.popitem(last=False)
            size -= len(oldest.picture)


def _too_many(message: str) -> LimitExceeded:
    return LimitExceeded("screenshots", message, retry_after=2)
