"""Which clients have not proved themselves yet, and which of them goes when there are too many. No I/O."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Generic, TypeVar

from ..runtime.deadline import Clock

__all__ = ["PATIENCE", "Pending"]

PATIENCE = 1.0
"""Seconds for which a client keeps its place against newcomers whose network has as many clients as its own.

Enough for a request over a slow line; and a flood from everywhere costs ``limit`` replacements in that time
at most. Without it, as many clients as the limit that say nothing would keep everybody out."""

C = TypeVar("C")


class Pending(Generic[C]):
    """Clients by the network that they come from. Every call takes a constant time; not safe by itself.

    :param limit: how many there may be.
    :param clock: seconds.
    """

    def __init__(self, limit: int, clock: Clock = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._networks: dict[C, str] = {}
        # OrderedDicts, because finding the first key of a dict that has lost others takes time.
        self._clients: dict[str, OrderedDict[C, float]] = {}  # by network, the oldest first
        self._by_size: dict[int, OrderedDict[str, None]] = {}  # the networks that have so many clients
        self._most = 0

    def __len__(self) -> int:
        return len(self._networks)

    @property
    def full(self) -> bool:
        """Whether there is no room for one more."""
        return len(self) >= self._limit

    @property
    def most(self) -> int:
        """How many clients come from the network that has most."""
        return self._most

    def add(self, client: C, network: str) -> None:
        """Take a client in, whether there is room or not."""
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
        """Have a client, if it is known, come from another network. It is the newest one there."""
        if client in self._networks:
            self.remove(client)
            self.add(client, network)

    def take_victim(self, network: str) -> C | None:
        """Forget and return the client that has to make room for one more from ``network``.

        It is the oldest of the network that has most. If no other network would have more than the newcomer's
        own, only a client that has been here longer than :data:`PATIENCE` is taken.

        There must be a client.

        :returns: None if it is the newcomer that has to go.
        """
        own = len(self._clients.get(network, ()))
        fullest = network if own >= self._most else next(iter(self._by_size[self._most]))
        oldest, since = next(iter(self._clients[fullest].items()))
        if own + 1 >= self._most and self._clock() < since + PATIENCE:
            return None
        self.remove(oldest)
        return oldest

    def _resized(self, network: str, before: int) -> None:
        """Keep account of the sizes after a network got or lost one client."""
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
