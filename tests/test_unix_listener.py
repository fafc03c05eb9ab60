"""A Unix socket that listens."""

from __future__ import annotations

import os
import socket
import tempfile

from wsproxy.testing.case import LeakTestCase
from wsproxy.unix_listener import UnixListener


class UnixListenerTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "socket")

    def listen(self) -> UnixListener:
        listener = UnixListener(self.path, 0o600, 4)
        self.addCleanup(listener.close)
        return listener

    def connect(self) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.path)

    def test_listens_for_its_owner(self) -> None:
        """It can be connected to, has the mode that was asked for, and leaves nothing."""
        listener = self.listen()
        self.connect()
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        listener.close()
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])
        listener.close()

    def test_replaces_a_stale_one(self) -> None:
        """A socket that a process left is replaced; one that is in use, and a file, are not."""
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.path)
        listener = self.listen()
        self.connect()
        with self.assertRaises(OSError):
            self.listen()
        self.connect()
        listener.close()
        with open(self.path, "w", encoding="ascii") as file:
            file.write("precious")
        with self.assertRaises(OSError):
            self.listen()
        with open(self.path, encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    def test_leaves_a_successor_alone(self) -> None:
        """A path that is somebody else's by now is not removed."""
        first = self.listen()
        os.rename(self.path, f"{self.path}.old")
        self.listen()
        first.close()
        self.connect()
        os.unlink(f"{self.path}.old")

    def test_leaves_the_parents_path_alone(self) -> None:
        """The copy of a forked child is closed without removing the path."""
        listener = self.listen()
        listener._pid += 1
        listener.close()
        self.assertTrue(os.path.exists(self.path))
