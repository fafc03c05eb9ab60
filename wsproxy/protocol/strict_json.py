"""JSON from strangers, read so that no two readers can understand it differently. No I/O."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["nested_deeper_than", "parse_json"]


def parse_json(raw: bytes, most_brackets: int) -> Any:
    """Parse RFC 8259 JSON, and nothing that only Python takes for it.

    :param most_brackets: how many opening brackets there may be, which bounds the nesting.
    :raises ValueError: also for a name that is given twice, for NaN and Infinity, for a number such as 1e999
        that is infinite to some readers, and for any encoding but UTF-8. Its text quotes nothing.
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
        raise _Ambiguous("a name is given twice")
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
    """Whether ``json`` could nest deeper than ``most``: counted as opening brackets, which is quick."""
    return json.count(b"[") + json.count(b"{") > most
