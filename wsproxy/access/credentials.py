"""Finds the one credential of a request. No I/O.

If a request has two credentials, it is refused, because the proxy would have to guess which one counts. Path,
header and subprotocol are counted even if they are disabled, because no client sends them by accident. Query
and cookie are examined only if they are enabled, because another application may use the same name.

No error text raised here quotes the request.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from ..exceptions import BadRequest, BadToken
from ..protocol.request import OWS, RequestHead
from ..protocol.routing import Route

__all__ = [
    "CREDENTIALS",
    "GRANT",
    "TICKET",
    "Credential",
    "bearer_token",
    "credential_faults",
    "find_credential",
    "looks_like_ticket",
]

CREDENTIALS = ("path", "header", "subprotocol", "query", "cookie")
"""The places in a request that may hold a token."""

TICKET = "ticket"
"""The kind of a one-time ticket, which stands in the path like a token."""

GRANT = "grant"
"""The kind of a request whose user the embedding program has authenticated, so it needs no credential."""

_TICKET = re.compile(r"[A-Za-z0-9_-]{22}")  # 128 bits; a JWT has dots in it
_SUBPROTOCOL = "base64url.bearer.authorization.k8s.io."  # Kubernetes' convention for browsers
_SPELLINGS = "".join(f"(?:{char}|%{ord(char):X}|%{ord(char):x})" for char in "token")
_QUERY_TOKEN = re.compile(rf"(?:\A|&){_SPELLINGS}(?:=([^&]*))?(?![^&])")
_COOKIE_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 6265 section 4.1.1
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def credential_faults(
    enabled: Collection[str], cookie_name: str, origins: Collection[str], client_certificates: bool
) -> list[str]:
    """Return the faults of the settings of credentials, alone and in combination.

    :param enabled: the places that may hold a token.
    :param cookie_name: the name of the cookie that may hold one.
    :param origins: the origins of the pages that may use the proxy; ``*`` for all.
    :param client_certificates: whether the proxy asks clients for a certificate.
    """
    faults = []
    if not enabled or not set(enabled) <= set(CREDENTIALS):
        faults.append(f"credentials is {list(enabled)!r}; choose from {', '.join(CREDENTIALS)}")
    if "cookie" in enabled and not origins:
        faults.append(
            "credentials has cookie, but allow_origin is not set: browsers send cookies for every page; "
            "name the pages that may use them, such as https://console.example"
        )
    if "*" in origins and ("cookie" in enabled or client_certificates):
        faults.append(
            "allow_origin has *, but browsers send cookies and client certificates for every page; "
            "name the pages that may use them"
        )
    if not _COOKIE_NAME.fullmatch(cookie_name):
        faults.append(f"cookie_name is {cookie_name!r}; use letters, digits, - and _")
    return faults


@dataclass(frozen=True)
class Credential:
    """The credential that a request authenticates with.

    :ivar kind: "path", "header", "subprotocol", "query", "cookie" or "ticket".
    :ivar token: a JWT or a ticket, not verified yet.
    """

    kind: str
    token: str = field(repr=False)

    @property
    def ambient(self) -> bool:
        """Whether browsers attach it to a request of any page."""
        return self.kind == "cookie"


def find_credential(
    head: RequestHead, route: Route, enabled: Collection[str], cookie_name: str, tickets: bool
) -> Credential:
    """Return the one credential of an upgrade request.

    :param route: the request's route, with what its path holds in the token's place.
    :param enabled: the kinds that are enabled.
    :param cookie_name: the name of the cookie that may hold a token.
    :param tickets: whether the path may hold a ticket instead of a token.
    :raises BadRequest: if there is more than one credential, or it is malformed.
    :raises BadToken: if there is no credential, or its kind is not enabled.
    """
    found = [Credential("header", token) for token in _authorizations(head)]
    if route.token is not None:
        kind = TICKET if tickets and looks_like_ticket(route.token) else "path"
        found.append(Credential(kind, route.token))
    found += [Credential("subprotocol", name) for name in _bearer_subprotocols(head)]
    if "query" in enabled:
        found += [Credential("query", value) for value in _query_values(head.target)]
    if "cookie" in enabled:
        found += [Credential("cookie", value) for value in _cookies(head, cookie_name)]
    if len(found) > 1:
        raise BadRequest("more than one credential in one request")
    if not found:
        raise BadToken("no token was given")
    credential = found[0]
    if credential.kind not in (*enabled, TICKET):
        raise BadToken(f"this proxy takes no token from the {credential.kind}")
    decode = _DECODERS.get(credential.kind)
    return Credential(credential.kind, decode(credential.token)) if decode else credential


def looks_like_ticket(text: str) -> bool:
    """Whether this path segment is a ticket and not a token, provided that tickets are enabled."""
    return _TICKET.fullmatch(text) is not None


def bearer_token(head: RequestHead) -> str:
    """Return the token of the Authorization header (RFC 6750 section 2.1).

    :raises BadRequest: if there is more than one such header.
    :raises BadToken: if no such header has a bearer token.
    """
    tokens = _authorizations(head)
    if not tokens:
        raise BadToken("no token was given")
    return tokens[0]


def _authorizations(head: RequestHead) -> list[str]:
    """Return the bearer token, if there is one. Other schemes belong to other applications."""
    values = head.values("authorization")
    if len(values) > 1:
        raise BadRequest("more than one Authorization header")
    return [value[7:].strip(OWS) for value in values if value[:7].lower() == "bearer "]


def _bearer_subprotocols(head: RequestHead) -> list[str]:
    return [name for name in head.tokens("sec-websocket-protocol") if name.lower().startswith(_SUBPROTOCOL)]


def _query_values(target: str) -> list[str]:
    """Return the values of ``token``, still percent-encoded."""
    return _QUERY_TOKEN.findall(target.partition("?")[2])


def _cookies(head: RequestHead, wanted: str) -> list[str]:
    """Return the values of the cookies named ``wanted`` (RFC 6265 section 4.2.1).

    Names are compared byte by byte. Browsers protect names such as ``__Host-x``, but let any page of a
    neighbouring host set a cookie whose name merely looks like it.
    """
    pair = re.compile(rf"(?:\A|;)[ \t]*{re.escape(wanted)}[ \t]*(?:=([^;]*))?(?![^;])")
    return [value.strip(OWS) for line in head.values("cookie") for value in pair.findall(line)]


def _from_query(value: str) -> str:
    decoded = unquote_to_bytes(value)
    if _BAD_PERCENT.search(value) or not decoded.isascii():
        raise BadRequest("the token in the query is not percent-encoded text")
    return decoded.decode("ascii")


def _from_subprotocol(name: str) -> str:
    """Decode base64url without padding (RFC 4648 section 5), in its one canonical form."""
    encoded = name[len(_SUBPROTOCOL) :]
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        if base64.urlsafe_b64encode(decoded).rstrip(b"=") != encoded.encode("ascii"):
            raise ValueError("not the canonical form")
        return decoded.decode("ascii")
    except (ValueError, binascii.Error):
        raise BadRequest("the token in the subprotocol is not in base64url without padding") from None


def _from_cookie(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return value[1:-1] if quoted else value


_DECODERS: dict[str, Callable[[str], str]] = {
    "query": _from_query,
    "subprotocol": _from_subprotocol,
    "cookie": _from_cookie,
}
