"""Target: JWK Sets, and the keys that come out of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from typing import Any

from wsproxy.exceptions import BadToken
from wsproxy.tokens.algorithms import PUBLIC_KEY_ALGORITHMS
from wsproxy.tokens.jwks import parse_jwks
from wsproxy.tokens.keys import Keyring, VerificationKey
from wsproxy.tokens.verifier import TokenVerifier

from .texts import assert_own_text

__all__ = ["check"]

_CHOICES: tuple[tuple[str, ...] | None, ...] = (
    None,
    ("RS256", "ES256", "EdDSA"),
    ("HS256", "HS512"),
    ("PS512", "ES384", "ES512", "HS384"),
)
_HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
_SIGNED = b"e30.e30"
_SIGNATURES = (b"", b"\0" * 64, b"\1" * 96, b"\0" * 132, b"\xff" * 256, b"\1" * 2049)
_MOST_KEYS = 100
_LEAST_SECRET = 16  # characters that are nobody's word
_PRIVATE = ("k", "d", "p", "q", "n", "x", "y")


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def check(data: bytes) -> None:
    """Read the set in ``data``; its first byte says which algorithms there may be, and whether secrets."""
    choice, raw = (data or b"\0")[0], data[1:]
    symmetric, algorithms = bool(choice & 1), _CHOICES[choice >> 1 & 3]
    lines: list[str] = []
    keys = _keys(raw, algorithms, symmetric, lines)
    if keys is None:
        return
    jwks: list[dict[str, Any]] = json.loads(raw)["keys"]
    _check_lines(lines, jwks)
    assert len(keys) <= len(jwks) <= _MOST_KEYS, "more keys than there is room for"
    one_by_one = [_keys(json.dumps({"keys": [jwk]}).encode(), algorithms, symmetric, []) for jwk in jwks]
    each = [(key, jwk) for found, jwk in zip(one_by_one, jwks, strict=True) for key in found or ()]
    assert [_facts(key) for key, _ in each] == [_facts(key) for key in keys], "a key depends on others"
    for key, jwk in each:
        _check_key(key, jwk, algorithms, symmetric)
    _check_verifier(keys)


def _keys(
    raw: bytes, algorithms: tuple[str, ...] | None, symmetric: bool, lines: list[str]
) -> tuple[VerificationKey, ...] | None:
    kept, loggers = _Kept(), [logging.getLogger(f"wsproxy.{name}") for name in ("jwks", "keys")]
    for logger in loggers:
        logger.addHandler(kept)
        logger.propagate = False
    try:
        keys = parse_jwks(raw, algorithms, symmetric=symmetric)
    except ValueError as wrong:  # anything else is a finding
        if symmetric and str(wrong).startswith("the key "):  # of a secret, which is named by its kid
            _check_lines([str(wrong)], json.loads(raw)["keys"])
        else:
            assert_own_text(wrong)
        return None
    finally:
        for logger in loggers:
            logger.removeHandler(kept)
            logger.propagate = True
    lines += kept.lines
    return keys


def _facts(key: VerificationKey) -> tuple[object, ...]:
    return key.kid, key.algorithms, type(key.key), key.key if isinstance(key.key, bytes) else None


def _check_lines(lines: list[str], jwks: list[dict[str, Any]]) -> None:
    """The log says no more of a key than its name, and not much of that."""
    names = [repr(jwk.get("kid")) for jwk in jwks]
    secrets = {jwk.get(name) for jwk in jwks for name in _PRIVATE if isinstance(jwk.get(name), str)}
    for line in lines:
        assert len(line) < 800 or any(name in line for name in names if len(name) > 200), "a long line"
        for secret in secrets:
            assert isinstance(secret, str)
            if len(secret) >= _LEAST_SECRET and not any(secret in name for name in names):
                assert secret not in line, "the log has a part of a key"


def _check_key(
    key: VerificationKey, jwk: dict[str, Any], algorithms: tuple[str, ...] | None, symmetric: bool
) -> None:
    assert key.kid is None or (type(key.kid) is str and key.kid == jwk["kid"]), "another name"
    assert key.algorithms and (algorithms is None or set(key.algorithms) <= set(algorithms))
    assert "alg" not in jwk or jwk["alg"] is None or set(key.algorithms) == {jwk["alg"]}
    assert jwk.get("use", "sig") == "sig" and "verify" in (jwk.get("key_ops") or ["verify"])
    if isinstance(key.key, bytes):
        assert symmetric and jwk["kty"] == "oct" and set(key.algorithms) <= set(_HASHES), "a public secret"
        assert key.key, "an empty secret"
        for algorithm in key.algorithms:
            right = hmac.digest(key.key, _SIGNED, _HASHES[algorithm])
            assert key.verifies(algorithm, _SIGNED, right)
    else:
        assert jwk["kty"] != "oct" and "d" not in jwk and set(key.algorithms) <= PUBLIC_KEY_ALGORITHMS
        assert getattr(key.key, "key_size", 2048) >= (2048 if jwk["kty"] == "RSA" else 0)
    for algorithm in (*PUBLIC_KEY_ALGORITHMS, *_HASHES, "none", ""):
        for signature in _SIGNATURES:
            assert not key.verifies(algorithm, _SIGNED, signature), "anything is a signature"


def _check_verifier(keys: tuple[VerificationKey, ...]) -> None:
    """Whoever has no key is refused, and with nothing but a refusal."""
    ring = Keyring(keys)
    verifier = TokenVerifier(ring)
    for key in keys[:5]:
        assert key.kid is None or ring.has(key.kid)
        for algorithm in key.algorithms:
            header = {"alg": algorithm} | ({"kid": key.kid} if key.kid is not None else {})
            encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
            try:
                verifier.verify(f"{encoded}.e30.{'A' * 86}")
            except BadToken as refused:
                assert_own_text(refused)
            else:
                raise AssertionError("a token without a signature was accepted")
