"""The audit log: records what happens to sessions, as JSON lines in a file."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Mapping
from typing import Any

from ..exceptions import ConfigError
from ..runtime.files import check_can_create
from ..runtime.logs import get_logger, rfc3339
from .line_file import descriptor_of, open_path
from .line_writer import LineWriter

__all__ = ["AuditLog", "audit_log_fault"]

logger = get_logger("wsproxy.audit")

_REMEDIES = {
    errno.ENXIO: "it has no reader; start the reader first, or let the user of this process read it, too",
    errno.EBADF: "start the program with it open for writing, or name a file",
}


class AuditLog:
    """Appends events to a file. Safe from every thread; several processes may write to one file.

    A new file is created for its owner alone; an existing one keeps its mode. The path may be a FIFO, even
    without a reader yet, or ``-`` or ``/dev/stdout`` for the standard output. Nothing is written before
    :meth:`open`.

    :param path: path of the file; None for no audit log.
    :raises ConfigError: if the file cannot be written to.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._writer = LineWriter("wsproxy-audit", self._lost_event, self._complain, self._relieve)
        if path is not None:
            try:
                _try_out(path)
            except OSError as exc:
                raise ConfigError([_fault(path, exc)]) from None

    @property
    def lost(self) -> int:
        """How many events were lost so far, because they could not be written. Any thread."""
        return self._writer.lost

    def write(self, event: str, fields: Mapping[str, Any]) -> None:
        """Append one event, with the time. Does not block, and raises nothing. Any thread.

        If events cannot be written, they are lost. The first of several causes an error in the program's log.
        When writing works again, an event in the file says how many were lost.
        """
        if self._path is not None:
            self._writer.put(_line(event, fields))

    def open(self) -> None:
        """Open the file, or open it again, because it may have been renamed. Any thread; raises nothing.

        Blocks on the file system. Before that it waits for a second at most, so that earlier events go to the
        earlier file. If the file cannot be opened, this logs an error, and the earlier file stays. After
        :meth:`close` no file is used.
        """
        if self._path is None:
            return
        self.flush()
        try:
            self._writer.use(open_path(self._path))
        except OSError as exc:
            logger.error("cannot open the audit log %s: %s", self._path, exc.strerror)

    def flush(self) -> bool:
        """Block until every event is written or lost, a second at most; return whether it is. Any thread."""
        return self._writer.flush()

    def close(self) -> None:
        """Write the waiting events, and close the file. Later events are dropped. Idempotent.

        Blocks for two seconds at most, even if the file hangs. Events that are not written by then are lost.
        """
        self._writer.close()

    def _lost_event(self, lost: int) -> bytes:
        return _line("lost", {"events": lost})

    def _complain(self, reason: str) -> None:
        logger.error("audit log %s: %s; events are being lost", self._path, reason)

    def _relieve(self, lost: int) -> None:
        logger.warning("audit log %s can be written again; %d events were lost", self._path, lost)


def audit_log_fault(path: str) -> str | None:
    """Return why the proxy cannot write its audit log to ``path``, and what to do; None if it can.

    Creates nothing, but finds the same faults as :class:`AuditLog`. Blocks on the file system.
    """
    try:
        if descriptor_of(path) is None and not os.path.exists(path):
            check_can_create(os.path.realpath(path))
        else:
            _try_out(path)
        return None
    except OSError as exc:
        return _fault(path, exc)


def _fault(path: str, exc: OSError) -> str:
    remedy = _REMEDIES.get(exc.errno or 0, "name a file that the proxy can create or write")
    return f"audit_log is {path!r}: {exc.strerror}; {remedy}"


def _line(event: str, fields: Mapping[str, Any]) -> bytes:
    return json.dumps({"time": rfc3339(time.time()), "event": event, **fields}).encode() + b"\n"


def _try_out(path: str) -> None:
    """Open and close a file to test it, and create it if it does not exist.

    A FIFO that this process may read and write is not opened, because its reader would see an end of file.

    :raises OSError: if the file cannot be written to.
    """
    is_fifo = descriptor_of(path) is None and os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)
    if not (is_fifo and os.access(path, os.R_OK | os.W_OK)):
        open_path(path).close()
