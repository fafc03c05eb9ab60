"""Who the client is, and how it addressed us, through proxies that are trusted to say so. No I/O.

X-Forwarded-For, -Proto and -Host, and Forwarded (RFC 7239), can be sent by anybody. They are looked at
only if the peer of the connection is a trusted proxy, and then only what trusted proxies added counts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from ..exceptions import BadRequest, ConfigError
from .origin import Origin
from .request import RequestHead

__all__ = ["UNIX_PEER", "Client", "Network", "TrustedProxies", "client_of", "host_of", "network_of"]

UNIX_PEER = "unix"
"""The other end of a connection over a Unix socket, which has no address."""

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address
_X_FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
# RFC 7239 section 4: pairs between semicolons, elements between commas.
_PAIR = r'[!#$%&\'*+.^_`|~0-9A-Za-z-]+=(?:[!#$%&\'*+.^_`|~0-9A-Za-z-]+|"(?:[^"\\]|\\.)*")'
_ELEMENT = re.compile(rf"[ \t]*({_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*)[ \t]*(?:,|\Z)")
_MOST_ELEMENTS = 100
_AS_HTTP = {"http": "http", "https": "https", "ws": "http", "wss": "https"}  # some proxies name the latter
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+):[0-9]+")


@dataclass(frozen=True)
class TrustedProxies:
    """The proxies whose headers are believed.

    :ivar networks: where they are.
    :ivar unix: whether whoever comes over a Unix socket is one, too.
    """

    networks: tuple[Network, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, texts: Collection[str]) -> TrustedProxies:
        """Parse addresses, networks and :data:`UNIX_PEER`.

        :raises ConfigError: if one of them is none of these.
        """
        try:
            networks = tuple(ip_network(text) for text in texts if text != UNIX_PEER)
        except ValueError as exc:
            remedy = "write addresses and networks, as 10.0.0.0/8, or unix"
            raise ConfigError([f"trusted_proxies: {exc}; {remedy}"]) from None
        return cls(networks, UNIX_PEER in texts)

    def trusts(self, peer: str, address: _Address | None) -> bool:
        """Whether the other end of a connection is one of them."""
        return _is_in(address, self.networks) if address else self.unix and peer == UNIX_PEER


@dataclass(frozen=True)
class Client:
    """Who speaks to us. Its text is for the log.

    :ivar peer: the other end of the connection, ``HOST:PORT`` or :data:`UNIX_PEER`.
    :ivar address: the client's IP address, without its port; "" if it is not known.
    :ivar asked: scheme and host that the client sent its request to, as ``scheme://host[:port]``.
    """

    peer: str
    address: str = ""
    asked: str = ""

    @property
    def own(self) -> Origin | None:
        """The origin of pages of the very host that the request went to; None if that is unknown."""
        return Origin.parse(self.asked)

    def __str__(self) -> str:
        return self.peer if self.address in ("", host_of(self.peer)) else f"{self.address} via {self.peer}"


def client_of(head: RequestHead, peer: str, tls: bool, trusted: TrustedProxies) -> Client:
    """Find out who sent a request, and where to.

    :param peer: the other end of the connection, ``HOST:PORT`` or :data:`UNIX_PEER`.
    :param tls: whether the connection is TLS.
    :param trusted: the proxies whose headers are believed.
    :raises BadRequest: if a trusted proxy's headers contradict each other, or are malformed.
    """
    address = host_of(peer)
    scheme, host = "https" if tls else "http", next(iter(head.values("host")), "")
    nearest = _address(address) if trusted.networks else None
    if trusted.trusts(peer, nearest):
        hops, said = _forwarded(head)
        scheme, host = _AS_HTTP.get(said.get("proto", scheme).lower(), ""), said.get("host", host)
        address = str(_first_untrusted(nearest, hops, trusted.networks) or "")
    return Client(peer, address, f"{scheme}://{host}")


def _first_untrusted(
    nearest: _Address | None, hops: Sequence[str], trusted: Collection[Network]
) -> _Address | None:
    """Go back from the peer, over all that trusted proxies say of who was before them.

    :param nearest: the peer, which is trusted; None for one that has no address.
    """
    for hop in reversed(hops):  # the last one is the peer's own word
        before = _address(hop) if nearest is None or _is_in(nearest, trusted) else None
        if before is None:
            break
        nearest = before
    return nearest


def _forwarded(head: RequestHead) -> tuple[list[str], Mapping[str, str]]:
    """Return the addresses on the way here, and what the nearest proxy says of the request."""
    elements = _elements(",".join(head.values("forwarded")))
    others = [name for name in _X_FORWARDED if head.values(name)]
    if elements and others:
        # A proxy that knows one kind only passes on what the client itself sent of the other.
        raise BadRequest("both Forwarded and X-Forwarded headers; the proxy in front must send one kind")
    if elements:
        return [element.get("for", "") for element in elements], elements[-1]
    said = {name.removeprefix("x-forwarded-"): head.tokens(name)[-1:] for name in others}
    return head.tokens("x-forwarded-for"), {name: values[0] for name, values in said.items() if values}


def _elements(text: str) -> list[dict[str, str]]:
    """Parse a Forwarded header (RFC 7239 section 4)."""
    if text.count(",") >= _MOST_ELEMENTS:
        raise BadRequest(f"the Forwarded header has more than {_MOST_ELEMENTS} elements")
    elements: list[dict[str, str]] = []
    at = 0
    while at < len(text):
        match = _ELEMENT.match(text, at)
        if match is None:
            raise BadRequest("the Forwarded header is malformed")
        pairs = [pair.partition("=") for pair in re.findall(_PAIR, match[1])]
        element = {name.lower(): _unquoted(value) for name, _, value in pairs}
        if len(element) < len(pairs):
            raise BadRequest("the Forwarded header is malformed")
        elements.append(element)
        at = match.end()
    return elements


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def host_of(peer: str) -> str:
    """Return the address of a peer, ``HOST:PORT``, without a scope (RFC 4007)."""
    return peer.rpartition(":")[0].strip("[]").partition("%")[0]


def _address(text: str) -> _Address | None:
    """Parse an IP address, with or without brackets and a port; None for anything else."""
    match = _WITH_PORT.fullmatch(text)
    host: str = match[match.lastindex or 0] if match else text
    try:
        # Without a scope, which could be any text.
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _is_in(address: _Address, networks: Collection[Network]) -> bool:
    return any(address in network for network in networks)


def network_of(address: Any) -> str:
    """Return what clients are counted by: the IPv4 address, or the /64 of an IPv6 one.

    Whoever has one IPv6 address usually has all of its /64.

    :param address: as ``accept`` returned it.
    """
    try:
        host = str(address[0])
        if ":" not in host:
            return host
        found = ipaddress.IPv6Address(host)
    except (IndexError, TypeError, ValueError):
        return "unknown"
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return f"{ipaddress.IPv6Address(found.packed[:8] + bytes(8))}/64"
