"""Closes the sockets that a forked child inherits of running proxies.

The child has copies of the sockets, but no threads that serve them. If it kept a listening socket open, the
port would stay in use after the proxy has stopped, and clients there would get no answer. If it kept a
connection open, that would outlive a killed parent. So the child closes each right after the fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["in_forked_child"]

T = TypeVar("T")

# Global, because forks concern the whole process. An entry disappears with its object.
_actions: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def in_forked_child(thing: T, action: Callable[[T], None]) -> T:
    """Have every child that this process forks call ``action(thing)``, as long as ``thing`` exists.

    Any thread; does not block. The action must not wait for a lock, because a thread that the child does not
    have may hold it. The action may close a connection, but do nothing else to it. OSError is ignored.

    :returns: ``thing``.
    """
    _actions[thing] = action
    return thing


def _after_fork() -> None:
    inherited = list(_actions.items())
    _actions.clear()
    for thing, action in inherited:
        try:
            action(thing)
        except OSError:
            pass  # closed already


os.register_at_fork(after_in_child=_after_fork)
