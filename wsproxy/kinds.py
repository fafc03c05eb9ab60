"""The kinds of values that settings have. No I/O.

The declaration of a setting names its kind. :func:`setting_value` checks a value once, wherever it comes
from, and gives it the one form that it has from then on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .exceptions import ConfigError

__all__ = [
    "FAULTY",
    "KINDS",
    "Kind",
    "Secrets",
    "collect",
    "setting_value",
    "shown_url",
]

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

    :param kind: a name in :data:`KINDS`, with `` | None`` where the setting may be None.
    :param name: what the person calls the setting.
    :raises ConfigError: if it is no such value. The fault quotes numbers only.
    """
    plain = kind.removesuffix(" | None")
    if value is None and plain != kind:
        return None
    try:
        return KINDS[plain].read(value)
    except _Wrong as exc:
        raise ConfigError([f"{name} {exc}"]) from None


def shown_url(text: str) -> str:
    """Return a URL as a fault may quote it: without user name and password, query and fragment.

    These may be what lets somebody in, and faults stand in logs.
    """
    shown = "...@" + text.rpartition("@")[2] if "@" in text else text
    found = re.search("[?#]", shown)
    return repr(shown[: found.end()] + "..." if found else shown)


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


def _flag_of_text(text: str) -> bool:
    value = text.strip().lower()
    if value in ("y", "yes", "t", "true", "on", "1"):
        return True
    if value in ("n", "no", "f", "false", "off", "0"):
        return False
    raise ValueError("it must be true or false")


def _whole_of_text(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("it must be a whole number") from None


def _seconds_of_text(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("it must be a number of seconds") from None


def _names_of_text(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _some_names_of_text(text: str) -> tuple[str, ...]:
    """As :func:`_names_of_text`, where none would not mean none, but no restriction."""
    if names := _names_of_text(text):
        return names
    raise ValueError("it must name at least one")


@dataclass(frozen=True)
class Kind:
    """What the values of a setting are.

    :ivar read: checks a value and returns it in the one form that it has.
    :ivar parse: makes a value of text, as a variable or a flag has it; raises ValueError, which says what the
        text must be. None if no text stands for such a value.
    :ivar field: the type of that form.
    :ivar given: the type of what a program may give.
    :ivar shown: what the help calls such a value.
    """

    read: Callable[[object], Any]
    parse: Callable[[str], Any] | None
    field: Any
    given: Any
    shown: str


def _of_numbers(read: Callable[[object], Any], parse: Callable[[str], Any], kind: type) -> Kind:
    return Kind(read, parse, kind, kind, "NUMBER")


def _of_lists(read: Callable[[object], Any], parse: Callable[[str], Any]) -> Kind:
    return Kind(read, parse, tuple[str, ...], str | Iterable[str], "A,B")


_ANY_NUMBER = _seconds(lambda value: True, "")
_PORT = _number(int, "a whole number", lambda value: 0 <= value <= 65535, "0 to 65535")
_COUNT = _number(int, "a whole number", lambda value: value >= 0, "a whole number, or 0 for no limit")
_TIMEOUT = _seconds(lambda value: 0 < value < _DAY, "seconds, above 0 and below a day")
_PAUSE = _seconds(lambda value: 0 <= value < _DAY, "seconds, 0 or more and below a day")
_AGE = _seconds(lambda value: 0 <= value < float("inf"), "seconds, or 0 for no limit")

KINDS: Mapping[str, Kind] = {
    "bool": Kind(_flag, _flag_of_text, bool, bool, "BOOL"),
    "int": _of_numbers(_number(int, "a whole number"), _whole_of_text, int),
    "float": _of_numbers(_ANY_NUMBER, _seconds_of_text, float),
    # Text that may not be empty, and text that may.
    "str": Kind(_text, str, str, str, "TEXT"),
    "AnyText": Kind(_any_text, str, str, str, "TEXT"),
    # A TCP port, 0 for any.
    "Port": _of_numbers(_PORT, _whole_of_text, int),
    # How many there may be, 0 for any number.
    "Count": _of_numbers(_COUNT, _whole_of_text, int),
    # Seconds: above 0 and below a day; 0 or more and below a day; 0 for ever.
    "Timeout": _of_numbers(_TIMEOUT, _seconds_of_text, float),
    "Pause": _of_numbers(_PAUSE, _seconds_of_text, float),
    "Age": _of_numbers(_AGE, _seconds_of_text, float),
    # A list that may be empty, for none. A single text is a list of one, and never one of its characters.
    "Texts": _of_lists(_texts, _names_of_text),
    # The same of names of files. Text that names none is a fault.
    "Files": _of_lists(_texts, _some_names_of_text),
    # A list whose order counts: of rules, which may be empty, and of places, of which there has to be one.
    "Rules": _of_lists(_ordered_texts, _names_of_text),
    "OrderedTexts": _of_lists(_ordered_texts, _some_names_of_text),
    # A list of all that is allowed. It may be left out, but not be empty: a program that finds nothing to
    # allow would allow everything.
    "Restriction": _of_lists(_restriction, _some_names_of_text),
    "Options": Kind(_options, None, Mapping[str, Any], Mapping[str, Any], "TABLE"),
    "Secrets": Kind(_secrets, str, Secrets, str | bytes | Iterable[str | bytes], "TEXT"),
}
"""The kinds by their names."""
