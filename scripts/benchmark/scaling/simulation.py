"""Simulates many clients that open consoles at the same time. No I/O.

Each replica serves one opening after the other, as its Python does. So does the store that they share. Each
client goes to a replica at random. If too many wait there, the replica turns the client away, which tries
again as the console page does.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Outcome", "class_begins", "zone_lost"]

_PENDING = 512  # clients of one replica that have not authenticated: the setting max_pending
_FIRST_DELAY, _LONGEST_DELAY, _DOUBLINGS = 1.0, 30.0, 5  # of the console page, seconds
_LIMIT_DELAY = 5.0  # of the console page, after a limit
_SECOND = 1.0


@dataclass(frozen=True)
class Outcome:
    """What became of the clients.

    :ivar p50, p99, last: seconds from the first attempt until a client had its console.
    :ivar peak: openings in the busiest second.
    :ivar busiest: share of its time that the busiest replica spent on openings in its busiest second.
    :ivar attempts: attempts for each client.
    """

    p50: float
    p99: float
    last: float
    peak: int
    busiest: float
    attempts: float


def class_begins(
    clients: int, seconds: float, replicas: int, open_cpu: float, store_cpu: float, seed: int = 1
) -> Outcome:
    """Simulate clients that come at random within some seconds.

    :param open_cpu: microseconds of a replica for one opening.
    :param store_cpu: microseconds of the store for one opening.
    """
    chance = random.Random(seed)
    arrivals = [chance.uniform(0, seconds) for _ in range(clients)]
    return _Simulation(arrivals, replicas, open_cpu / 1e6, store_cpu / 1e6, 0.0, chance).run()


def zone_lost(
    clients: int, replicas: int, open_cpu: float, store_cpu: float, held_for: float, seed: int = 1
) -> Outcome:
    """Simulate clients that lost their consoles at the same moment, and notice it at once.

    :param replicas: those that are left.
    :param open_cpu: microseconds of a replica for one opening.
    :param store_cpu: microseconds of the store for one opening.
    :param held_for: seconds for which limits still count the sessions of the lost replicas; 0 if no client is
        at its limit.
    """
    chance = random.Random(seed)
    arrivals = [_later(chance, _FIRST_DELAY, 0) for _ in range(clients)]
    return _Simulation(arrivals, replicas, open_cpu / 1e6, store_cpu / 1e6, held_for, chance).run()


def _later(chance: random.Random, first: float, failures: int) -> float:
    """Return the seconds until the page tries again."""
    delay = min(_LONGEST_DELAY, first * 2.0 ** min(failures, _DOUBLINGS))
    return delay * (0.75 + 0.5 * chance.random())


class _Simulation:
    """One simulation. Times are in seconds."""

    def __init__(
        self,
        arrivals: Sequence[float],
        replicas: int,
        service: float,
        store_service: float,
        held_for: float,
        chance: random.Random,
    ) -> None:
        self._begun = [0.0 if held_for else at for at in arrivals]
        self._service = service
        self._store_service = store_service
        self._held_for = held_for
        self._chance = chance
        # When, whether the replica has done its part, the client, and its failures so far.
        self._events = [(at, False, client, 0) for client, at in enumerate(arrivals)]
        heapq.heapify(self._events)
        self._free = [0.0] * replicas  # when each replica has served all who wait
        self._store_free = 0.0
        self._load: Counter[tuple[int, int]] = Counter()  # openings by replica and second
        self._passed: Counter[int] = Counter()  # openings that the store decided, by second
        self._waits: list[float] = []
        self._attempts = 0

    def run(self) -> Outcome:
        """Simulate until every client has its console."""
        while self._events:
            at, is_served, client, failures = heapq.heappop(self._events)
            if is_served:
                self._ask_store(at, client, failures)
            else:
                self._arrive(at, client, failures)
        return self._outcome()

    def _arrive(self, at: float, client: int, failures: int) -> None:
        self._attempts += 1
        replica = self._chance.randrange(len(self._free))
        if self._free[replica] - at > _PENDING * self._service:
            self._try_again(at, _FIRST_DELAY, client, failures)
            return
        self._free[replica] = done = max(self._free[replica], at) + self._service
        self._load[replica, int(done / _SECOND)] += 1
        heapq.heappush(self._events, (done, True, client, failures))

    def _ask_store(self, at: float, client: int, failures: int) -> None:
        self._store_free = done = max(self._store_free, at) + self._store_service
        self._passed[int(done / _SECOND)] += 1
        if done < self._held_for:
            self._try_again(done, _LIMIT_DELAY, client, failures)
        else:
            self._waits.append(done - self._begun[client])

    def _try_again(self, at: float, first: float, client: int, failures: int) -> None:
        again = at + _later(self._chance, first, failures)
        heapq.heappush(self._events, (again, False, client, failures + 1))

    def _outcome(self) -> Outcome:
        waits = sorted(self._waits)
        return Outcome(
            p50=waits[len(waits) // 2],
            p99=waits[len(waits) - 1 - len(waits) // 100],
            last=waits[-1],
            peak=max(self._passed.values()),
            busiest=min(max(self._load.values()) * self._service / _SECOND, 1.0),
            attempts=self._attempts / len(waits),
        )
