"""Whether the text of an exception is one of the source's own, so that no input can be in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import wsproxy

__all__ = ["assert_own_text"]

_LEAST = 12  # characters of a text that says something
# What an f-string may put in: a number, names of methods, where the settings look for a claim, our own names.
_VALUE = (
    r"([\w, ]{0,20}|(/[a-z_]{1,20}| or ){1,5}|sec-websocket-protocol|x-forwarded-[a-z]{2,5}"
    r"|session, user, namespace, vmi, token_id)"
)


def _texts(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        own = [part.value if isinstance(part, ast.Constant) else None for part in parts]
        if sum(len(text) for text in own if isinstance(text, str)) >= _LEAST:
            yield "".join(re.escape(text) if isinstance(text, str) else _VALUE for text in own)


_OWN = re.compile(
    "|".join({text for file in Path(wsproxy.__file__).parent.rglob("*.py") for text in _texts(file)})
)


def assert_own_text(error: BaseException) -> None:
    """Assert that nothing a traceback would show of ``error`` can hold input.

    That is its text, its ``log_detail``, and those of what it was raised from.
    """
    assert _OWN.fullmatch(str(error)), f"{type(error).__name__} has a text of its own making"
    detail = getattr(error, "log_detail", None)
    assert detail is None or detail.isidentifier() or _OWN.fullmatch(detail), (
        "log_detail holds more than that"
    )
    shown = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if shown is not None:
        assert_own_text(shown)
