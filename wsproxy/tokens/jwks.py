"""Parses JWK Sets (RFC 7517), and the setting that says where one is. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..exceptions import ConfigError
from ..kinds import shown_url
from ..net.addresses import WebURL, is_loopback
from ..protocol.strict_json import parse_json
from ..runtime.logs import get_logger
from .keys import VerificationKey, key_of_jwk

__all__ = ["JWKSLocation", "parse_jwks"]

logger = get_logger("wsproxy.jwks")

_MAX_BRACKETS = 500
_MAX_KEYS = 100  # if a token names no key, the proxy tries each key of its algorithm


@dataclass(frozen=True)
class JWKSLocation:
    """Where a JWK Set is: at a path or at a URL.

    :ivar text: the setting without its query, which may hold a credential for the server.
    :ivar path: of a file, None for a URL.
    :ivar url: None for a file.
    """

    text: str
    path: str | None = None
    url: WebURL | None = None

    @classmethod
    def parse(cls, text: str) -> JWKSLocation:
        """Parse a path, or a URL, which must be https, or http to this machine.

        :raises ConfigError: if it is any other URL.
        """
        if "://" not in text:
            return cls(text, path=text)
        if "@" in text:  # the error does not quote the URL, which holds a password
            remedy = "leave that out, the proxy fetches keys without a login"
            raise ConfigError([f"jwks has a user name in it; {remedy}"])
        fault = f"jwks is {shown_url(text)}"
        try:
            url = WebURL.parse(text)
        except ValueError as exc:
            raise ConfigError([f"{fault}: {exc}"]) from None
        if url.scheme not in ("http", "https") or "#" in text:
            raise ConfigError([f"{fault}; it must be a file, or look like https://HOST/PATH"])
        if not url.tls and not is_loopback(url.host):
            raise ConfigError([f"{fault}; an attacker on the network could replace the keys: use https"])
        target = url.target if url.target.startswith("/") else f"/{url.target}"
        return cls(text.partition("?")[0], url=replace(url, target=target))


def parse_jwks(
    raw: bytes, algorithms: Sequence[str] | None, *, symmetric: bool
) -> tuple[VerificationKey, ...]:
    """Return the keys of a set that can verify tokens.

    Keys for other purposes are skipped. Keys that must not be used are skipped with one warning for all. But
    the operator provides a secret, so if that must not be used, the whole set is refused.

    :param algorithms: as for :func:`.load_keys`.
    :param symmetric: whether secrets are accepted.
    :raises ValueError: if it is not a JWK Set, has too many keys, or has a secret that must not be used. The
        text quotes no key.
    """
    found = parse_json(raw, _MAX_BRACKETS)
    members = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(members, list) or not all(isinstance(jwk, dict) for jwk in members):
        raise ValueError("it is not a JWK Set")
    if len(members) > _MAX_KEYS:
        raise ValueError(f"it has {len(members)} keys; at most {_MAX_KEYS} are allowed")
    keys, faults = [], []
    for jwk in members:
        try:
            key = key_of_jwk(jwk, algorithms, symmetric=symmetric)
        except ValueError as exc:
            if symmetric and jwk.get("kty") == "oct":
                raise
            faults.append(str(exc))
        else:
            keys += [key] if key else []
    if faults:
        logger.warning("%d keys of the JWK Set are not used: %s", len(faults), "; ".join(faults)[:500])
    return tuple(keys)
