"""Hostile input from clients that have proved nothing: each has a bounded cost and a clear end.

And none of them causes a byte to the Kubernetes API, nor a connection.
"""

from __future__ import annotations

import json
from unittest import mock

from tests.support.frame_streams import frame
from wsproxy.exceptions import BadToken, Forbidden
from wsproxy.server import refusal
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.tokens.claims import Grant
from wsproxy.tokens.verifier import TokenVerifier

from .attacks import ATTACKS, Attack

_ORIGIN = "Origin: http://console.example"
_FORGED = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9."


class StrangersTestCase(ProxyTestCase):
    """A proxy whose request timeout is short, with a VMI behind it that must not be touched."""

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)
        self.proxy = self.start_proxy(request_timeout=1.0, screenshots=True)

    def assert_untouched(self) -> None:
        """Assert that the API was not connected to; then, that it would have been noticed."""
        self.assertEqual((self.api.connections, self.api.requests, self.api.bytes_received), (0, [], 0))
        self.assertEqual(self.api.tls_failures, [])
        self.assert_open()
        self.assertEqual((self.api.connections, len(self.api.requests)), (1, 1))

    def assert_open(self) -> None:
        """Assert that a client with a good token is let in."""
        with RawClient.open(self.url(self.proxy, "vm")) as client:
            self.assertEqual(client.status, 101)

    def run_attack(self, attack: Attack, token: str) -> None:
        with RawClient(self.proxy.address) as client:
            client.send_raw(attack.request.replace(b"TOKEN", token.encode()))
            client.read_head()
            body = client.body()  # to the end of the connection
        self.assertEqual(client.status, attack.status, body)
        self.assertEqual(json.loads(body)["reason"], attack.slug, body)
        self.assertIsNone(client.header("location"))
        self.assertNotIn(token, body.decode())


class HostileHeads(StrangersTestCase):
    """Request smuggling, h2c and other protocols, targets that lead elsewhere, heads without end."""

    def test_every_attack(self) -> None:
        """Each gets one answer and the end of its connection; the API hears nothing of any."""
        for attack in ATTACKS:
            with self.subTest(attack=attack.name):
                self.run_attack(attack, _FORGED)
        self.assert_untouched()

    def test_every_attack_with_a_good_token(self) -> None:
        """A token that is good for the VMI does not make any of them better."""
        token = self.token("vm")
        for attack in ATTACKS:
            with self.subTest(attack=attack.name):
                self.run_attack(attack, token)
        self.assert_untouched()

    def test_pipelined_requests(self) -> None:
        """What follows a request is never another request: one answer, and the end."""
        good = RawClient.request(f"/{self.token('vm')}/vm")
        for first in (
            b"GET /healthz HTTP/1.1\r\nHost: proxy\r\n\r\n",
            RawClient.request(f"/{_FORGED}/vm"),
            b"GET /nothing HTTP/1.1\r\nHost: proxy\r\nConnection: keep-alive\r\n\r\n",
        ):
            with self.subTest(first=first[:12]), RawClient(self.proxy.address) as client:
                client.send_raw(first + good * 20)
                client.read_head()
                self.assertNotIn(b"HTTP/1.1", client.body())
        self.assert_untouched()

    def test_open_redirect(self) -> None:
        """A target of two slashes is a path like any other; no answer sends anybody elsewhere."""
        for target in ("//evil.example", "//evil.example/vm", "///evil.example/healthz", "/\\evil.example"):
            for request in (
                f"GET {target} HTTP/1.1\r\nHost: proxy\r\n\r\n".encode(),
                RawClient.request(target),
            ):
                with self.subTest(target=target), RawClient(self.proxy.address) as client:
                    client.send_raw(request)
                    client.read_head()
                    self.assertIn(client.status, (400, 401, 404))
                    self.assertIsNone(client.header("location"))
                    self.assertNotIn(b"evil.example", client.body())
        self.assert_untouched()


class HalfOpen(StrangersTestCase):
    """Connections that never become requests."""

    def test_many(self) -> None:
        """Hundreds that say nothing, or half a head, hinder nobody, and are told 408 at the deadline."""
        clients = [RawClient(self.proxy.address) for _ in range(200)]
        for client in clients:
            self.addCleanup(client.close)
        for client in clients[::2]:
            client.send_raw(b"GET /healthz HTTP/1.1\r\nHost: pro")
        self.assertEqual(self.api.connections, 0)
        self.assert_open()
        for client in clients:
            client.read_head()
            self.assertEqual(client.status, 408)
            self.assertTrue(client.wait_for_end())
        self.assertEqual(self.api.connections, 1)

    def test_clients_that_leave(self) -> None:
        """Those that end or reset their connection, at whatever point, leave nothing behind."""
        request = RawClient.request(f"/{_FORGED}/vm", [_ORIGIN])
        for size in range(0, len(request), 7):
            with RawClient(self.proxy.address) as client:
                client.send_raw(request[:size])
                client.drop() if size % 2 else client.reset()
        self.assert_untouched()


class BrowserThatIsRefused(StrangersTestCase):
    """A browser is let through the handshake to be told why not: frames from a client without a token."""

    def converse(self, *pieces: bytes) -> RawClient:
        client = RawClient(self.proxy.address)
        self.addCleanup(client.close)
        client.send_raw(RawClient.request(f"/{_FORGED}/vm", [_ORIGIN]))
        client.read_head()
        self.assertEqual(client.status, 101)
        try:
            for piece in pieces:
                client.send_raw(piece)
        except ConnectionError:
            pass  # ended before it had said everything
        client.wait_for_end()
        return client

    def test_frames(self) -> None:
        """Whatever frames it sends, it is sent away within the time of a conversation."""
        masked = {
            "2^63 - 1 bytes": b"\x82\xff\x7f" + b"\xff" * 7 + b"mask" + bytes(100_000),
            "2^63 bytes": b"\x82\xff\x80" + bytes(7) + b"mask",
            "one-byte fragments": frame(0x02, b"a", masked=True) + frame(0x00, b"b", masked=True) * 20_000,
            "empty fragments": frame(0x02, masked=True) + frame(0x00, masked=True) * 20_000,
            "pings": frame(0x89, b"p" * 125, masked=True) * 5_000,
            "long ping": frame(0x89, b"p" * 126, masked=True),
            "not masked": frame(0x82, b"RFB 003.008\n", masked=False),
            "reserved bits": frame(0xF2, b"x", masked=True),
            "text that is not UTF-8": frame(0x81, b"\xff", masked=True),
            "Close of one byte": frame(0x88, b"x", masked=True),
            "two Closes": frame(0x88, b"\x03\xe8", masked=True) * 2,
            "a request": RawClient.request(f"/{self.token('vm')}/vm"),
            "nothing": b"",
        }
        with mock.patch.object(refusal, "_CONVERSATION_SECONDS", 0.3):
            for name, data in masked.items():
                with self.subTest(name=name):
                    self.converse(data)
                    self.converse(frame(0x82, b"RFB 003.008\n", masked=True), data)
        self.assert_untouched()


class OnlyOneWay(StrangersTestCase):
    """No path leads to the API but through the verifier and the authorisation."""

    def test_verifier_that_refuses(self) -> None:
        """With a verifier that refuses everybody, nobody reaches the API by any route."""
        with mock.patch.object(TokenVerifier, "verify", side_effect=BadToken("the token is not valid")):
            self.knock()
        self.assert_untouched()

    def test_authorisation_that_refuses(self) -> None:
        """The same with an authorisation that refuses every VMI."""
        with mock.patch.object(
            Grant, "authorize", side_effect=Forbidden("the token does not allow this VMI")
        ):
            self.knock()
        self.assert_untouched()

    def knock(self) -> None:
        token = self.token("vm")
        bearer = f"Authorization: Bearer {token}"
        for target, *headers in (
            (f"/{token}/vm",),
            (f"/{token}/vm/console",),
            (f"/{token}/vm/vnc",),
            ("/-/vm", bearer),
            (f"/-/{self.namespace}/vm", bearer),
            ("/healthz",),
            ("/",),
        ):
            for origin in ([], [_ORIGIN]):
                with RawClient(self.proxy.address) as client:
                    client.send_raw(RawClient.request(target, [*headers, *origin]))
                    client.read_head()
                    if client.status == 101:  # to be told why not
                        client.send_close(1000)
                    client.wait_for_end()
        for target, *headers in (
            (f"/{token}/vm/screenshot.png",),
            ("/-/vm/screenshot.png", bearer),
            (f"/-/{self.namespace}/vm/screenshot.png", bearer),
        ):
            with RawClient(self.proxy.address) as client:
                lines = [f"GET {target} HTTP/1.1", "Host: proxy", *headers, "", ""]
                client.send_raw("\r\n".join(lines).encode())
                client.read_head()
                self.assertIn(client.status, (401, 403))
