"""What systemd and its services say to each other."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
import unittest

from wsproxy.exceptions import ConfigError
from wsproxy.runtime.systemd import Notifier, activated_descriptor
from wsproxy.testing.case import LeakTestCase


class Activation(unittest.TestCase):
    """sd_listen_fds(3)."""

    def test_one_socket(self) -> None:
        """The first descriptor behind the standard ones is the socket."""
        self.assertEqual(activated_descriptor({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7), 3)

    def test_none(self) -> None:
        """Without a socket, or with one for another process, there is none."""
        for environ in (
            {},
            {"LISTEN_FDS": "1"},
            {"LISTEN_FDS": "1", "LISTEN_PID": "8"},
            {"LISTEN_FDS": "2", "LISTEN_PID": "8"},
            {"LISTEN_FDS": "0", "LISTEN_PID": "7"},
            {"LISTEN_PID": "7"},
        ):
            with self.subTest(environ=environ):
                self.assertIsNone(activated_descriptor(environ, 7))

    def test_several(self) -> None:
        """Several sockets, or a count that is not a number, are a fault with a remedy."""
        for count in ("2", "-1", "one"):
            with self.subTest(count=count), self.assertRaisesRegex(ConfigError, "leave one ListenStream="):
                activated_descriptor({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7)


class Notifications(LeakTestCase):
    """sd_notify(3)."""

    def manager(self, address: str) -> socket.socket:
        """Return a service manager's socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(address)
        sock.settimeout(20.0)
        return sock

    def assert_tells(self, manager: socket.socket, notifier: Notifier) -> None:
        notifier.ready()
        self.assertEqual(manager.recv(4096), b"READY=1")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.reloading()
        match = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", manager.recv(4096))
        assert match
        self.assertLessEqual(before, int(match[1]))
        self.assertLessEqual(int(match[1]), time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        notifier.stopping(20.5)
        self.assertEqual(manager.recv(4096), b"STOPPING=1\nEXTEND_TIMEOUT_USEC=30500000")

    def test_path(self) -> None:
        """All that is told arrives at a socket at a path."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "notify")
            self.assert_tells(self.manager(path), Notifier.from_env({"NOTIFY_SOCKET": path}))

    @unittest.skipUnless(os.path.isdir("/proc/self"), "Linux alone has abstract sockets")
    def test_abstract_socket(self) -> None:
        """``@NAME`` is an abstract socket."""
        name = f"wsproxy-test-{os.getpid()}"
        self.assert_tells(self.manager(f"\0{name}"), Notifier.from_env({"NOTIFY_SOCKET": f"@{name}"}))

    def test_nobody(self) -> None:
        """Without a manager nothing is told, and a manager that is gone ends nothing."""
        with self.assertNoLogs("wsproxy.systemd"):
            Notifier.from_env({}).ready()
        with self.assertLogs("wsproxy.systemd", "WARNING") as logs:
            Notifier("/nonexistent/notify").stopping(1.0)
            Notifier("vsock:2:1234").ready()
        self.assertIn("cannot be told STOPPING=1", logs.output[0])
        self.assertEqual(len(logs.output), 2)
