"""The store that the workers of one program share if the settings name none."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ....exceptions import ConfigError, StoreUnavailable
from ....runtime.deadline import Deadline
from ....runtime.logs import get_logger
from ..places import MOST_PATH_BYTES
from .store import LocalStore

__all__ = ["own_store"]

logger = get_logger("wsproxy.state.local")

_START_SECONDS = 5.0


@contextmanager
def own_store(workers: int, needed: Sequence[str]) -> Iterator[str]:
    """Context manager: a store in a directory of its own, as a value of the setting ``state``.

    Blocks until the store answers, for five seconds at most. At the end its directory is removed, and then
    the store ends by itself.

    :param workers: how many share it.
    :param needed: the settings that need it. If there are none, it only saves work. Then the value is "" if
        no directory can be made.
    :raises ConfigError: if no directory can be made.
    """
    try:
        directory = _made_directory()
    except OSError as exc:
        if not needed:
            logger.info("each worker fetches keys and takes screenshots for itself: %s", exc.strerror)
            yield ""
            return
        raise ConfigError(
            [
                f"{workers} workers with {' and '.join(needed)} need a store in common, but there is no "
                f"directory for its socket: {exc.strerror or exc}; set state to local:PATH, in a directory "
                "that can be written"
            ]
        ) from None
    try:
        path = _socket_in(directory)
        _start(path)
        yield f"local:{path}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _made_directory() -> str:
    """Make a directory.

    :raises OSError: if that is not possible, or a socket in it would have too long a path.
    """
    directory = tempfile.mkdtemp(prefix="wsproxy-")
    if len(os.fsencode(_socket_in(directory))) > MOST_PATH_BYTES:
        os.rmdir(directory)
        raise OSError(errno.ENAMETOOLONG, f"{os.path.dirname(directory)} is too long for a socket's path")
    return directory


def _socket_in(directory: str) -> str:
    return f"{directory}/state"


def _start(path: str) -> None:
    """Start the store, so that the workers find it. If that fails, the workers try again, and log why."""
    store, deadline = LocalStore(path), Deadline(_START_SECONDS)
    try:
        while not deadline.passed:
            with suppress(StoreUnavailable):
                store.members()
                return
    finally:
        store.close()
