"""Requests that were given up: how long they count, and when their connections are closed."""

from __future__ import annotations

import socket
import unittest
from unittest import mock

from tests.support.proxy_process import wait_until
from wsproxy.net.transport import PlainTransport
from wsproxy.runtime.timers import Housekeeping
from wsproxy.testing.case import LeakTestCase
from wsproxy.upstream import given_up
from wsproxy.upstream.given_up import GivenUpDials


class GivenUpDialsTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.housekeeping = Housekeeping(lambda: self.now)
        self.dials = GivenUpDials(self.housekeeping, lambda: self.now)
        self.addCleanup(self.dials.stop)
        self.over: list[str] = []

    def give_up(self, name: str) -> tuple[PlainTransport, socket.socket]:
        """Give a connection up, and return both ends."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        self.addCleanup(far.close)
        transport = PlainTransport(near)
        self.dials.add(transport, lambda: self.over.append(name))
        return transport, far

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.dials.tick(self.now)

    def test_api_closes(self) -> None:
        """It counts until the API has closed the connection, and one look longer."""
        transport, far = self.give_up("a")
        self.assertEqual(far.recv(1), b"")  # it has been told
        for _ in range(3):
            self.tick()
        self.assertEqual((self.over, len(self.dials), len(self.housekeeping)), ([], 1, 1))
        far.close()
        self.assertTrue(wait_until(transport.peer_has_closed))
        self.tick()
        self.assertEqual(self.over, [])
        self.tick()
        self.assertEqual((self.over, len(self.dials), len(self.housekeeping)), (["a"], 0, 0))
        self.assertEqual(transport._sock.fileno(), -1)

    def test_api_answers(self) -> None:
        """A late answer resets the connection, which ends the request, too."""
        transport, far = self.give_up("a")
        far.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        self.assertTrue(wait_until(transport.peer_has_closed))
        self.tick()
        self.tick()
        self.assertEqual(self.over, ["a"])

    def test_time(self) -> None:
        """It counts for 90 s at most."""
        self.give_up("a")
        self.tick(89)
        self.assertEqual(self.over, [])
        self.tick()
        self.assertEqual(self.over, ["a"])

    def test_bounded(self) -> None:
        """If there are too many, the oldest connections are closed, but still count, up to another bound."""
        with mock.patch.multiple(given_up, _MOST_KEPT=2, _MOST_TIMED=2):
            transports = [self.give_up(str(number))[0] for number in range(5)]
            self.assertEqual([one._sock.fileno() < 0 for one in transports], [True, True, True, False, False])
            self.assertEqual((self.over, len(self.dials)), (["0"], 4))
            self.tick(90)
            self.assertCountEqual(self.over, "01234")
            self.assertEqual(len(self.dials), 0)

    def test_stop(self) -> None:
        """A stop closes all connections, and each one that is added later."""
        first, _ = self.give_up("a")
        self.dials.stop()
        second, _ = self.give_up("b")
        self.assertEqual(self.over, ["a", "b"])
        self.assertEqual([one._sock.fileno() for one in (first, second)], [-1, -1])


if __name__ == "__main__":
    unittest.main()
