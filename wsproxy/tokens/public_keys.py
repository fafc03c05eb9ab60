"""Keys in each of their forms: PEM, JWK (RFC 7517) and DER. No I/O.

Whatever is not just so is refused, with a text that quotes nothing of it.
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
"""Members of a JWK that give a private key away (RFC 7518 section 6, RFC 8037 section 2)."""

# RFC 7518 section 6.2.1.1, and the bytes of each coordinate.
_CURVES: dict[str, tuple[Callable[[], EllipticCurve], int]] = {
    "P-256": (SECP256R1, 32),
    "P-384": (SECP384R1, 48),
    "P-521": (SECP521R1, 66),
}
_POINTS = {1 + 2 * size: curve for curve, size in _CURVES.values()}
# Curves of other algorithms (RFC 8812, RFC 8037), which are no mistake.
_FOREIGN_CURVES = frozenset({"secp256k1", "Ed448", "X25519", "X448"})


def public_key_of_pem(block: bytes) -> PublicKey:
    """Return the key in one block of PEM.

    :raises ValueError: if it is none, or of a kind that no algorithm is for; the text begins with a noun.
    """
    try:
        key = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):  # its text may quote the key: not chained
        raise ValueError("PEM that is no public key") from None
    if not isinstance(key, PublicKey):
        raise ValueError("a public key of a kind that no algorithm here is for")
    return key


def private_key_of_pem(text: bytes) -> PrivateKey:
    """Return the private key in PEM, which must not be encrypted.

    :raises ValueError: as :func:`public_key_of_pem`.
    """
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # its text may quote the key: not chained
        raise ValueError("PEM that is no private key, or an encrypted one") from None
    if not isinstance(key, PrivateKey):
        raise ValueError("a private key of a kind that no algorithm here is for")
    return key


def public_key_of_jwk(jwk: Mapping[str, Any]) -> PublicKey | None:
    """Return the key in a JWK of the kind RSA, EC or OKP; None if its curve is for other algorithms.

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
    raise ValueError("it is on no known curve")


def secret_of_jwk(jwk: Mapping[str, Any]) -> bytes:
    """Return the secret in a JWK of the kind oct (RFC 7518 section 6.4).

    :raises ValueError: if it is malformed.
    """
    return _octets(jwk, "k")


def rsa_bits(key: bytes | PublicKey) -> int | None:
    """Return how long an RSA key is, None if it is another."""
    return key.key_size if isinstance(key, RSAPublicKey) else None


def _octets(jwk: Mapping[str, Any], name: str, size: int | None = None) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str):
        raise ValueError(f"its {name} is no string")
    raw = base64url.decode(text)
    if size is not None and len(raw) != size:
        raise ValueError(f"its {name} must have {size} bytes")
    return raw


def _number(jwk: Mapping[str, Any], name: str, size: int | None = None) -> int:
    """Return a big-endian number, of just so many bytes; zeros before one of any size change nothing."""
    return int.from_bytes(_octets(jwk, name, size), "big")


def kind_of_der(raw: bytes) -> str | None:
    """Return what a key or certificate in DER is, or the bare point of an EC key; None for anything else."""
    from cryptography import x509  # slow to import, and hardly ever needed

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
        return True  # an encrypted key, or one of an unknown kind
    return True


def _load_point(raw: bytes) -> EllipticCurvePublicKey:
    """Return the key that an uncompressed point is (SEC 1 section 2.3.3); hardly any other bytes are one."""
    curve = _POINTS.get(len(raw))
    if curve is None or not raw.startswith(b"\4"):
        raise ValueError("it is no point")
    return EllipticCurvePublicKey.from_encoded_point(curve(), raw)
