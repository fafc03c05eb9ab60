"""Turns a token's claims (RFC 7519) into a grant: the VMIs that its holder may open. No I/O.

Settings name the place of each claim, by JSON pointers (RFC 6901) through objects. The defaults fit
LabOrchestrator's tokens::

    {"id": 5, "exp": 1700000000.5, "lab_instance": {"lab_id": 1, "lab_instance_id": 2,
     "namespace_name": "lab-1", "allowed_vmi_names": ["ubuntu"], "additional_data": {}}}

The proxy checks the type of every claim before it uses it, and compares whole names.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard, cast

from ..exceptions import BadToken, ConfigError, Forbidden, TokenExpired, TokenNotYetValid
from ..protocol.names import is_dns_label

__all__ = ["CLOCK_LEEWAY", "ClaimRules", "Grant", "Pointer", "TokenKey", "matches"]

CLOCK_LEEWAY = 5.0
"""Seconds by which the clock of the issuer may be wrong, unless the settings say otherwise."""

_MAX_TIME = 253402300799  # 9999-12-31T23:59:59Z; a time in milliseconds is larger
_MAX_ID = 2**63
_MAX_USER = 255  # OpenID Connect Core 1.0 section 2: sub
_SHORT_WORD = re.compile(r"[!-~]{1,64}")


class TokenKey(NamedTuple):
    """Identifies a token without revealing it.

    :ivar digest: SHA-256 of its issuer and ``jti``; without a ``jti``, of its header and payload.
    :ivar expires_at: UNIX time at which the token expires, leeway included; ``math.inf`` for never.
    :ivar issued_at: its ``iat`` claim, UNIX time; None without one.
    """

    digest: bytes
    expires_at: float
    issued_at: float | None = None


@dataclass(frozen=True)
class Grant:
    """What the holder of a token may open.

    :ivar user: the user's name or id.
    :ivar namespace: the only namespace.
    :ivar vmis: names of virtual machine instances in it.
    :ivar expires_at: UNIX time at which the grant expires, leeway included; ``math.inf`` for never.
    :ivar token_id: identifies the token in logs and lists without revealing it: its ``jti`` claim if that is
        a short word, else a part of its hash.
    :ivar patterns: whether ``*`` in ``vmis`` stands for any characters; otherwise it matches nothing.
    :ivar may_take_over: whether the holder may take a console over from another client, if the settings
        permit takeovers.
    :ivar token_key: the key by which the operator revokes the token; None for a grant without a token.
    """

    user: str | int
    namespace: str
    vmis: tuple[str, ...]
    expires_at: float
    token_id: str
    patterns: bool = False
    may_take_over: bool = True
    token_key: TokenKey | None = field(default=None, repr=False, compare=False)

    @property
    def fault(self) -> str | None:
        """A fault in the types of its values, None without one; for grants of an embedding program."""
        vmis = isinstance(self.vmis, tuple) and all(isinstance(name, str) for name in self.vmis)
        for good, what in (
            (isinstance(self.user, str) or _is_id(self.user), "user must be text or a whole number"),
            (isinstance(self.namespace, str), "namespace must be text"),
            (vmis, "vmis must be a tuple of texts"),
            (_is_time(self.expires_at), "expires_at must be a UNIX time, a number of seconds, or math.inf"),
            (isinstance(self.token_id, str), "token_id must be text"),
            (isinstance(self.patterns, bool), "patterns must be true or false"),
            (isinstance(self.may_take_over, bool), "may_take_over must be true or false"),
        ):
            if not good:
                return f"the grant's {what}"
        return None

    def seconds_left(self, now: float | None = None) -> float:
        """Return for how many seconds the grant is still valid; negative once it has expired.

        :param now: UNIX time; None for the system's clock.
        """
        return self.expires_at - (time.time() if now is None else now)

    def authorize(self, vmi: str, namespace: str | None = None) -> None:
        """Check that the grant includes ``vmi``, and that ``namespace``, if given, is the granted one.

        :raises Forbidden: if not.
        """
        if namespace not in (None, self.namespace) or not self._allows(vmi):
            raise Forbidden("the token does not allow this VMI")

    def _allows(self, vmi: str) -> bool:
        return vmi in self.vmis or (self.patterns and any(matches(name, vmi) for name in self.vmis))


class Pointer:
    """The place of a claim.

    :param text: a JSON pointer such as ``/lab_instance/namespace_name``; in a name ``~1`` stands for ``/``
        and ``~0`` for ``~``.
    """

    def __init__(self, text: str) -> None:
        assert self.is_one(text)
        self._text = text
        names = text.split("/")[1:]
        self._names = tuple(name.replace("~1", "/").replace("~0", "~") for name in names)

    @staticmethod
    def is_one(text: str) -> bool:
        """Whether ``text`` is a JSON pointer, other than the empty one to the whole document."""
        return re.fullmatch(r"(/([^~/]|~[01])*)+", text) is not None

    def find(self, claims: object, missing: object = None) -> Any:
        """Return the value at this place, or ``missing`` without one. Pointers do not lead into arrays."""
        for name in self._names:
            if not isinstance(claims, dict) or name not in claims:
                return missing
            claims = claims[name]
        return claims

    def __str__(self) -> str:
        return self._text


_USER = (Pointer("/id"), Pointer("/sub"))
_NAMESPACE = Pointer("/lab_instance/namespace_name")
_VMIS = Pointer("/lab_instance/allowed_vmi_names")
_VMI = Pointer("/lab_instance/vmi_name")  # lab-orchestrator-lib-auth 0.0.0 and 0.0.1, which had no list
_MISSING = object()
_TAKEOVER = Pointer("/may_take_over")


@dataclass(frozen=True, kw_only=True)
class ClaimRules:
    """The claims that a token must have, and their places.

    :ivar issuers: the accepted values of ``iss``. None accepts tokens with any ``iss``, and without one.
    :ivar audiences: the accepted values of ``aud``; a token must have one of them. None refuses all tokens
        with an ``aud``.
    :ivar leeway: seconds by which other clocks may be wrong. None means 5 for ``nbf`` and ``iat``, and 0 for
        ``exp``.
    :ivar eternal: whether the proxy accepts a token without ``exp``.
    :ivar user: places of the user; the first place that has a value counts.
    :ivar namespace: place of the namespace.
    :ivar vmis: place of the list of VMI names.
    :ivar vmi: place of a single name, for tokens without the list; None to require the list.
    :ivar takeover: place of a boolean. If it is false, the holder may not take consoles over.
    :ivar patterns: whether ``*`` in the name of a VMI stands for any characters.
    :ivar namespaces: the only namespaces that the proxy serves; None for all.
    """

    issuers: tuple[str, ...] | None = None
    audiences: tuple[str, ...] | None = None
    leeway: float | None = None
    eternal: bool = False
    user: tuple[Pointer, ...] = _USER
    namespace: Pointer = _NAMESPACE
    vmis: Pointer = _VMIS
    vmi: Pointer | None = _VMI
    takeover: Pointer = _TAKEOVER
    patterns: bool = False
    namespaces: tuple[str, ...] | None = None

    @classmethod
    def load(
        cls, *, user: Sequence[str], namespace: str, vmis: str, takeover: str = str(_TAKEOVER), **rest: Any
    ) -> ClaimRules:
        """Make rules from settings, which have texts instead of pointers.

        :raises ConfigError: with all faults.
        """
        pointers = (
            ("claim_user", tuple(user)),
            ("claim_namespace", (namespace,)),
            ("claim_vmis", (vmis,)),
            ("claim_takeover", (takeover,)),
        )
        faults = [
            f"{name} is {text!r}; it must be a JSON pointer such as /sub or /a/b"
            for name, texts in pointers
            for text in texts or ("",)
            if not Pointer.is_one(text)
        ]
        if faults:
            raise ConfigError(faults)
        return cls(
            user=tuple(map(Pointer, user)),
            namespace=Pointer(namespace),
            vmis=Pointer(vmis),
            vmi=_VMI if vmis == str(_VMIS) else None,
            takeover=Pointer(takeover),
            **rest,
        )

    def grant(self, claims: object, token_id: str, digest: bytes = b"", *, now: float | None = None) -> Grant:
        """Return the grant for the claims of a token whose signature is valid.

        :param token_id: identifies the token if it has no ``jti`` that is a short word.
        :param digest: the digest for :class:`TokenKey` if it has no ``jti``.
        :param now: UNIX time; None for the system's clock.
        :raises TokenExpired: if the token has expired.
        :raises TokenNotYetValid: if the token is not valid yet.
        :raises Forbidden: if the proxy does not serve its namespace.
        :raises BadToken: for every other fault.
        """
        if not isinstance(claims, dict):
            raise BadToken("the token's claims are not a JSON object")
        self._check_parties(claims)
        jti = claims.get("jti", "")
        if not isinstance(jti, str):
            raise BadToken("the token's jti claim must be a string")
        expires_at = self._check_times(claims, time.time() if now is None else now)
        namespace = self.namespace.find(claims)
        if not isinstance(namespace, str) or not is_dns_label(namespace):
            raise BadToken(f"the token's claim {self.namespace} must be a Kubernetes namespace")
        if self.namespaces is not None and namespace not in self.namespaces:
            raise Forbidden("the token's namespace is not served here")
        vmis = self._vmis(claims)
        takeover = self.takeover.find(claims)
        if not isinstance(takeover, bool | None):
            raise BadToken(f"the token's claim {self.takeover} must be true or false")
        return Grant(
            user=self._user(claims),
            namespace=namespace,
            vmis=vmis,
            expires_at=expires_at,
            token_id=jti if _SHORT_WORD.fullmatch(jti) else token_id,
            patterns=self.patterns,
            may_take_over=takeover is not False,
            token_key=TokenKey(
                _digest(claims.get("iss"), jti) if jti else digest, expires_at, _time(claims, "iat")
            ),
        )

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        if self.issuers is not None and not _is_one_of(claims.get("iss"), self.issuers):
            raise BadToken("the token is from another issuer")
        # RFC 7519 section 4.1.3: a recipient that aud does not name must reject the token.
        if "aud" in claims or self.audiences is not None:
            audience = claims.get("aud")
            named = audience if isinstance(audience, list) else [audience]
            if not any(_is_one_of(name, self.audiences or ()) for name in named):
                raise BadToken("the token is for another audience")

    def _check_times(self, claims: Mapping[str, Any], now: float) -> float:
        if (expires_at := _time(claims, "exp")) is None:
            if not self.eternal:
                raise BadToken("the token has no exp claim")
            expires_at = math.inf
        latest = now + (CLOCK_LEEWAY if self.leeway is None else self.leeway)
        for name in ("nbf", "iat"):
            begin = _time(claims, name)
            if begin is not None and begin > latest:
                raise TokenNotYetValid(f"the token is not valid yet, by its {name} claim")
        expires_at += self.leeway or 0.0
        if expires_at <= now:
            raise TokenExpired("the token has expired")
        return expires_at

    def _vmis(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        vmis = self.vmis.find(claims, _MISSING)
        if vmis is _MISSING and self.vmi:
            vmis = [self.vmi.find(claims)]
        if not isinstance(vmis, list) or not all(isinstance(name, str) for name in vmis):
            raise BadToken(f"the token's claim {self.vmis} must be a list of strings")
        return tuple(vmis)

    def _user(self, claims: Mapping[str, Any]) -> str | int:
        for pointer in self.user:
            user = pointer.find(claims)
            if user is not None:
                break
        if _is_id(user):
            return user
        if isinstance(user, str) and len(user) <= _MAX_USER and user.isprintable():
            return user
        places = " or ".join(map(str, self.user))
        raise BadToken(f"the token's claim {places} must be a short string or a whole number")


def _is_id(user: object) -> TypeGuard[int]:
    """Whether it is a whole number with so few digits that Python can print it."""
    return type(user) is int and abs(user) < _MAX_ID


def _is_time(value: object) -> bool:
    """Whether it is a number of seconds that fits into a float; a whole number may be too large."""
    try:
        return type(value) in (int, float) and not math.isnan(cast(float, value))
    except OverflowError:
        return False


def _is_one_of(name: object, expected: tuple[str, ...]) -> bool:
    return isinstance(name, str) and name in expected


def _digest(issuer: object, jti: str) -> bytes:
    """Return the digest of issuer and ``jti``; a ``jti`` is unique only with both (RFC 7519, 4.1.7)."""
    issuer = issuer if isinstance(issuer, str) else None
    return hashlib.sha256(json.dumps([issuer, jti]).encode("ascii")).digest()


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Return the NumericDate of a claim (RFC 7519 section 2); None without the claim."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_TIME:
        raise BadToken(f"the token's {name} claim must be a time in seconds")
    return float(value)


def matches(pattern: str, name: str) -> bool:
    """Whether ``name`` matches ``pattern``, where ``*`` stands for any characters. Takes linear time."""
    first, *between = pattern.split("*")
    if not between:
        return pattern == name
    last = between.pop()
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in between:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
