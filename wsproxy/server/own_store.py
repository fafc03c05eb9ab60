"""The store that workers share if the settings name none: a local one, in a directory of their own."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..config import Config
from ..exceptions import ConfigError, StoreUnavailable
from ..runtime.deadline import Deadline
from ..state.stores.local import LocalStore

__all__ = ["own_store", "warn_of_handover"]

_START_SECONDS = 5.0


def warn_of_handover(config: Config, logger: logging.Logger) -> None:
    """Log that the processes of a handover share no state, if that is so."""
    if not config.is_state_shared:
        logger.warning(
            "reuse_port is on and state is memory: limits, tickets, console rules and revoked tokens do not "
            "pass from an old process to a new one; set state to local:PATH or to a Redis"
        )


@contextmanager
def own_store(config: Config) -> Iterator[Config]:
    """Context manager: the settings for the workers, which name a store if the workers need one.

    Blocks until the store answers, for five seconds at most. At the end its directory is removed, and then
    the store ends by itself.

    :raises ConfigError: if no directory can be made.
    """
    needed = [*config.needs_one_truth, *(["admin"] if config.admin else [])]
    if config.is_state_shared or not needed:
        yield config
        return
    try:
        directory = tempfile.mkdtemp(prefix="wsproxy-")
    except OSError as exc:
        raise ConfigError([_cannot(config, needed, exc.strerror or str(exc))]) from None
    try:
        path = f"{directory}/state"
        _start(path)
        yield config.with_state(f"local:{path}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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


def _cannot(config: Config, needed: list[str], why: str) -> str:
    return (
        f"workers is {config.workers} with {' and '.join(needed)}, so the workers need a store in common, "
        f"but there is no directory for its socket: {why}; set state to local:PATH, in a directory that "
        "can be written"
    )
