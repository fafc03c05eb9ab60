"""Keeps the threads of a process on one CPU, because only one of them at a time runs Python.

To pass the interpreter lock to a thread on another CPU costs an interrupt, and cold caches there
(docs/performance.md has numbers). A thread that copies much data may use every CPU meanwhile, because it
does not hold the lock while it copies.
"""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["anywhere", "settle"]

# The CPUs that the process might use before settle(); empty until then. The affinity is the process's, so
# this is global, too. Assigned once, before there are threads.
_allowed: frozenset[int] = frozenset()


def settle(choice: int) -> None:
    """Keep the calling thread, and the threads that it starts later, on one of the CPUs that it may use.

    Call it in the main thread, before there is another thread. It has no effect with a single CPU, or if the
    system has no affinity (macOS) or does not permit it. If other programs run on that CPU, the kernel's
    scheduler moves them.

    :param choice: any number. Processes with consecutive numbers spread over the CPUs.
    """
    global _allowed
    with suppress(AttributeError, OSError):
        allowed = frozenset(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {sorted(allowed)[choice % len(allowed)]})
        _allowed = allowed


class anywhere:
    """Context manager: the calling thread may use all CPUs that the process had before :func:`settle`."""

    def __enter__(self) -> None:
        if _allowed:
            with suppress(OSError):
                self._settled = os.sched_getaffinity(0)
                os.sched_setaffinity(0, _allowed)

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if _allowed:
            with suppress(OSError):  # the CPU may have been taken from the process meanwhile
                os.sched_setaffinity(0, self._settled)
