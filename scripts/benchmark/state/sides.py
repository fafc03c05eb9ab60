"""wsproxy with one of the stores, or of another commit, as a peer of the benchmark."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wsproxy.tokens.issue import make_token

from ..peers import Ours, Running, Surroundings
from ..tools import Target

__all__ = ["SHARED_SETTINGS", "Side", "source_of", "write_paths"]

SHARED_SETTINGS = {
    "WSPROXY_MAX_SESSIONS": "100000",
    "WSPROXY_MAX_SESSIONS_PER_USER": "10",
    "WSPROXY_MAX_SESSIONS_PER_VMI": "10",
    "WSPROXY_CONSOLE": "takeover",
}
"""Settings with which each opening asks the store."""

_RUN = "import runpy, sys; sys.path[0] = {source!r}; runpy.run_module('wsproxy', None, '__main__', True)"


@dataclass(frozen=True)
class Side(Ours):
    """wsproxy with settings of its own.

    :ivar settings: variables to set.
    :ivar source: the directory with the package, if it is not this one.
    """

    settings: Mapping[str, str] = field(default_factory=dict, kw_only=True, hash=False)
    source: str = field(default="", kw_only=True)

    def missing(self) -> str | None:
        return None

    def command(self, around: Surroundings, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        command, added = super().command(around, port)
        if self.source:
            command = [command[0], "-c", _RUN.format(source=self.source), *command[3:]]
        return command, {**added, **self.settings}

    def run(self, around: Surroundings) -> Running:
        """Start it with the paths of :func:`write_paths` as its targets."""
        return _Many(self, around, self.start(around))


class _Many(Running):
    """A running side of which each session opens another console, as another user."""

    def __init__(self, peer: Side, around: Surroundings, running: Running) -> None:
        super().__init__(peer, around, running.process)
        self._paths = around.path("paths-idle"), around.path("paths-echo")

    def target(self, vmi: str) -> Target:
        assert self.process is not None
        return Target(self.process.port, "@" + next(path for path in self._paths if path.endswith(vmi)))


def write_paths(around: Surroundings, users: int) -> None:
    """Write paths that open consoles of so many users, each of which has a namespace."""
    tokens = [
        make_token(around.secret, namespace=f"lab-{user}", vmis=["idle", "echo"], user=user, expires_in=86400)
        for user in range(users)
    ]
    for vmi in ("idle", "echo"):
        around.write(f"paths-{vmi}", "".join(f"/{token}/{vmi}\n" for token in tokens))


def source_of(commit: str, directory: str) -> str | None:
    """Take the package of a commit out of the repository.

    :returns: the directory that has it; None if there is no such commit here.
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    found = subprocess.run(
        ["git", "-C", root, "archive", commit, "wsproxy"], capture_output=True, timeout=60, check=False
    )
    if found.returncode:
        return None
    target = os.path.join(directory, "before")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        if sys.version_info >= (3, 12):
            archive.extractall(target, filter="data")
        else:
            archive.extractall(target)
    return target
