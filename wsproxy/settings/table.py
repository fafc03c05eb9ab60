"""The tables of all settings, and a search for the setting that a misspelt name means. No I/O."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ..exceptions import ConfigError
from ..kinds import FAULTY
from .clients import AUTHENTICATION, PAGES, PROXIES
from .limits import NUMBERS, SIZES, TIMES
from .serving import FILE, LISTENING, LOGGING, OPERATOR, PROCESSES
from .setting import PREFIX, Setting
from .state import STATE
from .tokens import CLAIMS, KEYS
from .upstream import CONSOLES, UPSTREAM

__all__ = ["BY_NAME", "FIELDS", "GROUPS", "OPTIONS", "POSITIONAL", "SETTINGS", "accepted", "checked", "meant"]

GROUPS = (
    FILE,
    UPSTREAM,
    KEYS,
    CLAIMS,
    LISTENING,
    AUTHENTICATION,
    PROXIES,
    CONSOLES,
    PAGES,
    TIMES,
    SIZES,
    NUMBERS,
    PROCESSES,
    STATE,
    LOGGING,
    OPERATOR,
)
"""All settings, in the order of the help."""

_ALL = tuple(setting for group in GROUPS for setting in group.settings)

SETTINGS = tuple(setting for setting in _ALL if setting.env)
"""The program's settings. Each has an environment variable and a flag."""

FIELDS = {setting.name: setting for setting in _ALL if not setting.part_of}
"""The attributes of :class:`.Config`, by name."""

BY_NAME = {setting.name: setting for setting in _ALL if setting.part_of != "file"}
"""All settings that a file or a dict may contain, by name."""

POSITIONAL = ("remote_url", "api_path", "local_dev_mode", "secret_key", "host_path_prefix")
"""The parameters that lab-orchestrator-ws-proxy-lib 1.0.0 has, in its order."""

OPTIONS = {
    name: setting for name, setting in FIELDS.items() if name not in POSITIONAL and not setting.program
}
"""The further settings of a proxy in another program."""

_SIMILAR = 0.75


def checked(given: Mapping[str, object], faults: list[str]) -> tuple[dict[str, Any], set[str]]:
    """Return a value for each field of :class:`.Config`, and the names of the fields with wrong values.

    :param given: values by name.
    :param faults: gets a sentence for each wrong value, except :data:`.FAULTY`.
    """
    values, wrong = {}, set()
    for name, setting in FIELDS.items():
        value = given.get(name, setting.default)
        try:
            values[name] = FAULTY if value is FAULTY else setting.checked(value)
        except ConfigError as exc:
            faults += exc.faults
            values[name] = FAULTY
        if values[name] is FAULTY:
            wrong.add(name)
            values[name] = setting.instead
    return values, wrong


def accepted(function: str, given: Iterable[str], known: Mapping[str, Setting]) -> None:
    """Check that a function takes these keywords.

    :raises TypeError: with Python's own text, and the name that the caller may mean.
    """
    for name in given:
        if name not in known:
            fault = f"{function}() got an unexpected keyword argument {name!r}"
            raise TypeError("; ".join(filter(None, (fault, meant(name, known)))))


def meant(name: object, known: Iterable[str]) -> str:
    """Return a question that suggests a similar name; "" if no name is similar."""
    given = str(name)
    plain = {_plain(one): one for one in known if one.isupper() == given.isupper()}
    close = difflib.get_close_matches(_plain(given), plain, 1, _SIMILAR)
    return f"did you mean {plain[close[0]]}?" if close else ""


def _plain(name: str) -> str:
    return name.removeprefix(PREFIX).lower()
