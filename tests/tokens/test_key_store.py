"""Keys that change while the proxy runs."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.issuer import Issuer, SigningKey
from wsproxy.config import Config
from wsproxy.exceptions import BadToken, ConfigError
from wsproxy.net.resolver import Resolver
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import SECRET, LeakTestCase
from wsproxy.tokens.issue import make_token
from wsproxy.tokens.key_store import KeyStore, read_key_file
from wsproxy.tokens.verifier import TokenVerifier

_OTHER = "another secret of thirty-two bytes.."


def token(secret: str = SECRET) -> str:
    return make_token(secret, namespace="lab-1", vmis=["vm"])


class LiveKeysCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.resolver = Resolver()
        self.addCleanup(self.resolver.stop)

    def write(self, name: str, content: str | bytes) -> str:
        """Replace a file as a whole, and return its path."""
        path = os.path.join(self.directory, name)
        with open(f"{path}.new", "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(f"{path}.new", path)
        return path

    def keys(self, **options: Any) -> KeyStore:
        given: dict[str, Any] = {"remote_url": "ws://127.0.0.1:9", "local_dev_mode": True, "secret_key": ""}
        keys = KeyStore(Config(**given | options).key_rules, self.resolver)
        self.addCleanup(keys.stop)
        return keys

    def faults(self, **options: Any) -> tuple[str, ...]:
        with self.assertRaises(ConfigError) as caught:
            self.keys(**options)
        return caught.exception.faults


class FilesTest(LiveKeysCase):
    def test_secret_only(self) -> None:
        """Where nothing can change, the keys are one object."""
        keys = self.keys(secret_key=[SECRET, _OTHER])
        self.assertIs(keys.current(), keys.current())
        keys.start(self)
        keys.await_key("a", Deadline(60))
        for secret in (SECRET, _OTHER):
            TokenVerifier(keys).verify(token(secret))

    def test_line_breaks(self) -> None:
        """Line breaks at the end of a key file are removed; all else belongs to the secret."""
        for content, secret in (
            (f"{SECRET}\n", SECRET),
            (f"{SECRET}\r\n", SECRET),
            (f"{SECRET}\n\n", SECRET),
            (f" {SECRET} ", f" {SECRET} "),
            (f"\n{SECRET}", f"\n{SECRET}"),
        ):
            path = self.write("key", content)
            self.assertEqual(read_key_file(path), secret.encode())
            TokenVerifier(self.keys(secret_key_files=(path,))).verify(token(secret))

    def test_binary_key_that_ends_with_a_line_break(self) -> None:
        """A public key in a binary form stays whole, so it is recognised, and does not serve as a secret."""
        for number in range(1, 5000):
            key = ec.derive_private_key(number, ec.SECP256R1()).public_key()
            point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            if point[-1] in b"\r\n":
                break
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for form in (point, der, point + b"\n", der + b"\r\n"):
            with self.subTest(form), self.assertRaisesRegex(ConfigError, "must not serve as a secret"):
                self.keys(secret_key_files=(self.write("key", form),))
        secret = bytes(range(128, 192)) + b"\n"
        self.assertEqual(read_key_file(self.write("key", secret)), secret[:-1])

    def test_all_together(self) -> None:
        """Secrets, key files and a JWK Set go together; a set in a file may have secrets."""
        pem, jwk = SigningKey("RS256"), SigningKey("EdDSA", "a")
        oct_key = {"kty": "oct", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"}
        keys = self.keys(
            secret_key=SECRET,
            secret_key_files=(self.write("1", _OTHER), self.write("2", pem.pem)),
            jwks=self.write("jwks", json.dumps({"keys": [jwk.jwk, oct_key]})),
        )
        self.assertEqual(len(keys.current().keys), 5)
        verifier = TokenVerifier(keys)
        for good in (token(), token(_OTHER), token("x" * 33), pem.token(), jwk.token()):
            verifier.verify(good)
        for bad in (token("y" * 33), SigningKey("RS256").token(), SigningKey("EdDSA", "a").token()):
            self.assertRaises(BadToken, verifier.verify, bad)

    def test_both_names_of_ed25519(self) -> None:
        """Tokens and key sets say EdDSA (RFC 8037) or Ed25519 (RFC 9864); alg means what it says."""
        old, new = SigningKey("EdDSA", "old"), SigningKey("Ed25519", "new")
        files: dict[str, dict[str, Any]] = {
            "PEM": {"secret_key_files": (self.write("old", old.pem), self.write("new", new.pem))},
            "alg": {"jwks": self.write("jwks", json.dumps({"keys": [old.jwk, new.jwk]}))},
        }
        for name, options in files.items():
            verifier = TokenVerifier(self.keys(**options))
            with self.subTest(name):
                verifier.verify(old.token())
                verifier.verify(new.token())
                for key in (old, new):
                    key.algorithm = (
                        "EdDSA" if key is new else "Ed25519"
                    )  # the same signature, by its other name
                    if name == "PEM":
                        verifier.verify(key.token())
                    else:
                        self.assertRaises(BadToken, verifier.verify, key.token())
                    key.algorithm = "Ed25519" if key is new else "EdDSA"
        restricted = TokenVerifier(self.keys(algorithms=("Ed25519",), **files["PEM"]))
        restricted.verify(new.token())
        self.assertRaises(BadToken, restricted.verify, old.token())

    def test_change(self) -> None:
        """A changed file counts from the next token on; kept grants are dropped."""
        path = self.write("key", SECRET)
        verifier = TokenVerifier(self.keys(secret_key_files=(path,)))
        old, new = token(), token(_OTHER)
        verifier.verify(old)
        verifier.verify(old)
        self.assertRaises(BadToken, verifier.verify, new)
        self.write("key", _OTHER)
        self.assertRaises(BadToken, verifier.verify, old)
        verifier.verify(new)
        self.write("key", SECRET + "\n")
        self.assertRaises(BadToken, verifier.verify, new)
        verifier.verify(old)

    def test_jwks_file(self) -> None:
        """So it is with a JWK Set, also if it loses all its keys."""
        first, second = SigningKey("ES256", "a"), SigningKey("ES256", "b")
        path = self.write("jwks", json.dumps({"keys": [first.jwk]}))
        verifier = TokenVerifier(self.keys(jwks=path))
        verifier.verify(first.token())
        self.write("jwks", json.dumps({"keys": [first.jwk, second.jwk]}))
        verifier.verify(first.token())
        verifier.verify(second.token())
        self.write("jwks", json.dumps({"keys": []}))
        with self.assertRaises(BadToken) as caught:
            verifier.verify(second.token())
        self.assertEqual(caught.exception.log_detail, "there are no keys")

    def test_same_object(self) -> None:
        """As long as nothing changes, the keyring is one object, so that kept grants stay valid."""
        path = self.write("key", SECRET)
        keys = self.keys(secret_key_files=(path,))
        self.assertIs(keys.current(), keys.current())
        before = keys.current()
        self.write("key", SECRET + "\n")
        self.assertIsNot(keys.current(), before)

    def test_unusable_later(self) -> None:
        """If a file cannot be used, its last keys stay, with one warning for all tokens."""
        path = self.write("key", SECRET)
        verifier = TokenVerifier(self.keys(secret_key_files=(path,)))
        for content in ("", "-----BEGIN PUBLIC KEY-----\n", None):
            if content is None:
                os.remove(path)
            else:
                self.write("key", content)
            with self.subTest(content=content), self.assertLogs("wsproxy.reloaded", "WARNING") as logs:
                for _ in range(5):
                    verifier.verify(token())
            self.assertEqual(len(logs.output), 1)
            self.assertNotIn(SECRET, logs.output[0])
        self.write("key", _OTHER)
        self.assertRaises(BadToken, verifier.verify, token())

    def test_unusable_at_the_start(self) -> None:
        """Files that cannot be used stop the start, all of them listed; no text shows a secret."""
        faults = self.faults(
            secret_key_files=(self.write("1", "\n"), self.write("2", SECRET), "/nonexistent/key"),
            jwks=self.write("jwks", "[]"),
        )
        self.assertEqual(len(faults), 3)
        self.assertIn("is empty", faults[0])
        self.assertIn("/nonexistent/key", faults[1])
        self.assertIn("is not a JWK Set", faults[2])
        for algorithms, content in ((("RS256",), SECRET), (("HS256",), SigningKey("ES256").pem)):
            (fault,) = self.faults(secret_key_files=(self.write("1", content),), algorithms=algorithms)
            self.assertIn("add one of these to algorithms", fault)
            self.assertNotIn(SECRET, fault)

    def test_no_key_at_the_start(self) -> None:
        """A JWK Set in a file without a usable key is a fault, unless there is another key."""
        path = self.write("jwks", json.dumps({"keys": [SigningKey("ES256").jwk | {"use": "enc"}]}))
        self.assertIn("no key", self.faults(jwks=path)[0])
        self.keys(jwks=path, secret_key=SECRET)


class URLTest(LiveKeysCase):
    def setUp(self) -> None:
        super().setUp()
        self.issuer = Issuer()
        self.addCleanup(self.issuer.stop)

    def started(self, **options: Any) -> KeyStore:
        keys = self.keys(jwks=self.issuer.url, **options)
        keys.start(self)
        return keys

    def test_no_keys_yet(self) -> None:
        """Without any key every token is refused at once, and the log says why."""
        verifier = TokenVerifier(self.keys(jwks=self.issuer.url))
        with self.assertRaises(BadToken) as caught:
            verifier.verify(SigningKey("ES256").token())
        self.assertEqual(caught.exception.log_detail, "there are no keys")
        self.assertEqual(self.issuer.requests, [])

    def test_new_key(self) -> None:
        """A token of a key that was published just now is accepted, with or without other keys."""
        first, second = SigningKey("ES256", "a"), SigningKey("RS256", "b")
        for options in ({}, {"secret_key": SECRET}):
            self.issuer.publish(first.jwk)
            verifier = TokenVerifier(self.started(jwks_interval=0.2, **options))
            verifier.verify(first.token(), Deadline(10))
            self.issuer.publish(first.jwk, second.jwk)
            verifier.verify(second.token(), Deadline(10))
            verifier.verify(first.token())

    def test_nothing_is_fetched_for_secrets(self) -> None:
        """An HMAC token with an unknown kid causes no fetch: no secret can come from a URL."""
        self.issuer.publish(SigningKey("ES256", "a").jwk)
        keys = self.started(secret_key=SECRET, jwks_interval=1000)
        self.assertTrue(self.issuer.wait_for_requests(1))
        verifier = TokenVerifier(keys)
        forged = make_token("y" * 33, namespace="lab-1", vmis=["vm"])
        for _ in range(3):
            self.assertRaises(BadToken, verifier.verify, forged, Deadline(60))
        self.assertEqual(len(self.issuer.requests), 1)

    def test_confusion(self) -> None:
        """A published key never verifies an HMAC made with its text (CVE-2016-10555)."""
        key = SigningKey("RS256", "a")
        self.issuer.publish(key.jwk)
        verifier = TokenVerifier(self.started())
        verifier.verify(key.token(), Deadline(10))
        self.assertRaises(BadToken, verifier.verify, token(key.jwk["n"]), Deadline(10))

    def test_algorithms(self) -> None:
        """The algorithms of the settings narrow those of published keys."""
        first, second = SigningKey("RS256", "a"), SigningKey("ES256", "b")
        self.issuer.publish(first.jwk, second.jwk)
        verifier = TokenVerifier(self.started(algorithms=("ES256",), jwks_interval=0.05))
        verifier.verify(second.token(), Deadline(10))
        self.assertRaises(BadToken, verifier.verify, first.token(), Deadline(10))

    def test_tls(self) -> None:
        """The authorities of the set's URL can be configured."""
        key = SigningKey("ES256", "a")
        with Issuer(tls=True) as issuer:
            issuer.publish(key.jwk)
            keys = self.keys(jwks=issuer.url, jwks_ca_file=issuer.ca_file)
            keys.start(self)
            TokenVerifier(keys).verify(key.token(), Deadline(10))
            keys.stop()
