"""Origins: what is the same page, what is allowed, and when that counts."""

from __future__ import annotations

import unittest

from wsproxy.exceptions import ConfigError, Forbidden
from wsproxy.protocol.origin import Origin, OriginPolicy

PAGE = "https://console.example"
OWN = Origin("https", "proxy.example", 443)


class Parse(unittest.TestCase):
    def test_parse(self) -> None:
        """Scheme, host and port are taken apart, in lower case and with the scheme's own port."""
        for text, expected in (
            ("https://console.example", Origin("https", "console.example", 443)),
            ("HTTPS://Console.Example:443", Origin("https", "console.example", 443)),
            ("http://console.example", Origin("http", "console.example", 80)),
            ("http://localhost:8080", Origin("http", "localhost", 8080)),
            ("http://10.0.0.1", Origin("http", "10.0.0.1", 80)),
            ("http://[FD00:0::0:1]:81", Origin("http", "[fd00::1]", 81)),
            ("chrome-extension://abcdefgh", Origin("chrome-extension", "abcdefgh", None)),
        ):
            with self.subTest(text):
                self.assertEqual(Origin.parse(text), expected)

    def test_no_origin(self) -> None:
        """Other texts are not origins: no path, no user, no list, no ``null``."""
        for text in (
            "",
            "null",
            "*",
            "console.example",
            "//console.example",
            "https://",
            "https://console.example/",
            "https://console.example/path",
            "https://user@console.example",
            "https://console.example:",
            "https://console.example:65536",
            "https://console.example:+80",
            "https://console.example https://other.example",
            " https://console.example",
            "https://console.example\n",
            "https://*.example",
            "https://cönsole.example",
            "https://\u212aonsole.example",  # the Kelvin sign, whose lower case is a k
            "http://[::1",
            "http://[::g]",
            "http://[1.2.3.4]",
        ):
            with self.subTest(text):
                self.assertIsNone(Origin.parse(text))


class Policy(unittest.TestCase):
    def allowed(
        self, policy: OriginPolicy, origin: str | None, *, ambient: bool = False, own: Origin | None = OWN
    ) -> bool:
        try:
            policy.check(origin, own, ambient=ambient)
        except Forbidden as refused:
            self.assertEqual((refused.status, refused.close_code, refused.slug), (403, 4403, "forbidden"))
            self.assertNotIn("example", refused.message)
            return False
        return True

    def test_no_list(self) -> None:
        """Without a list, every page may use a token, but only the proxy's own page an ambient credential."""
        policy = OriginPolicy(None)
        for origin in (PAGE, "null", "nonsense", "https://proxy.example", None):
            with self.subTest(origin):
                self.assertTrue(self.allowed(policy, origin))
        for origin, expected in (
            (PAGE, False),
            ("null", False),
            ("https://proxy.example", True),
            (None, True),
        ):
            with self.subTest(origin):
                self.assertIs(self.allowed(policy, origin, ambient=True), expected)

    def test_empty_list(self) -> None:
        """An empty list allows the proxy's own page only; it differs from no list."""
        for ambient in (False, True):
            self.assertFalse(self.allowed(OriginPolicy(()), PAGE, ambient=ambient))
            self.assertTrue(self.allowed(OriginPolicy(()), "https://proxy.example", ambient=ambient))

    def test_list(self) -> None:
        """A list counts for every credential; the proxy's own host is allowed, too."""
        policy = OriginPolicy((PAGE, "http://localhost:8080"))
        for origin, expected in (
            (PAGE, True),
            ("https://CONSOLE.example:443", True),
            ("http://localhost:8080", True),
            ("https://proxy.example:443", True),
            (None, True),
            ("http://console.example", False),
            ("https://console.example:444", False),
            ("https://console.example.evil.example", False),
            ("https://evil-console.example", False),
            ("https://sub.console.example", False),
            ("http://localhost", False),
            ("http://proxy.example", False),
            ("https://proxy.example:5001", False),
            ("null", False),
            ("", False),
        ):
            for ambient in (False, True):
                with self.subTest(origin, ambient=ambient):
                    self.assertIs(self.allowed(policy, origin, ambient=ambient), expected)

    def test_unknown_host(self) -> None:
        """If the host of a request is unknown, no origin counts as the proxy's own."""
        self.assertFalse(self.allowed(OriginPolicy(None), "null", ambient=True, own=None))
        self.assertFalse(self.allowed(OriginPolicy((PAGE,)), "https://proxy.example", own=None))

    def test_every(self) -> None:
        """An asterisk allows every page but ``null``, which is what a sandboxed frame of any page sends."""
        policy = OriginPolicy(("*",))
        self.assertTrue(policy.every)
        self.assertTrue(self.allowed(policy, PAGE))
        self.assertFalse(self.allowed(policy, "null"))
        self.assertFalse(OriginPolicy((PAGE,)).every)

    def test_required(self) -> None:
        """Where an Origin is required, clients without one are refused, and nothing else changes."""
        policy = OriginPolicy(None, required=True)
        self.assertFalse(self.allowed(policy, None))
        self.assertFalse(self.allowed(policy, None, ambient=True))
        self.assertTrue(self.allowed(policy, PAGE))

    def test_list_is_never_altered(self) -> None:
        """No request adds to the list, neither by its origin nor by its host (a bug of nova)."""
        policy, evil = OriginPolicy((PAGE,)), Origin("https", "evil.example", 443)
        before = policy._allowed
        for _ in range(3):
            self.assertTrue(self.allowed(policy, "https://evil.example", own=evil))
            self.assertFalse(self.allowed(policy, "https://evil.example"))
        self.assertIs(policy._allowed, before)
        self.assertIsInstance(before, frozenset)

    def test_faults(self) -> None:
        """An entry that is not an origin is a fault, and not an entry that never matches."""
        for text in ("null", "console.example", "https://console.example/", "https://*.example", "", "**"):
            with self.subTest(text), self.assertRaises(ConfigError) as caught:
                OriginPolicy((PAGE, text))
            self.assertIn(repr(text), caught.exception.faults[0])


if __name__ == "__main__":
    unittest.main()
