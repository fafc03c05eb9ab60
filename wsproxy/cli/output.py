"""What the program writes to its standard output and standard error, without waiting for who reads them."""

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
    """Return a handler that writes to stderr, as lines of ``formatter``."""
    stream: TextIO | None = sys.stderr
    file = _file_of(stream)
    handler = (
        LineHandler(file, stream.encoding or "utf-8") if stream and file else logging.StreamHandler(stream)
    )
    handler.setFormatter(formatter)
    return handler


def _file_of(stream: TextIO | None) -> LineFile | None:
    """Return what writes to the same as a stream, None if that is no descriptor's."""
    try:
        return open_descriptor(stream.fileno()) if stream else None
    except (OSError, ValueError):
        return None


def _is_ready(stream: TextIO) -> bool:
    """Whether a descriptor of a stream's takes some KiB without blocking."""
    try:
        with selectors.PollSelector() as selector:
            selector.register(stream, selectors.EVENT_WRITE)
            return bool(selector.select(0))
    except (OSError, ValueError):
        return False


def print_line(text: str, stream: TextIO) -> None:
    """Print a line, after what was logged so far. Takes three seconds at most; what nobody reads is lost.

    Only a file system that hangs is waited for.

    :param stream: stdout or stderr, of which nothing must wait to be flushed.
    """
    flush_program_log()
    # Whoever has read the line may look at our descriptors, so none is made for it without need.
    file = None if _is_ready(stream) else _file_of(stream)
    if file is None:
        print(text, file=stream, flush=True)
        return
    writer = LineWriter("wsproxy-output", lambda lost: b"")
    writer.use(file)
    writer.put(f"{text}\n".encode(stream.encoding or "utf-8", "backslashreplace"))
    writer.close()


class LineHandler(logging.Handler):
    """Writes each record as a line, or as several that stay together. Who logs waits for no reader.

    :param file: what they are written to.
    :param encoding: of text; a character that it lacks is escaped.
    """

    def __init__(self, file: LineFile, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding
        self._writer = LineWriter("wsproxy-log", self._say_lost, is_program_log=True)
        self._writer.use(file)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - of an argument's __str__; said below
            self.handleError(record)
            return
        self._writer.put(line)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say that a record cannot be formatted, which is a bug: in the log, as stderr may be stuck."""
        self._writer.put(self._line(_record(logging.ERROR, "a record of %s cannot be logged", record.name)))

    def flush(self) -> None:
        """Wait until every line is written, for a second at most."""
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
