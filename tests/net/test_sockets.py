"""Waking and tuning of sockets."""

from __future__ import annotations

import socket

from tests.support.transports import TransportCase
from wsproxy.net.sockets import bound_waits, tune, wake


class SocketsTest(TransportCase):
    def test_tune_of_other_sockets(self) -> None:
        """A socket other than TCP is not changed."""
        one, _ = self.sockets()
        tune(one)

    def test_wake_of_other_sockets(self) -> None:
        """Waking a socket that is not connected, or closed, does nothing."""
        with socket.socket() as sock:
            wake(sock)
        wake(sock)

    def test_bound_waits(self) -> None:
        """A wait is never longer than wanted, and at most 5 % shorter. A timeout that fits stays."""
        one, _ = self.sockets()
        for seconds, timeout in ((1.0, 0.98), (0.99, 0.98), (1.03, 0.98), (0.97, 0.98 * 0.97), (9.0, 8.82)):
            bound_waits(one, seconds)
            self.assertAlmostEqual(one.gettimeout() or 0.0, timeout)
        one.settimeout(None)
        bound_waits(one, 2.0)
        self.assertAlmostEqual(one.gettimeout() or 0.0, 1.96)
