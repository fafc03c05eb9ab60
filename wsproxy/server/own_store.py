"""The store that workers share if the settings name none: a local one, in a directory of their own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ..config import Config
from ..exceptions import ConfigError

__all__ = ["own_store"]


@contextmanager
def own_store(config: Config) -> Iterator[Config]:
    """Context manager: the settings for the workers, which name a store if the workers need one.

    The first worker starts the store. At the end its directory is removed, and then the store ends by itself.

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
        yield config.with_state(f"local:{directory}/state")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _cannot(config: Config, needed: list[str], why: str) -> str:
    return (
        f"workers is {config.workers} with {' and '.join(needed)}, so the workers need a store in common, "
        f"but there is no directory for its socket: {why}; set state to local:PATH, in a directory that "
        "can be written"
    )
