"""Key material: which keys go with which algorithms."""

from __future__ import annotations

import logging
import unittest
from typing import Any, ClassVar
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.jws import b64, public_jwk, raw_signature, signed_token
from wsproxy.exceptions import ConfigError
from wsproxy.tokens.algorithms import PUBLIC_KEY_ALGORITHMS
from wsproxy.tokens.keys import (
    VerificationKey,
    check_algorithms,
    key_of_jwk,
    load_keys,
)

SECRET = "a secret of at least sixty-four bytes, which is what HS512 asks for"


def public_pem(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load(text: str | bytes, algorithms: tuple[str, ...] | None = None) -> VerificationKey:
    (key,) = load_keys(text, algorithms)
    return key


class VerificationKeyTest(unittest.TestCase):
    rsa: rsa.RSAPrivateKey
    ec: ec.EllipticCurvePrivateKey

    @classmethod
    def setUpClass(cls) -> None:
        cls.rsa = rsa.generate_private_key(65537, 2048)
        cls.ec = ec.generate_private_key(ec.SECP256R1())

    def fault(self, secret: str | bytes, algorithms: tuple[str, ...] | None) -> str:
        """Return the one fault of a pair that does not belong together; it never shows the key."""
        with self.assertRaises(ConfigError) as caught:
            load(secret, algorithms)
        (fault,) = caught.exception.faults
        self.assertIsNone(caught.exception.__cause__)
        self.assertTrue(caught.exception.__suppress_context__ or caught.exception.__context__ is None)
        raw = secret if isinstance(secret, str) else secret.decode("latin-1")
        for line in raw.splitlines():
            if len(line) > 8:
                self.assertNotIn(line, fault)
        return fault

    def test_secret(self) -> None:
        """A secret serves the HMAC family, as text or as bytes, and is used as it is."""
        for algorithms in (("HS256",), ("HS384",), ("HS512",), ("HS256", "HS512")):
            for secret in (SECRET, SECRET.encode()):
                with self.subTest(algorithms=algorithms, secret=secret):
                    key = load(secret, algorithms)
                    self.assertEqual((key.key, key.algorithms), (SECRET.encode(), algorithms))

    def test_default_algorithm(self) -> None:
        """Without algorithms it is HS256, as in the original."""
        self.assertEqual(load(SECRET).algorithms, ("HS256",))

    def test_white_space_belongs_to_the_secret(self) -> None:
        """A secret is not stripped, since those who sign do not strip it either."""
        self.assertEqual(load(SECRET + "\n").key, (SECRET + "\n").encode())

    def test_empty_secret(self) -> None:
        """An empty secret, or one of white space, would let everybody in and is refused."""
        for secret in ("", b"", " ", "\n\t "):
            self.assertIn("SECRET_KEY is empty", self.fault(secret, ("HS256",)))
        self.assertIn("SECRET_KEY is empty", self.fault("", ("RS256",)))

    def test_short_secret(self) -> None:
        """A secret below 32 bytes is taken with a warning, which does not show it."""
        with self.assertLogs("wsproxy.keys", logging.WARNING) as logs:
            load("secret_key_for_testing")
        self.assertIn("22 bytes", logs.output[0])
        self.assertNotIn("secret_key_for_testing", logs.output[0])
        with self.assertNoLogs("wsproxy.keys"):
            load("x" * 32)

    def test_short_for_its_algorithm(self) -> None:
        """How long a secret must be follows from its hash (RFC 7518 section 3.2)."""
        for algorithms, size in (
            (("HS256",), 32),
            (("HS384",), 48),
            (("HS512",), 64),
            (("HS256", "HS512"), 64),
        ):
            with self.subTest(algorithms=algorithms):
                with self.assertLogs("wsproxy.keys", logging.WARNING) as logs:
                    load("x" * (size - 1), algorithms)
                self.assertIn(f"at least {size} random", logs.output[0])
                with self.assertNoLogs("wsproxy.keys"):
                    load("x" * size, algorithms)

    def test_secret_that_is_not_text(self) -> None:
        """A variable of the environment that is not UTF-8 is a fault, not a crash that shows it."""
        self.assertIn("UTF-8", self.fault("thirty-two bytes and one bad \udcff byte", ("HS256",)))

    def test_public_keys(self) -> None:
        """A PEM public key serves what its kind is for, as text or as bytes; algorithms only narrow that."""
        rsa_names = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
        for private, algorithms in (
            (self.rsa, rsa_names),
            (self.ec, ("ES256",)),
            (ec.generate_private_key(ec.SECP384R1()), ("ES384",)),
            (ec.generate_private_key(ec.SECP521R1()), ("ES512",)),
            (ed25519.Ed25519PrivateKey.generate(), ("EdDSA", "Ed25519")),
        ):
            pem = public_pem(private.public_key())
            for secret in (pem, pem.decode()):
                with self.subTest(algorithms=algorithms):
                    key = load(secret)
                    self.assertEqual(key.algorithms, algorithms)
                    self.assertNotIsInstance(key.key, bytes)
                    self.assertEqual(load(secret, ("HS256", algorithms[-1])).algorithms, algorithms[-1:])
                    self.assertEqual(load(secret, tuple(PUBLIC_KEY_ALGORITHMS)).algorithms, algorithms)

    def test_several_public_keys(self) -> None:
        """A text may hold several PEM keys, with remarks around them."""
        pems = [public_pem(key.public_key()) for key in (self.rsa, self.ec)]
        found = load_keys(b"# of January\n" + pems[0] + b"\n# of February\n" + pems[1])
        self.assertEqual([key.algorithms[0] for key in found], ["RS256", "ES256"])
        self.assertIn("cut short", self.fault(pems[0] + pems[1][:-20], ("RS256", "ES256")))

    def test_pem_is_no_secret(self) -> None:
        """A PEM key is never used as an HMAC secret, be it public, private or a certificate."""
        for pem in (
            public_pem(self.rsa.public_key()),
            private_pem(self.ec),
            b"-----BEGIN CERTIFICATE-----\nMII",
            b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----",
        ):
            for algorithms in (("HS256",), ("HS256", "HS384")):
                with self.subTest(pem=pem[:30], algorithms=algorithms):
                    self.assertIn("PEM", self.fault(pem, algorithms))

    def test_ssh_key_is_no_secret(self) -> None:
        """An SSH key, which everybody may have, is refused."""
        ssh = self.rsa.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self.assertIn("SSH", self.fault(ssh, ("HS256",)))

    def test_key_of_another_kind(self) -> None:
        """A key is refused if algorithms has none of its algorithms."""
        other = ed25519.Ed25519PrivateKey.generate().public_key()
        p384 = ec.generate_private_key(ec.SECP384R1()).public_key()
        for public, algorithm in (
            (self.ec.public_key(), "RS256"),
            (self.rsa.public_key(), "ES256"),
            (other, "RS256"),
            (other, "ES256"),
            (p384, "ES256"),
        ):
            with self.subTest(algorithm=algorithm, kind=type(public).__name__):
                self.assertIn("add one of these to algorithms", self.fault(public_pem(public), (algorithm,)))
        self.assertIn("add one of these to algorithms", self.fault(SECRET, ("RS256", "ES256", "EdDSA")))

    def test_unusable_public_keys(self) -> None:
        """A key of an unsupported curve or type, and a short RSA key are refused."""
        for public, word in (
            (ec.generate_private_key(ec.SECP256K1()).public_key(), "curve"),
            (ec.generate_private_key(ec.BrainpoolP256R1()).public_key(), "curve"),
            (ed448.Ed448PrivateKey.generate().public_key(), "type"),
            (x25519.X25519PrivateKey.generate().public_key(), "type"),
            (rsa.generate_private_key(65537, 1024).public_key(), "1024 bits"),
        ):
            with self.subTest(word=word):
                self.assertIn(word, self.fault(public_pem(public), None))

    def test_not_a_public_key(self) -> None:
        """A private key, a certificate and a broken PEM are refused as public keys."""
        broken = public_pem(self.rsa.public_key()).replace(b"A", b"B")
        certificate = b"-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----"
        for secret in (private_pem(self.rsa), private_pem(self.ec), broken, certificate):
            for algorithms in (("RS256", "ES256"), ("HS256",), None):
                with self.subTest(secret=secret[:30], algorithms=algorithms):
                    self.assertIn("not a public key", self.fault(secret, algorithms))

    def test_one_family(self) -> None:
        """One key never serves two families; otherwise a public key could forge tokens."""
        pem = public_pem(self.rsa.public_key())
        for algorithms in (("HS256", "RS256"), ("RS256", "ES256", "HS256")):
            self.assertEqual(load(SECRET, algorithms).algorithms, ("HS256",))
            self.assertEqual(load(pem, algorithms).algorithms, ("RS256",))

    def test_unknown_algorithms(self) -> None:
        """No algorithm, "none", and those that are not offered here are refused."""
        for algorithms in ((), ("none",), ("NONE",), ("hs256",), ("HS256", "none"), ("ES256K",), ("HS1",)):
            with self.subTest(algorithms=algorithms), self.assertRaisesRegex(ConfigError, "algorithms"):
                check_algorithms(algorithms)
        check_algorithms(["HS512", "PS384", "ES512", "EdDSA"])

    def test_verifies(self) -> None:
        """A key knows its own signatures, by the algorithms that it is for, and no others."""
        keys: dict[str, tuple[str | bytes, VerificationKey]] = {
            "HS256": (SECRET, load(SECRET)),
            "RS512": (private_pem(self.rsa), load(public_pem(self.rsa.public_key()), ("RS512",))),
            "PS256": (private_pem(self.rsa), load(public_pem(self.rsa.public_key()), ("PS256",))),
            "ES256": (private_pem(self.ec), load(public_pem(self.ec.public_key()))),
        }
        for algorithm, (private, key) in keys.items():
            signed = signed_token({"a": 1}, private, algorithm).rpartition(".")[0].encode()
            raw = raw_signature(algorithm, private, signed)
            for other, (_, other_key) in keys.items():
                for said in keys:
                    with self.subTest(algorithm=algorithm, key=other, said=said):
                        right = said == other == algorithm
                        self.assertIs(other_key.verifies(said, signed, raw), right)
            self.assertFalse(key.verifies(algorithm, signed + b"x", raw))
            for odd in (b"", b"x", b"\0" * 64, raw[:-1], raw * 2, b"\0" + raw, raw + b"\0"):
                self.assertFalse(key.verifies(algorithm, signed, odd))

    def test_judged_once(self) -> None:
        """A secret is checked when it is loaded, not for each token, because the check is slow."""
        key = load(SECRET)
        with mock.patch("wsproxy.tokens.keys.check_secret", side_effect=AssertionError):
            self.assertTrue(key.verifies("HS256", b"signed", raw_signature("HS256", SECRET, b"signed")))

    def test_repr_hides_the_key(self) -> None:
        """The repr shows the algorithms and the name only."""
        self.assertEqual(repr(load(SECRET)), "VerificationKey(algorithms=('HS256',), kid=None)")


class JWKTest(unittest.TestCase):
    """Keys of JWKs (RFC 7517)."""

    secret: ClassVar[dict[str, Any]] = {"kty": "oct", "k": b64(b"x" * 64)}
    rsa: ClassVar[dict[str, Any]]
    ec: ClassVar[dict[str, Any]]
    ed: ClassVar[dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.rsa = public_jwk(rsa.generate_private_key(65537, 2048).public_key())
        cls.ec = public_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())
        cls.ed = public_jwk(ed25519.Ed25519PrivateKey.generate().public_key())

    def test_kinds(self) -> None:
        """Each kind of key serves what it is for; its alg, if it has one, narrows that; algorithms, too."""
        for jwk, alg, algorithms, expected in (
            (self.rsa, None, None, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
            (self.rsa, "RS256", None, ("RS256",)),
            (self.rsa, None, ("PS256", "ES256"), ("PS256",)),
            (self.ec, None, None, ("ES256",)),
            (self.ec, "ES256", ("ES256",), ("ES256",)),
            (self.ed, None, None, ("EdDSA", "Ed25519")),
            (self.ed, "EdDSA", None, ("EdDSA",)),
            (self.ed, "Ed25519", None, ("Ed25519",)),
            (self.ed, None, ("Ed25519", "ES256"), ("Ed25519",)),
            (self.secret, None, None, ("HS256",)),
            (self.secret, "HS512", None, ("HS512",)),
            (self.secret, None, ("HS384", "HS512"), ("HS384", "HS512")),
        ):
            with self.subTest(kty=jwk["kty"], alg=alg, algorithms=algorithms):
                more = {"kid": "a", "alg": alg} if alg else {"kid": "a"}
                key = key_of_jwk(jwk | more, algorithms, symmetric=True)
                assert key is not None
                self.assertEqual((key.algorithms, key.kid), (expected, "a"))

    def test_for_other_purposes(self) -> None:
        """A key for encryption, for signing, of an unknown kind or algorithm is passed over."""
        others: tuple[dict[str, Any], ...] = (
            {"use": "enc"},
            {"use": None},
            {"use": ["sig"]},
            {"key_ops": ["sign"]},
            {"key_ops": []},
            {"key_ops": "verify"},
            {"alg": "RSA-OAEP"},
            {"alg": "none"},
            {"alg": "ES256"},
            {"alg": "HS256"},
            {"alg": ["RS256"]},
            {"kty": "new"},
            {"kty": None},
            {"kty": ["RSA"]},
        )
        for more in others:
            with self.subTest(more=more):
                self.assertIsNone(key_of_jwk(self.rsa | more, None, symmetric=True))
        self.assertIsNone(key_of_jwk(self.rsa | {"alg": "RS256"}, ("PS256",), symmetric=True))
        self.assertIsNone(key_of_jwk(self.ec, ("RS256",), symmetric=True))
        k1 = public_jwk(ec.generate_private_key(ec.SECP256K1()).public_key())
        for foreign in (k1, {"kty": "OKP", "crv": "X25519", "x": "AAAA"}, {"kty": "OKP", "crv": "Ed448"}):
            self.assertIsNone(key_of_jwk(foreign, None, symmetric=True))
        for fitting in ({"use": "sig"}, {"key_ops": ["verify"]}):
            self.assertIsNotNone(key_of_jwk(self.rsa | fitting, None, symmetric=True))

    def test_malformed(self) -> None:
        """A malformed key is refused with a text that does not quote it."""
        short = public_jwk(rsa.generate_private_key(65537, 1024).public_key())
        for jwk in (
            {"kty": "RSA"},
            self.rsa | {"n": 5},
            self.rsa | {"n": ""},
            self.rsa | {"n": self.rsa["n"] + "="},
            self.rsa | {"n": self.rsa["n"][:-1] + "/"},
            self.rsa | {"n": self.rsa["n"][:9] + "\n" + self.rsa["n"][9:]},
            self.rsa | {"n": self.rsa["n"][:-1] + chr(ord(self.rsa["n"][-1]) + 1)},  # loose bits
            self.rsa | {"e": "AA"},
            self.rsa | {"e": "BA"},  # an exponent is odd
            self.rsa | {"e": 65537},
            self.rsa | {"e": self.rsa["n"]},
            self.rsa | {"e": "AQ"},  # with an exponent of 1 every number is its own signature
            self.rsa | {"kid": 5},
            self.ec | {"x": self.ec["y"]},
            self.ec | {"x": self.ec["x"][:-4]},
            self.ec | {"crv": "P-384"},
            self.ec | {"crv": "p-256"},
            self.ec | {"crv": ["P-256"]},
            self.ec | {"x": b64(bytes(32)), "y": b64(bytes(32))},  # the point at infinity is none
            self.ec | {"x": "AAAA" + self.ec["x"]},
            self.ec | {"x": b64(b"\xff" * 32)},  # beyond the field
            self.ec | {"x": None},
            self.ed | {"x": "AAAA"},
            self.ed | {"crv": "Ed25520"},
            self.ed | {"crv": "P-256"},
            self.ed | {"x": self.ed["x"] + "AA"},
            self.ed | {"x": self.ed["x"] + "="},
            self.ec | {"crv": "Ed25519"},
            {"kty": "oct"},
            {"kty": "oct", "k": ""},
            {"kty": "oct", "k": 5},
            {"kty": "oct", "k": b64(bytes(64))},  # to HMAC zeros are the empty key
            {"kty": "oct", "k": b64(b" " * 64)},
            {"kty": "oct", "k": b64(b"x" * 31)},
            {"kty": "oct", "alg": "HS512", "k": b64(b"x" * 63)},
            {"kty": "oct", "k": self.secret["k"] + "=="},
            {"kty": "oct", "k": b64(b"-----BEGIN PUBLIC KEY-----\n" * 3)},
            short | {"key_ops": ["verify"]},
        ):
            with self.subTest(jwk=jwk):
                with self.assertRaises(ValueError) as caught:
                    key_of_jwk(jwk, None, symmetric=True)
                for name in ("n", "x", "k"):
                    if len(str(jwk.get(name, ""))) > 8:
                        self.assertNotIn(jwk[name], str(caught.exception))

    def test_must_not_be_published(self) -> None:
        """A private key is not used at all, a secret only where it may be."""
        for member in ("d", "p", "q", "dp", "dq", "qi", "oth"):
            with self.subTest(member=member), self.assertRaisesRegex(ValueError, "private"):
                key_of_jwk(self.rsa | {member: "AQAB"}, None, symmetric=True)
        with self.assertRaisesRegex(ValueError, "secret"):
            key_of_jwk(self.secret, None, symmetric=False)
