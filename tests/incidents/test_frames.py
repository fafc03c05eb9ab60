"""Hostile frames within a session: refused at their header, or passed at a bounded cost.

Whatever one session is sent, its neighbour goes on.
"""

from __future__ import annotations

import struct
import threading

from tests.support.frame_streams import frame
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE, PING, PONG
from wsproxy.testing.rfb.raw_client import RawClient

_MANY = 20_000
_WAIT = 20.0


def breaches(masked: bool) -> dict[str, bytes]:
    """Return what breaks RFC 6455 on one side of a connection, by name."""

    def made(first: int, payload: bytes = b"", length: bytes | None = None) -> bytes:
        return frame(first, payload, masked=masked, length=length)

    return {
        "mask that must not be, or must": frame(0x82, b"x", masked=not masked),
        "each reserved bit: 1": made(0xC2, b"x"),
        "each reserved bit: 2": made(0xA2, b"x"),
        "each reserved bit: 3": made(0x92, b"x"),
        "reserved data opcode": made(0x83, b"x"),
        "reserved control opcode": made(0x8B, b"x"),
        "fragmented ping": made(0x09, b"x"),
        "fragmented Close": made(0x08),
        "ping of 126 bytes": made(0x89, bytes(126)),
        "ping of 2^63 - 1 bytes": made(0x89, b"", b"\x7f\x7f" + b"\xff" * 7),
        "2^63 bytes": made(0x82, b"", b"\x7f\x80" + bytes(7)),
        "2^64 - 1 bytes": made(0x82, b"", b"\x7f" + b"\xff" * 8),
        "length that is not minimal": made(0x82, b"x", b"\x7e\x00\x01"),
        "long length that is not minimal": made(0x82, b"x", b"\x7f" + bytes(6) + b"\xff\xff"),
        "continuation of nothing": made(0x80, b"x"),
        "message inside a message": made(0x02, b"x") + made(0x82, b"y"),
        "Close of one byte": made(0x88, b"x"),
        "Close with a code that is never sent": made(0x88, struct.pack("!H", 1005)),
        "Close whose reason is not UTF-8": made(0x88, b"\x03\xe8\xff"),
    }


class FramesTestCase(ProxyTestCase):
    """A hostile session, and a neighbour that must not notice."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("neighbour", self.namespace)
        self.proxy = self.start_proxy(max_frame_size=1 << 20)
        self.neighbour = RawClient.open(self.url(self.proxy, "neighbour"))
        self.addCleanup(self.neighbour.close)

    def session(self, run: Script | None = None) -> tuple[RawClient, FakeConsole]:
        """Open a session with a VMI of its own; without ``run`` it returns what it is sent."""
        name = f"vm-{len(self.api.consoles)}"
        self.api.add_vmi(name, self.namespace, backend=run)
        client = RawClient.open(self.url(self.proxy, name))
        self.addCleanup(client.close)
        self.assertEqual(client.status, 101)
        return client, self.api.consoles[-1]

    def assert_neighbour_is_served(self) -> None:
        self.neighbour.send_frame(BINARY, b"still there?")
        self.assertEqual(self.neighbour.recv_frame().payload, b"still there?")


class Breaches(FramesTestCase):
    def test_from_the_client(self) -> None:
        """Each breach ends the session: 1002 to the client, Close 1000 to the API, both closed."""
        for name, data in breaches(masked=True).items():
            with self.subTest(name=name):
                client, console = self.session()
                client.send_raw(frame(0x82, b"good", masked=True))
                self.assertEqual(client.recv_frame().payload, b"good")
                client.send_raw(data)
                self.assertEqual(client.recv_close()[0], 1002)
                client.drop()
                client.wait_for_end()
                self.assertTrue(console.ended.wait(_WAIT))
                self.assertEqual(console.close_received, (1000, ""))
                self.assert_neighbour_is_served()

    def test_from_the_upstream(self) -> None:
        """Each breach of the API's side ends the session: 1002 to the API, 1011 to the client."""
        for name, data in breaches(masked=False).items():
            with self.subTest(name=name):

                def send(console: FakeConsole, data: bytes = data) -> None:
                    console.send_raw(frame(0x82, b"good", masked=False) + data)
                    while console.recv_frame().opcode != CLOSE:
                        pass
                    console.send_close(1002)

                client, console = self.session(Script(send))
                self.assertEqual(client.recv_frame().payload, b"good")
                frames = [client.recv_frame()]
                while frames[-1].opcode != CLOSE:
                    frames.append(client.recv_frame())
                self.assertEqual(frames[-1].payload, struct.pack("!H", 1011) + b"upstream-protocol-error")
                self.assertLessEqual(len(frames), 2, "more than the beginning of a message")
                client.send_close(1011)
                client.wait_for_end()
                self.assertTrue(console.ended.wait(_WAIT))
                assert console.close_received is not None
                self.assertEqual(console.close_received[0], 1002)
                self.assert_neighbour_is_served()

    def test_size(self) -> None:
        """A data frame above the limit, up to 2^63 - 1 bytes, gets 1009 before its payload comes."""
        for size in ((1 << 20) + 1, 2**31, 2**63 - 1):
            with self.subTest(size=size):
                client, console = self.session()
                client.send_raw(struct.pack("!BBQ", 0x82, 0xFF, size) + b"mask")
                self.assertEqual(client.recv_close()[0], 1009)
                client.drop()
                self.assertTrue(console.ended.wait(_WAIT))
                self.assertEqual(console.bytes_received, len(frame(0x88, b"\x03\xe8", masked=True)))
                self.assert_neighbour_is_served()


class Floods(FramesTestCase):
    """What is allowed, without end: it passes, and its own back-pressure is its bound."""

    def count(self, wanted: int) -> tuple[Script, list[int], threading.Event]:
        """Return a console that counts the frames that it gets, by opcode, and tells when all have come."""
        counts, done = [0] * 16, threading.Event()

        def run(console: FakeConsole) -> None:
            while True:
                found = console.recv_frame(_WAIT)
                if found.opcode == CLOSE:
                    return console.send_close(1000)
                counts[found.opcode] += 1
                if sum(counts) >= wanted:
                    done.set()

        return Script(run), counts, done

    def flood(self, frames: bytes, first: bytes = b"", last: bytes = b"") -> tuple[RawClient, list[int]]:
        """Send frames many times, with the neighbour talking in between; return what the console got."""
        script, counts, done = self.count(_MANY + bool(first) + bool(last))
        client, console = self.session(script)
        client.send_raw(first)
        for _ in range(20):
            client.send_raw(frames * (_MANY // 20))
            self.assert_neighbour_is_served()
        client.send_raw(last)
        self.assertTrue(done.wait(_WAIT))
        received = console.bytes_received
        self.assertEqual(received, len(first) + len(frames) * _MANY + len(last), "bytes of ours among them")
        client.send_close(1000)
        self.assertEqual(client.recv_close(), (1000, ""), "an answer of ours before it")
        self.assertTrue(console.ended.wait(_WAIT))
        return client, counts

    def test_pings(self) -> None:
        """Pings pass to the API, which answers them or not; we never do."""
        _, counts = self.flood(frame(0x89, b"p" * 125, masked=True))
        self.assertEqual(counts[PING], _MANY)

    def test_pongs(self) -> None:
        """Pongs that nobody asked for pass as well."""
        _, counts = self.flood(frame(0x8A, b"12345678", masked=True))
        self.assertEqual(counts[PONG], _MANY)

    def test_one_byte_fragments(self) -> None:
        """A message in fragments of one byte passes fragment by fragment; none waits for the last."""
        first, last = frame(0x02, b"a", masked=True), frame(0x80, b"c", masked=True)
        _, counts = self.flood(frame(0x00, b"b", masked=True), first, last)
        self.assertEqual((counts[BINARY], counts[0]), (1, _MANY + 1))

    def test_empty_frames(self) -> None:
        """Frames without payload pass like others."""
        _, counts = self.flood(frame(0x82, masked=True))
        self.assertEqual(counts[BINARY], _MANY)

    def test_fragments_that_never_end(self) -> None:
        """A session that ends within such a message ends as any other."""
        client, console = self.session()
        client.send_raw(frame(0x02, b"a", masked=True) + frame(0x00, b"b", masked=True) * 1000)
        client.reset()
        self.assertTrue(console.ended.wait(_WAIT))
        self.assert_neighbour_is_served()

    def test_single_bytes(self) -> None:
        """Frames that come byte by byte pass when they are whole, data frames as they come."""
        script, counts, done = self.count(3)
        client, _ = self.session(script)
        for byte in frame(0x89, b"p" * 125, masked=True) + frame(0x82, b"data" * 40, masked=True) * 2:
            client.send_raw(bytes([byte]))
        self.assertTrue(done.wait(_WAIT))
        self.assertEqual((counts[PING], counts[BINARY]), (1, 2))


class SlowFrames(FramesTestCase):
    def test_frame_without_an_end(self) -> None:
        """A client that stops inside a frame holds no memory, and its session ends with the proxy's stop."""
        client, console = self.session()
        client.send_raw(struct.pack("!BBQ", 0x82, 0xFF, 1 << 20) + b"mask" + b"x" * 100)
        self.assert_neighbour_is_served()
        self.neighbour.close()
        self.proxy.stop_thread()
        self.assertTrue(console.ended.wait(_WAIT))
        self.assertEqual(client.recv_close()[0], 1012)
