"""From a JWT (RFC 7519) to what its holder may open.

The claims are those of LabOrchestrator's tokens::

    {"id": 5, "exp": 1700000000.5, "lab_instance": {"lab_id": 1, "lab_instance_id": 2,
     "namespace_name": "lab-1", "allowed_vmi_names": ["ubuntu"], "additional_data": {}}}

Every claim that is used is checked for its type first. No text raised here quotes a token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from .deadline import Deadline
from .exceptions import BadToken, Forbidden, TokenExpired
from .keys import VerificationKey
from .nesting import nested_deeper_than
from .routing import is_dns_label

__all__ = ["MAX_TOKEN_SIZE", "Grant", "TokenVerifier", "make_token"]

MAX_TOKEN_SIZE = 8192
"""Bytes; also less than the request head may hold."""

# The header is parsed before the signature is checked. No JOSE header nests (RFC 7515 section 4.1).
_MAX_HEADER_BRACKETS = 32
_MAX_CLAIMS_BRACKETS = 500
_MAX_KNOWN = 1024
_SHORT_WORD = re.compile(r"[!-~]{1,64}")


@dataclass(frozen=True)
class Grant:
    """What the holder of a token may open.

    :ivar user: the ``id`` claim.
    :ivar namespace: the one namespace.
    :ivar vmis: names of virtual machine instances in it.
    :ivar expires_at: UNIX time at which the token expires.
    :ivar token_id: names the token in logs and lists, without giving it away: its ``jti`` claim if that is a
        short word, else made from its hash.
    """

    user: str | int
    namespace: str
    vmis: tuple[str, ...]
    expires_at: float
    token_id: str

    def seconds_left(self) -> float:
        """Return how long the token is still valid; negative once it is not."""
        return self.expires_at - time.time()

    def authorize(self, vmi: str, namespace: str | None = None) -> None:
        """Check that ``vmi`` may be opened, and that ``namespace``, if given, is the granted one.

        :raises Forbidden: if not.
        """
        if vmi not in self.vmis or namespace not in (None, self.namespace):
            raise Forbidden("the token does not allow this VMI")


class TokenVerifier:
    """Verifies tokens against one key. Safe from every thread; does not block.

    A token that was found valid is known again until it expires, by its SHA-256: a browser that
    reconnects brings the same one.

    :param key: the key and its algorithms.
    """

    def __init__(self, key: VerificationKey) -> None:
        self._key = key.prepared()
        self._algorithms = key.algorithms
        self._known: dict[bytes, Grant] = {}  # needs no lock: each step is one operation of the dict

    def verify(self, token: str, deadline: Deadline | None = None) -> Grant:
        """Return what a valid token grants.

        :param deadline: how long to wait for a key that is not known yet; None for not at all.
        :raises TokenExpired: if the token is right but its time is over.
        :raises BadToken: for every other fault.
        """
        if len(token) > MAX_TOKEN_SIZE:
            raise BadToken("the token is too long")
        if not token.isascii():
            raise BadToken("the token is not a JWT")
        digest = hashlib.sha256(token.encode("ascii")).digest()
        grant = self._known.get(digest)
        if grant is None or grant.seconds_left() <= 0:
            grant = self._verify(token)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[digest] = grant
        return grant

    def _verify(self, token: str) -> Grant:
        _check_nesting(token)
        try:
            decoded = jwt.decode_complete(
                token, self._key, algorithms=self._algorithms, options={"require": ["exp"]}
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpired("the token has expired") from None
        except Exception as exc:  # noqa: BLE001
            # PyJWT lets more than its own errors through for odd input; all of them mean the same.
            raise BadToken("the token is not valid", log_detail=type(exc).__name__) from None
        if "crit" in decoded["header"]:
            raise BadToken(
                "the token has critical headers that are not understood"
            )  # RFC 7515 section 4.1.11
        return _grant(decoded["payload"], _token_id(token, decoded["payload"].get("jti")))


def _check_nesting(token: str) -> None:
    parts = token.split(".")
    if len(parts) != 3:  # PyJWT below 2.15 takes further dots, and decodes what is behind them
        raise BadToken("the token is not a JWT")
    for part, most in ((parts[0], _MAX_HEADER_BRACKETS), (parts[1], _MAX_CLAIMS_BRACKETS)):
        try:
            text = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        except (ValueError, binascii.Error):
            raise BadToken("the token is not a JWT") from None
        if nested_deeper_than(most, text):
            raise BadToken("the token is nested too deeply")


def _token_id(token: str, jti: object) -> str:
    """What is hashed is what the signature is for: its holder can make an ECDSA signature look different."""
    if isinstance(jti, str) and _SHORT_WORD.fullmatch(jti):
        return jti
    signed = token.rpartition(".")[0]
    return hashlib.sha256(signed.encode("ascii")).hexdigest()[:16]


def _grant(claims: Mapping[str, Any], token_id: str) -> Grant:
    lab = claims.get("lab_instance")
    if not isinstance(lab, dict):
        raise BadToken("the token has no lab_instance claim")
    user, expires_at = claims.get("id"), claims["exp"]
    namespace, vmis = lab.get("namespace_name"), lab.get("allowed_vmi_names")
    if isinstance(user, bool) or not isinstance(user, str | int):
        raise BadToken("the token's id claim must be a string or a whole number")
    if not isinstance(namespace, str) or not is_dns_label(namespace):
        raise BadToken("the token's namespace_name claim must be a Kubernetes namespace")
    if not isinstance(vmis, list) or not all(isinstance(name, str) for name in vmis):
        raise BadToken("the token's allowed_vmi_names claim must be a list of strings")
    if (
        isinstance(expires_at, bool)
        or not isinstance(expires_at, int | float)
        or not abs(expires_at) <= sys.float_info.max
    ):
        raise BadToken("the token's exp claim must be a number")
    return Grant(user, namespace, tuple(vmis), float(expires_at), token_id)


def make_token(
    secret: str | bytes,
    *,
    namespace: str,
    vmis: Sequence[str],
    user: str | int = 0,
    expires_in: float = 600,
    lab_id: str | int = 0,
    lab_instance_id: str | int = 0,
    algorithm: str = "HS256",
    additional_data: Mapping[str, Any] | None = None,
) -> str:
    """Return a signed token with LabOrchestrator's claims.

    :param secret: HMAC secret, or a PEM private key for RS256 and ES256.
    :param expires_in: seconds from now; negative makes an expired one.
    """
    lab = {
        "lab_id": lab_id,
        "lab_instance_id": lab_instance_id,
        "namespace_name": namespace,
        "allowed_vmi_names": list(vmis),
        "additional_data": dict(additional_data) if additional_data is not None else None,
    }
    claims = {"id": user, "exp": time.time() + expires_in, "lab_instance": lab}
    return jwt.encode(claims, secret, algorithm=algorithm)
