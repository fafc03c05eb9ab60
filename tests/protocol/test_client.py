"""What proxies in front say of a client, and who is believed."""

from __future__ import annotations

import unittest
from dataclasses import replace
from ipaddress import ip_network

from wsproxy.exceptions import BadRequest
from wsproxy.protocol.client import UNIX_PEER, Client, TrustedProxies, client_of
from wsproxy.protocol.origin import Origin
from wsproxy.protocol.request import HeadReader, RequestHead

TRUSTED = TrustedProxies((ip_network("10.0.0.0/8"), ip_network("fd00::/8")))
NOBODY = TrustedProxies()
PROXY = "10.0.0.1:40000"


def parsed(*headers: str, host: str = "inside:5001") -> RequestHead:
    lines = ["GET /x HTTP/1.1", f"Host: {host}", *headers, "", ""]
    head = HeadReader().feed("\r\n".join(lines).encode("latin-1"))
    assert head is not None
    return head


def seen(*headers: str, peer: str = PROXY, tls: bool = False) -> Client:
    return client_of(parsed(*headers), peer, tls, TRUSTED)


class UnixSocket(unittest.TestCase):
    """Whoever comes over a Unix socket has no address, and is believed if the settings say so."""

    def seen(self, *headers: str, trust_unix: bool = True) -> Client:
        return client_of(parsed(*headers), UNIX_PEER, False, replace(TRUSTED, unix=trust_unix))

    def test_trusted(self) -> None:
        """The first address that no trusted proxy has is the client's; the rest is the proxy's word."""
        client = self.seen(
            "X-Forwarded-For: 1.2.3.4, 192.0.2.7, 10.0.0.9",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: outside",
        )
        self.assertEqual((client.address, client.asked), ("192.0.2.7", "https://outside"))
        self.assertEqual(str(client), "192.0.2.7 via unix")
        self.assertEqual(self.seen("Forwarded: for=10.0.0.9").address, "10.0.0.9")

    def test_not_trusted(self) -> None:
        """Without that setting nothing is believed, whatever networks are."""
        client = self.seen("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Host: outside", trust_unix=False)
        self.assertEqual((client.address, client.asked, str(client)), ("", "http://inside:5001", "unix"))

    def test_says_nothing(self) -> None:
        """A proxy that names no client, or none that has an address, leaves it unknown."""
        for headers in ((), ("X-Forwarded-For: unknown",), ("Forwarded: for=unknown",)):
            with self.subTest(headers=headers):
                self.assertEqual((self.seen(*headers).address, str(self.seen(*headers))), ("", "unix"))

    def test_others(self) -> None:
        """The setting is about Unix sockets alone."""
        client = client_of(
            parsed("X-Forwarded-For: 1.2.3.4"), "192.0.2.1:1", False, TrustedProxies(unix=True)
        )
        self.assertEqual(client.address, "192.0.2.1")
        unknown = client_of(parsed("X-Forwarded-For: 1.2.3.4"), "unknown", False, TrustedProxies(unix=True))
        self.assertEqual(unknown.address, "")


class Direct(unittest.TestCase):
    def test_peer(self) -> None:
        """A client that comes by itself is the peer, and asked the host that it names."""
        client = client_of(parsed(host="Proxy.example"), "192.0.2.1:1234", False, NOBODY)
        self.assertEqual(client, Client("192.0.2.1:1234", "192.0.2.1", "http://Proxy.example"))
        self.assertEqual(client.own, Origin("http", "proxy.example", 80))
        self.assertEqual(str(client), "192.0.2.1:1234")

    def test_tls(self) -> None:
        """Over TLS it asked for https."""
        client = client_of(parsed(host="proxy.example"), "[2001:db8::1]:1234", True, NOBODY)
        self.assertEqual((client.address, client.own), ("2001:db8::1", Origin("https", "proxy.example", 443)))
        self.assertEqual(str(client), "[2001:db8::1]:1234")
        scoped = client_of(parsed(), "[fe80::1%eth0]:1234", False, NOBODY)
        self.assertEqual((scoped.address, str(scoped)), ("fe80::1", "[fe80::1%eth0]:1234"))

    def test_odd_peers_and_hosts(self) -> None:
        """A peer without an address is not trusted, a host that is none has no page."""
        self.assertEqual(client_of(parsed(), "unknown", False, TRUSTED).address, "")
        self.assertEqual(str(client_of(parsed(), "unknown", False, TRUSTED)), "unknown")
        for host in ("", "a b", "a/b", "a@b", "a,b", "b\xe4r"):
            with self.subTest(host):
                self.assertIsNone(client_of(parsed(host=host), PROXY, False, NOBODY).own)

    def test_nobody_is_believed(self) -> None:
        """Headers of a peer that is not trusted are not looked at, well-formed or not."""
        expected = client_of(parsed(), "192.0.2.1:1234", False, TRUSTED)
        for headers in (
            ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https"],
            ["Forwarded: for=1.2.3.4;host=evil.example;proto=https"],
            ["Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4"],
            ['Forwarded: for="'],
        ):
            with self.subTest(headers):
                self.assertEqual(seen(*headers, peer="192.0.2.1:1234"), expected)
        spoofed = client_of(parsed("X-Forwarded-For: 1.2.3.4"), PROXY, False, NOBODY)
        self.assertEqual(spoofed.address, "10.0.0.1")


class XForwarded(unittest.TestCase):
    def test_whole(self) -> None:
        """A trusted proxy says who the client is and where it sent its request to."""
        client = seen(
            "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: console.example"
        )
        self.assertEqual(client, Client(PROXY, "192.0.2.7", "https://console.example"))
        self.assertEqual(client.own, Origin("https", "console.example", 443))
        self.assertEqual(str(client), f"192.0.2.7 via {PROXY}")

    def test_scheme(self) -> None:
        """Some proxies name the scheme of the WebSocket; one that is no web scheme has no page."""
        for scheme, expected in (("wss", "https"), ("WS", "http"), ("HTTPS", "https")):
            own = seen(f"X-Forwarded-Proto: {scheme}", "X-Forwarded-Host: a").own
            self.assertEqual(own and own.scheme, expected)
        self.assertIsNone(seen("X-Forwarded-Proto: ftp").own)

    def test_nothing_said(self) -> None:
        """Of what a trusted proxy does not say, its own connection counts."""
        client = seen(tls=True)
        self.assertEqual(client, Client(PROXY, "10.0.0.1", "https://inside:5001"))

    def test_right_most_untrusted(self) -> None:
        """The client is the last one that is no trusted proxy: what it wrote itself stands before that."""
        for header, expected in (
            ("1.2.3.4, 192.0.2.7", "192.0.2.7"),
            ("1.2.3.4, 192.0.2.7, 10.0.0.9, 10.1.1.1", "192.0.2.7"),
            ("127.0.0.1, 10.0.0.9, 192.0.2.7", "192.0.2.7"),
            ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
            ("192.0.2.7:5555", "192.0.2.7"),
            ("[2001:db8::7]:5555", "2001:db8::7"),
            ("2001:DB8::7", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7, fd00::9", "192.0.2.7"),
            ("1.2.3.4, nonsense", "10.0.0.1"),
            ("1.2.3.4, nonsense, 10.0.0.9", "10.0.0.9"),
            ("fe80::1%forged user 'admin'", "fe80::1"),
            ("x" * 3000, "10.0.0.1"),
            ("", "10.0.0.1"),
        ):
            with self.subTest(header[:50]):
                self.assertEqual(seen(f"X-Forwarded-For: {header}").address, expected)
        several = seen("X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 192.0.2.7")
        self.assertEqual(several.address, "192.0.2.7")

    def test_own_word_of_the_nearest(self) -> None:
        """Of several schemes or hosts the last one is the nearest proxy's own word."""
        client = seen("X-Forwarded-Proto: https, http", "X-Forwarded-Host: evil.example, console.example")
        self.assertEqual(client.own, Origin("http", "console.example", 80))


class Forwarded(unittest.TestCase):
    def test_whole(self) -> None:
        """RFC 7239's header says the same."""
        for header in (
            "for=192.0.2.7;proto=https;host=console.example",
            'For="192.0.2.7:4711" ; Proto=https;host="Console.example:443";by=_hidden',
            "for=1.2.3.4;host=evil.example, for=192.0.2.7; proto=https; host=console.example",
            r'for="192.0.2\.7";proto="https";host=console.example',
        ):
            with self.subTest(header):
                client = seen(f"Forwarded: {header}")
                self.assertEqual(client.address, "192.0.2.7")
                self.assertEqual(client.own, Origin("https", "console.example", 443))

    def test_right_most_untrusted(self) -> None:
        """The client is the last one that is no trusted proxy, and one that is hidden stays so."""
        for header, expected in (
            ('for=1.2.3.4, for="[2001:db8::7]", for=10.0.0.9', "2001:db8::7"),
            ("for=1.2.3.4, for=unknown", "10.0.0.1"),
            ("for=1.2.3.4, for=_hidden, for=10.0.0.9", "10.0.0.9"),
            ("for=1.2.3.4, proto=https", "10.0.0.1"),
            ('for="a, for=1.2.3.4", for=192.0.2.7', "192.0.2.7"),
        ):
            with self.subTest(header):
                self.assertEqual(seen(f"Forwarded: {header}").address, expected)
        several = seen("Forwarded: for=1.2.3.4", "Forwarded: for=192.0.2.7")
        self.assertEqual(several.address, "192.0.2.7")

    def test_malformed(self) -> None:
        """One that cannot be read is refused: a client may have spoilt it to hide what the proxy added."""
        for header in (
            'for="1.2.3.4, for=192.0.2.7',
            'for=1.2.3.4"',
            "for",
            "for=",
            "=1.2.3.4",
            "for=1.2.3.4;for=192.0.2.7",
            "for=1.2.3.4;",
            ",for=1.2.3.4",
            "for=[2001:db8::1]",
            "for = 1.2.3.4",
        ):
            with self.subTest(header), self.assertRaises(BadRequest):
                seen(f"Forwarded: {header}")

    def test_long(self) -> None:
        """A header that fills the head is read, or refused, in no time."""
        for header in (
            "for=1.2.3.4, " * 1000 + "for=192.0.2.7",
            "a=b;" * 3000,
            "a=" + '"\\' * 6000,
            " " * 9000,
        ):
            try:
                seen(f"Forwarded: {header}")
            except BadRequest:
                pass

    def test_both_kinds(self) -> None:
        """Both kinds at once are refused: a proxy that adds one hands on what clients write of the other."""
        for other in ("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: a", "X-Forwarded-Proto: https"):
            with self.subTest(other), self.assertRaises(BadRequest):
                seen("Forwarded: for=192.0.2.7", other)


if __name__ == "__main__":
    unittest.main()
