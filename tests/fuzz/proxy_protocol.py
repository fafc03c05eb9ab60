"""Target: headers of the PROXY protocol, judged by a reader that has the whole of each at once."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from wsproxy.exceptions import BadRequest
from wsproxy.protocol.proxy_protocol import ProxyHeader, ProxyHeaderReader

from .texts import assert_own_text

__all__ = ["check"]

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_LONGEST_LINE = 107
_LONGEST_REST = 2048
_MAPPED = bytes(10) + b"\xff\xff"
_BEHIND = b"\x16\x03\x01\x02\x00\x01\x00\r\nGET / HTTP/1.1\r\n\r\n"
_FAMILIES = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6, 0x11: socket.AF_INET, 0x21: socket.AF_INET6}
_SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}


@dataclass(frozen=True)
class _Found:
    """What came of a stream.

    :ivar refused: whether it is no header; ``address``, ``port`` and ``size`` say nothing then.
    :ivar size: of the header, 0 if its end did not come.
    """

    refused: bool = False
    address: bytes = b""
    port: int = 0
    size: int = 0


_REFUSED = _Found(refused=True)
_INCOMPLETE = _Found()


def check(data: bytes) -> None:
    """Read a header, as much at once as may be, byte by byte, and in pieces of random sizes."""
    whole = _read(data, lambda wants: wants)
    dice = random.Random(data)
    assert _read(data, lambda wants: 1) == whole, "byte by byte it is another header"
    assert _read(data, lambda wants: dice.randint(1, wants)) == whole, "the cuts make a difference"
    assert whole == _expected(data), "not what the header says"
    if whole != _INCOMPLETE:
        assert _read(data + _BEHIND, lambda wants: wants) == whole, "what follows makes a difference"


def _read(data: bytes, much: Callable[[int], int]) -> _Found:
    """Read as a connection does: never more at once than is wanted."""
    reader, position = ProxyHeaderReader(), 0
    while position < len(data):
        assert 0 < reader.wants <= _LONGEST_REST + 16, (
            "an amount that nobody can receive, or that has no bound"
        )
        piece = data[position : position + much(reader.wants)]
        position += len(piece)
        try:
            header = reader.feed(piece)
        except BadRequest as refused:  # anything else is a finding
            assert_own_text(refused)
            return _REFUSED
        if header is not None:
            return _Found(address=_packed(header), port=header.port, size=position)
    return _INCOMPLETE


def _packed(header: ProxyHeader) -> bytes:
    if header.address == "":
        assert header == ProxyHeader(), "a port of nobody's"
        return b""
    address = ip_address(header.address)
    assert str(address) == header.address, "another spelling of an address"
    assert 0 <= header.port <= 65535
    return address.packed


def _expected(data: bytes) -> _Found:
    """Judge by the whole."""
    if data.startswith(_SIGNATURE):
        return _expected_v2(data)
    if _SIGNATURE.startswith(data):
        return _INCOMPLETE
    if not data.startswith(b"PROXY "):
        return _INCOMPLETE if b"PROXY ".startswith(data) else _REFUSED
    line, end, _ = data[:_LONGEST_LINE].partition(b"\n")
    if not end:
        return _INCOMPLETE if len(data) < _LONGEST_LINE else _REFUSED
    return _expected_v1(line) if line.endswith(b"\r") else _REFUSED


def _expected_v1(line: bytes) -> _Found:
    size = len(line) + 1
    words = line[:-1].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return _Found(size=size)
    family = _FAMILIES.get(words[1])
    if family is None or len(words) != 6:
        return _REFUSED
    source, target = (_address(family, word) for word in words[2:4])
    ports = [_port(word) for word in words[4:]]
    if source is None or target is None or None in ports:
        return _REFUSED
    return _Found(address=_unmapped(source), port=ports[0] or 0, size=size)


def _address(family: int, text: str) -> bytes | None:
    if not text.isascii() or len(text) > 39:
        return None
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError):
        return None


def _port(text: str) -> int | None:
    plain = text.isascii() and text.isdecimal() and len(text) <= 5
    return int(text) if plain and text == str(int(text)) and int(text) <= 65535 else None


def _expected_v2(data: bytes) -> _Found:
    size = 16 + int.from_bytes(data[14:16], "big")
    if len(data) < 16:
        return _INCOMPLETE
    if size > 16 + _LONGEST_REST:
        return _REFUSED
    if len(data) < size:
        return _INCOMPLETE
    command, family, rest = data[12], _FAMILIES.get(data[13]), data[16:size]
    if command not in (0x20, 0x21):
        return _REFUSED
    if command == 0x20 or family is None:
        return _Found(size=size)
    length = _SIZES[socket.AddressFamily(family)]
    if len(rest) < 2 * length + 4:
        return _REFUSED
    port = int.from_bytes(rest[2 * length :][:2], "big")
    return _Found(address=_unmapped(rest[:length]), port=port, size=size)


def _unmapped(address: bytes) -> bytes:
    return address[12:] if len(address) == 16 and address.startswith(_MAPPED) else address
