"""Tests of the simulated API's 101, and of every way in which it may be wrong."""

from __future__ import annotations

import unittest
from typing import Any

from tests.testing.rfb.raw_client import KEY, APITestCase, RawClient, path
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.frames import BINARY, encode_frame
from wsproxy.testing.kubevirt.http import Answer, Behaviour

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class HandshakeTest(APITestCase):
    """The 101, and every way in which it may be wrong."""

    def setUp(self) -> None:
        super().setUp()
        self.vmi = self.api.add_vmi("vm")

    def _misbehave(self, **fields: Any) -> RawClient:
        self.vmi.behaviour = Behaviour(**fields)
        client = self.client()
        client.ask_upgrade()
        return client

    def test_the_101(self) -> None:
        """The 101 is gorilla's, without a protocol and without extensions if none fits."""
        expected = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {ACCEPT}"
        )
        offers: dict[str, str | None] = {"sec_websocket_extensions": "permessage-deflate"}
        self.assertEqual(expected, self.client().upgrade(sec_websocket_protocol="binary", **offers))

    def test_subprotocol(self) -> None:
        """plain.kubevirt.io is chosen wherever it stands in the offer."""
        head = self.client().upgrade(sec_websocket_protocol="binary, plain.kubevirt.io")
        self.assertTrue(head.endswith("Sec-WebSocket-Protocol: plain.kubevirt.io"))
        self.assertEqual("plain.kubevirt.io", self.vmi.wait_for_session().subprotocol)

    def test_record(self) -> None:
        """A request is recorded as it was sent before its answer."""
        client = self.client()
        client.upgrade(path() + "?a=b", X_Twice="1")
        (request,) = self.api.requests
        self.assertEqual(("GET", path() + "?a=b", 101), (request.method, request.target, request.status))
        self.assertEqual(client.sock.getsockname(), request.peer)
        self.assertIn(("X-Twice", "1"), request.headers)
        self.assertEqual(KEY, request.header("Sec-WebSocket-Key"))
        self.assertIsNone(request.header("Cookie"))
        self.assertEqual(1, self.api.connections)

    def test_wrong_accept(self) -> None:
        """The accept value may be wrong."""
        self.assertIn(
            "Sec-WebSocket-Accept: nonsense\r\n", self._misbehave(accept="nonsense").read_head() + "\r\n"
        )

    def test_wrong_subprotocol(self) -> None:
        """The API may select a subprotocol that the client did not offer."""
        head = self._misbehave(subprotocol="v4.channel.k8s.io").read_head()
        self.assertIn("Sec-WebSocket-Protocol: v4.channel.k8s.io", head)

    def test_extra_headers(self) -> None:
        """Cookies and extensions may be answered, in a 101 and in a refusal."""
        headers = (("Set-Cookie", "a=b"), ("Sec-WebSocket-Extensions", "permessage-deflate"))
        for status in (101, 400):
            head = self._misbehave(headers=headers).read_head()
            self.assertTrue(head.startswith(f"HTTP/1.1 {status} "))
            self.assertIn("Set-Cookie: a=b\r\nSec-WebSocket-Extensions: permessage-deflate", head)
            self.vmi.display = False

    def test_redirect(self) -> None:
        """A redirect points wherever the test wants, for instance at a second API that records."""
        head = self._misbehave(answer=Behaviour.redirect("http://other/x").answer).read_head()
        self.assertTrue(head.startswith("HTTP/1.1 302 Found\r\nLocation: http://other/x\r\n"))

    def test_200(self) -> None:
        """An upgrade may be answered with an ordinary page."""
        client = self._misbehave(answer=Answer(200, b"hello"))
        self.assertIn("200 OK", client.read_head())
        self.assertEqual(b"hello", client.read_rest())
        self.assertEqual(200, self.api.requests[-1].status)

    def test_hang(self) -> None:
        """Nothing is answered until the API stops."""
        client = self._misbehave(hang=True)
        self.assertIsNone(self.api.wait_for_requests(1)[0].status)
        client.sock.setblocking(False)
        with self.assertRaises(BlockingIOError):
            client.sock.recv(1)
        client.sock.settimeout(60.0)
        self.api.stop()
        self.assertEqual(b"", client.read_rest())

    def test_drip(self) -> None:
        """An answer may come byte by byte, and stops when the API does."""
        client = self._misbehave(drip=0.05)
        pieces = [client.sock.recv(100)]
        while sum(map(len, pieces)) < len("HTTP/1.1"):
            pieces.append(client.sock.recv(100))
        self.assertTrue(b"".join(pieces).startswith(b"HTTP/1.1"))
        self.assertGreater(len(pieces), 1)  # as many as there are bytes, if the machine is not busy
        self.api.stop()
        self.assertLess(len(client.read_rest()), 10)

    def test_drip_ends(self) -> None:
        """A fast drip becomes a session."""
        self.assertIn(ACCEPT, self._misbehave(drip=0.0001).read_head())

    def test_endless_headers(self) -> None:
        """Headers may go on for as long as they are taken."""
        client = self._misbehave(endless_headers=True)
        data = b""
        while len(data) < 1 << 20:
            data += client.sock.recv(65536)
        self.assertNotIn(b"\r\n\r\n", data)

    def test_endless_body(self) -> None:
        """A body may go on for as long as it is taken."""
        client = self._misbehave(endless_body=True, answer=Answer(500))
        self.assertIn("500 Internal Server Error", client.read_head())
        size = 0
        while size < 1 << 20:
            size += len(client.sock.recv(65536))

    def test_truncated_body(self) -> None:
        """A body may end before its Content-Length."""
        client = self._misbehave(body_framing="truncated", answer=Answer(404, b"short"))
        self.assertIn("Content-Length: 105", client.read_head())
        self.assertEqual(b"short", client.read_rest())

    def test_chunked_body(self) -> None:
        """A natural refusal may be chunked."""
        self.vmi.phase = "Failed"
        client = self._misbehave(body_framing="chunked")
        head, rest = client.read_head(), client.read_rest()
        self.assertIn("Transfer-Encoding: chunked", head)
        self.assertTrue(rest.startswith(b'10\r\n{"kind":"Status"'[:14]) and rest.endswith(b"0\r\n\r\n"))

    def test_body_until_close(self) -> None:
        """A body may be delimited by the end of the connection."""
        client = self._misbehave(body_framing="close", answer=Answer(404, b"gone"))
        self.assertNotIn("Content-Length", client.read_head())
        self.assertEqual(b"gone", client.read_rest())

    def test_raw(self) -> None:
        """Any bytes may be answered."""
        self.assertEqual(b"SSH-2.0-x\r\n", self._misbehave(raw=b"SSH-2.0-x\r\n").read_rest())

    def test_early_frames(self) -> None:
        """Frames may come in the same write as the 101."""
        banner = encode_frame(BINARY, b"RFB 003.008\n")
        data = self._misbehave(early=banner).sock.recv(65536)
        self.assertTrue(data.endswith(b"\r\n\r\n" + banner))

    def test_coalesced_banner(self) -> None:
        """The 101 may wait for the backend's first bytes."""
        self.vmi.backend = Script(lambda console: console.send_message(b"RFB 003.008\n"))
        data = self._misbehave(coalesce=True).sock.recv(65536)
        self.assertTrue(data.startswith(b"HTTP/1.1 101 ") and data.endswith(b"\r\n\r\n\x82\x0cRFB 003.008\n"))

    def test_eof_after_the_101(self) -> None:
        """The connection may end right after the 101."""
        client = self._misbehave(eof=True)
        self.assertIn(ACCEPT, client.read_head())
        self.assertEqual(b"", client.read_rest())

    def test_behaviour_of_the_api(self) -> None:
        """The API's behaviour concerns every request whose VMI has none of its own."""
        self.api.behaviour = Behaviour(raw=b"x")
        client = self.client()
        client.ask("/readyz")
        self.assertEqual(b"x", client.read_rest())
        self.vmi.behaviour = Behaviour()
        self.client().upgrade()


if __name__ == "__main__":
    unittest.main()
