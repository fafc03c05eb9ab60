"""Makes and verifies signatures of JWS (RFC 7518 section 3, RFC 8037, RFC 9864). No I/O.

The type of a key decides which algorithms it serves, so that no key serves two families of algorithms.
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

__all__ = [
    "ALGORITHMS",
    "PUBLIC_KEY_ALGORITHMS",
    "PrivateKey",
    "PublicKey",
    "algorithms_of",
    "shortest_secret",
    "sign",
    "verifies",
]

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

_HASHES: dict[str, HashAlgorithm] = {"256": SHA256(), "384": SHA384(), "512": SHA512()}


def _pss(name: HashAlgorithm) -> PSS:
    """Return the padding of RFC 7518 section 3.5: the salt is as long as the hash."""
    return PSS(mgf=MGF1(name), salt_length=name.digest_size)


_HMAC = {f"HS{size}": (f"sha{size}", found.digest_size) for size, found in _HASHES.items()}
_RSA: dict[str, tuple[AsymmetricPadding, HashAlgorithm]] = {
    **{f"RS{size}": (PKCS1v15(), found) for size, found in _HASHES.items()},
    **{f"PS{size}": (_pss(found), found) for size, found in _HASHES.items()},
}
# By the name of the curve: its algorithm (RFC 7518 section 3.4), and the bytes of r and of s.
_ECDSA = {
    "secp256r1": ("ES256", 32, ECDSA(SHA256())),
    "secp384r1": ("ES384", 48, ECDSA(SHA384())),
    "secp521r1": ("ES512", 66, ECDSA(SHA512())),
}
_EDDSA = ("EdDSA", "Ed25519")  # RFC 8037 section 3.1, and its fully-specified name (RFC 9864 section 2.2)

PUBLIC_KEY_ALGORITHMS = frozenset({*_RSA, *(name for name, _, _ in _ECDSA.values()), *_EDDSA})
"""The names of the algorithms that use public keys."""

ALGORITHMS = (*_HMAC, *_RSA, *(name for name, _, _ in _ECDSA.values()), *_EDDSA)
"""The names of all algorithms. "none" (RFC 7518 section 3.6) is not supported."""


def algorithms_of(key: bytes | PublicKey | PrivateKey) -> tuple[str, ...]:
    """Return the names of the algorithms of a key, all of one family; empty for an unsupported curve."""
    if isinstance(key, bytes):
        return tuple(_HMAC)
    if isinstance(key, RSAPublicKey | RSAPrivateKey):
        return tuple(_RSA)
    if isinstance(key, EllipticCurvePublicKey | EllipticCurvePrivateKey):
        return (_ECDSA[key.curve.name][0],) if key.curve.name in _ECDSA else ()
    return _EDDSA


def shortest_secret(algorithm: str) -> int:
    """Return how many bytes the secret of an HMAC needs: as many as its hash (RFC 7518 section 3.2)."""
    return _HMAC[algorithm][1]


def verifies(algorithm: str, key: bytes | PublicKey, signed: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is the key's signature of ``signed``.

    :param algorithm: one of the key's algorithms.
    """
    if isinstance(key, bytes):
        return hmac.compare_digest(signature, sign(algorithm, key, signed))
    try:
        if isinstance(key, RSAPublicKey):
            if len(signature) != (key.key_size + 7) // 8:  # RFC 8017, 8.1.2; not every OpenSSL checks it
                return False
            key.verify(signature, signed, *_RSA[algorithm])
        elif isinstance(key, EllipticCurvePublicKey):
            _, size, scheme = _ECDSA[key.curve.name]
            if len(signature) != 2 * size:
                return False
            key.verify(_dss(signature, size), signed, scheme)
        else:
            key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def sign(algorithm: str, key: bytes | PrivateKey, signed: bytes) -> bytes:
    """Return the key's signature of ``signed``.

    :param algorithm: one of the key's algorithms.
    """
    if isinstance(key, bytes):
        return hmac.new(key, signed, _HMAC[algorithm][0]).digest()  # quicker than hmac.digest
    if isinstance(key, RSAPrivateKey):
        return key.sign(signed, *_RSA[algorithm])
    if isinstance(key, EllipticCurvePrivateKey):
        _, size, scheme = _ECDSA[key.curve.name]
        r, s = decode_dss_signature(key.sign(signed, scheme))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return key.sign(signed)


def _dss(signature: bytes, size: int) -> bytes:
    """Convert an ECDSA signature from JWS, which concatenates r and s, to ASN.1, which OpenSSL needs."""
    r, s = signature[:size], signature[size:]
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
