"""Values that are loaded from files, and loaded again when the files change.

When Kubernetes rotates the service-account token and the CA, it replaces a symbolic link. So each check looks
a file up by its path, and no file is kept open.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from .logs import get_logger

__all__ = ["Reloaded", "file_fault"]

T = TypeVar("T")
_Stamp = tuple[tuple[int, int, int], ...]

logger = get_logger("wsproxy.reloaded")

_RETRY_SECONDS = 1.0
_REMEDIES = {
    errno.ENOENT: "mount or make it there, or name another file",
    errno.EACCES: "let the user of this process read it, or name another file",
    errno.EISDIR: "name the file in that directory",
}


def file_fault(setting: str, path: str, error: OSError) -> str:
    """Return an error text for a file that a setting names: the fault, and a remedy."""
    reason = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "name a file that can be read")
    return f"{setting} names {path}, which cannot be read: {reason}; {remedy}"


class Reloaded(Generic[T]):
    """Keeps the result of ``load()``, and calls it again when the stat of one of ``paths`` changes.

    Safe from every thread. All methods block on the file system only.

    :param what: the name of the value in log lines.
    :param paths: the files that the value is made from.
    :param load: makes the value; may raise :class:`OSError` or :class:`ValueError`.
    """

    def __init__(self, what: str, paths: Sequence[str], load: Callable[[], T]) -> None:
        self._what = what
        self._paths = tuple(paths)
        self._load = load
        # Guards the attributes below. Held while loading, so that only one thread loads a change.
        self._lock = threading.Lock()
        self._value: T | None = None
        self._stamp: _Stamp | None = None
        self._bad: _Stamp | None = None  # of files that failed to load; None also if one is missing
        self._bad_until = 0.0
        self._complaint = ""

    def get(self) -> T:
        """Return the value of the files as they are now.

        While changed files cannot be loaded, the last value stays in use. The log gets one warning for each
        error text, and the same files are tried at most once a second. So clients that cause many calls can
        neither fill the log nor use up the CPU.

        :raises OSError: if the files could never be read.
        :raises ValueError: if their content was never valid.
        """
        with self._lock:
            stamp: _Stamp | None = None
            try:
                stamp = tuple(self._stamp_of(path) for path in self._paths)
                if self._value is None or (stamp != self._stamp and not self._is_known_bad(stamp)):
                    self._value, self._stamp = self._load(), stamp
                    self._complaint = ""
            except (OSError, ValueError) as exc:
                if self._value is None:
                    raise
                self._bad, self._bad_until = stamp, time.monotonic() + _RETRY_SECONDS
                if str(exc) != self._complaint:
                    logger.warning("%s cannot be read again, the last one stays in use: %s", self._what, exc)
                    self._complaint = str(exc)
            return self._value

    def reload(self) -> None:
        """Load the value again at once. If that fails, log an error and keep the last value."""
        with self._lock:
            stamp: _Stamp | None = None
            try:
                stamp = tuple(self._stamp_of(path) for path in self._paths)
                self._value, self._stamp = self._load(), stamp
                self._complaint = ""
            except (OSError, ValueError) as exc:
                self._bad, self._bad_until = stamp, time.monotonic() + _RETRY_SECONDS
                self._complaint = str(exc)  # so that get() does not log it again
                logger.error("%s cannot be read again, the last one stays in use: %s", self._what, exc)

    def _is_known_bad(self, stamp: _Stamp | None) -> bool:
        """Whether the same files failed to load less than a second ago."""
        return stamp == self._bad and time.monotonic() < self._bad_until

    @staticmethod
    def _stamp_of(path: str) -> tuple[int, int, int]:
        status = os.stat(path)
        return status.st_ino, status.st_mtime_ns, status.st_size
