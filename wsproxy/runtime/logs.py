"""Loggers that put the session's id on every record, and formatters for text and JSON.

The loggers are those of :mod:`logging`. This file changes neither the root logger nor any handler. A
program sets :class:`TextFormatter` or :class:`JSONFormatter` on a handler of its own.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any

__all__ = [
    "Complaints",
    "JSONFormatter",
    "SessionLogger",
    "TextFormatter",
    "get_logger",
    "in_session",
    "rfc3339",
]

if TYPE_CHECKING:
    _LoggerAdapter = logging.LoggerAdapter[logging.Logger]
else:  # Python 3.10 cannot subscript the class
    _LoggerAdapter = logging.LoggerAdapter

_session: ContextVar[str] = ContextVar("wsproxy_session", default="")
_BREAKS_LINES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LAST_TIME = 253402300799.999  # 9999-12-31T23:59:59.999Z
_MOST_FRAMES = 12  # of a traceback, the innermost
_MOST_OF_A_LINE = 300
_MOST_LINES = 60

_Failure = tuple[type[BaseException], BaseException, TracebackType | None]


class _RecordFilter(logging.Filter):
    """Sets ``session`` of each record to the id of the thread's session, and bounds the traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "session"):
            record.session = _session.get()
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = _bounded_traceback(record.exc_info)  # formatters use it instead of exc_info
        return True


_filter = _RecordFilter()


def _bounded_traceback(failure: _Failure) -> str:
    """Return a traceback of bounded length.

    Further lines of an exception's text are indented, so that they cannot look like log lines.
    """
    lines: list[str] = []
    for part in traceback.TracebackException(*failure, limit=-_MOST_FRAMES, compact=True).format():
        first, *further = part.rstrip("\n").split("\n")
        lines += [first, *(line if line.startswith(" ") else f"  {line}" for line in further)]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES // 2 : -_MOST_LINES // 2] = ["..."]
    return "\n".join(_BREAKS_LINES.sub(_escaped, line[:_MOST_OF_A_LINE]) for line in lines)


def get_logger(name: str) -> logging.Logger:
    """Return the logger with this name. Its records have an attribute ``session``, "" outside a session."""
    logger = logging.getLogger(name)
    logger.addFilter(_filter)
    return logger


class in_session:
    """Context manager: the records of the current thread get a session's id.

    :param session: the id.
    """

    def __init__(self, session: str) -> None:
        self._id = session

    def __enter__(self) -> None:
        self._before = _session.set(self._id)

    def __exit__(self, *failure: object) -> None:
        _session.reset(self._before)


class SessionLogger(_LoggerAdapter):
    """Logs for one session in threads that work for many sessions.

    :param logger: a logger of :func:`get_logger`.
    :param session: the session's id.
    """

    def __init__(self, logger: logging.Logger, session: str) -> None:
        super().__init__(logger, {"session": session})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


class Complaints:
    """Logs unexpected errors: at most one traceback of each kind in an interval, with the number of others.

    Any thread.

    :param logger: logs the errors.
    :param clock: seconds for the interval.
    :param seconds: interval from one traceback to the next of the same kind.
    """

    def __init__(
        self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic, seconds: float = 60.0
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._seconds = seconds
        # Guards _kinds: the time from which each kind is logged again, and the number of errors before it.
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}

    def note(self, kind: str) -> None:
        """Log the current exception. Raises nothing, even if one of the program's log handlers raises.

        :param kind: the message, a constant.
        """
        with self._lock:
            now = self._clock()
            due, missed = self._kinds.get(kind, (now, 0))
            self._kinds[kind] = (due, missed + 1) if now < due else (now + self._seconds, 0)
        if now >= due:
            more = f" (and {missed} times since the last line)" if missed else ""
            with suppress(Exception):
                self._logger.exception("%s%s", kind, more)


def rfc3339(seconds: float) -> str:
    """Return a UNIX time in RFC 3339 format, in UTC, with milliseconds.

    A time before 1970 becomes the first of 1970, and a time after 9999 the last of 9999.
    """
    seconds = min(max(seconds, 0.0), _LAST_TIME)
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """Formats each record as one line. A traceback follows in lines of its own.

    Control characters in a message are escaped, so that no peer can add lines.

    :param with_process: whether the line has the process id.
    """

    def __init__(self, *, with_process: bool = False) -> None:
        process = " [%(process)d]" if with_process else ""
        super().__init__(f"%(asctime)s{process} %(levelname)s %(name)s: %(message)s")
        self._second = (0, "")  # the latest second, and its formatted text

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        second, written = self._second
        if second != int(record.created):
            second = int(record.created)
            written = time.strftime(datefmt or self.default_time_format, self.converter(second))
            self._second = second, written
        return f"{written},{int(record.msecs):03d}"

    def formatMessage(self, record: logging.LogRecord) -> str:
        session = getattr(record, "session", "")
        if session and session not in record.message:
            record.message = f"session {session}: {record.message}"
        record.message = _BREAKS_LINES.sub(_escaped, record.message)
        return super().formatMessage(record)


class JSONFormatter(logging.Formatter):
    """Formats each record as one JSON object in one line, traceback included.

    The members are ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message`` and ``process``. Records of a
    session also have ``session``. ``exception`` and ``stack`` are there if the record has them. The record's
    attribute ``fields`` adds further members.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if session := getattr(record, "session", ""):
            line["session"] = session
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        # A record's fields cannot replace the standard members.
        return json.dumps({**getattr(record, "fields", {}), **line}, default=str)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
