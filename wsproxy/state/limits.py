"""Limits the number of connections, and of failed attempts to authenticate. No I/O.

A limit of 0 means that there is no limit; it costs nothing. The store decides on the limits of sessions.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from types import TracebackType

from ..exceptions import BadToken, LimitExceeded, Refused
from ..runtime.deadline import Clock
from ..telemetry.causes import LIMITS
from .membership import Failure
from .values import SlotLimits

__all__ = ["AddressSlot", "LimitRules", "Limits", "Slot"]


_MINUTE = 60.0
_ROUNDING = 1e-6  # seconds
_MOST_ADDRESSES = 65536  # networks whose failed attempts are remembered

_MOST_TOLD = 1000  # networks in one beat

_FOREIGN = " by foreign pages"

_UNLIMITED = nullcontext()


@dataclass(frozen=True)
class LimitRules:
    """The limits; 0 for no limit.

    :ivar sessions: sessions in all, those that are being opened included; so for the next two.
    :ivar user: sessions of one user.
    :ivar vmi: sessions with one subresource of one VMI.
    :ivar address: connections from one address that have not authenticated.
    :ivar failures: failed attempts to authenticate, from one address in a minute.
    """

    sessions: int = 0
    user: int = 0
    vmi: int = 0
    address: int = 0
    failures: int = 0

    @property
    def slots(self) -> SlotLimits:
        """The limits of sessions."""
        return SlotLimits(self.sessions, self.user, self.vmi)


class Slot:
    """One connection under the limit of its network, which counts until :meth:`release`.

    If there is no limit, or no place was left, the slot counts nothing.
    """

    def __init__(self, limits: Limits, network: str | None = None, *, full: bool = False) -> None:
        self._limits = limits
        self._network = network  # None if it counts nothing, or no more
        self._is_ending = False
        self._is_full = full

    def check(self) -> None:
        """Raise if no slot was left.

        :raises LimitExceeded: if the limit is reached.
        """
        if self._is_full:
            raise self._limits._refusal("address")

    def end(self) -> None:
        """Let another slot be taken beside this one, whose connection is ending but still uses resources.

        Of each network, as many ending slots as the limit do not count. Further ones count as before, until
        others have been released. Any thread, never blocks, idempotent.
        """
        if self._network is not None:
            self._limits._end(self)

    def release(self) -> None:
        """Stop counting the slot. Any thread, never blocks, idempotent."""
        if self._network is not None:
            self._limits._release(self)


class Limits:
    """Counts what is limited, and refuses what exceeds a limit. Safe from every thread, never blocks.

    :param clock: seconds.
    """

    def __init__(self, rules: LimitRules, clock: Clock = time.monotonic) -> None:
        self._rules = rules
        self._clock = clock
        # Guards the attributes below, and what slots hold. Held for moments only.
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()  # by network
        self._ending: Counter[str] = Counter()  # how many of the taken slots are ending
        self._hits: Counter[str] = Counter()
        # By bucket: the seconds that it fills later, which other processes have not been told.
        self._to_tell: dict[str, float] = {}
        self._worth_telling: dict[str, None] = {}  # those of them that failed at half of their share
        self._share = _MINUTE / 2  # that half, as seconds until a bucket is full again
        # By network, or network and _FOREIGN: when its bucket will be full again. The latest failure is last.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def hits(self) -> Mapping[str, int]:
        """Return how often each limit of :data:`LIMITS` was hit so far."""
        with self._lock:
            return {name: self._hits[name] for name in LIMITS}

    def hit(self, name: str) -> None:
        """Count a hit of a limit that is enforced elsewhere."""
        assert name in LIMITS
        with self._lock:
            self._hits[name] += 1

    def take_connection(self, network: str) -> Slot:
        """Take a slot for a connection that has not authenticated.

        If no slot is left, this does not raise, but :meth:`Slot.check` of the slot does.

        :param network: the client's network: see :attr:`.Peer.network`.
        """
        most = self._rules.address
        if not most:
            return Slot(self)
        with self._lock:
            if self._taken[network] - min(self._ending[network], most) >= most:
                return Slot(self, full=True)
            self._taken[network] += 1
            return Slot(self, network)

    def _end(self, slot: Slot) -> None:
        with self._lock:
            if slot._network is not None and not slot._is_ending:
                slot._is_ending = True
                self._ending[slot._network] += 1

    def _release(self, slot: Slot) -> None:
        with self._lock:
            network, slot._network = slot._network, None
            if network is not None:
                _subtract(self._taken, network)
                if slot._is_ending:
                    _subtract(self._ending, network)

    # Failed attempts: each network has two buckets, which hold a minute's attempts each and fill evenly.

    def attempt(self, network: str, *, foreign: bool = False) -> AbstractContextManager[object]:
        """Return a context in which a client tries to authenticate. The attempt fails by :class:`.BadToken`.

        :param foreign: whether a foreign page may have made the client try. Such attempts count separately,
            because otherwise a page's failures would lock out its visitor.
        :raises LimitExceeded: on entry, if too many attempts from the network have failed, whatever token the
            client brings.
        """
        if not self._rules.failures:
            return _UNLIMITED
        return _Attempt(self, network + _FOREIGN if foreign else network)

    def _may_try(self, bucket: str) -> None:
        most = self._rules.failures
        with self._lock:
            full_in = self._full_at.get(bucket, -math.inf) - self._clock()
        wait = full_in - _MINUTE * (most - 1) / most  # until the bucket has one attempt
        if wait > _ROUNDING:
            raise self._refusal("failures", math.ceil(wait - _ROUNDING))

    def _failed(self, bucket: str, attempts: float = 1.0) -> None:
        """Note a failed attempt.

        Several concurrent attempts may all fail, so a bucket may go into debt, by one bucketful at most.

        :param attempts: how many attempts it counts as.
        """
        most = self._rules.failures
        with self._lock:
            now = self._clock()
            cost = _MINUTE / most * attempts
            full_at = max(self._full_at.get(bucket, now), now) + cost
            self._full_at[bucket] = min(full_at, now + 2 * _MINUTE)
            self._full_at.move_to_end(bucket)
            self._to_tell[bucket] = self._to_tell.get(bucket, 0.0) + cost
            if full_at >= now + self._share:
                self._worth_telling[bucket] = None
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Forget the buckets that are full again, and the oldest if there are too many. Needs the lock.

        The bucket of the attempt that has just failed always stays.
        """
        while True:
            bucket, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= _MOST_ADDRESSES:
                return
            del self._full_at[bucket]
            self._to_tell.pop(bucket, None)
            self._worth_telling.pop(bucket, None)

    def failures_to_tell(self, members: int) -> tuple[Failure, ...]:
        """Return what other processes have to know of failed attempts, once. Any thread, never blocks.

        They need not know of a network that has failed at less than half of its share of the limit.

        :param members: the number of processes.
        """
        with self._lock:
            self._share = _MINUTE / 2 / max(members, 1)
            buckets = list(islice(self._worth_telling, _MOST_TOLD))
            for bucket in buckets:
                del self._worth_telling[bucket]
            return tuple(Failure(bucket, self._to_tell.pop(bucket)) for bucket in buckets)

    def learn_failures(self, failures: Iterable[Failure]) -> None:
        """Take note of what failed at all processes together. Any thread, never blocks."""
        with self._lock:
            now = self._clock()
            for bucket, seconds in failures:
                full_at = max(self._full_at.get(bucket, now), now + seconds)
                self._full_at[bucket] = min(full_at, now + 2 * _MINUTE)
                self._full_at.move_to_end(bucket)
            if self._full_at:
                self._forget(now)

    def _refusal(self, name: str, retry_after: int = 5) -> Refused:
        """Count that a limit was hit, and return the refusal."""
        self.hit(name)
        return LimitExceeded(name, _MESSAGES[name], retry_after=retry_after)


def _subtract(counter: Counter[str], network: str) -> None:
    counter[network] -= 1
    if not counter[network]:
        del counter[network]


class _Attempt:
    """An attempt to authenticate. Each opening makes one, so this is no generator, which costs thrice that.

    :param bucket: which it counts in if it fails.
    """

    __slots__ = ("_bucket", "_limits")

    def __init__(self, limits: Limits, bucket: str) -> None:
        self._limits = limits
        self._bucket = bucket

    def __enter__(self) -> None:
        self._limits._may_try(self._bucket)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, BadToken):
            self._limits._failed(self._bucket, exc.attempts)


_MESSAGES = {
    "address": "too many connections from your address have not authenticated yet",
    "failures": "too many attempts from your address have failed",
}


class AddressSlot:
    """Counts a connection that has not authenticated, by the address of its client.

    :param network: where it comes from: see :attr:`.Peer.network`.
    """

    def __init__(self, limits: Limits, network: str) -> None:
        self._limits = limits
        self._network = network
        self._slot = limits.take_connection(network)

    def check(self, network: str) -> None:
        """Make sure that one was left for the client's network, which is perhaps not the peer's.

        :raises LimitExceeded: if not.
        """
        if network != self._network:
            self._slot.release()
            self._network = network
            self._slot = self._limits.take_connection(network)
        self._slot.check()

    def end(self) -> None:
        """See :meth:`Slot.end`."""
        self._slot.end()

    def release(self) -> None:
        """See :meth:`Slot.release`."""
        self._slot.release()
