"""From a JWT (RFC 7519, RFC 7515) to what its holder may open. No I/O.

Nothing in the header is obeyed: ``alg`` and ``kid`` only choose among the keys that are configured, keys and
addresses of keys in it are not looked at. Each part is decoded once, here.
No text raised here quotes a token.
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
"""Bytes; also less than the request head may hold."""

# The header is parsed before the signature is checked. No JOSE header nests (RFC 7515 section 4.1).
_MAX_HEADER_BRACKETS = 32
_MAX_CLAIMS_BRACKETS = 500
_MAX_KNOWN = 1024
# What would change the meaning of the rest: extensions (RFC 7515 section 4.1.11), of which none is
# understood, an unencoded payload (RFC 7797), encryption and compression (RFC 7516).
_FORBIDDEN_HEADERS = ("crit", "b64", "enc", "zip")
_TYPES = frozenset({"jwt", "at+jwt"})  # RFC 7519 section 5.1, RFC 9068 section 2.1
_ENCRYPTED_PARTS = 5


class TokenVerifier:
    """Verifies tokens. Safe from every thread.

    A token that was found valid is known again until it expires, or the keys are others, by its SHA-256: a
    browser that reconnects brings the same one.

    :param keys: the keys.
    :param rules: what the claims must be.
    :param clock: UNIX time, seconds.
    """

    def __init__(self, keys: KeySource, rules: ClaimRules | None = None, clock: Clock = unix_time) -> None:
        self._keys = keys
        self._rules = rules or ClaimRules()
        self._clock = clock
        # Each grant with the keys that were tried. Needs no lock: each step is one operation of the dict.
        self._known: dict[bytes, tuple[Grant, Keyring]] = {}

    def verify(self, token: str, deadline: Deadline | None = None) -> Grant:
        """Return what a valid token grants. Blocks only if it names a key that is not known.

        :param deadline: how long to wait for such a key; None for not at all.
        :raises TokenExpired: if the token is right but its time is over.
        :raises TokenNotYetValid: if the token is right but its time has not begun.
        :raises Forbidden: if its namespace is not served.
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
        """Return the keys that the signature was right with, ``ring`` or newer ones.

        Only public keys come late, so no other token makes anybody look for them.
        """
        if jws.is_signed_by(ring):
            return ring
        if jws.algorithm in PUBLIC_KEY_ALGORITHMS and not ring.has(jws.kid):
            self._keys.await_key(jws.kid, deadline)
            newer = self._keys.current()
            if newer is not ring and jws.is_signed_by(newer):
                return newer
            ring = newer
        detail = "the signature is of no key" if ring.keys else "there are no keys"
        raise BadToken("the token is not valid", log_detail=detail)


class _JWS:
    """A signed token, taken apart; nothing about it is proved.

    :raises BadToken: if it is malformed, or of a kind that is not taken.
    """

    def __init__(self, token: str) -> None:
        parts = token.split(".")
        if len(parts) != 3:
            raise BadToken(
                "encrypted tokens are not taken"
                if len(parts) == _ENCRYPTED_PARTS
                else "the token is not a JWT"
            )
        header_part, self.payload, signature = parts
        header = _json(header_part, _MAX_HEADER_BRACKETS)
        if not isinstance(header, dict):
            raise BadToken("the token is not a JWT")
        for name in _FORBIDDEN_HEADERS:
            if name in header:
                raise BadToken(f"tokens with {name} in the header are not taken")
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
                raise BadToken("the token is of another type than JWT")

    def is_signed_by(self, ring: Keyring) -> bool:
        """Whether a key of ``ring`` made the signature."""
        return ring.verifies(self.algorithm, self.kid, self._signed, self._signature)

    def digest(self) -> bytes:
        """Return the SHA-256 of what is signed: an ECDSA signature's holder can make it look different."""
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
