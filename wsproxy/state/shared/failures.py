"""Failed attempts to authenticate of the networks that fail often. No I/O.

A bucket is the time at which it is full again, as in :class:`.Limits`. A member pushes by how many seconds
its failures move that time. So the store knows no limit, and members with different limits share the buckets.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..membership import Failure
from ..store import PAGE
from .change_log import ChangeLog

__all__ = ["FailureBuckets"]

_LONGEST = 120.0  # seconds: a bucketful of debt; see Limits
_MOST = 65536


class FailureBuckets:
    """The buckets that are not full."""

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}
        self._changes = ChangeLog()

    def __len__(self) -> int:
        return len(self._full_at)

    def push(self, failures: Iterable[Failure], now: float) -> None:
        """Add failures. If there are too many buckets, those that failed first are forgotten."""
        for bucket, seconds in failures:
            full_at = max(self._full_at.get(bucket, now), now) + max(seconds, 0.0)
            self._full_at[bucket] = min(full_at, now + _LONGEST)
            self._changes.note(bucket)
        while (oldest := self._changes.oldest()) is not None:
            if self._full_at[oldest] > now and len(self) <= _MOST:
                break
            self._changes.forget(oldest)
            del self._full_at[oldest]

    def changed(self, since: int, now: float) -> tuple[tuple[Failure, ...], int]:
        """Return the buckets that changed after a version, and the version to ask from next."""
        if since == self._changes.version:
            return (), since
        buckets, version, _ = self._changes.page(since, PAGE)
        return tuple(Failure(one, max(self._full_at[one] - now, 0.0)) for one in buckets), version
