"""What a test leaves behind: threads, sockets, and exceptions that nobody saw."""

from __future__ import annotations

import gc
import os
import sys
import threading
from contextlib import suppress

from ..deadline import Deadline

__all__ = ["LeakCheck"]

_SETTLE_SECONDS = 5.0


class LeakCheck:
    """Looks at the process when it is made, and again when it is asked.

    Until :meth:`stop` it takes the place of :data:`threading.excepthook` and :data:`sys.unraisablehook`.
    Other tests must not run in the same process meanwhile.
    """

    def __init__(self) -> None:
        self._errors: list[str] = []
        self._hooks = threading.excepthook, sys.unraisablehook
        threading.excepthook = self._thread_died
        sys.unraisablehook = self._raised
        gc.collect()  # what was dropped earlier must not be counted for this test
        self._threads = set(threading.enumerate())
        self._sockets = _open_sockets()

    def _thread_died(self, args: threading.ExceptHookArgs) -> None:
        self._errors.append(f"{args.thread.name if args.thread else 'a thread'}: {args.exc_value!r}")

    def _raised(self, args: sys.UnraisableHookArgs) -> None:
        self._errors.append(f"{args.object!r}: {args.exc_value!r}")

    def stop(self) -> None:
        """Put the hooks back."""
        threading.excepthook, sys.unraisablehook = self._hooks

    def faults(self) -> list[str]:
        """Return what is left, one line each; none if nothing is.

        A thread that is about to end is waited for: five seconds for all of them.
        """
        deadline = Deadline(_SETTLE_SECONDS)
        for thread in set(threading.enumerate()) - self._threads:
            with suppress(TimeoutError):
                thread.join(deadline.remaining())
        gc.collect()
        faults = [f"thread left: {thread.name}" for thread in set(threading.enumerate()) - self._threads]
        faults += [f"socket left: {name}" for name in _open_sockets() - self._sockets]
        return sorted(faults) + [f"exception in a thread: {error}" for error in self._errors]


def _open_sockets() -> frozenset[str]:
    """Return the sockets of this process, by inode; nothing where there is no /proc."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return frozenset()
    return frozenset(link for name in names if (link := _link(name)).startswith("socket:"))


def _link(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""
