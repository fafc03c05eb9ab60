"""Packages whose public names are imported when somebody asks for them (PEP 562).

pytest imports the package of an installed plugin in every run, whatever is tested there.
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

    A name is imported once, and is an ordinary attribute of the package from then on.

    :param package: its full name.
    :param homes: for each public name the module that has it, relative to the package: ``.config``.
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
