"""Keys that verify tokens, from a secret, from PEM, or from a JWK.

The key and the settings decide which algorithms are valid, never the token (RFC 8725 section 3.1). A key
serves one family of algorithms, so that no token can use a public key as an HMAC secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..exceptions import ConfigError
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger
from .algorithms import ALGORITHMS, PublicKey, algorithms_of, shortest_secret, verifies
from .public_keys import (
    PRIVATE_MEMBERS,
    public_key_of_jwk,
    public_key_of_pem,
    rsa_bits,
    secret_of_jwk,
)
from .spellings import is_blank, mistaken_for_secret

__all__ = [
    "KeySource",
    "Keyring",
    "VerificationKey",
    "check_algorithms",
    "check_secret",
    "key_of_jwk",
    "load_keyring",
    "load_keys",
    "octets",
]

logger = get_logger("wsproxy.keys")

_KINDS = ("RSA", "EC", "OKP", "oct")  # RFC 7518 section 6.1, RFC 8037 section 2
_SHORT_RSA = 2048  # RFC 7518 section 3.3
_PEM_BEGIN = b"-----BEGIN"
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, eq=False)
class VerificationKey:
    """A key, and the algorithms that it may be used for. Objects are compared by identity.

    :ivar key: an HMAC secret or a public key.
    :ivar algorithms: JWS algorithm names, all of one family.
    :ivar kid: the key's name (RFC 7517 section 4.5). None for a key that may verify tokens with any ``kid``.
    """

    key: bytes | PublicKey = field(repr=False)
    algorithms: tuple[str, ...]
    kid: str | None = None

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's signature of ``signed``, by one of its algorithms.

        The key itself was checked when it was loaded.
        """
        return algorithm in self.algorithms and verifies(algorithm, self.key, signed, signature)


def check_algorithms(algorithms: Sequence[str]) -> None:
    """Check the setting of algorithms.

    :raises ConfigError: if it is empty, or has an unsupported name, such as "none".
    """
    if not algorithms or not set(algorithms) <= set(ALGORITHMS):
        known = ", ".join(ALGORITHMS)
        raise ConfigError([f"algorithms is {list(algorithms)!r}; choose from {known}"])


def load_keys(
    text: str | bytes, algorithms: Sequence[str] | None = None, source: str = "SECRET_KEY"
) -> tuple[VerificationKey, ...]:
    """Make keys from an HMAC secret, or from one or several PEM public keys.

    The original proxy accepted short secrets. So this function accepts a secret that is shorter than its hash
    (32 bytes for HS256), and logs a warning.

    :param text: the secret, or the public keys.
    :param algorithms: the only algorithms to use the keys for. None means HS256 for a secret, and all its
        algorithms for a public key.
    :param source: the setting or file that the text comes from, for messages.
    :raises ConfigError: if the text is empty or holds no usable key, or if no algorithm fits a key.
    """
    raw = octets(text, source)
    if _PEM_BEGIN not in raw:
        check_secret(raw, source)
        return (_key(raw, algorithms, source),)
    blocks = list(_PEM_BLOCK.finditer(raw))
    if len(blocks) != raw.count(_PEM_BEGIN):
        raise ConfigError([f"{source} holds a PEM key that is cut short"])
    return tuple(_key(_pem(block[0], source), algorithms, source) for block in blocks)


def octets(text: str | bytes, source: str) -> bytes:
    """Return a secret, or a key's text, as bytes.

    :param source: the setting or file that it comes from, for messages.
    :raises ConfigError: if UTF-8 cannot encode the text.
    """
    try:
        return text.encode() if isinstance(text, str) else bytes(text)
    except UnicodeEncodeError:  # not chained, because it holds the secret
        raise ConfigError([f"{source} is not UTF-8 text"]) from None


def check_secret(raw: bytes, source: str) -> None:
    """Check that bytes can be an HMAC secret.

    :param source: the setting or file that they come from, for messages.
    :raises ConfigError: if they are blank, or are a key or a certificate that others may know.
    """
    if is_blank(raw):
        raise ConfigError([f"{source} is empty; give the secret that the tokens are signed with"])
    mistaken = mistaken_for_secret(raw)
    if mistaken:
        raise ConfigError(
            [f"{source} holds {mistaken.what}, which must not serve as a secret; {mistaken.remedy}"]
        )


def key_of_jwk(
    jwk: Mapping[str, Any], algorithms: Sequence[str] | None, *, symmetric: bool
) -> VerificationKey | None:
    """Make a key from a JWK (RFC 7517); return None if the JWK is not for verifying tokens here.

    :param algorithms: as for :func:`load_keys`. The JWK's own ``alg`` limits them further.
    :param symmetric: whether the JWK may be a secret (``oct``).
    :raises ValueError: if the JWK is malformed, or must not be used. The text quotes only its ``kid``.
    """
    kind, alg, kid, operations = (jwk.get(name) for name in ("kty", "alg", "kid", "key_ops"))
    if jwk.get("use", "sig") != "sig" or not isinstance(kind, str) or kind not in _KINDS:
        return None
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    if alg is not None and not (isinstance(alg, str) and alg in ALGORITHMS):
        return None
    if kid is not None and not isinstance(kid, str):
        raise ValueError("a key's kid is not a string")
    source = f"the key {kid!r}"
    if kind == "oct" and not symmetric:
        raise ValueError(f"{source} is a secret, which must not be published")
    if kind != "oct" and not PRIVATE_MEMBERS.isdisjoint(jwk):
        raise ValueError(f"{source} is a private key, which must not be published")
    key = _jwk_material(jwk, source)
    if key is None:
        return None
    possible = tuple(name for name in algorithms_of(key) if alg in (None, name))
    chosen = _chosen(key, possible, algorithms)
    if not chosen:
        return None
    if isinstance(key, bytes):
        _check_jwk_secret(key, chosen, source)
    _check_size(key, chosen, source)
    return VerificationKey(key, chosen, kid)


def _jwk_material(jwk: Mapping[str, Any], source: str) -> bytes | PublicKey | None:
    try:
        return secret_of_jwk(jwk) if jwk["kty"] == "oct" else public_key_of_jwk(jwk)
    except ValueError:  # not chained, because its text may quote the key
        raise ValueError(f"{source} is malformed") from None


def _check_jwk_secret(key: bytes, chosen: tuple[str, ...], source: str) -> None:
    """Check a secret and its length. Short secrets are refused: the original proxy supported no JWK Sets."""
    check_secret(key, source)
    least = min(map(shortest_secret, chosen))
    if len(key) < least:
        raise ConfigError([f"{source} has {len(key)} bytes; it must have {least} random bytes"])


def _key(key: bytes | PublicKey, algorithms: Sequence[str] | None, source: str) -> VerificationKey:
    possible = algorithms_of(key)
    if not possible:
        raise ConfigError([f"{source} holds a public key on a curve that no supported algorithm uses"])
    chosen = _chosen(key, possible, algorithms)
    if not chosen:
        kind = "a secret" if isinstance(key, bytes) else "a PEM public key"
        raise ConfigError(
            [f"{source} holds {kind}, which is for {', '.join(possible)}; add one of these to algorithms"]
        )
    _check_size(key, chosen, source)
    return VerificationKey(key, chosen)


def _chosen(
    key: bytes | PublicKey, possible: tuple[str, ...], algorithms: Sequence[str] | None
) -> tuple[str, ...]:
    if algorithms is None:
        return possible[:1] if isinstance(key, bytes) else possible
    return tuple(name for name in possible if name in algorithms)


def _pem(block: bytes, source: str) -> PublicKey:
    try:
        return public_key_of_pem(block)
    except ValueError as exc:
        raise ConfigError([f"{source} holds {exc}"]) from None


def _check_size(key: bytes | PublicKey, chosen: tuple[str, ...], source: str) -> None:
    """Check that a key is long enough. A short secret only causes a warning, because it may be in use."""
    bits = rsa_bits(key)
    if bits is not None and bits < _SHORT_RSA:
        raise ConfigError([f"{source} holds an RSA key of {bits} bits; it must have {_SHORT_RSA}"])
    if isinstance(key, bytes) and len(key) < (least := max(map(shortest_secret, chosen))):
        logger.warning("%s has %d bytes; use at least %d random bytes", source, len(key), least)


class Keyring:
    """A set of keys. Immutable, so that another object from :meth:`KeySource.current` means other keys.

    :param keys: the keys, in the order in which to try them.
    """

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self.keys = tuple(keys)
        self._by_algorithm: dict[str, list[VerificationKey]] = {}
        for key in self.keys:
            for algorithm in key.algorithms:
                self._by_algorithm.setdefault(algorithm, []).append(key)
        self._names = frozenset(key.kid for key in self.keys if key.kid is not None)

    def verifies(self, algorithm: str, kid: str | None, signed: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is a signature of ``signed`` by one of the keys.

        :param algorithm: the token's ``alg``. Only keys for this algorithm are tried.
        :param kid: the token's ``kid``. If it is given, keys with other names are not tried.
        """
        return any(
            (kid is None or key.kid is None or key.kid == kid) and key.verifies(algorithm, signed, signature)
            for key in self._by_algorithm.get(algorithm, ())
        )

    def has(self, kid: str | None) -> bool:
        """Whether there is a key with this name; False for None."""
        return kid in self._names

    # A keyring is also a KeySource whose keys never change.

    def current(self) -> Keyring:
        """See :class:`KeySource`."""
        return self

    def await_key(self, kid: str | None, deadline: Deadline | None) -> None:
        """See :class:`KeySource`. Returns at once, because no new keys can come."""


def load_keyring(
    secrets: str | bytes | Sequence[str | bytes], algorithms: Sequence[str] | None, others: bool
) -> Keyring:
    """Return the keys in the settings themselves.

    :param secrets: HMAC secrets or PEM public keys; "" for none.
    :param algorithms: as for :func:`load_keys`.
    :param others: whether files or a JWK Set give keys, too. If not, at least one secret is required.
    :raises ConfigError: if a secret cannot be used, or a required one is missing.
    """
    if algorithms is not None:
        check_algorithms(algorithms)
    given = [secrets] if isinstance(secrets, str | bytes) else secrets
    if not any(given) and others:
        return Keyring(())
    return Keyring(key for secret in given or [""] for key in load_keys(secret, algorithms))


class KeySource(Protocol):
    """A source of keys."""

    def current(self) -> Keyring:
        """Return the current keys; the same object until they change. Any thread."""
        ...

    def await_key(self, kid: str | None, deadline: Deadline | None) -> None:
        """Look for a public key that :meth:`current` lacks. Return when it is there, or not available.

        :param kid: the key's name, None for any key.
        :param deadline: how long to block at most; None to return at once.
        :raises Draining: if the proxy stops meanwhile.
        """
        ...
