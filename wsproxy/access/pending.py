"""Which clients have not authenticated yet, and which one must go if there are too many. No I/O."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Generic, TypeVar

from ..runtime.deadline import Clock

__all__ = ["PATIENCE", "Pending"]

PATIENCE = 1.0
"""Seconds until a client may lose its place to a newcomer whose network has as many clients as its own.

That is enough for a request over a slow line. A flood from many networks can replace at most ``limit``
clients in that time. If no client lost its place, ``limit`` silent clients would keep all others out."""

C = TypeVar("C")


class Pending(Generic[C]):
    """The pending clients, by network. Every call takes constant time. The caller holds a lock.

    :param limit: how many clients there may be.
    :param clock: seconds.
    """

    def __init__(self, limit: int, clock: Clock = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._networks: dict[C, str] = {}
        # OrderedDicts, because a plain dict finds its first key slowly after keys were removed.
        self._clients: dict[str, OrderedDict[C, float]] = {}  # by network, the oldest first
        self._by_size: dict[int, OrderedDict[str, None]] = {}  # networks, by their number of clients
        self._most = 0

    def __len__(self) -> int:
        return len(self._networks)

    @property
    def full(self) -> bool:
        """Whether there is no room for one more."""
        return len(self) >= self._limit

    @property
    def most(self) -> int:
        """How many clients the network has that has most."""
        return self._most

    def add(self, client: C, network: str) -> None:
        """Add a client, whether or not there is room."""
        self._networks[client] = network
        clients = self._clients.setdefault(network, OrderedDict())
        clients[client] = self._clock()
        self._resized(network, len(clients) - 1)

    def remove(self, client: C) -> None:
        """Forget a client, if it is known."""
        network = self._networks.pop(client, None)
        if network is None:
            return
        clients = self._clients[network]
        del clients[client]
        self._resized(network, len(clients) + 1)

    def move(self, client: C, network: str) -> None:
        """Count a client, if it is known, for another network, as the newest one there."""
        if client in self._networks:
            self.remove(client)
            self.add(client, network)

    def take_victim(self, network: str) -> C | None:
        """Forget and return the client that must make room for one more from ``network``.

        That is the oldest client of the network that has most. If the newcomer's own network would then have
        at least as many as any other, the client must have been here for :data:`PATIENCE`.

        There must be a client.

        :returns: None if the newcomer must go.
        """
        own = len(self._clients.get(network, ()))
        fullest = network if own >= self._most else next(iter(self._by_size[self._most]))
        oldest, since = next(iter(self._clients[fullest].items()))
        if own + 1 >= self._most and self._clock() < since + PATIENCE:
            return None
        self.remove(oldest)
        return oldest

    def _resized(self, network: str, before: int) -> None:
        """Update the sizes after a network has gained or lost one client."""
        now = len(self._clients[network])
        if before:
            same = self._by_size[before]
            del same[network]
            if not same:
                del self._by_size[before]
        if now:
            self._by_size.setdefault(now, OrderedDict())[network] = None
        else:
            del self._clients[network]
        if now > self._most or self._most not in self._by_size:
            self._most = now
