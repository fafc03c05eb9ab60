"""What a test leaves behind: threads, sockets, and exceptions that nobody saw."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from contextlib import suppress

from ..runtime.deadline import Deadline

__all__ = ["LeakCheck"]

_SETTLE_SECONDS = 5.0


class LeakCheck:
    """Looks at the process when it is made, and again when it is asked.

    Until :meth:`stop` it takes the place of :data:`threading.excepthook` and :data:`sys.unraisablehook`.
    Other tests must not run in the same process meanwhile. In Python's development mode (``-X dev``), in
    which garbage is collected for each, the first one exempts all that exists by then (:func:`gc.freeze`):
    otherwise that would be looked through again and again, which took longer than the tests.
    """

    def __init__(self) -> None:
        if sys.flags.dev_mode and not gc.get_freeze_count():
            gc.collect()
            gc.freeze()
        self._errors: list[str] = []
        self._hooks = threading.excepthook, sys.unraisablehook
        threading.excepthook = self._thread_died
        sys.unraisablehook = self._raised
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

        A thread that is about to end is waited for: five seconds for all of them. In Python's development
        mode (``-X dev``) garbage is collected first, so that what a finalizer complains about counts here.
        """
        deadline = Deadline(_SETTLE_SECONDS)
        for thread in set(threading.enumerate()) - self._threads:
            with suppress(TimeoutError):
                thread.join(deadline.remaining())
        # Collecting takes longer than most tests, so it is done where it can make a difference.
        if sys.flags.dev_mode or self._sockets_left():
            gc.collect()
        faults = [f"thread left: {thread.name}" for thread in set(threading.enumerate()) - self._threads]
        faults += [f"socket left: {_ends(descriptor)}" for descriptor in self._sockets_left()]
        return sorted(faults) + [f"exception in a thread: {error}" for error in self._errors]

    def _sockets_left(self) -> list[int]:
        return [descriptor for inode, descriptor in _open_sockets().items() if inode not in self._sockets]


def _open_sockets() -> dict[str, int]:
    """Return this process's sockets by inode, each with its descriptor; none where there is no /proc."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return {}
    return {link: int(name) for name in names if (link := _link(name)).startswith("socket:")}


def _link(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""


def _ends(descriptor: int) -> str:
    """Return both addresses of a socket, as far as it has them."""
    try:
        copy = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return "closed just now"
    ends = []
    with copy:
        for ask in (copy.getsockname, copy.getpeername):
            try:
                ends.append(str(ask()))
            except OSError:
                pass  # it is not connected
    return " to ".join(ends)
