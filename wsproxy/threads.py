"""Starting threads, with a small stack and a known owner."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["current_owner", "start_thread"]

STACK_SIZE = 512 * 1024
"""Bytes. A session recurses little; what JSON may nest is bounded by :mod:`wsproxy.nesting`."""

# Guards threading.stack_size(), which is one setting for the whole process.
_lock = threading.Lock()
_current = threading.local()


def current_owner() -> object | None:
    """Return the owner of the calling thread, None for a thread that was not started here."""
    return getattr(_current, "owner", None)


def start_thread(name: str, target: Callable[[], None], owner: object) -> threading.Thread:
    """Start a thread and return it; whoever starts it joins it.

    It is a daemon, so that a program which forgets to stop its proxy can still exit.

    :param owner: what the thread works for, see :func:`current_owner`.
    :raises RuntimeError: if the system will not start one more.
    """

    def run() -> None:
        _current.owner = owner
        target()

    thread = threading.Thread(target=run, name=name, daemon=True)
    with _lock:
        before = threading.stack_size(STACK_SIZE)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    return thread
