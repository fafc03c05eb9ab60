"""JWK Sets: where they may be, and what is in them."""

from __future__ import annotations

import json
import unittest
from typing import Any

from tests.support.issuer import SigningKey
from wsproxy.exceptions import ConfigError
from wsproxy.net.addresses import WebURL
from wsproxy.tokens.jwks import JWKSLocation, parse_jwks
from wsproxy.tokens.keys import VerificationKey


class JWKSLocationTest(unittest.TestCase):
    def test_file(self) -> None:
        """What is no URL is a file."""
        for text in ("/etc/jwks.json", "jwks", "https:/x", "a:b"):
            self.assertEqual(JWKSLocation.parse(text), JWKSLocation(text, path=text))

    def test_url(self) -> None:
        """A URL is taken apart."""
        for text, url, authority in (
            ("https://a.example", WebURL("https", "a.example", 443, "/"), "a.example"),
            (
                "https://a.example:8443/k?v=1&x",
                WebURL("https", "a.example", 8443, "/k?v=1&x"),
                "a.example:8443",
            ),
            ("https://[2001:db8::1]/k", WebURL("https", "2001:db8::1", 443, "/k"), "[2001:db8::1]"),
            ("http://127.0.0.1:80/", WebURL("http", "127.0.0.1", 80, "/"), "127.0.0.1"),
            ("http://127.9.9.9:8080/", WebURL("http", "127.9.9.9", 8080, "/"), "127.9.9.9:8080"),
            ("http://[::1]:8080/", WebURL("http", "::1", 8080, "/"), "[::1]:8080"),
            ("http://localhost/", WebURL("http", "localhost", 80, "/"), "localhost"),
        ):
            with self.subTest(text=text):
                found = JWKSLocation.parse(text)
                self.assertEqual((found.url, found.path, found.text), (url, None, text.partition("?")[0]))
                self.assertEqual(url.authority, authority)

    def test_faults(self) -> None:
        """Another scheme, http to another machine, a password, and what is malformed are faults."""
        for text in (
            "http://a.example/",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
            "http://localhost.example/",
            "http://127.0.0.1.example/",
            "http://[::2]/",
            "ftp://localhost/",
            "file:///etc/jwks",
            "https://",
            "https:///path",
            "https://a.example:port/",
            "https://a.example:99999/",
            "https://a.example:0/",
            "https://[::1/",
            "https://a.example/ x",
            "https://a.example/\nx",
            "https://a.example/#x",
            "https://\u00e9.example/",
        ):
            with self.subTest(text=text), self.assertRaisesRegex(ConfigError, "^jwks "):
                JWKSLocation.parse(text)
        with self.assertRaises(ConfigError) as caught:
            JWKSLocation.parse("https://user:password@a.example/")
        self.assertNotIn("password", str(caught.exception))

    def test_query_is_not_quoted(self) -> None:
        """A query may hold a key to the server, so no fault shows it."""
        for text in (
            "http://a.example/keys?key=secret",
            "ftp://a.example/keys?key=secret",
            "https://a.example:port/keys?key=secret",
            "https://a.example/keys?key=secret#x",
            "https://a.example/\nkeys?key=secret",
            "https://?key=secret",
        ):
            with self.subTest(text=text), self.assertRaises(ConfigError) as caught:
                JWKSLocation.parse(text)
            self.assertNotIn("secret", str(caught.exception))
            self.assertTrue(caught.exception.__suppress_context__ or caught.exception.__context__ is None)

    def test_hosts(self) -> None:
        """A host is a name or an IPv6 address in brackets: all else would stand in a Host header."""
        for host in (
            "a\\b",
            "a;b",
            "a%2fb",
            "[a]",
            "[1.2.3.4]",
            "[::1%a/b]",
            "[::1%a;b]",
            "[v1.x]",
            "a,b",
            "[:]",
        ):
            with self.subTest(host=host), self.assertRaises(ConfigError):
                JWKSLocation.parse(f"https://{host}/keys")
        self.assertEqual(
            JWKSLocation.parse("https://[fe80::1%eth0]/").url, WebURL("https", "fe80::1%eth0", 443, "/")
        )


class ParseTest(unittest.TestCase):
    def parse(self, *jwks: Any, symmetric: bool = False, **members: Any) -> tuple[VerificationKey, ...]:
        return parse_jwks(json.dumps({"keys": jwks} | members).encode(), None, symmetric=symmetric)

    def test_keys(self) -> None:
        """Keys are taken in their order; those for other purposes are passed over in silence."""
        first, second = SigningKey("ES256", "a"), SigningKey("EdDSA", "b")
        with self.assertNoLogs("wsproxy"):
            found = self.parse(
                first.jwk, SigningKey("ES384").jwk | {"use": "enc"}, {"kty": "new"}, second.jwk, x=1
            )
        self.assertEqual([(key.kid, key.algorithms) for key in found], [("a", ("ES256",)), ("b", ("EdDSA",))])

    def test_no_keys(self) -> None:
        """A set without keys is a set."""
        self.assertEqual(self.parse(), ())

    def test_faulty_keys(self) -> None:
        """Keys that must not be used are left out with one warning, and the others are taken."""
        good, secret = SigningKey("ES256", "good").jwk, {"kty": "oct", "k": "eHh4", "kid": "hush"}
        with self.assertLogs("wsproxy.jwks", "WARNING") as logs:
            found = self.parse({"kty": "RSA", "kid": "odd"}, good, secret)
        self.assertEqual([key.kid for key in found], ["good"])
        self.assertEqual(len(logs.output), 1)
        self.assertIn("2 keys", logs.output[0])
        self.assertNotIn("eHh4", logs.output[0])

    def test_long_warnings(self) -> None:
        """A set cannot fill the log."""
        with self.assertLogs("wsproxy.jwks", "WARNING") as logs:
            self.parse({"kty": "RSA", "kid": "x" * 5000}, {"kty": "RSA", "kid": "a\nb"})
        self.assertLess(len(logs.output[0]), 700)
        self.assertNotIn("\n", logs.output[0])

    def test_no_set(self) -> None:
        """Anything else is refused as a whole."""
        for raw in (
            b"",
            b"[]",
            b"{}",
            b"null",
            b"<html>",
            b'{"keys": {}}',
            b'{"keys": null}',
            b'{"keys": [5]}',
            b'{"keys": [], "keys": []}',
            b'{"keys": ' + b"[" * 10000,
        ):
            with self.subTest(raw=raw[:20]), self.assertRaises(ValueError):
                parse_jwks(raw, None, symmetric=True)

    def test_too_many_keys(self) -> None:
        """So many keys and no more: all of them may have to be tried."""
        jwk = {"kty": "new"}
        self.assertEqual(self.parse(*[jwk] * 100), ())
        with self.assertRaisesRegex(ValueError, "101 keys"):
            self.parse(*[jwk] * 101)
