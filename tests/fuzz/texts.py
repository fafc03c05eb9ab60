"""Whether the text of an exception is one of the source's own, so that no input can be in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from wsproxy import exceptions, frames, http, routing, tokens, upgrade

__all__ = ["assert_own_text"]

_VALUE = r"[\w, ]{0,20}"  # what an f-string may put in: a number, or names of methods


def _texts(module: ModuleType) -> Iterator[str]:
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.escape(node.value)
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else _VALUE
                for part in node.values
            )


_MODULES = (exceptions, frames, http, routing, tokens, upgrade)
_OWN = re.compile(
    "|".join(sorted({text for module in _MODULES for text in _texts(module) if len(text) > 12}))
)


def assert_own_text(error: BaseException) -> None:
    """Assert that nothing a traceback would show of ``error`` can hold input.

    That is its text, its ``log_detail``, and those of what it was raised from.
    """
    assert _OWN.fullmatch(str(error)), f"{type(error).__name__} has a text of its own making"
    detail = getattr(error, "log_detail", None)
    assert detail is None or detail.isidentifier(), "log_detail is more than a name"
    shown = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if shown is not None:
        assert_own_text(shown)
