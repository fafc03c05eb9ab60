"""A bounded queue of log lines that wait to be written, with the numbers of lost lines."""

from __future__ import annotations

from collections import deque

__all__ = ["LineQueue"]

_MOST_BYTES = 1 << 20  # in the queue
_ENOUGH_BYTES = _MOST_BYTES // 2  # a full queue takes lines again once it is down to this


class LineQueue:
    """Lines in their order, with a number in the place of lost lines. The caller holds a lock.

    :ivar lost: how many lines were lost so far.
    """

    def __init__(self) -> None:
        self._items: deque[bytes | int] = deque()  # a number stands for that many lost lines
        self._size = 0
        self._full = False
        self._complained = False
        self.lost = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def only_says_lost(self) -> bool:
        """Whether the queue holds nothing but the number of lost lines."""
        return len(self._items) == 1 and isinstance(self._items[0], int)

    def add(self, line: bytes) -> bool:
        """Add a line, or lose it if the queue is full; return whether it begins a series of losses."""
        if self._size <= _ENOUGH_BYTES:
            self._full = False
        if self._full or self._size + len(line) > _MOST_BYTES:
            self._full = True
            self.lost += 1
            number = self._items.pop() if self._items and isinstance(self._items[-1], int) else 0
            assert isinstance(number, int)
            self._items.append(number + 1)
            first, self._complained = not self._complained, True
            return first
        self._items.append(line)
        self._size += len(line)
        return False

    def take(self) -> bytes | int:
        """Remove and return the first item: a line, or a number of lost lines. There must be one."""
        item = self._items.popleft()
        if isinstance(item, bytes):
            self._size -= len(item)
        return item

    def lose_all(self, begun: bytes | int) -> bool:
        """Lose all waiting lines; return whether that begins a series of losses.

        :param begun: the item that was taken last, if it is lost, too; b"" or 0 if not.
        """
        items = [*self._items, begun] if begun else self._items
        numbers = sum(item for item in items if isinstance(item, int))
        lines = sum(isinstance(item, bytes) for item in items)
        self.lost += lines
        self._size = 0
        self._items = deque([numbers + lines] if numbers + lines else ())
        first, self._complained = bool(lines) and not self._complained, self._complained or bool(lines)
        return first

    def note_told(self) -> None:
        """Record that the log tells of the losses, so that the next lost line begins a new series."""
        self._complained = False
