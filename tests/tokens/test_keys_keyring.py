"""Which keys are tried."""

from __future__ import annotations

import unittest
from unittest import mock

from wsproxy.runtime.deadline import Deadline
from wsproxy.tokens.keys import Keyring, VerificationKey


def key(kid: str | None, *algorithms: str, good: bool = False) -> mock.Mock:
    """Return a key that takes every signature, or none, and remembers that it was tried."""
    made = mock.Mock(spec=VerificationKey, kid=kid, algorithms=algorithms or ("HS256",))
    made.verifies.return_value = good
    return made


class KeyringTest(unittest.TestCase):
    def tried(self, keys: list[mock.Mock], algorithm: str, kid: str | None) -> list[int]:
        """Return which keys a token makes it try."""
        self.assertFalse(Keyring(keys).verifies(algorithm, kid, b"signed", b"signature"))
        return [number for number, one in enumerate(keys) if one.verifies.called]

    def test_no_keys(self) -> None:
        """An empty keyring verifies no signature."""
        self.assertFalse(Keyring([]).verifies("HS256", None, b"", b""))
        self.assertFalse(Keyring([]).has("a"))

    def test_by_name(self) -> None:
        """A kid rules out keys of other names, not those without one; without a kid all are tried."""
        names = ("a", None, "b", "a", "")
        for kid, expected in (
            ("a", [0, 1, 3]),
            ("b", [1, 2]),
            ("c", [1]),
            ("", [1, 4]),
            (None, [0, 1, 2, 3, 4]),
        ):
            with self.subTest(kid=kid):
                self.assertEqual(self.tried([key(name) for name in names], "HS256", kid), expected)

    def test_by_algorithm(self) -> None:
        """A key that is not for the algorithm is not tried, whatever its name."""
        keys = [key("a", "RS256", "PS256"), key("a", "HS256"), key(None, "ES256")]
        self.assertEqual(self.tried(keys, "PS256", "a"), [0])
        for other in ("none", "", "rs256", "HS512"):
            keys = [key("a", "RS256", "PS256"), key("a", "HS256"), key(None, "ES256")]
            self.assertEqual(self.tried(keys, other, "a"), [])

    def test_strange_names(self) -> None:
        """A kid is a name and nothing else: no path, no pattern, no query."""
        for kid in (
            "../../dev/null",
            "/dev/null",
            "x' UNION SELECT 'secret",
            "a\0",
            "*",
            "a.*",
            "A",
            "a ",
            "http://x/",
        ):
            with self.subTest(kid=kid):
                self.assertEqual(self.tried([key("a"), key(None, "RS256")], "HS256", kid), [])
                self.assertFalse(Keyring([key("a")]).has(kid))

    def test_one_is_enough(self) -> None:
        """The first key that made the signature ends the search."""
        keys = [key(None), key(None, good=True), key(None)]
        self.assertTrue(Keyring(keys).verifies("HS256", "x", b"signed", b"signature"))
        self.assertFalse(keys[2].verifies.called)
        keys[1].verifies.assert_called_once_with("HS256", b"signed", b"signature")

    def test_has(self) -> None:
        """A keyring knows the names of its keys."""
        ring = Keyring([key("a"), key(None), key("")])
        self.assertEqual([ring.has(kid) for kid in ("a", "", "b", None)], [True, True, False, False])

    def test_source(self) -> None:
        """A keyring is a source of keys that never change, and waits for none."""
        ring = Keyring([key("a")])
        ring.await_key("b", Deadline(3600))
        self.assertIs(ring.current(), ring)
