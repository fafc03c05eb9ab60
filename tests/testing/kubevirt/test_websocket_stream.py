"""A WebSocket as a byte stream: the bytes that a viewer gets, and the errors of opening one."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
import unittest
from collections.abc import Callable
from typing import cast

import websocket

from tests.support.transports import TransportCase
from wsproxy.net.tls import TLSTransport
from wsproxy.protocol.rfb import refusal
from wsproxy.testing.rfb.client import (
    ConsoleClosed,
    RFBClient,
    RFBRefused,
    UpgradeRefused,
    WebSocketStream,
    open_websocket,
)
from wsproxy.testing.rfb.viewer import RFBViewer

TIMEOUT = 60.0


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Return an unmasked frame of at most 125 payload bytes."""
    return bytes(((0x80 if fin else 0) | opcode, len(payload))) + payload


class WebSocketStreamTest(unittest.TestCase):
    def setUp(self) -> None:
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.peer.settimeout(TIMEOUT)
        connection = websocket.WebSocket(enable_multithread=False)
        connection.sock = ours
        connection.connected = True
        self.stream = WebSocketStream(connection, timeout=0.2)
        self.addCleanup(self.stream.close)

    def take_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next short frame the stream sent, unmasked."""
        head = self.peer.recv(2, socket.MSG_WAITALL)
        self.assertTrue(head[1] & 0x80, "a client's frame has to be masked")
        mask = self.peer.recv(4, socket.MSG_WAITALL)
        length = head[1] & 0x7F
        data = self.peer.recv(length, socket.MSG_WAITALL) if length else b""
        return head[0] & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    def test_fragments_are_one_stream(self) -> None:
        """Messages and fragments, empty ones among them, are joined; no more is returned than asked for."""
        self.peer.sendall(frame(2, b"ab", fin=False) + frame(0, b"") + frame(2, b"cdef") + frame(1, b"g"))
        self.assertEqual([self.stream.recv(3) for _ in range(4)], [b"ab", b"cde", b"f", b"g"])

    def test_pings(self) -> None:
        """A ping is answered with its payload and is not part of the stream."""
        self.peer.sendall(frame(9, b"ping") + frame(10, b"pong") + frame(2, b"data"))
        self.assertEqual(self.stream.recv(99), b"data")
        self.assertEqual(self.take_frame(), (10, b"ping"))

    def test_sending(self) -> None:
        """Bytes go out as one masked binary message."""
        self.stream.sendall(b"keys")
        self.assertEqual(self.take_frame(), (2, b"keys"))

    def test_close_from_the_server(self) -> None:
        """The server's Close is raised with code and reason, each time, and answered with its code."""
        self.peer.sendall(frame(2, b"x") + frame(8, struct.pack(">H", 4411) + "expired: spät".encode()))
        self.assertEqual(self.stream.recv(9), b"x")
        for _ in range(2):
            with self.assertRaises(ConsoleClosed) as caught:
                self.stream.recv(9)
            self.assertEqual((caught.exception.code, caught.exception.reason), (4411, "expired: spät"))
        self.assertEqual(self.take_frame(), (8, struct.pack(">H", 4411)))
        self.stream.close()
        self.assertEqual(self.peer.recv(1), b"")

    def test_close_without_a_code(self) -> None:
        """An empty Close is code 1005 and gets an empty answer."""
        self.peer.sendall(frame(8, b""))
        with self.assertRaises(ConsoleClosed) as caught:
            self.stream.recv(9)
        self.assertEqual(caught.exception.code, 1005)
        self.assertEqual(self.take_frame(), (8, b""))

    def test_our_close(self) -> None:
        """Our Close carries the code, the answer is kept, and no second Close follows."""
        self.peer.sendall(frame(2, b"dropped") + frame(8, struct.pack(">H", 1000)))
        self.stream.close(4000)
        self.assertEqual(self.take_frame(), (8, struct.pack(">H", 4000)))
        self.assertEqual(self.peer.recv(1), b"")
        assert self.stream.closed is not None
        self.assertEqual(self.stream.closed.code, 1000)
        self.stream.close()

    def test_our_close_unanswered(self) -> None:
        """A server that does not answer our Close costs no more than the timeout."""
        self.stream.close()
        self.assertIsNone(self.stream.closed)

    def test_end_without_close(self) -> None:
        """TCP that ends without a Close frame is the end of the stream."""
        self.peer.shutdown(socket.SHUT_WR)
        self.assertEqual(self.stream.recv(9), b"")

    def test_half_a_frame(self) -> None:
        """A timeout within a frame loses nothing."""
        whole = frame(2, b"whole")
        self.peer.sendall(whole[:4])
        with self.assertRaises(TimeoutError):
            self.stream.recv(9)
        self.peer.sendall(whole[4:])
        self.assertEqual(self.stream.recv(9), b"whole")

    def test_broken_frame(self) -> None:
        """A frame with reserved bits is an error of the connection."""
        self.peer.sendall(b"\xf2\x01x")
        with self.assertRaisesRegex(ConnectionError, "RFC 6455"):
            self.stream.recv(9)


class BrokenTLSTest(TransportCase):
    def test_other_connections(self) -> None:
        """A stream whose TLS breaks is no error of the next call on another connection of the thread."""
        other = self.tls_pair()[1]
        one, two = self.tls_pair()
        two.abort()
        connection = websocket.WebSocket(enable_multithread=False)
        connection.sock = cast(TLSTransport, one)._tls
        connection.connected = True
        stream = WebSocketStream(connection, timeout=0.2)
        self.addCleanup(stream.close)
        self.assertRaises(OSError, stream.sendall, b"x")
        self.assertIsNone(other.try_recv_into(memoryview(bytearray(1))))


class ClosedWhileSendingTest(unittest.TestCase):
    def test_close_that_was_not_read_yet(self) -> None:
        """A key that cannot be sent any more raises the Close that the server sent before it left."""
        ours, theirs = socket.socketpair()
        connection = websocket.WebSocket(enable_multithread=False)
        connection.sock = ours
        connection.connected = True
        theirs.sendall(frame(8, struct.pack(">H", 4412)))
        theirs.close()
        with RFBViewer(WebSocketStream(connection, 0.2), TIMEOUT) as client:
            with self.assertRaises(ConsoleClosed) as caught:
                client.key(0x61)
            self.assertEqual(caught.exception.code, 4412)


class ConnectTest(unittest.TestCase):
    """Against a listening socket that answers one opening handshake by a script."""

    def serve(self, answer: Callable[[bytes], bytes]) -> str:
        """Answer the next request head with these bytes, then end, and return the URL to connect to."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.head = b""

        def run() -> None:
            with listener, listener.accept()[0] as connection:
                connection.settimeout(TIMEOUT)
                while b"\r\n\r\n" not in self.head:
                    self.head += connection.recv(4096)
                connection.sendall(answer(self.head))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=run, name="scripted-server")
        thread.start()
        self.addCleanup(thread.join, TIMEOUT)
        return f"ws://127.0.0.1:{listener.getsockname()[1]}/TOKEN/ubuntu"

    def test_refusal_inside_the_websocket(self) -> None:
        """A refusal over a WebSocket is raised, and the Close after it is told."""
        said = b"".join(refusal("token-expired"))
        url = self.serve(lambda head: accept(head) + frame(2, said) + frame(8, b"\x11\x31token-expired"))
        with RFBClient.connect(url, TIMEOUT) as client:
            with self.assertRaisesRegex(RFBRefused, "token-expired"):
                client.handshake()
            end = client.wait_closed()
        self.assertEqual((end.code, end.reason), (4401, "token-expired"))

    def test_refused_upgrade(self) -> None:
        """An HTTP status instead of 101 is raised with its headers and body."""
        url = self.serve(lambda head: b"HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 2\r\n\r\n{}")
        with self.assertRaises(UpgradeRefused) as caught:
            RFBClient.connect(url, TIMEOUT)
        self.assertEqual((caught.exception.status, caught.exception.body), (403, b"{}"))
        self.assertEqual(caught.exception.headers["x-why"], "no")

    def test_redirects_are_not_followed(self) -> None:
        """A redirect is an error: a token must not be sent elsewhere."""
        url = self.serve(
            lambda head: b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        )
        with self.assertRaises(ConnectionError):
            RFBClient.connect(url, TIMEOUT)

    def test_headers(self) -> None:
        """Only the Origin, headers and subprotocols that were given are sent."""
        url = self.serve(accept)
        RFBClient.connect(url, TIMEOUT, header=["X-Test: yes"], origin="http://lab").close()
        self.assertIn(b"\r\nOrigin: http://lab\r\n", self.head)
        self.assertIn(b"\r\nX-Test: yes\r\n", self.head)
        url = self.serve(accept)
        RFBClient.connect(url, TIMEOUT).close()
        self.assertNotIn(b"Origin", self.head)
        self.assertNotIn(b"Sec-WebSocket-Protocol", self.head)
        self.assertTrue(self.head.startswith(b"GET /TOKEN/ubuntu HTTP/1.1\r\n"))

    def test_other_urls(self) -> None:
        """Other URLs, and a TLS context with a ws:// URL, are refused before the client connects."""
        for url in ("http://127.0.0.1/", "127.0.0.1:1", "ws:///x"):
            with self.subTest(url=url), self.assertRaises(ValueError):
                open_websocket(url)


def accept(head: bytes) -> bytes:
    """Return the 101 that answers a request head (RFC 6455 section 4.2.2)."""
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    digest = hashlib.sha1(lines[b"Sec-WebSocket-Key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
