"""Several processes with a Redis: they die, stop, are cut off, and lose the store, and all rules hold."""

from __future__ import annotations

import signal

from tests.integration.programs import needs
from tests.members import run
from tests.members.machine import COUNT, Place, ProcessMachine
from tests.shared.stores import RedisBehindLinks

__all__: list[str] = []

_SAVED = "saved.rdb"


class _Redis(Place):
    """A redis-server, which each process reaches through a network of its own."""

    can_cut = True

    def __init__(self) -> None:
        self._store = RedisBehindLinks(COUNT)
        self._store.save(_SAVED)

    def url(self, slot: int) -> str:
        return self._store.url(slot)

    def end(self) -> None:
        self._store.server.stop()

    def save(self) -> bool:
        self._store.save(_SAVED)
        return True

    def begin(self, *, with_data: bool) -> None:
        self._store.restart(_SAVED if with_data else None)

    def stop(self) -> None:
        self._store.server.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._store.server.process.send_signal(signal.SIGCONT)

    def cut(self, slot: int) -> None:
        self._store.links[slot].cut()

    def mend(self, slot: int) -> None:
        self._store.links[slot].mend()

    def close(self) -> None:
        self._store.close()


class _Machine(ProcessMachine):
    place_kind = _Redis


@needs("redis-server", "redis-server")
class RedisProcessesTest(run.MachineTest):
    machine = _Machine
