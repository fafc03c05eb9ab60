"""A client that has lost its right to a console: nothing more of it reaches the machine."""

from __future__ import annotations

import struct
import threading
import unittest
from functools import partial
from unittest import mock

from tests.behaviour.test_session_ends import EndsTestCase
from tests.support.jws import signed_token
from wsproxy.exceptions import TransportClosed
from wsproxy.runtime.wall_clock import unix_time
from wsproxy.server.gateway import Gateway
from wsproxy.state.revocations import Match
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_BEGUN = 1000
_SIZE = 100_000
_HEAD = struct.pack("!BBQ4s", 0x82, 0x80 | 127, _SIZE, b"mask")


class ClientThatLostItsRightGoesOn(EndsTestCase):
    """The session is ended by us while its client is sending, which does not stop for that."""

    def setUp(self) -> None:
        super().setUp()
        self.received = bytearray()
        self.begun, self.over = threading.Event(), threading.Event()

    def collect(self, console: FakeConsole) -> None:
        """Receive all that comes, as it is."""
        try:
            console.send_frame(BINARY, b"ready")
            while part := console.recv_raw():
                self.received += part
                if len(self.received) >= len(_HEAD) + _BEGUN:
                    self.begun.set()
        except TransportClosed:
            pass  # reset
        finally:
            self.over.set()

    def in_a_frame(self) -> RawClient:
        """Open a session, and begin to send a large frame."""
        client, _ = self.session(self.collect)
        client.send_raw(_HEAD + bytes(_BEGUN))
        self.assertTrue(self.begun.wait(60))
        return client

    def go_on(self, client: RawClient) -> None:
        """Complete the frame, and send others."""
        client.send_raw(bytes(_SIZE - _BEGUN))
        for _ in range(10):
            client.send_frame(BINARY, b"rm -rf")

    def test_inside_a_frame(self) -> None:
        """The upstream is cut inside the frame, without a Close, and the log says so."""
        for code, reason in ((4411, "expired"), (4499, "kicked")):
            with self.subTest(code=code):
                self.received.clear()
                self.begun.clear()
                self.over.clear()
                client = self.in_a_frame()
                with self.proxy_logs("wsproxy.session") as logs:
                    self.end_from_within(client, code, reason)
                    self.assertEqual(client.recv_close(), (code, reason))
                    self.go_on(client)
                    client.send_close(code)
                    self.assertTrue(self.over.wait(60))
                    self.assert_all_gone(client)
                self.assertEqual(len(self.received), len(_HEAD) + _BEGUN)
                self.assertIn("close not sent to upstream", logs.output[-1])

    def test_between_frames(self) -> None:
        """At the end of a frame the upstream gets its Close, and nothing behind it."""
        client, _ = self.session(self.collect)
        client.recv_frame()
        self.end_from_within(client, 4499, "kicked")
        self.assertEqual(client.recv_close(), (4499, "kicked"))
        self.go_on(client)
        client.send_close(4499)
        self.assert_all_gone(client)
        self.assertEqual(len(self.received), 2 + 4 + 2)  # a masked Close

    def test_upstream_that_takes_its_time(self) -> None:
        """What waits in this process for an upstream that takes nothing is dropped."""
        go_on = threading.Event()

        def take_nothing(console: FakeConsole) -> None:
            console.wait(go_on)
            self.collect(console)

        client, console = self.session(take_nothing)
        client.timeout, sent = 0.5, 0
        with self.assertRaises(TimeoutError):
            while True:
                client.send_raw(_HEAD + bytes(_SIZE))
                sent += len(_HEAD) + _SIZE
        self.end_from_within(client, 4499, "kicked")
        self.assertEqual(client.recv_close(), (4499, "kicked"))
        client.reset()
        go_on.set()
        self.assertTrue(self.over.wait(60))
        self.assertLess(len(self.received), sent)
        self.assertIsNone(console.close_received)


class PlainClientThatLostItsRightGoesOn(ClientThatLostItsRightGoesOn):
    """The same without TLS, as behind kubectl proxy."""

    tls = False


class TLSClientThatLostItsRightGoesOn(ClientThatLostItsRightGoesOn):
    """The same with TLS on both legs."""

    client_tls = True


class WallClockJumps(ProxyTestCase):
    """Somebody sets the clock: a token is good for no longer than it says."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)
        self.set_by = 0.0
        wall_clock = partial(Gateway, wall_clock=lambda: unix_time() + self.set_by)
        patcher = mock.patch("wsproxy.proxy.Gateway", wall_clock)
        patcher.start()
        self.addCleanup(patcher.stop)
        self.proxy = self.start_proxy(reject="http")

    @property
    def gateway(self) -> Gateway:
        assert self.proxy._server is not None
        return self.proxy._server._gateway

    def set_clock(self, seconds: float) -> None:
        """Set the clock, and let the housekeeping see it."""
        self.set_by = seconds
        self.gateway.housekeeping.wake(self.gateway.clock_watch)

    def open(self, token: str) -> RawClient:
        client = RawClient.open(self.url(self.proxy, "vm", token))
        self.addCleanup(client.close)
        return client

    def test_forward(self) -> None:
        """A session whose token is over then ends at once; another one goes on."""
        short, long = self.open(self.token("vm", expires_in=3600)), self.token("vm", expires_in=7200)
        self.assertEqual(short.status, 101)
        short.send_frame(BINARY, b"x")
        short.recv_frame()
        self.set_clock(3000)
        short.send_frame(BINARY, b"x")
        self.assertEqual(short.recv_frame().opcode, BINARY)
        self.set_clock(3700)
        self.assertEqual(short.recv_close(), (4411, "expired: the token's time is over"))
        client = self.open(long)
        client.send_frame(BINARY, b"x")
        self.assertEqual(client.recv_frame().opcode, BINARY)

    def test_forward_and_back(self) -> None:
        """A token that was over then stays so, also one that had been revoked, and was forgotten since."""
        tokens = [self.token("vm", user=user, expires_in=3600) for user in (1, 2)]
        grant = self.gateway.verifier.verify(tokens[0])
        assert grant.token_key
        participant = self.gateway.participant
        participant.kick([Match(digest=grant.token_key.digest.hex())], grant.token_key.expires_at)
        self.assertEqual([self.open(token).status for token in tokens], [401, 101])
        self.set_clock(7300)
        participant.known.learn([])  # what has expired for an hour is forgotten
        self.assertEqual(list(participant.known), [])
        with self.assertLogs("wsproxy.clock", "WARNING"):
            self.set_clock(0)
            self.assertEqual([self.open(token).status for token in tokens], [401, 401])
        self.assertEqual(self.open(self.token("vm", user=3, expires_in=14400)).status, 101)

    def test_not_yet(self) -> None:
        """What is not valid yet is so once that time has come, and stays so."""
        claims = {"nbf": unix_time() + 3600, "exp": unix_time() + 36000}
        lab = {"namespace_name": self.namespace, "allowed_vmi_names": ["vm"]}
        token = signed_token({"id": 5, "lab_instance": lab, **claims}, SECRET)
        self.assertEqual(self.open(token).status, 401)
        self.set_clock(3700)
        self.assertEqual(self.open(token).status, 101)


if __name__ == "__main__":
    unittest.main()
