"""Finds what a test leaves behind: threads, sockets and uncaught exceptions."""

from __future__ import annotations

import gc
import os
import re
import socket
import sys
import threading
import weakref
from collections.abc import Iterable
from fnmatch import fnmatchcase
from glob import escape

from ..runtime.deadline import Deadline
from ..runtime.threads import thread_pools

__all__ = ["LeakCheck"]

__unittest = True  # a failed assertion ends at the line of the test
_SETTLE_SECONDS = 5.0
_LOOK_AGAIN = 0.02  # seconds: a thread may become idle in place of ending


class LeakCheck:
    """Compares the process's threads and sockets with those that existed when this object was made.

    Until :meth:`stop`, it replaces :data:`threading.excepthook` and :data:`sys.unraisablehook`. No other test
    may run in the same process meanwhile. In Python's development mode (``-X dev``) each check collects
    garbage. To keep that fast, the first check exempts all existing objects (:func:`gc.freeze`).

    One proxy may serve all tests of a class. So the idle threads that an older proxy keeps for its next
    client are not leaks, and the check does not wait for them.

    :param allowed: threads and sockets that the program keeps on purpose, as patterns (``fnmatch``) of the
        names in the message. ``"ThreadPoolExecutor-*"`` matches a pool's threads. ``"asyncio*"`` matches
        asyncio's default executor, and the sockets of an event loop that is not closed.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = tuple(allowed)
        if sys.flags.dev_mode and not gc.get_freeze_count():
            gc.collect()
            gc.freeze()
        self._errors: list[str] = []
        self._hooks = threading.excepthook, sys.unraisablehook
        threading.excepthook = self._thread_died
        sys.unraisablehook = self._raised
        self._pools = weakref.WeakSet(thread_pools())
        self._threads = set(threading.enumerate())
        self._sockets = _open_sockets()

    def _thread_died(self, args: threading.ExceptHookArgs) -> None:
        self._errors.append(f"{args.thread.name if args.thread else 'a thread'}: {args.exc_value!r}")

    def _raised(self, args: sys.UnraisableHookArgs) -> None:
        self._errors.append(f"{args.object!r}: {args.exc_value!r}")

    def stop(self) -> None:
        """Restore the hooks."""
        threading.excepthook, sys.unraisablehook = self._hooks

    def faults(self) -> list[str]:
        """Return one line for each leak that is not allowed, and for each uncaught exception.

        Blocks for at most five seconds, until threads that are about to end have ended. In Python's
        development mode (``-X dev``) it also collects garbage, so that exceptions of finalizers count.
        """
        deadline = Deadline(_SETTLE_SECONDS)
        while (left := self._threads_left()) and not deadline.passed:
            left[0].join(_LOOK_AGAIN)
        # A collection takes longer than most tests, so it runs only if it can change the result.
        if sys.flags.dev_mode or self._sockets_left():
            gc.collect()
        faults = [f"{kind} left: {name}" for kind, names in self._left().items() for name in names]
        return sorted(faults) + [f"exception in a thread: {error}" for error in self._errors]

    def check(self, setting: str = "LeakCheck(allowed={})") -> None:
        """Assert that there are no :meth:`faults`.

        :param setting: for the message: how a test allows leaks. The braces stand for a tuple.
        :raises AssertionError: if there are; lists them, and says how to allow them.
        """
        __tracebackhide__ = True
        if not (faults := self.faults()):
            return
        text = "\n".join(["the test leaked:", *(f"    {fault}" for fault in faults)])
        patterns = sorted({_pattern(name) for names in self._left().values() for name in names})
        if patterns:
            how = setting.format(tuple(patterns))
            text += f"\nEnd these in the test. If your program keeps them on purpose, allow them: {how}"
        raise AssertionError(text)

    def _left(self) -> dict[str, list[str]]:
        """Return the names of leaked threads and sockets, by kind."""
        loops = _event_loop_sockets() if (sockets := self._sockets_left()) else set()
        ends = ["asyncio event loop" if one in loops else _ends(one) for one in sockets]
        threads = [thread.name for thread in self._threads_left()]
        return {"thread": threads, "socket": [name for name in ends if not self._is_allowed(name)]}

    def _threads_left(self) -> list[threading.Thread]:
        # An older proxy keeps idle threads for its next clients for a while.
        waiting = {thread for pool in self._pools for thread in pool.idle_threads}
        left = set(threading.enumerate()) - self._threads - waiting
        return [thread for thread in left if not self._is_allowed(thread.name)]

    def _sockets_left(self) -> list[int]:
        return [descriptor for inode, descriptor in _open_sockets().items() if inode not in self._sockets]

    def _is_allowed(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._allowed)


def _pattern(name: str) -> str:
    """Return a pattern that also matches in other runs, where numbers and a socket's own address differ."""
    own, to, peer = name.partition(" to ")
    return f"*{to}{escape(peer)}" if to else re.sub("[0-9]+", "*", escape(own))


def _event_loop_sockets() -> set[int]:
    """Return the descriptors with which asyncio's event loops wake themselves."""
    kind = getattr(sys.modules.get("asyncio"), "BaseEventLoop", None)
    if kind is None:
        return set()
    loops = [one for one in gc.get_objects() if issubclass(type(one), kind) and not one.is_closed()]
    ends = [getattr(loop, name, None) for loop in loops for name in ("_ssock", "_csock")]
    return {end.fileno() for end in ends if isinstance(end, socket.socket)}


def _open_sockets() -> dict[str, int]:
    """Return the descriptors of this process's sockets, by inode. Without /proc the result is empty."""
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
    """Return the addresses that a socket has: its own, and its peer's."""
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
