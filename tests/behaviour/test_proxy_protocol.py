"""Connections that a load balancer passes on with a PROXY protocol header, end to end."""

from __future__ import annotations

import json
import os
import tempfile
import unittest
from collections import Counter
from typing import Any, ClassVar

from tests.protocol.test_proxy_protocol import SIGNATURE, v2
from tests.support.proxy_process import wait_until
from wsproxy import WebsocketProxy
from wsproxy.config import config_from_env
from wsproxy.exceptions import ConfigError
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"
_TLS_ALERT = b"\x15"


class ProxyProtocolCase(ProxyTestCase):
    tls = False
    TRUSTED: ClassVar[dict[str, Any]] = {"trusted_proxies": ["127.0.0.1"], "proxy_protocol": True}

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)

    def connect(self, proxy: WebsocketProxy, header: bytes) -> RawClient:
        """Connect as a load balancer does that begins with a header."""
        client = RawClient(proxy.address)
        self.addCleanup(client.close)
        client.send_raw(header)
        return client

    def ask(self, proxy: WebsocketProxy, header: bytes, *headers: str, token: str | None = None) -> RawClient:
        client = self.connect(proxy, header)
        client.send_raw(RawClient.request(f"/{token or self.token('vm')}/vm", headers))
        client.read_head()
        return client

    def opened_by(self, proxy: WebsocketProxy, header: bytes, *headers: str) -> str:
        """Open a session and return how the log names its client."""
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            client = self.ask(proxy, header, *headers)
            self.assertEqual(client.status, 101, client.head)
            client.send_close(1000)
            client.recv_close()
            self.assertTrue(client.wait_for_end())
        (line,) = [line for line in logs.output if " opened: " in line]  # the end of one before may come late
        return line.partition("client ")[2].partition(" user")[0]


class TrustedBalancer(ProxyProtocolCase):
    def test_named(self) -> None:
        """The client is who the header says, in either version and in one piece with the request."""
        proxy = self.start_proxy(**self.TRUSTED)
        for header, address in (
            (_V1, r"192\.0\.2\.7"),
            (v2("192.0.2.8", "198.51.100.1"), r"192\.0\.2\.8"),
            (v2("2001:db8::7", "::1", more=b"\xea\0\x05hello"), "2001:db8::7"),
        ):
            with self.subTest(address=address):
                self.assertRegex(self.opened_by(proxy, header), rf"^{address} via 127\.0\.0\.1:\d+$")
        client = RawClient(proxy.address)
        self.addCleanup(client.close)
        early = b"\x82\x85\0\0\0\0early"
        client.send_raw(_V1 + RawClient.request(f"/{self.token('vm')}/vm") + early)
        client.read_head()
        self.assertEqual((client.status, client.recv_frame().payload), (101, b"early"))

    def test_own_connection(self) -> None:
        """A health check of the balancer's own is one of the balancer."""
        proxy = self.start_proxy(**self.TRUSTED)
        for header in (b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\0\0\0"):
            client = self.connect(proxy, header)
            client.send_raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_head()
            self.assertEqual(client.status, 200)
            self.assertRegex(self.opened_by(proxy, header), r"^127\.0\.0\.1:\d+$")

    def test_forwarded_headers(self) -> None:
        """What the client says in headers is not believed, unless it is a trusted proxy, too."""
        proxy = self.start_proxy(**{**self.TRUSTED, "trusted_proxies": ["127.0.0.1", "192.0.2.9"]})
        spoofed = "X-Forwarded-For: 198.51.100.99"
        self.assertRegex(self.opened_by(proxy, _V1, spoofed), r"^192\.0\.2\.7 via ")
        through = v2("192.0.2.9", "198.51.100.1")
        self.assertRegex(self.opened_by(proxy, through, spoofed), r"^198\.51\.100\.99 via 127\.0\.0\.1:\d+$")

    def test_limits_by_address(self) -> None:
        """Limits count the clients' addresses, not the balancer's."""
        proxy = self.start_proxy(**self.TRUSTED, max_failures=2, max_pending_per_address=2)
        for _ in range(2):
            self.assertEqual(self.ask(proxy, _V1, token="bad").status, 401)
        self.assertEqual(self.ask(proxy, _V1).status, 429)
        self.assertEqual(self.ask(proxy, v2("192.0.2.8", "198.51.100.1")).status, 101)

    def test_pending_by_address(self) -> None:
        """Whoever has to make room for others is chosen by the clients' addresses."""
        proxy = self.start_proxy(**self.TRUSTED, max_pending=8)
        server = proxy._server
        assert server is not None
        pending = server._gateway.admission._pending
        quiet = self.connect(proxy, v2("192.0.2.8", "198.51.100.1"))
        for _ in range(7):
            self.connect(proxy, _V1)

        def of_address() -> Counter[str]:
            return Counter(pending._networks.values())

        self.assertTrue(wait_until(lambda: of_address() == {"192.0.2.7": 7, "192.0.2.8": 1}))
        self.assertEqual(self.ask(proxy, v2("192.0.2.9", "198.51.100.1")).status, 101)
        self.assertEqual(of_address(), {"192.0.2.7": 6, "192.0.2.8": 1})
        quiet.send_raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        quiet.read_head()
        self.assertEqual(quiet.status, 200)

    def test_no_header(self) -> None:
        """A balancer that sends none is told so, and nothing is taken from it."""
        proxy = self.start_proxy(**self.TRUSTED, request_timeout=1.0)
        for sent in (
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            b"PROXY TCP4 nonsense\r\n",
            SIGNATURE + b"\x99\0\0\0",
        ):
            with self.subTest(sent=sent), self.assertLogs("wsproxy.connection", "INFO") as logs:
                client = self.connect(proxy, sent)
                client.read_head()
                self.assertEqual((client.status, json.loads(client.body())["reason"]), (400, "bad-request"))
            self.assertEqual(len(logs.output), 1)
            self.assertIn("PROXY protocol", logs.output[0])
        with RawClient(proxy.address) as client:
            client.send_raw(_V1[:20])
            client.read_head()
            self.assertEqual(client.status, 408)
        with RawClient(proxy.address) as client:
            client.drop()
            self.assertEqual(client.recv_raw(), b"")

    def test_stop(self) -> None:
        """A stop ends who has not sent its header yet."""
        proxy = self.start_proxy(**self.TRUSTED)
        clients = [self.connect(proxy, sent) for sent in (b"", _V1[:5], _V1)]
        self.assertTrue(wait_until(lambda: proxy.connections == 3))
        proxy.stop_thread()
        for client in clients:
            self.assertEqual(client.recv_raw(), b"")


class Others(ProxyProtocolCase):
    """Whoever is not trusted to send such a header."""

    def test_untrusted(self) -> None:
        """A client that comes by itself sends none, and one that does is no HTTP client."""
        proxy = self.start_proxy(trusted_proxies=["192.0.2.1"], proxy_protocol=True)
        self.assertRegex(self.opened_by(proxy, b""), r"^127\.0\.0\.1:\d+$")
        for header in (_V1, v2("192.0.2.7", "198.51.100.1")):
            self.assertEqual(self.ask(proxy, header).status, 400)

    def test_off(self) -> None:
        """By default nobody may send one."""
        proxy = self.start_proxy(trusted_proxies=["127.0.0.1"])
        for header in (_V1, v2("192.0.2.7", "198.51.100.1")):
            self.assertEqual(self.ask(proxy, header).status, 400)
        self.assertRegex(self.opened_by(proxy, b""), r"^127\.0\.0\.1:\d+$")

    def test_unix(self) -> None:
        """Over a Unix socket the setting of trusted proxies has to name that."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "socket")
            for trusted, header in (("unix", _V1), ("192.0.2.1", b"")):
                config = config_from_env(
                    {
                        "LOCAL_DEV_MODE": "true",
                        "WS_REMOTE_URL": self.api.url,
                        "SECRET_KEY": SECRET,
                        "WSPROXY_TRUSTED_PROXIES": trusted,
                        "WSPROXY_PROXY_PROTOCOL": "true",
                        "WSPROXY_FORWARDED_HEADERS": "FORWARDED",
                    }
                )
                self.assertEqual(config.trusted.kind, "forwarded")
                proxy = WebsocketProxy.from_config(config).run_in_thread(f"unix:{path}", 0)
                self.addCleanup(proxy.stop_thread)
                named = self.opened_by(proxy, header)
                self.assertEqual(named, "192.0.2.7 via unix" if header else "unix")
                proxy.stop_thread()

    def test_settings(self) -> None:
        """The setting is for somebody who is trusted."""
        with self.assertRaisesRegex(ConfigError, "proxy_protocol is set but trusted_proxies is not"):
            self.start_proxy(proxy_protocol=True)
        with self.assertRaisesRegex(ConfigError, "forwarded_headers is 'all'"):
            self.start_proxy(trusted_proxies=["127.0.0.1"], forwarded_headers="all")


class BeforeTLS(ProxyProtocolCase):
    """The header comes before the handshake."""

    client_tls = True

    def secured(self, proxy: WebsocketProxy, header: bytes) -> RawClient:
        """Send a header in the clear, and speak TLS then."""
        plain = RawClient.default_tls
        RawClient.default_tls = None
        try:
            client = self.connect(proxy, header)
        finally:
            RawClient.default_tls = plain
        assert self.client_context is not None
        client._transport = client._secured(self.client_context, "127.0.0.1")
        return client

    def test_session(self) -> None:
        """A console opens, and the log names its client."""
        proxy = self.start_proxy(**self.TRUSTED)
        for header in (_V1, v2("192.0.2.7", "198.51.100.1", more=bytes(40))):
            with self.assertLogs("wsproxy.session", "INFO") as logs:
                client = self.secured(proxy, header)
                client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
                client.read_head()
                self.assertEqual(client.status, 101)
                client.send_frame(BINARY, b"x")
                self.assertEqual(client.recv_frame().payload, b"x")
                client.send_close(1000)
                client.recv_close()
                client.wait_for_end()
            self.assertIn("client 192.0.2.7 via 127.0.0.1:", "".join(logs.output))

    def test_no_handshake(self) -> None:
        """A handshake that fails is logged with the client's address."""
        proxy = self.start_proxy(**self.TRUSTED)
        RawClient.default_tls = None
        with self.assertLogs("wsproxy.connection", "INFO") as logs:
            client = self.connect(proxy, _V1)
            client.send_raw(b"GET / HTTP/1.1\r\n\r\n")
            self.assertIn(client.recv_raw()[:1], (_TLS_ALERT, b""))
        self.assertRegex(logs.output[0], r"from 192\.0\.2\.7 via 127\.0\.0\.1:\d+: no TLS handshake")

    def test_no_header(self) -> None:
        """A ClientHello in its place is hung up on, with a line in the log."""
        proxy = self.start_proxy(**self.TRUSTED)
        RawClient.default_tls = None
        with self.assertLogs("wsproxy.connection", "INFO") as logs:
            client = self.connect(proxy, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00")
            self.assertEqual(client.recv_raw(), b"")
        self.assertEqual(len(logs.output), 1)
        self.assertRegex(logs.output[0], r"from 127\.0\.0\.1:\d+: a trusted peer must send")


if __name__ == "__main__":
    unittest.main()
