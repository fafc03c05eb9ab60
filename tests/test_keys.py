"""Key material: which keys go with which algorithms."""

from __future__ import annotations

import logging
import unittest
from unittest import mock

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from wsproxy.exceptions import ConfigError
from wsproxy.keys import VerificationKey

SECRET = "a secret of at least thirty-two bytes"


def public_pem(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class VerificationKeyTest(unittest.TestCase):
    rsa: rsa.RSAPrivateKey
    ec: ec.EllipticCurvePrivateKey

    @classmethod
    def setUpClass(cls) -> None:
        cls.rsa = rsa.generate_private_key(65537, 2048)
        cls.ec = ec.generate_private_key(ec.SECP256R1())

    def fault(self, secret: str | bytes, algorithms: tuple[str, ...]) -> str:
        """Return the one fault of a pair that does not belong together; it never shows the key."""
        with self.assertRaises(ConfigError) as caught:
            VerificationKey.load(secret, algorithms)
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
                    key = VerificationKey.load(secret, algorithms)
                    self.assertEqual((key.key, key.algorithms), (SECRET.encode(), algorithms))

    def test_default_algorithm(self) -> None:
        """Without algorithms it is HS256, as in the original."""
        self.assertEqual(VerificationKey.load(SECRET).algorithms, ("HS256",))

    def test_white_space_belongs_to_the_secret(self) -> None:
        """A secret is not stripped, since those who sign do not strip it either."""
        self.assertEqual(VerificationKey.load(SECRET + "\n").key, (SECRET + "\n").encode())

    def test_empty_secret(self) -> None:
        """An empty secret, or one of white space, would let everybody in and is refused."""
        for secret in ("", b"", " ", "\n\t "):
            self.assertIn("SECRET_KEY is empty", self.fault(secret, ("HS256",)))
        self.assertIn("SECRET_KEY is empty", self.fault("", ("RS256",)))

    def test_short_secret(self) -> None:
        """A secret below 32 bytes is taken with a warning, which does not show it."""
        with self.assertLogs("wsproxy.keys", logging.WARNING) as logs:
            VerificationKey.load("secret_key_for_testing")
        self.assertIn("22 bytes", logs.output[0])
        self.assertNotIn("secret_key_for_testing", logs.output[0])
        with self.assertNoLogs("wsproxy.keys"):
            VerificationKey.load("x" * 32)

    def test_secret_that_is_not_text(self) -> None:
        """A variable of the environment that is not UTF-8 is a fault, not a crash that shows it."""
        self.assertIn("UTF-8", self.fault("thirty-two bytes and one bad \udcff byte", ("HS256",)))

    def test_public_keys(self) -> None:
        """A PEM public key serves the one algorithm of its kind, as text or as bytes."""
        for private, algorithm in ((self.rsa, "RS256"), (self.ec, "ES256")):
            pem = public_pem(private.public_key())
            for secret in (pem, pem.decode()):
                with self.subTest(algorithm=algorithm):
                    key = VerificationKey.load(secret, (algorithm,))
                    self.assertEqual(key.algorithms, (algorithm,))
                    self.assertNotIsInstance(key.key, bytes)

    def test_pem_is_no_secret(self) -> None:
        """A PEM key is never used as an HMAC secret, be it public, private or a certificate."""
        for pem in (
            public_pem(self.rsa.public_key()),
            private_pem(self.ec),
            b"-----BEGIN CERTIFICATE-----\nMII",
        ):
            for algorithms in (("HS256",), ("HS256", "HS384")):
                with self.subTest(pem=pem[:30], algorithms=algorithms):
                    self.assertIn("PEM", self.fault(pem, algorithms))

    def test_ssh_key_is_no_secret(self) -> None:
        """An SSH key, which PyJWT would refuse at each token, is refused at the start."""
        ssh = self.rsa.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self.assertIn("SSH", self.fault(ssh, ("HS256",)))

    def test_key_of_another_kind(self) -> None:
        """A public key of another kind than the algorithm's is refused."""
        other = ed25519.Ed25519PrivateKey.generate().public_key()
        for public, algorithm in (
            (self.ec.public_key(), "RS256"),
            (self.rsa.public_key(), "ES256"),
            (other, "RS256"),
            (other, "ES256"),
        ):
            with self.subTest(algorithm=algorithm, kind=type(public).__name__):
                self.assertIn("another kind", self.fault(public_pem(public), (algorithm,)))

    def test_wrong_curve(self) -> None:
        """ES256 means P-256 and no other curve (RFC 7518 section 3.4)."""
        pem = public_pem(ec.generate_private_key(ec.SECP384R1()).public_key())
        self.assertIn("secp384r1", self.fault(pem, ("ES256",)))

    def test_not_a_public_key(self) -> None:
        """A secret, a private key and a broken PEM are no public keys."""
        broken = public_pem(self.rsa.public_key()).replace(b"A", b"B")
        for secret in (SECRET.encode(), private_pem(self.rsa), private_pem(self.ec), broken):
            for algorithm in ("RS256", "ES256"):
                with self.subTest(secret=secret[:30], algorithm=algorithm):
                    self.assertIn("no PEM public key", self.fault(secret, (algorithm,)))

    def test_mixed_families(self) -> None:
        """One key never serves two families, which is how tokens are forged with a public key."""
        pem = public_pem(self.rsa.public_key())
        for algorithms in (("HS256", "RS256"), ("RS256", "ES256"), ("RS256", "HS256")):
            for secret in (SECRET.encode(), pem):
                with self.subTest(algorithms=algorithms):
                    self.fault(secret, algorithms)

    def test_unknown_algorithms(self) -> None:
        """No algorithm, "none", and those that are not offered here are refused."""
        for algorithms in ((), ("none",), ("NONE",), ("hs256",), ("HS256", "none"), ("RS512",), ("EdDSA",)):
            with self.subTest(algorithms=algorithms):
                self.assertIn("algorithms", self.fault(SECRET, algorithms))

    def test_prepared(self) -> None:
        """A secret for one algorithm is prepared once: PyJWT judges it no more, and verifies the same."""
        key = VerificationKey.load(SECRET)
        token = jwt.encode({"a": 1}, SECRET, "HS256")
        prepared = key.prepared()
        with mock.patch("jwt.algorithms.HMACAlgorithm.prepare_key", side_effect=AssertionError):
            self.assertEqual(jwt.decode(token, prepared, key.algorithms), {"a": 1})
        with self.assertRaises(jwt.InvalidSignatureError):
            jwt.decode(token, VerificationKey.load(SECRET[::-1]).prepared(), key.algorithms)
        with self.assertRaises(jwt.InvalidAlgorithmError):
            jwt.decode(jwt.encode({"a": 1}, SECRET * 2, "HS512"), prepared, key.algorithms)
        self.assertNotIn(SECRET, repr(prepared))

    def test_not_prepared(self) -> None:
        """One secret for several algorithms, and a public key, go to PyJWT as they are."""
        for key in (
            VerificationKey.load(SECRET, ("HS256", "HS512")),
            VerificationKey.load(public_pem(self.rsa.public_key()), ("RS256",)),
        ):
            self.assertIs(key.prepared(), key.key)

    def test_repr_hides_the_key(self) -> None:
        """The repr shows the algorithms only."""
        self.assertEqual(repr(VerificationKey.load(SECRET)), "VerificationKey(algorithms=('HS256',))")
