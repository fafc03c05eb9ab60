"""Whether a client is still there: what counts as leaving, and who notices."""

from __future__ import annotations

import socket
import threading
import unittest
from unittest import mock

from tests.support.proxy_process import wait_until
from wsproxy.net.transport import PlainTransport
from wsproxy.relay.poller import Poller
from wsproxy.runtime.timers import Housekeeping
from wsproxy.server import presence
from wsproxy.server.presence import Presence
from wsproxy.testing.case import LeakTestCase

_WAIT = 60.0


class PresenceTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.left = threading.Event()
        self.housekeeping = Housekeeping()
        self.housekeeping.start(self)
        self.addCleanup(self.housekeeping.stop)
        self.poller: Poller | None = Poller()
        self.poller.start(self)
        self.addCleanup(self.poller.stop)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname())
            near, _ = listener.accept()
        self.transport = PlainTransport(near)
        for one in (self.peer, self.transport):
            self.addCleanup(one.close)
        patcher = mock.patch.object(presence, "_LOOK_SECONDS", 0.02)
        patcher.start()
        self.addCleanup(patcher.stop)

    def watch(self) -> Presence:
        return Presence(self.transport, self.poller, self.housekeeping, self.left.set)

    def test_leaves(self) -> None:
        """One that closes its connection has left, at once; one that is silent has not."""
        with self.watch() as watch:
            self.assertFalse(watch.look())
            self.assertFalse(self.left.is_set())
            self.peer.close()
            self.assertTrue(self.left.wait(_WAIT))
            self.assertTrue(watch.look())

    def test_has_left_before(self) -> None:
        """One that has left already is known at once, by the thread that would do something for it."""
        self.peer.close()
        self.assertTrue(wait_until(self.transport.has_left))
        with mock.patch.object(Poller, "watch", self.fail), self.watch():
            self.assertTrue(self.left.is_set())

    def test_without_poller(self) -> None:
        """The same where housekeeping has to look."""
        self.poller = None
        with self.watch():
            self.peer.close()
            self.assertTrue(self.left.wait(_WAIT))
        self.assertEqual(len(self.housekeeping), 0)

    def test_bytes_that_wait(self) -> None:
        """One that had more to say, and ended its own direction only, waits for the answer."""
        with self.watch() as watch:
            self.peer.sendall(b"early")
            self.peer.shutdown(socket.SHUT_WR)
            self.assertTrue(wait_until(self.transport.has_hung_up))
            self.assertTrue(wait_until(lambda: len(self.housekeeping) == 1))
            self.assertFalse(watch.look())
            self.assertFalse(self.left.is_set())
        self.assertEqual(len(self.housekeeping), 0)
        self.assertEqual(self.transport._sock.recv(10), b"early")  # they are still there

    def test_reset(self) -> None:
        """A connection that is broken is one that the client has left, whatever it has sent."""
        with self.watch():
            self.peer.sendall(b"early")
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.peer.close()
            self.assertTrue(self.left.wait(_WAIT))

    def test_afterwards(self) -> None:
        """Nobody is told of what happens afterwards, and the descriptor is free for another watcher."""
        with self.watch():
            pass
        with self.watch():
            pass
        assert self.poller
        self.assertEqual(self.poller._watched, {})
        self.peer.close()
        self.assertTrue(wait_until(self.transport.has_left))
        self.assertFalse(self.left.is_set())


if __name__ == "__main__":
    unittest.main()
