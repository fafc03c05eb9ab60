"""What ``wsproxy check`` finds out about the store of one host."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from ....exceptions import TransportClosed
from ....runtime.deadline import Deadline
from ..findings import FAULT, OK, WARNING, StoreFinding
from .connection import StoreConnection, Stranger
from .lock import StoreLock

__all__ = ["check_local"]

_SECONDS = 2.0
_OTHERS = stat.S_IWOTH | stat.S_IROTH


def check_local(path: str, group: int | None) -> Iterator[StoreFinding]:
    """Check the store of one host, and start none. Blocks for two seconds at most.

    :param path: of the socket.
    :param group: id of the group that shares it; None for none.
    """
    directory = os.path.dirname(path)
    try:
        mode = os.stat(directory).st_mode
    except OSError as exc:
        yield StoreFinding(FAULT, f"{directory}: {exc.strerror}; make that directory")
        return
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield StoreFinding(
            WARNING, f"every user may replace what is in {directory}; take that right from others (chmod o-w)"
        )
    try:
        answer = _asked(path, group)
    except (FileNotFoundError, ConnectionRefusedError):
        yield _not_running(path, group)
    except Stranger as exc:
        yield StoreFinding(FAULT, f"{exc}; choose another path, or set WSPROXY_STATE_GROUP for both")
    except PermissionError as exc:
        yield StoreFinding(FAULT, f"{exc.strerror}; give this user the right, or set WSPROXY_STATE_GROUP")
    except (OSError, TransportClosed, ValueError) as exc:
        yield StoreFinding(FAULT, f"it does not answer ({exc}); {path}.log may say why")
    else:
        yield _running(path, group, answer)


def _asked(path: str, group: int | None) -> dict[str, Any]:
    deadline = Deadline(_SECONDS)
    connection = StoreConnection(path, group, deadline)
    try:
        return connection.ask("members", [], deadline)
    finally:
        connection.close()


def _running(path: str, group: int | None, answer: Mapping[str, Any]) -> StoreFinding:
    if "result" not in answer:
        return StoreFinding(FAULT, "it is of another version; end it, and it is started again")
    status = os.stat(path)
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS:
        return StoreFinding(WARNING, f"it answers, but its mode is {mode:04o}; take the rights from others")
    if group is not None and (status.st_gid != group or not mode & stat.S_IWGRP):
        return StoreFinding(
            FAULT, f"it answers, but not to group {group}; end it, so that it is started with that group"
        )
    return StoreFinding(OK, f"it answers, its mode is {mode:04o}")


def _not_running(path: str, group: int | None) -> StoreFinding:
    if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        return StoreFinding(
            FAULT, f"it does not run, and this user may not start it; give it {os.path.dirname(path)}"
        )
    if os.path.exists(f"{path}.lock"):
        try:
            lock = StoreLock.take(path, group)
        except OSError as exc:
            return StoreFinding(FAULT, f"{exc}; give this user the right, or choose another path")
        if lock is None:
            return StoreFinding(WARNING, f"it is being started, or does not listen; see {path}.log")
        with lock:
            if lock.is_managed:
                return StoreFinding(FAULT, f"it does not run; start wsproxy state --listen unix:{path}")
    return StoreFinding(OK, "it does not run; the first process starts it")
