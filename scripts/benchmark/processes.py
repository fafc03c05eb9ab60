"""The processes of the benchmark: starts them, reads /proc about them, and ends them."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

__all__ = ["Process", "cpu_ticks", "find_program", "memory_of", "raise_descriptor_limit"]

_START_TIMEOUT = 20.0
_STOP_TIMEOUT = 5.0
_POLL = 0.01
_TICKS = os.sysconf("SC_CLK_TCK")
# Debian has servers in directories that are not on a user's PATH.
_ALSO = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))


def find_program(name: str) -> str | None:
    """Return the path of a program; None if it is not installed."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + os.pathsep + _ALSO)


def raise_descriptor_limit() -> int:
    """Raise the limit on descriptors to its hard limit, for this process and later children.

    :returns: the new limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Process:
    """A server on the loopback interface, with all processes that it starts.

    :param command: the command to run.
    :param port: the port on which it will listen.
    :param environ: its whole environment.
    :param log: the file for its output.
    """

    def __init__(self, command: Sequence[str], port: int, environ: Mapping[str, str], log: str) -> None:
        self._log = log
        self.port = port
        with open(log, "ab") as output:
            self._popen = subprocess.Popen(
                command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            self._wait_until_listening()
        except BaseException:
            self.stop()
            raise

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not _accepts(self.port):
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"did not start: {self._last_words()}")
            time.sleep(_POLL)

    def _last_words(self) -> str:
        with open(self._log, encoding="utf-8", errors="replace") as file:
            lines = file.read().strip().splitlines()
        return lines[-1] if lines else "no output"

    def cpu_seconds(self) -> float:
        """Return the CPU time of its processes so far, including those that ended and were waited for."""
        return sum(cpu_ticks(pid) for pid in self._tree()) / _TICKS

    def memory(self) -> int:
        """Return the bytes of memory of its processes. Shared memory counts once."""
        return sum(memory_of(pid) for pid in self._tree())

    def threads(self) -> int:
        """Return how many threads its processes have."""
        return sum(_threads(pid) for pid in self._tree())

    def _tree(self) -> Iterator[int]:
        waiting = [self._popen.pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            waiting += _children(pid)

    def stop(self) -> None:
        """End the server. Idempotent. Blocks for a few seconds at most."""
        self._popen.terminate()
        try:
            self._popen.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _read(path: str) -> str:
    """Return the content of a file in /proc; "" if the process has ended."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def cpu_ticks(pid: int) -> int:
    """Return user and system time of a process, including children that were waited for (proc(5))."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])


def memory_of(pid: int) -> int:
    """Return the bytes of memory of a process."""
    # The proportional set size. If the kernel does not provide it, the resident set size.
    match = re.search(r"^Pss:\s+(\d+) kB", _read(f"/proc/{pid}/smaps_rollup"), re.MULTILINE)
    match = match or re.search(r"^VmRSS:\s+(\d+) kB", _read(f"/proc/{pid}/status"), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _threads(pid: int) -> int:
    match = re.search(r"^Threads:\s+(\d+)", _read(f"/proc/{pid}/status"), re.MULTILINE)
    return int(match[1]) if match else 0


def _children(pid: int) -> list[int]:
    """Return the processes that any thread of ``pid`` started."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    listed = (_read(f"/proc/{pid}/task/{thread}/children").split() for thread in threads)
    return [int(child) for children in listed for child in children]
