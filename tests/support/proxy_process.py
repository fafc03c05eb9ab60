"""The program in a process of its own, so that a test can see its memory, its descriptors and its output."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Sequence
from types import TracebackType

from wsproxy.runtime.deadline import Deadline
from wsproxy.settings.table import SETTINGS
from wsproxy.testing.case import SECRET
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI

__all__ = ["Pace", "ProcessFigures", "ProxyProcess", "environment_for", "needs_proc", "wait_until"]

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 60.0
_OUTPUT_TIMEOUT = 60.0
_POLL = 0.01
_READY = re.compile(rb"listening on (?:(unix:.*)|(.*):(\d+))( .*)?\n")
_SETTINGS = {setting.env for setting in SETTINGS}

needs_proc = unittest.skipUnless(os.path.isdir("/proc/self/fd"), "needs /proc to look into another process")
"""Skips a test where the system does not show what another process holds."""


class ProcessFigures:
    """What the system shows of another process.

    :param pid: its number.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def memory(self) -> int:
        """Bytes of the process's memory that are resident now."""
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as file:
            match = re.search(r"^VmRSS:\s+(\d+) kB$", file.read(), re.MULTILINE)
        assert match, "the program has ended"
        return int(match[1]) * 1024

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        """How many threads it has."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def command_line(self) -> bytes:
        """What ``ps`` shows of it."""
        with open(f"/proc/{self.pid}/cmdline", "rb") as file:
            return file.read()


class ProxyProcess(ProcessFigures):
    """``python -m wsproxy`` in front of a stand-in; stop it with :meth:`stop`, or use ``with``.

    :param api: the stand-in, started; one with TLS is a cluster, one without is ``kubectl proxy``.
    :param command: what the interpreter is to run.
    :param stdin: its standard input, by default nothing.
    :param settings: further environment variables of the program.
    """

    def __init__(
        self,
        api: FakeKubeVirtAPI,
        command: Sequence[str] = ("-m", "wsproxy"),
        stdin: int = subprocess.DEVNULL,
        /,
        **settings: str,
    ) -> None:
        self._scheme = "wss" if "WSPROXY_TLS_CERT" in settings else "ws"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._output = b""
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env=environment_for(api) | settings,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        super().__init__(self.process.pid)
        try:
            self.address = self._wait_until_ready()
        except BaseException:
            self.stop(signal.SIGKILL)
            self._errors.close()
            raise

    @property
    def url(self) -> str:
        """``ws://HOST:PORT``, or ``wss://`` if the settings name a certificate for clients."""
        return f"{self._scheme}://{self.address[0]}:{self.address[1]}"

    @property
    def output(self) -> bytes:
        """Everything that the program wrote so far; all of it once it is stopped."""
        # pread: the file's offset is shared with the program, which writes at it.
        size = os.fstat(self._errors.fileno()).st_size
        return self._output + os.pread(self._errors.fileno(), size, 0)

    def wait_for(self, pattern: bytes, count: int = 1) -> re.Match[bytes]:
        """Wait until a pattern is in the output so many times, and return the first match.

        Another thread of the program writes its log, so a line may come after what it tells of.

        :raises AssertionError: if it is not there in time.
        """
        found: list[re.Match[bytes]] = []

        def is_there() -> bool:
            found[:] = re.finditer(pattern, self.output)
            return len(found) >= count

        if not wait_until(is_there, _OUTPUT_TIMEOUT):
            shown = self.output.decode(errors="replace")
            raise AssertionError(f"{pattern!r} came {len(found)} times:\n{shown}")
        return found[0]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the program and return its exit status; minus the signal's number if one killed it. Idempotent.

        Blocks until it has ended, and kills it if that takes more than 60 s.
        """
        pipe = self.process.stdout
        assert pipe is not None
        if not pipe.closed:
            self.process.send_signal(number)  # does nothing if it has ended
            try:
                self._output += self.process.communicate(timeout=_STOP_TIMEOUT)[0]
            except subprocess.TimeoutExpired:
                self.process.kill()
                self._output += self.process.communicate()[0]
        return self.process.wait()

    def close(self) -> None:
        """Stop the program and throw its output away. Idempotent."""
        self.stop()
        self._errors.close()

    def _wait_until_ready(self) -> tuple[str, int]:
        pipe, deadline = self.process.stdout, Deadline(_START_TIMEOUT)
        assert pipe is not None
        while (match := _READY.search(self._output)) is None:
            readable, _, _ = select.select([pipe], [], [], deadline.remaining())
            received = os.read(pipe.fileno(), 4096) if readable else b""
            if readable and not received:
                raise RuntimeError(f"the proxy did not start: {self.output.decode(errors='replace')}")
            self._output += received
        return (match[1].decode(), 0) if match[1] else (match[2].decode(), int(match[3]))

    def __enter__(self) -> ProxyProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def environment_for(api: FakeKubeVirtAPI) -> dict[str, str]:
    """Return the environment of a program in front of a stand-in.

    The program sends no ping in the time of a test, since most clients of tests answer none, and compare
    what they receive. On a busy machine their sessions last longer than the usual interval of 30 s.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    environment |= {"SECRET_KEY": SECRET, "HOST": "127.0.0.1", "PORT": "0", "WSPROXY_PING_INTERVAL": "600"}
    if not api.tls:
        return environment | {"LOCAL_DEV_MODE": "true", "WS_REMOTE_URL": api.url}
    return environment | {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(api.port),
        "WSPROXY_CA_FILE": api.ca_file,
        "WSPROXY_TOKEN_FILE": api.token_file,
    }


class Pace:
    """Lets through so many bytes a second; one thread's.

    :param rate: bytes per second.
    :param burst: bytes that may come at once after a pause.
    """

    def __init__(self, rate: float, burst: int = 65536) -> None:
        self._rate = rate
        self._burst = burst
        self._due = time.monotonic()
        self._never = threading.Event()

    def take(self, size: int) -> None:
        """Wait until ``size`` bytes more are due."""
        now = time.monotonic()
        self._due = max(self._due, now - self._burst / self._rate) + size / self._rate
        if self._due > now:
            self._never.wait(self._due - now)


def wait_until(condition: Callable[[], bool], timeout: float = 60.0, *, poll: float = _POLL) -> bool:
    """Wait until another process is in a state that it does not announce; return whether it got there.

    :param poll: seconds between two looks.
    """
    deadline, never = Deadline(timeout), threading.Event()
    while not condition():
        if deadline.passed:
            return condition()
        never.wait(poll)
    return True
