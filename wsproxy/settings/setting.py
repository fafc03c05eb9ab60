"""What the declaration of a setting says. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from ..exceptions import ConfigError
from ..kinds import KINDS, Kind, setting_value

__all__ = ["MASK", "PREFIX", "REQUIRED", "Group", "Setting", "within"]

PREFIX = "WSPROXY_"
"""How the names of our own environment variables begin."""

REQUIRED = object()
"""Stands for the default of a setting that has none."""

MASK = "********"
"""Stands for a secret."""

_SAME = object()


@dataclass(frozen=True, eq=False)
class Setting:
    """One setting.

    Everything else follows from this: the variable, the flag, the key in a file, the parameter of
    :class:`.WebsocketProxy`, the attribute of :class:`.Config`, the help and the page of the documentation.

    :ivar name: what Python and a file call it.
    :ivar kind: a name in :data:`.KINDS`.
    :ivar default: counts where nobody gives a value. Where it is None, None may be given, too.
    :ivar text: what it is for, in a sentence or two. Code stands between backticks.
    :ivar shown_default: what people are told of a default that is not a value.
    :ivar unit: of its number: ``seconds``, ``bytes``.
    :ivar value: what the help calls a value, such as ``FILE``.
    :ivar choices: the only texts that it may be. A variable may have them in capitals or not.
    :ivar check: returns what is wrong with a value of the kind, as it goes on after the setting's name.
    :ivar stand_in: what takes the place of a wrong value, so that no further fault is made of that. The
        default, if that makes none.
    :ivar variable: its environment variable; "" for none. By default made from the name.
    :ivar part_of: the setting that it makes, alone or with others, if it is no attribute of its own.
    :ivar program: whether only the program has it, since a proxy in another program has no such thing.
    :ivar mask: makes what people may see of a value that is a secret, or holds one. None if it holds none.
    :ivar reread: whether it names a file whose changes count without a restart. No setting itself does so.
    """

    name: str
    kind: str
    default: Any
    text: str
    _: KW_ONLY
    shown_default: str = ""
    unit: str = ""
    value: str = ""
    choices: Sequence[str] = ()
    check: Callable[[Any], str | None] | None = None
    stand_in: Any = _SAME
    variable: str | None = None
    part_of: str = ""
    program: bool = False
    mask: Callable[[Any], object] | None = None
    reread: bool = False

    @property
    def env(self) -> str:
        """The environment variable, "" for none."""
        return PREFIX + self.name.upper() if self.variable is None else self.variable

    @property
    def flag(self) -> str:
        """The program's flag, "" for none."""
        return "--" + self.env.removeprefix(PREFIX).lower().replace("_", "-") if self.env else ""

    @property
    def is_switch(self) -> bool:
        """Whether its flag may stand alone, for true."""
        return self.kind == "bool"

    @property
    def of_kind(self) -> Kind:
        return KINDS[self.kind]

    @property
    def nullable(self) -> bool:
        """Whether None is a value of it."""
        return self.default is None

    @property
    def metavar(self) -> str:
        """What the help calls a value."""
        if self.choices:
            return "|".join(self.choices)
        return self.value or self.unit.upper() or self.of_kind.shown

    @property
    def default_text(self) -> str:
        """The default as a variable would have it, "" for none."""
        if self.default is None or self.default is REQUIRED:
            return ""
        if isinstance(self.default, tuple):
            return ",".join(self.default)
        if isinstance(self.default, float):
            return f"{self.default:g}"
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    def parse(self, text: str, name: str | None = None) -> Any:
        """Convert text of the environment, a flag or a file.

        :param name: what the person calls the setting; None for the variable.
        :raises ConfigError: naming it; a secret is not quoted.
        """
        parse = self.of_kind.parse
        if parse is None:
            return self.read(text, name)
        for choice in self.choices:
            if text.lower() == choice.lower():
                return choice
        try:
            return parse(text)
        except ValueError as exc:
            raise ConfigError([f"{name or self.env} is {text!r}; {exc}"]) from None

    def read(self, value: object, name: str | None = None) -> Any:
        """Return a value of Python's in the form that the setting has.

        :param name: what the person calls the setting; None for its own name.
        :raises ConfigError: if it is of no such kind.
        """
        return setting_value(self.kind + (" | None" if self.nullable else ""), name or self.name, value)

    def checked(self, value: object, name: str | None = None) -> Any:
        """As :meth:`read`, and look at the value, too.

        :raises ConfigError: if the setting may not be that.
        """
        found = self.read(value, name)
        wrong = None
        if found is not None and self.choices and found not in self.choices:
            wrong = f"is {found!r}; choose from {', '.join(self.choices)}"
        elif found is not None and self.check:
            wrong = self.check(found)
        if wrong:
            raise ConfigError([f"{name or self.name} {wrong}"])
        return found

    @property
    def instead(self) -> Any:
        """What takes the place of a value that is wrong."""
        return self.default if self.stand_in is _SAME else self.stand_in


@dataclass(frozen=True)
class Group:
    """Settings that belong together.

    :ivar title: what they are about.
    :ivar settings: these, in the order of the help.
    """

    title: str
    settings: Sequence[Setting]


def within(
    low: float, high: float | None = None, needed: str = "it must be {} to {}"
) -> Callable[[Any], str | None]:
    """Return a check of a number's range, edges included.

    :param high: None for no upper edge.
    :param needed: what is told, with both edges put in.
    """

    def check(value: Any) -> str | None:
        if low <= value and (high is None or value <= high):
            return None
        return f"is {value}; {needed.format(low, high)}"

    return check
