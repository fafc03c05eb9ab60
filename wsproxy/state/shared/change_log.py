"""What has changed since when, for members that ask again and again. No I/O."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict

__all__ = ["ChangeLog"]

_SLACK = 64  # entries that are out of date, at least, before the log is made anew


class ChangeLog:
    """Names, in the order in which what they stand for last changed.

    Noting a change takes constant time on average. Reading takes time for what is read.

    :ivar version: grows with each change.
    """

    def __init__(self) -> None:
        self.version = 0
        self._versions: OrderedDict[str, int] = OrderedDict()  # of the last change; last changed stands last
        self._log: list[
            tuple[int, str]
        ] = []  # all changes; an entry that is not the last of its name is void

    def note(self, name: str) -> None:
        """Take note of a change."""
        self.version += 1
        self._versions[name] = self.version
        self._versions.move_to_end(name)
        self._log.append((self.version, name))
        if len(self._log) > 2 * len(self._versions) + _SLACK:
            self._log = [(version, name) for name, version in self._versions.items()]

    def forget(self, name: str) -> None:
        """Forget a name."""
        self._versions.pop(name, None)

    def oldest(self) -> str | None:
        """Return the name whose last change is the longest ago; None without any."""
        return next(iter(self._versions), None)

    def page(self, since: int, most: int) -> tuple[list[str], int, bool]:
        """Return the names that changed after a version, first those that changed first.

        :param most: how many names there may be.
        :returns: the names, the version to ask from next, and whether there are more.
        """
        found: list[str] = []
        for at in range(bisect_left(self._log, (since + 1,)), len(self._log)):
            version, name = self._log[at]
            if self._versions.get(name) == version:
                if len(found) == most:
                    return found, since, True
                found.append(name)
            since = version
        return found, self.version, False
