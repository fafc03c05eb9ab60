"""The plain transport."""

from __future__ import annotations

import errno
import socket
import unittest
from unittest import mock

from tests.support import transports
from tests.support.transports import WAIT
from wsproxy.exceptions import TransportClosed
from wsproxy.net.transport import PlainTransport, Transport
from wsproxy.runtime.deadline import Deadline


class PlainTransportTest(transports.CommonTests):
    def pair(self, *, tcp: bool = False) -> tuple[Transport, Transport]:
        return self.plain_pair(tcp=tcp)

    def test_reset(self) -> None:
        """A connection that the peer resets raises TransportClosed."""
        one, two = self.pair(tcp=True)
        sock = two._sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        two.close()
        self.assertRaises(TransportClosed, one.recv, 1, Deadline(WAIT))

    def test_tcp_gives_up(self) -> None:
        """A peer that TCP has given up is a broken connection, not a deadline of ours."""
        one, _ = self.pair()
        error = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        with mock.patch.object(PlainTransport, "_try_recv", side_effect=error):
            self.assertRaises(TransportClosed, one.recv, 1, Deadline(WAIT))


if __name__ == "__main__":
    unittest.main()
