"""The listening socket: addresses, the kernel's queue, and missing descriptors, threads and places."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import time
import unittest
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar
from unittest import mock

from tests.support.processes import python
from tests.support.proxy_process import wait_until
from wsproxy.config import Config
from wsproxy.net.listeners import BACKLOG, Listener, listen
from wsproxy.net.sockets import AcceptTurns
from wsproxy.relay.poller import Poller
from wsproxy.runtime.deadline import Deadline
from wsproxy.server.acceptor import ConsoleServer
from wsproxy.server.gateway import Gateway
from wsproxy.testing.case import SECRET, LeakTestCase
from wsproxy.testing.rfb.raw_client import RawClient

_HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
_TIMEOUT = 60.0


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


class ExhaustedSocket(Listener):
    """A listening socket that cannot accept for a while."""

    failures = 0
    error = errno.EMFILE
    asked = 0

    def accept(self) -> tuple[socket.socket, Any]:
        type(self).asked += 1
        if self.failures:
            self.failures -= 1
            raise OSError(self.error, os.strerror(self.error))
        return super().accept()


class ServerTestCase(LeakTestCase):
    """Makes servers without an upstream: only their HTTP endpoints answer."""

    def server(
        self, host: str | None = "127.0.0.1", *, shared: bool = False, **options: Any
    ) -> ConsoleServer:
        """Make a server that listens and does not accept yet."""
        config = Config(
            remote_url="ws://127.0.0.1:9",
            local_dev_mode=True,
            secret_key=SECRET,
            close_timeout=0.5,
            **options,
        )
        server = ConsoleServer(listen(host, 0), Gateway(config), shared=shared)
        self.addCleanup(server.stop)
        return server

    def started(self, host: str | None = "127.0.0.1", **options: Any) -> ConsoleServer:
        server = self.server(host, **options)
        server.start()
        return server

    def assert_answers(self, address: tuple[str, int]) -> None:
        with RawClient(address) as client:
            client.send_raw(_HEALTHZ)
            client.read_head()
            self.assertEqual(client.status, 200)

    def assert_empty(self, server: ConsoleServer) -> None:
        self.assertTrue(wait_until(lambda: not server.connections, _TIMEOUT))


class Addresses(ServerTestCase):
    """Addresses to listen on."""

    @unittest.skipUnless(_has_ipv6(), "this machine has no IPv6")
    def test_dual_stack(self) -> None:
        """``::`` answers on both families, and clients over IPv4 are named as such in the log."""
        server = self.started("::")
        port = server.address[1]
        self.assertEqual(server.address, ("::", port))
        self.assert_answers(("::1", port))
        self.assert_answers(("127.0.0.1", port))
        with self.assertLogs("wsproxy.connection", "INFO") as logs, RawClient(("127.0.0.1", port)) as client:
            client.send_raw(b"\0")
            client.read_head()
        self.assertIn("client 127.0.0.1:", logs.output[0])

    @unittest.skipUnless(_has_ipv6(), "this machine has no IPv6")
    def test_ipv6(self) -> None:
        """An IPv6 address answers on that family alone; a client's address has brackets in the log."""
        server = self.started("::1")
        self.assert_answers(server.address)
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", server.address[1]))
        with self.assertLogs("wsproxy.connection", "INFO") as logs, RawClient(server.address) as client:
            client.send_raw(b"\0")
            client.read_head()
        self.assertIn("client [::1]:", logs.output[0])

    def test_ipv4(self) -> None:
        """An IPv4 address answers on it."""
        server = self.started("127.0.0.1")
        self.assertEqual(server.address[0], "127.0.0.1")
        self.assert_answers(server.address)

    def test_all_of_ipv4(self) -> None:
        """``0.0.0.0`` is every IPv4 address."""
        server = self.started("0.0.0.0")
        self.assertEqual(server.address[0], "0.0.0.0")
        self.assert_answers(("127.0.0.1", server.address[1]))

    @unittest.skipUnless(_has_ipv6(), "this machine has no IPv6")
    def test_no_host(self) -> None:
        """No host, as in the original, is every address of both families."""
        for host in ("", None):
            with self.subTest(host=host):
                server = self.started(host)
                for address in ("127.0.0.1", "::1"):
                    self.assert_answers((address, server.address[1]))

    def test_name(self) -> None:
        """A name is resolved."""
        server = self.started("localhost")
        self.assertIn(server.address[0], ("127.0.0.1", "::1"))
        self.assert_answers(server.address)

    def test_port_is_taken(self) -> None:
        """If the port is in use, the server raises OSError, and leaves no socket."""
        server = self.started()
        with self.assertRaises(OSError) as caught:
            listen(*server.address)
        self.assertEqual(caught.exception.errno, errno.EADDRINUSE)

    def test_host_is_none(self) -> None:
        """If the host is not a local address, or not a name, the server raises OSError."""
        for host in ("192.0.2.1", "no such name"):
            with self.subTest(host=host), self.assertRaises(OSError):
                listen(host, 0)


class Life(ServerTestCase):
    """Start and stop."""

    def test_stop_is_idempotent(self) -> None:
        """A server may be stopped twice, and without a start."""
        self.server().stop()
        server = self.started()
        server.stop()
        server.stop()

    def test_stop_wakes_the_accept_thread(self) -> None:
        """Stopping an idle server takes no time: nothing is polled.

        One that polled as ``socketserver`` does would take half a second each time. On a busy machine a
        few of ours may, too.
        """

        def seconds_to_stop() -> float:
            server = self.started()
            self.assert_answers(server.address)
            self.assert_empty(server)
            started = time.monotonic()
            server.stop()
            return time.monotonic() - started

        self.assertTrue(any(seconds_to_stop() < 0.4 for _ in range(10)))

    def test_port_is_free_after_stop(self) -> None:
        """The port can be bound again right after a stop, connections or not."""
        server = self.started()
        with RawClient(server.address) as client:
            address = server.address
            server.stop()
            client.wait_for_end()
            again = ConsoleServer(listen(*address), Gateway(server._gateway.config))
            self.addCleanup(again.stop)
            again.start()
            self.assert_answers(address)

    def test_serves_current_thread(self) -> None:
        """A server knows its own threads, and no others."""
        server, other = self.started(), self.started()
        seen: list[bool] = []

        def answer(*arguments: object) -> bytes:
            seen.extend((server.serves_current_thread, other.serves_current_thread))
            return b"HTTP/1.1 200 OK\r\n\r\n"

        with mock.patch("wsproxy.web.endpoints.answer", answer):
            self.assert_answers(server.address)
        self.assertEqual(seen, [True, False])
        self.assertFalse(server.serves_current_thread)

    def test_connections_are_counted(self) -> None:
        """A client counts from its accept until its connection is closed."""
        server = self.started()
        with RawClient(server.address) as client:
            client.send_raw(b"GET")
            self.assertTrue(wait_until(lambda: server.connections > 0, _TIMEOUT))
            self.assertEqual(server.connections, 1)
        self.assert_empty(server)


class Queues:
    """In place of ``select.epoll``: knows which of its objects stand in the queue of a listening socket."""

    epoll = getattr(select, "epoll", None)
    waiting: ClassVar[set[Queues]] = set()

    def __init__(self) -> None:
        assert self.epoll is not None
        self._epoll = self.epoll()

    def register(self, sock: Any, events: int) -> None:
        self._epoll.register(sock, events)
        if events & select.EPOLLEXCLUSIVE:
            self.waiting.add(self)

    def unregister(self, sock: Any) -> None:
        self.waiting.discard(self)
        self._epoll.unregister(sock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


class Shared(ServerTestCase):
    """Several servers on one listening socket, as in several processes."""

    def pair(self) -> list[ConsoleServer]:
        """Start two servers on one socket."""
        first = self.server(shared=True)
        second = ConsoleServer(first._listener.dup(), self.server()._gateway, shared=True)
        self.addCleanup(second.stop)
        for server in (first, second):
            server.start()
        return [first, second]

    def hold(
        self, servers: list[ConsoleServer], count: int, ready: Callable[[], bool] = lambda: True
    ) -> list[int]:
        """Connect one client after the other, each when ``ready``; return how many each server has."""
        clients: list[RawClient] = []
        with ExitStack() as stack:
            for _ in range(count):
                self.assertTrue(wait_until(ready, _TIMEOUT))
                clients.append(stack.enter_context(RawClient(servers[0].address)))
                self.assertTrue(
                    wait_until(lambda: sum(one.connections for one in servers) >= len(clients), _TIMEOUT)
                )
            return [server.connections for server in servers]

    @unittest.skipUnless(hasattr(select, "EPOLLEXCLUSIVE"), "this system wakes all of them")
    def test_turns(self) -> None:
        """Clients that come one by one are spread evenly."""
        with mock.patch("select.epoll", Queues):
            counts = self.hold(self.pair(), 20, lambda: len(Queues.waiting) == 2)
        self.assertGreaterEqual(min(counts), 5)

    def test_elsewhere(self) -> None:
        """If the system wakes every server, exactly one serves each client."""
        with mock.patch("select.EPOLLEXCLUSIVE", create=True):
            del select.EPOLLEXCLUSIVE
            self.assertEqual(sum(self.hold(self.pair(), 20)), 20)

    def test_one_stops(self) -> None:
        """When one server stops, the other continues to serve."""
        first, second = self.pair()
        address = first.address
        first.stop()
        for _ in range(3):
            self.assert_answers(address)
        self.assertFalse(second.socket.getblocking())


class Queue(ServerTestCase):
    """Clients that are not accepted yet."""

    def test_backlog(self) -> None:
        """If hundreds of clients connect at once, the kernel queues them and refuses none."""
        server = self.server()
        self.assertGreaterEqual(BACKLOG, 1024)
        with ExitStack() as stack:
            clients = []
            deadline = Deadline(_TIMEOUT)
            for _ in range(300):
                client = stack.enter_context(socket.socket())
                client.settimeout(deadline.remaining())
                client.connect(server.address)
                clients.append(client)
            server.start()
            for client in clients:
                client.sendall(_HEALTHZ)
            for client in clients:
                self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200 "))

    def test_client_that_is_gone_before_accept(self) -> None:
        """If a client leaves before the accept, the log has no line, and the next client is served."""
        server = self.server()
        for _ in range(3):
            RawClient(server.address).reset()
            RawClient(server.address).close()
        with self.assertNoLogs("wsproxy", "WARNING"):
            server.start()
            self.assert_answers(server.address)
        self.assert_empty(server)

    def test_accept_that_finds_nobody(self) -> None:
        """If the client has left, accept() does not block the server."""
        server = self.server()
        self.replace_socket(server, failures=3, error=errno.ECONNABORTED)
        with self.assertNoLogs("wsproxy", "WARNING"):
            server.start()
            self.assert_answers(server.address)

    def replace_socket(
        self, server: ConsoleServer, failures: int, error: int = errno.EMFILE
    ) -> ExhaustedSocket:
        exhausted = ExhaustedSocket(fileno=server.socket.detach())
        exhausted.setblocking(False)
        exhausted.failures, exhausted.error = failures, error
        ExhaustedSocket.asked = 0
        server.socket = server._listener = exhausted
        return exhausted

    def test_cannot_accept(self) -> None:
        """Without a free descriptor the server pauses instead of spinning, logs that once, and continues.

        So it does after any other error that can stay: of an inherited socket that somebody shut down.
        """
        for error in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EINVAL):
            with self.subTest(error=errno.errorcode[error]):
                server = self.server()
                exhausted = self.replace_socket(server, failures=4, error=error)
                started = time.monotonic()
                with self.assertLogs("wsproxy.server", "WARNING") as logs:
                    server.start()
                    self.assert_answers(server.address)
                    self.assertGreaterEqual(time.monotonic() - started, 4 * 0.05)
                    self.assertEqual(ExhaustedSocket.asked, 5)
                    self.assertEqual(len(logs.output), 1, logs.output)
                    self.assertIn(os.strerror(error), logs.output[0])
                    exhausted.failures = 1  # and once more after it went well
                    self.assert_answers(server.address)
                    self.assertEqual(len(logs.output), 2, logs.output)

    def test_stop_during_the_pause(self) -> None:
        """A server that cannot accept can be stopped."""
        server = self.server()
        self.replace_socket(server, failures=1 << 30)
        with self.assertLogs("wsproxy.server", "ERROR"), RawClient(server.address):
            server.start()
            # It has paused once, and logged that.
            self.assertTrue(wait_until(lambda: ExhaustedSocket.asked >= 2, _TIMEOUT))
            started = time.monotonic()
            server.stop()
            self.assertLess(time.monotonic() - started, _TIMEOUT)

    def test_thread_that_cannot_start(self) -> None:
        """If no thread can be started, the server closes and logs the client, and serves the next one."""
        server = self.started()
        failure = RuntimeError("can't start new thread")
        with (
            mock.patch("wsproxy.runtime.threads.start_thread", side_effect=failure),
            self.assertLogs("wsproxy.server", "ERROR") as logs,
            RawClient(server.address) as client,
        ):
            client.wait_for_end()
        self.assertIn("can't start new thread", logs.output[0])
        self.assertIn("127.0.0.1:", logs.output[0])
        self.assertEqual(server.connections, 0)
        self.assert_answers(server.address)

    def test_threads_run_out(self) -> None:
        """If no thread can be started, the server logs that once until it can start one again."""
        server = self.started()
        for _ in range(2):
            with (
                mock.patch(
                    "wsproxy.runtime.threads.start_thread", side_effect=RuntimeError("can't start new thread")
                ),
                mock.patch("wsproxy.runtime.threads._MAX_IDLE", 0),
                self.assertLogs("wsproxy.server", "ERROR") as logs,
            ):
                for _ in range(3):
                    with RawClient(server.address) as client:
                        client.wait_for_end()
            self.assertEqual(len(logs.output), 1, logs.output)
            with mock.patch("wsproxy.runtime.threads._MAX_IDLE", 0):
                self.assert_answers(server.address)
                self.assert_empty(server)

    def test_bug_is_logged(self) -> None:
        """The server logs its own errors while accepting, and continues."""
        server = self.started()
        with (
            mock.patch("wsproxy.server.acceptor.tune", side_effect=ZeroDivisionError("a bug of ours")),
            self.assertLogs("wsproxy.server", "ERROR") as logs,
            mock.patch("sys.stderr") as stderr,
            RawClient(server.address) as client,
        ):
            client.wait_for_end()
        self.assertIn("ZeroDivisionError", logs.output[0])
        stderr.write.assert_not_called()
        self.assert_answers(server.address)
        self.assert_empty(server)

    def test_bug_after_the_admission(self) -> None:
        """If an error follows after a client was counted, it holds neither a place nor a connection."""
        server = self.started()
        with (
            mock.patch.object(server._pool, "run", side_effect=ZeroDivisionError),
            self.assertLogs("wsproxy.server", "ERROR"),
            RawClient(server.address) as client,
        ):
            client.wait_for_end()
        self.assert_empty(server)
        self.assertEqual(len(server._gateway.admission._pending), 0)

    def test_errors_that_nobody_expects(self) -> None:
        """Accepting survives errors of its wait, and SystemExit, which would end the thread."""
        server = self.server()
        waits = iter([OSError(errno.ENOSPC, "no space"), MemoryError(), SystemExit()])
        wait = AcceptTurns.wait

        def failing_wait(turns: AcceptTurns) -> None:
            for failure in waits:
                raise failure
            wait(turns)

        with (
            mock.patch.object(AcceptTurns, "wait", failing_wait),
            self.assertLogs("wsproxy.threads", "ERROR") as logs,
        ):
            server.start()
            self.assert_answers(server.address)
            server.stop()
        self.assertIn("unexpected error; accepting connections continues", logs.output[0])

    def test_health(self) -> None:
        """If a thread that all sessions need does not work, /healthz and /readyz report it."""
        server = self.started()
        vital = server._gateway.vital
        self.assertEqual(len(vital), 3 if Poller.available else 2)
        server._gateway.readiness.answered()
        for part in vital:
            with self.subTest(part=part), mock.patch.object(type(part), "is_healthy", False):
                self.assertEqual([self.status(server, path) for path in ("/healthz", "/readyz")], [503, 503])
        self.assertEqual([self.status(server, path) for path in ("/healthz", "/readyz")], [200, 200])

    def status(self, server: ConsoleServer, path: str) -> int | None:
        with RawClient(server.address) as client:
            client.send_raw(_HEALTHZ.replace(b"/healthz", path.encode()))
            client.read_head()
            return client.status


_PENDING = 8


class Admitted(ServerTestCase):
    """Slowloris / resource exhaustion: the cost of clients that have not authenticated is bounded."""

    def setUp(self) -> None:
        super().setUp()
        self.besieged = self.started(max_pending=_PENDING)

    def come(self, source: str = "127.0.0.1") -> socket.socket:
        """Connect from an address, and send nothing."""
        client = socket.create_connection(self.besieged.address, _TIMEOUT, (source, 0))
        self.addCleanup(client.close)
        return client

    def fill(self, source: str = "127.0.0.1") -> list[socket.socket]:
        """Take every place."""
        clients = [self.come(source) for _ in range(_PENDING)]
        self.assertTrue(wait_until(lambda: self.besieged.connections == _PENDING, _TIMEOUT))
        return clients

    def assert_turned_away(self) -> None:
        with self.assertRaises(ConnectionResetError):
            self.come().recv(1)

    def assert_served(self, client: socket.socket) -> None:
        client.sendall(_HEALTHZ)
        self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200 "))

    def test_slowloris_from_one_address(self) -> None:
        """An address with every place gets no more. A client of another address replaces its oldest one."""
        first, *others = self.fill()
        self.assert_turned_away()
        self.assert_served(self.come("127.0.0.2"))
        self.assertEqual(first.recv(1), b"")
        self.assertEqual(self.besieged._gateway.counters.numbers(0).turned_away, 2)
        for client in others:
            self.assert_served(client)

    def test_no_thread_and_no_byte(self) -> None:
        """If the server resets a new client, it costs no thread."""
        self.fill()
        with mock.patch("wsproxy.runtime.threads.start_thread") as start:
            for _ in range(20):
                self.assert_turned_away()
        start.assert_not_called()
        self.assertEqual(self.besieged.connections, _PENDING)

    def test_place_is_free_again(self) -> None:
        """A connection that has ended takes no place."""
        for client in self.fill():
            client.close()
        self.assert_empty(self.besieged)
        self.assert_served(self.fill()[0])

    def test_refused_is_still_pending(self) -> None:
        """A browser that is being refused still takes a place."""
        browser = RawClient.request("/no-token/vm", ["Origin: http://console.example"])
        for client in self.fill():
            client.sendall(browser)
            self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 101 "))
        self.assert_turned_away()

    def test_refusals_are_few_lines(self) -> None:
        """The server logs a bounded number of refusals in a second."""
        with (
            mock.patch("wsproxy.access.admission._LINES_A_SECOND", 3),
            mock.patch("wsproxy.access.admission._SECOND", 3600.0),
            self.assertLogs("wsproxy.connection", "INFO") as logs,
        ):
            for _ in range(10):
                client = self.come()
                client.sendall(b"\0")
                self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 400 "))
                client.close()
        self.assertEqual(len(logs.output), 3, logs.output)


_LIMITED = """
import logging, resource, sys
from wsproxy import WebsocketProxy
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
proxy = WebsocketProxy("ws://127.0.0.1:9", "/{namespace}/{vmi_name}/vnc", True, "x" * 32)
proxy.run_in_thread("127.0.0.1", 0)
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
print("port", proxy.address[1], flush=True)
sys.stdin.readline()
proxy.stop_thread()
print("cpu", sum(__import__("os").times()[:2]), flush=True)
"""


class DescriptorLimit(LeakTestCase):
    """The real limit, in a process of its own."""

    def test_more_clients_than_descriptors(self) -> None:
        """If there are more clients than descriptors, they wait, with one log line, and are served later."""
        limited = python("-c", _LIMITED, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with limited as process, ExitStack() as stack:
            assert process.stdout and process.stdin
            port = int(process.stdout.readline().split()[1])
            clients = [stack.enter_context(RawClient(("127.0.0.1", port))) for _ in range(30)]
            self.assertIn("cannot accept connections", process.stdout.readline())
            for client in clients[:25]:
                client.close()
            for client in clients[25:]:
                client.send_raw(_HEALTHZ)
                client.read_head()
                self.assertEqual(client.status, 200)
            process.stdin.write("\n")
            process.stdin.flush()
            rest = process.stdout.read()
        self.assertRegex(rest, r"\A(ERROR cannot accept connections.*\n)?cpu ")
        self.assertEqual(process.returncode, 0)


if __name__ == "__main__":
    unittest.main()
