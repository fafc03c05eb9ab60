"""Runs the unit tests of one file. ``parallel`` does so in a process for each file.

The outcome is written at the beginning and the end of each test. Nothing is lost if the process dies.
"""

from __future__ import annotations

import io
import json
import sys
import unittest
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["Outcome", "run_file"]

_LISTS = ("failures", "errors", "skipped", "expectedFailures")  # as unittest's result calls them


@dataclass
class Outcome:
    """What is known of the tests of a file.

    :ivar marks: the dots and letters of progress.
    :ivar lists: the lists of unittest's result, by its names: what each test is called, and its text.
    :ivar test: the test that runs now.
    :ivar ended: whether all of them have run.
    """

    marks: str = ""
    ran: int = 0
    lists: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: {name: [] for name in _LISTS})
    unexpected: list[str] = field(default_factory=list)
    test: str | None = None
    ended: bool = False

    @classmethod
    def read(cls, path: Path) -> Outcome:
        """Return what a process wrote, which may be nothing."""
        return cls(**json.loads(path.read_bytes())) if path.exists() else cls()

    def write(self, path: Path) -> None:
        """Write it whole, or not at all if the process dies meanwhile."""
        beginning = path.with_suffix(".new")
        beginning.write_text(json.dumps(asdict(self)), encoding="utf-8")
        beginning.replace(path)

    def add_error(self, name: str, text: str) -> None:
        """Add an error that is not a test's own."""
        self.marks += "E"
        self.lists["errors"].append((name, text))

    def add_output(self, text: str) -> None:
        """Show what the process printed, behind the last problem that it had."""
        if problems := self.lists["failures"] or self.lists["errors"]:
            test, problem = problems[-1]
            problems[-1] = (test, f"{problem}\n{text}")

    def add_to(self, result: unittest.TextTestResult) -> None:
        """Add it to the result of a run."""
        result.testsRun += self.ran
        for name, entries in self.lists.items():
            getattr(result, name).extend((_Named(test), text) for test, text in entries)
        result.unexpectedSuccesses.extend(map(_Named, self.unexpected))
        result.stream.write(self.marks)
        result.stream.flush()


class _Named(unittest.TestCase):
    """Stands for a test of another process, or for a file that cannot be imported.

    :param name: what the report calls it.
    :param problem: what it raises when it is run.
    """

    def __init__(self, name: str, problem: Exception | None = None) -> None:
        super().__init__()
        self._name, self._problem = name, problem

    def __str__(self) -> str:
        return self._name

    def runTest(self) -> None:
        if self._problem:
            raise self._problem


class _Recorder(unittest.TextTestResult):
    """unittest's own result, which writes an outcome into a file.

    :param path: the file.
    :param progress: what the result prints to.
    """

    def __init__(self, path: Path, progress: io.StringIO, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._path, self._progress = path, progress

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.write(test=str(test))

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self.write()

    def write(self, *, test: str | None = None, ended: bool = False) -> None:
        marks = self._progress.getvalue().partition("\n")[0]
        lists = {name: [(self.getDescription(t), text) for t, text in getattr(self, name)] for name in _LISTS}
        unexpected = [self.getDescription(t) for t in self.unexpectedSuccesses]
        Outcome(marks, self.testsRun, lists, unexpected, test, ended).write(self._path)


def _tests_in(file: str) -> unittest.TestSuite:
    """Return the tests that discovery finds in a file, which may be a package's ``__init__.py``."""
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    try:
        __import__(name)
    except unittest.SkipTest as reason:

        @unittest.skip(str(reason))
        class Skipped(_Named):
            pass

        return unittest.TestSuite([Skipped(file)])
    except Exception as problem:  # noqa: BLE001 - a test fails with it, as in discovery
        return unittest.TestSuite([_Named(file, problem)])
    return unittest.TestLoader().loadTestsFromModule(sys.modules[name], pattern="test*.py")


def run_file(file: str, path: Path) -> None:
    """Run the tests of a file, and write their outcome to the path."""
    progress = io.StringIO()
    runner = unittest.TextTestRunner(
        progress,
        resultclass=partial(_Recorder, path, progress),
        warnings=None if sys.warnoptions else "default",  # as python -m unittest has it
    )
    result = runner.run(_tests_in(file))
    assert isinstance(result, _Recorder)
    result.write(ended=True)
