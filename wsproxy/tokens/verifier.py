"""Verifies a JWT (RFC 7519, RFC 7515) and returns the grant of its holder. No I/O.

The proxy trusts nothing in the header. ``alg`` and ``kid`` only choose among the configured keys, and keys or
URLs of keys in the header are ignored. This file decodes each part once. No error text quotes a token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ..exceptions import BadToken
from ..protocol.strict_json import parse_json
from ..runtime.deadline import Clock, Deadline
from ..runtime.wall_clock import unix_time
from . import base64url
from .algorithms import PUBLIC_KEY_ALGORITHMS
from .claims import ClaimRules, Grant
from .keys import Keyring, KeySource

__all__ = ["MAX_TOKEN_SIZE", "TokenVerifier"]

MAX_TOKEN_SIZE = 8192
"""Bytes; less than a request head may have."""

# The proxy parses the header before it checks the signature. JOSE headers do not nest (RFC 7515, 4.1).
_MAX_HEADER_BRACKETS = 32
_MAX_CLAIMS_BRACKETS = 500
_MAX_KNOWN = 1024
# Headers that would change the meaning of the rest. They announce extensions (RFC 7515 section 4.1.11), an
# unencoded payload (RFC 7797), encryption or compression (RFC 7516). The proxy supports none of these.
_FORBIDDEN_HEADERS = ("crit", "b64", "enc", "zip")
_TYPES = frozenset({"jwt", "at+jwt"})  # RFC 7519 section 5.1, RFC 9068 section 2.1
_ENCRYPTED_PARTS = 5


class TokenVerifier:
    """Verifies tokens. Safe from every thread.

    The verifier keeps the grants of valid tokens by SHA-256, until they expire or the keys change. A browser
    that reconnects sends the same token again.

    :param keys: the keys.
    :param rules: the rules for the claims; None for the defaults.
    :param clock: UNIX time, seconds.
    """

    def __init__(self, keys: KeySource, rules: ClaimRules | None = None, clock: Clock = unix_time) -> None:
        self._keys = keys
        self._rules = rules or ClaimRules()
        self._clock = clock
        # Each grant, with the keyring that verified it. Needs no lock: each step is one dict operation.
        self._known: dict[bytes, tuple[Grant, Keyring]] = {}

    def verify(self, token: str, deadline: Deadline | None = None) -> Grant:
        """Return the grant of a valid token.

        Blocks only if the token names no known key, and a fetch may bring one.

        :param deadline: how long to wait for such a key; None to not wait.
        :raises TokenExpired: if the signature is valid, but the token has expired.
        :raises TokenNotYetValid: if the signature is valid, but the token is not valid yet.
        :raises Forbidden: if the proxy does not serve its namespace.
        :raises Draining: if the proxy stops while this waits for a key.
        :raises BadToken: for every other fault.
        """
        if len(token) > MAX_TOKEN_SIZE:
            raise BadToken("the token is too long")
        if not token.isascii():
            raise BadToken("the token is not a JWT")
        ring = self._keys.current()
        digest = hashlib.sha256(token.encode("ascii")).digest()
        grant, tried = self._known.get(digest, (None, None))
        now = self._clock()
        if grant is None or tried is not ring or grant.seconds_left(now) <= 0:
            jws = _JWS(token)
            ring = self._check_signature(jws, ring, deadline)
            signed = jws.digest()
            claims = _json(jws.payload, _MAX_CLAIMS_BRACKETS)
            grant = self._rules.grant(claims, signed.hex()[:16], signed, now=self._clock())
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[digest] = grant, ring
        return grant

    def _check_signature(self, jws: _JWS, ring: Keyring, deadline: Deadline | None) -> Keyring:
        """Return the keyring that verifies the signature: ``ring`` or a newer one.

        A URL gives public keys only. So only tokens with an algorithm for these cause a fetch.
        """
        if jws.is_signed_by(ring):
            return ring
        if jws.algorithm in PUBLIC_KEY_ALGORITHMS and not ring.has(jws.kid):
            self._keys.await_key(jws.kid, deadline)
            newer = self._keys.current()
            if newer is not ring and jws.is_signed_by(newer):
                return newer
            ring = newer
        detail = "no key verifies the signature" if ring.keys else "there are no keys"
        raise BadToken("the token is not valid", log_detail=detail)


class _JWS:
    """The parts of a signed token, before its signature is verified.

    :raises BadToken: if it is malformed, or of an unsupported kind.
    """

    def __init__(self, token: str) -> None:
        parts = token.split(".")
        if len(parts) != 3:
            raise BadToken(
                "encrypted tokens are not accepted"
                if len(parts) == _ENCRYPTED_PARTS
                else "the token is not a JWT"
            )
        header_part, self.payload, signature = parts
        header = _json(header_part, _MAX_HEADER_BRACKETS)
        if not isinstance(header, dict):
            raise BadToken("the token is not a JWT")
        for name in _FORBIDDEN_HEADERS:
            if name in header:
                raise BadToken(f"tokens with {name} in the header are not accepted")
        self._check_type(header)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or not isinstance(header.get("kid", ""), str):
            raise BadToken("the token's alg and kid must be strings")
        self.algorithm: str = algorithm
        self.kid: str | None = header.get("kid")
        self._signed = token[: -len(signature) - 1].encode("ascii")
        self._signature = _decoded(signature)

    @staticmethod
    def _check_type(header: Mapping[str, Any]) -> None:
        if "typ" in header:
            kind = header["typ"]
            if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
                raise BadToken("the token's typ header is not JWT")

    def is_signed_by(self, ring: Keyring) -> bool:
        """Whether a key of ``ring`` verifies the signature."""
        return ring.verifies(self.algorithm, self.kid, self._signed, self._signature)

    def digest(self) -> bytes:
        """Return the SHA-256 of header and payload.

        It leaves the signature out, because a holder can change an ECDSA signature into another valid one.
        """
        return hashlib.sha256(self._signed).digest()


def _json(part: str, most_brackets: int) -> Any:
    try:
        return parse_json(_decoded(part), most_brackets)
    except ValueError as exc:
        raise BadToken("the token is not a JWT", log_detail=str(exc)) from None


def _decoded(part: str) -> bytes:
    try:
        return base64url.decode(part)
    except ValueError as exc:
        raise BadToken("the token is not a JWT", log_detail=str(exc)) from None
