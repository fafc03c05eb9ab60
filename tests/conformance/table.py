"""Runs the whole suite and, if all is as it should be, writes the page: ``scripts/conformance``."""

from __future__ import annotations

import inspect
import sys
import textwrap
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.differences import DIFFERENCES
from tests.conformance.fronts import Front, SocketServer
from tests.conformance.suites import AREAS, Suite, test_names, through
from tests.conformance.wsgi_servers import FRONTS

__all__ = ["DOCUMENT", "expected", "render"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"

_ALL_FRONTS: tuple[type[Front], ...] = (SocketServer, *FRONTS)
_WIDTH = 100
_HOLDS, _PARTLY, _FAILS = "yes", "in part", "no"
_INTRODUCTION = """\
# What holds behind which server

`scripts/conformance` makes this page. It runs the tests that the tables name. Do not edit the page.

The same tests run through these servers:

- the proxy's own socket server (`wsproxy serve`, `WebsocketProxy`),
- werkzeug's development server with `wsproxy.wsgi.ConsoleApp`, without TLS,
- gunicorn's `gthread` worker with `wsproxy.wsgi.ConsoleApp`, to which clients connect by TLS.

The API behind them speaks TLS. **yes** means that the test passes, and **no** that it fails. **In
part** means that some cases of the test fail. A note gives the reason. Each run also makes the
tests and cases that fail. If one of them passes now, the run fails, and this page must be made
again.

A WSGI server reads and parses the request. So it decides which requests are well-formed, how long a
request may take, and how it refuses a client.

A WSGI server also reads ahead. **If a client sends data before it has got the 101, that data may
stay in the server's own parser.** No public interface leads there. So wsproxy takes the data from
private attributes of these two servers. The rows of "Byte identity" show that this works with their
present versions. If a server has changed these attributes, such data may be lost. With gunicorn, a
warning in the log says so. Clients must wait for the 101 (RFC 6455, section 4.1), and browsers do.

gunicorn runs with `--keep-alive 0`. The tests do not check whether gunicorn keeps a connection open
behind an ordinary answer.
"""

Outcomes = dict[tuple[type[Front], Suite, str], str]


def expected() -> Outcomes:
    """Return the outcome of every test, if the run passes."""
    return {
        (front, suite, name): _expected(front, f"{suite.__name__}.{name}")
        for front in _ALL_FRONTS
        for suite in _suites()
        for name in test_names(suite)
    }


def _expected(front: type[Front], test: str) -> str:
    differences = DIFFERENCES.get(front.name, {})
    if test in differences:
        return _FAILS
    return _PARTLY if any(name.startswith(f"{test}[") for name in differences) else _HOLDS


def render(outcomes: Outcomes) -> str:
    """Return the page."""
    notes: list[str] = []
    parts = [_INTRODUCTION]
    for title, suites in AREAS.items():
        parts.append(f"## {title}\n\n" + "\n".join(_rows(suites, outcomes, notes)) + "\n")
    parts.append("## Notes\n\n" + "".join(_note(number, note) for number, note in enumerate(notes, 1)))
    return "\n".join(parts)


def _note(number: int, text: str) -> str:
    first = f"{number}. "
    wrapper = textwrap.TextWrapper(
        _WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
    )
    return wrapper.fill(text) + "\n"


def _rows(suites: tuple[Suite, ...], outcomes: Outcomes, notes: list[str]) -> Iterator[str]:
    yield "| | " + " | ".join(front.name for front in _ALL_FRONTS) + " |"
    yield "|---" * (len(_ALL_FRONTS) + 1) + "|"
    for suite in suites:
        for name in test_names(suite):
            cells = [_sentence(suite, name)]
            for front in _ALL_FRONTS:
                cells.append(_cell(front, f"{suite.__name__}.{name}", outcomes[front, suite, name], notes))
            yield "| " + " | ".join(cells) + " |"


def _sentence(suite: Suite, name: str) -> str:
    """Return a test's docstring, which says what holds, in one line."""
    text = inspect.getdoc(getattr(suite, name)) or name
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`")


def _cell(front: type[Front], test: str, outcome: str, notes: list[str]) -> str:
    """Return a cell; the reasons of what does not hold are added to the notes, each once."""
    numbers = []
    for name, reason in DIFFERENCES.get(front.name, {}).items():
        if name.partition("[")[0] == test:
            if reason not in notes:
                notes.append(reason)
            numbers.append(notes.index(reason) + 1)
    return outcome + "".join(f" [{number}]" for number in sorted(set(numbers)))


def _suites() -> list[Suite]:
    return [suite for suites in AREAS.values() for suite in suites]


class _Recorder(unittest.TextTestResult):
    """Notes which tests passed, and which failed as they should."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.passed: list[unittest.TestCase] = []

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.passed.append(test)


def _run() -> Outcomes | None:
    """Run everything; return None if anything is not as it should be."""
    cases: dict[type[unittest.TestCase], tuple[type[Front], Suite]] = {}
    for suite in _suites():
        cases[suite] = SocketServer, suite
        for server in FRONTS:
            cases[through(server, suite, __name__)] = server, suite
    loader = unittest.defaultTestLoader
    tests = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)
    result = unittest.TextTestRunner(verbosity=2, resultclass=_Recorder).run(tests)
    assert isinstance(result, _Recorder)
    if not result.wasSuccessful() or result.skipped:
        return None
    outcomes: Outcomes = {}
    for test in result.passed:
        front, suite = cases[type(test)]
        name = test._testMethodName
        listed = _expected(front, f"{suite.__name__}.{name}")
        outcomes[front, suite, name] = _PARTLY if listed == _PARTLY else _HOLDS
    for test, _ in result.expectedFailures:
        front, suite = cases[type(test)]
        outcomes[front, suite, test._testMethodName] = _FAILS
    return outcomes


def main() -> int:
    """Run the suite and write the page; return the exit status."""
    outcomes = _run()
    if outcomes is None:
        print(f"{DOCUMENT.name} is left as it is", file=sys.stderr)
        return 1
    DOCUMENT.write_text(render(outcomes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
