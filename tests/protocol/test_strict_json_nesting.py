"""The bound on JSON nesting."""

from __future__ import annotations

import json
import unittest

from wsproxy.protocol.strict_json import is_deeper_than, nested_deeper_than


class NestingTest(unittest.TestCase):
    def test_bound(self) -> None:
        """As many brackets as allowed pass, one more does not."""
        self.assertFalse(nested_deeper_than(3, b"[[["))
        self.assertTrue(nested_deeper_than(3, b"[[[["))

    def test_both_kinds(self) -> None:
        """Arrays and objects count together."""
        self.assertFalse(nested_deeper_than(2, b'[{"a": 1}]'))
        self.assertTrue(nested_deeper_than(1, b'[{"a": 1}]'))

    def test_no_nesting(self) -> None:
        """Text without brackets, or an empty text, never nests."""
        self.assertFalse(nested_deeper_than(0, b"1"))
        self.assertFalse(nested_deeper_than(0, b""))

    def test_closing_brackets_do_not_count(self) -> None:
        """Closing brackets do not count."""
        self.assertFalse(nested_deeper_than(0, b"]]}}"))

    def test_other_encodings(self) -> None:
        """Brackets in UTF-16 and UTF-32, which json.loads would take, are counted too."""
        for encoding in ("utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"):
            with self.subTest(encoding):
                self.assertTrue(nested_deeper_than(10, ("[" * 11).encode(encoding)))


class DepthTest(unittest.TestCase):
    """Long texts, whose depth counts."""

    def text(self, *items: object) -> bytes:
        return json.dumps([[[]] * 300, *items]).encode()

    def nested(self, depth: int) -> object:
        value: object = "x"
        for _ in range(depth):
            value = [1, value] if depth % 2 else {"a": value, "b": 2}
        return value

    def test_depth(self) -> None:
        """As deep as allowed is well, one more is not, however wide the rest is."""
        for depth in (5, 8, 31, 64):
            with self.subTest(depth):
                self.assertFalse(is_deeper_than(depth + 1, self.text(self.nested(depth))))
                self.assertTrue(is_deeper_than(depth, self.text(self.nested(depth))))

    def test_strings(self) -> None:
        """Brackets in strings do not count, whatever stands before them. A user may have any name."""
        for name in ("[" * 5000, '"' + "[{" * 500, "\\" * 3 + '"[[[', "\\", '","[[[', "\u2028[", "]" * 300):
            with self.subTest(name[:9]):
                self.assertFalse(is_deeper_than(3, self.text(name, name)))
                self.assertTrue(is_deeper_than(8, self.text(name, self.nested(8), name)))

    def test_garbage(self) -> None:
        """Brackets without a partner are too deep, and no text takes long."""
        for text in (b"[" * 1_000_000, b"{" * 300 + b'"', b"[" * 300 + b'"' * 300_001, b"]" + b"[" * 300):
            with self.subTest(text[:9]):
                self.assertTrue(is_deeper_than(30, text))
        self.assertFalse(is_deeper_than(30, b'"' + b'\\"' * 300_000 + b"[" * 300))
