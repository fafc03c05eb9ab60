"""Connecting to servers that have several addresses, some of which do not answer."""

from __future__ import annotations

import socket
import threading
import time
import unittest
from typing import Any, cast
from unittest import mock

from tests.support.transports import WAIT, TransportCase, ignore, in_thread
from wsproxy.exceptions import TransportClosed
from wsproxy.net.connecting import Connected, Connector, connect
from wsproxy.net.resolver import Resolver
from wsproxy.net.sockets import Address, wake
from wsproxy.net.tls import accept_tls
from wsproxy.net.tls_context import ClientTLS, server_context
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.kubevirt.certificates import CertificateAuthority

_SOON = 40.0  # seconds; less than the deadline
"""Seconds that no answer takes that is not waited for in vain."""


class ConnectingTestCase(TransportCase):
    """Has addresses that answer, refuse, or do neither."""

    def listener(self, backlog: int = 5) -> tuple[Address, socket.socket]:
        sock = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.addCleanup(sock.close)
        return (socket.AF_INET, sock.getsockname()), sock

    def nobody(self) -> Address:
        """Return an address where nobody listens: the port is bound and stays ours."""
        sock = socket.socket()
        self.addCleanup(sock.close)
        sock.bind(("127.0.0.1", 0))
        return socket.AF_INET, sock.getsockname()

    def full(self) -> Address:
        """Return an address whose backlog is full, so that a connect to it hangs."""
        address, _ = self.listener(backlog=0)
        for _ in range(3):
            sock = socket.socket()
            self.addCleanup(sock.close)
            sock.setblocking(False)
            sock.connect_ex(address[1])
        return address

    def connect(self, *addresses: Address, seconds: float = WAIT) -> socket.socket:
        transport = connect(addresses, Deadline(seconds), ignore).transport
        self.addCleanup(transport.close)
        return transport._sock


class Addresses(ConnectingTestCase):
    """What becomes of each kind of address."""

    def test_connects(self) -> None:
        """The socket is connected and tuned, and was shown before."""
        address, _ = self.listener()
        shown: list[socket.socket] = []
        transport = connect([address], Deadline(WAIT), shown.append).transport
        self.addCleanup(transport.close)
        sock = transport._sock
        self.assertEqual(shown, [sock])
        self.assertEqual(sock.getpeername(), address[1])
        self.assertTrue(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertTrue(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def test_second_address(self) -> None:
        """If the first address refuses, the second is tried."""
        address, _ = self.listener()
        self.assertEqual(self.connect(self.nobody(), address).getpeername(), address[1])

    def test_family_that_the_system_lacks(self) -> None:
        """An address of a family that the kernel lacks does not keep the next from being tried."""
        address, _ = self.listener()
        lacking = cast(Any, 4095), ("::1", 443)
        self.assertEqual(self.connect(lacking, address).getpeername(), address[1])
        self.assertRaises(TransportClosed, self.connect, lacking)

    def test_refused(self) -> None:
        """If all refuse, their error is told, once."""
        with self.assertRaises(TransportClosed) as caught:
            self.connect(self.nobody(), self.nobody())
        self.assertEqual(str(caught.exception).count("refused"), 1)
        self.assertIsInstance(caught.exception.__cause__, ConnectionRefusedError)

    def test_no_address(self) -> None:
        """A name without an address is told."""
        with self.assertRaises(TransportClosed) as caught:
            self.connect()
        self.assertIn("no address", str(caught.exception))

    def test_deadline(self) -> None:
        """An address that does not answer is given up at the deadline."""
        self.assertRaises(TimeoutError, self.connect, self.full(), seconds=0.05)
        self.assertRaises(TimeoutError, self.connect, self.listener()[0], self.nobody(), seconds=0)

    def test_deadline_is_shared(self) -> None:
        """An address that does not answer leaves half of the time to the next."""
        address, _ = self.listener()
        with mock.patch("wsproxy.net.connecting._ATTEMPT_DELAY", 60.0):
            self.assertEqual(self.connect(self.full(), address, seconds=4).getpeername(), address[1])

    def test_woken(self) -> None:
        """A connect that hangs is ended by another thread that shuts the socket down."""
        shown = threading.Event()
        sockets: list[socket.socket] = []

        def on_socket(sock: socket.socket) -> None:
            sockets.append(sock)
            shown.set()

        address = self.full()
        join = in_thread(lambda: connect([address], Deadline(WAIT), on_socket))
        self.assertTrue(shown.wait(WAIT))
        waker = threading.Thread(target=self.wake_until, args=(sockets[0],))
        waker.start()
        self.assertRaises(TransportClosed, join)
        waker.join()

    def wake_until(self, sock: socket.socket) -> None:
        """Wake a socket until it is closed: a connect that has not begun yet cannot be woken."""
        while sock.fileno() >= 0:
            wake(sock)

    def test_on_socket_refuses(self) -> None:
        """If whoever is shown the socket raises, it is closed and the error goes through."""
        address, _ = self.listener()

        def stop(sock: socket.socket) -> None:
            raise RuntimeError("stop")

        for addresses in ([address], [address, address]):
            self.assertRaises(RuntimeError, connect, addresses, Deadline(WAIT), stop)

    def test_dead_address(self) -> None:
        """An address that does not answer costs a quarter of a second."""
        address, _ = self.listener()
        started = time.monotonic()
        found = connect([self.full(), self.full(), address], Deadline(WAIT), ignore)
        self.addCleanup(found.transport.close)
        self.assertEqual(found.address, address)
        self.assertEqual(len(found.slower), 2)
        self.assertLess(time.monotonic() - started, _SOON)

    def test_slow_address(self) -> None:
        """An address that answers at last, while others do not, still counts."""
        slow, listener = self.listener(backlog=0)
        full = [socket.create_connection(slow[1])]
        with mock.patch("wsproxy.net.connecting._ATTEMPT_DELAY", 0.01):
            found = in_thread(lambda: connect([slow, self.nobody(), self.full()], Deadline(WAIT), ignore))
            for sock in full:
                sock.close()
            listener.accept()[0].close()
        connected = cast(Connected, found())
        self.addCleanup(connected.transport.close)
        self.assertEqual((connected.address, connected.slower), (slow, ()))

    def test_woken_in_a_race(self) -> None:
        """A race is ended by another thread that shuts down what was shown, whichever attempts there are."""
        shown: list[socket.socket] = []
        seen = threading.Event()

        def on_socket(sock: socket.socket) -> None:
            shown.append(sock)
            seen.set()

        addresses = [self.full(), self.full(), self.full()]
        with mock.patch("wsproxy.net.connecting._ATTEMPT_DELAY", 0.01):
            join = in_thread(lambda: connect(addresses, Deadline(WAIT), on_socket))
            self.assertTrue(seen.wait(WAIT))
            wake(shown[0])
            self.assertRaises(TransportClosed, join)
        self.assertEqual(len(shown), 1)

    def test_winner_is_shown(self) -> None:
        """What has won a race is shown; whoever refuses it, or ends the race late, ends the connection."""
        address, _ = self.listener()
        shown: list[socket.socket] = []
        found = connect([self.nobody(), address], Deadline(WAIT), shown.append)
        self.addCleanup(found.transport.close)
        self.assertIs(shown[-1], found.transport._sock)

        def late(sock: socket.socket) -> None:
            if shown:
                wake(shown.pop())
            else:
                shown.append(sock)

        shown.clear()
        self.assertRaises(TransportClosed, connect, [self.nobody(), address], Deadline(WAIT), late)

        def refuse(sock: socket.socket) -> None:
            shown.append(sock)
            if len(shown) == 2:
                raise RuntimeError("stop")

        shown.clear()
        self.assertRaises(RuntimeError, connect, [self.nobody(), address], Deadline(WAIT), refuse)
        self.assertEqual([sock.fileno() for sock in shown], [-1, -1])

    def test_failures_of_all(self) -> None:
        """When the deadline passes, it is told why others failed before."""
        with self.assertRaisesRegex(TimeoutError, "refused"):
            connect([self.nobody(), self.full()], Deadline(1), ignore)


class Secured(ConnectingTestCase):
    """With TLS an address has answered when the handshake is done."""

    def setUp(self) -> None:
        super().setUp()
        self.tls = ClientTLS({"ca_certs": self.authority.ca_file})

    def server(self, certificate: tuple[str, str] | None = None) -> Address:
        """Return an address that does one handshake."""
        address, listener = self.listener()
        context = server_context(*(certificate or self.certificate))

        def serve() -> None:
            sock = listener.accept()[0]
            self.addCleanup(sock.close)
            try:
                self.addCleanup(accept_tls(sock, context, Deadline(WAIT)).close)
            except TransportClosed:
                sock.close()

        self.addCleanup(in_thread(serve))
        return address

    def secured(self, *addresses: Address) -> Connected:
        found = connect(addresses, Deadline(WAIT), ignore, "127.0.0.1", self.tls)
        self.addCleanup(found.transport.close)
        return found

    def test_frozen_address(self) -> None:
        """An address the kernel of which answers, and nobody else, costs a quarter of a second."""
        frozen, _ = self.listener()
        started = time.monotonic()
        good = self.server()
        self.assertEqual(self.secured(frozen, good)[1:], (good, (frozen,)))
        self.assertLess(time.monotonic() - started, _SOON)

    def test_foreign_certificate(self) -> None:
        """An address that shows a certificate that is not trusted is passed over, and is told of."""
        other = CertificateAuthority(self.directory).issue()
        good = self.server()
        self.assertEqual(self.secured(self.server(other), good).address, good)
        with self.assertRaisesRegex(TransportClosed, r"verify failed.*; .*refused"):
            self.secured(self.server(other), self.nobody())

    def test_files_that_cannot_be_read(self) -> None:
        """A CA file that is missing is no matter of addresses."""
        self.tls = ClientTLS({"ca_certs": "/nonexistent"})
        self.assertRaises(FileNotFoundError, self.secured, self.listener()[0], self.nobody())


class Remembered(ConnectingTestCase):
    """What a connector knows of a server's addresses."""

    def connector(self, *addresses: Address) -> Connector:
        self.now = 0.0
        resolver = Resolver(lambda host, port: addresses)
        self.addCleanup(resolver.stop)
        return Connector("api.example", 443, resolver, None, clock=lambda: self.now)

    def connected(self, connector: Connector) -> Connected:
        found = connector.connect(Deadline(WAIT), ignore)
        found.transport.close()
        return found

    def test_dead_address(self) -> None:
        """An address that did not answer is tried after the others, for a minute."""
        dead, (good, _) = self.full(), self.listener()
        connector = self.connector(dead, good)
        self.assertEqual(self.connected(connector)[1:], (good, (dead,)))
        self.assertEqual(self.connected(connector)[1:], (good, ()))
        self.now = 59.0
        self.assertEqual(self.connected(connector)[1:], (good, ()))
        self.now = 61.0
        self.assertEqual(self.connected(connector)[1:], (good, (dead,)))

    def test_all_are_dead(self) -> None:
        """When all have failed each is tried all the same; the one that answers is in its turn again."""
        good, other = self.nobody(), self.listener()[0]
        connector = self.connector(good, other)
        connector.note_silent(good, other)
        self.assertEqual(self.connected(connector).address, other)
        self.assertEqual(self.connected(connector)[1:], (other, ()))

    def test_silent_after_it_connected(self) -> None:
        """An address that takes a request and does not answer is tried after the others, too."""
        one, two = self.listener()[0], self.listener()[0]
        connector = self.connector(one, two)
        self.assertEqual(self.connected(connector).address, one)
        connector.note_silent(one)
        self.assertEqual(self.connected(connector).address, two)

    def test_families_take_turns(self) -> None:
        """Many dead addresses of one family do not delay the other one (RFC 8305 section 4)."""

        def address(family: int, host: str) -> Address:
            return socket.AddressFamily(family), (host, 443)

        six = [address(socket.AF_INET6, f"2001:db8::{number}") for number in range(3)]
        four = [address(socket.AF_INET, f"192.0.2.{number}") for number in range(2)]
        connector = self.connector()
        self.assertEqual(connector._ordered([*six, *four]), [six[0], four[0], six[1], four[1], six[2]])
        connector.note_silent(*six)
        self.assertEqual(connector._ordered([*six, *four]), [*four, *six])

    def test_addresses_that_are_gone(self) -> None:
        """Nothing is remembered of addresses that the name has no more."""
        good = self.listener()[0]
        connector = self.connector(good)
        connector.note_silent(self.nobody())
        self.connected(connector)
        self.assertEqual(connector._silent, {})


if __name__ == "__main__":
    unittest.main()
