"""The audit log's file."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
import unittest
from typing import Any
from unittest import mock

from wsproxy.exceptions import ConfigError
from wsproxy.telemetry.audit import AuditLog


class AuditTest(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "audit")

    def opened(self) -> AuditLog:
        audit = AuditLog(self.path)
        audit.open()
        self.addCleanup(audit.close)
        return audit

    def events(self, path: str | None = None) -> list[Any]:
        with open(path or self.path, encoding="ascii") as file:
            return [json.loads(line) for line in file]

    def test_events(self) -> None:
        """An event is a line with the time; what a peer said breaks none."""
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
        os.chmod(self.path, 0o640)
        self.opened().write("second", {})
        self.assertEqual([event["event"] for event in self.events()], ["first", "second"])
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o640)

    def test_rotation(self) -> None:
        """A file that was renamed goes on, until the log is opened anew."""
        audit = self.opened()
        audit.write("a", {})
        os.rename(self.path, f"{self.path}.1")
        audit.write("b", {})
        audit.open()
        audit.write("c", {})
        self.assertEqual([event["event"] for event in self.events(f"{self.path}.1")], ["a", "b"])
        self.assertEqual([event["event"] for event in self.events()], ["c"])

    def test_cannot_be_opened_anew(self) -> None:
        """If that fails the file from before goes on."""
        audit = self.opened()
        os.rename(self.path, f"{self.path}.1")
        os.mkdir(self.path)
        with self.assertLogs("wsproxy.audit", "ERROR"):
            audit.open()
        audit.write("a", {})
        self.assertEqual(len(self.events(f"{self.path}.1")), 1)

    def test_full_disk(self) -> None:
        """What cannot be written is complained of once, until something can be again."""
        audit = self.opened()
        full = OSError(errno.ENOSPC, "No space left on device")
        with self.assertLogs("wsproxy.audit", "ERROR") as logged:
            with mock.patch("os.write", side_effect=[full, full, 5]):
                for _ in range(3):
                    audit.write("lost", {})
            audit.write("kept", {})
            with mock.patch("os.write", return_value=5):
                audit.write("cut", {})
        self.assertEqual(len(logged.output), 2, logged.output)
        self.assertIn("No space left", logged.output[0])
        self.assertIn("5 of ", logged.output[1])

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
            with self.subTest(path=path), self.assertRaisesRegex(ConfigError, "^audit_log is "):
                AuditLog(path)

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
