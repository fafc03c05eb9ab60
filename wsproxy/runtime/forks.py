"""What a forked child does with what it inherits of running proxies.

It has their sockets, but none of their threads. Kept open there, a listening socket would keep the port after
the proxy has been stopped, and take in clients whom nobody serves; a connection would outlive a
parent that is killed. So each is closed in the child, right after the fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["in_forked_child"]

T = TypeVar("T")

# Of the process, as forks are. An entry goes with its object.
_actions: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def in_forked_child(thing: T, action: Callable[[T], None]) -> T:
    """Have every child that this process forks call ``action(thing)``, as long as there is ``thing``.

    Any thread. The action must not wait for a lock, which might be held by a thread that is not there, and
    must not do anything to a connection but close it. OSError is ignored.

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
