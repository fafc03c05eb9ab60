"""Reads keys from PEM, JWK (RFC 7517) and DER. No I/O.

The readers are strict, and no error text quotes the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from . import base64url
from .algorithms import PrivateKey, PublicKey

__all__ = [
    "PRIVATE_MEMBERS",
    "kind_of_der",
    "private_key_of_pem",
    "public_key_of_jwk",
    "public_key_of_pem",
    "rsa_bits",
    "secret_of_jwk",
]

PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
"""Members of a JWK that reveal a private key (RFC 7518 section 6, RFC 8037 section 2)."""

# By the name of the curve (RFC 7518 section 6.2.1.1): its class, and the bytes of each coordinate.
_CURVES: dict[str, tuple[Callable[[], EllipticCurve], int]] = {
    "P-256": (SECP256R1, 32),
    "P-384": (SECP384R1, 48),
    "P-521": (SECP521R1, 66),
}
_POINTS = {1 + 2 * size: curve for curve, size in _CURVES.values()}
# Valid curves of unsupported algorithms (RFC 8812, RFC 8037).
_FOREIGN_CURVES = frozenset({"secp256k1", "Ed448", "X25519", "X448"})


def public_key_of_pem(block: bytes) -> PublicKey:
    """Return the public key in one block of PEM.

    :raises ValueError: if it is not a public key, or no supported algorithm uses its type. The text begins
        with a noun.
    """
    try:
        key = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):  # not chained, because its text may quote the key
        raise ValueError("PEM that is not a public key") from None
    if not isinstance(key, PublicKey):
        raise ValueError("a public key of a type that no supported algorithm uses")
    return key


def private_key_of_pem(text: bytes) -> PrivateKey:
    """Return the private key in PEM, which must not be encrypted.

    :raises ValueError: as :func:`public_key_of_pem`.
    """
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # not chained, because its text may quote the key
        raise ValueError("PEM that is not a private key, or is encrypted") from None
    if not isinstance(key, PrivateKey):
        raise ValueError("a private key of a type that no supported algorithm uses")
    return key


def public_key_of_jwk(jwk: Mapping[str, Any]) -> PublicKey | None:
    """Return the key in a JWK of the type RSA, EC or OKP; None if no supported algorithm uses its curve.

    :raises ValueError: if it is malformed.
    """
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if kind == "RSA":
        e, n = _number(jwk, "e"), _number(jwk, "n")
        return RSAPublicNumbers(e, n).public_key()
    if isinstance(curve, str) and curve in _FOREIGN_CURVES:
        return None
    if kind == "EC" and isinstance(curve, str) and curve in _CURVES:
        make, size = _CURVES[curve]
        x, y = _number(jwk, "x", size), _number(jwk, "y", size)
        return EllipticCurvePublicNumbers(x, y, make()).public_key()
    if kind == "OKP" and curve == "Ed25519":
        return Ed25519PublicKey.from_public_bytes(_octets(jwk, "x", 32))
    raise ValueError("its curve is unknown")


def secret_of_jwk(jwk: Mapping[str, Any]) -> bytes:
    """Return the secret in a JWK of the type oct (RFC 7518 section 6.4).

    :raises ValueError: if it is malformed.
    """
    return _octets(jwk, "k")


def rsa_bits(key: bytes | PublicKey) -> int | None:
    """Return the size of an RSA key in bits; None for other keys."""
    return key.key_size if isinstance(key, RSAPublicKey) else None


def _octets(jwk: Mapping[str, Any], name: str, size: int | None = None) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str):
        raise ValueError(f"its {name} is not a string")
    raw = base64url.decode(text)
    if size is not None and len(raw) != size:
        raise ValueError(f"its {name} must have {size} bytes")
    return raw


def _number(jwk: Mapping[str, Any], name: str, size: int | None = None) -> int:
    """Return a big-endian number of ``size`` bytes; None permits any size, with leading zeros, too."""
    return int.from_bytes(_octets(jwk, name, size), "big")


def kind_of_der(raw: bytes) -> str | None:
    """Return a noun for a key or a certificate in DER, or for the bare point of an EC key; else None."""
    from cryptography import x509  # slow to import, and rarely needed

    loaders: tuple[tuple[Callable[[bytes], object], str], ...] = (
        (load_der_public_key, "a public key"),
        (x509.load_der_x509_certificate, "a certificate"),
        (x509.load_der_x509_csr, "a certificate request"),
        (lambda data: load_der_private_key(data, password=None), "a private key"),
        (_load_point, "a public key"),
    )
    for load, kind in loaders:
        if _is_loaded(load, raw):
            return kind
    return None


def _is_loaded(load: Callable[[bytes], object], raw: bytes) -> bool:
    try:
        load(raw)
    except ValueError:
        return False
    except (TypeError, UnsupportedAlgorithm):
        return True  # an encrypted key, or a key of an unknown type
    return True


def _load_point(raw: bytes) -> EllipticCurvePublicKey:
    """Return the key for an uncompressed point (SEC 1 section 2.3.3). Few other bytes form a valid point."""
    curve = _POINTS.get(len(raw))
    if curve is None or not raw.startswith(b"\4"):
        raise ValueError("it is not a point")
    return EllipticCurvePublicKey.from_encoded_point(curve(), raw)
