"""What an assertion about a machine's text says when it fails: what was wanted, and what there is."""

from __future__ import annotations

__all__ = ["MAX_TEXT", "text_missing"]

MAX_TEXT = 65536
"""Characters that a machine keeps of what was typed, or shown."""

_MOST_LINES = 30
_MARGIN = "\n    | "


def text_missing(wanted: str, seconds: float, text: str, about: str) -> AssertionError:
    """Return the failure of an assertion that waited for a text in vain.

    :param wanted: what should have come, and how: ``"'login:' was not shown"``.
    :param seconds: how long it waited.
    :param text: what there is; its last thirty lines are quoted.
    :param about: the state of the machine, without the period.
    """
    lines = text.split("\n")[-_MOST_LINES:]
    # Control characters, escape sequences of a terminal perhaps, would act on the terminal that shows this.
    quoted = "".join(_MARGIN + _printable(line.rstrip("\r")) for line in lines)
    there = f"There is:{quoted}\n" if text else "There is no text. "
    return AssertionError(f"{wanted} within {seconds:g} s. {there}State: {about}.")


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)
