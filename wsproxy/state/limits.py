"""How many sessions and connections there may be, and how many failed attempts. No I/O.

A limit of 0 is none, and costs nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType

from ..exceptions import BadToken, Busy, LimitExceeded, Refused
from ..runtime.deadline import Clock
from ..telemetry.causes import LIMITS

__all__ = ["LimitRules", "Limits", "Slot"]


_MINUTE = 60.0
_ROUNDING = 1e-6  # seconds
_MOST_ADDRESSES = 65536  # whose failed attempts are remembered

_FOREIGN = " by foreign pages"

_UNLIMITED = nullcontext()

_Key = tuple[str, Hashable]


@dataclass(frozen=True)
class LimitRules:
    """How many there may be at a time; 0 for any number.

    :ivar sessions: sessions in all.
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


class Slot:
    """What counts until it is given back; nothing, where there is no limit or none was left."""

    def __init__(self, limits: Limits, keys: tuple[_Key, ...] = (), full: str = "") -> None:
        self._limits = limits
        self._keys = keys
        self._ending: tuple[_Key, ...] = ()  # those of them that are in nobody's way
        self._full = full

    def check(self) -> None:
        """Make sure that there was one left.

        :raises Busy: if there are as many sessions as there may be.
        :raises LimitExceeded: if another limit is reached.
        """
        if self._full:
            raise self._limits._refusal(self._full)

    def end(self, *limits: str) -> None:
        """Let somebody else in beside it: what has it is ending, but still costs what it did.

        As many as the limit may be ending and stand in nobody's way; further ones count as before, until
        others have been released. Any thread, never blocks, idempotent.

        :param limits: for which limits; without one, for all.
        """
        if self._keys:
            self._limits._end(self, limits)

    def release(self) -> None:
        """Count it no more. Any thread, never blocks; once only, however often it is called."""
        if self._keys:
            self._limits._release(self)


class Limits:
    """Counts what is limited, and refuses what is too much. Safe from every thread, never blocks.

    :param clock: seconds.
    """

    def __init__(self, rules: LimitRules, clock: Clock = time.monotonic) -> None:
        self._rules = rules
        self._clock = clock
        # Guards the attributes below, and what slots hold. Held for moments only.
        self._lock = threading.Lock()
        self._taken: Counter[_Key] = Counter()
        self._ending: Counter[_Key] = Counter()  # how many of these are ending
        self._hits: Counter[str] = Counter()
        # By network, or that and _FOREIGN: when its bucket will be full again. Who failed last stands last.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def hits(self) -> Mapping[str, int]:
        """Return how often each limit was hit so far, by all names of :data:`LIMITS`."""
        with self._lock:
            return {name: self._hits[name] for name in LIMITS}

    def hit(self, name: str) -> None:
        """Count that a limit was hit which is enforced elsewhere."""
        assert name in LIMITS
        with self._lock:
            self._hits[name] += 1

    def take_session(self, user: str | int, namespace: str, vmi: str, subresource: str) -> Slot:
        """Take a slot for a session of ``user`` with a console.

        :raises Busy: if there are as many sessions as there may be.
        :raises LimitExceeded: if the user or the console has as many.
        """
        rules, console = self._rules, (namespace, vmi, subresource)
        slot = self._take(
            ("sessions", None, rules.sessions), ("user", user, rules.user), ("vmi", console, rules.vmi)
        )
        slot.check()
        return slot

    def take_connection(self, network: str) -> Slot:
        """Take a slot for a connection that has not authenticated, and may not do so if there is none left.

        :param network: where it comes from: see :attr:`.Peer.network`.
        """
        return self._take(("address", network, self._rules.address))

    def _take(self, *wanted: tuple[str, Hashable, int]) -> Slot:
        limited = [((name, whose), most) for name, whose, most in wanted if most]
        if not limited:
            return Slot(self)
        with self._lock:
            for key, most in limited:
                if self._taken[key] - min(self._ending[key], most) >= most:
                    return Slot(self, full=key[0])
            keys = tuple(key for key, _ in limited)
            self._taken.update(keys)
            return Slot(self, keys)

    def _end(self, slot: Slot, limits: tuple[str, ...]) -> None:
        with self._lock:
            meant = [key for key in slot._keys if not limits or key[0] in limits]
            fresh = tuple(key for key in meant if key not in slot._ending)
            slot._ending += fresh
            self._ending.update(fresh)

    def _release(self, slot: Slot) -> None:
        with self._lock:
            _subtract(self._taken, slot._keys)
            _subtract(self._ending, slot._ending)
            slot._keys = slot._ending = ()

    # Failed attempts: two buckets for each network, which hold a minute's worth each and fill evenly.

    def attempt(self, network: str, *, foreign: bool = False) -> AbstractContextManager[object]:
        """``with`` it, a client tries to authenticate, and has failed if that raises :class:`.BadToken`.

        :param foreign: whether a foreign page may have had the client try. Such attempts count apart: it is
            the page that fails, and its visitor who would be shut out.
        :raises LimitExceeded: if too many attempts from its network have failed, whatever it brings now.
        """
        if not self._rules.failures:
            return _UNLIMITED
        return _Attempt(self, network + _FOREIGN if foreign else network)

    def _may_try(self, bucket: str) -> None:
        most = self._rules.failures
        with self._lock:
            full_in = self._full_at.get(bucket, -math.inf) - self._clock()
        wait = full_in - _MINUTE * (most - 1) / most  # until there is one attempt in it
        if wait > _ROUNDING:
            raise self._refusal("failures", math.ceil(wait - _ROUNDING))

    def _failed(self, bucket: str, attempts: float = 1.0) -> None:
        """Take note of an attempt that failed, which counts as so many.

        Of several at once all may fail that were let in before; the debt that is left, a bucketful at most,
        is paid by time.
        """
        most = self._rules.failures
        with self._lock:
            now = self._clock()
            full_at = max(self._full_at.get(bucket, now), now) + _MINUTE / most * attempts
            self._full_at[bucket] = min(full_at, now + 2 * _MINUTE)
            self._full_at.move_to_end(bucket)
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Forget the buckets that are full again, and the oldest if there are too many.

        Needs the lock. There is always one that stays.
        """
        while True:
            bucket, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= _MOST_ADDRESSES:
                return
            del self._full_at[bucket]

    def _refusal(self, name: str, retry_after: int = 5) -> Refused:
        """Count that a limit was hit, and return how to say so."""
        self.hit(name)
        if name == "sessions":
            return Busy("the proxy has as many sessions as it may", retry_after=retry_after)
        return LimitExceeded(name, _MESSAGES[name], retry_after=retry_after)


def _subtract(counter: Counter[_Key], keys: tuple[_Key, ...]) -> None:
    counter.subtract(keys)
    for key in keys:
        if not counter[key]:
            del counter[key]


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
    "user": "you have as many sessions as you may",
    "vmi": "this console has as many sessions as it may",
    "address": "too many connections from your address have not authenticated yet",
    "failures": "too many attempts from your address have failed",
}
