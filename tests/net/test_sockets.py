"""Waking and tuning of sockets."""

from __future__ import annotations

import socket

from tests.support.transports import TransportCase
from wsproxy.net.sockets import tune, wake


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
