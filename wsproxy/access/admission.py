"""Bounds the cost of clients that have not authenticated: their number, and their lines in the log."""

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
    """A connection that has not authenticated."""

    def abort(self) -> None:
        """Shut the connection down, so that its thread ends. Any thread, never blocks, idempotent."""
        ...


@dataclass
class _Second:
    """What happened since the last summary.

    :ivar closed: connections that were closed to make room, newcomers included.
    :ivar last: the network of the newcomer that caused the last of these closes.
    :ivar pending: how many clients were pending then.
    :ivar most: how many of them came from the network that had most.
    :ivar lines: log lines of refusals.
    :ivar unlogged: refusals without a log line.
    """

    closed: int = 0
    last: str = ""
    pending: int = 0
    most: int = 0
    lines: int = 0
    unlogged: int = 0


class Admission:
    """Knows which clients are pending, and makes room for newcomers. Safe from every thread, never blocks.

    A client is pending until it has authenticated or left.

    :param limit: how many clients may be pending.
    :param counters: counts each connection that was closed to make room.
    :param housekeeping: calls :meth:`tick` once a second while there is something to sum up.
    """

    def __init__(
        self, limit: int, counters: Counters, housekeeping: Housekeeping, clock: Clock = time.monotonic
    ) -> None:
        self._limit = limit
        self._counters = counters
        self._housekeeping = housekeeping
        # Guards the attributes below. Held during calls to housekeeping, which calls us without its lock.
        self._lock = threading.Lock()
        self._pending: Pending[Client] = Pending(limit, clock)
        self._leaving: set[Client] = set()  # clients that were shut down, but whose threads have not ended
        self._second = _Second()
        self._ticking = False

    def admits(self, network: str) -> bool:
        """Make room for one more client from ``network``. If there is none, shut another client down.

        Only the thread that accepts calls this. If the answer is True, it calls :meth:`add` next.

        :returns: False if the newcomer itself must be closed.
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
        """Count a client as one of another network, because a trusted proxy in front named its address."""
        with self._lock:
            self._pending.move(client, network)

    def prove(self, client: Client) -> bool:
        """Stop counting a client, as it has authenticated; return False if it was shut down before."""
        with self._lock:
            self._pending.remove(client)
            return client not in self._leaving

    def remove(self, client: Client) -> None:
        """Forget a client whose connection has ended."""
        with self._lock:
            self._pending.remove(client)
            self._leaving.discard(client)

    def refusal_level(self) -> int:
        """Return the log level for one more refusal: INFO for 100 in a second, and DEBUG beyond."""
        with self._lock:
            self._tick_soon()
            if self._second.lines < _LINES_A_SECOND:
                self._second.lines += 1
                return logging.INFO
            self._second.unlogged += 1
            return logging.DEBUG

    def tick(self, now: float) -> float:
        """Log a summary of the last second; stop after a second without events. See :class:`.Ticking`."""
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
