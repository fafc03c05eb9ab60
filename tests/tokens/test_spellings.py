"""What is no secret, in whatever spelling; and that secrets are left alone."""

from __future__ import annotations

import base64
import json
import random
import time
import unittest
import uuid
from collections.abc import Iterator

from tests.support.jws import b64
from tests.support.key_spellings import spellings, undamaged_spellings
from wsproxy.exceptions import ConfigError
from wsproxy.tokens.jwks import parse_jwks
from wsproxy.tokens.keys import load_keys
from wsproxy.tokens.spellings import is_blank, mistaken_for_secret


class PublicKeyTakenForASecret(unittest.TestCase):
    """Everybody who has the public key could sign tokens if its text were a secret."""

    def test_every_spelling(self) -> None:
        """A key that others know is recognised, and a text says how to give it; no text quotes it."""
        number = 0
        for name, text in spellings():
            number += 1
            with self.subTest(name):
                found = mistaken_for_secret(text)
                assert found is not None
                self.assertRegex(found.remedy, "PEM|WSPROXY_JWKS")
                self.assertNotIn(text.decode("latin-1")[:30], " ".join(found))
        self.assertGreater(number, 400)

    def test_no_keys(self) -> None:
        """It is refused as a secret of the settings, and of a JWK Set, whose other keys are not used then."""
        good = {"kty": "oct", "k": b64(b"x" * 32), "kid": "good"}
        for name, text in undamaged_spellings():
            with self.subTest(name):
                with self.assertRaisesRegex(ConfigError, "a key") as caught:
                    load_keys(text, source="a key")
                self.assertEqual(len(caught.exception.faults), 1)
                jwk = {"kty": "oct", "k": b64(text), "kid": "bad"}
                with self.assertRaisesRegex(ValueError, "the key 'bad' holds"):
                    parse_jwks(json.dumps({"keys": [good, jwk]}).encode(), None, symmetric=True)

    def test_words(self) -> None:
        """The text names the key first, and then its encodings from the inside out."""
        named = dict(undamaged_spellings())
        for name, what in (
            ("RSA: public, DER", "a public key as DER"),
            ("RSA: public, base64", "a public key as DER in base64"),
            ("RSA: PKCS #1, base64", "a public key as DER in base64"),
            ("P-256: certificate, base64", "a certificate as DER in base64"),
            ("Ed25519: private, base64", "a private key as DER in base64"),
            ("P-256: public, base64 of PEM", "PEM in base64"),
            ("P-256: public, base64 of base64 of PEM", "PEM in base64 in base64"),
            ("P-256: public, PEM in utf-16", "PEM in UTF-16"),
            ("P-256: public, base64 of PEM in utf-16", "PEM in UTF-16 in base64"),
            ("P-256: public, PEM without dashes", "PEM"),
            ("P-521: point", "a public key as DER"),
            ("RSA: PKCS #1, lines of base64, line breaks as \\n", "a public key as DER in base64 in escapes"),
            ("RSA: JWK", "a JWK"),
            ("RSA: JWK Set, base64", "a JWK in base64"),
            ("Ed25519: SSH", "an SSH key"),
            ("Ed25519: SSH, without its kind", "an SSH key in base64"),
        ):
            with self.subTest(name):
                found = mistaken_for_secret(named[name])
                assert found is not None
                self.assertEqual(found.what, what)


def secrets() -> Iterator[bytes]:
    """Yield what people take for secrets, and worse: what begins as keys do."""
    yield from (
        b"secret_key_for_testing",
        b"a secret of at least thirty-two bytes",
        b"correct horse battery staple",
        b"django-insecure-5v#k)z=0b!q&o2*1m^j7(w$-x@+y%8",
        uuid.UUID(int=2**127 + 12345).hex.encode(),
        str(uuid.UUID(int=2**127 + 12345)).encode(),
        b'{"secret": "0123456789abcdef0123456789abcdef0123456789abcdef"}',
        b"postgres://user:0123456789abcdef@host.example:5432/name?sslmode=require",
        "na\u00efve \u5bc6\u7801 \u043f\u0430\u0440\u043e\u043b\u044c".encode(),
        "na\u00efve \u5bc6\u7801".encode("utf-16"),
        b"MIIBIjANBgkqhkiG",  # too little of a key to tell one
        b"keys to the kingdom",
        b"BEGIN at the beginning",
        b"x" * 10_000,
        b"\x30" * 64,
        b"\x04" * 65,
    )
    chance = random.Random(1)
    for size in (16, 24, 32, 33, 48, 64, 65, 97, 128, 133, 256):
        for _ in range(60):
            for start in (b"", b"\x30", b"\x04", b"\x30" + bytes([size - 2 & 0x7F]), b"\x30\x82"):
                raw = start + chance.randbytes(size - len(start))
                yield raw
                yield base64.b64encode(raw)
                yield base64.urlsafe_b64encode(raw).rstrip(b"=")
                yield raw.hex().encode()
                yield base64.encodebytes(raw)
                yield base64.b64encode(base64.b64encode(raw))


class Secrets(unittest.TestCase):
    def test_secrets_are_taken(self) -> None:
        """Bytes that do not decode to a key are a secret, in base64, in hexadecimal digits or as they are."""
        for secret in secrets():
            self.assertIsNone(mistaken_for_secret(secret), secret)
            self.assertFalse(is_blank(secret))

    def test_cost(self) -> None:
        """A long one is looked at in a moment, whatever it is made of."""
        pieces = (
            *("A", "a\n", "ab ", "MIIB", "30", "0:", "30 ", "\0a", "-", "{", '"kty', "BEGIN "),
            *("%25", "\\n", "\\x", "\\u005c", "0x30, ", "30" + 9 * " ", "30 " * 31 + "-"),
        )
        for piece in pieces:
            begun = time.process_time()
            mistaken_for_secret(piece.encode() * (100_000 // len(piece)))
            self.assertLess(time.process_time() - begun, 5.0, piece)  # it takes a tenth

    def test_blank(self) -> None:
        """Zeros, which are an empty key to HMAC, and white space of any kind are blank."""
        for text in (
            "",
            " ",
            "\n\t\r ",
            "\0",
            "\0" * 64,
            " \0 ",
            "\u00a0",
            "\u2003\u3000",
            "\ufeff",
            "\u200b",
        ):
            with self.subTest(text=text):
                self.assertTrue(is_blank(text.encode()))
                with self.assertRaisesRegex(ConfigError, "SECRET_KEY is empty"):
                    load_keys(text)
        for other in (b"\0\1", b"x", b"\xff\xfe", b" x "):
            self.assertFalse(is_blank(other))
