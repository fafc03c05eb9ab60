"""Target: addresses and URLs as they stand in settings, judged by a second parser where there is one."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network, summarize_address_range
from urllib.parse import urlsplit

from wsproxy.exceptions import ConfigError
from wsproxy.net.addresses import ListenAddress, WebURL, is_loopback, listen_fault
from wsproxy.protocol.client import UNIX_PEER, Peer, TrustedProxies
from wsproxy.protocol.origin import Origin, OriginPolicy
from wsproxy.protocol.routing import RouteRules
from wsproxy.tokens.jwks import JWKSLocation
from wsproxy.upstream.location import api_url
from wsproxy.web.urls import URLRules, console_url, page_url

__all__ = ["check"]

_TOKEN = "e30.e30.c2ln"
_RULES = URLRules(
    RouteRules(("ws_proxy",), "vnc", frozenset({"vnc", "console"})), ("path",), False, console_page=True
)
_PASSWORD = re.compile(r"://[^/?#@]*:([^/?#@]{4,})@")
_KEY = re.compile(r"://[^?#]*\?(?:[a-z]+=)?([^#&]{4,})")
_MARK = "xQ7zW3"
_LONGEST_PATH = 107  # sockaddr_un, with the 0 behind it


def check(data: bytes) -> None:
    """Read a text in one of some ways; the first byte says which. No UTF-8 is as in ``os.environ``."""
    text = data[1:].decode("utf-8", "surrogateescape")
    _CHECKS[(data or b"\0")[0] % len(_CHECKS)](text)


def _is_said_safely(exc: Exception, text: str, parse: Callable[[str], object]) -> None:
    """A fault stays in its line, and quotes neither a password nor a query.

    A strange word is put in their place, since the text itself may be elsewhere in a fault, too.
    """
    assert not re.search(r"[\x00-\x1f\x7f]", str(exc)), "a fault that is no line"
    for secret in (_PASSWORD, _KEY):
        if found := secret.search(text):
            try:
                parse(text[: found.start(1)] + _MARK + text[found.end(1) :])
            except ValueError as wrong:
                assert _MARK not in str(wrong), "a secret is told"


def _check_listen_address(text: str) -> None:
    try:
        address = ListenAddress.parse(text)
    except ValueError as wrong:
        assert type(wrong) is ValueError, "an error by chance"
        _is_said_safely(wrong, text, ListenAddress.parse)
        return
    assert ListenAddress.parse(str(address)) == address, "no round trip"
    if address.path:
        assert text == f"unix:{address.path}" and not address.host
        _check_unix_path(address.path)
        return
    assert 0 <= address.port <= 65535 and address.host and not re.search(r"[\s\0/]", address.host)
    assert ":" not in address.host or IPv6Address(address.host), "no such address"
    parts = urlsplit(f"//{text}")
    if text.isascii() and not re.search(r"[\x00-\x20?#@%\\]", text):
        assert (parts.hostname, parts.port) == (address.host.lower(), address.port), "another address"


def _check_unix_path(path: str) -> None:
    """It is a path that the system takes, or at least refuses by itself."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(os.path.join("/nonexistent", path.lstrip("/")))
        except OSError:
            pass


def _check_listen(text: str) -> None:
    fault = listen_fault(text, reuse_port=False)
    if fault is not None:
        assert fault.isprintable() and not fault.endswith("None")
        assert text not in ("unix:/run/x", "fd:3")
        return
    kind, _, rest = text.partition(":")
    if kind == "fd":
        assert rest.isascii() and rest.isdigit() and int(rest) <= 999999
        assert listen_fault(text, reuse_port=True), "an inherited descriptor cannot be shared"
    else:
        assert kind == "unix" and "\0" not in rest and rest[0] != "@"
        assert 0 < len(os.fsencode(rest)) < _LONGEST_PATH
        assert listen_fault(text, reuse_port=True) is None
        _check_unix_path(rest)


def _check_jwks(text: str) -> None:
    try:
        location = JWKSLocation.parse(text)
    except ConfigError as wrong:
        _is_said_safely(wrong, text, JWKSLocation.parse)
        return
    if location.url is None:
        assert location.path == text == location.text and "://" not in text
        return
    parts = urlsplit(text)
    _check_url(location.url, text, "https")
    assert location.path is None and "?" not in location.text and text.startswith(location.text)
    assert location.url.target == (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    assert location.url.tls or is_loopback(location.url.host), "keys that anybody could replace"
    again = JWKSLocation.parse(f"{parts.scheme}://{location.url.authority}{location.url.target}")
    assert again.url == location.url, "no round trip"


def _check_url(url: WebURL, text: str, secure: str) -> None:
    parts = urlsplit(text)
    tls = parts.scheme == secure
    assert (url.host, url.port, url.tls) == (parts.hostname, parts.port or (443 if tls else 80), tls)
    assert 0 < url.port <= 65535 and parts.port != 0 and parts.username is None and parts.password is None
    assert re.fullmatch(r"/[!-~]*", url.target) and "#" not in url.target
    assert re.fullmatch(r"[!-~]+", url.authority) and not set("/?#@\\") & set(url.authority), "a strange Host"
    if ":" in url.host:
        assert IPv6Address(url.host), "no such address"


def _check_upstream(text: str) -> None:
    try:
        url = api_url(text)
    except ConfigError as wrong:
        _is_said_safely(wrong, text, api_url)
        return
    _check_url(replace(url, target=url.target or "/"), text, "wss")
    assert not url.target.endswith("/") and not set("?#") & set(url.target)
    assert url.target == "" or url.target.startswith("/"), "a path that is none"
    assert api_url(url.below("")) == url, "no round trip"
    whole = urlsplit(url.below("/apis/x"))
    assert (whole.hostname, whole.port, whole.path) == (url.host, url.port, f"{url.target}/apis/x")


def _check_origin(text: str) -> None:
    origin = Origin.parse(text)
    try:
        policy = OriginPolicy([text])
    except ConfigError as wrong:
        assert origin is None and text != "*"
        _is_said_safely(wrong, text, lambda other: OriginPolicy([other]))
        return
    if origin is None:
        assert text == "*" and policy.every and not policy.allows("null", None)
        return
    written = f"{origin.scheme}://{origin.host}" + (f":{origin.port}" if origin.port is not None else "")
    assert Origin.parse(written) == origin, "no round trip"
    assert policy.allows(text, None) and policy.allows(text.upper(), None)
    for other in ("https://stranger.example", f"{text}.stranger.example", f"{text}/", f" {text}", "null"):
        assert Origin.parse(other) in (None, origin) or not policy.allows(other, None), "a page of others"
    parts = urlsplit(text)
    assert (parts.path, parts.query, parts.fragment, parts.username) == ("", "", "", None)
    assert parts.scheme == origin.scheme
    host = parts.hostname or ""
    assert f"[{IPv6Address(host)}]" == origin.host if ":" in host else host == origin.host
    assert parts.port is None or parts.port == origin.port


def _check_base(text: str) -> None:
    for make, secure in ((console_url, "wss"), (page_url, "https")):
        try:
            url = make(_RULES, text, _TOKEN, "vm-1", "console")
        except ValueError as wrong:
            assert _TOKEN not in str(wrong) and len(str(wrong)) < 200
            _is_said_safely(wrong, text, lambda other: console_url(_RULES, other, _TOKEN, "vm-1"))
            continue
        base, parts = urlsplit(text), urlsplit(url)
        assert url.isascii() and url.isprintable() and parts.netloc == base.netloc, "another server"
        assert (parts.scheme == secure) == (base.scheme in ("wss", "https"))
        assert parts.username is None and parts.query == "" and "@" not in parts.netloc
        _check_path(parts.path + (f"#{parts.fragment}" if parts.fragment else ""), base.path)


def _check_path(path: str, base: str) -> None:
    """The path of the base, or the prefix if it has none, stands in front of what we add."""
    root, tail = path.rsplit("/", 3)[0], path.rsplit("/", 3)[1:]
    assert tail in ([_TOKEN, "vm-1", "console"], [f"#{_TOKEN}", "vm-1", "console"]), "not the console"
    root = root.removesuffix("/console") if tail[0].startswith("#") else root
    segments = [part for part in base.split("/") if part]
    assert len(root.split("/")) == 1 + len(segments or ["ws_proxy"]), "segments came or went"
    assert segments or root == "/ws_proxy"
    assert not {".", ".."} & {part.lower().replace("%2e", ".") for part in root.split("/")}
    assert not re.search(r"%(?![0-9A-Fa-f]{2})", root)


def _check_proxies(text: str) -> None:
    try:
        trusted = TrustedProxies.parse([text])
    except ConfigError as wrong:
        assert str(wrong).isprintable()
        _is_said_safely(wrong, text, lambda other: TrustedProxies.parse([other]))
        return
    if text == "unix":
        assert trusted.unix and not trusted.networks and trusted.trusts(Peer(UNIX_PEER))
        return
    (network,) = trusted.networks
    assert network == _as_peers_see_it(text) and not trusted.unix and not trusted.trusts(Peer(UNIX_PEER))
    assert TrustedProxies.parse([str(network)]) == trusted, "no round trip"
    for address in (network[0], network[-1]):
        # A peer with an IPv4-mapped address counts as its IPv4 address, which no larger IPv6 network holds.
        mapped = isinstance(address, IPv6Address) and address.ipv4_mapped
        assert trusted.trusts(Peer.at(str(address), 1)) != bool(mapped)
    before = int(network[0]) - 1
    if before >= 0:
        there = ip_address(before) if network.version == 4 else IPv6Address(before)
        assert not trusted.trusts(Peer.at(str(there), 1))


def _as_peers_see_it(text: str) -> IPv4Network | IPv6Network:
    """Return the network, and of one with IPv4-mapped addresses alone the IPv4 one."""
    network = ip_network(text)
    ends = [end.ipv4_mapped for end in (network[0], network[-1]) if isinstance(end, IPv6Address)]
    if len(ends) == 2 and ends[0] and ends[1]:
        (network,) = summarize_address_range(ends[0], ends[1])
    return network


_CHECKS: tuple[Callable[[str], None], ...] = (
    _check_listen_address,
    _check_listen,
    _check_jwks,
    _check_upstream,
    _check_origin,
    _check_base,
    _check_proxies,
)
