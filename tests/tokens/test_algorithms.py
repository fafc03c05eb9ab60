"""Signatures: those of the RFCs, those of others, and none that only look like one."""

from __future__ import annotations

import itertools
import json
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.support.jws import raw_signature
from wsproxy.tokens import base64url
from wsproxy.tokens.algorithms import (
    ALGORITHMS,
    PUBLIC_KEY_ALGORITHMS,
    PrivateKey,
    PublicKey,
    algorithms_of,
    shortest_secret,
    sign,
    verifies,
)
from wsproxy.tokens.keys import key_of_jwk

VECTORS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("rfc_vectors.json").read_text(encoding="ascii")
)
"""The examples of RFC 7515 appendix A, RFC 7520 section 4 and RFC 8037 appendix A."""

ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}


def pairs() -> dict[str, tuple[bytes | PrivateKey, bytes | PublicKey]]:
    """Return for each algorithm what signs and what verifies."""
    secret = b"x" * 64
    made: list[PrivateKey] = [
        rsa.generate_private_key(65537, 2048),
        *(ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())),
        ed25519.Ed25519PrivateKey.generate(),
    ]
    found: dict[str, tuple[bytes | PrivateKey, bytes | PublicKey]] = {}
    for key in made:
        found |= {name: (key, key.public_key()) for name in algorithms_of(key)}
    return found | dict.fromkeys(algorithms_of(secret), (secret, secret))


class RFCVectorsTest(unittest.TestCase):
    def test_verified(self) -> None:
        """The examples of the RFCs verify with the key beside each, and not once they are changed."""
        self.assertEqual(len(VECTORS), 9)
        for vector in VECTORS:
            name = vector["alg"]
            with self.subTest(vector["source"]):
                key = key_of_jwk(vector["jwk"], [name], symmetric=True)
                assert key is not None
                text, _, signature = vector["token"].rpartition(".")
                raw = base64url.decode(signature)
                self.assertTrue(key.verifies(name, text.encode(), raw))
                self.assertFalse(key.verifies(name, text.encode() + b"A", raw))
                self.assertFalse(key.verifies(name, text.encode(), bytes([raw[0] ^ 1]) + raw[1:]))

    def test_signed(self) -> None:
        """Where a signature is the same each time, it is that of the RFC."""
        by_source = {vector["source"]: vector for vector in VECTORS}
        seed = base64url.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")  # RFC 8037 A.1
        keys: dict[str, bytes | PrivateKey] = {
            "RFC 7515 A.1": base64url.decode(by_source["RFC 7515 A.1"]["jwk"]["k"]),
            "RFC 7520 4.4": base64url.decode(by_source["RFC 7520 4.4"]["jwk"]["k"]),
            "RFC 8037 A.4": ed25519.Ed25519PrivateKey.from_private_bytes(seed),
        }
        for source, key in keys.items():
            text, _, signature = by_source[source]["token"].rpartition(".")
            made = sign(by_source[source]["alg"], key, text.encode())
            self.assertEqual(base64url.encode(made), signature)


class SignaturesTest(unittest.TestCase):
    pairs: dict[str, tuple[bytes | PrivateKey, bytes | PublicKey]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.pairs = pairs()

    def test_names(self) -> None:
        """There is a key for each algorithm, and no algorithm without a key."""
        self.assertEqual(sorted(self.pairs), sorted(ALGORITHMS))
        self.assertEqual(PUBLIC_KEY_ALGORITHMS, {name for name in ALGORITHMS if not name.startswith("HS")})
        self.assertEqual(algorithms_of(ec.generate_private_key(ec.SECP256K1())), ())
        self.assertEqual([shortest_secret(name) for name in ("HS256", "HS384", "HS512")], [32, 48, 64])

    def test_both_ways(self) -> None:
        """What is signed here verifies here, and so does what is signed by plainer means."""
        for name, (private, public) in self.pairs.items():
            with self.subTest(name):
                for signature in (sign(name, private, b"text"), raw_signature(name, private, b"text")):
                    self.assertTrue(verifies(name, public, b"text", signature))
                    self.assertFalse(verifies(name, public, b"texts", signature))

    def test_other_algorithms(self) -> None:
        """A signature counts for the algorithm that made it, and for its other name if it has one."""
        same = ({"EdDSA", "Ed25519"},)
        for name, (private, public) in self.pairs.items():
            for other in algorithms_of(public):
                right = name == other or {name, other} in same
                with self.subTest(signed=name, verified=other):
                    self.assertIs(verifies(other, public, b"text", sign(name, private, b"text")), right)

    def test_lengths(self) -> None:
        """A signature has one length: r and s in full, RSA's of its modulus, a hash in full."""
        for name, (private, public) in self.pairs.items():
            good = sign(name, private, b"text")
            for bad in (
                b"",
                good[:-1],
                good[1:],
                good + b"\0",
                b"\0" + good,
                good + good,
                good[: len(good) // 2],
                bytes(len(good)),
                b"\xff" * len(good),
            ):
                with self.subTest(name, size=len(bad)):
                    self.assertFalse(verifies(name, public, b"text", bad))

    def test_number_that_is_short(self) -> None:
        """A signature of RSA that begins with a zero must have it, as not every OpenSSL asks for it."""
        for name in ("RS256", "PS256"):
            private, public = self.pairs[name]
            texts = (str(number).encode() for number in itertools.count())
            text, good = next((text, found) for text in texts if not (found := sign(name, private, text))[0])
            with self.subTest(name):
                self.assertTrue(verifies(name, public, text, good))
                self.assertFalse(verifies(name, public, text, good[1:]))

    def test_ecdsa_numbers(self) -> None:
        """In ECDSA r and s lie between 0 and the order of the curve, both exclusive (CVE-2022-21449)."""
        private, public = self.pairs["ES256"]
        good = sign("ES256", private, b"text")
        r, s = (int.from_bytes(half, "big") for half in (good[:32], good[32:]))
        order = ORDERS["secp256r1"]
        self.assertTrue(verifies("ES256", public, b"text", good))
        for numbers in ((0, 0), (0, s), (r, 0), (order, s), (r, order), (order, order), (1, 1), (s, r)):
            raw = b"".join(number.to_bytes(32, "big") for number in numbers)
            with self.subTest(numbers=numbers):
                self.assertFalse(verifies("ES256", public, b"text", raw))
        for other in (encode_dss_signature(r, s), encode_dss_signature(r, s)[:64]):
            self.assertFalse(verifies("ES256", public, b"text", other))

    def test_short_numbers(self) -> None:
        """Small r and s keep their zeros in front, also in P-521, whose numbers end within a byte."""
        for name in ("ES256", "ES384", "ES512"):
            private, public = self.pairs[name]
            size = {"ES256": 64, "ES384": 96, "ES512": 132}[name]
            for number in range(64):
                text = str(number).encode()
                signature = sign(name, private, text)
                self.assertEqual(len(signature), size)
                self.assertTrue(verifies(name, public, text, signature))

    def test_constant_time(self) -> None:
        """A hash is compared by ``hmac.compare_digest``, and whole."""
        with mock.patch("hmac.compare_digest", return_value=True) as compared:
            self.assertTrue(verifies("HS256", b"key", b"text", b"whatever"))
        ((given, expected),) = (call.args for call in compared.call_args_list)
        self.assertEqual((given, len(expected)), (b"whatever", 32))


class Base64URLTest(unittest.TestCase):
    def test_round_trip(self) -> None:
        """Bytes have one spelling, and that comes back."""
        for size in range(70):
            raw = bytes((251 * size + at) % 256 for at in range(size))
            self.assertEqual(base64url.decode(base64url.encode(raw)), raw)

    def test_other_spellings(self) -> None:
        """Padding, loose bits, other alphabets, white space and half a byte are refused, and not quoted."""
        for text in (
            "A",
            "AAAAA",
            "AA==",
            "AA=",
            "AB",
            "AAB",
            "+/+/",
            "AA AA",
            "AAAA\n",
            "\u00e9AAA",
            "AA*A",
            "=",
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, "^it is not (canonical )?base64url$"):
                base64url.decode(text)
