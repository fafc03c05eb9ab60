"""Histograms: values that can be added, and sent to another process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Histogram", "Observations", "is_count"]

_MOST = 2**63  # small enough that sums of such numbers still fit a float, and a line of the log


@dataclass(frozen=True)
class Histogram:
    """How many observed numbers lie in each range.

    :ivar bounds: the upper bounds of the ranges, ascending and inclusive; the last range has none.
    :ivar counts: how many numbers lie in each range; one count more than there are bounds.
    :ivar total: the sum of all numbers.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float = 0.0

    @classmethod
    def empty(cls, *bounds: float) -> Histogram:
        """Return a histogram without any numbers."""
        return cls(bounds, (0,) * (len(bounds) + 1))

    def __add__(self, other: Histogram) -> Histogram:
        assert self.bounds == other.bounds
        counts = (mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds, tuple(counts), self.total + other.total)

    def cumulative(self) -> list[tuple[str, int]]:
        """Return each upper bound as text, ``+Inf`` for the last, with the count of all numbers up to it."""
        found, below = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            below += count
            found.append((bound, below))
        return found

    def to_json(self) -> dict[str, object]:
        """Return the value that :meth:`from_json` reads."""
        return {"counts": list(self.counts), "total": self.total}

    def from_json(self, found: object) -> Histogram:
        """Read another histogram with the same ranges.

        :raises ValueError: if the value is not such a histogram.
        """
        if not isinstance(found, Mapping) or found.keys() != {"counts", "total"}:
            raise ValueError("this is not a histogram")
        counts, total = found["counts"], found["total"]
        if not _are_counts(counts, len(self.counts)) or type(total) not in (int, float):
            raise ValueError("this is not a histogram")
        if not 0 <= total < _MOST:
            raise ValueError("this is not a histogram")
        return Histogram(self.bounds, tuple(counts), float(total))


class Observations:
    """A histogram that grows. The caller holds a lock.

    :param empty: a histogram with the same ranges.
    """

    def __init__(self, empty: Histogram) -> None:
        self._bounds = empty.bounds
        self._counts = list(empty.counts)
        self._total = empty.total

    def observe(self, number: float) -> None:
        """Add one number."""
        self._counts[bisect_left(self._bounds, number)] += 1
        self._total += number

    def histogram(self) -> Histogram:
        """Return the numbers that were observed so far."""
        return Histogram(self._bounds, tuple(self._counts), self._total)


def _are_counts(found: object, size: int) -> bool:
    return isinstance(found, Sequence) and len(found) == size and all(map(is_count, found))


def is_count(found: object) -> bool:
    """Whether a value is a plausible count: an integer from 0 to 2**63 - 1."""
    return type(found) is int and 0 <= found < _MOST
