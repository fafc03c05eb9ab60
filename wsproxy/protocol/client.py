"""Finds the client's address, and the host it asked for, behind trusted proxies. No I/O.

Any client can send X-Forwarded-For, -Proto, -Host and -Port, and Forwarded (RFC 7239). This module reads
them only if the peer of the connection is a trusted proxy. Then only what trusted proxies added counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from ..exceptions import BadRequest, ConfigError
from ..kinds import shown_url
from .origin import Origin
from .request import RequestHead

__all__ = [
    "HEADER_KINDS",
    "UNIX_PEER",
    "Client",
    "Network",
    "Peer",
    "TrustedProxies",
    "client_of",
]

UNIX_PEER = "unix"
"""Text of the peer of a Unix socket, which has no address."""

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address
HEADER_KINDS = ("auto", "x-forwarded", "forwarded")
"""Which headers of a trusted proxy count: "auto" means both kinds if they agree, the others one kind only."""

# RFC 7239 section 4: semicolons separate pairs, commas separate elements. An address with colons or brackets
# should be quoted, but haproxy, for example, does not quote it.
_UNQUOTED = r"[!#$%&\'*+.^_`|~0-9A-Za-z:\[\]-]+"
_PAIR = rf'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=({_UNQUOTED}|"(?:[^"\\]|\\.)*")'
_NEXT_PAIR = re.compile(rf"[ \t]*{_PAIR}[ \t]*([;,]|\Z)")
_MOST_ELEMENTS = 100
_AS_HTTP = {"http": "http", "https": "https", "ws": "http", "wss": "https"}  # some proxies send ws and wss
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+):[0-9]+")
_WITHOUT_PORT = re.compile(r"[a-z]+://(?:\[[^\]]*\]|[^:\[\]]+)")
_PORT = re.compile("[0-9]{1,5}")
_MAPPED_BITS = 96  # the prefix of IPv4-mapped addresses (RFC 4291 section 2.5.5.2)


@dataclass(frozen=True)
class Peer:
    """The other end of a connection. ``str()`` of it is for the log.

    :ivar text: ``HOST:PORT``, :data:`UNIX_PEER`, or "unknown".
    :ivar address: its IP address, without port and zone (RFC 4007); "" if it has none.
    """

    text: str
    address: str = ""

    @classmethod
    def at(cls, host: str, port: int | str) -> Peer:
        """Return the peer at a host and port."""
        text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls(text, host.strip("[]").partition("%")[0])

    @classmethod
    def accepted(cls, address: Any) -> Peer:
        """Return the peer of a connection.

        :param address: as ``accept`` returned it.
        """
        if isinstance(address, str | bytes):
            return cls(UNIX_PEER)
        try:
            host, port = address[:2]
        except (TypeError, ValueError):
            return cls("unknown")
        return cls.at(str(host).removeprefix("::ffff:"), port)

    @cached_property
    def ip(self) -> _Address | None:
        """The address as an object of :mod:`ipaddress`; None if there is no address."""
        return _address(self.address)

    @cached_property
    def network(self) -> str:
        """The network that limits count clients by; see :func:`_network_of`."""
        return _network_of(self.address)

    def __str__(self) -> str:
        return self.text


def _network(text: str) -> Network:
    try:
        if "%" in text:  # the addresses of peers are compared without theirs, and a zone may be any text
            raise ValueError(f"{text!r} has a zone or a percent sign")
        network = ip_network(text)
    except ValueError as exc:
        # The text may be a proxy's URL with a password, so the error does not quote it in full.
        fault = str(exc).replace(repr(text), shown_url(text))
        remedy = "write addresses and networks, as 10.0.0.0/8, or unix"
        raise ConfigError([f"trusted_proxies: {fault}; {remedy}"]) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped and network.prefixlen >= _MAPPED_BITS:  # as the address of a peer, which loses this prefix, too
        return ip_network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


@dataclass(frozen=True)
class TrustedProxies:
    """The proxies whose headers are trusted.

    :ivar networks: their addresses.
    :ivar unix: whether each peer of a Unix socket is a trusted proxy, too.
    :ivar kind: which of their headers count, one of :data:`HEADER_KINDS`.
    :ivar proxy_protocol: whether they begin each connection with a header of the PROXY protocol.
    """

    networks: tuple[Network, ...] = ()
    unix: bool = False
    kind: str = "auto"
    proxy_protocol: bool = False

    @classmethod
    def parse(
        cls, texts: Collection[str], kind: str = "auto", proxy_protocol: bool = False
    ) -> TrustedProxies:
        """Parse addresses, networks and :data:`UNIX_PEER`.

        :raises ConfigError: if a text is something else, if ``kind`` is unknown, or if ``kind`` or
            ``proxy_protocol`` is set without any text.
        """
        if kind not in HEADER_KINDS:
            raise ConfigError([f"forwarded_headers is {kind!r}; choose from {', '.join(HEADER_KINDS)}"])
        if not texts and (proxy_protocol or kind != "auto"):
            name = "proxy_protocol" if proxy_protocol else "forwarded_headers"
            raise ConfigError([f"{name} is set but trusted_proxies is not; name the proxies to trust"])
        networks = tuple(_network(text) for text in texts if text != UNIX_PEER)
        return cls(networks, UNIX_PEER in texts, kind, proxy_protocol)

    def trusts(self, peer: Peer) -> bool:
        """Whether the peer of a connection is one of them."""
        if peer.text == UNIX_PEER:
            return self.unix
        return bool(self.networks) and peer.ip is not None and _is_in(peer.ip, self.networks)


@dataclass(frozen=True)
class Client:
    """The client that sent a request. ``str()`` of it is for the log.

    :ivar peer: the other end of the connection.
    :ivar address: the client's IP address, without port; "" if it is not known.
    :ivar asked: scheme and host that the client sent its request to, as ``scheme://host[:port]``.
    """

    peer: Peer
    address: str = ""
    asked: str = ""

    @property
    def own(self) -> Origin | None:
        """The origin of pages from the host that the request went to; None if that host is unknown."""
        return Origin.parse(self.asked)

    def __str__(self) -> str:
        if self.address in ("", self.peer.address):
            return self.peer.text
        return f"{self.address} via {self.peer}"

    @cached_property
    def network(self) -> str:
        """The network that limits count it by; see :func:`_network_of`."""
        return self.peer.network if self.address == self.peer.address else _network_of(self.address)


def client_of(
    head: RequestHead, peer: Peer, tls: bool, trusted: TrustedProxies, source: Peer | None = None
) -> Client:
    """Return the client that sent a request, and the host that it asked for.

    :param peer: the other end of the connection.
    :param tls: whether the connection is TLS.
    :param trusted: the proxies whose headers are trusted.
    :param source: the source that a trusted peer gave in a PROXY protocol header, None without one.
    :raises BadRequest: if a trusted proxy's headers contradict each other, or are malformed.
    """
    before = source or peer
    scheme, host = "https" if tls else "http", next(iter(head.values("host")), "")
    client = Client(peer, before.address, f"{scheme}://{host}")
    if not trusted.trusts(before):
        return client
    found = set()
    for said in filter(_Said.says_anything, _said(head, trusted.kind)):
        first = _first_untrusted(before.ip, said.hops, trusted.networks)
        asked = _AS_HTTP.get(said.scheme or scheme, "")
        found.add(Client(peer, str(first or ""), _asked(asked, said.host or host)))
    if len(found) > 1:
        # A proxy that knows only one kind passes the other kind on as the client sent it.
        raise BadRequest(
            "the Forwarded and X-Forwarded headers contradict each other; "
            "the setting forwarded_headers says which of them count"
        )
    return _at_port(found.pop() if found else client, head, trusted.kind)


def _asked(scheme: str, host: str) -> str:
    """Return scheme and host of a request in their normal form."""
    origin = Origin.parse(f"{scheme}://{host}")
    return f"{scheme}://{origin.authority if origin else host}"


def _at_port(client: Client, head: RequestHead, kind: str) -> Client:
    """Return the client with the port of X-Forwarded-Port, if its Origin header has that port.

    A proxy may have removed the port from the host. But the header may also name a port that clients do not
    know, and the host is right without it. The Origin header tells the two cases apart.
    """
    port = _last(head, "x-forwarded-port") if kind != "forwarded" else ""
    if _PORT.fullmatch(port) and _WITHOUT_PORT.fullmatch(client.asked):
        there = replace(client, asked=f"{client.asked}:{port}")
        pages = [Origin.parse(value) for value in head.values("origin")]
        if there.own and pages == [there.own]:
            return there
    return client


@dataclass(frozen=True)
class _Said:
    """The values of one kind of headers.

    :ivar hops: the addresses from the client to the nearest proxy's peer.
    :ivar scheme: as the nearest proxy gave it, in lower case; "" if it gave none.
    :ivar host: as the nearest proxy gave it; "" if it gave none.
    """

    hops: Sequence[str] = ()
    scheme: str = ""
    host: str = ""

    def says_anything(self) -> bool:
        """Whether the request has such headers."""
        return bool(self.hops or self.scheme or self.host)


def _first_untrusted(
    nearest: _Address | None, hops: Sequence[str], trusted: Collection[Network]
) -> _Address | None:
    """Walk back from the peer, over the hops that trusted proxies added, to the first untrusted address.

    :param nearest: the peer, which is trusted; None if it has no address.
    """
    for hop in reversed(hops):  # the peer added the last one
        before = _address(hop) if nearest is None or _is_in(nearest, trusted) else None
        if before is None:
            break
        nearest = before
    return nearest


def _said(head: RequestHead, kind: str) -> Iterator[_Said]:
    """Yield the values of each kind of headers that counts. Headers of the other kind are not parsed."""
    if kind != "x-forwarded":
        elements = _elements(",".join(head.values("forwarded")))
        nearest = elements[-1] if elements else {}
        hops = [element.get("for", "") for element in elements]
        yield _Said(hops, nearest.get("proto", "").lower(), nearest.get("host", ""))
    if kind != "forwarded":
        scheme, host = (_last(head, f"x-forwarded-{name}") for name in ("proto", "host"))
        yield _Said(head.tokens("x-forwarded-for"), scheme.lower(), host)


def _last(head: RequestHead, name: str) -> str:
    """Return the last element of a header, which the nearest proxy added; "" if there is none."""
    return next(iter(head.tokens(name)[-1:]), "")


def _elements(text: str) -> list[dict[str, str]]:
    """Parse a Forwarded header (RFC 7239 section 4)."""
    if text.count(",") + text.count(";") >= _MOST_ELEMENTS:
        raise BadRequest(f"the Forwarded header has more than {_MOST_ELEMENTS} elements")
    elements: list[dict[str, str]] = []
    at, separator = 0, "," if text else ""
    while separator:
        match = _NEXT_PAIR.match(text, at)
        if match is None:
            raise BadRequest("the Forwarded header is malformed")
        if separator == ",":
            elements.append({})
        name = match[1].lower()
        if name in elements[-1]:
            raise BadRequest("the Forwarded header is malformed")
        elements[-1][name] = _unquoted(match[2])
        at, separator = match.end(), match[3]
    return elements


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _address(text: str) -> _Address | None:
    """Parse an IP address, with or without brackets and port; return None for any other text."""
    match = _WITH_PORT.fullmatch(text)
    host: str = match[match.lastindex or 0] if match else text
    try:
        # Without the zone, which could be any text.
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _is_in(address: _Address, networks: Collection[Network]) -> bool:
    return any(address in network for network in networks)


def _network_of(address: str) -> str:
    """Return the network that limits count clients by: an IPv4 address, or the /64 of an IPv6 address.

    A client that has one IPv6 address can usually use its whole /64.
    """
    if ":" not in address:
        return address or "unknown"
    try:
        found = IPv6Address(address)
    except ValueError:
        return "unknown"
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(found.packed[:8] + bytes(8))}/64"
