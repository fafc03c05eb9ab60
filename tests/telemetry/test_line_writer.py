"""Writing log lines, with a reader and without one."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator
from unittest import mock

from wsproxy.telemetry import line_writer
from wsproxy.telemetry.line_file import LineFile, open_descriptor, open_path
from wsproxy.telemetry.line_writer import LineWriter, flush_program_log, lines_lost_of_program_log
from wsproxy.testing.case import LeakTestCase

_TIMEOUT = 60.0
_LINE = b"x" * 99 + b"\n"


def _say_lost(lost: int) -> bytes:
    return f"lost {lost}\n".encode()


class SlowFile(LineFile):
    """A file whose file system hangs until the test releases it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.may_block = True
        self.busy = threading.Event()
        self.may_go_on = threading.Event()

    def write(self, data: bytes) -> int:
        self.busy.set()
        self.may_go_on.wait(_TIMEOUT)
        return super().write(data)


class LineWriterTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "log")
        self.complaints: list[str] = []
        self.relieved: list[int] = []

    def writer(self, file: LineFile, *, is_program_log: bool = False) -> LineWriter:
        writer = LineWriter(
            "wsproxy-x",
            _say_lost,
            self.complaints.append,
            self.relieved.append,
            is_program_log=is_program_log,
        )
        self.addCleanup(writer.close)
        writer.use(file)
        return writer

    def pipe(self) -> tuple[int, int]:
        """Return the ends of a pipe: the one that is read first, as of :func:`os.pipe`."""
        ours, theirs = os.pipe()
        self.addCleanup(self.close, theirs)
        self.addCleanup(self.close, ours)
        return ours, theirs

    @staticmethod
    def close(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def read(self, descriptor: int, count: int) -> list[bytes]:
        """Return so many lines."""
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            data = b""
            while data.count(b"\n") < count:
                data += file.read(65536)
        return data.splitlines(keepends=True)

    def text(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "wsproxy-x"]

    def test_at_once(self) -> None:
        """If a pipe takes a line, the line is in it when put() returns, without a thread."""
        ours, theirs = self.pipe()
        writer = self.writer(open_descriptor(theirs))
        writer.put(b"a\n")
        writer.put(b"b\n")
        self.assertEqual(os.read(ours, 100), b"a\nb\n")
        self.assertEqual(self.threads(), [])

    def test_shared_descriptor_still_blocks(self) -> None:
        """A shared pipe keeps its blocking mode for its other writers."""
        _, theirs = self.pipe()
        self.writer(open_descriptor(theirs)).put(b"a\n")
        self.assertTrue(os.get_blocking(theirs))

    def test_nobody_reads(self) -> None:
        """Lines wait in order; lines beyond the bound are lost and counted there; the thread ends."""
        ours, theirs = self.pipe()
        writer = self.writer(open_descriptor(theirs))
        count = (1 << 20) // len(_LINE) * 2
        for number in range(count):
            writer.put(b"%099d\n" % number)
        lost = writer.lost
        self.assertGreater(lost, 0)
        self.assertEqual(self.complaints, ["its reader does not read, or its file system hangs"])
        (thread,) = self.threads()
        *lines, says_lost = self.read(ours, count - lost + 1)
        self.assertEqual([int(line) for line in lines], [*range(count - lost)])
        self.assertEqual(says_lost, _say_lost(lost))
        thread.join(_TIMEOUT)
        self.assertFalse(thread.is_alive())
        self.assertEqual(self.relieved, [lost])
        writer.put(b"next\n")
        self.assertEqual(self.read(ours, 1), [b"next\n"])
        self.assertEqual(writer.lost, lost)

    def test_pipe_that_cannot_be_opened_anew(self) -> None:
        """Without /proc, or with another user's pipe, a thread writes what the pipe takes and no more."""
        ours, theirs = self.pipe()
        with mock.patch("os.open", side_effect=PermissionError):
            file = open_descriptor(theirs)
        self.assertTrue(file.may_block)
        writer = self.writer(file)
        for number in range(2000):
            writer.put(b"%099d\n" % number)
        self.assertEqual([int(line) for line in self.read(ours, 2000)], [*range(2000)])
        for _ in range(2000):
            writer.put(_LINE)
        writer.close(0.1)
        self.assertEqual(self.threads(), [], "the thread is stuck in the pipe")

    def test_file_system_that_hangs(self) -> None:
        """No caller waits for a regular file that hangs; the thread closes it later."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT)
        file = SlowFile(descriptor)
        writer = self.writer(file)
        writer.put(b"a\n")
        self.assertTrue(file.busy.wait(_TIMEOUT))
        writer.put(b"b\n")
        (thread,) = self.threads()
        with mock.patch.object(line_writer, "_END_SECONDS", 0.01):
            writer.close(0.01)
        writer.use(open_path(self.path))  # which is closed at once
        self.assertTrue(thread.is_alive())
        os.fstat(descriptor)
        file.may_go_on.set()
        thread.join(_TIMEOUT)
        self.assertRaises(OSError, os.fstat, descriptor)
        self.assertEqual((self.text(), writer.lost), (b"a\n", 1))

    def test_regular_file(self) -> None:
        """The lines are in a file after flush(), in order."""
        writer = self.writer(open_path(self.path))
        for number in range(1000):
            writer.put(b"%d\n" % number)
        self.assertTrue(writer.flush(_TIMEOUT))
        self.assertEqual([int(line) for line in self.text().split()], [*range(1000)])

    def test_without_threads(self) -> None:
        """Where the system starts no more threads, lines are written all the same."""
        with mock.patch.object(line_writer, "start_thread", side_effect=RuntimeError):
            writer = self.writer(open_path(self.path))
            writer.put(b"a\n")
            self.assertEqual(self.text(), b"a\n")
            ours, theirs = self.pipe()
            piped = self.writer(open_descriptor(theirs))
            for _ in range(2000):
                piped.put(_LINE)
            received = b""
            while not piped.flush(0):
                received += os.read(ours, 65536)
            self.assertEqual(received + b"".join(self.read(ours, 1)), _LINE * 2000)

    def test_many_threads(self) -> None:
        """Lines of many threads are all there, each whole, and each thread's in order."""
        for name, opened in (("pipe", None), ("file", open_path(self.path))):
            with self.subTest(name):
                ours, theirs = self.pipe()
                writer = self.writer(opened or open_descriptor(theirs))
                starters = [threading.Thread(target=self.put_many, args=(writer, n)) for n in range(8)]
                for thread in starters:
                    thread.start()
                lines = [] if opened else self.read(ours, 8 * 500)
                for thread in starters:
                    thread.join()
                self.assertTrue(writer.flush(_TIMEOUT))
                found = [tuple(map(int, line.split())) for line in lines or self.text().splitlines()]
                self.assertEqual(sorted(found), [(n, i) for n in range(8) for i in range(500)])
                for n in range(8):
                    self.assertEqual([i for m, i in found if m == n], [*range(500)])

    @staticmethod
    def put_many(writer: LineWriter, number: int) -> None:
        for i in range(500):
            writer.put(b"%d %d\n" % (number, i))

    def test_within_itself(self) -> None:
        """A signal handler or a finalizer may log while its thread does, at any point."""
        ours, theirs = self.pipe()
        file = open_descriptor(theirs)
        writer = self.writer(file)
        write, within = file.write, [b"inner\n"]

        def interrupted(data: bytes) -> int:
            if within:
                writer.put(within.pop())
            return write(data)

        with mock.patch.object(file, "write", interrupted):
            writer.put(b"outer\n")
        self.assertEqual(os.read(ours, 100), b"outer\ninner\n")

    def test_long_line(self) -> None:
        """A line that a pipe takes in parts only is whole when it is read, whatever comes meanwhile."""
        ours, theirs = self.pipe()
        writer = self.writer(open_descriptor(theirs))
        long = b"y" * 300_000 + b"\n"
        writer.put(long)
        writer.put(b"next\n")
        self.assertEqual(b"".join(self.read(ours, 2)), long + b"next\n")

    def test_full(self) -> None:
        """A line that was begun and cannot be completed is lost; the next one starts on a new line."""
        file = open_path(self.path)
        writer = self.writer(file)
        write = file.write
        full = OSError(errno.ENOSPC, "No space left on device")
        results: Iterator[Callable[[bytes], int] | OSError] = iter([lambda data: write(data[:3]), full, full])

        def limited(data: bytes) -> int:
            result = next(results, write)
            if isinstance(result, OSError):
                raise result
            return result(data)

        with mock.patch.object(file, "write", limited):
            for line in (b"first\n", b"second\n", b"third\n"):
                writer.put(line)
                self.assertTrue(writer.flush(_TIMEOUT))
        self.assertEqual(self.text(), b"fir\nlost 2\nthird\n")
        self.assertEqual((writer.lost, self.complaints, self.relieved), (2, ["No space left on device"], [2]))

    def test_reader_gone(self) -> None:
        """Without a reader lines are lost, and nothing is raised."""
        ours, theirs = self.pipe()
        writer = self.writer(open_descriptor(theirs))
        os.close(ours)
        writer.put(b"a\n")
        writer.put(b"b\n")
        self.assertEqual((writer.lost, self.complaints), (2, ["Broken pipe"]))

    def test_socket(self) -> None:
        """A socket without a reader behaves like a pipe."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            writer = self.writer(open_descriptor(theirs.fileno()))
            for _ in range(20_000):
                writer.put(_LINE)
            self.assertGreater(writer.lost, 0)
            self.assertTrue(theirs.getblocking())
            count = 20_000 - writer.lost
            lines = self.read(ours.fileno(), count + 1)
            self.assertEqual(lines, [_LINE] * count + [_say_lost(writer.lost)])

    def test_terminal(self) -> None:
        """A terminal gets its lines at once, and may be stopped; it stays the caller's."""
        ours, theirs = os.openpty()
        self.addCleanup(self.close, ours)
        self.addCleanup(self.close, theirs)
        writer = self.writer(open_descriptor(theirs))
        writer.put(b"a\n")
        self.assertEqual(os.read(ours, 100), b"a\r\n")
        self.assertEqual(self.threads(), [])
        termios.tcflow(theirs, termios.TCOOFF)
        for _ in range(20_000):
            writer.put(_LINE)
        self.assertGreater(writer.lost, 0)
        self.assertTrue(os.get_blocking(theirs))

    def test_bug_in_the_thread(self) -> None:
        """If the thread ends by an error, the next line has another one."""
        writer = self.writer(open_path(self.path))
        with (
            mock.patch.object(threading, "excepthook"),
            mock.patch.object(LineFile, "is_torn", side_effect=ZeroDivisionError),
        ):
            writer.put(b"a\n")
            for thread in self.threads():
                thread.join(_TIMEOUT)
        self.assertEqual(self.threads(), [])
        writer.put(b"b\n")
        self.assertTrue(writer.flush(_TIMEOUT))
        self.assertEqual(self.text(), b"a\nb\n")

    def test_another_file(self) -> None:
        """If the file is replaced, waiting lines go to the new one, each whole."""
        _, theirs = self.pipe()
        writer = self.writer(open_descriptor(theirs))
        long = b"y" * 100_000 + b"\n"
        writer.put(long)
        writer.put(b"next\n")
        writer.use(open_path(self.path))
        self.assertTrue(writer.flush(_TIMEOUT))
        self.assertEqual(self.text(), long + b"next\n")

    def test_not_open(self) -> None:
        """Before ``use`` and after ``close`` lines are dropped, and not counted as lost."""
        writer = LineWriter("wsproxy-x", _say_lost)
        writer.put(b"a\n")
        writer.use(open_path(self.path))
        writer.put(b"b\n")
        writer.close()
        writer.close()
        writer.put(b"c\n")
        self.assertEqual((self.text(), writer.lost), (b"b\n", 0))

    def test_fork(self) -> None:
        """A child writes lines of its own, with a thread of its own, and none of the parent's again."""
        writer = self.writer(open_path(self.path), is_program_log=True)
        writer.put(b"parent\n")
        self.assertTrue(writer.flush(_TIMEOUT))
        pid = os.fork()
        if not pid:
            writer.put(b"child\n")
            flush_program_log()
            os._exit(lines_lost_of_program_log())
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        writer.put(b"again\n")
        self.assertTrue(writer.flush(_TIMEOUT))
        self.assertEqual(self.text(), b"parent\nchild\nagain\n")

    def test_fork_while_nobody_reads(self) -> None:
        """A fork does not wait for a reader, has one thread, and the child does not repeat what waits."""
        ours, theirs = self.pipe()
        writer = self.writer(open_descriptor(theirs), is_program_log=True)
        for number in range(2000):
            writer.put(b"%099d\n" % number)
        self.assertEqual(len(self.threads()), 1)
        seen: list[int] = []
        with mock.patch.object(line_writer, "_program_logs", [writer]):
            line_writer._pause()
            seen.append(len(self.threads()))
            line_writer._resume()
        self.assertEqual(seen, [0])
        pid = os.fork()
        if not pid:
            signal.alarm(int(_TIMEOUT))
            os._exit(0 if writer.flush(_TIMEOUT) and not writer.lost else 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual([int(line) for line in self.read(ours, 2000)], [*range(2000)])
