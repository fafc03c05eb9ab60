"""From a token's claims (RFC 7519) to what its holder may open. No I/O.

Where a claim stands is configured, by JSON pointers (RFC 6901) through objects. By default it is the layout
of LabOrchestrator's tokens::

    {"id": 5, "exp": 1700000000.5, "lab_instance": {"lab_id": 1, "lab_instance_id": 2,
     "namespace_name": "lab-1", "allowed_vmi_names": ["ubuntu"], "additional_data": {}}}

Every claim that is used is checked for its type first, and names are compared as a whole.
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

__all__ = ["ClaimRules", "Grant", "Pointer", "TokenKey", "matches"]

_BEGIN_LEEWAY = 5.0  # a token that has just been made, by a machine whose clock is ahead, is no forgery
_MAX_TIME = 253402300799  # 9999-12-31T23:59:59Z; a time in milliseconds lies beyond it
_MAX_ID = 2**63
_MAX_USER = 255  # OpenID Connect Core 1.0 section 2: sub
_SHORT_WORD = re.compile(r"[!-~]{1,64}")


class TokenKey(NamedTuple):
    """By what a token is known, without giving it away.

    :ivar digest: SHA-256 of its issuer and ``jti``, or else of what is signed.
    :ivar expires_at: UNIX time from which on it is void; ``math.inf`` for never.
    """

    digest: bytes
    expires_at: float


@dataclass(frozen=True)
class Grant:
    """What the holder of a token may open.

    :ivar user: who it is.
    :ivar namespace: the one namespace.
    :ivar vmis: names of virtual machine instances in it.
    :ivar expires_at: UNIX time from which on it is void, leeway included; ``math.inf`` for never.
    :ivar token_id: names the token in logs and lists, without giving it away: its ``jti`` claim if that is a
        short word, else made from its hash.
    :ivar patterns: whether ``*`` in ``vmis`` stands for any characters; otherwise it matches nothing.
    :ivar may_take_over: whether it may take a console from who has it, where consoles can be taken over.
    :ivar token_key: by what its token is known when that is revoked; None if there is none.
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
        """What is wrong with its own form, None if nothing is; for those that an embedding program makes."""
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
        """Return how long the token is still valid; negative once it is not.

        :param now: UNIX time; None for what the clock says.
        """
        return self.expires_at - (time.time() if now is None else now)

    def authorize(self, vmi: str, namespace: str | None = None) -> None:
        """Check that ``vmi`` may be opened, and that ``namespace``, if given, is the granted one.

        :raises Forbidden: if not.
        """
        if namespace not in (None, self.namespace) or not self._allows(vmi):
            raise Forbidden("the token does not allow this VMI")

    def _allows(self, vmi: str) -> bool:
        return vmi in self.vmis or (self.patterns and any(matches(name, vmi) for name in self.vmis))


class Pointer:
    """Where a claim stands.

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
        """Whether this is a pointer to something below the whole."""
        return re.fullmatch(r"(/([^~/]|~[01])*)+", text) is not None

    def find(self, claims: object, missing: object = None) -> Any:
        """Return what stands there, ``missing`` if there is nothing; an array is not gone through."""
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
    """What a token must say, and where it says what its holder may open.

    :ivar issuers: the ``iss`` that are taken; None for any and none.
    :ivar audiences: what ``aud`` must hold one of; None means that a token for any audience is refused.
    :ivar leeway: seconds by which other clocks may be wrong; None for 5 where a token begins, by ``nbf`` and
        ``iat``, and none where it ends.
    :ivar eternal: whether a token without ``exp`` is taken.
    :ivar user: where the user is; the first that is there counts.
    :ivar vmi: where a token that has no such list has the one name; None for nowhere.
    :ivar takeover: where it says, by false, that consoles may not be taken over with it.
    :ivar patterns: whether ``*`` in the name of a VMI stands for any characters.
    :ivar namespaces: the only namespaces that are served; None for all.
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
        """Make rules of settings, which have text where the rules have pointers.

        :raises ConfigError: listing every fault.
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
        """Return what the claims of a token with a right signature grant.

        :param token_id: what names it if it has no ``jti`` that does.
        :param digest: what it is revoked by if it has no ``jti``.
        :param now: UNIX time; None for what the clock says.
        :raises TokenExpired: if its time is over.
        :raises TokenNotYetValid: if its time has not begun.
        :raises Forbidden: if its namespace is not served here.
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
            token_key=TokenKey(_digest(claims.get("iss"), jti) if jti else digest, expires_at),
        )

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        if self.issuers is not None and not _is_one_of(claims.get("iss"), self.issuers):
            raise BadToken("the token is of another issuer")
        if (
            "aud" in claims or self.audiences is not None
        ):  # RFC 7519 section 4.1.3: whoever is not meant refuses
            audience = claims.get("aud")
            named = audience if isinstance(audience, list) else [audience]
            if not any(_is_one_of(name, self.audiences or ()) for name in named):
                raise BadToken("the token is for another audience")

    def _check_times(self, claims: Mapping[str, Any], now: float) -> float:
        if (expires_at := _time(claims, "exp")) is None:
            if not self.eternal:
                raise BadToken("the token has no exp claim")
            expires_at = math.inf
        latest = now + (_BEGIN_LEEWAY if self.leeway is None else self.leeway)
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
    """Whether it is a whole number, and none of so many digits that Python does not print it."""
    return type(user) is int and abs(user) < _MAX_ID


def _is_time(value: object) -> bool:
    """Whether it is a time that can be reckoned with; a whole number may be too large for that."""
    try:
        return type(value) in (int, float) and not math.isnan(cast(float, value))
    except OverflowError:
        return False


def _is_one_of(name: object, expected: tuple[str, ...]) -> bool:
    return isinstance(name, str) and name in expected


def _digest(issuer: object, jti: str) -> bytes:
    """Return what stands for a token: a ``jti`` is its issuer's (RFC 7519 section 4.1.7)."""
    issuer = issuer if isinstance(issuer, str) else None
    return hashlib.sha256(json.dumps([issuer, jti]).encode("ascii")).digest()


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519 section 2), None if there is none."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_TIME:
        raise BadToken(f"the token's {name} claim must be a time in seconds")
    return float(value)


def matches(pattern: str, name: str) -> bool:
    """Whether ``name`` fits, where ``*`` stands for any characters. Linear in both, whatever they are."""
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
