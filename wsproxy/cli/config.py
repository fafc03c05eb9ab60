"""``wsproxy config``: prints the settings that count, and the source of each."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ..config import Config
from ..settings.config_file import read_config_file
from ..settings.serving import CONFIG_FILE
from ..settings.setting import Setting
from ..settings.sources import of_file
from ..settings.table import FIELDS, GROUPS

__all__ = ["add_config_file", "setting_in_file", "shown_settings"]

_COLUMN = 40
_VARIABLE = CONFIG_FILE.env


def add_config_file(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--config`` to a command that uses some settings from the file."""
    parser.add_argument(
        CONFIG_FILE.flag,
        dest=_VARIABLE,
        metavar="FILE",
        help=f"TOML file with the proxy's settings; flags override it (environment: {_VARIABLE})",
    )


def setting_in_file(options: argparse.Namespace, name: str) -> Any:
    """Return a setting from the file that ``--config`` or its variable names. Blocks on the file system.

    :returns: None if no file is named, or the file does not have the setting.
    :raises ConfigError: if the file cannot be read, or the setting is wrong.
    """
    flag: str | None = getattr(options, _VARIABLE)
    path = flag or os.environ.get(_VARIABLE)
    if not path:
        return None
    content = read_config_file(CONFIG_FILE.flag if flag else _VARIABLE, path)
    found = of_file(path, content, []).get(name)
    return found.read(FIELDS[name]) if found else None


def shown_settings(config: Config, origins: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a file with all settings.

    Settings without a value, and those with a secret, are comments.

    :param origins: the sources of the given settings, by name. All others have their default.
    """
    for group in GROUPS:
        fields = [setting for setting in group.settings if setting.name in FIELDS]
        if fields:
            yield f"# {group.title}"
            yield from (_line(one, getattr(config, one.name), origins.get(one.name)) for one in fields)
            yield ""


def _line(setting: Setting, value: Any, origin: str | None) -> str:
    origin = origin or "default"
    if value is None:
        return f"{f'# {setting.name} is not set':{_COLUMN}} # {origin}"
    shown = setting.mask(value) if setting.mask else value
    line = f"{setting.name} = {_toml(shown)}"
    if shown != value:
        line = f"# {line}"
    return f"{line:{_COLUMN}} # {origin}"


def _toml(value: Any) -> str:
    """Return a value in TOML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else json.dumps(str(value), ensure_ascii=False)
