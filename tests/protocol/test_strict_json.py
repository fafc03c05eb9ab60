"""Strict JSON: what only Python, or only some readers, would take."""

from __future__ import annotations

import json
import unittest

from wsproxy.protocol.strict_json import parse_json


class StrictJSONTest(unittest.TestCase):
    def fault(self, raw: bytes) -> str:
        with self.assertRaises(ValueError) as caught:
            parse_json(raw, 100)
        self.assertTrue(caught.exception.__suppress_context__ or caught.exception.__context__ is None)
        return str(caught.exception)

    def test_json(self) -> None:
        """JSON is read as the standard library reads it."""
        for raw in (b"{}", b"[]", b'"x"', b"5", b"null", b' {"a": [1, 2.5, -1e3, true], "\xc3\xa9": ""}\n'):
            with self.subTest(raw=raw):
                self.assertEqual(parse_json(raw, 100), json.loads(raw))

    def test_doubled_names(self) -> None:
        """A name that is given twice, at any depth and in any spelling, is refused."""
        for raw in (b'{"a": 1, "a": 1}', b'[{"x": {"a": 1, "b": 2, "a": 3}}]', b'{"a": 1, "\\u0061": 2}'):
            with self.subTest(raw=raw):
                self.assertIn("duplicate", self.fault(raw))

    def test_no_numbers(self) -> None:
        """NaN and Infinity are not JSON, and a number that would become one of them is refused, too."""
        for raw in (b"NaN", b'{"exp": Infinity}', b"[-Infinity]", b'{"exp": 1e999}', b"[-1e400]"):
            with self.subTest(raw=raw):
                self.assertIn("number", self.fault(raw))

    def test_other_encodings(self) -> None:
        """Only UTF-8, without a byte order mark, is JSON (RFC 8259 section 8.1)."""
        for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig"):
            with self.subTest(encoding=encoding):
                self.assertIn("not JSON", self.fault('{"a": 1}'.encode(encoding)))
        self.assertIn("not JSON", self.fault(b'"\xff"'))

    def test_garbage(self) -> None:
        """Anything else is refused, with a text that does not quote it."""
        for raw in (
            b"",
            b"{",
            b"{'a': 1}",
            b'{"a": 1,}',
            b'{"secret": secret}',
            b"{} {}",
            b"[1] x",
            b"9" * 5000,
        ):
            with self.subTest(raw=raw[:20]):
                self.assertNotIn("secret", self.fault(raw))

    def test_nesting(self) -> None:
        """The limit on opening brackets holds wherever they are."""
        self.assertEqual(parse_json(b"[" * 100 + b"]" * 100, 100), json.loads("[" * 100 + "]" * 100))
        for raw in (b"[" * 101 + b"]" * 101, b"[" * 101, b'"' + b"{" * 101 + b'"'):
            self.assertIn("nested", self.fault(raw))
