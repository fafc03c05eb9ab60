"""The scripts by which Redis decides: one for each operation, with what they share before it.

The text of a script is the same in all processes of a version, so Redis compiles it once. The files of
``lua/`` stand in the order below, as far as the operation needs them. Then comes the file of the operation.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

__all__ = ["OPERATIONS", "Script", "load_scripts"]

_SHARED = ("base", "mail", "slots", "contests", "openings", "failures", "roster")

# What only some operations need. Redis makes all functions of a script anew with each call.
_ONLY_FOR = {
    "rules": ("publish", "revoke", "lift", "rules"),
    "tickets": ("issue", "redeem"),
    "copies": ("borrow", "keep"),
}

OPERATIONS = (
    "publish", "beat", "leave", "members", "admit", "opened", "evict", "report", "issue", "redeem",
    "revoke", "lift", "rules", "behind", "borrow", "keep", "sessions", "tell", "news",
)  # fmt: skip


class Script(NamedTuple):
    """One script.

    :ivar digest: SHA-1 of the text, in hexadecimal digits, by which Redis knows it.
    """

    text: str
    digest: str


def load_scripts(clock: str = "") -> dict[str, Script]:
    """Return the scripts by their operations. Reads files of the package.

    :param clock: Lua text that defines ``read_clock``, for tests; "" for the clock of Redis.
    """
    folder = files(__package__) / "lua"

    def read(name: str) -> str:
        return (folder / f"{name}.lua").read_text(encoding="utf-8")

    shared = "".join([clock or read("clock"), *map(read, _SHARED)])

    def text(operation: str) -> str:
        needed = [read(name) for name, operations in _ONLY_FOR.items() if operation in operations]
        return "".join([shared, *needed, read(f"operations/{operation}")])

    return {operation: _script(text(operation)) for operation in OPERATIONS}


def _script(text: str) -> Script:
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
