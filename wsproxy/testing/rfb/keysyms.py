"""Keys by their X names (``X11/keysymdef.h``), and the key events that type a text. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from .messages import KeyEvent

__all__ = ["KEYSYMS", "chord", "keysym", "strokes"]

KEYSYMS = {
    "BackSpace": 0xFF08,
    "Tab": 0xFF09,
    "Return": 0xFF0D,
    "Escape": 0xFF1B,
    "Home": 0xFF50,
    "Left": 0xFF51,
    "Up": 0xFF52,
    "Right": 0xFF53,
    "Down": 0xFF54,
    "Page_Up": 0xFF55,
    "Page_Down": 0xFF56,
    "End": 0xFF57,
    "Print": 0xFF61,
    "Insert": 0xFF63,
    "Menu": 0xFF67,
    "Num_Lock": 0xFF7F,
    "KP_Enter": 0xFF8D,
    **{f"F{number}": 0xFFBD + number for number in range(1, 13)},
    "Shift_L": 0xFFE1,
    "Shift_R": 0xFFE2,
    "Control_L": 0xFFE3,
    "Control_R": 0xFFE4,
    "Caps_Lock": 0xFFE5,
    "Meta_L": 0xFFE7,
    "Alt_L": 0xFFE9,
    "Alt_R": 0xFFEA,
    "Super_L": 0xFFEB,
    "Super_R": 0xFFEC,
    "ISO_Level3_Shift": 0xFE03,
    "Delete": 0xFFFF,
    "space": 0x20,
}
"""The keys with names, in X's spelling. Give all other keys as characters or numbers."""

_CONTROLS = {
    "\b": "BackSpace",
    "\t": "Tab",
    "\n": "Return",
    "\r": "Return",
    "\x1b": "Escape",
    "\x7f": "Delete",
}
# Characters that need Shift on a US keyboard. A machine that gets scan codes must see that Shift is down.
_SHIFTED = frozenset('ABCDEFGHIJKLMNOPQRSTUVWXYZ~!@#$%^&*()_+{}|:"<>?')


def keysym(key: int | str) -> int:
    """Return a key's X keysym (RFC 6143 section 7.5.4).

    :param key: a name in :data:`KEYSYMS`, a character, or a keysym. A Latin-1 character's keysym is its code.
        For all others it is the code plus 0x01000000.
    :raises ValueError: if there is no such key.
    """
    if isinstance(key, int):
        if not 0 < key < 1 << 32:
            raise ValueError(f"{key} is not a keysym, which has 32 bits and is not 0")
        return key
    if key in KEYSYMS:
        return KEYSYMS[key]
    if len(key) != 1:
        raise ValueError(
            f"there is no key {key!r}; give one of {', '.join(KEYSYMS)}, a character, or a number"
        )
    return _of_character(key)


def _of_character(character: str) -> int:
    if character in _CONTROLS:
        return KEYSYMS[_CONTROLS[character]]
    code = ord(character)
    if code < 0x20 or 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000:
        raise ValueError(f"no key types {character!r}")
    return code if code < 0x100 else 0x01000000 + code


def strokes(text: str) -> bytes:
    """Return the key events that type a text, with Shift where a US keyboard needs it.

    A newline is Return, a backspace BackSpace, a tab Tab, an escape Escape.

    :raises ValueError: if a character has no key.
    """
    return b"".join(chord(("Shift_L", key) if key in _SHIFTED else (key,)) for key in text)


def chord(keys: Sequence[int | str]) -> bytes:
    """Return the key events that press keys in order, and release them in reverse order.

    :raises ValueError: if there is no such key.
    """
    pressed = [keysym(key) for key in keys]
    events = [KeyEvent(True, key) for key in pressed] + [KeyEvent(False, key) for key in reversed(pressed)]
    return b"".join(event.encode() for event in events)
