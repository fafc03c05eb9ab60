"""Tokens made by the real lab-orchestrator-lib-auth, in the versions that are about."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import unittest
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from wsproxy import WebsocketProxy
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient

DIRECTORY = os.path.join(sys.prefix, "lab-orchestrator-lib-auth")
_VERSIONS = ("0.0.5", "2.2.0")
_MISSING = [version for version in _VERSIONS if not os.path.isdir(os.path.join(DIRECTORY, version))]
_TIMEOUT = 30
_VMI = "ubuntu"

# In a process of its own, as two versions of a package are not one process's.
_MAKE = """
import json, sys
from lab_orchestrator_lib_auth.auth import LabInstanceTokenParams, generate_auth_token
given = json.load(sys.stdin)
params = LabInstanceTokenParams(**given.pop("params"))
print(generate_auth_token(lab_instance_token_params=params, **given))
"""


def original_token(version: str, secret: str = SECRET, **options: Any) -> str:
    """Return what ``generate_auth_token`` of that version makes."""
    params = {
        "lab_id": 1,
        "lab_instance_id": 7,
        "namespace_name": ProxyTestCase.namespace,
        "allowed_vmi_names": [_VMI, "debian"],
    }
    given = {"user_id": 5, "secret_key": secret, "params": params, **options}
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _MAKE],
        input=json.dumps(given),
        env=os.environ | {"PYTHONPATH": os.path.join(DIRECTORY, version)},
        stdout=subprocess.PIPE,
        encoding="ascii",
        timeout=_TIMEOUT,
        check=True,
    )
    return made.stdout.strip()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _forged(token: str, algorithm: str, secret: bytes | None) -> str:
    """Return a token with the same claims, signed with ``secret`` by HMAC, or not at all."""
    header = _encoded(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    signed = header + b"." + token.split(".")[1].encode()
    signature = b"" if secret is None else hmac.new(secret, signed, hashlib.sha256).digest()
    return f"{signed.decode()}.{_encoded(signature).decode()}"


def _rsa_pair() -> tuple[str, str]:
    """Return a private and a public key as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


@unittest.skipIf(
    _MISSING, f"lab-orchestrator-lib-auth {_MISSING} is not there; scripts/integration installs it"
)
class OriginalTokensTest(ProxyTestCase):
    """What the proxy answers to them."""

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi(_VMI, self.namespace)
        self.api.add_vmi("other", self.namespace)
        self.proxy = self.start_proxy()

    def status(self, token: str, vmi: str = _VMI, proxy: WebsocketProxy | None = None) -> int:
        """Return the HTTP status that a client with a token gets."""
        with RawClient.open(self.url(proxy or self.proxy, vmi, token)) as client:
            return client.status

    def test_accepted(self) -> None:
        """A token opens the VMIs that it names in its namespace."""
        for version in _VERSIONS:
            with self.subTest(version=version):
                self.assertEqual(self.status(original_token(version)), 101)
                self.assertIn(f"/namespaces/{self.namespace}/", self.api.requests[-1].target)

    def test_additional_data(self) -> None:
        """The additional data and the time of expiry of version 2 change nothing."""
        params = {
            "lab_id": "a",
            "lab_instance_id": "b",
            "namespace_name": self.namespace,
            "allowed_vmi_names": [_VMI],
            "additional_data": {"course": ["x", 1]},
        }
        token = original_token("2.2.0", params=params, expires_at=4102444800)
        self.assertEqual(self.status(token), 101)

    def test_other_vmi(self) -> None:
        """A VMI that the token does not name is refused with 403, and the API is not asked."""
        for version in _VERSIONS:
            with self.subTest(version=version):
                self.assertEqual(self.status(original_token(version), "other"), 403)
        self.assertEqual(self.api.requests, [])

    def test_refused(self) -> None:
        """An expired token, another secret's, one without a signature and garbage get 401."""
        for version in _VERSIONS:
            good = original_token(version)
            for name, token in {
                "expired": original_token(version, expires_in=-60),
                "of another secret": original_token(version, secret=SECRET[::-1]),
                "alg none": _forged(good, "none", None),
                "alg none, signed": _forged(good, "none", SECRET.encode()),
                "cut": good[:-4],
                "garbage": "a.b.c",
            }.items():
                with self.subTest(version=version, token=name):
                    self.assertEqual(self.status(token), 401)
        self.assertEqual(self.api.requests, [])

    def test_public_key(self) -> None:
        """RS256 of version 2.2.0 verifies with the public key, and no HMAC with that key's text does."""
        private, public = _rsa_pair()
        proxy = self.start_proxy(secret_key=public, algorithms=("RS256",))
        good = original_token("2.2.0", secret=private, algorithm="RS256")
        self.assertEqual(self.status(good, proxy=proxy), 101)
        for secret in (public, public.strip()):
            self.assertEqual(self.status(_forged(good, "HS256", secret.encode()), proxy=proxy), 401)
        with self.assertRaisesRegex(ValueError, "PEM"):
            self.start_proxy(secret_key=public, algorithms=("HS256",))
