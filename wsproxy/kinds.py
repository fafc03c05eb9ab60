"""The kinds of values that settings have. No I/O.

A field of :class:`.Config` names its kind by its annotation. :func:`setting_value` checks a value once,
wherever it comes from, and gives it the one form that it has from then on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, TypeVar

from .exceptions import ConfigError

__all__ = [
    "FAULTY",
    "KINDS",
    "Age",
    "AnyText",
    "Count",
    "Options",
    "OrderedTexts",
    "Pause",
    "Port",
    "Restriction",
    "Secrets",
    "Texts",
    "Timeout",
    "collect",
    "read_fields",
    "setting_value",
    "shown_url",
]

AnyText = Annotated[str, "may be empty"]
"""Text that may be empty; text of kind ``str`` may not."""

Port = Annotated[int, "0 to 65535"]
"""A TCP port, 0 for any."""

Count = Annotated[int, "0 or more"]
"""How many there may be, 0 for any number."""

Timeout = Annotated[float, "above 0"]
"""Seconds, above 0 and below a day."""

Pause = Annotated[float, "0 or more"]
"""Seconds, 0 or more and below a day."""

Age = Annotated[float, "0 or more"]
"""Seconds, 0 for ever."""

Texts = tuple[str, ...]
"""A list that may be empty, for none. A single text is a list of one, and never one of its characters."""

OrderedTexts = tuple[str, ...]
"""A list of which the order counts."""

Restriction = tuple[str, ...]
"""A list of all that is allowed. It may be left out, but not be empty: a program that finds nothing to allow
would allow everything."""

Options = Mapping[str, Any]
"""A dict with texts as keys."""

Secrets = str | bytes | Sequence[str | bytes]
"""One secret or several."""

FAULTY = object()
"""Stands for a value whose fault has been told already."""

T = TypeVar("T")
_DAY = 86400
_WIDEST = 2**63  # what is larger counts nothing here, and may be too long to be printed


def collect(faults: list[str], make: Callable[[], T]) -> T | None:
    """Return what ``make()`` returns; if it raises :class:`.ConfigError`, add its faults to others."""
    try:
        return make()
    except ConfigError as exc:
        faults.extend(exc.faults)
        return None


class _Wrong(Exception):
    """What is wrong with a value; the text goes on after the name of its setting."""


def setting_value(kind: str, name: str, value: object) -> Any:
    """Return a setting's value in the form that its field has.

    A list may be any iterable of texts, which is read here and never again. A path object is as good as its
    text.

    :param kind: the annotation of the field.
    :param name: what the person calls the setting.
    :raises ConfigError: if it is no such value. The fault quotes numbers only.
    """
    plain = kind.removesuffix(" | None")
    if value is None and plain != kind:
        return None
    try:
        return KINDS[plain](value)
    except _Wrong as exc:
        raise ConfigError([f"{name} {exc}"]) from None


def read_fields(settings: Any, instead: Mapping[str, object], faults: list[str]) -> set[str]:
    """Give each field of a frozen dataclass the form of its kind; return the names of those that are wrong.

    Those get another value, so that everything else can be checked.

    :param instead: other values, by field; where there is none, the field's default.
    :param faults: gets a sentence for each that is wrong, but for :data:`FAULTY`.
    """
    wrong = set()
    for item in fields(settings):
        if not item.init:
            continue
        value = getattr(settings, item.name)
        try:
            if value is not FAULTY:
                value = setting_value(str(item.type), item.name, value)
        except ConfigError as exc:
            faults += exc.faults
            value = FAULTY
        if value is FAULTY:
            wrong.add(item.name)
            value = instead[item.name] if item.name in instead else _default(item)
        object.__setattr__(settings, item.name, value)
    return wrong


def shown_url(text: str) -> str:
    """Return a URL as a fault may quote it: without user name and password, query and fragment.

    These may be what lets somebody in, and faults stand in logs.
    """
    shown = "...@" + text.rpartition("@")[2] if "@" in text else text
    found = re.search("[?#]", shown)
    return repr(shown[: found.end()] + "..." if found else shown)


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _no(what: str, value: object) -> _Wrong:
    return _Wrong(f"must be {what}, and is {'None' if value is None else f'of type {type(value).__name__}'}")


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _no("true or false", value)
    return value


def _number(
    kinds: type[int] | tuple[type, ...],
    what: str,
    fits: Callable[[Any], bool] = lambda value: True,
    needed: str = "",
) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise _no(what, value)
        if isinstance(value, int) and abs(value) >= _WIDEST:
            raise _Wrong("is too large a number")
        if not fits(value):
            raise _Wrong(f"is {value}; it must be {needed}")
        return value

    return read


def _seconds(fits: Callable[[Any], bool], needed: str) -> Callable[[object], Any]:
    return _number((int, float), "a number", fits, needed)


def _any_text(value: object) -> str:
    if not isinstance(value, str) and hasattr(type(value), "__fspath__"):  # os.PathLike
        value = value.__fspath__()  # type: ignore[attr-defined]
    if not isinstance(value, str):
        raise _no("text", value)
    return str.__str__(value)  # without what an enumeration prints instead


def _text(value: object) -> str:
    if not (text := _any_text(value)):
        raise _Wrong("is empty; give it a value, or leave it out")
    return text


def _items(value: object, what: str) -> Iterable[object]:
    if isinstance(value, bytes | bytearray | memoryview | Mapping) or not isinstance(value, Iterable):
        raise _no(what, value)
    return value


def _texts(value: object) -> tuple[str, ...]:
    what = "text or a list of texts"
    single = isinstance(value, str) or hasattr(type(value), "__fspath__")
    texts = []
    for item in [value] if single else _items(value, what):
        try:
            texts.append(_any_text(item))
        except _Wrong:
            raise _Wrong(f"must be {what}, and has an item of type {type(item).__name__}") from None
    if "" in texts:
        raise _Wrong("has an empty text; leave that out")
    return tuple(sorted(texts) if isinstance(value, set | frozenset) else texts)


def _ordered_texts(value: object) -> tuple[str, ...]:
    if isinstance(value, set | frozenset):
        raise _Wrong("is a set, which has no order; give a list")
    return _texts(value)


def _restriction(value: object) -> tuple[str, ...]:
    if not (texts := _texts(value)):
        raise _Wrong("is an empty list; it must name at least one, or be left out for no restriction")
    return texts


def _options(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _no("a dict with texts as keys", value)
    return dict(value)


def _secrets(value: object) -> str | bytes | tuple[str | bytes, ...]:
    what = "text, bytes or a list of these"
    if isinstance(value, str | bytes):
        return value
    secrets: list[str | bytes] = []
    for item in _items(value, what):
        if not isinstance(item, str | bytes):
            raise _Wrong(f"must be {what}, and has an item of type {type(item).__name__}")
        secrets.append(item)
    return tuple(secrets)


KINDS: Mapping[str, Callable[[object], Any]] = {
    "bool": _flag,
    "int": _number(int, "a whole number"),
    "float": _seconds(lambda value: True, ""),
    "str": _text,
    "AnyText": _any_text,
    "Port": _number(int, "a whole number", lambda value: 0 <= value <= 65535, "0 to 65535"),
    "Count": _number(int, "a whole number", lambda value: value >= 0, "a whole number, or 0 for no limit"),
    "Timeout": _seconds(lambda value: 0 < value < _DAY, "seconds, above 0 and below a day"),
    "Pause": _seconds(lambda value: 0 <= value < _DAY, "seconds, 0 or more and below a day"),
    "Age": _seconds(lambda value: 0 <= value < float("inf"), "seconds, or 0 for no limit"),
    "Texts": _texts,
    "OrderedTexts": _ordered_texts,
    "Restriction": _restriction,
    "Options": _options,
    "Secrets": _secrets,
}
"""What reads a value, by the annotation of its field."""
