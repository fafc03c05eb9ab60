"""Writes to standard output and standard error without waiting for a reader."""

from __future__ import annotations

import logging
import selectors
import sys
from typing import TextIO

from ..runtime.logs import get_logger
from ..telemetry.line_file import LineFile, open_descriptor
from ..telemetry.line_writer import LineWriter, flush_program_log

__all__ = ["LineHandler", "print_line", "stderr_handler"]

_log = get_logger("wsproxy.log")


def stderr_handler(formatter: logging.Formatter) -> logging.Handler:
    """Return a handler that writes lines to stderr, in the format of ``formatter``."""
    stream: TextIO | None = sys.stderr
    file = _file_of(stream)
    handler = (
        LineHandler(file, stream.encoding or "utf-8") if stream and file else logging.StreamHandler(stream)
    )
    handler.setFormatter(formatter)
    return handler


def _file_of(stream: TextIO | None) -> LineFile | None:
    """Return a writer to a stream's descriptor; None if the stream has no descriptor."""
    try:
        return open_descriptor(stream.fileno()) if stream else None
    except (OSError, ValueError):
        return None


def _is_ready(stream: TextIO) -> bool:
    """Whether a stream's descriptor takes some KiB without blocking."""
    try:
        with selectors.PollSelector() as selector:
            selector.register(stream, selectors.EVENT_WRITE)
            return bool(selector.select(0))
    except (OSError, ValueError):
        return False


def print_line(text: str, stream: TextIO) -> None:
    """Print a line after the lines that were logged before it.

    Blocks for at most three seconds, unless a file system hangs. If nobody reads the stream, it loses the
    line.

    :param stream: stdout or stderr. Its buffer must be empty.
    """
    flush_program_log()
    # A reader of the line may then inspect the process's descriptors, so this opens one only if it must.
    file = None if _is_ready(stream) else _file_of(stream)
    if file is None:
        print(text, file=stream, flush=True)
        return
    writer = LineWriter("wsproxy-output", lambda lost: b"")
    writer.use(file)
    writer.put(f"{text}\n".encode(stream.encoding or "utf-8", "backslashreplace"))
    writer.close()


class LineHandler(logging.Handler):
    """Writes each record as a line, or as several lines that stay together. Logging never waits for a reader.

    :param file: the file that the lines go to.
    :param encoding: the encoding of text. Characters that it lacks are escaped.
    """

    def __init__(self, file: LineFile, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding
        self._writer = LineWriter("wsproxy-log", self._say_lost, is_program_log=True)
        self._writer.use(file)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - an argument's __str__ may raise anything; handleError reports it
            self.handleError(record)
            return
        self._writer.put(line)

    def handleError(self, record: logging.LogRecord) -> None:
        """Log that a record cannot be formatted, which is a bug. The base class's stderr might block."""
        self._writer.put(self._line(_record(logging.ERROR, "a record of %s cannot be logged", record.name)))

    def flush(self) -> None:
        """Wait until every line is written, but for at most a second."""
        self._writer.flush()

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(self._encoding, "backslashreplace")

    def _say_lost(self, lost: int) -> bytes:
        what = "line was" if lost == 1 else "lines were"
        return self._line(
            _record(logging.WARNING, "%d %s lost here: the log was not read, or full", lost, what)
        )


def _record(level: int, message: str, *args: object) -> logging.LogRecord:
    return _log.makeRecord(_log.name, level, __file__, 0, message, args, None)
