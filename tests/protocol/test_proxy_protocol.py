"""Headers of the PROXY protocol: both versions, in pieces, and what is none."""

from __future__ import annotations

import random
import struct
import unittest
from ipaddress import ip_address

from wsproxy.exceptions import BadRequest
from wsproxy.protocol.proxy_protocol import ProxyHeader, ProxyHeaderReader

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BEHIND = b"\x16\x03\x01\x02\x00\x01" + bytes(300)  # TLS


def v2(source: str, target: str, port: int = 4711, *, command: int = 0x21, more: bytes = b"") -> bytes:
    addresses = ip_address(source).packed + ip_address(target).packed + struct.pack(">HH", port, 443)
    family = 0x21 if ":" in source else 0x11
    rest = addresses + more
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest)) + rest


def read(data: bytes, most: int = 1 << 16) -> tuple[ProxyHeader, bytes]:
    """Read a header as a connection would, in pieces of so many bytes, and return what is left."""
    reader = ProxyHeaderReader()
    while True:
        assert reader.wants > 0
        size = min(reader.wants, most)
        piece, data = data[:size], data[size:]
        if not piece:
            raise EOFError
        if (header := reader.feed(piece)) is not None:
            return header, data


class Reading(unittest.TestCase):
    def assert_read(self, header: bytes, address: str, port: int) -> None:
        """Assert what a header says, and that nothing behind it is touched."""
        for most in (1, 2, 3, 5, 1 << 16):
            with self.subTest(header=header, most=most):
                self.assertEqual(read(header + BEHIND, most), (ProxyHeader(address, port), BEHIND))

    def test_version_1(self) -> None:
        """The line of version 1."""
        self.assert_read(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n", "192.0.2.7", 4711)
        self.assert_read(b"PROXY TCP6 2001:DB8::7 ::1 65535 1\r\n", "2001:db8::7", 65535)
        self.assert_read(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 1\r\n", "192.0.2.7", 1)
        longest = b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n"
        self.assert_read(longest, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)

    def test_version_2(self) -> None:
        """The binary header of version 2, with any TLVs."""
        self.assert_read(v2("192.0.2.7", "198.51.100.1"), "192.0.2.7", 4711)
        self.assert_read(v2("2001:db8::7", "::1", 1), "2001:db8::7", 1)
        self.assert_read(v2("192.0.2.7", "198.51.100.1", more=b"\xea\0\x05hello" * 20), "192.0.2.7", 4711)

    def test_nobody(self) -> None:
        """A health check by the sender, and a client whose address the sender does not know."""
        for header in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
            v2("192.0.2.7", "198.51.100.1", command=0x20),
            SIGNATURE + b"\x20\0\0\0",
            SIGNATURE + b"\x21\0\0\0",
            SIGNATURE + b"\x21\x31\0\xd8" + b"/run/socket".ljust(216, b"\0"),
            SIGNATURE + b"\x21\x12\0\x0c" + bytes(12),  # UDP
        ):
            self.assert_read(header, "", 0)


class Malformed(unittest.TestCase):
    def test_refused(self) -> None:
        """Malformed headers, and headers with a wrong length, are refused, and never read as valid ones."""
        for header in (
            b"GET / HTTP/1.1\r\n",
            b"PROXZ TCP4 ",
            b"proxy TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 \r\n",
            b"PROXY TCP4  192.0.2.7 198.51.100.1 4711 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 0443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
            b"PROXY TCP4 192.0.2.256 198.51.100.1 4711 443\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 4711 443\r\n",
            b"PROXY TCP6 192.0.2.7 198.51.100.1 4711 443\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            b"PROXY UNKNOWNX\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
            b"PROXY TCP4 " + b"1" * 200,
            SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
            SIGNATURE + b"\x22\x11\0\x0c" + bytes(12),
            SIGNATURE + b"\x21\x11\0\x0b" + bytes(11),
            SIGNATURE + b"\x21\x11\xff\xff",
            b"\r\n\r\nGET / HT",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
        ):
            for most in (1, 3, 1 << 16):
                with self.subTest(header=header, most=most), self.assertRaises(BadRequest):
                    read(header, most)

    def test_random(self) -> None:
        """All bytes lead to a header or a refusal, the same at any cuts, within the longest header."""
        dice = random.Random(3)
        whole = [
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            v2("192.0.2.7", "198.51.100.1", more=b"x" * 9),
        ]
        for _ in range(2000):
            data = bytearray(dice.choice(whole))
            for _ in range(dice.randrange(4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            found = []
            for most in (1, 7, 1 << 16):
                try:
                    found.append(read(bytes(data) + bytes(4096), most))
                except BadRequest:
                    found.append(None)  # type: ignore[arg-type]
            self.assertEqual(found[1:], found[:-1])


if __name__ == "__main__":
    unittest.main()
