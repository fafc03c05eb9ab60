"""The keys that tokens are verified with, however they are given: as a secret, as PEM, or as a JWK.

The algorithms follow from the key and the configuration, never from the token (RFC 8725 section 3.1). A key
serves one family of them, so that a public key never verifies an HMAC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import (
    ECAlgorithm,
    HMACAlgorithm,
    OKPAlgorithm,
    RSAAlgorithm,
    get_default_algorithms,
)
from jwt.exceptions import InvalidKeyError

from ..exceptions import ConfigError
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger

__all__ = [
    "PUBLIC_KEY_ALGORITHMS",
    "KeySource",
    "Keyring",
    "VerificationKey",
    "check_algorithms",
    "key_of_jwk",
    "load_keyring",
    "load_keys",
]

logger = get_logger("wsproxy.keys")

_HMAC = ("HS256", "HS384", "HS512")
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_EDDSA = ("EdDSA",)
PUBLIC_KEY_ALGORITHMS = frozenset({*_RSA, *_CURVES.values(), *_EDDSA})
"""The JWS algorithms (RFC 7518 section 3.1, RFC 8037) that public keys are for."""

_ALGORITHMS = {
    name: algorithm
    for name, algorithm in get_default_algorithms().items()
    if name in _HMAC or name in PUBLIC_KEY_ALGORITHMS
}
_FROM_JWK: dict[str, Callable[[dict[str, Any]], object]] = {
    "oct": HMACAlgorithm.from_jwk,
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}
_SHORT_SECRET = 32  # RFC 7518 section 3.2: as long as the hash output, 256 bits for HS256
_SHORT_RSA = 2048  # RFC 7518 section 3.3
_PEM_BEGIN = b"-----BEGIN"
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, eq=False)
class VerificationKey:
    """A key together with the algorithms that it may be used for. Two keys are equal only if they are one.

    :ivar key: an HMAC secret or a public key.
    :ivar algorithms: JWS algorithm names, all of one family.
    :ivar kid: the key's name (RFC 7517 section 4.5), None for one that serves tokens with any.
    """

    key: bytes | PublicKey = field(repr=False)
    algorithms: tuple[str, ...]
    kid: str | None = None

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``signed``, by an algorithm that it is for.

        What PyJWT does for each token besides this, judging the key, was done when the key was loaded.
        """
        return algorithm in self.algorithms and _ALGORITHMS[algorithm].verify(signed, self.key, signature)


def check_algorithms(algorithms: Sequence[str]) -> None:
    """Check a choice of algorithms.

    :raises ConfigError: if it is empty, or names one that is not known here; "none" is not.
    """
    if not algorithms or not set(algorithms) <= set(_ALGORITHMS):
        known = ", ".join(_ALGORITHMS)
        raise ConfigError([f"algorithms is {list(algorithms)!r}; choose from {known}"])


def load_keys(
    text: str | bytes, algorithms: Sequence[str] | None = None, source: str = "SECRET_KEY"
) -> tuple[VerificationKey, ...]:
    """Make keys of an HMAC secret, or of one or several PEM public keys.

    A secret below 32 bytes is taken, as the original did, with a warning in the log.

    :param algorithms: what the keys may be used for at most; None for HS256, and for all that a public key
        is for.
    :param source: where it comes from, for messages.
    :raises ConfigError: if it is empty, or key and algorithms do not belong together.
    """
    try:
        raw = text.encode() if isinstance(text, str) else bytes(text)
    except UnicodeEncodeError:  # holds the secret: not chained
        raise ConfigError([f"{source} is not UTF-8 text"]) from None
    if not raw.strip():
        raise ConfigError([f"{source} is empty; give the secret that the tokens are signed with"])
    if _PEM_BEGIN not in raw:
        return (_key(_secret(raw, source), algorithms, source),)
    blocks = list(_PEM_BLOCK.finditer(raw))
    if len(blocks) != raw.count(_PEM_BEGIN):
        raise ConfigError([f"{source} holds a PEM key that is cut short"])
    return tuple(_key(_pem(block[0], source), algorithms, source) for block in blocks)


def key_of_jwk(
    jwk: Mapping[str, Any], algorithms: Sequence[str] | None, *, symmetric: bool
) -> VerificationKey | None:
    """Make a key of a JWK (RFC 7517); None if it is for other purposes than ours.

    :param algorithms: as for :func:`load_keys`; the JWK's own ``alg`` narrows them further.
    :param symmetric: whether it may be a secret (``oct``).
    :raises ValueError: if it is malformed, or must not be used; the text quotes nothing but its ``kid``.
    """
    kind, alg, kid, operations = (jwk.get(name) for name in ("kty", "alg", "kid", "key_ops"))
    if jwk.get("use", "sig") != "sig" or not isinstance(kind, str) or kind not in _FROM_JWK:
        return None
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    if alg is not None and not (isinstance(alg, str) and alg in _ALGORITHMS):
        return None
    if kid is not None and not isinstance(kid, str):
        raise ValueError("a key's kid is not a string")
    source = f"the key {kid!r}"
    if kind == "oct" and not symmetric:
        raise ValueError(f"{source} is a secret, which must not be published")
    if kind != "oct" and "d" in jwk:
        raise ValueError(f"{source} is a private key, which must not be published")
    try:
        key = _FROM_JWK[kind](dict(jwk))
    except Exception:  # noqa: BLE001 - it raises whatever comes up, and may quote the key: not chained
        raise ValueError(f"{source} is malformed") from None
    if not isinstance(key, bytes | PublicKey) or not (possible := _possible(key)):
        return None
    if isinstance(key, bytes):
        key = _secret(key, source)
    if alg is not None:
        possible = tuple(name for name in possible if name == alg)
    chosen = _chosen(key, possible, algorithms)
    _check_size(key, source)
    return VerificationKey(key, chosen, kid) if chosen else None


def _key(key: bytes | PublicKey, algorithms: Sequence[str] | None, source: str) -> VerificationKey:
    possible = _possible(key)
    if not possible:
        raise ConfigError([f"{source} holds a public key on a curve that no algorithm here is for"])
    chosen = _chosen(key, possible, algorithms)
    if not chosen:
        kind = "a secret" if isinstance(key, bytes) else "a PEM public key"
        raise ConfigError(
            [f"{source} holds {kind}, which is for {', '.join(possible)}; algorithms names none of them"]
        )
    _check_size(key, source)
    return VerificationKey(key, chosen)


def _possible(key: bytes | PublicKey) -> tuple[str, ...]:
    if isinstance(key, bytes):
        return _HMAC
    if isinstance(key, RSAPublicKey):
        return _RSA
    if isinstance(key, EllipticCurvePublicKey):
        return (_CURVES[key.curve.name],) if key.curve.name in _CURVES else ()
    return _EDDSA


def _chosen(
    key: bytes | PublicKey, possible: tuple[str, ...], algorithms: Sequence[str] | None
) -> tuple[str, ...]:
    if algorithms is None:
        return possible[:1] if isinstance(key, bytes) else possible
    return tuple(name for name in possible if name in algorithms)


def _secret(raw: bytes, source: str) -> bytes:
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(raw)
    except InvalidKeyError:
        raise ConfigError([f"{source} holds a key of SSH or TLS; use random bytes as a secret"]) from None
    if _PEM_BEGIN in raw:
        raise ConfigError([f"{source} holds PEM; use random bytes as a secret"])
    if len(raw) < _SHORT_SECRET:
        logger.warning("%s has %d bytes; use at least %d random bytes", source, len(raw), _SHORT_SECRET)
    return raw


def _pem(block: bytes, source: str) -> PublicKey:
    try:
        key = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):  # its text may quote the key: not chained
        raise ConfigError([f"{source} holds PEM that is no public key"]) from None
    if not isinstance(key, PublicKey):
        raise ConfigError([f"{source} holds a public key of a kind that no algorithm here is for"])
    return key


def _check_size(key: bytes | PublicKey, source: str) -> None:
    if isinstance(key, RSAPublicKey) and key.key_size < _SHORT_RSA:
        raise ConfigError([f"{source} holds an RSA key of {key.key_size} bits; it must have {_SHORT_RSA}"])


class Keyring:
    """The keys of one moment. Immutable, so that whoever has one can tell whether the keys are others now.

    :param keys: tried in this order.
    """

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self.keys = tuple(keys)
        self._by_algorithm: dict[str, list[VerificationKey]] = {}
        for key in self.keys:
            for algorithm in key.algorithms:
                self._by_algorithm.setdefault(algorithm, []).append(key)
        self._names = frozenset(key.kid for key in self.keys if key.kid is not None)

    def verifies(self, algorithm: str, kid: str | None, signed: bytes, signature: bytes) -> bool:
        """Whether a key made ``signature``.

        :param algorithm: what the token says; a key that is not for it is not tried.
        :param kid: what the token says. It rules out keys of other names, and is only compared.
        """
        return any(
            (kid is None or key.kid is None or key.kid == kid) and key.verifies(algorithm, signed, signature)
            for key in self._by_algorithm.get(algorithm, ())
        )

    def has(self, kid: str | None) -> bool:
        """Whether there is a key of this name; None is no name."""
        return kid in self._names

    # A keyring is its own source: keys that never change.

    def current(self) -> Keyring:
        """See :class:`KeySource`."""
        return self

    def await_key(self, kid: str | None, deadline: Deadline | None) -> None:
        """See :class:`KeySource`: there will be no others."""


def load_keyring(
    secrets: str | bytes | Sequence[str | bytes], algorithms: Sequence[str] | None, others: bool
) -> Keyring:
    """Return the keys that stand in the settings themselves.

    :param secrets: HMAC secrets or PEM public keys; "" for none.
    :param algorithms: as :func:`load_keys` takes them.
    :param others: whether there are keys elsewhere, so that there may be none here.
    :raises ConfigError: if one of them cannot be used, or there must be one and is none.
    """
    if algorithms is not None:
        check_algorithms(algorithms)
    given = [secrets] if isinstance(secrets, str | bytes) else secrets
    if not any(given) and others:
        return Keyring(())
    return Keyring(key for secret in given or [""] for key in load_keys(secret, algorithms))


class KeySource(Protocol):
    """Where the keys come from."""

    def current(self) -> Keyring:
        """Return the keys as they are now, the same object as long as they are the same. Any thread."""
        ...

    def await_key(self, kid: str | None, deadline: Deadline | None) -> None:
        """Look for a public key that :meth:`current` has not; return when it has it, or it is not to be had.

        :param kid: its name, None for any key at all.
        :param deadline: how long to block at most; None for not at all.
        :raises Draining: if the proxy stops meanwhile.
        """
        ...
