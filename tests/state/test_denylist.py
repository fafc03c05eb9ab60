"""Valid tokens that the proxy refuses because an operator has revoked them."""

from __future__ import annotations

import math
import unittest
from unittest import mock

from wsproxy.exceptions import Busy
from wsproxy.state import denylist
from wsproxy.state.denylist import Denylist
from wsproxy.tokens.claims import TokenKey


class DenylistTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.denied = Denylist(lambda: self.now)

    def deny(self, **tokens: float) -> None:
        self.denied.deny(TokenKey(name.encode(), until) for name, until in tokens.items())

    def denies(self, digest: bytes) -> bool:
        return self.denied.denies(TokenKey(digest, 2000.0))

    def test_denies(self) -> None:
        """The list denies the tokens that were added, and no others."""
        self.assertFalse(self.denies(b"a"))
        self.deny(a=1060.0, b=math.inf)
        self.assertTrue(self.denies(b"a"))
        self.assertTrue(self.denies(b"b"))
        self.assertFalse(self.denies(b"c"))
        self.assertFalse(self.denied.denies(None))

    def test_forgets_what_has_expired(self) -> None:
        """The list drops tokens that have expired, and keeps one that never expires."""
        self.deny(a=1060.0, b=math.inf)
        self.now = 1059.0
        self.deny(c=1100.0)
        self.assertEqual(len(self.denied), 3)
        self.now = 1060.0
        self.deny()
        self.assertEqual(len(self.denied), 2)
        self.assertFalse(self.denies(b"a"))
        self.assertTrue(self.denies(b"b"))

    def test_bounded(self) -> None:
        """A full list adds and drops nothing, but takes a token that it already has."""
        with mock.patch.object(denylist, "MAX_DENIED", 2):
            self.deny(a=1060.0, b=1060.0)
            with self.assertRaises(Busy):
                self.deny(b=1100.0, c=1100.0)
            self.assertFalse(self.denies(b"c"))
            self.deny(a=1100.0)
            self.now = 1060.0
            self.deny(c=1100.0)
            self.assertTrue(self.denies(b"a"))
            self.assertTrue(self.denies(b"c"))
            self.assertFalse(self.denies(b"b"))


if __name__ == "__main__":
    unittest.main()
