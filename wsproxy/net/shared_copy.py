"""What several processes fetch for each other: one of them at a time. No I/O.

Without a store in common each process fetches for itself, and so does one whose store is away.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..runtime.deadline import Clock

__all__ = ["ALONE", "CopyOf", "Fetched", "Found", "SharedCopy", "borrowed"]

_LOOK_AGAIN = 0.05  # seconds between two looks for what another process is fetching


class Found(NamedTuple):
    """What there is. Without a value, and if it is not the caller's turn, another process is fetching it.

    :ivar value: from a process that shares the store. The caller checks it as if it came from the network.
        None if there is nothing that is young enough.
    :ivar age: seconds since it was fetched.
    :ivar is_turn: whether the caller is to fetch it now, and then calls :meth:`.SharedCopy.keep` or
        :meth:`.SharedCopy.give_up`.
    """

    value: bytes | None = None
    age: float = 0.0
    is_turn: bool = False


class Fetched(NamedTuple):
    """What another process has fetched.

    :ivar after: a time by this process's clock; the fetch did not begin before.
    :ivar before: the same; the fetch did not begin later.
    """

    value: bytes
    after: float
    before: float


class SharedCopy(Protocol):
    """One thing that processes fetch for each other. Any thread. Each method blocks for a second at most."""

    def borrow(self, max_age: float) -> Found:
        """Return the value if it is that young, in seconds."""
        ...

    def keep(self, value: bytes, age: float) -> None:
        """Give others what this process has fetched.

        :param age: seconds since the fetch began.
        """
        ...

    def give_up(self) -> None:
        """Leave the turn to others, because fetching has failed."""
        ...


CopyOf = Callable[[str, float, float], SharedCopy]
"""Returns the copy of a name, from the seconds of one fetch at most, and those for which it is kept.

Whoever may use the value has to know all that the name is made of.
"""


class _Alone:
    """A :class:`SharedCopy` of a process that fetches for itself."""

    def borrow(self, max_age: float) -> Found:
        return Found(is_turn=True)

    def keep(self, value: bytes, age: float) -> None:
        pass

    def give_up(self) -> None:
        pass


ALONE = _Alone()


def borrowed(
    copy: SharedCopy, since: float, wait: Callable[[float], bool], clock: Clock = time.monotonic
) -> Fetched | None:
    """Return what another process has fetched; None if the caller is to fetch.

    Blocks while another process has its turn to fetch.

    :param since: time by ``clock``; what was fetched before is too old.
    :param wait: waits for some seconds, and returns whether to wait no longer. It may raise.
    """
    while True:
        asked = clock()
        found = copy.borrow(asked - since)
        if found.value is not None:
            return Fetched(found.value, asked - found.age, clock() - found.age)
        if found.is_turn or wait(_LOOK_AGAIN):
            return None
