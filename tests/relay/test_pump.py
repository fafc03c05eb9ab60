"""One direction of a relay, in both of its ways."""

from __future__ import annotations

import random
import socket
import threading
import unittest
from unittest import mock

from wsproxy.exceptions import ProtocolViolation
from wsproxy.net.sockets import READABLE, wait
from wsproxy.net.transport import PlainTransport
from wsproxy.protocol.closing import Closing
from wsproxy.protocol.frames import ControlFrame, FrameScanner, Opcode, build_frame
from wsproxy.relay.pump import Pump
from wsproxy.relay.writer import Writer
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import LeakTestCase

OURS = b"our ping"
CLOSE = build_frame(Opcode.CLOSE, b"\x03\xe8bye")


class PumpTestCase(LeakTestCase):
    """A pump between two socket pairs; its events are recorded."""

    def setUp(self) -> None:
        super().setUp()
        near_source, self.source = socket.socketpair()
        near_sink, self.sink = socket.socketpair()
        self.near_source, self.near_sink = PlainTransport(near_source), PlainTransport(near_sink)
        for end in (self.near_source, self.near_sink, self.source, self.sink):
            self.addCleanup(end.close)
        self.sink.setblocking(False)
        self.closing = Closing()
        self.events: list[object] = []
        self.answers: list[bytes] = []
        self.writer = Writer(self.near_sink, lambda: None)
        scanner = FrameScanner(False, 1 << 20)
        scanner.awaited = frozenset({int.from_bytes(OURS, "big")})
        self.pump = Pump(self.near_source, self.writer, self.near_sink, scanner, self.closing, self)
        self.buffer = bytearray(65536)
        self.view = memoryview(self.buffer)

    # The pump's events

    def ping_answered(self, pump: Pump, payload: bytes) -> None:
        self.answers.append(payload)

    def began(self, pump: Pump) -> None:
        self.began_with = self.pump.received

    def close_received(self, pump: Pump, close: ControlFrame) -> None:
        self.events.append(close.raw)

    def violated(self, pump: Pump, violation: ProtocolViolation) -> None:
        self.events.append(violation.code)

    def let_go(self, pump: Pump) -> None:
        self.events.append("let go")

    def failed(self, pump: Pump, exc: Exception) -> None:
        self.events.append(exc)

    # What the tests do

    def ready(self, data: bytes = b"") -> bool:
        if data:
            self.source.sendall(data)
        return self.pump.ready(self.buffer, self.view)

    def copy(self) -> bytes:
        """Copy in a thread, until quiet, and return what arrives meanwhile and is there afterwards."""
        thread = threading.Thread(target=lambda: self.pump.copy(until_quiet=True))
        thread.start()
        got = b""
        while thread.is_alive():
            try:
                wait(self.sink.fileno(), READABLE, Deadline(0.01))
            except TimeoutError:
                pass
            got += self.arrived()
        return got + self.arrived()

    def arrived(self) -> bytes:
        """Return what can be had from the sink without waiting."""
        got = b""
        try:
            while part := self.sink.recv(65536):
                got += part
        except BlockingIOError:
            pass
        return got

    def fill_sink(self) -> int:
        """Leave no room in the sink's kernel buffer, and return how many bytes are there."""
        total, frame = 0, build_frame(Opcode.BINARY, bytes(98))
        self.near_sink._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while sent := self.near_sink.try_send(frame):
            total += sent
        return total


class Ready(PumpTestCase):
    """The way that never blocks."""

    def test_nothing_there(self) -> None:
        """A call without cause does nothing."""
        self.assertTrue(self.ready())
        self.assertEqual((self.pump.received, self.arrived()), (0, b""))

    def test_frames(self) -> None:
        """Frames pass, whole, in pieces, and several at once; an incomplete header waits."""
        small, large = build_frame(Opcode.BINARY, b"hello"), build_frame(Opcode.TEXT, bytes(300))
        for data in (small, small + large + small, large[:100], large[100:] + small):
            self.assertTrue(self.ready(data))
            self.assertEqual(self.arrived(), data)
        self.assertTrue(self.ready(large[:3]))
        self.assertEqual(self.arrived(), b"")
        self.assertTrue(self.ready(large[3:]))
        self.assertEqual(self.arrived(), large)
        self.assertEqual(self.pump.received, self.pump.sent)

    def test_control_frames(self) -> None:
        """Pings and pongs pass, except answers to the proxy's pings; incomplete ones wait until complete."""
        ping, pong = build_frame(Opcode.PING, b"x"), build_frame(Opcode.PONG, b"y")
        ours = build_frame(Opcode.PONG, OURS)
        stream = ping + ours + pong
        for cut in range(len(stream)):
            self.assertTrue(self.ready(stream[:cut]) and self.ready(stream[cut:]))
            self.assertEqual(self.arrived(), ping + pong)
            self.assertEqual(self.answers, [OURS])
            self.answers.clear()
        self.assertEqual((self.pump.sent, self.pump.data), (len(stream) * len(ping + pong), 0))

    def test_flood_of_control_frames(self) -> None:
        """However many pings and pongs come at once, they are sent on at once, together with the data."""
        ping, pong = build_frame(Opcode.PING, b"8 bytes!"), build_frame(Opcode.PONG, b"8 bytes!")
        data, answer = build_frame(Opcode.BINARY, b"x"), build_frame(Opcode.PONG, OURS)
        for name, frames in (("pings", ping), ("pongs", pong), ("all", ping + data + pong)):
            with self.subTest(name):
                flood = frames * 400
                before = self.pump.data
                with mock.patch.object(self.writer, "try_write", wraps=self.writer.try_write) as write:
                    self.assertTrue(self.ready(flood))
                self.assertEqual((self.arrived(), write.call_count), (flood, 1))
                self.assertEqual(self.pump.data - before, 400 * len(data) * (name == "all"))
        with mock.patch.object(self.writer, "try_write", wraps=self.writer.try_write) as write:
            self.assertTrue(self.ready(ping * 400 + answer + pong * 400))
        self.assertEqual((self.arrived(), write.call_count), (ping * 400 + pong * 400, 2))

    def test_flood_that_is_copied(self) -> None:
        """The same where a thread copies."""
        flood = (build_frame(Opcode.PING, b"8 bytes!") + build_frame(Opcode.BINARY, b"x")) * 200
        self.source.sendall(flood)
        with mock.patch.object(self.writer, "write", wraps=self.writer.write) as write:
            self.assertEqual(self.copy(), flood)
        self.assertLessEqual(write.call_count, 2)  # of which one more than buffers were filled

    def test_close(self) -> None:
        """A Close is reported once; what comes behind it is read and dropped, until the end."""
        frame = build_frame(Opcode.BINARY, b"last")
        self.assertTrue(self.ready(frame + CLOSE + frame))
        self.assertTrue(self.ready(frame))
        self.assertEqual((self.events, self.arrived()), ([CLOSE], frame))
        self.source.close()
        self.assertFalse(self.ready())
        self.assertTrue(self.pump.is_over)

    def test_violation(self) -> None:
        """A violation is reported once, after the bytes before it have passed."""
        frame = build_frame(Opcode.BINARY, b"good")
        self.assertTrue(self.ready(frame + b"\x83\x00" + frame))
        self.assertEqual((self.events, self.arrived()), ([1002], frame))

    def test_end_of_stream(self) -> None:
        """The end of the stream ends the pump, also inside a frame."""
        self.assertTrue(self.ready(b"\x82"))
        self.source.close()
        self.assertFalse(self.ready())
        self.assertTrue(self.pump.is_over)

    def test_reset(self) -> None:
        """A reset connection has ended, too."""
        listener = socket.create_server(("127.0.0.1", 0))
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
        listener.close()
        self.pump._source = transport = PlainTransport(near)
        self.addCleanup(transport.close)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        with self.assertLogs("wsproxy.pump", "DEBUG"):
            self.assertFalse(self.ready())
        self.assertTrue(self.pump.is_over)

    def test_finished_session(self) -> None:
        """Nothing is read once the session is finished."""
        self.closing.abort()
        self.assertFalse(self.ready(b"\x82\x00"))
        self.assertTrue(self.pump.is_over)
        self.assertEqual(self.pump.received, 0)

    def test_large_read(self) -> None:
        """A read that nearly fills the buffer is passed on, and asks for a thread."""
        self.source.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.near_sink._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        data = build_frame(Opcode.BINARY, bytes(60000))
        self.assertFalse(self.ready(data))
        self.assertFalse(self.pump.is_over)
        self.assertEqual(self.arrived(), data)

    def test_source_that_has_to_send_first(self) -> None:
        """If receiving has to wait for room to send, the pump leaves it to a thread."""
        frame = build_frame(Opcode.BINARY, b"x")
        with mock.patch.object(self.near_source, "try_recv_into", return_value=-1):
            self.assertFalse(self.ready(frame))
            self.assertFalse(self.pump.is_over)
            self.source.close()
            self.pump.copy(until_quiet=True)
        self.assertTrue(self.pump.is_over)
        self.assertEqual(self.arrived(), frame)

    def test_broken_sink(self) -> None:
        """If the sink is broken, its reader is woken; the pump reads the source until the session ends."""
        self.sink.close()
        self.assertTrue(self.ready(build_frame(Opcode.BINARY, b"x")))
        self.assertTrue(self.ready(build_frame(Opcode.BINARY, b"y")))


class HandedOver(PumpTestCase):
    """``copy`` continues what ``ready`` could not finish."""

    def check(self, stream: bytes, expected: bytes, events: list[object]) -> None:
        """Let ``ready`` take all of it while the sink is full, and ``copy`` bring it out."""
        filled = self.fill_sink()
        self.assertFalse(self.ready(stream))
        self.assertFalse(self.pump.is_over)
        self.assertEqual(self.events, [])
        got = self.copy()
        self.assertFalse(self.pump.is_over)
        self.assertEqual(got[filled:], expected)
        self.assertEqual(self.events, events)
        self.assertEqual((self.pump.received, self.writer.busy), (len(stream), False))

    def test_data(self) -> None:
        """Data that did not fit goes out, with all that came behind it."""
        frame = build_frame(Opcode.BINARY, bytes(3000))
        self.check(frame + frame, frame + frame, [])
        self.assertTrue(self.ready(frame))
        self.assertEqual(self.arrived(), frame)

    def test_incomplete_rest(self) -> None:
        """An incomplete header behind it stays incomplete."""
        frame = build_frame(Opcode.BINARY, bytes(300))
        self.check(frame + frame[:3], frame, [])
        self.assertTrue(self.ready(frame[3:]))
        self.assertEqual(self.arrived(), frame)

    def test_control_frames(self) -> None:
        """Control frames behind it are not lost, nor done twice."""
        frame, ping = build_frame(Opcode.BINARY, b"x"), build_frame(Opcode.PING, b"p")
        ours = build_frame(Opcode.PONG, OURS)
        self.check(frame + ping + ours + frame, frame + ping + frame, [])

    def test_ping_first(self) -> None:
        """The same where a ping is what did not fit."""
        frame, ping = build_frame(Opcode.BINARY, b"x"), build_frame(Opcode.PING, b"p")
        self.check(ping + frame, ping + frame, [])

    def test_close(self) -> None:
        """A Close behind it is reported once."""
        frame = build_frame(Opcode.BINARY, b"x")
        self.check(frame + CLOSE, frame, [CLOSE])

    def test_violation(self) -> None:
        """A violation behind it is reported once."""
        frame = build_frame(Opcode.BINARY, b"x")
        self.check(frame + b"\x83\x00", frame, [1002])


class EitherWay(PumpTestCase):
    """Both ways, in any order, make one stream."""

    def test_random(self) -> None:
        """A stream cut anywhere, copied by either way in turns into a sink that is often full."""
        for seed in range(20):
            with self.subTest(seed=seed):
                self.setUp()
                self.copy_stream(random.Random(seed))

    def copy_stream(self, dice: random.Random) -> None:
        opcodes = (Opcode.BINARY, Opcode.TEXT, Opcode.PING, Opcode.PONG)
        stream = b"".join(
            build_frame(opcode, bytes(dice.choice((0, 3, 100, 125 if opcode > 8 else 2000))))
            for opcode in dice.choices(opcodes, k=300)
        )
        self.near_sink._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        position, got, needs_thread = 0, b"", False
        while len(got) < len(stream):
            size = dice.randrange(1, 3000)
            self.source.sendall(stream[position : position + size])
            position += size
            if not needs_thread:
                needs_thread = not self.ready()
            if dice.random() < 0.5:
                got += self.arrived()
            if dice.random() < 0.2 or position >= len(stream):
                got += self.copy()
                needs_thread = False
        self.assertEqual(got, stream)


class Copy(PumpTestCase):
    """The way that blocks."""

    def test_returns_when_quiet(self) -> None:
        """After small reads it returns when nothing more comes; another call continues."""
        got = b""
        for part in (b"\x82\x05he", b"l", b"lo\x82", b"\x00"):
            self.source.sendall(part)
            got += self.copy()
            self.assertFalse(self.pump.is_over)
        self.assertEqual(got, b"\x82\x05hello\x82\x00")

    def test_end(self) -> None:
        """It is over at the end of the stream, in both kinds of call."""
        for until_quiet in (True, False):
            with self.subTest(until_quiet=until_quiet):
                self.setUp()
                self.source.sendall(b"\x82\x01x")
                self.source.close()
                self.pump.copy(until_quiet=until_quiet)
                self.assertTrue(self.pump.is_over)
                self.assertEqual(self.arrived(), b"\x82\x01x")


if __name__ == "__main__":
    unittest.main()
