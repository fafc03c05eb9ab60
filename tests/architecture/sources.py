"""The source files of the package, and what each of them imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import wsproxy

__all__ = ["PACKAGE", "Source", "sources"]

PACKAGE = Path(wsproxy.__file__).parent


class Source:
    """One file.

    :ivar path: where it is.
    :ivar name: its path below the package, without the ending: ``net/tls``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.relative_to(PACKAGE).with_suffix("").as_posix()

    @property
    def room(self) -> str:
        """The folder at the top that the file is in, or the file itself if it stands at the top."""
        return self.name.partition("/")[0]

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def foreign(self) -> frozenset[str]:
        """The libraries that it imports, by their top-level names."""
        return frozenset(name.partition(".")[0] for name in self._imported) - {PACKAGE.name}

    @cached_property
    def product(self) -> frozenset[str]:
        """The files of the package that it imports, by name."""
        inside = (name for name in self._imported if name.partition(".")[0] == PACKAGE.name)
        return frozenset(filter(None, map(_file_of, inside)))

    @cached_property
    def _imported(self) -> frozenset[str]:
        return frozenset(self._imports())

    def _imports(self) -> Iterator[str]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = self._absolute(node)
                yield from (f"{module}.{alias.name}" for alias in node.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        folders = [PACKAGE.name, *self.name.split("/")][: -node.level]
        return ".".join([*folders, *([node.module] if node.module else [])])


def _file_of(name: str) -> str | None:
    """Return the file that an imported name comes from: the module itself, or the one that defines it."""
    parts = name.split(".")[1:]
    while parts:
        path = PACKAGE.joinpath(*parts)
        if path.with_suffix(".py").exists():
            return "/".join(parts)
        if (path / "__init__.py").exists():
            return "/".join([*parts, "__init__"])
        parts.pop()
    return "__init__"


@cache  # so that each file is parsed once
def sources() -> tuple[Source, ...]:
    """Return all files of the package, sorted by name."""
    return tuple(sorted((Source(path) for path in PACKAGE.rglob("*.py")), key=lambda source: source.name))
