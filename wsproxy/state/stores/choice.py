"""Makes the store that the settings choose."""

from __future__ import annotations

import grp
import socket
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Protocol, runtime_checkable

from ...exceptions import ConfigError
from ..store import Store
from .findings import OK, StoreFinding
from .local.check import check_local
from .places import LOCAL, MEMORY, StateRules

__all__ = ["check_store", "group_id", "open_store", "replica_name", "store_faults"]

_MOST_NAME = 100
_LAST_GROUP = 2**32 - 2  # the next number means none to chown
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
        from .local.store import LocalStore

        return LocalStore(rules.place.path, group=group_id("state_group", rules.group))
    store: Store = _redis().redis_store(rules)
    return store


def replica_name(rules: StateRules) -> str:
    """Return this replica's name for people: the one that is set, or the host's."""
    if rules.replica:
        return rules.replica
    name = "".join(char if char.isprintable() else "?" for char in socket.gethostname())
    return name[:_MOST_NAME] or "unnamed"


def store_faults(store: Store) -> tuple[str, ...]:
    """Return what makes a store unfit, for the start of a process: nothing, or texts. Blocks for a second.

    :raises StoreUnavailable: if it does not answer.
    """
    return store.faults() if isinstance(store, _Faulty) else ()


def check_store(rules: StateRules) -> Iterator[StoreFinding]:
    """Check the store that the settings choose. Starts none. Blocks for some seconds.

    :raises ConfigError: as :func:`open_store`.
    """
    if rules.place.kind == MEMORY:
        yield StoreFinding(OK, "each process has its own; several replicas need a Redis")
    elif rules.place.kind == LOCAL:
        yield from check_local(rules.place.path, group_id("state_group", rules.group))
    else:
        yield from _redis().redis_findings(rules)


@runtime_checkable
class _Faulty(Protocol):
    """A store that may turn out to be unfit."""

    def faults(self) -> tuple[str, ...]: ...


def _redis() -> ModuleType:
    """Return the module, which is imported only by those who need it: redis-py is an extra.

    :raises ConfigError: without redis-py.
    """
    try:
        from .redis import store
    except ImportError:
        raise ConfigError([_NO_LIBRARY]) from None
    return store


def group_id(setting: str, text: str | None) -> int | None:
    """Return the id of the group that a setting names; None if it names none. Blocks on the file system.

    :raises ConfigError: if this system has no such group.
    """
    if text is None:
        return None
    with suppress(KeyError, ValueError):  # the latter: very many digits, or a null character
        found = int(text) if text.isdecimal() else grp.getgrnam(text).gr_gid
        if found <= _LAST_GROUP:
            return found
    raise ConfigError([f"{setting} is {text[:_MOST_NAME]!r}; this system has no such group"])
