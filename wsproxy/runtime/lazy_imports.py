"""Imports a package's public names when a program first uses them (PEP 562).

pytest imports the package of every installed plugin in every run, so the import has to be quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


_Hooks = tuple[Callable[[str], Any], Callable[[], list[str]]]


def lazy_names(package: str, homes: Mapping[str, str]) -> _Hooks:
    """Return a package's ``__getattr__`` and ``__dir__``.

    The first use of a name imports it. From then on it is an ordinary attribute of the package.

    :param package: its full name.
    :param homes: the module of each public name, relative to the package, such as ``.config``.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
