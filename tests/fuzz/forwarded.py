"""Target: who a client is, and where it says that it asked, behind proxies that are trusted or are not."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from wsproxy.exceptions import BadRequest
from wsproxy.protocol.client import UNIX_PEER, Client, Peer, TrustedProxies, client_of
from wsproxy.protocol.request import MAX_HEAD_SIZE, RequestHead

from .requests import head_of
from .texts import assert_own_text

__all__ = ["check"]

_PEERS = (
    Peer.at("10.0.0.1", 1234),
    Peer.at("2001:db8::1", 1234),
    Peer.at("::ffff:10.0.0.1", 1234),
    Peer(UNIX_PEER),
    Peer.at("192.0.2.9", 1234),
)
_TRUSTED = (
    TrustedProxies(),
    TrustedProxies.parse(["10.0.0.0/8"]),
    TrustedProxies.parse(["unix"]),
    TrustedProxies.parse(["10.0.0.0/8", "2001:db8::/32", "unix"]),
    TrustedProxies.parse(["0.0.0.0/0", "::/0", "unix"]),
)
_PLAIN = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:]+")
_OTHERS = ("x-forwarded-", "forwarded")
_SPOOFED = "203.0.113.66"


def check(data: bytes) -> None:
    """Ask who sent a request. The first byte says over which connection, the rest is header lines."""
    choice, lines = (data or b"\0")[0], data[1:].split(b"\n")
    peer = _PEERS[choice % len(_PEERS)]
    trusted = _TRUSTED[choice // len(_PEERS) % len(_TRUSTED)]
    tls = choice >= 0x80
    head = head_of(b"/", lines)
    if head is None:
        return
    client = _found(head, peer, tls, trusted)
    if not _is_trusted(peer, trusted):
        _check_stranger(client, head, peer, tls, trusted)
    elif client is not None:
        _check_client(client, head, peer)
        _check_reference(client, head, peer, trusted)
        _check_spoofed(client, lines, peer, tls, trusted)


def _asked(head: RequestHead, peer: Peer, tls: bool, trusted: TrustedProxies) -> Client:
    return client_of(head, peer, tls, trusted)


def _found(head: RequestHead, peer: Peer, tls: bool, trusted: TrustedProxies) -> Client | None:
    try:
        client = _asked(head, peer, tls, trusted)
    except BadRequest as refused:  # anything else is a finding
        assert_own_text(refused)
        return None
    assert client == _asked(head, peer, tls, trusted), "the second answer is another one"
    return client


def _is_trusted(peer: Peer, trusted: TrustedProxies) -> bool:
    address = _parsed(peer.address)
    if address is None:
        return peer == Peer(UNIX_PEER) and trusted.unix
    return any(address in network for network in trusted.networks)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(found, IPv6Address) and found.ipv4_mapped) or found


def _check_stranger(
    client: Client | None, head: RequestHead, peer: Peer, tls: bool, trusted: TrustedProxies
) -> None:
    """What somebody says who is not trusted changes nothing, and is not even parsed."""
    assert client is not None, "a header was looked at that nobody is trusted to send"
    others = [field for field in head.headers if not field[0].decode().startswith(_OTHERS)]
    bare = RequestHead(head.method, head.target, head.http_version, others)
    assert client == _asked(bare, peer, tls, trusted), "a stranger's headers are believed"
    assert client.address == peer.address
    assert client.asked == f"{'https' if tls else 'http'}://{head.values('host')[0]}"


def _check_client(client: Client, head: RequestHead, peer: Peer) -> None:
    own = _parsed(peer.address)
    assert client.peer == peer
    if client.address == "":
        assert own is None, "an address was lost"
    else:
        address = _parsed(client.address)
        assert address is not None
        # Where nobody says anything of the client, it is the peer, in the peer's own spelling.
        assert client.address in (str(address), peer.address), "another spelling of an address"
        assert address == own or address in _addresses_in(head), "an address that nobody named"
        assert client.network != "unknown"
    assert str(client) in (str(peer), f"{client.address} via {peer}"), "the log is told more than addresses"
    scheme, _, host = client.asked.partition("://")
    assert scheme in ("http", "https", ""), "a scheme of which there is no page"
    assert any(_plain(host) in _plain(value) for value in _said(head, "host")), "a host that nobody named"
    if client.own is not None:
        assert client.own.scheme == scheme and client.asked.isascii()


def _plain(text: str) -> str:
    """Return a text without what makes no other host: capitals, escapes, zeros in front of a port."""
    return re.sub(r":0+(?=[0-9])", ":", text.replace("\\", "").lower())


def _said(head: RequestHead, *more: str) -> list[str]:
    """Return everything that is said of who sent the request."""
    names = [name.decode() for name, _ in head.headers]
    return [v for name in names if name.startswith(_OTHERS) or name in more for v in head.values(name)]


def _addresses_in(head: RequestHead) -> set[IPv4Address | IPv6Address | None]:
    """Return every address that can be read into the headers, in quotes, brackets or with a port."""
    found = set()
    for value in _said(head):
        for text in re.split(r'[,;="\s]+', value.replace("\\", "")):
            with_port = re.fullmatch(r"\[(.*)\](:[0-9]+)?", text) or re.fullmatch(r"([0-9.]+):[0-9]+", text)
            found |= {_parsed(text), _parsed(with_port[1]) if with_port else None}
    return found - {None}


def _hops(head: RequestHead) -> list[str] | None:
    """Return the addresses on the way, if one kind of header says them in the plainest form; None if not."""
    names = {name.decode() for name, _ in head.headers if name.decode().startswith(_OTHERS)}
    if names == {"x-forwarded-for"}:
        hops = [part.strip(" \t") for part in ",".join(head.values("x-forwarded-for")).split(",")]
    elif names == {"forwarded"}:
        parts = [part.strip(" \t") for part in ",".join(head.values("forwarded")).split(",")]
        if not all(part.startswith("for=") for part in parts):
            return None
        hops = [re.sub(r'"\[([0-9a-fA-F:]+)\]"', r"\1", part[4:]) for part in parts]
        if any(":" in hop and f'"[{hop}]"' not in part for hop, part in zip(hops, parts, strict=True)):
            return None  # an IPv6 address needs both
    else:
        return None
    plain = len(hops) <= 90 and all(_PLAIN.fullmatch(hop) and _parsed(hop) for hop in hops)
    return hops if plain else None


def _check_reference(client: Client, head: RequestHead, peer: Peer, trusted: TrustedProxies) -> None:
    """In a chain of plain addresses it is the last one that is not a trusted proxy's, or the first of all."""
    hops = _hops(head)
    if hops is None:
        return
    chain = [_parsed(text) for text in hops]
    if (nearest := _parsed(peer.address)) is not None:
        chain.append(nearest)
    strangers = [one for one in chain if one and not any(one in network for network in trusted.networks)]
    expected = strangers[-1] if strangers else chain[0]
    assert client.address == str(expected), "another client than the chain has"


def _check_spoofed(
    client: Client, lines: list[bytes], peer: Peer, tls: bool, trusted: TrustedProxies
) -> None:
    """What a client puts in front of what proxies add never makes it somebody else."""
    address = _parsed(client.address)
    if address is None or any(address in network for network in trusted.networks):
        return  # everybody on the way was a proxy, so who is in front of them counts
    changed = _spoofed(lines)
    head = head_of(b"/", changed)
    if head is None or sum(map(len, changed)) > MAX_HEAD_SIZE // 2:
        return
    again = _found(head, peer, tls, trusted)
    assert again is None or again.address == client.address, "a client chooses its address"


def _spoofed(lines: list[bytes]) -> list[bytes]:
    """Return lines, the first of each kind with what a client puts in front of all that proxies add."""
    fields = {b"x-forwarded-for": b" %s, ", b"forwarded": b" for=%s, "}
    changed = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if value.strip() and (field := fields.pop(name.lower(), None)):
            line = name + colon + field % _SPOOFED.encode() + value
        changed.append(line)
    return changed
