"""Valid tokens and forgeries of every known kind, judged by us, by PyJWT, old and new, and by joserfc.

All must agree, but for the choices listed here: in those we refuse what a judge takes, never the other way
round. Each takes the tokens that the others make.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import unittest
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from jwt.algorithms import get_default_algorithms

from tests.support.issuer import SigningKey, wall_clock
from tests.support.jws import b64, signed_token
from tests.support.old_pyjwt import DIRECTORY, OldPyJWT
from wsproxy.exceptions import BadToken
from wsproxy.tokens.issue import make_token
from wsproxy.tokens.keys import Keyring, load_keys
from wsproxy.tokens.verifier import TokenVerifier

_SECRET = b"a secret of at least sixty-four bytes, which is what HS512 asks for"
_ALGORITHMS = ("HS256", "RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
_MORE_ALGORITHMS = ("HS384", "HS512", "RS384", "RS512", "PS384", "PS512", "ES512")

STRICTER = {
    "crit, b64": "no extension is understood, not even one that changes nothing (RFC 7515 section 4.1.11)",
    "crit, empty": "an empty list is malformed (RFC 7515 section 4.1.11)",
    "enc": "a token that is half a JWE is meant for somebody else",
    "zip": "nothing is ever unpacked",
    "typ of a logout token": "a token for another purpose is no access token (RFC 8725 section 3.11)",
    "typ a number": "a type is a string",
    "alg twice": "two readers could take a different one of them (RFC 8725 section 2.4)",
    "id twice": "the same",
    "header in UTF-16": "JSON is UTF-8 (RFC 8259 section 8.1)",
    "claims in UTF-16": "the same",
    "claims with a byte order mark": "the same",
    "exp in milliseconds": "it would be valid for fifty thousand years",
    "exp beyond every float": "no session can be timed by it",
    "no exp": "a token that never ends has to be allowed by the operator",
    "aud": "whoever is not named by a token must refuse it (RFC 7519 section 4.1.3)",
    "aud, empty": "the same",
    "padding, in part 0": "there is one spelling of a token and no other (RFC 7515 section 2)",
    "padding, in part 1": "the same",
    "padding, in the signature": "the same",
}
"""What we refuse although a judge takes it, and why."""

OLD_IS_LAX = {
    "crit, known to nobody": "it did not look at critical headers (CVE-2026-32597)",
    "b64 without crit": "it did not know RFC 7797",
    "kid null": "it did not look at the type of a kid",
    "kid a number": "the same",
    "kid a list": "the same",
    "iat to come": "it did not look at it",
    "jti a number": "it did not look at the type of a jti",
    "jti null": "the same",
    "loose bits, in part 0": "it took every spelling of base64",
    "loose bits, in part 1": "the same",
    "loose bits, in the signature": "the same",
    "a line break, in the signature": "the same",
    "foreign characters, in the signature": "the same",
}
"""What PyJWT 2.1.0 takes, and neither we nor the new one."""


class Signer(NamedTuple):
    """A key, for us, for both judges, and for whoever signs."""

    algorithm: str
    private: Any
    text: bytes  # for us and for PyJWT
    joserfc: Any

    def sign(self, signed: bytes, algorithm: str | None = None) -> bytes:
        name = (algorithm or self.algorithm).replace("Ed25519", "EdDSA")  # which PyJWT does not know yet
        signature: bytes = get_default_algorithms()[name].sign(signed, self.private)
        return signature

    def token(self, header: bytes | dict[str, Any], payload: bytes | dict[str, Any]) -> str:
        """Return a token of any header and payload, rightly signed."""
        parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
        return self.token_of_parts(*map(b64, parts))

    def token_of_parts(self, header: str, payload: str) -> str:
        """Return a token of parts that are encoded already, rightly signed."""
        signed = f"{header}.{payload}"
        return f"{signed}.{b64(self.sign(signed.encode()))}"


class Case(NamedTuple):
    name: str
    token: str


def signers(algorithms: Sequence[str]) -> list[Signer]:
    """Return a signer for each of these algorithms."""
    kinds: dict[str, Any] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}
    made = []
    for algorithm in algorithms:
        if algorithm.startswith("HS"):
            made.append(Signer(algorithm, _SECRET, _SECRET, OctKey.import_key(_SECRET)))
        else:
            key = SigningKey(algorithm)
            judges = kinds[algorithm[:2]].import_key(key.pem)
            made.append(Signer(algorithm, key.private, key.pem, judges))
    return made


def claims(**changes: Any) -> dict[str, Any]:
    lab = {"namespace_name": "lab-1", "allowed_vmi_names": ["vm"]}
    return {"id": 5, "exp": wall_clock() + 600, "lab_instance": lab} | changes


def good_cases(signer: Signer) -> Iterator[Case]:
    """Yield tokens that everybody must take."""
    now, header = wall_clock(), {"alg": signer.algorithm}
    for name, more, changes in (
        ("plain", {}, {}),
        ("typ", {"typ": "JWT"}, {}),
        ("kid", {"kid": "a"}, {}),
        ("strange kid", {"kid": "../../dev/null"}, {}),
        ("whole exp", {}, {"exp": int(now) + 600}),
        ("nbf and iat", {}, {"nbf": now - 5, "iat": int(now) - 5}),
        ("jti, iss and sub", {}, {"jti": "a", "iss": "https://a.example", "sub": "eve"}),
        ("further claims", {}, {"a": {"b": [1, None, "\u00e9\u4e16"]}}),
    ):
        yield Case(name, signer.token(header | more, claims(**changes)))


def forged_cases(signer: Signer, public: bytes) -> Iterator[Case]:
    """Yield tokens that nobody must take, or that not everybody takes, all but the first ones rightly signed.

    :param public: a public key as text, which is known to everybody.
    """
    yield from unsigned_cases(signer, public)
    yield from header_cases(signer)
    yield from claims_cases(signer)
    yield from spelling_cases(signer)


def unsigned_cases(signer: Signer, public: bytes) -> Iterator[Case]:
    """Yield tokens without a right signature."""
    header, payload = {"alg": signer.algorithm}, claims()
    good = signer.token(header, payload)
    first, second, third = good.split(".")
    for name in ("none", "None", "NONE"):
        nothing = b64(json.dumps({"alg": name}).encode())
        yield Case("alg none", f"{nothing}.{second}.")
        yield Case("alg none, with a signature", f"{nothing}.{second}.{third}")
    yield Case("no signature", f"{first}.{second}.")
    yield Case("signature of other claims", f"{first}.{b64(json.dumps(claims(id=6)).encode())}.{third}")
    yield Case("signature cut", f"{first}.{second}.{third[:-4]}")
    yield Case("signature with more behind", f"{first}.{second}.{third}AAAA")
    yield Case("zeros as a signature", f"{first}.{second}.{b64(bytes(len(third) * 3 // 4))}")
    yield Case("two parts", f"{first}.{second}")
    yield Case("four parts", f"{good}.{third}")
    for secret in (public, public.strip(), b"", b"secret"):
        for algorithm in {"HS256", signer.algorithm}:
            start = f"{b64(json.dumps({'alg': algorithm}).encode())}.{second}"
            mac = hmac.new(secret, start.encode(), hashlib.sha256).digest()
            yield Case("HMAC with what is known to everybody", f"{start}.{b64(mac)}")
    if not signer.algorithm.startswith("HS"):
        other = SigningKey(signer.algorithm)
        yield Case("another key", other.token())
        jwk = {"jwk": other.jwk, "jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/"}
        yield Case(
            "a key of its own in the header", signed_token(payload, other.private, signer.algorithm, jwk)
        )
    if signer.algorithm == "RS256":
        for algorithm in ("RS384", "RS512", "PS256"):
            start = f"{b64(json.dumps({'alg': algorithm}).encode())}.{second}"
            signature = b64(signer.sign(start.encode(), algorithm))
            yield Case("another algorithm of the same key", f"{start}.{signature}")


def header_cases(signer: Signer) -> Iterator[Case]:
    """Yield tokens with something wrong, or odd, in the header."""
    header = {"alg": signer.algorithm}
    for name, more in (
        ("alg of another type", {"alg": [signer.algorithm]}),
        ("alg in another spelling", {"alg": signer.algorithm.lower()}),
        ("alg null", {"alg": None}),
        ("crit, known to nobody", {"crit": ["x"], "x": 1}),
        ("crit, b64", {"crit": ["b64"], "b64": True}),
        ("crit, empty", {"crit": []}),
        ("b64 without crit", {"b64": False}),
        ("enc", {"enc": "A256GCM"}),
        ("zip", {"zip": "DEF"}),
        ("kid null", {"kid": None}),
        ("kid a number", {"kid": 5}),
        ("kid a list", {"kid": ["a"]}),
        ("typ of a logout token", {"typ": "logout+jwt"}),
        ("typ a number", {"typ": 5}),
        ("embedded keys that nobody needs", {"jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/"}),
    ):
        yield Case(name, signer.token(header | more, claims()))
    yield Case("no alg", signer.token({"typ": "JWT"}, claims()))
    yield Case("a header that is no object", signer.token(b"[]", claims()))
    yield Case("a header that is no JSON", signer.token(b"{", claims()))
    doubled = json.dumps(header).encode()[:-1] + b', "alg": ' + json.dumps(signer.algorithm).encode() + b"}"
    yield Case("alg twice", signer.token(doubled, claims()))
    yield Case("header in UTF-16", signer.token(json.dumps(header).encode("utf-16"), claims()))
    yield Case("JWE", f"{b64(b'{}')}..{b64(b'x' * 12)}.{b64(b'y' * 16)}.{b64(b'z' * 16)}")


def claims_cases(signer: Signer) -> Iterator[Case]:
    """Yield tokens with something wrong, or odd, in the claims."""
    now, header = wall_clock(), {"alg": signer.algorithm}
    for name, changes in (
        ("expired", {"exp": now - 60}),
        ("expired long ago", {"exp": 0}),
        ("exp null", {"exp": None}),
        ("exp a string", {"exp": str(now + 600)}),
        ("exp a list", {"exp": [now + 600]}),
        ("exp true", {"exp": True}),
        ("exp in milliseconds", {"exp": now * 1000}),
        ("exp beyond every float", {"exp": 10**400}),
        ("nbf to come", {"nbf": now + 60}),
        ("nbf a string", {"nbf": "x"}),
        ("nbf null", {"nbf": None}),
        ("iat to come", {"iat": now + 60}),
        ("iat a string", {"iat": "x"}),
        ("aud", {"aud": "consoles"}),
        ("aud, empty", {"aud": []}),
        ("jti a number", {"jti": 5}),
        ("jti null", {"jti": None}),
    ):
        yield Case(name, signer.token(header, claims(**changes)))
    good = json.dumps(claims()).encode()
    payload = claims()
    del payload["exp"]
    yield Case("no exp", signer.token(header, payload))
    for name, raw in (
        ("exp NaN", good.replace(b'"exp": ', b'"exp": NaN, "x": ')),
        ("exp Infinity", good.replace(b'"exp": ', b'"exp": Infinity, "x": ')),
        ("exp 1e999", good.replace(b'"exp": ', b'"exp": 1e999, "x": ')),
        ("id twice", good.replace(b'"id": 5', b'"id": 6, "id": 5')),
        ("claims in UTF-16", json.dumps(claims()).encode("utf-16")),
        ("claims with a byte order mark", b"\xef\xbb\xbf" + good),
        ("claims that are no UTF-8", good[:-1] + b', "x": "\xff"}'),
        ("claims that are a list", b"[" + good + b"]"),
        ("claims that are a string", b'"x"'),
        ("claims that are no JSON", good[:-1]),
        ("claims with more behind", good + b"{}"),
        ("no claims", b""),
    ):
        yield Case(name, signer.token(header, raw))


def spelling_cases(signer: Signer) -> Iterator[Case]:
    """Yield tokens in another spelling than an encoder's, the first ones signed as they are spelt."""
    header, payload = (json.dumps(part).encode() for part in ({"alg": signer.algorithm}, claims()))
    first, second = b64(header + b" " * (-len(header) % 3 + 1)), b64(payload + b" " * (-len(payload) % 3 + 1))
    for number, part in enumerate((first, second)):
        for name, other in (
            ("padding", part + "=="),
            ("loose bits", part[:-1] + chr(ord(part[-1]) + 1)),
            ("a line break", part[:4] + "\n" + part[4:]),
            ("foreign characters", part[:4] + "!*" + part[4:]),
        ):
            parts = (other, second) if number == 0 else (first, other)
            yield Case(f"{name}, in part {number}", signer.token_of_parts(*parts))
    start, _, signature = signer.token(header, payload).rpartition(".")
    loose = {"A": "B", "Q": "R", "g": "h", "w": "x"}
    for name, other in (
        ("padding", signature + "=" * (-len(signature) % 4 or 4)),
        ("loose bits", signature[:-1] + loose.get(signature[-1], chr(ord(signature[-1]) ^ 1))),
        ("a line break", signature[:4] + "\n" + signature[4:]),
        ("foreign characters", signature[:4] + "!*" + signature[4:]),
    ):
        yield Case(f"{name}, in the signature", f"{start}.{other}")
    yield Case("white space around", f" {start}.{signature}\n")


@unittest.skipUnless(os.path.isdir(DIRECTORY), "PyJWT 2.1.0 is not there; scripts/property installs it")
class JudgesCase(unittest.TestCase):
    """We, and the judges: of a name that is as new as Ed25519 PyJWT is no judge."""

    old: OldPyJWT

    @classmethod
    def setUpClass(cls) -> None:
        cls.old = OldPyJWT()
        cls.addClassCleanup(cls.old.stop)

    def we(self, signer: Signer, token: str) -> bool:
        verifier = TokenVerifier(Keyring(load_keys(signer.text, [signer.algorithm])))
        return _takes(lambda: verifier.verify(token), BadToken)

    def judges(self, signer: Signer, token: str) -> dict[str, bool]:
        """Return which of them takes a token."""
        found = {"joserfc": _takes(lambda: _ask_joserfc(token, signer), Exception)}
        if signer.algorithm != "Ed25519":
            found["PyJWT"] = _takes(lambda: jwt.decode(token, signer.text, [signer.algorithm]), Exception)
        return found

    def old_judge(self, signer: Signer, token: str) -> bool:
        return _takes(lambda: self.old.claims(token, signer.text.decode(), signer.algorithm), ValueError)


class JudgesTest(JudgesCase):
    """Every token, with a key of every kind."""

    def test_good_tokens(self) -> None:
        """A good token is taken by all."""
        for signer in signers(_ALGORITHMS + _MORE_ALGORITHMS):
            for case in good_cases(signer):
                with self.subTest(algorithm=signer.algorithm, case=case.name):
                    self.assertTrue(self.we(signer, case.token))
                    self.assertEqual(set(self.judges(signer, case.token).values()), {True})
                    self.assertIs(self.old_judge(signer, case.token), signer.algorithm != "Ed25519")

    def test_forged_tokens(self) -> None:
        """What a judge refuses is refused here; what is refused in addition is a choice with a reason."""
        made = signers(_ALGORITHMS)
        seen: set[str] = set()
        lax: set[str] = set()
        number = 0
        for signer in made:
            for case in forged_cases(signer, made[1].text):
                number += 1
                ours, judges = self.we(signer, case.token), self.judges(signer, case.token)
                with self.subTest(algorithm=signer.algorithm, case=case.name, judges=judges):
                    if case.name in STRICTER:
                        seen.add(case.name)
                        self.assertFalse(ours)
                    else:
                        self.assertEqual(set(judges.values()), {ours})
                        if signer.algorithm != "Ed25519" and self.old_judge(signer, case.token) is not ours:
                            lax.add(case.name)
                            self.assertFalse(ours)
        self.assertEqual(seen, set(STRICTER))
        self.assertEqual(lax, set(OLD_IS_LAX))
        self.assertGreater(number, 250)


class TokensOfEachOtherTest(JudgesCase):
    """What one makes, all take."""

    def makers(self, signer: Signer) -> Iterator[tuple[str, str]]:
        """Yield who makes a token, and it."""
        text = signer.text if isinstance(signer.private, bytes) else _private_pem(signer.private)
        more = claims()
        yield "we", make_token(text, namespace="lab-1", vmis=["vm"], algorithm=signer.algorithm)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as below; and PyJWT minds a short secret
            key = type(signer.joserfc).import_key(text)
            header = {"alg": signer.algorithm}
            yield "joserfc", joserfc_jwt.encode(header, more, key, [signer.algorithm])
            if signer.algorithm != "Ed25519":
                yield "PyJWT", jwt.encode(more, text, signer.algorithm)
                yield "PyJWT 2.1.0", self.old.token(more, text.decode(), signer.algorithm)

    def test_tokens(self) -> None:
        """Whoever makes a token, with a key of any kind: we take it, and so do all the others."""
        for signer in signers(_ALGORITHMS + _MORE_ALGORITHMS):
            for maker, token in self.makers(signer):
                with self.subTest(algorithm=signer.algorithm, maker=maker):
                    self.assertTrue(self.we(signer, token))
                    self.assertEqual(set(self.judges(signer, token).values()), {True})
                    self.assertIs(self.old_judge(signer, token), signer.algorithm != "Ed25519")


def _private_pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def _takes(verify: Callable[[], object], refusal: type[Exception]) -> bool:
    try:
        verify()
    except refusal:
        return False
    return True


def _ask_joserfc(token: str, signer: Signer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not like the name EdDSA
        found = joserfc_jwt.decode(token, signer.joserfc, [signer.algorithm])
    joserfc_jwt.JWTClaimsRegistry().validate(found.claims)
