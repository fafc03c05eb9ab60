"""JWKs, whole and damaged, read by us, by PyJWT, old and new, and by joserfc.

What we take, all take, and as the same key. If we refuse what a judge takes, it is not spelt as RFC 7515 and
RFC 7518 say, or it is too short.
"""

from __future__ import annotations

import os
import unittest
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import JWKRegistry, OctKey
from jwt.algorithms import get_default_algorithms

from tests.support.issuer import SigningKey
from tests.support.jws import b64
from tests.support.old_pyjwt import DIRECTORY, OldPyJWT
from wsproxy.tokens import base64url
from wsproxy.tokens.keys import VerificationKey, key_of_jwk

from .profile import many

_SECRET = {"kty": "oct", "k": b64(bytes(range(1, 65)))}
_ALGORITHMS = ("HS256", "RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_JWKS = {
    name: dict(_SECRET) if name == "HS256" else SigningKey(name).jwk | {"use": "sig"} for name in _ALGORITHMS
}
_CHARACTERS = st.sampled_from("ABCabc019-_+/= \n.*\u00e9")


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return the name of an algorithm, and a JWK for it in which a member may be another."""
    name = draw(st.sampled_from(_ALGORITHMS))
    jwk = dict(_JWKS[name])
    member = draw(st.sampled_from([found for found in jwk if found in ("n", "e", "x", "y", "k", "crv")]))
    text: str = jwk[member]
    at = draw(st.integers(0, len(text)))
    how = draw(st.sampled_from(("whole", "changed", "longer", "shorter", "zeros", "padded", "other")))
    if how == "changed":
        jwk[member] = text[:at] + draw(_CHARACTERS) + text[at + 1 :]
    elif how == "longer":
        jwk[member] = text[:at] + draw(_CHARACTERS) + text[at:]
    elif how == "shorter":
        jwk[member] = text[:at] + text[at + draw(st.integers(1, 8)) :]
    elif how == "zeros":
        jwk[member] = (
            b64(bytes(draw(st.integers(1, 4))) + base64url.decode(text)) if member != "crv" else text
        )
    elif how == "padded":
        jwk[member] = text + "=" * draw(st.integers(1, 3))
    elif how == "other":
        jwk[member] = draw(st.one_of(st.none(), st.integers(), st.text("AB_-", max_size=90), st.booleans()))
    return name, jwk


@unittest.skipUnless(os.path.isdir(DIRECTORY), "PyJWT 2.1.0 is not there; scripts/property installs it")
class JWKJudgesTest(unittest.TestCase):
    old: OldPyJWT

    @classmethod
    def setUpClass(cls) -> None:
        cls.old = OldPyJWT()
        cls.addClassCleanup(cls.old.stop)

    def judges(self, name: str, jwk: Mapping[str, Any]) -> dict[str, bytes | None]:
        """Return as what key each of them takes a JWK."""
        return {
            "joserfc": _taken(lambda: _joserfc(jwk)),
            "PyJWT": _taken(lambda: _plain(get_default_algorithms()[name].from_jwk(dict(jwk)))),
            "PyJWT 2.1.0": _taken(lambda: self.old.public_key(dict(jwk), name)),
        }

    def test_whole(self) -> None:
        """A JWK as issuers have them is the same key to all."""
        for name, jwk in _JWKS.items():
            with self.subTest(name):
                key = _ours(name, jwk)
                assert key is not None
                self.assertEqual(set(self.judges(name, jwk).values()), {_plain(key.key)})

    @many
    @given(damaged())
    def test_damaged(self, case: tuple[str, dict[str, Any]]) -> None:
        """What we take of a damaged one, they take as the same key; what we refuse besides is no RFC's."""
        name, jwk = case
        ours, judges = _ours(name, jwk), self.judges(name, jwk)
        if ours is not None:
            self.assertEqual(set(judges.values()), {_plain(ours.key)}, judges)
        elif _is_well_spelt(jwk):
            self.assertEqual(judges["PyJWT"], None)


def _ours(name: str, jwk: Mapping[str, Any]) -> VerificationKey | None:
    try:
        return key_of_jwk(jwk, [name], symmetric=True)
    except ValueError:
        return None


def _taken(read: Callable[[], bytes]) -> bytes | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except Exception:  # noqa: BLE001 - each has errors of its own, and lets others through
        return None


def _joserfc(jwk: Mapping[str, Any]) -> bytes:
    key = JWKRegistry.import_key(dict(jwk))
    return _plain(key.raw_value if isinstance(key, OctKey) else key.public_key)


def _plain(key: Any) -> bytes:
    if isinstance(key, bytes):
        return key
    der: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def _is_well_spelt(jwk: Mapping[str, Any]) -> bool:
    """Whether it could be a key by RFC 7515 section 2, RFC 7518 section 6 and what must not be used."""
    for member in ("n", "e", "x", "y", "k"):
        if member not in jwk:
            continue
        try:
            raw = base64url.decode(jwk[member])
        except (ValueError, TypeError):
            return False
        if member == "k" and len(raw) < 32:
            return False
        if member == "n" and int.from_bytes(raw, "big").bit_length() < 2048:
            return False
    return True
