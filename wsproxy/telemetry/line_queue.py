"""The lines of a log that wait to be written, as many as there is room for, and how many were lost."""

from __future__ import annotations

from collections import deque

__all__ = ["LineQueue"]

_MOST_BYTES = 1 << 20  # in the queue
_ENOUGH_BYTES = _MOST_BYTES // 2  # once it was full, lines are lost until so few are left


class LineQueue:
    """Lines in their order, and numbers in the places of lost ones. Under a lock of its user's.

    :ivar lost: how many lines were lost so far.
    """

    def __init__(self) -> None:
        self._items: deque[bytes | int] = deque()  # a number stands for so many lost lines
        self._size = 0
        self._full = False
        self._complained = False
        self.lost = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def only_says_lost(self) -> bool:
        """Whether no line waits, but the number of lost ones does."""
        return len(self._items) == 1 and isinstance(self._items[0], int)

    def add(self, line: bytes) -> bool:
        """Put a line into the queue; return whether it is the first of several that are lost."""
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
        """Take out what is first: a line, or how many were lost in its place. The queue must not be empty."""
        item = self._items.popleft()
        if isinstance(item, bytes):
            self._size -= len(item)
        return item

    def lose_all(self, begun: bytes | int) -> bool:
        """Let what waits be lost; return whether that is the first of several.

        :param begun: what was taken last, if it is lost, too; nothing if empty.
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
        """The log says how many were lost: the next that is lost is the first of several again."""
        self._complained = False
