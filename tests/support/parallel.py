"""Runs the files of the unit tests side by side, each in a process of its own. ``scripts/test`` does so.

The tests are those that ``python -m unittest`` discovers, and one summary in its words ends the run. A file
has a process of its own because tests fork, patch modules, handle signals, and count threads.

unittest-parallel 1.8.6 would not do. It waits for ever for a worker that died, and has no time limit. It
sends tests through pickle, which examples in docstrings do not survive. It needs the package coverage.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import IO, Any

from .one_file import Outcome

__all__ = ["main"]

_CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_JOBS = 2 * _CPUS  # the tests wait more than they compute
_LIMIT = 900.0  # seconds; on a busy machine the longest file needs more than a hundred
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


class _Files(unittest.TestSuite):
    """The tests in many files, each of which runs in a process of its own.

    :param files: where they are, in the order in which they begin.
    :param jobs: how many run at a time.
    :param limit: seconds after which the processes of a file are killed.
    :ivar seconds: how long each file took.
    """

    def __init__(self, files: Sequence[str], jobs: int, limit: float) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}
        self._files, self._jobs, self._limit = files, jobs, limit
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        assert isinstance(result, unittest.TextTestResult)
        with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(self._jobs) as pool:
            try:
                for done in as_completed(pool.submit(self._outcome, each, directory) for each in self._files):
                    done.result().add_to(result)
            except KeyboardInterrupt:
                result.printErrors()
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop()
        return result

    def _outcome(self, file: str, directory: str) -> Outcome:
        """Run a file in a new process. Return what it wrote, and what was wrong with the process itself."""
        begun = time.monotonic()
        path = Path(directory, file.replace("/", "."))
        with tempfile.TemporaryFile(dir=directory) as output:
            status = self._wait(self._start(file, path, output))
            output.seek(0)
            printed = output.read().decode(errors="replace")
        self.seconds[file] = round(time.monotonic() - begun, 1)
        outcome = Outcome.read(path)
        if status != 0 or not outcome.ended:
            where = f"in {outcome.test}" if outcome.test else "outside of a test"
            outcome.add_error(file, f"The process of this file {self._end(status)}, {where}.")
        if printed:
            outcome.add_output(f"Output of {file}:\n{printed}")
        return outcome

    def _start(self, file: str, path: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [*_python("-u", "-X", "faulthandler"), "-m", f"{__package__}.one_file", file, str(path)]
        with self._lock:
            if self._stopped:
                raise CancelledError
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group, so that it can be killed with all that it started
            )
            self._running.add(process)
        return process

    def _wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return a process's exit status, None if it took too long. Kill what is left of its group."""
        try:
            return process.wait(self._limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # the fault handler prints where each thread is
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ABORT_TIMEOUT)
            return None
        finally:
            with self._lock:
                self._running.remove(process)
            _kill(process)
            process.wait()

    def _end(self, status: int | None) -> str:
        if status is None:
            return f"did not end within {self._limit:g} s and was killed"
        if status < 0:
            return f"was ended by signal {-status} ({signal.strsignal(-status)})"
        return f"ended with exit status {status}"

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # none of its group is left
        os.killpg(process.pid, signal.SIGKILL)


def _python(*options: str) -> list[str]:
    """Return the command of this interpreter, with its options that concern warnings."""
    mode = ["-X", "dev"] if sys.flags.dev_mode else []
    return [sys.executable, *options, *mode, *(f"-W{each}" for each in sys.warnoptions)]


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
    files = _Files(order, jobs, limit)
    runner = unittest.TextTestRunner(descriptions=False)  # names of tests include them
    result = runner.run(unittest.TestSuite([unimportable, files]))
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
    for signum in (signal.SIGINT, signal.SIGTERM):  # a shell has jobs in its background ignore SIGINT
        signal.signal(signum, signal.default_int_handler)
    try:
        return _run(options.jobs, options.limit, options.files)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
