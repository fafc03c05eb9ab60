"""The class with which the other files declare settings. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from ..exceptions import ConfigError
from ..kinds import KINDS, Kind, setting_value

__all__ = ["MASK", "PREFIX", "REQUIRED", "Group", "Setting", "within"]

PREFIX = "WSPROXY_"
"""The beginning of the names of wsproxy's own environment variables."""

REQUIRED = object()
"""The default of a setting that must be given."""

MASK = "********"
"""What people see instead of a secret."""

_SAME = object()


@dataclass(frozen=True, eq=False)
class Setting:
    """One setting.

    From this follow the variable, the flag, the key in a file, the help and the reference. So do the
    parameter of :class:`.WebsocketProxy` and the attribute of :class:`.Config`.

    :ivar name: its name in Python and in a file.
    :ivar kind: a name in :data:`.KINDS`.
    :ivar default: its value if nobody gives one. If it is None, callers may also give None.
    :ivar text: what the setting does, in a sentence or two. Code stands between backticks.
    :ivar shown_default: how the help describes a default that is computed; "" to show the value.
    :ivar unit: the unit of its number: ``seconds``, ``bytes``.
    :ivar value: what the help calls a value, such as ``FILE``.
    :ivar choices: the only texts that are allowed. In a variable their case does not matter.
    :ivar check: returns what is wrong with a value, worded to follow the setting's name; None if nothing is.
    :ivar stand_in: replaces a wrong value, so that later checks report no fault of it. By default that is
        ``default``.
    :ivar variable: its environment variable; "" for none. By default made from the name.
    :ivar part_of: the setting that this one determines, alone or with others. "" if :class:`.Config` has an
        attribute of this name.
    :ivar program: whether it is for the program only, and not for a proxy inside another program.
    :ivar mask: returns what people may see of a value that is or contains a secret. None if none does.
    :ivar reread: whether it names a file that the proxy reads again when the file changes. The setting
        itself never changes while the proxy runs.
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
        """Whether its flag may have no value, and then means true."""
        return self.kind == "bool"

    @property
    def of_kind(self) -> Kind:
        return KINDS[self.kind]

    @property
    def nullable(self) -> bool:
        """Whether its value may be None."""
        return self.default is None

    @property
    def metavar(self) -> str:
        """What the help calls a value."""
        if self.choices:
            return "|".join(self.choices)
        return self.value or self.unit.upper() or self.of_kind.shown

    @property
    def default_text(self) -> str:
        """The default as a variable would hold it; "" if there is none."""
        if self.default is None or self.default is REQUIRED:
            return ""
        if isinstance(self.default, tuple):
            return ",".join(self.default)
        if isinstance(self.default, float):
            return f"{self.default:g}"
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    def parse(self, text: str, name: str | None = None) -> Any:
        """Convert text from the environment, a flag or a file.

        :param name: the setting's name in the error; None for its variable.
        :raises ConfigError: if the text is wrong. The error quotes no secret.
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
        """Convert a Python value to the form of the setting's kind.

        :param name: the setting's name in the error; None for its own.
        :raises ConfigError: if the value is not of the kind.
        """
        return setting_value(self.kind + (" | None" if self.nullable else ""), name or self.name, value)

    def checked(self, value: object, name: str | None = None) -> Any:
        """Convert a value as :meth:`read` does, and check it against ``choices`` and ``check``.

        :raises ConfigError: if the value is not of the kind, or not allowed.
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
        """The value that replaces a wrong one."""
        return self.default if self.stand_in is _SAME else self.stand_in


@dataclass(frozen=True)
class Group:
    """Settings that belong together.

    :ivar title: the heading of the group.
    :ivar settings: its settings, in the order of the help.
    """

    title: str
    settings: Sequence[Setting]


def within(
    low: float, high: float | None = None, needed: str = "it must be {} to {}"
) -> Callable[[Any], str | None]:
    """Return a check that a number is in a range, bounds included.

    :param high: the upper bound; None for none.
    :param needed: what the error demands. Its braces stand for the two bounds.
    """

    def check(value: Any) -> str | None:
        if low <= value and (high is None or value <= high):
            return None
        return f"is {value}; {needed.format(low, high)}"

    return check
