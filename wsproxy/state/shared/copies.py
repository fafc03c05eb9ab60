"""Copies of what processes fetch for each other, and whose turn it is to fetch. No I/O."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from ..membership import Copy
from ..store import MOST_TEXT

__all__ = ["CopyBook"]

_MOST_TEXTS = 32 * 1024 * 1024  # characters of all copies
_MOST = 256  # copies, and turns
_MOST_NAME = 200  # characters
_LONGEST = 86_400.0  # seconds for which a copy is kept
_LONGEST_TURN = 60.0


class _Kept(NamedTuple):
    text: str
    made: float
    until: float


class _Turn(NamedTuple):
    member: str
    until: float


class CopyBook:
    """Copies by name."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # the one that was kept first stands first
        self._turns: dict[str, _Turn] = {}
        self._size = 0  # characters
        self._next_end = math.inf  # nothing ends before

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def turns(self) -> int:
        """How many turns have not ended."""
        return len(self._turns)

    def borrow(self, member: str, name: str, max_age: float, turn_seconds: float, now: float) -> Copy:
        """Return the copy if it is young enough; else give the turn to the member, if nobody has it."""
        self._drop_old(now)
        kept = self._kept.get(name)
        if kept and now - kept.made <= max_age:
            return Copy(kept.text, now - kept.made)
        turn = self._turns.get(name)
        if turn and turn.member != member:
            return Copy()
        if turn or (len(self._turns) < _MOST and len(name) <= _MOST_NAME):
            self._turns[name] = _Turn(member, now + min(turn_seconds, _LONGEST_TURN))
            self._note_end(self._turns[name].until)
        return Copy(is_turn=True)

    def keep(self, member: str, name: str, text: str | None, seconds: float, age: float, now: float) -> None:
        """End a member's turn, and keep what it has fetched. Without the turn nothing happens."""
        self._drop_old(now)
        turn = self._turns.get(name)
        if turn is None or turn.member != member:
            return
        del self._turns[name]
        if text is None or len(text) > MOST_TEXT:
            return
        self._drop(name)
        self._kept[name] = _Kept(text, now - max(age, 0.0), now + min(seconds, _LONGEST))
        self._size += len(text)
        self._note_end(self._kept[name].until)
        while len(self._kept) > _MOST or self._size > _MOST_TEXTS:
            self._drop(next(iter(self._kept)))

    def forget(self, member: str) -> None:
        """End all turns of a member."""
        self._turns = {name: turn for name, turn in self._turns.items() if turn.member != member}

    def _note_end(self, end: float) -> None:
        self._next_end = min(self._next_end, end)

    def _drop_old(self, now: float) -> None:
        """Drop the copies and the turns whose time is over."""
        if now < self._next_end:
            return
        self._turns = {name: turn for name, turn in self._turns.items() if turn.until > now}
        for name in [name for name, kept in self._kept.items() if kept.until <= now]:
            self._drop(name)
        ends = [turn.until for turn in self._turns.values()] + [kept.until for kept in self._kept.values()]
        self._next_end = min(ends, default=math.inf)

    def _drop(self, name: str) -> None:
        if kept := self._kept.pop(name, None):
            self._size -= len(kept.text)
