"""Tests of the stand-in API's sessions: frames, backends, takeover, ends."""

from __future__ import annotations

import errno
import os
import select
import socket
import tempfile
import threading
import unittest
from collections.abc import Callable

from tests.testing.raw_client import MASK, RawClient, path
from tests.testing.test_fake_kubevirt import APITestCase
from wsproxy.testing.kubevirt_backends import (
    Backend,
    Echo,
    Script,
    SocketBackend,
    Stream,
    TCPBackend,
    UnixBackend,
)
from wsproxy.testing.kubevirt_console import FakeConsole
from wsproxy.testing.kubevirt_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameBuffer,
    close_payload,
    encode_frame,
    encode_message,
    parse_close,
)

WAIT = 5.0


class FramesTest(unittest.TestCase):
    """Encoding and parsing without a server."""

    def test_any_cut(self) -> None:
        """Frames parse alike whole and byte by byte, masked or not, at every length encoding."""
        for size in (0, 1, 125, 126, 65535, 65536):
            payload = os.urandom(size)
            for mask in (None, MASK):
                raw = encode_frame(BINARY, payload, fin=False, rsv=5, mask=mask)
                whole = FrameBuffer()
                whole.feed(raw)
                frame = whole.next()
                assert frame is not None
                self.assertEqual((False, BINARY, payload, raw), frame)
                self.assertEqual((5, mask is not None), (frame.rsv, frame.masked))
                if size < 1000:
                    self.assertEqual(frame, self._byte_by_byte(raw))

    def _byte_by_byte(self, raw: bytes) -> object:
        buffer = FrameBuffer()
        for index in range(len(raw)):
            self.assertIsNone(buffer.next())
            buffer.feed(raw[index : index + 1])
        return buffer.next()

    def test_framing_of_messages(self) -> None:
        """A message is cut into frames as gorilla/websocket cuts it."""
        cases = {
            0: [(True, BINARY, 0)],
            1: [(True, BINARY, 1)],
            10240: [(True, BINARY, 10240)],
            10241: [(False, BINARY, 10240), (True, CONTINUATION, 1)],
            20480: [(False, BINARY, 10240), (True, CONTINUATION, 10240)],
            20508: [(False, BINARY, 10240), (False, CONTINUATION, 10240), (True, CONTINUATION, 28)],
            20509: [(False, BINARY, 20509), (True, CONTINUATION, 0)],
            32768: [(False, BINARY, 32768), (True, CONTINUATION, 0)],
        }
        for size, expected in cases.items():
            buffer = FrameBuffer()
            buffer.feed(encode_message(bytes(size)))
            frames = [buffer.next() for _ in expected]
            got = [(frame.fin, frame.opcode, len(frame.payload)) for frame in frames if frame is not None]
            self.assertEqual((expected, b""), (got, buffer.rest), size)

    def test_close_payloads(self) -> None:
        """Code and reason of a Close survive; none is 1005."""
        self.assertEqual((4000, "grün"), parse_close(close_payload(4000, "grün")))
        self.assertEqual((1005, ""), parse_close(close_payload(None)))
        self.assertEqual(b"", close_payload(1005))


class SessionTestCase(APITestCase):
    """Opens a session with a backend."""

    def open(self, backend: Backend) -> tuple[RawClient, FakeConsole]:
        self.vmi = self.api.add_vmi("vm", backend=backend)
        client = self.client()
        client.upgrade()
        return client, self.vmi.wait_for_session(WAIT)

    def script(self, run: Callable[[FakeConsole], None]) -> tuple[RawClient, FakeConsole]:
        return self.open(Script(run))

    def assert_over(self, client: RawClient, console: FakeConsole) -> None:
        """Close the client's side and check that the session ends at once."""
        client.sock.close()
        self.assertTrue(console.ended.wait(WAIT))
        self.assertTrue(self.api.wait_until_idle(WAIT))


class EchoTest(SessionTestCase):
    """The framing rules that every backend but Script shares."""

    def test_fragments_come_back_as_one_message(self) -> None:
        """Fragments with a ping between them are one message, the ping is answered at once."""
        client, _ = self.open(Echo())
        client.send(b"ab", fin=False)
        client.send(b"now?", PING)
        client.send(b"", CONTINUATION, fin=False)
        client.send(b"c", CONTINUATION)
        self.assertEqual((True, PONG, b"now?"), client.frame()[:3])
        self.assertEqual((True, BINARY, b"abc"), client.frame()[:3])

    def test_text_is_dropped(self) -> None:
        """TEXT messages vanish with all their fragments."""
        client, console = self.open(Echo())
        client.send(b"no", TEXT, fin=False)
        client.send(b"no", CONTINUATION)
        client.send(b"no", TEXT)
        client.send(b"yes")
        self.assertEqual(b"yes", client.frame().payload)
        self.assertEqual(2, console.text_dropped)

    def test_close_is_echoed(self) -> None:
        """A Close is echoed with its code and without its reason, then the connection ends."""
        for code in (1000, 4001, None):
            client, console = self.open(Echo())
            client.send(close_payload(code, "bye"), CLOSE)
            self.assertEqual((True, CLOSE, close_payload(code)), client.frame()[:3])
            self.assertEqual(b"", client.read_rest())
            self.assertEqual((code or 1005, "bye" if code else ""), console.close_received)
            self.assert_over(client, console)

    def test_unmasked(self) -> None:
        """An unmasked frame is a protocol error."""
        client, _ = self.open(Echo())
        client.sock.sendall(encode_frame(BINARY, b"x"))
        self.assertEqual((CLOSE, close_payload(1002)), client.frame()[1:3])

    def test_client_vanishes(self) -> None:
        """A client that goes without a Close ends the session."""
        client, console = self.open(Echo())
        self.assertEqual(1, self.api.live)
        self.assert_over(client, console)
        self.assertTrue(console.peer_ended.is_set())
        self.assertIsNone(console.close_received)
        self.assertEqual(0, self.api.live)

    def test_counts(self) -> None:
        """Bytes are counted as they are on the wire after the 101."""
        client, console = self.open(Echo())
        client.send(b"abc")
        client.frame()
        self.assertEqual((9, 5), (console.bytes_received, console.bytes_sent))
        self.assertEqual((9, 5), (self.api.bytes_received, self.api.bytes_sent))


class ScriptTest(SessionTestCase):
    """What a scripted session can do."""

    def test_frames_are_seen_as_they_came(self) -> None:
        """A script receives every frame raw, control frames too, and answers nothing by itself."""
        frames = []

        def run(console: FakeConsole) -> None:
            frames.extend(console.recv_frame() for _ in range(3))

        client, console = self.script(run)
        sent = [
            encode_frame(BINARY, b"a", fin=False, mask=MASK),
            encode_frame(PING, b"", mask=MASK),
            encode_frame(CLOSE, close_payload(1001, "away"), mask=b"\0\0\0\0"),
        ]
        client.sock.sendall(b"".join(sent))
        self.assertEqual(b"", client.read_rest())
        self.assertEqual(sent, [frame.raw for frame in frames])
        self.assertEqual((1001, "away"), console.close_received)

    def test_sends_anything(self) -> None:
        """A script sends raw bytes, single frames, messages and Close frames."""

        def run(console: FakeConsole) -> None:
            console.send_raw(b"\x82")
            console.send_raw(b"\x01x")
            console.send_frame(0x3, b"y", fin=False, rsv=1)
            console.send_message(b"z")
            console.send_close(4000, "why")

        client, _ = self.script(run)
        expected = b"\x82\x01x" + b"\x13\x01y" + b"\x82\x01z" + b"\x88\x05\x0f\xa0why"
        self.assertEqual(expected, client.read_rest())

    def test_reset(self) -> None:
        """A reset is an RST."""
        for tls in (False, True):
            if tls:
                self.api.stop()
                self.tls = True
                self.setUp()
            go = threading.Event()

            def run(console: FakeConsole, go: threading.Event = go) -> None:
                console.wait(go)
                console.reset()

            client, _ = self.script(run)
            poller = select.poll()
            poller.register(client.sock.fileno(), 0)  # errors and hang-ups are always reported
            go.set()
            self.assertTrue(poller.poll(WAIT * 1000))
            # Asked of the kernel: OpenSSL may report a reset as an end.
            error = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.assertEqual(errno.ECONNRESET, error)

    def test_drop_keeps_receiving(self) -> None:
        """After a drop the client sees FIN while the script still sees what it sends."""
        got = []

        def run(console: FakeConsole) -> None:
            console.drop()
            got.append(console.recv_frame().payload)
            with self.assertRaises(EOFError):
                console.recv_frame()

        client, console = self.script(run)
        self.assertEqual(b"", client.read_rest())
        client.send(b"late")
        self.assert_over(client, console)
        self.assertEqual([b"late"], got)

    def test_wait_and_hold(self) -> None:
        """A script waits for a test's event, and holds the connection until the VM stops."""
        go = threading.Event()

        def run(console: FakeConsole) -> None:
            console.wait(go)
            console.send_message(b"went")
            console.hold()

        client, console = self.script(run)
        go.set()
        self.assertEqual(b"went", client.frame().payload)
        self.vmi.drop_sessions()
        self.assertEqual(b"", client.read_rest())
        self.assert_over(client, console)

    def test_wait_ends_with_the_session(self) -> None:
        """A script that waits is released when the API stops."""
        client, console = self.script(lambda console: console.wait(threading.Event(), 60.0))
        self.api.stop()
        self.assertEqual(b"", client.read_rest())
        self.assertTrue(console.ended.is_set())

    def test_receive_times_out(self) -> None:
        """A receive ends at its timeout and keeps what came."""
        result: list[object] = []

        def run(console: FakeConsole) -> None:
            result.append(console.recv_raw(1))
            try:
                console.recv_frame(0.01)
            except TimeoutError:
                result.append(console.unparsed)

        client, _ = self.script(run)
        client.sock.sendall(b"?\x82\x85")
        client.read_rest()
        self.assertEqual([b"?", b"\x82\x85"], result)

    def test_text_is_raw(self) -> None:
        """recv_raw returns bytes as they come, and b"" at the end."""
        got = []

        def run(console: FakeConsole) -> None:
            while data := console.recv_raw(2):
                got.append(data)

        client, console = self.script(run)
        client.sock.sendall(b"abcde")
        self.assert_over(client, console)
        self.assertEqual(b"abcde", b"".join(got))


class TLSScriptTest(SessionTestCase):
    """Ends that differ under TLS."""

    tls = True

    def test_drop_has_no_close_notify(self) -> None:
        """A dropped TLS connection ends without close_notify, as KubeVirt's does."""
        client, _ = self.script(lambda console: console.send_message(b"x"))
        client.sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        self.assertEqual(b"x", client.frame().payload)
        with self.assertRaisesRegex(OSError, "(?i)eof"):
            client.sock.recv(1)

    def test_close_notify_without_fin(self) -> None:
        """The TLS layer may end while TCP stays open."""

        def run(console: FakeConsole) -> None:
            console.send_close_notify()
            console.hold()

        client, console = self.script(run)
        client.sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        self.assertEqual(b"", client.sock.recv(1))
        with self.assertRaises(BlockingIOError):  # nothing under the TLS layer, not even FIN
            socket.socket.recv(client.sock, 1, socket.MSG_DONTWAIT)
        self.vmi.drop_sessions()
        self.assert_over(client, console)

    def test_many_sessions_at_once(self) -> None:
        """Streams, echoes and opening handshakes of many threads do not disturb each other."""
        stream = Stream(total=1 << 20)
        self.api.add_vmi("vm", backend=Echo())
        errors: list[BaseException] = []

        def run(number: int) -> None:
            try:
                self.api.add_vmi(f"s{number}", backend=stream)
                with RawClient(self.api) as client:
                    client.upgrade(path(f"s{number}"))
                    self.assertGreater(len(client.read_rest()), 1 << 20)
            except BaseException as exc:
                errors.append(exc)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        self.assertEqual([], errors)
        self.assertTrue(self.api.wait_until_idle(WAIT))
        self.assertEqual(16 << 20, stream.bytes_sent)


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
        """A TCP server stands behind a VMI; one that refuses is a 101 and then the end."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._check_server(listener, TCPBackend(*listener.getsockname()))

    def test_unix_backend(self) -> None:
        """A server on a Unix socket stands behind a VMI."""
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
        """The serial console has a backend and a place of its own."""
        first, _ = self.open(Echo())
        self.vmi.console_backend = Script(lambda console: console.send_message(b"login: "))
        second = self.client()
        second.upgrade(path(subresource="console"))
        self.assertEqual(b"login: ", second.frame().payload)
        first.send(b"alive")
        self.assertEqual(b"alive", first.frame().payload)


if __name__ == "__main__":
    unittest.main()
