"""Listening sockets: paths, handing over, and descriptors that are inherited."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import sys
import tempfile
import threading
import unittest
from unittest import mock

from wsproxy.exceptions import ConfigError
from wsproxy.net.listeners import Listener, address_text, listen
from wsproxy.testing.case import LeakTestCase
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI

_TIMEOUT = 60.0


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
        """Only user and group may connect, whatever the umask is."""
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
        """A live socket is not replaced, even if its backlog is full."""
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
        """A file that is not a socket is never replaced, not by a successor either, nor behind a link."""
        with open(self.path, "w", encoding="ascii") as file:
            file.write("precious")
        self.assertIn("not a socket", self.assert_refuses(errno.EEXIST))
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
        """A process that finds the directory locked gives up, so that neither removes the other's socket."""
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
        """Without SO_REUSEPORT no SYN is dropped."""
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
        """If the kernel takes no filter, the caller waits for no clients."""
        listener = self.listen("127.0.0.1", reuse_port=True)
        with mock.patch("wsproxy.net.listeners._SO_ATTACH_FILTER", 0x7FFF):
            self.assertEqual(listener.withdraw(), 0.0)
        with mock.patch("sys.platform", "darwin"):
            self.assertEqual(listener.withdraw(), 0.0)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


class Everywhere(ListenersTestCase):
    """Every address that there is: "::", and no host at all."""

    def assert_is_reached(self, listener: Listener, host: str) -> None:
        port = listener.getsockname()[1]
        with socket.create_connection((host, port), timeout=_TIMEOUT):
            listener.settimeout(_TIMEOUT)
            listener.accept()[0].close()

    @unittest.skipUnless(has_ipv6(), "this machine has no IPv6")
    def test_both_families(self) -> None:
        """Clients come by IPv4 and by IPv6; one address of a family is that one."""
        for host in ("::", "", None):
            listener = listen(host, 0)
            self.addCleanup(listener.close)
            self.assertEqual(listener.address[0], "::")
            for client in ("127.0.0.1", "::1"):
                with self.subTest(host=host, client=client):
                    self.assert_is_reached(listener, client)
        self.assertEqual(self.listen("0.0.0.0").address[0], "0.0.0.0")
        self.assertTrue(self.listen("::1").getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))

    def test_no_ipv6(self) -> None:
        """Where the system has no IPv6, that leaves IPv4."""
        real = Listener.__init__

        def without_ipv6(sock: Listener, family: int = -1, *more: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            real(sock, family, *more)

        def without_addresses(sock: Listener, address: tuple[str, ...]) -> None:
            if ":" in address[0]:
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            socket.socket.bind(sock, address)

        for name, replaced in (("__init__", without_ipv6), ("bind", without_addresses)):
            with self.subTest(name), mock.patch.object(Listener, name, replaced):
                listener = listen("::", 0)
                self.addCleanup(listener.close)
                self.assertEqual(listener.address[0], "0.0.0.0")
                self.assert_is_reached(listener, "127.0.0.1")
                with self.assertRaises(OSError):
                    listen("::1", 0)  # an address that was meant is not replaced

    def test_taken(self) -> None:
        """Only a lack of IPv6 leads to IPv4; if another program has the port, that is an error."""
        for family, host in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
            if family == socket.AF_INET or has_ipv6():
                with socket.create_server((host, 0), family=family) as taken:
                    port = taken.getsockname()[1]
                    with self.subTest(host), self.assertRaises(OSError) as caught:
                        listen("::", port)
                    self.assertEqual(caught.exception.errno, errno.EADDRINUSE)
                    self.assertIn(f"cannot listen on [::]:{port}: ", str(caught.exception))


class Errors(ListenersTestCase):
    """Errors say which address it is that cannot be listened on."""

    def assert_tells(self, host: str, port: int, where: str) -> OSError:
        with self.assertRaises(OSError) as caught:
            listen(host, port)
        self.assertRegex(caught.exception.strerror or "", rf"\Acannot listen on {re.escape(where)}: .")
        return caught.exception

    def test_taken(self) -> None:
        """A port that is taken, by IPv4 or IPv6."""
        for host in ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",):
            port = self.listen(host).getsockname()[1]
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            self.assertEqual(self.assert_tells(host, port, where).errno, errno.EADDRINUSE)

    def test_paths(self) -> None:
        """A path that is taken, and one that cannot be made; the kind of error stays."""
        self.listen()
        self.assertEqual(
            self.assert_tells(f"unix:{self.path}", 0, f"unix:{self.path}").errno, errno.EADDRINUSE
        )
        missing = f"unix:{self.directory}/missing/socket"
        self.assertIsInstance(self.assert_tells(missing, 0, missing), FileNotFoundError)

    def test_others(self) -> None:
        """A foreign address, names that lead nowhere or are none, and descriptors."""
        self.assertEqual(self.assert_tells("192.0.2.1", 80, "192.0.2.1:80").errno, errno.EADDRNOTAVAIL)
        failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with mock.patch("socket.getaddrinfo", side_effect=failure):
            self.assertIsInstance(self.assert_tells("nowhere", 80, "nowhere:80"), socket.gaierror)
        self.assert_tells(64 * "a", 80, f"{64 * 'a'}:80")
        self.assert_tells("fd:999999", 0, "fd:999999")

    def test_no_such_port(self) -> None:
        """A port that does not exist is refused, and none is made of it."""
        for port in (70000, 65536, -1):
            with self.subTest(port=port), self.assertRaisesRegex(ConfigError, f"^port is {port}; "):
                listen("127.0.0.1", port)

    def test_double_of_the_api(self) -> None:
        """The stand-in for the API says it in the same way."""
        port = self.listen("127.0.0.1").getsockname()[1]
        with self.assertRaisesRegex(OSError, f"cannot listen on 127.0.0.1:{port}: "):
            FakeKubeVirtAPI(port=port).start()
        with self.assertRaisesRegex(ConfigError, "^port is 70000; "):
            FakeKubeVirtAPI(port=70000).start()


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
