"""Parses untrusted JSON, and rejects what two parsers could read differently. No I/O."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["nested_deeper_than", "parse_json"]


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
