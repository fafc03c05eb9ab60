"""Parses headers of the PROXY protocol, versions 1 and 2, for the client's address. No I/O.

A load balancer that forwards TCP (haproxy, network load balancers) sends this header first, to name the
client of the connection. TLS may follow, so the proxy must not receive a byte beyond the header.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ..exceptions import BadRequest

__all__ = ["ProxyHeader", "ProxyHeaderReader"]

_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1_BEGIN = b"PROXY "
_V1_LONGEST = 107  # section 2.1, with its CR LF
_V2_FIXED = struct.Struct(">BBH")  # version and command, family and protocol, length of the rest
_V2_LONGEST = 2048  # bytes of addresses and of TLVs, which the proxy ignores
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
_Address = IPv4Address | IPv6Address
_Kind = type[IPv4Address] | type[IPv6Address]
_V2_ADDRESSES: dict[int, tuple[struct.Struct, _Kind]] = {
    0x11: (struct.Struct(">4s4sHH"), IPv4Address),
    0x21: (struct.Struct(">16s16sHH"), IPv6Address),
}
_V1_LINE = re.compile(
    r"PROXY (TCP4|TCP6) ([0-9a-fA-F:.]{2,39}) ([0-9a-fA-F:.]{2,39})"
    r" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"  # "heading zeroes are not permitted"
)
_V1_FAMILIES: dict[str, _Kind] = {"TCP4": IPv4Address, "TCP6": IPv6Address}
_MAX_PORT = 65535


@dataclass(frozen=True)
class ProxyHeader:
    """The content of a header.

    :ivar address: the client's IP address. "" if the connection is the sender's own, such as a health check,
        or if the sender does not know the address.
    :ivar port: the client's port, 0 without an address.
    """

    address: str = ""
    port: int = 0


class ProxyHeaderReader:
    """Reads one header.

    :ivar wants: how many bytes the caller may receive next, at most. More could reach beyond the header.
    """

    def __init__(self) -> None:
        self.wants = len(_V2_SIGNATURE)  # the shortest header of version 1 is longer
        self._data = b""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Take received bytes, :attr:`wants` at most, and return the header as soon as it is complete.

        :raises BadRequest: if the bytes are not a header of the PROXY protocol.
        """
        self._data += data
        if not _V2_SIGNATURE.startswith(self._data[: len(_V2_SIGNATURE)]):
            return self._feed_v1()
        size = len(_V2_SIGNATURE) + _V2_FIXED.size
        if len(self._data) >= size:
            command, family, length = _V2_FIXED.unpack_from(self._data, len(_V2_SIGNATURE))
            if length > _V2_LONGEST:
                raise BadRequest("the PROXY protocol header is too long")
            size += length
            if len(self._data) == size:
                return _parsed_v2(command, family, self._data[size - length :])
        self.wants = size - len(self._data)
        return None

    def _feed_v1(self) -> ProxyHeader | None:
        if not self._data.startswith(_V1_BEGIN[: len(self._data)]):
            raise BadRequest("a trusted peer must send a PROXY protocol header first")
        if self._data.endswith(b"\r\n"):
            return _parsed_v1(self._data)
        if b"\n" in self._data or len(self._data) >= _V1_LONGEST:
            raise BadRequest("the PROXY protocol header has no end")
        # Every header is longer than _V2_SIGNATURE. Beyond that length, each byte may be the last.
        self.wants = max(len(_V2_SIGNATURE) - len(self._data), 1)
        return None


def _parsed_v1(line: bytes) -> ProxyHeader:
    """Parse a header of version 1 (section 2.1), CR LF included."""
    text = line[:-2].decode("latin-1")
    if text == "PROXY UNKNOWN" or text.startswith("PROXY UNKNOWN "):
        return ProxyHeader()
    match = _V1_LINE.fullmatch(text)
    if match is None:
        raise BadRequest("the PROXY protocol header is malformed")
    family = _V1_FAMILIES[match[1]]
    try:
        source, _ = family(match[2]), family(match[3])
    except ValueError:
        raise BadRequest("the PROXY protocol header is malformed") from None
    if max(int(match[4]), int(match[5])) > _MAX_PORT:
        raise BadRequest("the PROXY protocol header is malformed")
    return ProxyHeader(_text(source), int(match[4]))


def _parsed_v2(command: int, family: int, rest: bytes) -> ProxyHeader:
    """Parse a header of version 2 (section 2.2), without its fixed part."""
    if command == _V2_LOCAL:
        return ProxyHeader()
    if command != _V2_PROXY:
        raise BadRequest("the PROXY protocol header has an unknown version or command")
    if family not in _V2_ADDRESSES:
        return ProxyHeader()  # another family: "the receiver should ignore address information"
    layout, kind = _V2_ADDRESSES[family]
    if len(rest) < layout.size:
        raise BadRequest("the PROXY protocol header is truncated")
    source, _, port, _ = layout.unpack_from(rest)
    return ProxyHeader(_text(kind(source)), port)


def _text(address: _Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
