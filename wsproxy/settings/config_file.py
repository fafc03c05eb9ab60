"""Reads a file with settings (TOML)."""

from __future__ import annotations

import sys
from typing import Any

from ..exceptions import ConfigError
from ..runtime.reloading import file_fault

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_config_file"]


def read_config_file(name: str, path: str) -> dict[str, Any]:
    """Return the settings in a file, not checked yet. Blocks on the file system.

    :param name: the flag or variable that names the file, for the error.
    :raises ConfigError: if the file cannot be read, or is not TOML. The error quotes none of its content.
    """
    try:
        with open(path, "rb") as file:
            content: dict[str, Any] = tomllib.load(file)
        return content
    except OSError as exc:
        raise ConfigError([file_fault(name, path, exc)]) from None
    except ValueError as exc:  # UnicodeDecodeError is a subclass
        where = _where(str(exc))
        raise ConfigError(
            [f"{name} names {path}, which is not TOML{where}; write lines such as port = 5001"]
        ) from None


def _where(text: str) -> str:
    """Return the position of the error in the file. The rest of tomllib's text may quote a secret."""
    place = text.rpartition("(at ")[2].rstrip(")")
    return f" at {place}" if place.startswith(("line ", "end ")) else ""
