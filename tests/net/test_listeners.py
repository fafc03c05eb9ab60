"""Listening sockets: paths, handing over, and descriptors that are inherited."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import sys
import tempfile
import threading
import unittest
from unittest import mock

from wsproxy.net.listeners import Listener, address_text, listen
from wsproxy.testing.case import LeakTestCase

_TIMEOUT = 20.0


class ListenersTestCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix="wsproxy-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.path = os.path.join(directory.name, "socket")

    def listen(self, host: str = "", *, reuse_port: bool = False, mode: int = 0o660) -> Listener:
        """Listen at the test's path, or elsewhere."""
        listener = listen(host or f"unix:{self.path}", 0, reuse_port=reuse_port, mode=mode)
        self.addCleanup(listener.close)
        return listener

    def assert_is_asked(self, listener: Listener) -> None:
        """Assert that who connects to the path is this listener's."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_TIMEOUT)
            listener.settimeout(_TIMEOUT)
            client.connect(self.path)
            accepted, _ = listener.accept()
            accepted.close()

    def assert_refuses(self, code: int) -> str:
        with self.assertRaises(OSError) as caught:
            listen(f"unix:{self.path}", 0)
        self.assertEqual(caught.exception.errno, code)
        return str(caught.exception)


class Paths(ListenersTestCase):
    """``unix:PATH``."""

    def test_permissions(self) -> None:
        """User and group may connect, and nobody else, whatever the umask says."""
        for mask in (0o000, 0o077, 0o777):
            before = os.umask(mask)
            try:
                listener = self.listen()
            finally:
                os.umask(before)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o660)
            self.assert_is_asked(listener)
            listener.close()
        self.listen(mode=0o600)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_address(self) -> None:
        """The address names the path."""
        self.assertEqual(self.listen().address, (f"unix:{self.path}", 0))
        self.assertEqual(address_text(f"unix:{self.path}", 0), f"unix:{self.path}")
        self.assertEqual(address_text("::1", 80), "[::1]:80")

    def test_removed_at_the_end(self) -> None:
        """Closing removes the path; again it does nothing."""
        listener = self.listen()
        listener.close()
        self.assertEqual(os.listdir(self.directory), [])
        second = self.listen()
        listener.close()
        self.assert_is_asked(second)

    def test_relative_path(self) -> None:
        """A relative path is removed, too, though the directory was changed meanwhile."""
        before = os.getcwd()
        os.chdir(self.directory)
        try:
            listener = self.listen("unix:socket")
        finally:
            os.chdir(before)
        self.assert_is_asked(listener)
        listener.close()
        self.assertEqual(os.listdir(self.directory), [])

    def test_stale_socket(self) -> None:
        """A socket that a dead process has left is replaced."""
        for left in (self.path, self.path + "~"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
                stale.bind(left)
            listener = self.listen()
            self.assert_is_asked(listener)
            listener.close()

    def test_live_socket(self) -> None:
        """A socket that somebody listens on stays, even if its queue is full."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as live, contextlib.ExitStack() as clients:
            live.bind(self.path)
            live.listen(0)
            self.assert_refuses(errno.EADDRINUSE)
            for _ in range(4):
                client = clients.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    client.connect(self.path)
            self.assert_refuses(errno.EADDRINUSE)
            self.assertTrue(os.path.exists(self.path))

    def test_other_files(self) -> None:
        """A file that is no socket is left alone, behind a link, too; also by a successor."""
        with open(self.path, "w", encoding="ascii") as file:
            file.write("precious")
        self.assertIn("no socket", self.assert_refuses(errno.EEXIST))
        with self.assertRaises(OSError):
            listen(f"unix:{self.path}", 0, reuse_port=True)
        os.rename(self.path, self.path + ".file")
        os.symlink(self.path + ".file", self.path)
        self.assert_refuses(errno.EEXIST)
        os.unlink(self.path)
        os.rename(self.path + ".file", self.path + "~")
        self.assert_refuses(errno.EADDRINUSE)  # what the path is made of first
        with open(self.path + "~", encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    def test_no_directory(self) -> None:
        """A directory that is not there is an error, and leaves nothing."""
        with self.assertRaises(FileNotFoundError):
            listen(f"unix:{self.path}/socket", 0)

    def test_two_at_once(self) -> None:
        """Who finds somebody else at work in the directory gives up: neither removes the other's socket."""
        directory = os.open(self.directory, os.O_RDONLY)
        self.addCleanup(os.close, directory)
        fcntl.flock(directory, fcntl.LOCK_EX)
        self.assert_refuses(errno.EWOULDBLOCK)

    def test_successor(self) -> None:
        """A successor takes the path's place; the predecessor does not remove it, and keeps its queue."""
        first = self.listen(reuse_port=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(self.path)
            second = self.listen(reuse_port=True)
            self.assert_is_asked(second)
            self.assertEqual(first.withdraw(), 0.0)
            first.accept()[0].close()
            first.close()
        self.assert_is_asked(second)

    def test_forked_child(self) -> None:
        """Only the process that made the path removes it; a copy that is closed leaves it, too."""
        listener = self.listen()
        with mock.patch("os.getpid", return_value=1):
            listener.dup().close()
            listener.close_copy()
            listener.remove_path()
        self.assertTrue(os.path.exists(self.path))

    def test_removed_while_others_go_on(self) -> None:
        """The path can go while a copy is still served."""
        listener = self.listen()
        listener.close_copy()
        self.assertTrue(os.path.exists(self.path))
        listener.remove_path()
        self.assertFalse(os.path.exists(self.path))


class HandOver(ListenersTestCase):
    """Several processes at one TCP port."""

    def test_alone(self) -> None:
        """Without SO_REUSEPORT nobody is held back."""
        self.assertEqual(self.listen("127.0.0.1").withdraw(), 0.0)

    @unittest.skipUnless(sys.platform.startswith("linux"), "a socket filter of Linux")
    def test_newcomers_are_the_others(self) -> None:
        """After one has withdrawn, all that connect are the other's; those in the queue are still its own."""
        first = self.listen("127.0.0.1", reuse_port=True)
        clients = [socket.create_connection(first.address) for _ in range(8)]
        address = first.address
        second = listen(*address, reuse_port=True)
        self.addCleanup(second.close)
        self.assertGreater(first.withdraw(), 0.0)
        failures: list[OSError] = []

        def connect() -> None:
            try:
                clients.append(socket.create_connection(address, timeout=_TIMEOUT))
            except OSError as exc:
                failures.append(exc)

        threads = [threading.Thread(target=connect) for _ in range(16)]
        for thread in threads:
            thread.start()
        first.settimeout(_TIMEOUT)
        for _ in range(8):
            first.accept()[0].close()
        first.setblocking(False)
        self.assertRaises(BlockingIOError, first.accept)  # the first half of the clients, and no more
        first.close()
        second.settimeout(_TIMEOUT)
        for _ in range(16):
            second.accept()[0].close()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
        self.assertEqual(failures, [])

    def test_filter_is_not_to_be_had(self) -> None:
        """Where the kernel takes no filter, nobody is waited for."""
        listener = self.listen("127.0.0.1", reuse_port=True)
        with mock.patch("wsproxy.net.listeners._SO_ATTACH_FILTER", 0x7FFF):
            self.assertEqual(listener.withdraw(), 0.0)
        with mock.patch("sys.platform", "darwin"):
            self.assertEqual(listener.withdraw(), 0.0)


class Inherited(ListenersTestCase):
    """``fd:NUMBER``."""

    def test_listening_socket(self) -> None:
        """A listening socket of any family is taken as it is, and closing it leaves its path."""
        for made in (self.listen(), self.listen("127.0.0.1")):
            descriptor = os.dup(made.fileno())
            os.set_inheritable(descriptor, True)
            listener = self.listen(f"fd:{descriptor}")
            self.assertTrue(listener.inherited)
            self.assertFalse(listener.get_inheritable())
            self.assertEqual(listener.family, made.family)
            self.assertTrue(listener.address[0].startswith(("unix:/", "127.0.0.1")))
            listener.close()
        self.assertTrue(os.path.exists(self.path))

    def test_others(self) -> None:
        """A socket that does not listen, datagrams, a file and nothing at all are refused, and left."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as idle,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        ):
            datagrams.bind(self.path)
            for descriptor in (idle.fileno(), datagrams.fileno(), reader, 999_999):
                with self.subTest(descriptor=descriptor):
                    with self.assertRaises(OSError) as caught:
                        listen(f"fd:{descriptor}", 0)
                    self.assertIn(f"descriptor {descriptor}", str(caught.exception))
            self.assertEqual(idle.type, socket.SOCK_STREAM)  # still open
