"""The audit log: what happened to sessions, for the record, as JSON lines in a file."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..exceptions import ConfigError
from ..runtime.logs import get_logger, rfc3339

__all__ = ["AuditLog"]

logger = get_logger("wsproxy.audit")

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MODE = 0o600


class AuditLog:
    """Appends events to a file. Safe from every thread, and with several processes on one file.

    The file is made for its owner alone; one that exists keeps its mode. Nothing is written before
    :meth:`open`.

    :param path: of the file, None for no log at all.
    :raises ConfigError: if it cannot be written to.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        # Guards the attributes below; held while writing, so that no line is written to a closed file.
        self._lock = threading.Lock()
        self._descriptor = -1
        self._failed = False
        if path is not None:
            try:
                os.close(os.open(path, _FLAGS, _MODE))
            except OSError as exc:
                raise ConfigError(
                    [f"audit_log is {path!r}: {exc.strerror}; name a file that can be made or written to"]
                ) from None

    def write(self, event: str, fields: Mapping[str, Any]) -> None:
        """Append one event, with the time. Blocks for a write to the file; raises nothing.

        What cannot be written is lost, with an error in the log for the first of several. Any thread.
        """
        if self._path is None:
            return
        line = json.dumps({"time": rfc3339(time.time()), "event": event, **fields}).encode() + b"\n"
        with self._lock:
            if self._descriptor < 0:
                return
            try:
                # In one call, because other processes append, too.
                written = os.write(self._descriptor, line)
                fault = None if written == len(line) else f"{written} of {len(line)} bytes were written"
            except OSError as exc:
                fault = exc.strerror
            complain, self._failed = bool(fault and not self._failed), bool(fault)
        if complain:
            logger.error("audit log %s: %s; events are being lost", self._path, fault)

    def open(self) -> None:
        """Open the file, or open it anew, as it may have been renamed. Any thread; raises nothing.

        If that cannot be done the file from before stays, with an error in the log.
        """
        if self._path is None:
            return
        try:
            descriptor = os.open(self._path, _FLAGS, _MODE)
        except OSError as exc:
            logger.error("audit log %s cannot be opened: %s", self._path, exc.strerror)
            return
        with self._lock:
            before, self._descriptor = self._descriptor, descriptor
        if before >= 0:
            os.close(before)

    def close(self) -> None:
        """Close the file; later events are dropped. Idempotent."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
