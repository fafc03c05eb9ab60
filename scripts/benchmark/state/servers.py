"""The stores of the benchmark: a redis-server, and the store of one host."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from ..peers import SETTING_NAMES, first_match
from ..processes import cpu_ticks, find_program, memory_of

__all__ = ["LocalServer", "RedisServer", "StoreServer", "redis_missing"]

_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")
# What a script never calls: each is a round trip of a process, or of this benchmark.
_CALLS = (
    "evalsha",
    "eval",
    "subscribe",
    "hello",
    "auth",
    "select",
    "ping",
    "client|setinfo",
    "client|setname",
)


def redis_missing() -> str | None:
    """Return why there is no Redis; None if there is one."""
    return None if _redis() else "no redis-server (Debian, Ubuntu: apt-get install redis-server)"


def _redis() -> str | None:
    return find_program("redis-server") or find_program("valkey-server")


class StoreServer:
    """The process of a store. :meth:`stop` ends it.

    :param command: what runs it.
    :param log: the file for its output.
    :ivar url: the value of ``WSPROXY_STATE``.
    """

    url = ""

    def __init__(self, command: Sequence[str], log: str) -> None:
        environ = {name: value for name, value in os.environ.items() if name not in SETTING_NAMES}
        with open(log, "ab") as output:
            self._popen = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._popen.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{command[0]} did not start")
            time.sleep(0.01)

    def _answers(self) -> bool:
        raise NotImplementedError

    def cpu_seconds(self) -> float:
        """Return its CPU time so far."""
        return cpu_ticks(self._popen.pid) / _TICKS

    def memory(self) -> int:
        """Return the bytes of its memory."""
        return memory_of(self._popen.pid)

    def stop(self) -> None:
        """End it. Idempotent."""
        self._popen.terminate()
        try:
            self._popen.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


class RedisServer(StoreServer):
    """A redis-server on the loopback interface that keeps nothing on a disk.

    :param directory: for its log.
    """

    def __init__(self, directory: str) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self._port: int = found.getsockname()[1]
        program = _redis()
        assert program, "there is no redis-server"
        self.url = f"redis://127.0.0.1:{self._port}/0"
        options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory)
        super().__init__([program, "--port", str(self._port), *options], f"{directory}/redis.log")

    @staticmethod
    def version() -> str:
        """Return its version, for a header."""
        return "redis-server " + first_match(r"v=([\d.]+)", [_redis() or "redis-server", "--version"])

    def _answers(self) -> bool:
        with suppress(OSError):
            return self._ask(b"PING\r\n").startswith(b"+PONG")
        return False

    def _ask(self, command: bytes) -> bytes:
        """Return the answer to a command whose answer is short, or INFO."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=5) as sock:
            sock.sendall(command)
            sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def calls(self) -> int:
        """Return how many commands processes have sent so far."""
        found = re.findall(r"cmdstat_([^:]+):calls=(\d+)", self._ask(b"INFO commandstats\r\n").decode())
        return sum(int(number) for name, number in found if name in _CALLS)

    def commands(self) -> int:
        """Return how many commands it has run so far, with those of the scripts."""
        found = re.findall(r"cmdstat_[^:]+:calls=(\d+)", self._ask(b"INFO commandstats\r\n").decode())
        return sum(int(number) for number in found)

    def data(self) -> int:
        """Return the bytes of all keys with their values, as it counts them itself."""
        keys = self._ask(b"KEYS *\r\n").split(b"\r\n")[2::2]
        usage = b"".join(b"MEMORY USAGE " + key + b" SAMPLES 0\r\n" for key in keys)
        return sum(int(number) for number in re.findall(rb":(\d+)", self._ask(usage)))


class LocalServer(StoreServer):
    """``wsproxy state`` in a directory of its own.

    :param directory: where that directory is made.
    """

    def __init__(self, directory: str) -> None:
        self._place = os.path.join(directory, "store")
        os.makedirs(self._place, mode=0o700, exist_ok=True)
        self._path = os.path.join(self._place, "state")
        self.url = f"local:{self._path}"
        command = [sys.executable, "-m", "wsproxy", "state", "--listen", f"unix:{self._path}"]
        super().__init__(command, f"{directory}/store.log")

    def _answers(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self._path)
            return True
        return False

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self._place, ignore_errors=True)
