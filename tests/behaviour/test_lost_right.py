"""A client that has lost its right to a console: nothing more of it reaches the machine."""

from __future__ import annotations

import struct
import threading
import unittest

from tests.behaviour.test_session_ends import EndsTestCase
from wsproxy.exceptions import TransportClosed
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
        self.assertTrue(self.begun.wait(10))
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
                    self.assertTrue(self.over.wait(10))
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
        self.assertTrue(self.over.wait(10))
        self.assertLess(len(self.received), sent)
        self.assertIsNone(console.close_received)


class PlainClientThatLostItsRightGoesOn(ClientThatLostItsRightGoesOn):
    """The same without TLS, as behind kubectl proxy."""

    tls = False


class TLSClientThatLostItsRightGoesOn(ClientThatLostItsRightGoesOn):
    """The same with TLS on both legs."""

    client_tls = True


if __name__ == "__main__":
    unittest.main()
