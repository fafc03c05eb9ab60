"""The audit log's file."""

from __future__ import annotations

import errno
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from typing import Any
from unittest import mock

from wsproxy.exceptions import ConfigError
from wsproxy.telemetry.audit import AuditLog, audit_log_fault

_AUDIT = """
from wsproxy.telemetry.audit import AuditLog
audit = AuditLog("{}")
audit.open()
audit.write("x", {{}})
audit.close()
""".strip().replace("\n", "; ")

_open = os.open


def _open_as_writer(path: str, flags: int, mode: int = 0o777) -> int:
    """Open a file as a user that may not read it."""
    if flags & os.O_RDWR:
        raise PermissionError(errno.EACCES, "Permission denied")
    return _open(path, flags, mode)


class AuditTest(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "audit")
        self.logs: list[AuditLog] = []

    def opened(self, path: str | None = None) -> AuditLog:
        audit = AuditLog(path or self.path)
        audit.open()
        self.addCleanup(audit.close)
        self.logs.append(audit)
        return audit

    def events(self, path: str | None = None) -> list[Any]:
        for audit in self.logs:
            self.assertTrue(audit.flush())
        with open(path or self.path, encoding="ascii") as file:
            return [json.loads(line) for line in file]

    def test_events(self) -> None:
        """An event is one line with the time, whatever text of a peer is in it."""
        self.opened().write("end", {"reason": "a\nb\u2028\ud800"})
        (event,) = self.events()
        self.assertRegex(event.pop("time"), r"^\d{4}-.*Z$")
        self.assertEqual(event, {"event": "end", "reason": "a\nb\u2028\ud800"})

    def test_for_its_owner_alone(self) -> None:
        """The file is made with mode 0600, whatever the umask; one that exists keeps mode and content."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        audit = self.opened()
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        audit.write("first", {})
        self.assertTrue(audit.flush())
        os.chmod(self.path, 0o640)
        self.opened().write("second", {})
        self.assertEqual([event["event"] for event in self.events()], ["first", "second"])
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o640)

    def test_rotation(self) -> None:
        """Events go to a renamed file until the log is opened again."""
        audit = self.opened()
        audit.write("a", {})
        self.assertTrue(audit.flush())
        os.rename(self.path, f"{self.path}.1")
        audit.write("b", {})
        audit.open()
        audit.write("c", {})
        self.assertEqual([event["event"] for event in self.events(f"{self.path}.1")], ["a", "b"])
        self.assertEqual([event["event"] for event in self.events()], ["c"])

    def test_cannot_be_opened_anew(self) -> None:
        """If the new file cannot be opened, events go to the earlier one."""
        audit = self.opened()
        os.rename(self.path, f"{self.path}.1")
        os.mkdir(self.path)
        with self.assertLogs("wsproxy.audit", "ERROR"):
            audit.open()
        audit.write("a", {})
        self.assertEqual(len(self.events(f"{self.path}.1")), 1)

    def limit(self, size: int) -> None:
        """Let no file of this process grow beyond ``size`` bytes, as on a full disk; -1 for no limit."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def test_full_disk(self) -> None:
        """Events that a full disk takes in part, or not at all, are counted, and the file says how many.

        The next event begins a line of its own. There is one error, and one warning when it goes on.
        """
        audit = self.opened()
        audit.write("first", {})
        self.assertTrue(audit.flush())
        self.addCleanup(self.limit, -1)
        with self.assertLogs("wsproxy.audit") as logged:
            self.limit(os.path.getsize(self.path) + 10)
            for _ in range(3):
                audit.write("lost", {})
                self.assertTrue(audit.flush())
            self.limit(-1)
            audit.write("kept", {})
            self.assertTrue(audit.flush())
        with open(self.path, "rb") as file:
            first, torn, *rest = file.read().splitlines()
        self.assertEqual(len(torn), 10)
        events = [json.loads(line) for line in (first, *rest)]
        self.assertEqual([event["event"] for event in events], ["first", "lost", "kept"])
        self.assertEqual((events[1]["events"], audit.lost), (3, 3))
        error, warning = logged.output
        self.assertIn("File too large; events are being lost", error)
        self.assertIn("can be written again; 3 events were lost", warning)

    def test_torn_by_others(self) -> None:
        """A line that another process has begun, now or before our start, is not continued."""
        with open(self.path, "ab", buffering=0) as other:
            other.write(b'{"torn')
            audit = self.opened()
            audit.write("a", {})
            self.assertTrue(audit.flush())
            other.write(b'{"torn')
            audit.write("b", {})
            self.assertTrue(audit.flush())
        with open(self.path, "rb") as file:
            lines = file.read().splitlines()
        self.assertEqual([json.loads(line)["event"] for line in (lines[1], lines[3])], ["a", "b"])
        self.assertEqual(len(lines), 4)

    def test_others_are_just_writing(self) -> None:
        """A line that another process ends within a moment is not torn: no empty line follows it."""
        audit = self.opened()
        with open(self.path, "ab", buffering=0) as other:
            other.write(b'{"event":')

            def end_line(seconds: float) -> None:
                other.write(b'"other"}\n')

            with mock.patch("wsproxy.telemetry.line_file.time.sleep", end_line):
                audit.write("a", {})
                self.assertTrue(audit.flush())
        self.assertEqual([event["event"] for event in self.events()], ["other", "a"])

    def fifo(self) -> str:
        path = f"{self.path}.fifo"
        os.mkfifo(path)
        return path

    def test_fifo_without_a_reader(self) -> None:
        """The log does not wait for a FIFO's reader; a reader that comes later gets every event."""
        audit = self.opened(self.fifo())
        audit.write("a", {})
        with open(f"{self.path}.fifo", "rb") as reader:
            self.assertEqual(json.loads(reader.readline())["event"], "a")
            audit.write("b", {})
            self.assertEqual(json.loads(reader.readline())["event"], "b")

    def test_fifo_that_is_tried_out(self) -> None:
        """Checking the settings does not show a FIFO's reader an end of file."""
        path = self.fifo()
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
            audit = AuditLog(path)
            self.addCleanup(audit.close)
            with selectors.PollSelector() as selector:
                selector.register(reader, selectors.EVENT_READ)
                self.assertEqual(selector.select(0), [], "the reader was told of an end")

    def test_fifo_that_nobody_reads(self) -> None:
        """Events that do not fit are counted, and the reader learns their number; ``close`` is bounded."""
        audit, lines = self.opened(self.fifo()), 5000
        with self.assertLogs("wsproxy.audit") as logged:
            for number in range(lines):
                audit.write("x", {"number": number, "text": "y" * 500})
            lost = audit.lost
            with open(f"{self.path}.fifo", "rb") as reader:
                events = [json.loads(reader.readline()) for _ in range(lines - lost + 1)]
            audit.close()
        self.assertGreater(lost, 0)
        self.assertEqual([event["number"] for event in events[:-1]], [*range(lines - lost)])
        self.assertEqual((events[-1]["event"], events[-1]["events"]), ("lost", lost))
        self.assertEqual(len(logged.output), 2, logged.output)

    def test_closed_while_nobody_reads(self) -> None:
        """``close`` is bounded: it loses the rest and says so, and leaves no thread and no descriptor."""
        descriptors = os.listdir("/dev/fd")
        audit = self.opened(self.fifo())
        for _ in range(1000):
            audit.write("x", {"text": "y" * 500})
        with self.assertLogs("wsproxy.audit", "ERROR") as logged:
            audit.close()
        self.assertIn("its reader does not read, or its file system hangs; events", logged.output[0])
        self.assertGreater(audit.lost, 0)
        self.assertEqual(os.listdir("/dev/fd"), descriptors)
        self.assertNotIn("wsproxy-audit", [thread.name for thread in threading.enumerate()])

    def test_unreadable_fifo(self) -> None:
        """If only another user may read a FIFO, the reader must start first, and the fault says so."""
        with mock.patch("os.access", return_value=False), mock.patch("os.open", side_effect=_open_as_writer):
            path = self.fifo()
            with self.assertRaisesRegex(ConfigError, "^audit_log is .*; it has no reader"):
                AuditLog(path)
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
                self.opened(path).write("a", {})
                self.assertEqual(json.loads(reader.readline())["event"], "a")

    def test_standard_output(self) -> None:
        """``-`` and the names of a descriptor are that descriptor, with the offset that it has."""
        for path in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
            with self.subTest(path=path), tempfile.TemporaryDirectory() as directory:
                output = os.path.join(directory, "output")
                code = f"print('before', flush=True); {_AUDIT.format(path)}; print('after', flush=True)"
                with open(output, "wb") as stdout:
                    subprocess.run([sys.executable, "-c", code], stdout=stdout, cwd=directory, check=True)
                with open(output, "rb") as file:
                    before, event, after = file.read().splitlines()
                self.assertEqual((before, after), (b"before", b"after"))
                self.assertEqual(json.loads(event)["event"], "x")
                self.assertEqual(os.listdir(directory), ["output"])

    def test_socket_as_standard_output(self) -> None:
        """A service manager's socket cannot be opened by its path, but written to."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            code = _AUDIT.format("/dev/stdout")
            subprocess.run([sys.executable, "-c", code], stdout=theirs.fileno(), check=True)
            self.assertEqual(json.loads(ours.recv(4096))["event"], "x")

    def test_descriptor_that_is_not_open(self) -> None:
        """A descriptor that cannot be written to is a fault of the settings."""
        with open(os.devnull, "rb") as file:
            for number in (file.fileno(), 99999):
                with self.subTest(number=number), self.assertRaisesRegex(ConfigError, "^audit_log is "):
                    AuditLog(f"/dev/fd/{number}")

    def test_reload_after_the_end(self) -> None:
        """A reload after ``close`` opens nothing."""
        audit = self.opened()
        audit.close()
        before = os.listdir("/dev/fd")
        audit.open()
        self.assertEqual(os.listdir("/dev/fd"), before)

    def test_several_writers(self) -> None:
        """Threads, and other processes with the same file, do not write into each other's lines."""
        logs = [self.opened(), self.opened()]

        def write(number: int) -> None:
            for _ in range(100):
                logs[number % 2].write("x", {"text": "y" * 500, "number": number})

        threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(self.events()), 400)

    def test_faults(self) -> None:
        """A file that cannot be made is a fault of the settings."""
        for path in (os.path.join(self.path, "missing", "audit"), os.path.dirname(self.path)):
            with self.subTest(path=path):
                with self.assertRaisesRegex(ConfigError, "^audit_log is ") as raised:
                    AuditLog(path)
                self.assertEqual(audit_log_fault(path), str(raised.exception))

    def test_looked_at(self) -> None:
        """Whoever looks for faults creates no file, which would be that user's and not the proxy's."""
        self.assertIsNone(audit_log_fault(self.path))
        self.assertFalse(os.path.exists(self.path))
        link = f"{self.path}.link"
        os.symlink(self.path, link)
        self.assertIsNone(audit_log_fault(link))
        self.assertFalse(os.path.exists(self.path))
        AuditLog(link)
        self.assertTrue(os.path.exists(self.path))
        self.assertIsNone(audit_log_fault(link))

    def test_none(self) -> None:
        """Without a path there is no log, and after the end no line."""
        audit = AuditLog(None)
        audit.open()
        audit.write("x", {})
        audit.close()
        audit = self.opened()
        audit.close()
        audit.close()
        audit.write("x", {})
        self.assertEqual(self.events(), [])


if __name__ == "__main__":
    unittest.main()
