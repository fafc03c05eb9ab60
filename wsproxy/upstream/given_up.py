"""Requests that the proxy has given up, but that the API may still carry out."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from ..net.transport import Transport
from ..runtime.deadline import Clock
from ..runtime.timers import Housekeeping

__all__ = ["GivenUpDials"]

_SECONDS = 90.0
_LOOK_SECONDS = 1.0
_MOST_KEPT = 256  # connections
_MOST_TIMED = 4096

_OnOver = Callable[[], None]


class GivenUpDials:
    """Keeps the connections of such requests until the API has closed them, or 90 s have passed.

    As far as the proxy can know, the API does not carry out a request after that. Safe from every thread.

    :param housekeeping: calls :meth:`tick` while there are such requests.
    :param clock: seconds.
    """

    def __init__(self, housekeeping: Housekeeping, clock: Clock = time.monotonic) -> None:
        self._housekeeping = housekeeping
        self._clock = clock
        # Guards the attributes below. Held during calls to housekeeping, which holds no lock while it ticks.
        self._lock = threading.Lock()
        self._stopped = False
        # Both map the callback of a request to the latest time of its call, the oldest request first.
        self._kept: OrderedDict[_OnOver, tuple[float, Transport]] = OrderedDict()
        self._timed: OrderedDict[_OnOver, float] = OrderedDict()  # connection closed to make room for others
        self._closed: set[_OnOver] = set()  # the API had closed the connection at the last look

    def __len__(self) -> int:
        return len(self._kept) + len(self._timed)

    def add(self, transport: Transport, on_over: Callable[[], None]) -> None:
        """Shut a connection down, and keep it. Never blocks.

        :param transport: this object owns it from now on, and closes it in the end.
        :param on_over: called once, by any thread, when the request no longer counts; must not block.
        """
        transport.abort()
        over = []
        with self._lock:
            if self._stopped:
                transport.close()
                over.append(on_over)
            else:
                if not len(self):
                    self._housekeeping.add(self, _LOOK_SECONDS)
                self._kept[on_over] = self._clock() + _SECONDS, transport
                over += self._make_room()
        for call in over:
            call()

    def _make_room(self) -> list[_OnOver]:
        """Close the oldest connection if there are too many. Needs the lock.

        Its request still counts until its time. If too many such requests count, the oldest one stops.

        :returns: the callback of a request that no longer counts, if there is one.
        """
        if len(self._kept) > _MOST_KEPT:
            on_over, (until, transport) = self._kept.popitem(last=False)
            transport.close()
            self._timed[on_over] = until
        return [self._timed.popitem(last=False)[0]] if len(self._timed) > _MOST_TIMED else []

    def tick(self, now: float) -> float:
        """Housekeeping: see :class:`.Ticking`.

        If the API has closed a connection, its request counts until the next look. The user whose console
        it took may lose the connection only a moment later.
        """
        with self._lock:
            over = [one for one, (until, _) in self._kept.items() if one in self._closed or now >= until]
            for on_over in over:
                self._kept.pop(on_over)[1].close()
            self._closed = {one for one, (_, kept) in self._kept.items() if kept.peer_has_closed()}
            while self._timed and next(iter(self._timed.values())) <= now:
                over.append(self._timed.popitem(last=False)[0])
            if not len(self):
                self._housekeeping.remove(self)
        for on_over in over:
            on_over()
        return now + _LOOK_SECONDS

    def stop(self) -> None:
        """Close all connections, and from now on each one that is added. Idempotent."""
        with self._lock:
            self._stopped = True
            over = [*self._kept, *self._timed]
            for _, transport in self._kept.values():
                transport.close()
            self._kept.clear()
            self._timed.clear()
        for on_over in over:
            on_over()
