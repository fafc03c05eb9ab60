"""The scripts by which Redis decides: one for each operation, with what they share before it.

The text of a script is the same in all processes of a version, so Redis compiles it once. The files of
``lua/`` stand in the order of the list below, but for functions that the operation does not need. Then comes
the file of the operation.
"""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import NamedTuple

from ...store import SCHEMA

__all__ = ["OPERATIONS", "Script", "load_all_scripts", "load_scripts"]

_FOLDERS = {SCHEMA: "lua"}  # by schema: those that this version knows, which follow each other

_SHARED = (
    "base", "mail", "slots", "contests", "openings", "failures", "copies", "roster", "rules", "tickets",
)  # fmt: skip

_FUNCTION = re.compile(r"^local function (\w+).*?^end\n", re.MULTILINE | re.DOTALL)

OPERATIONS = (
    "publish", "beat", "leave", "members", "admit", "opened", "evict", "report", "issue", "redeem",
    "revoke", "lift", "rules", "behind", "borrow", "keep", "sessions", "tell", "news",
)  # fmt: skip


class Script(NamedTuple):
    """One script.

    :ivar digest: SHA-1 of the text, in hexadecimal digits, by which Redis knows it.
    :ivar schema: the version of the schema that it speaks.
    :ivar newest: the newest one that this program knows.
    """

    text: str
    digest: str
    schema: int
    newest: int


def load_all_scripts(clock: str = "") -> dict[int, dict[str, Script]]:
    """Return the scripts of all schemas that this version knows. See :func:`load_scripts`."""
    return {schema: load_scripts(clock, schema) for schema in _FOLDERS}


def load_scripts(clock: str = "", schema: int = SCHEMA) -> dict[str, Script]:
    """Return the scripts of one schema by their operations. Reads files of the package.

    :param clock: Lua text that defines ``read_clock``, for tests; "" for the clock of Redis.
    """
    folder = files(__package__) / _FOLDERS[schema]

    def read(name: str) -> str:
        return (folder / f"{name}.lua").read_text(encoding="utf-8")

    shared = "".join([f"local SCHEMA = {schema}\n", clock or read("clock"), *map(read, _SHARED)])
    bodies = {name: read(f"operations/{name}") for name in OPERATIONS}
    return {name: _script(_needed(shared, body) + body, schema) for name, body in bodies.items()}


def _needed(text: str, body: str) -> str:
    """Return a text without the functions that neither ``body`` calls nor what it calls.

    Redis makes all functions of a script anew with each call, and its Lua looks after those of all scripts.
    """
    functions = {found[1]: found[0] for found in _FUNCTION.finditer(text)}
    waiting, needed = [_FUNCTION.sub("", text), body], set[str]()
    while waiting:
        called = functions.keys() & set(re.findall(r"\w+", waiting.pop())) - needed
        needed |= called
        waiting += [functions[name] for name in called]
    return _FUNCTION.sub(lambda found: found[0] if found[1] in needed else "", text)


def _script(text: str, schema: int) -> Script:
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(text, digest, schema, newest=max(_FOLDERS))
