"""Parses untrusted JSON, and rejects what two parsers could read differently. No I/O."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

__all__ = ["is_deeper_than", "nested_deeper_than", "parse_json"]


def parse_json(raw: bytes, most_brackets: int) -> Any:
    """Parse RFC 8259 JSON, without Python's extensions.

    :param most_brackets: limit on opening brackets, which bounds the nesting.
    :raises ValueError: if it is not JSON in UTF-8. Duplicate names, NaN, Infinity, and numbers such as 1e999,
        which some parsers read as infinite, are rejected, too. The text quotes nothing of the input.
    """
    if nested_deeper_than(most_brackets, raw):
        raise ValueError("it is nested too deeply")
    try:
        return _DECODER.decode(raw.decode("utf-8"))
    except _Ambiguous:
        raise
    except ValueError:
        raise ValueError("it is not JSON") from None


class _Ambiguous(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Ambiguous("it has a duplicate name")
    return found


def _refuse(constant: str) -> NoReturn:
    raise _Ambiguous("it holds a number that is not JSON")


def _finite(number: str) -> float:
    found = float(number)
    if math.isinf(found):
        raise _Ambiguous("it holds a number that is too large")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite)


def nested_deeper_than(most: int, json: bytes) -> bool:
    """Whether ``json`` could nest deeper than ``most``. Counting opening brackets is quick, and enough."""
    return json.count(b"[") + json.count(b"{") > most


_FEW = 200  # brackets, which cannot nest deep enough for any stack
_STRING = re.compile(rb'"[^"]*"?')  # also one that is not closed
_OF_NO_MATTER = bytes(set(range(256)) - set(b'[]{}"'))
_OF_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def is_deeper_than(most: int, json: bytes) -> bool:
    """Whether ``json`` nests deeper than ``most``, which is less than 200, or has brackets without a partner.

    It looks where :func:`nested_deeper_than` does not: long texts may have many brackets, also in strings.
    Since Python 3.13 the decoder itself may recurse deeper than the stack of a thread allows.
    """
    if not nested_deeper_than(_FEW, json):
        return False
    # A pair of quotes next to each other goes first: that is quick, and changes nothing for what follows.
    unescaped = json.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = unescaped.translate(_OF_ONE_KIND, _OF_NO_MATTER).replace(b'""', b"")
    if b'"' in brackets:
        brackets = _STRING.sub(b"", brackets)
    for _ in range(most):
        if not brackets:
            break
        before = len(brackets)
        brackets = brackets.replace(b"[]", b"")  # all that have nothing within
        if len(brackets) == before:
            break
    return bool(brackets)
