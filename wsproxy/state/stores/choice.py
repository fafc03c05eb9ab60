"""Makes the store that the settings choose."""

from __future__ import annotations

import grp
import socket
from typing import TYPE_CHECKING

from ...exceptions import ConfigError
from ..store import Store
from .places import LOCAL, MEMORY, StateRules

if TYPE_CHECKING:
    from .redis.store import RedisStore

__all__ = ["open_store", "replica_name"]

_MOST_NAME = 100
_NO_LIBRARY = (
    "state is a Redis, which needs the package redis, 6.0 or later; run: "
    "pip install 'lab-orchestrator-ws-proxy-lib[redis]'"
)


def open_store(rules: StateRules) -> Store:
    """Return the store. The caller closes it.

    It reads the files that the rules name, and connects to nothing: the first operation does. So a store may
    be made before a fork.

    :raises ConfigError: if a file or a package is missing, or there is no such group.
    """
    if rules.place.kind == MEMORY:
        from .memory import MemoryStore

        return MemoryStore(settled=True)
    if rules.place.kind == LOCAL:
        from .local import LocalStore

        return LocalStore(rules.place.path, group=_group(rules.group))
    return _redis(rules)


def replica_name(rules: StateRules) -> str:
    """Return this replica's name for people: the one that is set, or the host's."""
    if rules.replica:
        return rules.replica
    name = "".join(char if char.isprintable() else "?" for char in socket.gethostname())
    return name[:_MOST_NAME] or "unnamed"


def _redis(rules: StateRules) -> RedisStore:
    try:
        from .redis.store import redis_store
    except ImportError:
        raise ConfigError([_NO_LIBRARY]) from None
    return redis_store(rules)


def _group(text: str | None) -> int | None:
    """Return the id of a group.

    :raises ConfigError: if this system has no such group.
    """
    if text is None:
        return None
    try:
        return int(text) if text.isdecimal() else grp.getgrnam(text).gr_gid
    except (KeyError, OverflowError):
        raise ConfigError([f"state_group is {text[:_MOST_NAME]!r}; this system has no such group"]) from None
