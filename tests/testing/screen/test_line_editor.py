"""Keys to lines: what is kept, and what is shown for each."""

from __future__ import annotations

import unittest

from wsproxy.testing.screen.line_editor import MAX_LINE, LineEditor


class LineEditorTest(unittest.TestCase):
    def setUp(self) -> None:
        self.editor = LineEditor()

    def press(self, text: str, *, echo: bool = True) -> str:
        """Press one key for each character; return all that is shown."""
        return "".join(self.editor.press(character, echo=echo) for character in text)

    def test_characters(self) -> None:
        """Printable characters are kept and shown."""
        self.assertEqual(self.press("a b_ü€漢"), "a b_ü€漢")
        self.assertFalse(self.editor.empty)
        self.assertEqual(self.editor.take(), "a b_ü€漢")
        self.assertTrue(self.editor.empty)

    def test_no_echo(self) -> None:
        """A line without echo is kept, too."""
        self.assertEqual(self.press("secret\x7f\x7f", echo=False), "")
        self.assertEqual(self.editor.take(), "secr")

    def test_backspace(self) -> None:
        """Both keys take back one character, however wide, and nothing before the line."""
        self.assertEqual(self.press("ab\x7f\b\b\x7f"), "ab\b \b\b \b")
        self.assertEqual(self.press("漢\b"), "漢\b \b\b \b")
        self.assertEqual(self.press("e\N{COMBINING ACUTE ACCENT}\b"), "e\N{COMBINING ACUTE ACCENT}")
        self.assertEqual(self.editor.take(), "e")

    def test_kill(self) -> None:
        """Ctrl-U takes the whole line back."""
        self.assertEqual(self.press("abc\x15\x15d"), "abc" + "\b \b" * 3 + "d")
        self.assertEqual(self.editor.take(), "d")

    def test_what_is_no_text(self) -> None:
        """Keys of cursor and functions, and control characters, are neither kept nor shown."""
        for keys in ("\x1b[A", "\x1b[1;5D", "\x1bOP", "\x1b[15~", "\x1bx", "\0\t\x0e\x1a", "\x1b[200~"):
            with self.subTest(keys=keys):
                self.assertEqual(self.press(f"a{keys}b"), "ab")
                self.assertEqual(self.editor.take(), "ab")

    def test_cut_sequence(self) -> None:
        """A sequence that has only begun does not reach into the next line."""
        self.press("a\x1b[")
        self.assertEqual(self.editor.take(), "a")
        self.assertEqual(self.press("b"), "b")

    def test_length(self) -> None:
        """A line that is full rings for each further character, seen or not."""
        self.assertEqual(self.press("x" * MAX_LINE + "yz"), "x" * MAX_LINE + "\a\a")
        self.assertEqual(self.press("y", echo=False), "\a")
        self.assertEqual(self.editor.take(), "x" * MAX_LINE)
