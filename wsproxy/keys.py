"""Key material that tokens are verified with.

The algorithms follow from the key and the configuration, never from the token (RFC 8725 section 3.1).
"""

from __future__ import annotations

import logging
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import InvalidKeyError

from .exceptions import ConfigError

__all__ = ["VerificationKey"]

logger = logging.getLogger("wsproxy.keys")

_HMAC = frozenset({"HS256", "HS384", "HS512"})
_PUBLIC: dict[str, type[RSAPublicKey] | type[EllipticCurvePublicKey]] = {
    "RS256": RSAPublicKey,
    "ES256": EllipticCurvePublicKey,
}
_CURVE_OF_ES256 = "secp256r1"
_SHORT_SECRET = 32  # RFC 7518 section 3.2: as long as the hash output, 256 bits for HS256


class _PreparedHMAC(HMACAlgorithm):
    """HMAC with a secret that was judged when it was loaded.

    For each token PyJWT would try anew whether the secret is a DER key, a certificate or a JWK, which costs
    more than all else that it does.
    """

    def prepare_key(self, key: str | bytes) -> bytes:
        assert isinstance(key, bytes)
        return key


@dataclass(frozen=True)
class VerificationKey:
    """A key together with the algorithms that it may be used for.

    :ivar key: an HMAC secret or a public key, as PyJWT takes it.
    :ivar algorithms: JWS algorithm names (RFC 7518 section 3.1), all of one family.
    """

    key: bytes | RSAPublicKey | EllipticCurvePublicKey = field(repr=False)
    algorithms: tuple[str, ...]

    @classmethod
    def load(cls, secret: str | bytes, algorithms: Sequence[str] = ("HS256",)) -> VerificationKey:
        """Make a key of an HMAC secret, or of a PEM public key for RS256 or ES256.

        A secret below 32 bytes is taken, as the original did, with a warning in the log.

        :raises ConfigError: if the secret is empty, or key and algorithms do not belong together.
        """
        try:
            raw = secret.encode() if isinstance(secret, str) else bytes(secret)
        except UnicodeEncodeError:  # holds the secret: not chained
            raise ConfigError(["SECRET_KEY is not UTF-8 text"]) from None
        names = tuple(algorithms)
        if not raw.strip():
            raise ConfigError(["SECRET_KEY is empty; set the secret that the tokens are signed with"])
        if not names or not set(names) <= _HMAC | set(_PUBLIC):
            known = ", ".join(sorted(_HMAC | set(_PUBLIC)))
            raise ConfigError([f"algorithms is {list(names)!r}; choose from {known}"])
        if set(names) <= _HMAC:
            return cls(cls._secret(raw), names)
        if len(set(names)) > 1:
            raise ConfigError([f"algorithms is {list(names)!r}; one key serves one family of algorithms"])
        return cls(cls._public_key(raw, names[0]), names)

    def prepared(self) -> bytes | RSAPublicKey | EllipticCurvePublicKey | PyJWK:
        """Return the key as PyJWT takes it quickest, time and again: a secret for one algorithm prepared."""
        if not isinstance(self.key, bytes) or len(self.algorithms) > 1:
            return self.key
        encoded = urlsafe_b64encode(self.key).rstrip(b"=").decode("ascii")
        prepared = PyJWK({"kty": "oct", "k": encoded}, self.algorithms[0])
        assert isinstance(prepared.Algorithm, HMACAlgorithm)
        prepared.Algorithm = _PreparedHMAC(prepared.Algorithm.hash_alg)
        return prepared

    @staticmethod
    def _secret(raw: bytes) -> bytes:
        if b"-----BEGIN" in raw:
            raise ConfigError(["SECRET_KEY holds a PEM key; set algorithms to RS256 or ES256 for it"])
        try:
            HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(raw)
        except InvalidKeyError:
            raise ConfigError(["SECRET_KEY holds an SSH key; use random bytes as a secret"]) from None
        if len(raw) < _SHORT_SECRET:
            logger.warning("SECRET_KEY has %d bytes; use at least %d random bytes", len(raw), _SHORT_SECRET)
        return raw

    @staticmethod
    def _public_key(raw: bytes, algorithm: str) -> RSAPublicKey | EllipticCurvePublicKey:
        try:
            key = load_pem_public_key(raw)
        except (ValueError, UnsupportedAlgorithm):  # its text may quote the key: not chained
            raise ConfigError([f"SECRET_KEY holds no PEM public key, which {algorithm} needs"]) from None
        if not isinstance(key, _PUBLIC[algorithm]):
            raise ConfigError([f"SECRET_KEY holds a public key of another kind than {algorithm} needs"])
        assert isinstance(key, RSAPublicKey | EllipticCurvePublicKey)
        if isinstance(key, EllipticCurvePublicKey) and key.curve.name != _CURVE_OF_ES256:
            raise ConfigError([f"SECRET_KEY holds a key on {key.curve.name}; ES256 needs {_CURVE_OF_ES256}"])
        return key
