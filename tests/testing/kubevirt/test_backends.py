"""Tests of the backends of a simulated VMI."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import unittest

from tests.testing.rfb.raw_client import WAIT, SessionTestCase, path
from wsproxy.testing.kubevirt.backends import (
    Backend,
    Echo,
    Script,
    SocketBackend,
    Stream,
    TCPBackend,
    UnixBackend,
)
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    FrameBuffer,
    close_payload,
    encode_message,
)


class BackendTest(SessionTestCase):
    """Stream, sockets and servers behind a VMI."""

    def test_stream(self) -> None:
        """A stream begins with the RFB banner, is whole, and ends without a Close."""
        stream = Stream(total=100_000)
        client, console = self.open(stream)
        payload = b""
        with self.assertRaises(EOFError) as caught:
            while True:
                frame = client.frame()
                self.assertNotEqual(CLOSE, frame.opcode)
                payload += frame.payload
        self.assertEqual(b"", caught.exception.args[0])
        self.assertTrue(payload.startswith(b"RFB 003.008\n\x00\x01\x02"))
        self.assertEqual((100_000, 100_000), (len(payload), stream.bytes_sent))
        self.assert_over(client, console)

    def test_stream_counts_the_client(self) -> None:
        """A stream that stays counts what the client sends, and answers pings meanwhile."""
        stream = Stream(total=5, stay=True)
        client, console = self.open(stream)
        client.send(bytes(1000))
        client.send(b"1", PING)
        self.assertEqual([b"RFB 0", b"1"], [client.frame().payload for _ in range(2)])
        self.assertEqual(1000, stream.bytes_received)
        client.send(close_payload(1000), CLOSE)
        self.assertEqual(CLOSE, client.frame().opcode)
        self.assert_over(client, console)

    def test_stream_without_a_reader(self) -> None:
        """A client that reads nothing blocks the stream, and its Close still ends the session."""
        client, console = self.open(Stream())
        client.frame()
        client.send(close_payload(1000), CLOSE)
        self.assertTrue(console.ended.wait(WAIT))
        self.assertEqual((1000, ""), console.close_received)

    def test_pong_in_a_running_stream(self) -> None:
        """A ping is answered between the frames of a stream that never pauses."""
        client, _ = self.open(Stream())
        client.send(b"you there?", PING)
        while (frame := client.frame()).opcode != PONG:
            pass
        self.assertEqual(b"you there?", frame.payload)

    def test_socket_backend(self) -> None:
        """A function serves each session's socket; its end is the session's."""

        def serve(sock: socket.socket) -> None:
            sock.sendall(b"RFB 003.008\n")
            self.assertEqual(b"RFB 003.008\n", sock.recv(12, socket.MSG_WAITALL))
            sock.sendall(bytes(10))

        client, console = self.open(SocketBackend(serve))
        self.assertEqual(b"RFB 003.008\n", client.frame().payload)
        client.send(b"RFB 003", fin=False)
        client.send(b".008\n", CONTINUATION)
        self.assertEqual(bytes(10), client.frame().payload)
        self.assertEqual(b"", client.read_rest())
        self.assert_over(client, console)

    def test_socket_backend_sees_the_end(self) -> None:
        """A client's Close is the end of the backend's stream."""
        ended = threading.Event()

        def serve(sock: socket.socket) -> None:
            while sock.recv(100):
                pass
            ended.set()

        client, console = self.open(SocketBackend(serve))
        client.send(close_payload(1000), CLOSE)
        self.assertEqual(CLOSE, client.frame().opcode)
        self.assertTrue(ended.wait(WAIT))
        self.assert_over(client, console)

    def test_socket_backend_error(self) -> None:
        """An exception of the function is reported."""

        def serve(sock: socket.socket) -> None:
            raise LookupError("bug")

        client, console = self.open(SocketBackend(serve))
        self.assertEqual(b"", client.read_rest())
        self.assert_over(client, console)
        self.assertEqual(["bug"], [str(error) for error in self.api.errors])
        self.api.errors.clear()

    def _check_server(self, listener: socket.socket, backend: Backend) -> None:
        with listener:
            listener.listen()
            listener.settimeout(WAIT)
            client, console = self.open(backend)
            server, _ = listener.accept()
            with server:
                server.settimeout(WAIT)
                server.sendall(bytes(20509))
                frames = [client.frame() for _ in range(2)]
                self.assertEqual(20509, sum(len(frame.payload) for frame in frames))
                client.send(b"key")
                self.assertEqual(b"key", server.recv(100))
            self.assertEqual(b"", client.read_rest())
            self.assert_over(client, console)
        refused, console = self.open(backend)
        self.assertEqual(b"", refused.read_rest())
        self.assert_over(refused, console)

    def test_tcp_backend(self) -> None:
        """A TCP server serves a VMI. If it refuses, the client gets 101 and then EOF."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._check_server(listener, TCPBackend(*listener.getsockname()))

    def test_unix_backend(self) -> None:
        """A server on a Unix socket serves a VMI."""
        with tempfile.TemporaryDirectory() as directory:
            name = os.path.join(directory, "vnc")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(name)
            self._check_server(listener, UnixBackend(name))

    def test_framing_on_the_wire(self) -> None:
        """Each size is framed as virt-handler frames one read of it."""
        sizes = [1, 10240, 10241, 20508, 20509, 32768]

        def run(console: FakeConsole) -> None:
            for size in sizes:
                console.send_message(bytes(size))

        client, _ = self.open(Script(run))
        got = client.read_rest()
        self.assertEqual(b"".join(encode_message(bytes(size)) for size in sizes), got)


class TakeoverTest(SessionTestCase):
    """Two clients of one VMI."""

    def test_the_newcomer_wins(self) -> None:
        """A second client takes over; the first one's connection ends without a Close."""
        for backend in (Echo(), Stream(), Script(lambda console: console.hold())):
            first, console = self.open(backend)
            second = self.client()
            second.upgrade()
            data = FrameBuffer()
            data.feed(first.read_rest())
            while (frame := data.next()) is not None:
                self.assertNotEqual(CLOSE, frame.opcode)
            self.assertTrue(console.killed.is_set())
            self.assertTrue(console.ended.wait(WAIT))
            self.assertEqual(1, len(self.vmi.sessions))
            self.assertIsNot(console, self.vmi.wait_for_session(WAIT))
            self.vmi.drop_sessions()
            self.assertTrue(self.api.wait_until_idle(WAIT))

    def test_preserve(self) -> None:
        """preserveSession=true is refused while a session lives, and welcome after it."""
        first, console = self.open(Echo())
        self.assertEqual(500, self.refusal(path() + "?preserveSession=true")["code"])
        first.send(b"alive")
        self.assertEqual(b"alive", first.frame().payload)
        self.assert_over(first, console)
        self.client().upgrade(path() + "?preserveSession=true")

    def test_display_and_serial_console_do_not_compete(self) -> None:
        """The serial console has its own backend, and a session does not take over one of the display."""
        first, _ = self.open(Echo())
        self.vmi.console_backend = Script(lambda console: console.send_message(b"login: "))
        second = self.client()
        second.upgrade(path(subresource="console"))
        self.assertEqual(b"login: ", second.frame().payload)
        first.send(b"alive")
        self.assertEqual(b"alive", first.frame().payload)


if __name__ == "__main__":
    unittest.main()
