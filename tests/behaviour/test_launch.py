"""The program as a service manager starts it: at a path, on a passed socket, with somebody to be told."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import tempfile

from tests.behaviour.test_drain import DrainTestCase
from tests.support.proxy_process import ProxyProcess
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 60.0
# Gives its standard input to the program as systemd does: LISTEN_PID can only be known by the process itself.
_ACTIVATE = """
import os, sys
os.dup2(0, 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[1])
os.execv(sys.executable, [sys.executable, "-m", "wsproxy"])
"""


class LaunchTestCase(DrainTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix="wsproxy-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.path = os.path.join(directory.name, "socket")

    def program(self, **settings: str) -> ProxyProcess:
        proxy = ProxyProcess(self.api, **settings)
        self.addCleanup(proxy.close)
        return proxy

    def activated(self, sock: socket.socket, count: str = "1", **settings: str) -> ProxyProcess:
        """Start the program with a passed socket.

        :param count: how many it is told that there are.
        """
        proxy = ProxyProcess(self.api, ("-c", _ACTIVATE, count), sock.fileno(), **settings)
        self.addCleanup(proxy.close)
        return proxy


class Paths(LaunchTestCase):
    """``--listen unix:PATH``."""

    def test_serves(self) -> None:
        """Clients are served at the path, which goes with the program; the log calls them unix."""
        for workers in ("1", "2"):
            with self.subTest(workers=workers):
                proxy = self.program(WSPROXY_LISTEN=f"unix:{self.path}", WSPROXY_WORKERS=workers)
                self.assertEqual(proxy.address, (f"unix:{self.path}", 0))
                self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o660)
                client = self.opened(proxy.address)
                self.assert_goes_on(client)
                client.close()
                self.assertEqual(proxy.stop(), 0)
                self.assertEqual(os.listdir(self.directory), [])
                self.assertRegex(proxy.output, rb"opened: client unix user ")
                self.assertNotRegex(proxy.output, rb"ERROR|WARNING")

    def test_trusted_proxy(self) -> None:
        """A proxy at the path is believed only if it is said to be."""
        header = "X-Forwarded-For: 192.0.2.7"
        for trusted, named in (("unix", rb"client 192\.0\.2\.7 via unix user "), ("", rb"client unix user ")):
            proxy = self.program(WSPROXY_LISTEN=f"unix:{self.path}", WSPROXY_TRUSTED_PROXIES=trusted)
            client = self.session(proxy.address, header)
            self.assertEqual(client.status, 101)
            client.close()
            proxy.stop()
            self.assertRegex(proxy.output, named)

    def test_live_socket(self) -> None:
        """A second program does not take a live one's place, unless it is to."""
        first = self.program(WSPROXY_LISTEN=f"unix:{self.path}")
        with self.assertRaisesRegex(RuntimeError, f"cannot listen on unix:{self.path}: "):
            self.program(WSPROXY_LISTEN=f"unix:{self.path}")
        client = self.opened(first.address)
        second = self.program(WSPROXY_LISTEN=f"unix:{self.path}", WSPROXY_REUSE_PORT="true")
        first.process.send_signal(signal.SIGTERM)
        self.assert_restarts(client)
        self.assertEqual(first.stop(), 0)
        client = self.opened(second.address)
        self.assert_goes_on(client)
        client.close()

    def test_killed(self) -> None:
        """What a killed program has left is replaced."""
        self.program(WSPROXY_LISTEN=f"unix:{self.path}").stop(signal.SIGKILL)
        self.assertEqual(os.listdir(self.directory), ["socket"])
        client = self.opened(self.program(WSPROXY_LISTEN=f"unix:{self.path}").address)
        self.assert_goes_on(client)
        client.close()


class Activation(LaunchTestCase):
    """A socket that systemd passes."""

    def listening(self) -> socket.socket:
        sock = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(sock.close)
        return sock

    def test_serves(self) -> None:
        """Clients of the socket are served; those who come while none serves them wait for the next."""
        sock = self.listening()
        for workers in ("1", "2"):
            early = self.connect(sock.getsockname())
            proxy = self.activated(sock, WSPROXY_WORKERS=workers)
            self.assertEqual(proxy.address, sock.getsockname())
            self.ask(early)
            self.assertEqual(early.status, 101)
            proxy.process.send_signal(signal.SIGTERM)
            self.assert_restarts(early)
            self.assertEqual(proxy.process.wait(_TIMEOUT), 0)
            proxy.stop()
            self.assertNotRegex(proxy.output, rb"ERROR|WARNING")
        self.connect(sock.getsockname())  # not refused

    def test_faults(self) -> None:
        """Several sockets, and one beside a setting, are faults that say what to do."""
        sock = self.listening()
        with self.assertRaisesRegex(RuntimeError, "leave one ListenStream="):
            self.activated(sock, "2")
        with self.assertRaisesRegex(RuntimeError, "WSPROXY_LISTEN is set, but systemd passes a socket"):
            self.activated(sock, WSPROXY_LISTEN=f"unix:{self.path}")

    def test_no_listening_socket(self) -> None:
        """A descriptor that does not listen is refused with one sentence."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        with self.assertRaisesRegex(RuntimeError, "cannot listen on fd:3: .*Accept=no") as caught:
            self.activated(sock)
        self.assertNotIn("Traceback", str(caught.exception))


class Notifications(LaunchTestCase):
    """A service manager that is told."""

    def test_life(self) -> None:
        """It learns that the program is ready, reloads, is ready again, and stops, in this order."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind(self.path)
        manager.settimeout(_TIMEOUT)
        for workers in ("1", "2"):
            with self.subTest(workers=workers):
                proxy = self.program(NOTIFY_SOCKET=self.path, WSPROXY_WORKERS=workers)
                self.assertEqual(manager.recv(4096), b"READY=1")
                with RawClient(proxy.address) as client:  # it serves by now
                    client.send_raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                    client.read_head()
                proxy.process.send_signal(signal.SIGHUP)
                self.assertTrue(re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(4096)))
                self.assertEqual(manager.recv(4096), b"READY=1")
                self.assertEqual(proxy.stop(), 0)
                self.assertEqual(manager.recv(4096), b"STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000")
                self.assertNotIn(b"WARNING", proxy.output)


class Hangup(LaunchTestCase):
    """SIGHUP in programs that embed the proxy."""

    def test_own_handler(self) -> None:
        """A program's own handler for SIGHUP stays, and the proxy does not reload."""
        program = (
            "import signal, sys\n"
            "from wsproxy.cli import program\n"
            "signal.signal(signal.SIGHUP, lambda *arguments: print('ours', file=sys.stderr, flush=True))\n"
            "sys.exit(program.main([]))\n"
        )
        proxy = ProxyProcess(self.api, ("-c", program))
        self.addCleanup(proxy.close)
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for(b"ours\n")
        client = self.opened(proxy.address)
        self.assert_goes_on(client)
        client.close()
        self.assertEqual(proxy.stop(), 0)
        self.assertNotIn(b"read again", proxy.output)
