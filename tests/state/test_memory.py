"""The store within one process, by itself and behind JSON, does what every store must."""

from __future__ import annotations

import json
import secrets
import unittest
from typing import Any

from wsproxy.state.store import Store
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.stores.remote import RemoteCalls, answer

from .conformance import conformance


class Memory:
    """A :class:`.Harness`. A restart with data begins an epoch, as a store does that finds its data."""

    def __init__(self) -> None:
        self.now, self.wall = 1000.0, 1.7e9
        self._memory = self._new(settled=True)
        self.store: Store = self._memory

    def _new(self, *, settled: bool) -> MemoryStore:
        return MemoryStore(lambda: self.now, lambda: self.wall, settled=settled)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def restart(self, *, data: bool) -> None:
        if data:
            self._memory._state.begin_epoch(secrets.token_hex(8), self.now)
        else:
            self._memory = self._new(settled=False)
            self.store = self._memory

    def close(self) -> None:
        self.store.close()


class Behind(RemoteCalls):
    """A store that is spoken to in JSON only."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(self._ask_by_text)
        self._memory = memory

    def _ask_by_text(self, operation: str, arguments: list[Any]) -> Any:
        sent = json.loads(json.dumps(arguments, allow_nan=False))
        return json.loads(json.dumps(answer(self._memory._memory, operation, sent), allow_nan=False))

    def listen(self, member: str, seconds: float) -> bool:
        return self._memory._memory.listen(member, seconds)

    def close(self) -> None:
        self._memory._memory.close()


class MemoryBehindJson(Memory):
    """The same, with every argument and result as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Behind(self)

    def restart(self, *, data: bool) -> None:
        super().restart(data=data)
        self.store = Behind(self)


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    behind_json = conformance(loader, MemoryBehindJson, without="test_bound")
    return unittest.TestSuite([tests, conformance(loader, Memory), behind_json])
