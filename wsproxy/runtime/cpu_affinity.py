"""Keeping the threads of a process that take turns on one CPU.

One thread at a time runs Python. To hand the interpreter's lock to a thread on another CPU takes an interrupt
there, and finds cold caches: docs/performance.md has what that costs. Threads that copy much are
let go anywhere meanwhile, because they hold no lock while they do.
"""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["anywhere", "settle"]

# What the process may use apart from settle(); empty until then. Like the affinity itself it is the
# process's; assigned once, before there are threads.
_allowed: frozenset[int] = frozenset()


def settle(choice: int) -> None:
    """Keep the calling thread, and what it starts from now on, on one of the CPUs that it may use.

    For a process's main thread, before there is another one. Does nothing with a single CPU, or where the
    system knows no affinity (macOS) or does not allow it. The system's scheduler moves whatever else runs
    on that CPU.

    :param choice: any number; several processes with numbers in a row spread over the CPUs.
    """
    global _allowed
    with suppress(AttributeError, OSError):
        allowed = frozenset(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {sorted(allowed)[choice % len(allowed)]})
        _allowed = allowed


class anywhere:
    """``with`` it, the calling thread may use every CPU again that the process had before :func:`settle`."""

    def __enter__(self) -> None:
        if _allowed:
            with suppress(OSError):
                self._settled = os.sched_getaffinity(0)
                os.sched_setaffinity(0, _allowed)

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if _allowed:
            with suppress(OSError):  # the CPU may have been taken from the process meanwhile
                os.sched_setaffinity(0, self._settled)
