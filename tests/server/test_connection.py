"""One client's connection: its phases. Each of them can be ended, and leaves nothing."""

from __future__ import annotations

import socket
import threading
import unittest
from unittest import mock

from wsproxy.config import Config
from wsproxy.protocol.client import Peer
from wsproxy.protocol.handshake import Upgrade
from wsproxy.runtime.deadline import Deadline
from wsproxy.server.connection import ClientConnection
from wsproxy.server.exchange import Exchange
from wsproxy.server.gateway import Gateway
from wsproxy.server.refusal import Refuser
from wsproxy.testing.case import SECRET, LeakTestCase, ProxyTestCase
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 60.0
_HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class BeforeASession(LeakTestCase):
    """A connection over a socket pair, served in a thread of the test."""

    def setUp(self) -> None:
        super().setUp()
        config = Config(
            remote_url="ws://127.0.0.1:9", local_dev_mode=True, secret_key=SECRET, request_timeout=5.0
        )
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(_TIMEOUT)
        self.ours = ours
        self.gateway = Gateway(config)
        self.exchange = Exchange(
            self.gateway, Refuser("auto"), ClientConnection(self.gateway, ours, Peer.at("192.0.2.1", 1234))
        )
        self.thread = threading.Thread(target=self.exchange.run)
        self.addCleanup(ours.close)
        self.addCleanup(self.peer.close)

    def assert_closed(self) -> bytes:
        """Assert that the connection ends and its socket is closed; return what the client got."""
        received = b""
        while part := self.peer.recv(65536):
            received += part
        self.peer.close()
        self.thread.join(_TIMEOUT)
        self.assertFalse(self.thread.is_alive())
        self.assertEqual(self.ours.fileno(), -1)
        return received

    def test_stop_while_the_request_is_received(self) -> None:
        """A request that the proxy has received, and not parsed yet, is answered after a stop."""
        receive = self.exchange.client.transport.recv_sparingly

        def receive_and_stop(most: int, deadline: Deadline) -> bytes:
            received = receive(most, deadline)
            self.exchange.stop()
            return received

        self.peer.sendall(_HEALTHZ)
        with mock.patch.object(self.exchange.client.transport, "recv_sparingly", receive_and_stop):
            self.thread.start()
            self.assertEqual(self.peer.recv(65536).partition(b"\r\n")[0], b"HTTP/1.1 200 OK")
            self.peer.shutdown(socket.SHUT_WR)
            self.assert_closed()

    def test_endpoint(self) -> None:
        """A request for an endpoint is answered and the connection closed, once the client has it."""
        self.thread.start()
        self.peer.sendall(_HEALTHZ)
        self.peer.shutdown(socket.SHUT_WR)
        self.assertTrue(self.assert_closed().endswith(b"\r\n\r\nok\n"))

    def test_no_second_request(self) -> None:
        """The proxy drops bytes that come behind a request that it has answered."""
        self.thread.start()
        self.peer.sendall(_HEALTHZ * 2)
        self.peer.shutdown(socket.SHUT_WR)
        self.assertEqual(self.assert_closed().count(b"HTTP/1.1"), 1)

    def test_stop_while_the_head_is_read(self) -> None:
        """A client that has begun its request has a second left after a stop, and then gets no answer."""
        self.gateway.housekeeping.start(self)
        self.addCleanup(self.gateway.housekeeping.stop)
        self.thread.start()
        self.peer.sendall(b"GET /")
        with mock.patch("wsproxy.server.connection.LAST_WORD_SECONDS", 0.01):
            self.exchange.stop()
            self.exchange.stop()
        self.assertEqual(self.assert_closed(), b"")

    def test_stop_before_the_head_is_read(self) -> None:
        """A request that came before the stop is answered, even if the proxy has not read it yet."""
        self.peer.sendall(_HEALTHZ)
        self.peer.shutdown(socket.SHUT_WR)
        self.exchange.stop()
        self.thread.start()
        self.assertTrue(self.assert_closed().endswith(b"\r\n\r\nok\n"))

    def test_new_session_when_nobody_is_admitted(self) -> None:
        """While the server drains, each upgrade request gets 503 with Retry-After, with or without token."""
        self.gateway.admits = False
        self.thread.start()
        self.peer.sendall(
            b"GET /token/vm HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        self.peer.shutdown(socket.SHUT_WR)
        answer = self.assert_closed()
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
        self.assertIn(b"\r\nRetry-After: 5\r\n", answer)
        self.assertIn(b'"reason": "draining"', answer)

    def test_stop_before_the_start(self) -> None:
        """A stop that is faster than the thread ends it as well."""
        self.exchange.stop()
        self.thread.start()
        self.assertEqual(self.assert_closed(), b"")

    def test_abort_after_the_end(self) -> None:
        """A connection that is over can be stopped and aborted without harm."""
        self.thread.start()
        self.peer.shutdown(socket.SHUT_WR)
        self.assert_closed()
        self.exchange.stop()
        self.exchange.abort()

    def test_bug(self) -> None:
        """A bug of the proxy's is logged with its traceback; the client gets 500, and the connection ends."""
        with (
            mock.patch("wsproxy.web.endpoints.answer", side_effect=ZeroDivisionError("a bug of ours")),
            self.assertLogs("wsproxy.connection", "ERROR") as logs,
        ):
            self.thread.start()
            self.peer.sendall(_HEALTHZ)
            self.peer.shutdown(socket.SHUT_WR)
            self.assertTrue(self.assert_closed().startswith(b"HTTP/1.1 500 "))
        self.assertIn("ZeroDivisionError", logs.output[0])
        self.assertIn("Traceback", logs.output[0])
        self.assertIn(self.exchange.session.id, logs.output[0])

    def test_bug_while_an_answer_is_sent(self) -> None:
        """After a bug in the middle of an answer, the client gets nothing more."""
        with (
            mock.patch.object(self.exchange.client.transport, "send", side_effect=ZeroDivisionError),
            self.assertLogs("wsproxy.connection", "ERROR"),
        ):
            self.thread.start()
            self.peer.sendall(_HEALTHZ)
            self.assertEqual(self.assert_closed(), b"")

    def test_refusal_is_one_line(self) -> None:
        """A refusal is one line at INFO, with the client's address, the status and the slug."""
        with self.assertLogs("wsproxy.connection", "INFO") as logs:
            self.thread.start()
            self.peer.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            self.peer.shutdown(socket.SHUT_WR)
            self.assert_closed()
        self.assertEqual(len(logs.output), 1)
        self.assertRegex(
            logs.output[0],
            rf"connection {self.exchange.session.id} refused: client 192\.0\.2\.1:1234: 404 not-found: ",
        )


class InASession(ProxyTestCase):
    """Failures around the 101."""

    def test_client_leaves_during_the_dial(self) -> None:
        """If a client leaves while its console is being opened, nothing is left, here or at the API."""
        self.api.behaviour = Behaviour(hang=True)
        proxy = self.start_proxy(dial_timeout=5)
        with RawClient(proxy.address) as client:
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
            self.api.wait_for_requests(1)
            client.reset()
        proxy.stop_thread()
        self.assertTrue(self.api.wait_until_idle())

    def test_client_is_gone_at_the_101(self) -> None:
        """If a client has left before the 101, there is no session, and the console is released."""
        vmi = self.api.add_vmi("vm", self.namespace)
        proxy = self.start_proxy()
        client = RawClient(proxy.address)
        self.addCleanup(client.close)

        def accept(upgrade: object, subprotocol: str | None) -> bytes:
            client.reset()
            return b"x" * 10_000_000

        with (
            mock.patch("wsproxy.protocol.handshake.Upgrade.accept", accept),
            self.assertNoLogs("wsproxy", "ERROR"),
        ):
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
            console = vmi.wait_for_session()
            self.assertTrue(console.ended.wait(_TIMEOUT))

    def test_second_thread_cannot_start(self) -> None:
        """If a session's second thread cannot start, it ends, is logged, and releases the console."""

        def flood(console: FakeConsole) -> None:
            while True:
                console.send_frame(BINARY, bytes(65536))

        vmi = self.api.add_vmi("vm", self.namespace, backend=Script(flood))
        proxy = self.start_proxy()
        with (
            mock.patch(
                "wsproxy.server.session.start_thread", side_effect=RuntimeError("can't start new thread")
            ),
            self.assertLogs("wsproxy", "INFO") as logs,
        ):
            client = RawClient.open(self.url(proxy, "vm"))
            self.addCleanup(client.close)
            self.assertEqual(client.status, 101)
            with self.assertRaises(ConnectionError):  # neither side reads: both pumps are stuck in sending
                while True:
                    client.send_frame(BINARY, bytes(65536))
            self.assertTrue(vmi.wait_for_session().ended.wait(_TIMEOUT))
            proxy.stop_thread()
        self.assertIn("can't start new thread", "\n".join(logs.output))

    def test_stop_between_dial_and_relay(self) -> None:
        """A session that is told to stop right before its relay starts still ends by a Close."""

        def wait(console: FakeConsole) -> None:
            while True:
                console.recv_frame()

        self.api.add_vmi("vm", self.namespace, backend=Script(wait))
        proxy = self.start_proxy()
        stopper = threading.Thread(target=proxy.stop_thread)
        server = proxy._server
        assert server is not None
        accept = Upgrade.accept

        def slow(upgrade: Upgrade, subprotocol: str | None) -> bytes:
            stopper.start()
            deadline, pause = Deadline(_TIMEOUT), threading.Event()
            while not server._registry._stopping:
                pause.wait(min(0.005, deadline.remaining()))
            for connection in list(server._registry._connections):
                connection.stop()  # as the registry does in this very moment
            return accept(upgrade, subprotocol)

        with mock.patch("wsproxy.protocol.handshake.Upgrade.accept", slow):
            client = RawClient.open(self.url(proxy, "vm"))
            self.addCleanup(client.close)
        self.assertEqual(client.recv_close(), (1012, "restarting"))
        client.send_close(1012)
        stopper.join(_TIMEOUT)
        self.assertTrue(client.wait_for_end())


def _idle(console: FakeConsole) -> None:
    console.recv_frame()


class Authenticated(ProxyTestCase):
    """Clients that have authenticated take none of the places for pending clients."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_proxy(max_pending=8)

    def assert_answers(self) -> None:
        with RawClient(self.proxy.address) as client:
            client.send_raw(_HEALTHZ)
            client.read_head()
            self.assertEqual(client.status, 200)

    def test_sessions_are_not_pending(self) -> None:
        """More sessions than may be pending are open at once, from one address."""
        for number in range(20):
            self.api.add_vmi(f"vm-{number}", self.namespace, backend=Script(_idle))
            client = RawClient.open(self.url(self.proxy, f"vm-{number}"))
            self.addCleanup(client.close)
            self.assertEqual(client.status, 101)
        self.assert_answers()

    def test_dial_is_not_pending(self) -> None:
        """A client that waits for the API, which has a deadline of its own, has authenticated."""
        self.api.add_vmi("vm", self.namespace)
        self.api.behaviour = Behaviour(hang=True)
        request = RawClient.request(f"/{self.token('vm')}/vm", [])
        for number in range(1, 21):
            client = RawClient(self.proxy.address)
            self.addCleanup(client.close)
            client.send_raw(request)
            self.api.wait_for_requests(number)
        self.assert_answers()


if __name__ == "__main__":
    unittest.main()
