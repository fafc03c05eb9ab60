"""Failed attempts to authenticate of the networks that fail often. No I/O.

A bucket is the time at which it is full again, as in :class:`.Limits`. A member pushes by how many seconds
its failures move that time. So the store knows no limit, and members with different limits share the buckets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ..membership import Failure
from ..store import PAGE

__all__ = ["FailureBuckets"]

_LONGEST = 120.0  # seconds: a bucketful of debt; see Limits
_MOST = 65536


class FailureBuckets:
    """The buckets that are not full.

    :ivar version: grows with each change.
    """

    def __init__(self) -> None:
        self.version = 0
        # With the time when it is full again, and the version of its last change; last changed stands last.
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def push(self, failures: Iterable[Failure], now: float) -> None:
        """Add failures. If there are too many buckets, those that failed first are forgotten."""
        for bucket, seconds in failures:
            full_at, _ = self._buckets.get(bucket, (now, 0))
            full_at = min(max(full_at, now) + max(seconds, 0.0), now + _LONGEST)
            self.version += 1
            self._buckets[bucket] = full_at, self.version
            self._buckets.move_to_end(bucket)
        while self._buckets:
            full_at, _ = next(iter(self._buckets.values()))
            if full_at > now and len(self._buckets) <= _MOST:
                break
            self._buckets.popitem(last=False)

    def changed(self, since: int, now: float) -> tuple[tuple[Failure, ...], int]:
        """Return the buckets that changed after a version, and the version to ask from next."""
        if since == self.version:
            return (), since
        found = []
        for bucket, (full_at, version) in reversed(self._buckets.items()):
            if version <= since:
                break
            found.append((version, Failure(bucket, max(full_at - now, 0.0))))
        page = found[-1 : -PAGE - 1 : -1]  # the first changed first
        version = page[-1][0] if len(found) > PAGE else self.version
        return tuple(failure for _, failure in page), version
