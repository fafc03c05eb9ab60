"""What log lines look like, and whose they are."""

from __future__ import annotations

import json
import logging
import sys
import threading
import unittest
from typing import Any

from wsproxy.runtime.logs import (
    Complaints,
    JSONFormatter,
    SessionLogger,
    TextFormatter,
    get_logger,
    in_session,
    rfc3339,
)

NASTY = "a\nb\rc\x00d\x1be\x85f\u2028g\ud800h"


class Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class LogsTestCase(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.logger = get_logger("wsproxy.test-of-logs")
        self.logger.propagate = False
        self.logger.setLevel(logging.DEBUG)
        self.handler = Collect()
        self.logger.addHandler(self.handler)
        self.addCleanup(self.logger.removeHandler, self.handler)

    @property
    def last(self) -> Any:
        return self.handler.records[-1]


class SessionTest(LogsTestCase):
    def test_of_a_thread(self) -> None:
        """A record has the id of the session that its thread works for, and only while it does."""
        self.logger.info("before")
        self.assertEqual(self.last.session, "")
        with in_session("12ab"):
            self.logger.info("inside")
            self.assertEqual(self.last.session, "12ab")
            other = threading.Thread(target=lambda: self.logger.info("elsewhere"))
            other.start()
            other.join()
            self.assertEqual(self.last.session, "")
        self.logger.info("after")
        self.assertEqual(self.last.session, "")

    def test_of_a_logger(self) -> None:
        """A thread that works for many sessions logs for each by its own logger, with fields if need be."""
        with in_session("other"):
            SessionLogger(self.logger, "34cd").info("x", extra={"fields": {"a": 1}})
        self.assertEqual((self.last.session, self.last.fields), ("34cd", {"a": 1}))


class Text(LogsTestCase):
    def format(self, **options: bool) -> str:
        return TextFormatter(**options).format(self.last)

    def test_line(self) -> None:
        """A line says time, level, logger and message, and the process if asked."""
        self.logger.warning("%d sheep", 3)
        self.assertRegex(self.format(), r"^\d{4}-.* WARNING wsproxy\.test-of-logs: 3 sheep$")
        self.assertRegex(self.format(with_process=True), r" \[\d+\] WARNING ")

    def test_session(self) -> None:
        """The session stands in the line, once."""
        with in_session("12ab"):
            self.logger.info("something")
            self.assertTrue(self.format().endswith(": session 12ab: something"))
            self.logger.info("session 12ab ended")
            self.assertEqual(self.format().count("12ab"), 1)

    def test_stays_one_line(self) -> None:
        """Nothing in a message breaks the line or reaches a terminal."""
        self.logger.info("%s", NASTY)
        line = self.format()
        self.assertTrue(line.endswith(r"a\x0ab\x0dc\x00d\x1be\x85f\u2028g\ud800h"), line)
        self.assertEqual(len(line.splitlines()), 1)

    def test_traceback(self) -> None:
        """A traceback follows."""
        try:
            raise RuntimeError("a bug")
        except RuntimeError:
            self.logger.exception("oh")
        self.assertIn("\nRuntimeError: a bug", self.format())


class JSON(LogsTestCase):
    def format(self) -> Any:
        line = JSONFormatter().format(self.last)
        self.assertEqual(len(line.splitlines()), 1)
        self.assertTrue(line.isascii() and line.isprintable(), line)
        return json.loads(line)

    def test_line(self) -> None:
        """A line is an object that says all, with the time as RFC 3339 has it."""
        self.logger.warning("%d sheep", 3)
        line = self.format()
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(
            line,
            {
                "level": "WARNING",
                "logger": "wsproxy.test-of-logs",
                "message": "3 sheep",
                "process": self.last.process,
            },
        )

    def test_fields(self) -> None:
        """Fields are members; they replace nothing, and what JSON does not know is text."""
        with in_session("12ab"):
            self.logger.info("x", extra={"fields": {"level": "no", "user": 5, "what": ValueError("odd")}})
        line = self.format()
        self.assertEqual((line["level"], line["user"], line["what"]), ("INFO", 5, "odd"))
        self.assertEqual(line["session"], "12ab")

    def test_stays_one_line(self) -> None:
        """Whatever peers say is inside a string."""
        self.logger.info("%s", NASTY, extra={"fields": {"reason": NASTY}})
        self.assertEqual((self.format()["message"], self.format()["reason"]), (NASTY, NASTY))

    def test_traceback(self) -> None:
        """A traceback is a member, with its cause; so is a stack."""
        try:
            try:
                raise KeyError("the cause")
            except KeyError as exc:
                raise RuntimeError(NASTY) from exc
        except RuntimeError:
            self.logger.error("oh", exc_info=True, stack_info=True)
        line = self.format()
        self.assertIn("KeyError: 'the cause'", line["exception"])
        self.assertIn("RuntimeError: a\n", line["exception"])
        self.assertIn(sys._getframe().f_code.co_name, line["stack"])


class Tracebacks(LogsTestCase):
    """A bug that a peer's bytes lead to costs a bounded part of a log, and forges no line of it."""

    def logged(self, exception: BaseException) -> str:
        try:
            raise exception
        except BaseException:
            self.logger.exception("oh")
        return TextFormatter().format(self.last)

    def test_deep(self) -> None:
        """Of a deep recursion the innermost frames are shown."""

        def forth(depth: int) -> None:
            back(depth + 1)

        def back(depth: int) -> None:
            forth(depth)

        try:
            forth(0)
        except RecursionError:
            self.logger.exception("oh")
        line = TextFormatter().format(self.last)
        self.assertLess(len(line.splitlines()), 40)
        self.assertIn("RecursionError", line)

    def test_long(self) -> None:
        """A long text is cut, in length and in lines; frames and the end are still there."""
        for text in ("x" * 1_000_000, "\n".join("x" * 1000)):
            line = self.logged(RuntimeError(text))
            self.assertLess(len(line), 20_000)
            self.assertIn("in logged", line)
            self.assertIn("RuntimeError: x", line)

    def test_chain(self) -> None:
        """A chain of causes is bounded, too."""
        exception = RuntimeError("0")
        for number in range(1, 200):
            following = RuntimeError(str(number))
            following.__cause__ = exception
            exception = following
        line = self.logged(exception)
        self.assertLess(len(line.splitlines()), 80)
        self.assertIn("RuntimeError: 199", line)

    def test_forged_lines(self) -> None:
        """No line begins with what an exception says, and none speaks to a terminal."""
        line = self.logged(RuntimeError("a\n2026-01-01 INFO wsproxy: forged\x1b[2J\u20282026"))
        self.assertNotIn("\n2026", line)
        self.assertIn("2026-01-01 INFO wsproxy: forged\\x1b[2J\\u2028", line)

    def test_without_exception(self) -> None:
        """A record that was to have a traceback, where nothing is being handled, has none."""
        self.logger.error("oh", exc_info=True)
        self.assertTrue(self.last.exc_text is None)


class ComplaintsTest(LogsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.complaints = Complaints(self.logger, lambda: self.now, 60.0)

    def note(self, kind: str) -> None:
        try:
            raise KeyError("the cause")
        except KeyError:
            self.complaints.note(kind)

    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.handler.records]

    def test_bounded(self) -> None:
        """One traceback a minute is logged of each kind, and then how many there were besides."""
        for kind in ("one", "one", "two", "one"):
            self.note(kind)
        self.assertEqual(self.messages(), ["one", "two"])
        self.assertTrue(all(record.exc_info for record in self.handler.records))
        self.now = 59.9
        self.note("one")
        self.now = 60.0
        self.note("two")
        self.note("one")
        self.assertEqual(self.messages()[2:], ["two", "one (and 3 times since the last line)"])
        self.now = 120.0
        self.note("one")
        self.assertEqual(self.messages()[-1], "one")


class RFC3339(unittest.TestCase):
    def test_time(self) -> None:
        """UTC, with milliseconds, also where there are none."""
        self.assertEqual(rfc3339(0), "1970-01-01T00:00:00.000Z")
        self.assertEqual(rfc3339(1700000000.1239), "2023-11-14T22:13:20.123Z")

    def test_times_out_of_range(self) -> None:
        """A time that it cannot express is the nearest one."""
        for late in (253402300800, 253402300799 + 300, 1e300, float("inf")):
            self.assertTrue(rfc3339(late).startswith("9999-12-31T23:59:59."), late)
        self.assertEqual(rfc3339(253402300799), "9999-12-31T23:59:59.000Z")
        self.assertEqual(rfc3339(-1e300), "1970-01-01T00:00:00.000Z")


if __name__ == "__main__":
    unittest.main()
