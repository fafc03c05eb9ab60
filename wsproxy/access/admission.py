"""Bounds what clients cost that have not proved themselves: how many there are, and what they log."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from ..runtime.deadline import Clock
from ..runtime.logs import get_logger
from ..runtime.timers import Housekeeping
from ..telemetry.counters import Counters
from .pending import Pending

__all__ = ["Admission"]

logger = get_logger("wsproxy.admission")

_LINES_A_SECOND = 100
_SECOND = 1.0


class Client(Protocol):
    """A connection that has not proved itself."""

    def abort(self) -> None:
        """Shut it down, so that its thread ends. Any thread, never blocks, idempotent."""
        ...


@dataclass
class _Second:
    """What happened since the last summary.

    :ivar closed: connections that had to go.
    :ivar last: the network of the last of them.
    :ivar pending: how many were pending then.
    :ivar most: how many of them came from one network.
    :ivar lines: log lines of refusals.
    :ivar unlogged: refusals without one.
    """

    closed: int = 0
    last: str = ""
    pending: int = 0
    most: int = 0
    lines: int = 0
    unlogged: int = 0


class Admission:
    """Knows who is pending, and makes room for others. Safe from every thread, never blocks.

    :param limit: how many clients may be pending.
    :param counters: told of each connection that had to go.
    :param housekeeping: calls :meth:`tick` once a second while there is something to sum up.
    """

    def __init__(
        self, limit: int, counters: Counters, housekeeping: Housekeeping, clock: Clock = time.monotonic
    ) -> None:
        self._limit = limit
        self._counters = counters
        self._housekeeping = housekeeping
        # Guards the attributes below. Held for calls to housekeeping, which holds no lock while it calls us.
        self._lock = threading.Lock()
        self._pending: Pending[Client] = Pending(limit, clock)
        self._leaving: set[Client] = set()  # shut down, but their threads have not ended yet
        self._second = _Second()
        self._ticking = False

    def admits(self, network: str) -> bool:
        """Make room for one more client from ``network``, by shutting another one down if need be.

        By the one thread that accepts: :meth:`add` follows if the answer is yes.

        :returns: False if it is the newcomer that has to go.
        """
        with self._lock:
            if not self._pending.full:
                return True
            self._note_closing(network)
            victim = None
            if len(self._leaving) < self._limit:
                victim = self._pending.take_victim(network)
            if victim is not None:
                self._leaving.add(victim)
        self._counters.turn_away()
        if victim is not None:
            victim.abort()
        return victim is not None

    def add(self, client: Client, network: str) -> None:
        """Count a client as pending from now on."""
        with self._lock:
            self._pending.add(client, network)

    def move(self, client: Client, network: str) -> None:
        """Count a client as one of another network, as a proxy in front has said that it is."""
        with self._lock:
            self._pending.move(client, network)

    def prove(self, client: Client) -> bool:
        """Count a client no more, as it may come in; return False if it was shut down before."""
        with self._lock:
            self._pending.remove(client)
            return client not in self._leaving

    def remove(self, client: Client) -> None:
        """Forget a client whose connection has ended."""
        with self._lock:
            self._pending.remove(client)
            self._leaving.discard(client)

    def refusal_level(self) -> int:
        """Return the log level for one more refusal: INFO, or DEBUG if there were many in this second."""
        with self._lock:
            self._tick_soon()
            if self._second.lines < _LINES_A_SECOND:
                self._second.lines += 1
                return logging.INFO
            self._second.unlogged += 1
            return logging.DEBUG

    def tick(self, now: float) -> float:
        """Housekeeping: see :class:`.Ticking`. Sums a second up; ends when there was nothing in it."""
        with self._lock:
            second, self._second = self._second, _Second()
            if second == self._second:
                self._ticking = False
                self._housekeeping.remove(self)
        if second.closed:
            logger.info(
                "%d connections closed before authentication, the last because of %s: "
                "%d were pending, %d of them from one address",
                second.closed,
                second.last,
                second.pending,
                second.most,
            )
        if second.unlogged:
            logger.info("%d more connections refused", second.unlogged)
        return now + _SECOND

    def _note_closing(self, network: str) -> None:
        second = self._second
        second.closed += 1
        second.last, second.pending, second.most = network, len(self._pending), self._pending.most
        self._tick_soon()

    def _tick_soon(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._housekeeping.add(self, _SECOND)
