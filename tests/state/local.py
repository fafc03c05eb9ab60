"""The store in a process of its own, with a clock that the test has."""

from __future__ import annotations

import mmap
import multiprocessing
import socket
import struct
import tempfile
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from wsproxy.runtime.signals import signals_to
from wsproxy.state.store import Store
from wsproxy.state.stores.local.process import listen_at
from wsproxy.state.stores.local.server import LocalServer
from wsproxy.state.stores.local.store import LocalStore
from wsproxy.state.stores.memory import MemoryStore

__all__ = ["Local"]

_CLOCKS = struct.Struct("dd")
_SECONDS = 20.0  # for one answer: the suite is not about time

# Children of a process that has imported all of this start in some milliseconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


class _Clocks:
    """The store's clock and UNIX time in a file that two processes map."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CLOCKS.size)

    def read(self) -> tuple[float, float]:
        now, wall = _CLOCKS.unpack_from(self._map)
        return now, wall

    def write(self, now: float, wall: float) -> None:
        _CLOCKS.pack_into(self._map, 0, now, wall)

    def close(self) -> None:
        self._map.close()


def _be_the_store(path: str, clocks_path: Path, settled: bool, ready: Connection) -> None:
    clocks = _Clocks(clocks_path)
    store = MemoryStore(lambda: clocks.read()[0], lambda: clocks.read()[1], settled=settled)
    waker, woken = socket.socketpair()
    with waker, woken, signals_to(waker), listen_at(path, None) as listener:
        server = LocalServer(listener, store)
        ready.send(None)
        server.run(woken)


class Local:
    """A :class:`.Harness`. A restart kills the process, which has no data then."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="wsproxy-")
        self.path = f"{self._directory.name}/store"
        self._clocks_path = Path(self._directory.name, "clocks")
        self._clocks_path.write_bytes(bytes(_CLOCKS.size))
        self._clocks = _Clocks(self._clocks_path)
        self._clocks.write(1000.0, 1.7e9)
        self.process = self._started(settled=True)
        self.local = LocalStore(self.path, starts=False, timeout=_SECONDS)
        self.store: Store = self.local

    def _started(self, *, settled: bool) -> ForkServerProcess:
        ours, theirs = _context.Pipe(duplex=False)
        arguments = (self.path, self._clocks_path, settled, theirs)
        process = _context.Process(target=_be_the_store, args=arguments, daemon=True)
        process.start()
        theirs.close()
        with ours:
            ours.recv()
        return process

    def advance(self, seconds: float) -> None:
        now, wall = self._clocks.read()
        self._clocks.write(now + seconds, wall + seconds)

    def restart(self, *, data: bool) -> None:
        self._end()
        self.process = self._started(settled=False)

    def _end(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()

    def sizes(self) -> dict[str, int]:
        """Return how many things the store remembers, by kind."""
        return self.local.sizes()

    def close(self) -> None:
        self.store.close()
        self._end()
        self._clocks.close()
        self._directory.cleanup()
