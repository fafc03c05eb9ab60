"""The kinds of values that settings have. No I/O.

The declaration of a setting names its kind. :func:`setting_value` checks each value once, whatever its
source, and converts it to the form that the kind prescribes.
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
"""Replaces a value whose fault has been reported already."""

T = TypeVar("T")
_DAY = 86400
_WIDEST = 2**63  # no setting needs a larger number, and Python refuses to print very long ones


def collect(faults: list[str], make: Callable[[], T]) -> T | None:
    """Return what ``make()`` returns. If it raises :class:`.ConfigError`, add its faults to ``faults``."""
    try:
        return make()
    except ConfigError as exc:
        faults.extend(exc.faults)
        return None


class _Wrong(Exception):
    """A value is wrong. The text says how, and is worded to follow the setting's name."""


def setting_value(kind: str, name: str, value: object) -> Any:
    """Return a setting's value in the form that its field has.

    A list may be any iterable of texts. It is read once, here. A path object counts as its text.

    :param kind: a name in :data:`KINDS`, followed by `` | None`` if the setting may be None.
    :param name: the setting's name, for the error.
    :raises ConfigError: if the value is not of this kind. The error quotes numbers only.
    """
    plain = kind.removesuffix(" | None")
    if value is None and plain != kind:
        return None
    try:
        return KINDS[plain].read(value)
    except _Wrong as exc:
        raise ConfigError([f"{name} {exc}"]) from None


def shown_url(text: str) -> str:
    """Return a URL as an error may quote it: without user name and password, query and fragment.

    These may contain credentials, and logs contain errors.
    """
    shown = "...@" + text.rpartition("@")[2] if "@" in text else text
    found = re.search("[?#]", shown)
    return repr(shown[: found.end()] + "..." if found else shown)


def _no(what: str, value: object) -> _Wrong:
    return _Wrong(f"must be {what}, but is {'None' if value is None else f'of type {type(value).__name__}'}")


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
    return str.__str__(value)  # a member of an enumeration may print something else


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
            raise _Wrong(f"must be {what}, but has an item of type {type(item).__name__}") from None
    if "" in texts:
        raise _Wrong("has an empty item; remove it")
    return tuple(sorted(texts) if isinstance(value, set | frozenset) else texts)


def _ordered_texts(value: object) -> tuple[str, ...]:
    if isinstance(value, set | frozenset):
        raise _Wrong("is a set, which has no order; give a list")
    return _texts(value)


def _restriction(value: object) -> tuple[str, ...]:
    if not (texts := _texts(value)):
        raise _Wrong("is an empty list; name at least one, or leave it out for no restriction")
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
            raise _Wrong(f"must be {what}, but has an item of type {type(item).__name__}")
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
    """Split text as :func:`_names_of_text` does, and refuse an empty list, which would restrict nothing."""
    if names := _names_of_text(text):
        return names
    raise ValueError("it must name at least one")


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    :ivar read: checks a value, and converts it to the form of this kind.
    :ivar parse: converts the text of a variable or a flag. Its ValueError says what the text must be. None if
        no text can express such a value.
    :ivar field: the type of the converted value.
    :ivar given: the type of the values that a program may give.
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
_COUNT = _number(int, "a whole number", lambda value: value >= 0, "1 or more, or 0 for no limit")
_TIMEOUT = _seconds(lambda value: 0 < value < _DAY, "more than 0 seconds and less than a day")
_PAUSE = _seconds(lambda value: 0 <= value < _DAY, "0 seconds or more, and less than a day")
_AGE = _seconds(lambda value: 0 <= value < float("inf"), "a number of seconds, or 0 for no limit")

KINDS: Mapping[str, Kind] = {
    "bool": Kind(_flag, _flag_of_text, bool, bool, "BOOL"),
    "int": _of_numbers(_number(int, "a whole number"), _whole_of_text, int),
    "float": _of_numbers(_ANY_NUMBER, _seconds_of_text, float),
    # "str" must not be empty; "AnyText" may be.
    "str": Kind(_text, str, str, str, "TEXT"),
    "AnyText": Kind(_any_text, str, str, str, "TEXT"),
    # A TCP port, 0 for any.
    "Port": _of_numbers(_PORT, _whole_of_text, int),
    # A limit on a number; 0 for no limit.
    "Count": _of_numbers(_COUNT, _whole_of_text, int),
    # Seconds. "Age" is a limit, and 0 means no limit.
    "Timeout": _of_numbers(_TIMEOUT, _seconds_of_text, float),
    "Pause": _of_numbers(_PAUSE, _seconds_of_text, float),
    "Age": _of_numbers(_AGE, _seconds_of_text, float),
    # A list that may be empty. A single text is a list with one item, and not a list of its characters.
    "Texts": _of_lists(_texts, _names_of_text),
    # A list of file names. In a variable or a flag it must not be empty.
    "Files": _of_lists(_texts, _some_names_of_text),
    # Lists whose order counts. In a variable or a flag, only "Rules" may be empty.
    "Rules": _of_lists(_ordered_texts, _names_of_text),
    "OrderedTexts": _of_lists(_ordered_texts, _some_names_of_text),
    # A list of everything that is allowed. It may be left out, but not be empty. Otherwise a program that
    # computes an empty list would allow everything.
    "Restriction": _of_lists(_restriction, _some_names_of_text),
    "Options": Kind(_options, None, Mapping[str, Any], Mapping[str, Any], "TABLE"),
    "Secrets": Kind(_secrets, str, Secrets, str | bytes | Iterable[str | bytes], "TEXT"),
}
"""The kinds by their names."""
