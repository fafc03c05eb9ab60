"""The store within one process, with a clock that the test has."""

from __future__ import annotations

import secrets

from wsproxy.state.store import Store
from wsproxy.state.stores.memory import MemoryStore

__all__ = ["Memory"]


class Memory:
    """A :class:`.Harness`. A restart with data begins an epoch, as a store does that finds its data."""

    def __init__(self) -> None:
        self.now, self.wall = 1000.0, 1.7e9
        self.memory = self._new(settled=True)
        self.store: Store = self.memory

    def _new(self, *, settled: bool) -> MemoryStore:
        return MemoryStore(lambda: self.now, lambda: self.wall, settled=settled)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def restart(self, *, data: bool) -> None:
        if data:
            self.memory._state.begin_epoch(secrets.token_hex(8), self.now)
        else:
            self.memory = self._new(settled=False)
            self.store = self.memory

    def sizes(self) -> dict[str, int]:
        """Return how many things the store remembers, by kind."""
        return dict(self.memory._state.sizes)

    def close(self) -> None:
        self.store.close()
