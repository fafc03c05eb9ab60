"""Tests of the simulated API's sessions: frames, scripts, ends."""

from __future__ import annotations

import errno
import select
import socket
import threading
import unittest

from tests.testing.rfb.raw_client import MASK, WAIT, RawClient, SessionTestCase, path
from wsproxy.testing.kubevirt.backends import Echo, Stream
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    close_payload,
    encode_frame,
)


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
        """A client that disconnects without a Close ends the session."""
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
        frames: list[Frame] = []

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
        """A receive ends at its timeout, and keeps the bytes that came."""
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
    strict = True

    def test_drop_has_no_close_notify(self) -> None:
        """A dropped TLS connection ends without close_notify, as KubeVirt's does."""
        client, _ = self.script(lambda console: console.send_message(b"x"))
        self.assertEqual(b"x", client.frame().payload)
        with self.assertRaisesRegex(OSError, "(?i)eof"):
            client.sock.recv(1)

    def test_close_notify_without_fin(self) -> None:
        """The TLS layer may end while TCP stays open."""

        def run(console: FakeConsole) -> None:
            console.send_close_notify()
            console.hold()

        client, console = self.script(run)
        self.assertEqual(b"", client.sock.recv(1))
        client.sock.setblocking(False)
        with self.assertRaises(BlockingIOError):  # nothing under the TLS layer, not even FIN
            socket.socket.recv(client.sock, 1)
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
            except BaseException as exc:  # noqa: BLE001 - recorded
                errors.append(exc)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        self.assertEqual([], errors)
        self.assertTrue(self.api.wait_until_idle(WAIT))
        self.assertEqual(16 << 20, stream.bytes_sent)


if __name__ == "__main__":
    unittest.main()
