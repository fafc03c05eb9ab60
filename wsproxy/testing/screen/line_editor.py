"""Turns keys into lines of text, like a terminal in canonical mode (termios(3)). No I/O."""

from __future__ import annotations

import unicodedata

__all__ = ["MAX_LINE", "LineEditor"]

MAX_LINE = 256
"""Most characters in a line. The editor answers further ones with a bell, and drops them."""

_BELL, _BACKSPACE, _KILL, _ESCAPE, _DELETE = "\a", "\b", "\x15", "\x1b", "\x7f"


class LineEditor:
    """The line that is being typed.

    Backspace erases a character, and Ctrl-U erases all. Sequences of function and cursor keys do nothing.
    """

    def __init__(self) -> None:
        self._text = ""
        self._sequence = ""

    @property
    def empty(self) -> bool:
        """Whether the line has no characters."""
        return not self._text

    def take(self) -> str:
        """Return the line and begin a new one."""
        text, self._text, self._sequence = self._text, "", ""
        return text

    def press(self, character: str, *, echo: bool) -> str:
        """Take one more character, and return the text to show for it.

        :param echo: whether to show the line. A password is not shown.
        """
        shown = "" if self._is_sequence(character) else self._pressed(character)
        return shown if echo or shown == _BELL else ""

    def _pressed(self, character: str) -> str:
        if character in (_BACKSPACE, _DELETE):
            return self._erase(1)
        if character == _KILL:
            return self._erase(len(self._text))
        if not character.isprintable():
            return ""
        if len(self._text) >= MAX_LINE:
            return _BELL
        self._text += character
        return character

    def _erase(self, count: int) -> str:
        kept = len(self._text) - min(count, len(self._text))
        erased, self._text = self._text[kept:], self._text[:kept]
        return "\b \b" * sum(map(_columns, erased))

    def _is_sequence(self, character: str) -> bool:
        """Whether a character belongs to an escape sequence such as ``ESC [ 1 ; 5 A`` (ECMA-48)."""
        if not self._sequence:
            self._sequence = character if character == _ESCAPE else ""
            return bool(self._sequence)
        if self._sequence == _ESCAPE:
            self._sequence = character if character in "[O" else ""
        elif "@" <= character <= "~":
            self._sequence = ""
        return True


def _columns(character: str) -> int:
    """Return how many columns of a terminal a printable character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
