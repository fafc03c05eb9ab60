"""What a test leaves behind: threads, sockets, and exceptions that nobody saw."""

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
    """Looks at the process when it is made, and again when it is asked.

    Until :meth:`stop` it takes the place of :data:`threading.excepthook` and :data:`sys.unraisablehook`.
    Other tests must not run in the same process meanwhile. In Python's development mode (``-X dev``), in
    which garbage is collected for each, the first one exempts all that exists by then (:func:`gc.freeze`):
    otherwise that would be looked through again and again, which took longer than the tests.

    What an older proxy keeps for its next client is no leak, and is not waited for: one proxy may serve all
    tests of a class.

    :param allowed: what the program under test keeps on purpose: patterns (``fnmatch``) of threads' names,
        and of what is told of sockets. ``"ThreadPoolExecutor-*"`` is a pool's threads; ``"asyncio*"`` is
        the default executor of asyncio, and the sockets of an event loop that is not closed.
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
        """Put the hooks back."""
        threading.excepthook, sys.unraisablehook = self._hooks

    def faults(self) -> list[str]:
        """Return what is left and not allowed, one line each; none if nothing is.

        A thread that is about to end is waited for: five seconds for all of them. In Python's development
        mode (``-X dev``) garbage is collected first, so that what a finalizer complains about counts here.
        """
        deadline = Deadline(_SETTLE_SECONDS)
        while (left := self._threads_left()) and not deadline.passed:
            left[0].join(_LOOK_AGAIN)
        # Collecting takes longer than most tests, so it is done where it can make a difference.
        if sys.flags.dev_mode or self._sockets_left():
            gc.collect()
        faults = [f"{kind} left: {name}" for kind, names in self._left().items() for name in names]
        return sorted(faults) + [f"exception in a thread: {error}" for error in self._errors]

    def check(self, setting: str = "LeakCheck(allowed={})") -> None:
        """Assert that there are no :meth:`faults`.

        :param setting: how a test says what is allowed, for the message; the braces stand for a tuple.
        :raises AssertionError: naming them, and saying how to allow what the program keeps on purpose.
        """
        __tracebackhide__ = True
        if not (faults := self.faults()):
            return
        text = "\n".join(["the test left something behind:", *(f"    {fault}" for fault in faults)])
        patterns = sorted({_pattern(name) for names in self._left().values() for name in names})
        if patterns:
            how = setting.format(tuple(patterns))
            text += f"\nEnd it in the test, or allow it if your program keeps it: {how}"
        raise AssertionError(text)

    def _left(self) -> dict[str, list[str]]:
        """Return the names of what is left, by kind."""
        loops = _event_loop_sockets() if (sockets := self._sockets_left()) else set()
        ends = ["asyncio event loop" if one in loops else _ends(one) for one in sockets]
        threads = [thread.name for thread in self._threads_left()]
        return {"thread": threads, "socket": [name for name in ends if not self._is_allowed(name)]}

    def _threads_left(self) -> list[threading.Thread]:
        # A proxy from before has threads for clients that come, which end when none does.
        waiting = {thread for pool in self._pools for thread in pool.idle_threads}
        left = set(threading.enumerate()) - self._threads - waiting
        return [thread for thread in left if not self._is_allowed(thread.name)]

    def _sockets_left(self) -> list[int]:
        return [descriptor for inode, descriptor in _open_sockets().items() if inode not in self._sockets]

    def _is_allowed(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._allowed)


def _pattern(name: str) -> str:
    """Return a pattern for what is called so in another run: numbers differ then, and our end of a socket."""
    own, to, peer = name.partition(" to ")
    return f"*{to}{escape(peer)}" if to else re.sub("[0-9]+", "*", escape(own))


def _event_loop_sockets() -> set[int]:
    """Return the descriptors by which the event loops of asyncio wake themselves."""
    kind = getattr(sys.modules.get("asyncio"), "BaseEventLoop", None)
    if kind is None:
        return set()
    loops = [one for one in gc.get_objects() if issubclass(type(one), kind) and not one.is_closed()]
    ends = [getattr(loop, name, None) for loop in loops for name in ("_ssock", "_csock")]
    return {end.fileno() for end in ends if isinstance(end, socket.socket)}


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
