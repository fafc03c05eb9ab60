"""The text that pressed keys produce. No I/O."""

from __future__ import annotations

from .text_asserts import MAX_TEXT

__all__ = ["typed"]

_BACKSPACE, _TAB, _RETURN, _KEYPAD_ENTER = 0xFF08, 0xFF09, 0xFF0D, 0xFF8D
_CONTROL = {_TAB: "\t", _RETURN: "\n", _KEYPAD_ENTER: "\n"}


def typed(text: str, keysym: int) -> str:
    """Return a text after one more key."""
    if keysym == _BACKSPACE:
        return text[:-1]
    return (text + _character(keysym))[-MAX_TEXT:]


def _character(keysym: int) -> str:
    """Return the character of an X keysym: a Latin-1 code, or a Unicode code plus 0x01000000."""
    if 0x20 <= keysym <= 0x7E or 0xA0 <= keysym <= 0xFF:
        return chr(keysym)
    if 0x01000100 <= keysym <= 0x0110FFFF:
        return chr(keysym - 0x01000000)
    if 0xFFAA <= keysym <= 0xFFB9:  # the keypad's * + , - . / and digits, in the order of ASCII
        return chr(keysym - 0xFF80)
    return _CONTROL.get(keysym, "")
