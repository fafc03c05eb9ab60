"""Several processes with the store of one host: they die, stop, and lose the store, and all rules hold."""

from __future__ import annotations

import signal
from contextlib import suppress

from tests.members import run
from tests.members.machine import Place, ProcessMachine
from tests.shared.stores import LocalStore

__all__: list[str] = []


class _Local(Place):
    """A store that the processes start by themselves. It keeps nothing when it is killed."""

    def __init__(self) -> None:
        self._store = LocalStore()

    def url(self, slot: int) -> str:
        return self._store.url(slot)

    def end(self) -> None:
        with suppress(OSError):  # there is none now
            self._store.signal(signal.SIGKILL)

    def begin(self, *, with_data: bool) -> None:
        """Whoever needs it starts it."""

    def stop(self) -> None:
        with suppress(OSError):
            self._store.signal(signal.SIGSTOP)

    def resume(self) -> None:
        with suppress(OSError, AttributeError):
            self._store.signal(signal.SIGCONT)

    def close(self) -> None:
        self.end()
        self._store.close()


class _Machine(ProcessMachine):
    place_kind = _Local


class LocalProcessesTest(run.MachineTest):
    machine = _Machine
