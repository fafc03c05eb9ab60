"""Runs the files of the unit tests side by side, each in a process of its own. ``scripts/test`` does so.

The tests are those that ``python -m unittest`` discovers, and one summary in its words ends the run. A file
has a process of its own because tests fork, patch modules, handle signals, and count threads.

unittest-parallel 1.8.6 would not do. It waits for ever for a worker that died, and has no time limit. It
sends tests through pickle, which examples in docstrings do not survive. It needs the package coverage.
"""

from __future__ import annotations

import argparse
import faulthandler
import fnmatch
import importlib
import io
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import types
import unittest
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import IO, Any

from .one_file import Outcome, run_file

__all__ = ["main"]

_CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_JOBS = 2 * _CPUS  # the tests wait more than they compute
_LIMIT = 900.0  # seconds; on a busy machine the longest file needs more than a hundred
_LIBRARIES = (
    "asyncio", "cryptography.hazmat.primitives.asymmetric.rsa", "cryptography.x509", "email.parser",
    "http.client", "logging.handlers", "simple_websocket", "ssl", "unittest.mock", "urllib.request",
    "websocket", "wsproto.connection",
)  # fmt: skip
_INTERRUPTS = frozenset({signal.SIGINT, signal.SIGTERM})
_ABORT_TIMEOUT = 5.0  # seconds in which a process that hangs may print where it does
_SECONDS = Path(sys.prefix, "test-seconds.json")


class _Finder(unittest.TestLoader):
    """Discovers as ``python -m unittest`` does, but imports packages only, and notes where tests are.

    The suite that it returns has nothing but the packages that cannot be imported.

    :ivar files: paths from the project. A package that has tests itself is there with its ``__init__.py``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []

    def _match_path(self, path: str, full_path: str, pattern: str) -> bool:  # unittest says: override this
        if fnmatch.fnmatch(path, pattern):
            self.files.append(os.path.relpath(full_path))
        return False

    def loadTestsFromModule(
        self, module: types.ModuleType, *arguments: Any, **options: Any
    ) -> unittest.TestSuite:
        if unittest.TestLoader().loadTestsFromModule(module, *arguments, **options).countTestCases():
            self.files.append(os.path.relpath(str(module.__file__)))
        return unittest.TestSuite()


@dataclass
class _Process:
    """A process that runs the tests of a file.

    :ivar output: what it prints.
    :ivar path: where it writes its outcome.
    """

    file: str
    pid: int
    output: IO[bytes]
    path: Path
    begun: float

    def abort(self) -> None:
        """End it. Its fault handler prints where each thread is."""
        os.kill(self.pid, signal.SIGABRT)
        ends = time.monotonic() + _ABORT_TIMEOUT
        while not os.waitpid(self.pid, os.WNOHANG)[0]:
            if time.monotonic() >= ends:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return
            time.sleep(_ABORT_TIMEOUT / 100)

    def kill(self) -> None:
        """Kill what is left of it and of its group, and let nothing of it remain."""
        with suppress(ProcessLookupError, PermissionError):  # none of its group is left
            os.killpg(self.pid, signal.SIGKILL)
        self.output.close()

    def outcome(self, status: int | None, limit: float) -> Outcome:
        """Return what became of the tests. If the process did not end well, that is an error.

        :param status: its exit status, None if it took longer than the limit.
        """
        self.output.seek(0)
        printed = self.output.read().decode(errors="replace")
        outcome = Outcome.read(self.path)
        if status != 0 or not outcome.ended:
            where = f"in {outcome.test}" if outcome.test else "outside of a test"
            outcome.add_error(self.file, f"The process of this file {_end(status, limit)}, {where}.")
        if printed:
            outcome.add_output(f"Output of {self.file}:\n{printed}")
        return outcome


class _Files(unittest.TestSuite):
    """The tests in many files, each of which runs in a process of its own.

    The processes are forks of this one, which has no threads. So they need not import all libraries anew.

    :param files: where they are, in the order in which they begin.
    :param jobs: how many run at a time.
    :param limit: seconds after which the processes of a file are killed.
    :param directory: where the outcomes are written.
    :ivar seconds: how long each file took.
    """

    def __init__(self, files: Sequence[str], jobs: int, limit: float, directory: Path) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}
        self._waiting, self._jobs, self._limit, self._directory = deque(files), jobs, limit, directory
        self._running: dict[int, _Process] = {}

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        assert isinstance(result, unittest.TextTestResult)
        with _ends_of_children() as wait:
            try:
                while self._waiting or self._running:
                    while self._waiting and len(self._running) < self._jobs:
                        self._start(self._waiting.popleft())
                    wait(self._next_limit())
                    for outcome in self._reap():
                        outcome.add_to(result)
            except KeyboardInterrupt:
                result.printErrors()
                raise
            finally:
                self._stop()
        return result

    def _start(self, file: str) -> None:
        path = self._directory / file.replace("/", ".")
        output = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - open while the process runs
        begun = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)  # so that the fork ends no process of others
        pid = os.fork()
        if pid:
            self._running[pid] = _Process(file, pid, output, path, begun)
        else:
            self._running.clear()
            _become_process_of_tests(output)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
        if not pid:
            run_file(file, path)
            sys.exit()

    def _next_limit(self) -> float:
        """Return in how many seconds the next process has taken too long."""
        return max(0.0, min(each.begun for each in self._running.values()) + self._limit - time.monotonic())

    def _reap(self) -> Iterator[Outcome]:
        """Yield the outcomes of the processes that have ended, and of those that took too long."""
        for process in tuple(self._running.values()):
            pid, end = os.waitpid(process.pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(end) if pid else None
            if status is None and time.monotonic() < process.begun + self._limit:
                continue
            del self._running[process.pid]
            if status is None:
                process.abort()
            self.seconds[process.file] = round(time.monotonic() - process.begun, 1)
            outcome = process.outcome(status, self._limit)
            process.kill()
            yield outcome

    def _stop(self) -> None:
        for process in self._running.values():
            os.kill(process.pid, signal.SIGKILL)  # it may not have its group yet
            process.kill()
            os.waitpid(process.pid, 0)


@contextmanager
def _ends_of_children() -> Iterator[Callable[[float], None]]:
    """Yield a function that waits for so many seconds, or until a child has ended since the last call."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)

    def wait(seconds: float) -> None:
        select.select([reader], [], [], seconds)
        with suppress(BlockingIOError):
            reader.recv(4096)

    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        with reader, writer:
            yield wait
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _become_process_of_tests(output: IO[bytes]) -> None:
    """Make a fork of the runner like a new process: with a group of its own, and with its own output."""
    os.setsid()  # a group, so that it can be killed with all that it started
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(write_through=True)
    faulthandler.enable()


def _end(status: int | None, limit: float) -> str:
    if status is None:
        return f"did not end within {limit:g} s and was killed"
    if status < 0:
        return f"was ended by signal {-status} ({signal.strsignal(-status)})"
    return f"ended with exit status {status}"


def _import_libraries() -> None:
    """Import what most files import, once for all. Without it they only take longer."""
    for name in _LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)


def _python() -> list[str]:
    """Return the command of this interpreter, with its options that concern warnings."""
    mode = ["-X", "dev"] if sys.flags.dev_mode else []
    return [sys.executable, *mode, *(f"-W{each}" for each in sys.warnoptions)]


def _last_seconds() -> dict[str, float]:
    """Return how long each file took when it ran last, as far as that is known."""
    try:
        return dict(json.loads(_SECONDS.read_bytes()))
    except (OSError, ValueError):
        return {}


def _run(jobs: int, limit: float, named: Sequence[str]) -> int:
    finder = _Finder()
    unimportable = unittest.TestSuite() if named else finder.discover(".")
    seconds = _last_seconds()
    order = sorted(
        named or finder.files, key=lambda file: (seconds.get(file, inf), os.path.getsize(file)), reverse=True
    )
    _import_libraries()
    runner = unittest.TextTestRunner(descriptions=False)  # names of tests include them
    ours, directory = os.getpid(), tempfile.mkdtemp()
    files = _Files(order, jobs, limit, Path(directory))
    try:
        result = runner.run(unittest.TestSuite([unimportable, files]))
    finally:
        if os.getpid() == ours:  # a process of tests ends here too
            shutil.rmtree(directory)
    if _SECONDS.parent.parent == Path.cwd():  # a virtual environment of the project
        _SECONDS.write_text(json.dumps({**seconds, **files.seconds}), encoding="utf-8")
    return 0 if result.wasSuccessful() and result.testsRun else 1


def main(arguments: Sequence[str]) -> int:
    """Run all tests, or those of ``--files``. Return the exit status.

    With other arguments, run ``python -m unittest``.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--jobs", type=int, default=os.environ.get("TEST_JOBS", _JOBS))
    parser.add_argument("--limit", type=float, default=_LIMIT)
    parser.add_argument("--files", nargs="+", default=())
    options, others = parser.parse_known_args(arguments)
    if others:
        os.execv(sys.executable, [*_python(), "-m", "unittest", *others])
    for signum in _INTERRUPTS:  # a shell has jobs in its background ignore SIGINT
        signal.signal(signum, signal.default_int_handler)
    try:
        return _run(options.jobs, options.limit, options.files)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
