"""The program as a later version of it, with another schema of the shared state: run it with ``-m``.

It knows the schema of this version, and one more. In that one, the keys of a Redis have other names.
"""

from __future__ import annotations

from unittest import mock

from wsproxy.cli.program import main
from wsproxy.state import store
from wsproxy.state.participant import heartbeat, participant
from wsproxy.state.shared import roster
from wsproxy.state.stores.local import process
from wsproxy.state.stores.redis import scripts
from wsproxy.state.stores.redis.scripts import Script

__all__ = ["NEWER", "OLDER", "be_newer", "newer_scripts"]

OLDER = store.SCHEMA
NEWER = OLDER + 1

_RENAMED = (("'places'", "'spots'"), ("'users'", "'people'"), ("'sessions:'", "'visits:'"))


def newer_scripts(clock: str = "") -> dict[int, dict[str, Script]]:
    """Return the scripts that the later version has. See :func:`.load_all_scripts`."""
    with mock.patch.dict(scripts._FOLDERS, {NEWER: scripts._FOLDERS[OLDER]}):
        found = {schema: scripts.load_scripts(clock, schema) for schema in (OLDER, NEWER)}
        found[NEWER] = {name: _renamed(script) for name, script in found[NEWER].items()}
    return found


def _renamed(script: Script) -> Script:
    text = script.text
    for old, new in _RENAMED:
        text = text.replace(old, new)
    return scripts._script(text, NEWER)._replace(newest=NEWER)


def be_newer() -> None:
    """Make this process one of the later version. The store that it starts is one, too."""
    from wsproxy.state.stores.redis import store as redis_store

    for module in (store, heartbeat, participant, roster):
        module.SCHEMA = NEWER  # type: ignore[attr-defined]
    redis_store.load_all_scripts = newer_scripts  # type: ignore[attr-defined]
    boot = "from tests.shared.newer_program import be_newer; be_newer();"
    process._BOOT = process._BOOT.replace("from wsproxy.", f"{boot}from wsproxy.", 1)


if __name__ == "__main__":
    be_newer()
    main()
