"""The bound on JSON nesting."""

from __future__ import annotations

import unittest

from wsproxy.protocol.strict_json import nested_deeper_than


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
