"""Keys by name, and texts as key events."""

from __future__ import annotations

import unittest

from wsproxy.testing.rfb.keysyms import KEYSYMS, chord, keysym, strokes
from wsproxy.testing.rfb.messages import KeyEvent

SHIFT = KEYSYMS["Shift_L"]


def events(data: bytes) -> list[tuple[bool, int]]:
    """Return key events as (down, keysym)."""
    parsed = [KeyEvent.parse(data[at : at + 8]) for at in range(0, len(data), 8)]
    return [(event.down, event.keysym) for event in parsed]


class KeysymTest(unittest.TestCase):
    def test_keys(self) -> None:
        """A name, a character of any alphabet, and a number are keys."""
        cases: dict[int | str, int] = {
            "Return": 0xFF0D,
            "F1": 0xFFBE,
            "F12": 0xFFC9,
            "Delete": 0xFFFF,
            "a": 0x61,
            " ": 0x20,
            "ü": 0xFC,
            "€": 0x010020AC,
            "я": 0x0100044F,
            "😀": 0x0101F600,
            "\n": 0xFF0D,
            "\t": 0xFF09,
            0xFFE9: 0xFFE9,
        }
        for key, expected in cases.items():
            with self.subTest(key=key):
                self.assertEqual(keysym(key), expected)

    def test_no_keys(self) -> None:
        """A name that is not a key is refused. The error lists the keys."""
        for key in ("", "Enter", "ctrl+c", "\x01", "\x9f", "\ud800", 0, -1, 1 << 32):
            with self.subTest(key=key), self.assertRaises(ValueError):
                keysym(key)
        with self.assertRaisesRegex(ValueError, "'Enter'; give one of .*Return"):
            keysym("Enter")


class StrokesTest(unittest.TestCase):
    def test_text(self) -> None:
        """Each character is a key down and up; what a US keyboard has on the upper half comes with Shift."""
        a, capital, euro, enter = 0x61, 0x41, 0x010020AC, 0xFF0D
        expected = [(True, a), (False, a), (True, SHIFT), (True, capital), (False, capital), (False, SHIFT)]
        expected += [(True, euro), (False, euro), (True, enter), (False, enter)]
        self.assertEqual(events(strokes("aA€\n")), expected)
        self.assertEqual(strokes(""), b"")

    def test_shift(self) -> None:
        """The ASCII characters that need Shift are those of a US keyboard."""
        plain = "abcdefghijklmnopqrstuvwxyz0123456789`-=[]\\;',./ "
        for code in range(0x20, 0x7F):
            with self.subTest(character=chr(code)):
                self.assertEqual((True, SHIFT) in events(strokes(chr(code))), chr(code) not in plain)

    def test_chord(self) -> None:
        """Keys go down in order, and up in reverse order."""
        control, alt, delete = KEYSYMS["Control_L"], KEYSYMS["Alt_L"], KEYSYMS["Delete"]
        down, up = [control, alt, delete], [delete, alt, control]
        expected = [(True, key) for key in down] + [(False, key) for key in up]
        self.assertEqual(events(chord(("Control_L", "Alt_L", "Delete"))), expected)
