"""Tokens and JWKs of any kind, made by plain means: what tests judge the proxy's own code by."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

__all__ = ["b64", "public_jwk", "raw_signature", "signed_token", "unverified_claims"]

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed_token(
    claims: dict[str, Any], key: Any, algorithm: str = "HS256", headers: dict[str, Any] | None = None
) -> str:
    """Return a JWT with any claims.

    :param key: a secret, a private key, or one as PEM.
    :param headers: more of them.
    """
    header = {"alg": algorithm, "typ": "JWT"} | (headers or {})
    text = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
    return f"{text}.{b64(raw_signature(algorithm, key, text.encode()))}"


def raw_signature(algorithm: str, key: Any, signed: bytes) -> bytes:
    """Return a JWS signature (RFC 7518 section 3, RFC 8037)."""
    if isinstance(key, str):
        key = key.encode()
    if algorithm.startswith("HS"):
        return hmac.digest(key, signed, getattr(hashlib, f"sha{algorithm[2:]}"))
    private: Any = load_pem_private_key(key, None) if isinstance(key, bytes) else key
    made: bytes
    if isinstance(private, ed25519.Ed25519PrivateKey):
        made = private.sign(signed)
        return made
    digest = _HASHES[algorithm[2:]]
    if isinstance(private, rsa.RSAPrivateKey):
        salted = padding.PSS(padding.MGF1(digest), digest.digest_size)
        made = private.sign(signed, salted if algorithm.startswith("PS") else padding.PKCS1v15(), digest)
        return made
    size = (private.curve.key_size + 7) // 8
    r, s = utils.decode_dss_signature(private.sign(signed, ec.ECDSA(digest)))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def unverified_claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def public_jwk(key: Any) -> dict[str, str]:
    """Return a public key as a JWK, with nothing but the key."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}
    numbers = key.public_numbers()
    if isinstance(key, rsa.RSAPublicKey):
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    size = (key.curve.key_size + 7) // 8
    point = {"x": _number(numbers.x, size), "y": _number(numbers.y, size)}
    return {"kty": "EC", "crv": _CURVES[key.curve.name]} | point


def _number(value: int, size: int = 0) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))
