"""Waiting, waking, tuning and connecting of sockets."""

from __future__ import annotations

import socket
import threading
from typing import Any, cast

from tests.support.transports import WAIT, TransportCase, ignore, in_thread
from wsproxy.exceptions import TransportClosed
from wsproxy.net.sockets import Address, connect_tcp, tune, wake
from wsproxy.runtime.deadline import Deadline


class ConnectTCPTest(TransportCase):
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

    def connect(self, *addresses: Address, seconds: float = WAIT) -> socket.socket:
        sock = connect_tcp(addresses, Deadline(seconds), ignore)
        self.addCleanup(sock.close)
        return sock

    def test_connects(self) -> None:
        """The socket is connected and tuned, and was shown before."""
        address, _ = self.listener()
        shown: list[socket.socket] = []
        sock = connect_tcp([address], Deadline(WAIT), shown.append)
        self.addCleanup(sock.close)
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
        """If all refuse, the last one's error is told."""
        with self.assertRaises(TransportClosed) as caught:
            self.connect(self.nobody(), self.nobody())
        self.assertIn("refused", str(caught.exception))

    def test_no_address(self) -> None:
        """A name without an address is told."""
        with self.assertRaises(TransportClosed) as caught:
            self.connect()
        self.assertIn("no address", str(caught.exception))

    def full(self) -> Address:
        """Return an address whose backlog is full, so that a connect to it hangs."""
        address, _ = self.listener(backlog=0)
        for _ in range(3):
            sock = socket.socket()
            self.addCleanup(sock.close)
            sock.setblocking(False)
            sock.connect_ex(address[1])
        return address

    def test_deadline(self) -> None:
        """An address that does not answer is given up at the deadline."""
        self.assertRaises(TimeoutError, self.connect, self.full(), seconds=0.05)
        self.assertRaises(TimeoutError, self.connect, self.listener()[0], self.nobody(), seconds=0)

    def test_deadline_is_shared(self) -> None:
        """An address that does not answer leaves half of the time to the next."""
        address, _ = self.listener()
        self.assertEqual(self.connect(self.full(), address, seconds=0.2).getpeername(), address[1])

    def test_woken(self) -> None:
        """A connect that hangs is ended by another thread that shuts the socket down."""
        shown = threading.Event()
        sockets: list[socket.socket] = []

        def on_socket(sock: socket.socket) -> None:
            sockets.append(sock)
            shown.set()

        address = self.full()
        join = in_thread(lambda: connect_tcp([address], Deadline(WAIT), on_socket))
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

        self.assertRaises(RuntimeError, connect_tcp, [address, address], Deadline(WAIT), stop)

    def test_tune_of_other_sockets(self) -> None:
        """A socket that is not TCP is left alone."""
        one, _ = self.sockets()
        tune(one)

    def test_wake_of_other_sockets(self) -> None:
        """Waking a socket that is not connected, or closed, does nothing."""
        with socket.socket() as sock:
            wake(sock)
        wake(sock)
