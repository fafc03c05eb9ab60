"""The poller, over socket pairs."""

from __future__ import annotations

import queue
import socket
import threading
import unittest
import weakref
from unittest import mock

from wsproxy.relay.poller import Poller
from wsproxy.testing.case import LeakTestCase

_TIMEOUT = 60.0


class Reader:
    """Reads one socket, and tells the test what happens."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.settimeout(_TIMEOUT)
        self.happened: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.goes_on = True
        self.bug: Exception | None = None
        self.thread = ""

    def fileno(self) -> int:
        return self.near.fileno()

    def ready(self, buffer: bytearray, view: memoryview) -> bool:
        self.thread = threading.current_thread().name
        received = self.near.recv_into(view)
        if self.bug:
            raise self.bug
        self.happened.put(bytes(buffer[:received]))
        return self.goes_on

    def let_go(self) -> None:
        self.happened.put("let go")

    def failed(self, exc: Exception) -> None:
        self.happened.put(exc)

    def abort(self) -> None:
        self.happened.put("abort")

    def next(self) -> object:
        return self.happened.get(timeout=_TIMEOUT)


class SlowReader(Reader):
    """Stays in its read until the test releases it."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def ready(self, buffer: bytearray, view: memoryview) -> bool:
        self.entered.release()
        self.go_on.acquire(timeout=_TIMEOUT)
        return super().ready(buffer, view)

    def abort(self) -> None:
        super().abort()
        self.go_on.release()


@unittest.skipUnless(Poller.available, "needs epoll")
class PollerTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.poller = Poller()
        self.poller.start(self)
        self.addCleanup(self.poller.stop)

    def reader(self) -> Reader:
        reader = Reader()
        self.addCleanup(reader.near.close)
        self.addCleanup(reader.far.close)
        self.addCleanup(self.poller.stop)  # before that
        return reader

    def test_reads_what_comes(self) -> None:
        """The poller's thread calls every watched object whenever there is something to read."""
        readers = [self.reader() for _ in range(20)]
        for reader in readers:
            self.poller.watch(reader)
        for text in (b"one", b"two"):
            for reader in readers:
                reader.far.sendall(text)
            self.assertEqual([reader.next() for reader in readers], [text] * 20)
        self.assertEqual({reader.thread for reader in readers}, {"wsproxy-poller"})

    def test_what_came_before(self) -> None:
        """Bytes that came before the watching began are read."""
        reader = self.reader()
        reader.far.sendall(b"early")
        self.poller.watch(reader)
        self.assertEqual(reader.next(), b"early")

    def test_does_not_keep_what_it_has_let_go(self) -> None:
        """The poller does not keep the object that it read last, and its session, alive."""
        reader, forgotten = self.reader(), threading.Event()
        weakref.finalize(reader, forgotten.set)
        reader.goes_on = False
        self.poller.watch(reader)
        reader.far.sendall(b"last")
        self.assertEqual((reader.next(), reader.next()), (b"last", "let go"))
        del reader
        self.assertTrue(forgotten.wait(_TIMEOUT))

    def test_end_of_stream(self) -> None:
        """The end of a stream makes an object ready, too."""
        reader = self.reader()
        reader.goes_on = False
        self.poller.watch(reader)
        reader.far.close()
        self.assertEqual((reader.next(), reader.next()), (b"", "let go"))

    def test_lets_go(self) -> None:
        """After ``ready`` returns False, the object is let go and not called; it may be watched again."""
        reader, other = self.reader(), self.reader()
        self.poller.watch(other)
        reader.goes_on = False
        for text in (b"one", b"two"):
            self.poller.watch(reader)
            reader.far.sendall(text)
            self.assertEqual((reader.next(), reader.next()), (text, "let go"))
            reader.far.sendall(b"unseen")
            other.far.sendall(b"mark")
            self.assertEqual(other.next(), b"mark")
            self.assertTrue(reader.happened.empty())
            self.assertEqual(reader.near.recv(100), b"unseen")

    def test_descriptor_used_again(self) -> None:
        """A descriptor that was let go and closed may come back as another one's."""
        for _ in range(50):
            reader = self.reader()
            reader.goes_on = False
            self.poller.watch(reader)
            reader.far.sendall(b"x")
            self.assertEqual((reader.next(), reader.next()), (b"x", "let go"))
            reader.near.close()
            reader.far.close()

    def test_bug(self) -> None:
        """If an object raises, it is told so and let go; the poller continues to serve the others."""
        reader, other = self.reader(), self.reader()
        self.poller.watch(reader)
        self.poller.watch(other)
        reader.bug = ZeroDivisionError()
        reader.far.sendall(b"x")
        self.assertEqual((reader.next(), reader.next()), (reader.bug, "let go"))
        other.far.sendall(b"mark")
        self.assertEqual(other.next(), b"mark")

    def assert_serves_others(self) -> None:
        other = self.reader()
        self.poller.watch(other)
        other.far.sendall(b"mark")
        self.assertEqual(other.next(), b"mark")
        self.assertTrue(self.poller.is_healthy)

    def test_closed_too_early(self) -> None:
        """If a socket is closed while it is read, its object is let go like any other object."""
        reader = self.reader()
        read = reader.ready

        def read_and_close(buffer: bytearray, view: memoryview) -> bool:
            read(buffer, view)
            reader.near.close()
            return False

        reader.ready = read_and_close  # type: ignore[method-assign]
        self.poller.watch(reader)
        reader.far.sendall(b"x")
        self.assertEqual((reader.next(), reader.next()), (b"x", "let go"))
        self.assertEqual(self.poller._watched, {})
        self.assert_serves_others()

    def test_bugs_of_every_kind(self) -> None:
        """If an object raises SystemExit, or fails in ``let_go`` or ``failed``, only this object ends."""
        reader = self.reader()
        reader.ready = mock.Mock(side_effect=SystemExit)  # type: ignore[method-assign]
        self.poller.watch(reader)
        reader.far.sendall(b"x")
        self.assertIsInstance(reader.next(), RuntimeError)
        self.assertEqual(reader.next(), "let go")
        reader.ready = mock.Mock(return_value=False)  # type: ignore[method-assign]
        reader.let_go = mock.Mock(side_effect=[bug := ZeroDivisionError(), None])  # type: ignore[method-assign]
        self.poller.watch(reader)
        self.assertIs(reader.next(), bug)
        with self.assertLogs("wsproxy.poller", "ERROR"):
            reader.ready = mock.Mock(side_effect=ZeroDivisionError)  # type: ignore[method-assign]
            reader.failed = mock.Mock(side_effect=ZeroDivisionError)  # type: ignore[method-assign]
            self.poller.watch(reader)
            self.assert_serves_others()
        self.assertNotIn(reader.fileno(), self.poller._watched)

    def test_error_of_the_system(self) -> None:
        """If waiting fails once, the thread continues."""
        reader = self.reader()
        poller = Poller()
        epoll = mock.Mock()
        with mock.patch("select.epoll", return_value=epoll), self.assertLogs("wsproxy.threads", "ERROR"):
            once = iter([OSError(12, "no memory"), [(reader.fileno(), 1)]])
            stop = threading.Event()

            def poll() -> object:
                for step in once:
                    if isinstance(step, OSError):
                        raise step
                    return step
                stop.wait(_TIMEOUT)
                return [(poller._woken.fileno(), 1)]

            epoll.poll = poll
            poller.start(self)
            poller.watch(reader)
            reader.far.sendall(b"x")
            self.assertEqual(reader.next(), b"x")
            stop.set()
            poller.stop()

    def slow_reader(self) -> SlowReader:
        reader = SlowReader()
        for close in (reader.near.close, reader.far.close, self.poller.stop, reader.go_on.release):
            self.addCleanup(close)
        self.poller.watch(reader)
        reader.far.sendall(b"x")
        self.assertTrue(reader.entered.acquire(timeout=_TIMEOUT))
        return reader

    def test_held(self) -> None:
        """An object that holds the thread for two looks in a row is aborted; the others are served again."""
        reader, other = self.slow_reader(), self.reader()
        self.poller.watch(other)
        other.far.sendall(b"mark")
        self.assertEqual([self.poller.tick(now) for now in (5.0, 6.0)], [6.0, 7.0])
        self.assertTrue(reader.happened.empty())
        self.poller.tick(7.0)
        self.assertEqual((reader.next(), reader.next()), ("abort", b"x"))
        self.assertEqual(other.next(), b"mark")

    def test_not_held(self) -> None:
        """An object that several looks find, but that lets the thread go in between, is not aborted."""
        reader = self.slow_reader()
        for now in range(5):
            self.poller.tick(now)
            self.poller.tick(now + 0.5)
            reader.go_on.release()
            self.assertEqual(reader.next(), b"x")
            reader.far.sendall(b"x")
            self.assertTrue(reader.entered.acquire(timeout=_TIMEOUT))

    def test_nothing_is_held(self) -> None:
        """An idle thread is left alone."""
        reader = self.reader()
        self.poller.watch(reader)
        for now in range(5):
            self.poller.tick(now)
        reader.far.sendall(b"x")
        self.assertEqual(reader.next(), b"x")

    def test_system_refuses(self) -> None:
        """If the system watches no more descriptors, ``watch`` raises and leaves nothing behind."""
        reader = self.reader()
        with mock.patch.object(self.poller, "_epoll") as epoll:
            epoll.register.side_effect = OSError(28, "no space")
            self.assertRaises(OSError, self.poller.watch, reader)
        self.assertEqual(self.poller._watched, {})

    def test_stop_twice(self) -> None:
        """Stopping is idempotent, and possible without a start."""
        self.poller.stop()
        self.poller.stop()
        Poller().stop()


if __name__ == "__main__":
    unittest.main()
