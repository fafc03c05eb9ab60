"""The audit log: what happened to sessions, for the record, as JSON lines in a file."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Mapping
from typing import Any

from ..exceptions import ConfigError
from ..runtime.logs import get_logger, rfc3339
from .line_file import descriptor_of, open_path
from .line_writer import LineWriter

__all__ = ["AuditLog"]

logger = get_logger("wsproxy.audit")

_REMEDIES = {
    errno.ENXIO: "nobody reads it; let the user of this process read it, too, or start what reads it first",
    errno.EBADF: "have the program started with it open for writing, or name a file",
}


class AuditLog:
    """Appends events to a file. Safe from every thread, and with several processes on one file.

    The file is made for its owner alone; one that exists keeps its mode. It may be a FIFO, which nobody needs
    to read yet, or ``-`` or ``/dev/stdout`` for the standard output. Nothing is written before :meth:`open`.

    :param path: of the file, None for no log at all.
    :raises ConfigError: if it cannot be written to.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._writer = LineWriter("wsproxy-audit", self._lost_event, self._complain, self._relieve)
        if path is not None:
            try:
                _try_out(path)
            except OSError as exc:
                remedy = _REMEDIES.get(exc.errno or 0, "name a file that can be made or written to")
                raise ConfigError([f"audit_log is {path!r}: {exc.strerror}; {remedy}"]) from None

    @property
    def lost(self) -> int:
        """How many events could not be written so far. Any thread."""
        return self._writer.lost

    def write(self, event: str, fields: Mapping[str, Any]) -> None:
        """Append one event, with the time. Does not block, and raises nothing. Any thread.

        What cannot be written is lost, with an error in the log for the first of several, and an event in
        the file when it goes on.
        """
        if self._path is not None:
            self._writer.put(_line(event, fields))

    def open(self) -> None:
        """Open the file, or open it anew, as it may have been renamed. Any thread; raises nothing.

        Events until now go to the file from before, if it takes them within a second. If the file cannot be
        opened that one stays, with an error in the log. After :meth:`close` nothing is opened.
        """
        if self._path is None:
            return
        self.flush()
        try:
            self._writer.use(open_path(self._path))
        except OSError as exc:
            logger.error("audit log %s cannot be opened: %s", self._path, exc.strerror)

    def flush(self) -> bool:
        """Wait until every event is written or lost, a second at most; return whether each is. Any thread."""
        return self._writer.flush()

    def close(self) -> None:
        """Write what waits, and close the file; later events are dropped. Idempotent.

        Takes two seconds at most, whatever the file does; what is not written then is lost.
        """
        self._writer.close()

    def _lost_event(self, lost: int) -> bytes:
        return _line("lost", {"events": lost})

    def _complain(self, reason: str) -> None:
        logger.error("audit log %s: %s; events are being lost", self._path, reason)

    def _relieve(self, lost: int) -> None:
        logger.warning("audit log %s goes on; %d events were lost", self._path, lost)


def _line(event: str, fields: Mapping[str, Any]) -> bytes:
    return json.dumps({"time": rfc3339(time.time()), "event": event, **fields}).encode() + b"\n"


def _try_out(path: str) -> None:
    """Open and close a file, and make it if need be.

    Not a FIFO that can be read, too: whoever reads it would take that for the end.

    :raises OSError: if it cannot be written to.
    """
    is_fifo = descriptor_of(path) is None and os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)
    if not (is_fifo and os.access(path, os.R_OK | os.W_OK)):
        open_path(path).close()
