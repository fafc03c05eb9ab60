"""The error of a failed assertion about a machine's text: the expected text, and the actual text."""

from __future__ import annotations

__all__ = ["MAX_TEXT", "text_missing"]

MAX_TEXT = 65536
"""How many characters of its text a machine keeps."""

_MOST_LINES = 30
_MARGIN = "\n    | "


def text_missing(wanted: str, seconds: float, text: str, about: str) -> AssertionError:
    """Return the error of an assertion whose text did not come in time.

    :param wanted: what did not happen, such as ``"'login:' was not shown"``.
    :param seconds: how long the assertion waited.
    :param text: the actual text. The error quotes its last thirty lines.
    :param about: the state of the machine, without a full stop.
    """
    lines = text.split("\n")[-_MOST_LINES:]
    # Control characters and escape sequences would act on the terminal that shows this error.
    quoted = "".join(_MARGIN + _printable(line.rstrip("\r")) for line in lines)
    there = f"The text is:{quoted}\n" if text else "There is no text. "
    return AssertionError(f"{wanted} within {seconds:g} s. {there}State: {about}.")


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)
