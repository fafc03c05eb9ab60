"""Incidents with tokens, through a whole proxy: whoever made them, they lead nowhere."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import tempfile
import zlib
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.key_spellings import undamaged_spellings
from wsproxy.exceptions import ConfigError
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient


def encoded(data: bytes | dict[str, Any]) -> str:
    """Return base64url without padding, of JSON if it is none."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(
    header: dict[str, Any],
    claims: dict[str, Any] | bytes,
    key: bytes = SECRET.encode(),
    hash_: str = "sha256",
) -> str:
    """Return a JWS with an HMAC, whatever its header says."""
    text = f"{encoded(header)}.{encoded(claims)}"
    return f"{text}.{encoded(hmac.digest(key, text.encode(), hash_))}"


class TokenIncidentCase(ProxyTestCase):
    """A proxy with a VMI that every token here would open, were it right."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)
        self.proxy = self.start_proxy()
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.claims: dict[str, Any] = {
            "id": 5,
            "exp": 9_999_999_999,
            "lab_instance": {
                "lab_id": 1,
                "lab_instance_id": 2,
                "namespace_name": self.namespace,
                "allowed_vmi_names": ["vm"],
            },
        }

    def write(self, content: bytes) -> str:
        """Return the path of a file with this content."""
        with tempfile.NamedTemporaryFile(dir=self.directory.name, delete=False) as file:
            file.write(content)
        return file.name

    def status(self, token: str, vmi: str = "vm", proxy: WebsocketProxy | None = None) -> int:
        with RawClient.open(self.url(proxy or self.proxy, vmi, token)) as client:
            return client.status

    def assert_refused(self, *tokens: str, vmi: str = "vm", proxy: WebsocketProxy | None = None) -> None:
        """Assert that each is answered 401, and that the API hears of none."""
        for token in tokens:
            with self.subTest(token=token[:60]):
                self.assertEqual(self.status(token, vmi, proxy), 401)
        self.assertEqual(self.api.connections, 0)


class AlgorithmConfusion(TokenIncidentCase):
    """CVE-2015-9235, CVE-2016-10555, CVE-2022-29217, CVE-2024-33663: the token chose its algorithm."""

    def test_right_token(self) -> None:
        """The token that the others are made from is right: it is refused for nothing else."""
        self.assertEqual(self.status(signed({"alg": "HS256"}, self.claims)), 101)

    def test_none(self) -> None:
        """A token without a signature is refused, however its algorithm is spelt, with any signature."""
        for name in ("none", "None", "NONE", "nOnE", ""):
            for signature in ("", encoded(b"x" * 32), signed({"alg": name}, self.claims).rpartition(".")[2]):
                self.assert_refused(f"{encoded({'alg': name})}.{encoded(self.claims)}.{signature}")

    def test_other_algorithm_with_the_right_secret(self) -> None:
        """Only the configured algorithm counts, even if the signature is right for the named one."""
        self.assert_refused(
            signed({"alg": "HS512"}, self.claims, hash_="sha512"),
            signed({"alg": "RS256"}, self.claims),
            signed({"alg": ["HS256"]}, self.claims),
            signed({"alg": "hs256"}, self.claims),
            signed({"alg": None}, self.claims),
            signed({}, self.claims),
        )

    def test_public_key_as_a_secret(self) -> None:
        """With a public key no HMAC counts, made with any form of that key."""
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        proxy = self.start_proxy(secret_key=pem, algorithms=["ES256"])
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ssh = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        for secret in (pem, pem.strip(), der, ssh):
            for name in ("HS256", "ES256", "none"):
                self.assert_refused(signed({"alg": name}, self.claims, secret), proxy=proxy)

    def test_key_in_the_token(self) -> None:
        """A key that the token brings, or says where to find, is not used."""
        own = b"a secret that the forger has chosen"
        jwk = {"kty": "oct", "k": encoded(own)}
        self.assert_refused(
            signed({"alg": "HS256", "jwk": jwk}, self.claims, own),
            signed({"alg": "HS256", "jku": "http://127.0.0.1/keys", "kid": "1"}, self.claims, own),
            signed({"alg": "HS256", "x5u": "http://127.0.0.1/", "x5c": [encoded(own)]}, self.claims, own),
            signed({"alg": "HS256", "kid": "../../../../dev/null"}, self.claims, b""),
            signed({"alg": "HS256", "kid": "' or 1=1"}, self.claims, own),
        )

    def test_signature_of_zeros(self) -> None:
        """CVE-2022-21449 (psychic signatures): an ECDSA signature of zeros is none, raw or in DER."""
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        proxy = self.start_proxy(secret_key=pem, algorithms=["ES256"])
        text = f"{encoded({'alg': 'ES256'})}.{encoded(self.claims)}"
        for signature in (bytes(64), encode_dss_signature(0, 0), encode_dss_signature(1, 1), b""):
            self.assert_refused(f"{text}.{encoded(signature)}", proxy=proxy)


class PublicKeyTakenForASecret(TokenIncidentCase):
    """CVE-2022-29217, CVE-2024-33663: everybody could sign with the text of a public key."""

    def test_public_key_is_no_secret(self) -> None:
        """A proxy that is given a public key does not take it for an HMAC secret, if it starts at all."""
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        for form in (
            key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        ):
            try:
                proxy = self.start_proxy(secret_key=form)
            except ConfigError:
                continue
            for name in ("HS256", "ES256"):
                self.assert_refused(signed({"alg": name}, self.claims, form), proxy=proxy)

    def test_no_spelling_of_a_key_is_a_secret(self) -> None:
        """Nor is it one in any other spelling, as a setting, in a file, or as a secret of a JWK Set."""
        for name, form in undamaged_spellings():
            if not name.startswith(("RSA", "P-256")):
                continue  # tests.tokens.test_spellings has them all
            path = self.write(form)
            jwks = self.write(json.dumps({"keys": [{"kty": "oct", "k": encoded(form)}]}).encode())
            with self.subTest(name):
                choices: tuple[dict[str, Any], ...] = (
                    {"secret_key": form},
                    {"secret_key": [SECRET, form]},
                    {"secret_key": "", "secret_key_files": [path]},
                    {"jwks": jwks},
                )
                for options in choices:
                    with self.assertRaisesRegex(ConfigError, "must not serve as a secret"):
                        self.start_proxy(**options)

    def test_empty_keys(self) -> None:
        """No key of a set is empty, or as good as that: everybody could sign with it."""
        good = {"kty": "oct", "k": encoded(SECRET.encode())}
        for secret in (b"", bytes(1), bytes(64), b" ", b"x"):
            keys = [good, {"kty": "oct", "k": encoded(secret)}]
            with self.subTest(secret=secret), self.assertRaises(ConfigError):
                self.start_proxy(jwks=self.write(json.dumps({"keys": keys}).encode()))
            if secret != b"x":
                with self.subTest(secret=secret), self.assertRaisesRegex(ConfigError, "empty"):
                    self.start_proxy(secret_key=secret)


class CriticalHeader(TokenIncidentCase):
    """CVE-2026-32597 (GHSA-752w-5fwx-jx9f), CVE-2025-59420: ``crit`` was ignored."""

    def test_critical(self) -> None:
        """A token with critical headers is refused, whether the library knows them or not."""
        for crit in (["exp"], ["b64"], ["http://example.com/x"], [], "exp", None):
            self.assert_refused(signed({"alg": "HS256", "crit": crit, "b64": True}, self.claims))


class EncryptedTokens(TokenIncidentCase):
    """CVE-2024-28102, CVE-2026-39373, CVE-2022-3102, CVE-2024-28176: JWE, and what unpacks to gigabytes."""

    def test_jwe(self) -> None:
        """A JWE is refused, and nothing of it is unpacked."""
        bomb = zlib.compress(bytes(4_000_000))[2:-4]
        with mock.patch("zlib.decompress", side_effect=AssertionError("unpacked")):
            for header in (
                {"alg": "dir", "enc": "A128GCM", "zip": "DEF"},
                {"alg": "PBES2-HS256+A128KW", "p2c": 2**31},
            ):
                self.assert_refused(
                    f"{encoded(header)}..{encoded(bytes(12))}.{encoded(bomb)}.{encoded(bytes(16))}"
                )
            self.assert_refused(signed({"alg": "HS256", "zip": "DEF"}, bomb))


class TokenSizes(TokenIncidentCase):
    """HAProxy's heap overflow in converting ECDSA (648b0e7b): what comes before the signature counts."""

    def test_size(self) -> None:
        """A token above 8 KiB is refused before anything of it is decoded."""
        self.claims["lab_instance"]["additional_data"] = {"x": "x" * 7000}
        token = signed({"alg": "HS256"}, self.claims)
        with mock.patch("base64.urlsafe_b64decode", side_effect=AssertionError("decoded")):
            self.assert_refused(token)

    def test_segments(self) -> None:
        """Segments of any number and size are refused."""
        for token in (".", "..", "..." * 100, "." * 2000, "a" * 8000, f"{'a' * 4000}.{'a' * 4000}.", "a.b"):
            if token.strip("."):
                self.assert_refused(token)
        for size in (1, 63, 65, 72, 132, 500, 4000):
            for name in ("HS256", "ES256", "RS256"):
                self.assert_refused(f"{encoded({'alg': name})}.{encoded(self.claims)}.{encoded(bytes(size))}")

    def test_nesting(self) -> None:
        """JSON that nests deeply, before or behind the signature, ends no thread and no process."""
        for depth in (33, 1000, 2500):
            nested = b"[" * depth + b"]" * depth
            header = b'{"alg":"HS256","x":' + nested + b"}"
            text = f"{encoded(header)}.{encoded(self.claims)}"
            self.assert_refused(f"{text}.{encoded(b'x' * 32)}")
        self.assert_refused(signed({"alg": "HS256"}, b'{"x":' + b"[" * 2500 + b"]" * 2500 + b"}"))


class TypesOfClaims(TokenIncidentCase):
    """CVE-2024-53861 (GHSA-75c5-xw7c-p5pm): with a string for a list, ``in`` looks for a part."""

    def test_names_as_a_string(self) -> None:
        """``allowed_vmi_names`` as a string allows nothing: not itself, not a part of it."""
        self.api.add_vmi("ubuntu", self.namespace)
        for names in ("ubuntu", "vm ubuntu", {"ubuntu": 1, "vm": 2, "bunt": 3}, [["ubuntu", "vm"]], None):
            self.claims["lab_instance"]["allowed_vmi_names"] = names
            token = signed({"alg": "HS256"}, self.claims)
            for vmi in ("ubuntu", "bunt", "vm"):
                self.assert_refused(token, vmi=vmi)

    def test_patterns(self) -> None:
        """What looks like a pattern is a name, and no VMI has it."""
        for names in (["*"], ["v*"], ["?m"], [".*"], [""], ["VM"], ["vm "]):
            self.claims["lab_instance"]["allowed_vmi_names"] = names
            self.assertIn(self.status(signed({"alg": "HS256"}, self.claims)), (401, 403))
        self.assertEqual(self.api.connections, 0)


class TokenForAnotherVM(TokenIncidentCase):
    """CVE-2013-0335: a token that opened somebody else's console."""

    def test_other_vm(self) -> None:
        """A token opens the VMIs that it names, in its own namespace, and no other."""
        for namespace, vmi in ((self.namespace, "other"), ("lab-2", "vm"), ("lab-2", "other")):
            self.api.add_vmi(vmi, namespace)
        bearer = f"Authorization: Bearer {signed({'alg': 'HS256'}, self.claims)}"
        for target in ("/-/other", "/-/lab-2/vm", "/-/lab-2/other", f"/-/{self.namespace}/other"):
            with self.subTest(target=target), RawClient(self.proxy.address) as client:
                client.send_raw(RawClient.request(target, [bearer]))
                client.read_head()
                self.assertEqual(client.status, 403)
        self.assertEqual(self.api.connections, 0)


class Timing(TokenIncidentCase):
    """CVE-2021-33880: how long a comparison took told how much of the credential was right."""

    def test_comparison(self) -> None:
        """A signature is compared by ``hmac.compare_digest``, whole."""
        token = signed({"alg": "HS256"}, self.claims, b"somebody else's secret, of 32 bytes")
        with mock.patch("hmac.compare_digest", wraps=hmac.compare_digest) as compared:
            self.assert_refused(token)
        text, _, _ = token.rpartition(".")
        expected = hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256)
        self.assertTrue(any(expected in call.args for call in compared.call_args_list))
