"""What proxies in front say of a client, and who is believed."""

from __future__ import annotations

import unittest
from dataclasses import replace
from ipaddress import ip_network

from wsproxy.exceptions import BadRequest, ConfigError
from wsproxy.protocol.client import UNIX_PEER, Client, Peer, TrustedProxies, client_of
from wsproxy.protocol.origin import Origin
from wsproxy.protocol.request import HeadReader, RequestHead

TRUSTED = TrustedProxies((ip_network("10.0.0.0/8"), ip_network("fd00::/8")))
NOBODY = TrustedProxies()
PROXY = Peer.at("10.0.0.1", 40000)
CLIENT = Peer.at("192.0.2.1", 1234)
UNKNOWN = Peer("unknown")


def parsed(*headers: str, host: str = "inside:5001") -> RequestHead:
    lines = ["GET /x HTTP/1.1", f"Host: {host}", *headers, "", ""]
    head = HeadReader().feed("\r\n".join(lines).encode("latin-1"))
    assert head is not None
    return head


def seen(*headers: str, peer: Peer = PROXY, tls: bool = False) -> Client:
    return client_of(parsed(*headers), peer, tls, TRUSTED)


class UnixSocket(unittest.TestCase):
    """Whoever comes over a Unix socket has no address, and is believed if the settings say so."""

    def seen(self, *headers: str, trust_unix: bool = True) -> Client:
        return client_of(parsed(*headers), Peer(UNIX_PEER), False, replace(TRUSTED, unix=trust_unix))

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
        client = client_of(parsed("X-Forwarded-For: 1.2.3.4"), CLIENT, False, TrustedProxies(unix=True))
        self.assertEqual(client.address, "192.0.2.1")
        unknown = client_of(parsed("X-Forwarded-For: 1.2.3.4"), UNKNOWN, False, TrustedProxies(unix=True))
        self.assertEqual(unknown.address, "")


class Direct(unittest.TestCase):
    def test_peer(self) -> None:
        """A client that comes by itself is the peer, and asked the host that it names."""
        client = client_of(parsed(host="Proxy.example"), CLIENT, False, NOBODY)
        self.assertEqual(client, Client(CLIENT, "192.0.2.1", "http://Proxy.example"))
        self.assertEqual(client.own, Origin("http", "proxy.example", 80))
        self.assertEqual(str(client), "192.0.2.1:1234")

    def test_tls(self) -> None:
        """Over TLS it asked for https."""
        client = client_of(parsed(host="proxy.example"), Peer.at("2001:db8::1", 1234), True, NOBODY)
        self.assertEqual((client.address, client.own), ("2001:db8::1", Origin("https", "proxy.example", 443)))
        self.assertEqual(str(client), "[2001:db8::1]:1234")
        scoped = client_of(parsed(), Peer.at("fe80::1%eth0", 1234), False, NOBODY)
        self.assertEqual((scoped.address, str(scoped)), ("fe80::1", "[fe80::1%eth0]:1234"))

    def test_odd_peers_and_hosts(self) -> None:
        """A peer without an address is not trusted, a host that is none has no page."""
        self.assertEqual(client_of(parsed(), UNKNOWN, False, TRUSTED).address, "")
        self.assertEqual(str(client_of(parsed(), UNKNOWN, False, TRUSTED)), "unknown")
        for host in ("", "a b", "a/b", "a@b", "a,b", "b\xe4r"):
            with self.subTest(host):
                self.assertIsNone(client_of(parsed(host=host), PROXY, False, NOBODY).own)

    def test_nobody_is_believed(self) -> None:
        """Headers of a peer that is not trusted are not looked at, well-formed or not."""
        expected = client_of(parsed(), CLIENT, False, TRUSTED)
        for headers in (
            ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https"],
            ["Forwarded: for=1.2.3.4;host=evil.example;proto=https"],
            ["Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4"],
            ['Forwarded: for="'],
        ):
            with self.subTest(headers):
                self.assertEqual(seen(*headers, peer=CLIENT), expected)
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
            "for = 1.2.3.4",
            "for=1.2.3.4/x",
            "for=1.2.3.4@x",
            "for=1.2.3.4 proto=https",
            'for=a"b"',
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

    def test_without_quotes(self) -> None:
        """Addresses and hosts with colons should be quoted, but not every proxy does."""
        for header, address, asked in (
            ("for=192.0.2.7;host=a:8443;proto=https", "192.0.2.7", "https://a:8443"),
            ("for=2001:db8::7;host=a", "2001:db8::7", "http://a"),
            ("for=[2001:db8::7];host=[2001:db8::1]:8443", "2001:db8::7", "http://[2001:db8::1]:8443"),
            ("for=[2001:db8::7]:4711;host=a", "2001:db8::7", "http://a"),
            ("host=a:8443;proto=wss;for=192.0.2.7:4711", "192.0.2.7", "https://a:8443"),
        ):
            with self.subTest(header):
                client = seen(f"Forwarded: {header}")
                self.assertEqual((client.address, client.asked), (address, asked))


# What OpenShift's router sends: both kinds, and there is no way to leave one out.
OPENSHIFT = (
    "X-Forwarded-For: 192.0.2.7",
    "X-Forwarded-Host: console.apps.example",
    "X-Forwarded-Port: 443",
    "X-Forwarded-Proto: https",
    "Forwarded: for=192.0.2.7;host=console.apps.example;proto=https",
)


class BothKinds(unittest.TestCase):
    """Forwarded and X-Forwarded headers in one request."""

    def seen(self, kind: str, *headers: str) -> Client:
        return client_of(parsed(*headers), PROXY, False, replace(TRUSTED, kind=kind))

    def test_they_agree(self) -> None:
        """Where they agree it does not matter which counts."""
        expected = Client(PROXY, "192.0.2.7", "https://console.apps.example")
        for kind in ("auto", "x-forwarded", "forwarded"):
            self.assertEqual(self.seen(kind, *OPENSHIFT), expected)
        for others in (
            ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.7"],
            ["X-Forwarded-For: 1.1.1.1, 192.0.2.7, 10.0.0.9", "Forwarded: for=192.0.2.7, for=10.1.1.1"],
            ["X-Forwarded-Proto: WSS", "X-Forwarded-Host: INSIDE:5001", "Forwarded: proto=https"],
            ["X-Forwarded-Host: a:80", "Forwarded: host=A"],
            ["X-Forwarded-For: 2001:DB8::7", 'Forwarded: for="[2001:db8:0::7]:4711"'],
        ):
            with self.subTest(others):
                self.assertEqual(self.seen("auto", *others), self.seen("x-forwarded", *others))
                self.assertEqual(self.seen("auto", *others), self.seen("forwarded", *others))

    def test_they_contradict(self) -> None:
        """A proxy that adds one kind hands on what clients write of the other, and nothing tells which."""
        for forwarded, other in (
            ("for=192.0.2.7", "X-Forwarded-For: 1.2.3.4"),
            ("for=192.0.2.7", "X-Forwarded-Host: a"),
            ("for=192.0.2.7", "X-Forwarded-Proto: https"),
            ("for=192.0.2.7;host=evil.example", "X-Forwarded-For: 192.0.2.7"),
            ("for=192.0.2.7;proto=https", "X-Forwarded-For: 192.0.2.7"),
            ("for=unknown", "X-Forwarded-For: 192.0.2.7"),
            ("host=a", "X-Forwarded-Host: a:8443"),
        ):
            with self.subTest(other), self.assertRaises(BadRequest) as caught:
                self.seen("auto", f"Forwarded: {forwarded}", other)
            self.assertIn("forwarded_headers", caught.exception.message)

    def test_setting(self) -> None:
        """Where a setting says which counts the other is ignored, malformed or not."""
        for forwarded in ("for=6.6.6.6;host=evil.example;proto=http", 'for="', "", "\xe4", ";;;,"):
            with self.subTest(forwarded):
                client = self.seen("x-forwarded", f"Forwarded: {forwarded}", *OPENSHIFT[:-1])
                self.assertEqual(client, Client(PROXY, "192.0.2.7", "https://console.apps.example"))
        for others in (
            ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: http"],
            [
                "X-Forwarded-For: " + "1.1.1.1," * 200,
                "X-Forwarded-Port: x",
                "X-Forwarded-Port: " + "1," * 200,
            ],
        ):
            with self.subTest(others):
                client = self.seen("forwarded", *others, OPENSHIFT[-1])
                self.assertEqual(client, Client(PROXY, "192.0.2.7", "https://console.apps.example"))
        spoofed = self.seen("forwarded", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil.example")
        self.assertEqual(spoofed, Client(PROXY, "10.0.0.1", "http://inside:5001"))

    def test_wrong_settings(self) -> None:
        """A kind that there is not, and a setting without anybody who is trusted, are faults."""
        for texts, kind, proxy_protocol in (
            (("10.0.0.1",), "both", False),
            ((), "forwarded", False),
            ((), "auto", True),
        ):
            with self.subTest(kind), self.assertRaises(ConfigError):
                TrustedProxies.parse(texts, kind, proxy_protocol)

    def test_faults_tell_no_password(self) -> None:
        """The URL of a proxy is no network, and what lets in at that is not said."""
        for text in ("http://user:s3cret@10.0.0.1:3128", "http://10.0.0.1/?key=s3cret", "10.0.0.1#s3cret"):
            with self.subTest(text), self.assertRaises(ConfigError) as caught:
                TrustedProxies.parse([text])
            self.assertNotIn("s3cret", str(caught.exception))
            self.assertIn("10.0.0.1", str(caught.exception))
        with self.assertRaisesRegex(ConfigError, "10.0.0.1/8 has host bits set; write addresses"):
            TrustedProxies.parse(["10.0.0.1/8"])

    def test_zones(self) -> None:
        """Peers are compared without their zones (RFC 4007), so one in a setting would promise too much."""
        for text in ("fe80::1%eth0", "fe80::%eth0/64", "::%\x1b/0", "::ff%ff:10.0.0.0\x1b\x1b/104"):
            with self.subTest(text), self.assertRaisesRegex(ConfigError, "has a zone") as caught:
                TrustedProxies.parse([text])
            self.assertTrue(str(caught.exception).isprintable())


class MappedNetworks(unittest.TestCase):
    """Networks in the IPv6 notation of IPv4 addresses (RFC 4291 section 2.5.5.2)."""

    def test_peer_and_header(self) -> None:
        """They contain the same peers and forwarded addresses as the IPv4 network that they stand for."""
        for text in ("::ffff:10.0.0.0/104", "::ffff:a00:0/104", "10.0.0.0/8"):
            with self.subTest(text):
                trusted = TrustedProxies.parse([text])
                for peer in (("::ffff:10.1.2.3", 1, 0, 0), ("10.1.2.3", 1)):
                    self.assertTrue(trusted.trusts(Peer.accepted(peer)))
                for peer in (("::ffff:11.1.2.3", 1, 0, 0), ("11.1.2.3", 1), ("::1", 1, 0, 0)):
                    self.assertFalse(trusted.trusts(Peer.accepted(peer)))

    def test_wider(self) -> None:
        """A network that contains more than mapped addresses stays as it is."""
        self.assertTrue(TrustedProxies.parse(["::/0"]).trusts(Peer.accepted(("2001:db8::1", 1, 0, 0))))
        self.assertTrue(TrustedProxies.parse(["::ffff:0:0/96"]).trusts(Peer.accepted(("192.0.2.1", 1))))


class XForwardedPort(unittest.TestCase):
    def own(self, page: str, *headers: str) -> Origin | None:
        return seen(*headers, f"Origin: {page}").own

    def test_host_without_a_port(self) -> None:
        """A page of that port is our own, where the host has none, as of nginx's $host; so is one without."""
        for headers, own in (
            (["X-Forwarded-Host: a", "X-Forwarded-Port: 8443", "X-Forwarded-Proto: https"], "https://a:8443"),
            (["X-Forwarded-Host: a", "X-Forwarded-Port: 8080, 8443"], "http://a:8443"),
            (["X-Forwarded-Host: [::1]", "X-Forwarded-Port: 8443"], "http://[::1]:8443"),
            (
                ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Host: a", "X-Forwarded-Port: 8443"],
                "http://a:8443",
            ),
        ):
            with self.subTest(headers):
                self.assertEqual(self.own(own, *headers), Origin.parse(own))
                other = own.replace(":8443", "")
                self.assertEqual(self.own(other, *headers), Origin.parse(other))
                self.assertEqual(self.own("http://evil.example:8443", *headers), Origin.parse(other))

    def test_what_does_not_count(self) -> None:
        """A port that is none, is said of a host with one, or by somebody who is not believed."""
        page = "http://a:8443"
        for headers in (
            ["X-Forwarded-Host: a", "X-Forwarded-Port: 8443x"],
            ["X-Forwarded-Host: a", "X-Forwarded-Port: 8443, 1"],
            ["X-Forwarded-Host: a:9443", "X-Forwarded-Port: 8443"],
            ["X-Forwarded-Host: a", "X-Forwarded-Port: 8443", "Origin: http://b"],
        ):
            with self.subTest(headers):
                self.assertNotEqual(self.own(page, *headers), Origin.parse(page))
        headers = ["X-Forwarded-Host: a", "X-Forwarded-Port: 8443", f"Origin: {page}"]
        self.assertNotEqual(seen(*headers, peer=CLIENT).own, Origin.parse(page))
        forwarded = replace(TRUSTED, kind="forwarded")
        client = client_of(parsed("Forwarded: host=a", *headers[1:]), PROXY, False, forwarded)
        self.assertNotEqual(client.own, Origin.parse(page))

    def test_port_of_the_proxy_itself(self) -> None:
        """A router that says its own port, which is not that of its clients, contradicts nobody."""
        client = seen("X-Forwarded-Host: a", "X-Forwarded-Port: 10443", "Forwarded: host=a")
        self.assertEqual(client.asked, "http://a")


class Source(unittest.TestCase):
    """A trusted peer that has said by the PROXY protocol whose connection it is."""

    def seen(self, source: Peer, *headers: str) -> Client:
        return client_of(parsed(*headers), PROXY, True, TRUSTED, source)

    def test_client(self) -> None:
        """The client is who that is, and what it says of others is not believed."""
        client = self.seen(
            Peer.at("192.0.2.7", 4711), "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil.example"
        )
        self.assertEqual(client, Client(PROXY, "192.0.2.7", "https://inside:5001"))
        self.assertEqual(str(client), f"192.0.2.7 via {PROXY}")

    def test_one_more_proxy(self) -> None:
        """If that is a trusted proxy, too, its headers count."""
        self.assertEqual(
            self.seen(Peer.at("10.9.9.9", 4711), "X-Forwarded-For: 192.0.2.7").address, "192.0.2.7"
        )
        self.assertEqual(self.seen(Peer.at("fd00::9", 4711), "Forwarded: for=192.0.2.7").address, "192.0.2.7")


if __name__ == "__main__":
    unittest.main()
