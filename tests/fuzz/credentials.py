"""Target: the one credential of a request, in its path, its query, its headers and its cookies."""

from __future__ import annotations

import base64
from urllib.parse import unquote_to_bytes

from wsproxy.access.credentials import (
    CREDENTIALS,
    TICKET,
    Credential,
    bearer_token,
    find_credential,
    looks_like_ticket,
)
from wsproxy.exceptions import BadRequest, BadToken, Refused
from wsproxy.protocol.request import RequestHead
from wsproxy.protocol.routing import Route, RouteRules, session_route

from .requests import head_of, own_fields
from .texts import assert_own_text

__all__ = ["check"]

_COOKIES = ("wsproxy_token", "__Host-token")
_SUBPROTOCOL = "base64url.bearer.authorization.k8s.io."
_OTHER_COOKIES = b"Cookie: name=J\xc3\xbcrgen; other=\xff; tokenx=1"
_MANY = 100


class _Doubt(Exception):
    """The plain reader refuses, too."""


def check(data: bytes) -> None:
    """Find the credential of a request. The first two bytes say what is switched on.

    Behind them comes the target, and then the header lines, each behind a line feed.
    """
    flags = int.from_bytes(data[:2], "big")
    target, *lines = data[2:].split(b"\n")
    enabled = [kind for bit, kind in enumerate(CREDENTIALS) if flags >> bit & 1]
    tickets, cookie = bool(flags & 32), _COOKIES[flags >> 6 & 1]
    head = head_of(target, lines)
    if head is None:
        return
    try:
        route = session_route(head.target, RouteRules((), "vnc", frozenset({"vnc", "console"})))
    except Refused:
        return
    found = _found(head, route, enabled, cookie, tickets)
    _compare(found, head.target, own_fields(lines), route, enabled, cookie, tickets)
    if isinstance(found, Credential):
        _check_literal(found, data)
    _check_bearer(head, own_fields(lines))
    # What others put there is theirs, and no text.
    if len(lines) < _MANY - 2 and len(data) < 8000:
        beside = head_of(target, [*lines, _OTHER_COOKIES])
        assert beside is not None
        again = _found(beside, route, enabled, cookie, tickets)
        assert again == found, "a neighbour's cookies make a difference"


def _found(
    head: RequestHead, route: Route, enabled: list[str], cookie: str, tickets: bool
) -> Credential | type[Refused]:
    try:
        return find_credential(head, route, enabled, cookie, tickets)
    except (BadRequest, BadToken) as refused:  # anything else is a finding
        assert_own_text(refused)
        return type(refused)


def _compare(
    found: Credential | type[Refused],
    target: str,
    fields: list[tuple[str, str]],
    route: Route,
    enabled: list[str],
    cookie: str,
    tickets: bool,
) -> None:
    """Compare with what a reader finds that splits, and looks for nothing but equal names."""
    try:
        candidates = _candidates(target, fields, route, enabled, cookie, tickets)
        if len(candidates) > 1:
            raise _Doubt
    except _Doubt:
        assert found is BadRequest, "which credential counts was guessed"
        return
    if not candidates or candidates[0][0] not in (*enabled, TICKET):
        assert found is BadToken, "a credential from nowhere"
        return
    kind, written = candidates[0]
    try:
        token = _decoded(kind, written)
    except (_Doubt, ValueError):
        assert found is BadRequest, "a credential that is written wrongly"
        return
    assert found == Credential(kind, token), "another credential than the one that is there"
    assert kind == "cookie" or not found.ambient


def _candidates(
    target: str,
    fields: list[tuple[str, str]],
    route: Route,
    enabled: list[str],
    cookie: str,
    tickets: bool,
) -> list[tuple[str, str]]:
    authorizations = [value for name, value in fields if name == "authorization"]
    if len(authorizations) > 1:
        raise _Doubt
    found = [
        ("header", rest.strip(" \t"))
        for scheme, space, rest in (value.partition(" ") for value in authorizations)
        if scheme.lower() == "bearer" and space
    ]
    if route.token is not None:
        found.append((TICKET if tickets and looks_like_ticket(route.token) else "path", route.token))
    protocols = ",".join(value for name, value in fields if name == "sec-websocket-protocol").split(",")
    if len(protocols) > _MANY:
        raise _Doubt
    names = [protocol.strip(" \t") for protocol in protocols]
    found += [("subprotocol", name) for name in names if name.lower().startswith(_SUBPROTOCOL)]
    if "query" in enabled:
        pairs = [pair.partition("=") for pair in target.partition("?")[2].split("&")]
        found += [("query", value) for name, _, value in pairs if unquote_to_bytes(name) == b"token"]
    if "cookie" in enabled:
        lines = [value for name, value in fields if name == "cookie"]
        pairs = [pair.partition("=") for line in lines for pair in line.split(";")]
        found += [("cookie", value.strip(" \t")) for name, _, value in pairs if name.strip(" \t") == cookie]
    return found


def _decoded(kind: str, written: str) -> str:
    if kind == "subprotocol":
        encoded = written[len(_SUBPROTOCOL) :]
        token = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("ascii")
        if base64.urlsafe_b64encode(token.encode()).decode().rstrip("=") != encoded:
            raise _Doubt
        return token
    if kind == "query":
        for after in written.split("%")[1:]:
            if len(after) < 2 or not set(after[:2]) <= set("0123456789abcdefABCDEF"):
                raise _Doubt
        return unquote_to_bytes(written).decode("ascii")
    if kind == "cookie" and len(written) > 1 and written[0] == written[-1] == '"':
        return written[1:-1]
    return written


def _check_literal(found: Credential, data: bytes) -> None:
    """What is verified is what was sent, byte by byte, but for the two encodings."""
    assert found.token not in repr(found) or len(found.token) < 12, "a credential shows itself"
    if found.kind not in ("query", "subprotocol"):
        assert found.token.encode("latin-1") in data


def _check_bearer(head: RequestHead, fields: list[tuple[str, str]]) -> None:
    try:
        token = bearer_token(head)
    except (BadRequest, BadToken) as refused:
        assert_own_text(refused)
        return
    values = [value for name, value in fields if name == "authorization"]
    assert len(values) == 1 and values[0][:7].lower() == "bearer " and values[0][7:].strip(" \t") == token
