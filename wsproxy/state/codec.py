"""The JSON form of the values that a process and a store exchange. No I/O.

It follows from the types of a value's fields: an object has one member for each field. What the writer's
version does not know has its default. What the reader's version does not know it leaves alone:

- It ignores an unknown field.
- It leaves out an item of a list with an unknown word, such as a message of a new kind.
- It takes an unknown rule for a console for none.
- It leaves out a revocation rule with an unknown criterion, which it would take for a wider one.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .console_policies import Policy
from .revocations import Match

__all__ = ["from_json", "to_json"]

T = TypeVar("T")

_Json = Any  # None, bool, int, float, str, a list or a dict of such
_INFINITY = "inf"  # which JSON does not have


def to_json(value: object) -> _Json:
    """Return the JSON form of a value."""
    kind: Any = type(value)
    return _encoder(kind)(value)


def from_json(kind: type[T], data: _Json) -> T:
    """Return the value that a JSON form stands for.

    :param kind: its type.
    :raises ValueError: if the form does not fit the type.
    """
    try:
        return cast(T, _decoder(cast(Any, kind))(data))
    except (TypeError, KeyError, AttributeError, OverflowError) as exc:
        raise ValueError(f"this is no {getattr(kind, '__name__', kind)}: {exc}") from None


@cache
def _fields(kind: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return cast("tuple[str, ...]", kind._fields)


@cache
def _encoder(kind: type) -> Callable[[Any], _Json]:
    """Return what writes values of exactly this type."""
    if issubclass(kind, bool | int | str | types.NoneType):
        return lambda value: value
    if issubclass(kind, float):
        return lambda value: _INFINITY if value == math.inf else value
    if issubclass(kind, Enum):
        return lambda value: value.value
    if issubclass(kind, bytes):
        return bytes.hex
    if issubclass(kind, tuple) and not hasattr(kind, "_fields"):
        return lambda value: [to_json(item) for item in value]
    names = _fields(cast(Any, kind))
    return lambda value: {name: to_json(getattr(value, name)) for name in names}


@cache
def _decoder(kind: Any) -> Callable[[_Json], object]:
    """Return what reads values of a type."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _of_union(get_args(kind))
    if origin is tuple:
        return _of_list(_decoder(get_args(kind)[0]))
    if kind is float:
        return lambda data: math.inf if data == _INFINITY else float(_checked(data, int, float))
    if kind in (str, int, bool):
        return lambda data: _checked(data, kind)
    if kind is bytes:
        return lambda data: bytes.fromhex(_checked(data, str))
    return _of_enum(kind) if issubclass(kind, Enum) else _of_record(kind)


class _UnknownWord(ValueError):
    """A word of a later version."""


def _checked(data: _Json, *kinds: type) -> Any:
    """Return data of one of some types, exactly: a truth value is no number."""
    if type(data) not in kinds:
        raise TypeError(f"{type(data).__name__} in place of {kinds[0].__name__}")
    return data


def _of_list(item: Callable[[_Json], object]) -> Callable[[_Json], object]:
    def read(data: _Json) -> object:
        found = []
        for one in _checked(data, list):
            with suppress(_UnknownWord):
                found.append(item(one))
        return tuple(found)

    return read


def _of_enum(kind: type[Enum]) -> Callable[[_Json], object]:
    def read(data: _Json) -> object:
        try:
            return kind(_checked(data, str))
        except ValueError:
            if kind is Policy:
                return Policy.PASSTHROUGH
            raise _UnknownWord(f"{data!r} is no {kind.__name__}") from None

    return read


def _of_union(kinds: tuple[Any, ...]) -> Callable[[_Json], object]:
    if types.NoneType not in kinds:
        return lambda data: _checked(data, *kinds)  # such as str or int
    rest = tuple(kind for kind in kinds if kind is not types.NoneType)
    some = _decoder(rest[0]) if len(rest) == 1 else _of_union(rest)
    return lambda data: None if data is None else some(data)


def _of_record(kind: Any) -> Callable[[_Json], object]:
    hints = get_type_hints(kind)
    decoders = {name: _decoder(hints[name]) for name in _fields(kind)}

    def read(data: _Json) -> object:
        known = _checked(data, dict).keys() & decoders.keys()
        if kind is Match and any(data[name] for name in data.keys() - known):  # an empty one says nothing
            raise _UnknownWord("the rule has a criterion of a later version")
        return kind(**{name: decoders[name](data[name]) for name in known})

    return read
