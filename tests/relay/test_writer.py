"""The writer of one leg: what it may inject, where, and in which order."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable

from tests.support.frame_streams import passed
from wsproxy.exceptions import TransportClosed
from wsproxy.net.transport import PlainTransport, Transport
from wsproxy.protocol.frames import FrameScanner, Opcode, build_frame
from wsproxy.relay.writer import Writer
from wsproxy.testing.case import LeakTestCase

WAIT = 60.0
PING = build_frame(Opcode.PING, b"ping 001")
PING_2 = build_frame(Opcode.PING, b"ping 002")
CLOSE = build_frame(Opcode.CLOSE, b"\x03\xe8bye")
CLOSE_2 = build_frame(Opcode.CLOSE, b"\x03\xe9")


class FakeTransport(Transport):
    """Records what is sent; takes at most ``room`` bytes without blocking, and calls a hook in sendall."""

    def __init__(self) -> None:
        self.sent = b""
        self.room: int | None = None
        self.broken = False
        self.calls: list[bytes] = []
        self.during: Callable[[], None] = lambda: None

    def sendall(self, data: memoryview | bytes) -> None:
        self.during()
        if self.broken:
            raise TransportClosed("broken")
        self.calls.append(bytes(data))
        self.sent += data

    def try_send(self, data: memoryview | bytes) -> int:
        if self.broken:
            raise TransportClosed("broken")
        taken = len(data) if self.room is None else min(self.room, len(data))
        if self.room is not None:
            self.room -= taken
        self.calls.append(bytes(data[:taken]))
        self.sent += data[:taken]
        return taken


class WriterCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.transport = FakeTransport()
        self.closes = 0
        self.writer = Writer(self.transport, self.close_written)

    def close_written(self) -> None:
        self.closes += 1
        self.assertFalse(self.writer._mutex.locked())

    def write(self, data: bytes, boundary: int, mid_frame: bool = False) -> None:
        self.writer.write(memoryview(data), boundary, mid_frame)

    def blocked(self, data: bytes, boundary: int, mid_frame: bool, meanwhile: Callable[[], None]) -> None:
        """Write ``data``, and do something while the pump is inside the send."""

        def during() -> None:
            self.transport.during = lambda: None
            self.assertTrue(self.writer.busy)
            meanwhile()

        self.transport.during = during
        self.write(data, boundary, mid_frame)
        self.assertFalse(self.writer.busy)


class InjectionTest(WriterCase):
    def test_idle(self) -> None:
        """On an idle leg at a boundary a frame goes out at once."""
        self.writer.inject(PING)
        self.assertEqual(self.transport.sent, PING)
        self.assertFalse(self.writer.waiting)
        self.assertFalse(self.writer.busy)

    def test_stream_passes(self) -> None:
        """With nothing to inject the stream passes in the pieces that it came in."""
        for piece, boundary, mid_frame in (
            (b"abc", 3, False),
            (b"de", 1, True),
            (b"f", -1, True),
            (b"gh", 2, False),
        ):
            self.write(piece, boundary, mid_frame)
        self.assertEqual(self.transport.calls, [b"abc", b"de", b"f", b"gh"])

    def test_mid_frame(self) -> None:
        """Inside a data frame, an injected frame waits for the next boundary."""
        self.write(b"he", 0, True)
        self.assertTrue(self.writer.mid_frame)
        self.writer.inject(PING)
        self.assertTrue(self.writer.waiting)
        self.writer.flush()
        self.assertEqual(self.transport.sent, b"he")
        self.write(b"ll", -1, True)
        self.assertEqual(self.transport.sent, b"hell")
        self.write(b"o|next", 2, True)
        self.assertEqual(self.transport.sent, b"hello|" + PING + b"next")
        self.assertFalse(self.writer.waiting)
        self.assertTrue(self.writer.mid_frame)

    def test_frame_ends_the_piece(self) -> None:
        """If the boundary is the end of the piece, the injected frame goes after it."""
        self.write(b"he", 0, True)
        self.writer.inject(PING)
        self.write(b"llo", 3)
        self.assertEqual(self.transport.sent, b"hello" + PING)
        self.assertFalse(self.writer.mid_frame)

    def test_while_busy(self) -> None:
        """While the pump sends, an injected frame waits, and goes out before the pump returns."""
        self.blocked(b"frame", 5, False, lambda: self.writer.inject(PING))
        self.assertEqual(self.transport.sent, b"frame" + PING)
        self.assertFalse(self.writer.waiting)

    def test_while_busy_and_mid_frame_after(self) -> None:
        """If the pump returns inside a data frame, the injected frame waits until a boundary."""
        self.blocked(b"frame|half", 6, True, lambda: self.writer.inject(PING))
        self.assertEqual(self.transport.sent, b"frame|half")
        self.assertTrue(self.writer.waiting)
        self.write(b"done", 4)
        self.assertEqual(self.transport.sent, b"frame|halfdone" + PING)

    def test_before_a_piece_at_a_boundary(self) -> None:
        """A frame that still waits at a boundary goes before the next piece."""
        self.transport.room = 0
        self.writer.inject(PING)
        self.assertTrue(self.writer.waiting)
        self.write(b"frame", 5)
        self.assertEqual(self.transport.sent, PING + b"frame")

    def test_second_ping_is_dropped(self) -> None:
        """While one ping waits another is dropped."""
        self.write(b"he", 0, True)
        self.writer.inject(PING)
        self.writer.inject(PING_2)
        self.write(b"llo", 3)
        self.assertEqual(self.transport.sent, b"hello" + PING)
        self.writer.inject(PING_2)
        self.assertEqual(self.transport.sent, b"hello" + PING + PING_2)

    def test_second_ping_is_dropped_behind_a_remainder(self) -> None:
        """While a part of a ping is unsent another is dropped too."""
        self.transport.room = 3
        self.writer.inject(PING)
        self.writer.inject(PING_2)
        self.transport.room = None
        self.writer.flush()
        self.assertEqual(self.transport.sent, PING)


class RemainderTest(WriterCase):
    def test_remainder_goes_first(self) -> None:
        """The unsent tail of an injected frame goes before anything else."""
        for room in range(len(PING)):
            self.setUpAgain()
            self.transport.room = room
            self.writer.inject(PING)
            self.assertEqual(self.transport.sent, PING[:room])
            self.assertTrue(self.writer.waiting)
            self.assertFalse(self.writer.mid_frame)
            self.write(b"frame", 5)
            self.assertEqual(self.transport.sent, PING + b"frame")

    def setUpAgain(self) -> None:
        self.transport = FakeTransport()
        self.writer = Writer(self.transport, self.close_written)

    def test_remainder_before_a_piece_that_ends_inside_a_frame(self) -> None:
        """That holds for a piece without a boundary of its own as well."""
        self.transport.room = 3
        self.writer.inject(PING)
        self.write(b"ha", 0, True)
        self.assertEqual(self.transport.sent, PING + b"ha")
        self.assertTrue(self.writer.mid_frame)

    def test_flush(self) -> None:
        """flush sends as much as is taken, each time, and is done when all is out."""
        self.transport.room = 3
        self.writer.inject(PING)
        for room in (0, 2, 1):
            self.transport.room = room
            self.writer.flush()
            self.assertTrue(self.writer.waiting)
        self.transport.room = None
        self.writer.flush()
        self.assertFalse(self.writer.waiting)
        calls = len(self.transport.calls)
        self.writer.flush()
        self.assertEqual((self.transport.sent, len(self.transport.calls)), (PING, calls))

    def test_close_behind_a_remainder(self) -> None:
        """A Close waits for the rest of a ping, and follows it."""
        self.transport.room = 3
        self.writer.inject(PING)
        self.writer.inject(CLOSE, close=True)
        self.assertEqual(self.closes, 0)
        self.transport.room = None
        self.writer.flush()
        self.assertEqual((self.transport.sent, self.closes), (PING + CLOSE, 1))

    def test_remainder_of_a_close(self) -> None:
        """A Close counts as written when its last byte is, and not before."""
        self.transport.room = 3
        self.writer.inject(CLOSE, close=True)
        self.assertEqual(self.closes, 0)
        for _ in range(len(CLOSE) - 4):
            self.transport.room = 1
            self.writer.flush()
            self.assertEqual(self.closes, 0)
        self.transport.room = 1
        self.writer.flush()
        self.assertEqual((self.transport.sent, self.closes), (CLOSE, 1))

    def test_flush_while_busy(self) -> None:
        """flush leaves a pump that sends alone."""
        self.blocked(b"frame", 5, False, self.writer.flush)
        self.assertEqual(self.transport.calls, [b"frame"])


class CloseTest(WriterCase):
    def test_seals(self) -> None:
        """Once a Close is out nothing follows it: no stream, no ping, no other Close."""
        self.writer.inject(CLOSE, close=True)
        self.write(b"frame", 5)
        self.write(b"ha", 0, True)
        self.writer.inject(PING)
        self.writer.inject(CLOSE_2, close=True)
        self.assertTrue(self.writer.try_write(memoryview(b"frame"), 5, False))
        self.writer.resume()
        self.writer.flush()
        self.assertEqual((self.transport.sent, self.closes), (CLOSE, 1))
        self.assertFalse(self.writer.waiting)
        self.assertFalse(self.writer.mid_frame)

    def test_replaces_a_ping(self) -> None:
        """A Close replaces a ping that waits."""
        self.write(b"he", 0, True)
        self.writer.inject(PING)
        self.writer.inject(CLOSE, close=True)
        self.write(b"llo|next", 4, True)
        self.assertEqual((self.transport.sent, self.closes), (b"hello|" + CLOSE, 1))

    def test_rest_of_the_piece_is_dropped(self) -> None:
        """What stands behind the boundary at which a Close goes out is dropped."""
        self.write(b"he", 0, True)
        self.writer.inject(CLOSE, close=True)
        self.write(b"llo|more|mo", 9, True)
        self.assertEqual(self.transport.sent, b"hello|more|" + CLOSE)

    def test_first_close_counts(self) -> None:
        """A second Close does not replace one that waits; nor does a ping."""
        self.write(b"he", 0, True)
        self.writer.inject(CLOSE, close=True)
        self.writer.inject(CLOSE_2, close=True)
        self.writer.inject(PING)
        self.write(b"llo", 3)
        self.assertEqual(self.transport.sent, b"hello" + CLOSE)

    def test_while_busy(self) -> None:
        """A Close that is injected while the pump sends goes out behind what it sends."""
        self.blocked(b"frame", 5, False, lambda: self.writer.inject(CLOSE, close=True))
        self.assertEqual((self.transport.sent, self.closes), (b"frame" + CLOSE, 1))

    def test_inside_a_frame_for_ever(self) -> None:
        """A Close inside a frame that never ends is never sent."""
        self.write(b"ha", 0, True)
        self.writer.inject(CLOSE, close=True)
        for _ in range(3):
            self.writer.flush()
        self.assertEqual((self.transport.sent, self.closes), (b"ha", 0))
        self.assertTrue(self.writer.waiting)
        self.assertTrue(self.writer.mid_frame)


class StopTest(WriterCase):
    """After ``stop``, the writer drops what the pump brings."""

    def assert_silent(self, sent: bytes) -> None:
        """Assert that this has been sent, and nothing follows."""
        self.write(b"frame", 5)
        self.assertTrue(self.writer.try_write(memoryview(b"ha"), 0, True))
        self.writer.resume()
        self.writer.inject(PING)
        self.writer.inject(CLOSE_2, close=True)
        self.writer.flush()
        self.assertEqual((self.transport.sent, self.writer.busy), (sent, False))

    def test_at_a_boundary(self) -> None:
        """The Close goes out at once."""
        self.write(b"frame", 5)
        self.assertTrue(self.writer.stop(CLOSE))
        self.assertEqual(self.closes, 1)
        self.assertTrue(self.writer.stop(CLOSE_2))
        self.assert_silent(b"frame" + CLOSE)

    def test_inside_a_frame(self) -> None:
        """There is no place for a Close, and what would complete the frame is dropped."""
        self.write(b"he", 0, True)
        self.assertFalse(self.writer.stop(CLOSE))
        self.assertFalse(self.writer.waiting)
        self.write(b"llo", 3)
        self.assert_silent(b"he")
        self.assertEqual(self.closes, 0)

    def test_while_the_pump_sends(self) -> None:
        """While the pump sends, there is no place for a Close either; only what it is sending goes out."""
        stopped: list[bool] = []
        self.blocked(b"frame|more", 6, True, lambda: stopped.append(self.writer.stop(CLOSE)))
        self.assertEqual(stopped, [False])
        self.assert_silent(b"frame|more")

    def test_while_the_pump_makes_room_for_a_ping(self) -> None:
        """What stands behind the boundary that a ping goes to is not sent then."""
        self.write(b"he", 0, True)
        self.writer.inject(PING)
        self.blocked(b"llo|more", 4, False, lambda: self.assertFalse(self.writer.stop(CLOSE)))
        self.assert_silent(b"hello|")

    def test_rest_that_was_left(self) -> None:
        """What ``try_write`` could not send is not sent later either."""
        self.transport.room = 2
        self.assertFalse(self.writer.try_write(memoryview(b"frame"), 5, False))
        self.transport.room = None
        self.assertFalse(self.writer.stop(CLOSE))
        self.writer.resume()
        self.assert_silent(b"fr")

    def test_behind_a_remainder(self) -> None:
        """The Close follows the rest of a ping; what the pump brings meanwhile is dropped."""
        self.transport.room = 3
        self.writer.inject(PING)
        self.assertFalse(self.writer.try_write(memoryview(b"frame"), 5, False))
        self.assertTrue(self.writer.stop(CLOSE))
        self.transport.room = None
        self.writer.resume()
        self.write(b"frame", 5)
        self.assertEqual((self.transport.sent, self.closes), (PING[:3], 0))
        self.writer.flush()
        self.assertEqual((self.transport.sent, self.closes), (PING + CLOSE, 1))
        self.assert_silent(PING + CLOSE)

    def test_behind_a_close(self) -> None:
        """A Close that waits already is not replaced."""
        self.transport.room = 3
        self.writer.inject(CLOSE, close=True)
        self.assertTrue(self.writer.stop(CLOSE_2))
        self.transport.room = None
        self.writer.flush()
        self.assert_silent(CLOSE)

    def test_broken(self) -> None:
        """If the transport breaks meanwhile, ``stop`` raises nothing; the transport's reader reports it."""
        self.transport.broken = True
        self.assertTrue(self.writer.stop(CLOSE))
        self.assertFalse(self.writer.busy)
        self.assertTrue(self.writer.stop(CLOSE))


class BrokenTest(WriterCase):
    def test_pump(self) -> None:
        """A broken transport is told to the pump, which is not busy any more; later writes are dropped."""
        self.transport.broken = True
        self.assertRaises(TransportClosed, self.write, b"frame", 5)
        self.assertFalse(self.writer.busy)
        self.write(b"frame", 5)
        self.writer.inject(PING)
        self.writer.inject(CLOSE, close=True)
        self.assertEqual((self.transport.sent, self.closes), (b"", 0))

    def test_pump_that_tries(self) -> None:
        """The same for ``try_write``, and for what it has left to ``resume``."""
        self.transport.room = 2
        self.assertFalse(self.writer.try_write(memoryview(b"frame"), 5, False))
        self.transport.broken = True
        self.assertRaises(TransportClosed, self.writer.resume)
        self.assertFalse(self.writer.busy)
        self.assertTrue(self.writer.try_write(memoryview(b"frame"), 5, False))
        writer = Writer(self.transport, self.close_written)
        self.assertRaises(TransportClosed, writer.try_write, memoryview(b"frame"), 5, False)
        self.assertFalse(writer.busy)

    def test_injection(self) -> None:
        """An injection into a broken transport raises nothing."""
        for frame, close in ((PING, False), (CLOSE, True)):
            writer = Writer(self.transport, self.close_written)
            self.transport.broken = True
            writer.inject(frame, close=close)
            self.assertEqual((writer.busy, writer.mid_frame, self.closes), (False, False, 0))

    def test_flush(self) -> None:
        """A transport that breaks before the rest is sent raises nothing in flush."""
        self.transport.room = 3
        self.writer.inject(PING)
        self.transport.broken = True
        self.writer.flush()
        self.writer.flush()
        self.assertEqual(self.transport.sent, PING[:3])


class TryTest(WriterCase):
    """Streaming without blocking: what does not fit is left for ``resume``."""

    def try_write(self, data: bytes, boundary: int, mid_frame: bool = False) -> bool:
        return self.writer.try_write(memoryview(data), boundary, mid_frame)

    def test_all_fits(self) -> None:
        """If the transport takes a piece at once, the piece is done."""
        self.assertTrue(self.try_write(b"he", 0, True))
        self.assertTrue(self.writer.mid_frame)
        self.assertTrue(self.try_write(b"llo", 3))
        self.assertFalse(self.writer.mid_frame)
        self.assertEqual((self.transport.calls, self.writer.busy), ([b"he", b"llo"], False))
        self.writer.resume()
        self.assertEqual(self.transport.sent, b"hello")

    def test_rest(self) -> None:
        """The rest, and nothing but the rest, goes out first, however much of it there is."""
        for room in range(5):
            with self.subTest(room=room):
                self.setUp()
                self.transport.room = room
                self.assertFalse(self.try_write(b"hello", 5))
                self.assertTrue(self.writer.busy)
                self.writer.inject(PING)
                self.writer.flush()
                self.assertEqual(self.transport.sent, b"hello"[:room])
                self.transport.room = None
                self.writer.resume()
                self.assertEqual((self.transport.sent, self.writer.busy), (b"hello" + PING, False))

    def test_data_may_change_before_the_rest_is_sent(self) -> None:
        """What is left to do does not depend on the caller's buffer."""
        self.transport.room = 2
        buffer = bytearray(b"hello")
        self.assertFalse(self.writer.try_write(memoryview(buffer), 5, False))
        buffer[:] = b"xxxxx"
        self.writer.resume()
        self.assertEqual(self.transport.sent, b"hello")

    def test_rest_that_ends_inside_a_frame(self) -> None:
        """A frame that came meanwhile waits for the next boundary."""
        self.transport.room = 1
        self.assertFalse(self.try_write(b"he", 0, True))
        self.writer.inject(PING)
        self.writer.resume()
        self.assertEqual((self.transport.sent, self.writer.mid_frame), (b"he", True))
        self.transport.room = None
        self.write(b"llo", 3)
        self.assertEqual(self.transport.sent, b"hello" + PING)

    def test_behind_what_waits(self) -> None:
        """With something injected before it, nothing is sent; ``resume`` sends both in order."""
        self.transport.room = 3
        self.writer.inject(PING)
        self.assertFalse(self.try_write(b"hello", 5))
        self.assertEqual((self.transport.sent, self.writer.busy), (PING[:3], False))
        self.writer.resume()
        self.assertEqual(self.transport.sent, PING + b"hello")

    def test_inside_a_frame_with_a_ping_waiting(self) -> None:
        """A ping that waits for a boundary is put there by ``resume``."""
        self.assertTrue(self.try_write(b"he", 0, True))
        self.writer.inject(PING)
        self.assertFalse(self.try_write(b"llo|ne", 4, True))
        self.writer.resume()
        self.assertEqual((self.transport.sent, self.writer.mid_frame), (b"hello|" + PING + b"ne", True))

    def test_injected_meanwhile(self) -> None:
        """A ping that comes while the piece is being sent is left to ``resume``, if it may go out then."""
        try_send = self.transport.try_send
        for mid_frame, sent in ((False, b"hello" + PING), (True, b"hello")):
            with self.subTest(mid_frame=mid_frame):
                self.setUp()

                def during(data: memoryview | bytes, transport: FakeTransport = self.transport) -> int:
                    self.writer.inject(PING)
                    return FakeTransport.try_send(transport, data)

                self.transport.try_send = during  # type: ignore[method-assign]
                self.assertEqual(self.try_write(b"hello", 5 if not mid_frame else 0, mid_frame), mid_frame)
                self.assertEqual(self.transport.sent, b"hello")
                self.transport.try_send = try_send  # type: ignore[method-assign]
                self.writer.resume()
                self.assertEqual((self.transport.sent, self.writer.busy), (sent, False))

    def test_while_somebody_injects(self) -> None:
        """While an injection is being sent, ``try_write`` sends nothing; only ``resume`` waits for it."""
        try_send = self.transport.try_send
        tried: list[bool] = []

        def during(data: memoryview | bytes) -> int:
            self.transport.try_send = try_send  # type: ignore[method-assign]
            tried.append(self.try_write(b"hello", 5))
            return try_send(data)

        self.transport.try_send = during  # type: ignore[method-assign]
        self.writer.inject(PING)
        self.assertEqual((tried, self.transport.sent), ([False], PING))
        self.writer.resume()
        self.assertEqual(self.transport.sent, PING + b"hello")


class TurnsTest(WriterCase):
    def test_pump_waits_for_an_injection(self) -> None:
        """A pump that writes while a frame is being injected waits until that is done."""
        inside, leave = threading.Event(), threading.Event()
        try_send = self.transport.try_send

        def slow(data: memoryview | bytes) -> int:
            inside.set()
            leave.wait(WAIT)
            return try_send(data)

        self.transport.try_send = slow  # type: ignore[method-assign]
        injector = threading.Thread(target=lambda: self.writer.inject(PING))
        injector.start()
        self.assertTrue(inside.wait(WAIT))
        pump = threading.Thread(target=lambda: self.write(b"frame", 5))
        pump.start()
        self.assertEqual(self.transport.sent, b"")
        leave.set()
        injector.join()
        pump.join()
        self.assertEqual(self.transport.sent, PING + b"frame")

    def test_pump_is_freed_by_a_broken_injection(self) -> None:
        """A pump that waits for an injection which finds the transport broken drops its piece."""
        inside, leave = threading.Event(), threading.Event()

        def breaks(data: memoryview | bytes) -> int:
            inside.set()
            leave.wait(WAIT)
            raise TransportClosed("broken")

        self.transport.try_send = breaks  # type: ignore[method-assign]
        injector = threading.Thread(target=lambda: self.writer.inject(PING))
        injector.start()
        self.assertTrue(inside.wait(WAIT))
        pump = threading.Thread(target=lambda: self.write(b"frame", 5))
        pump.start()
        leave.set()
        injector.join()
        pump.join()
        self.assertEqual(self.transport.sent, b"")

    def test_injection_never_blocks(self) -> None:
        """While the pump is blocked in a send, an injection and a flush return at once."""
        inside, leave = threading.Event(), threading.Event()

        def during() -> None:
            inside.set()
            leave.wait(WAIT)

        self.transport.during = during
        pump = threading.Thread(target=lambda: self.write(b"frame", 5))
        pump.start()
        self.assertTrue(inside.wait(WAIT))
        self.writer.inject(PING)
        self.writer.flush()
        self.assertTrue(self.writer.busy)
        self.assertTrue(self.writer.waiting)
        leave.set()
        pump.join()
        self.assertEqual(self.transport.sent, b"frame" + PING)


class StressTest(LeakTestCase):
    def test_two_threads(self) -> None:
        """Whole and randomly cut frames with pings from another thread: every ping stands at a boundary."""
        dice = random.Random(8)
        frames = [build_frame(Opcode.BINARY, bytes(dice.randrange(300))) for _ in range(1000)]
        stream = b"".join(frames)
        one, two = socket.socketpair()
        self.addCleanup(one.close)
        self.addCleanup(two.close)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writer = Writer(PlainTransport(one), lambda: one.shutdown(socket.SHUT_WR))
        injected: list[bytes] = []
        done, moved, looked = threading.Event(), threading.Event(), threading.Event()

        def pump() -> None:
            scanner = FrameScanner(False)
            data, position, pending = bytearray(stream), 0, 0
            while position < len(data):
                pending = min(len(data), max(pending, position) + dice.randrange(1, 600))
                cut = scanner.scan(data, position, pending)
                boundary = scanner.boundary - position if scanner.boundary >= 0 else -1
                if cut > position:
                    write = dice.choice((writer.write, writer.try_write))
                    write(memoryview(data)[position:cut], boundary, scanner.mid_frame)
                    writer.resume()
                position = cut
                looked.clear()
                moved.set()
                if dice.random() < 0.2:  # so that neither thread leaves the other behind
                    looked.wait(WAIT)
            done.set()
            moved.set()
            injector.join()
            writer.inject(CLOSE, close=True)
            while writer.waiting:
                looked.wait(0.001)
                writer.flush()

        def inject() -> None:
            number = 0
            while not done.is_set():
                looked.set()
                moved.wait(WAIT)  # and does not spin, which would keep the interpreter from the pump
                moved.clear()
                writer.flush()
                if not writer.waiting:
                    number += 1
                    ping = build_frame(Opcode.PING, number.to_bytes(8, "big"))
                    injected.append(ping)
                    writer.inject(ping)

        injector = threading.Thread(target=inject)
        threads = [injector, threading.Thread(target=pump)]
        for thread in threads:
            thread.start()
        received = bytearray()
        while chunk := two.recv(65536):
            received += chunk
        for thread in threads:
            thread.join()
        self.check(received, stream, injected)

    def check(self, received: bytearray, stream: bytes, injected: list[bytes]) -> None:
        result = passed(FrameScanner(False), [bytes(received)])
        self.assertIsNone(result.violation)
        self.assertEqual(result.forwarded, received)
        data, pings, position = b"", [], 0
        for start, opcode, _, raw in result.controls:
            data += received[position:start]
            position = start + len(raw)
            if opcode is Opcode.PING:
                pings.append(raw)
            else:
                self.assertEqual(raw, CLOSE)
        data += received[position:]
        self.assertEqual(data, stream)
        self.assertGreater(len(pings), 10)
        # Each at most once and in order; one that came while another waited was dropped.
        sent = set(pings)
        self.assertEqual(pings, [ping for ping in injected if ping in sent])
