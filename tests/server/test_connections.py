"""The live connections of a server, and their end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from unittest import mock

from wsproxy.server.connections import Registry
from wsproxy.testing.case import LeakTestCase

WAIT = 10.0


class ConnectionStub:
    """Notes what it is told; what it does about it is set by the test."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.on_stop: Callable[[], None] = lambda: None
        self.on_abort: Callable[[], None] = lambda: None

    def stop(self) -> None:
        self.told.append("stop")
        self.on_stop()

    def abort(self) -> None:
        self.told.append("abort")
        self.on_abort()


class RegistryTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.registry = Registry()

    def connection(self) -> ConnectionStub:
        connection = ConnectionStub()
        self.assertTrue(self.registry.add(connection))
        return connection

    def test_counts(self) -> None:
        """It counts what has been added and not been removed; removing twice does nothing."""
        one, two = self.connection(), self.connection()
        self.assertEqual(len(self.registry), 2)
        self.registry.remove(one)
        self.registry.remove(one)
        self.assertEqual(len(self.registry), 1)
        self.registry.remove(two)
        self.assertEqual(len(self.registry), 0)

    def test_stop_of_none(self) -> None:
        """With no connection there is nothing to wait for."""
        self.assertEqual(self.registry.stop_all(WAIT), 0)

    def test_stop_without_waiting(self) -> None:
        """All may be told to stop without waiting for them; nothing is taken in any more."""
        connection = self.connection()
        self.registry.stop()
        self.registry.stop()
        self.assertEqual(connection.told, ["stop", "stop"])
        self.assertFalse(self.registry.add(ConnectionStub()))
        self.assertEqual(len(self.registry), 1)

    def test_good_order(self) -> None:
        """Connections that end when they are told to are not shut down."""
        connections = [self.connection() for _ in range(5)]
        for connection in connections:
            connection.on_stop = lambda connection=connection: self.registry.remove(connection)  # type: ignore[misc]
        self.assertEqual(self.registry.stop_all(WAIT), 0)
        self.assertEqual([connection.told for connection in connections], [["stop"]] * 5)

    def test_ends_in_another_thread(self) -> None:
        """It returns as soon as the last connection is gone, long before its timeout."""
        connection = self.connection()
        thread = threading.Thread(target=lambda: self.registry.remove(connection))
        connection.on_stop = thread.start
        self.assertEqual(self.registry.stop_all(1000), 0)
        thread.join()

    def test_shut_down(self) -> None:
        """Connections that do not end in time are shut down, and only they."""
        good, slow = self.connection(), self.connection()
        good.on_stop = lambda: self.registry.remove(good)
        slow.on_abort = lambda: self.registry.remove(slow)
        self.assertEqual(self.registry.stop_all(0), 0)
        self.assertEqual((good.told, slow.told), (["stop"], ["stop", "abort"]))

    def test_what_is_left(self) -> None:
        """A connection that does not even end when shut down is counted."""
        stuck = self.connection()
        with mock.patch("wsproxy.server.connections._ABORT_SECONDS", 0.01):
            self.assertEqual(self.registry.stop_all(0), 1)
        self.assertEqual(stuck.told, ["stop", "abort"])

    def test_takes_nothing_in_once_stopping(self) -> None:
        """From the first moment of the stop on no connection is taken in."""
        connection = self.connection()
        late = ConnectionStub()
        taken: list[bool] = []

        def on_stop() -> None:
            taken.append(self.registry.add(late))
            self.registry.remove(connection)

        connection.on_stop = on_stop
        self.assertEqual(self.registry.stop_all(WAIT), 0)
        self.assertEqual(taken, [False])
        self.assertFalse(self.registry.add(late))
        self.assertEqual((len(self.registry), late.told), (0, []))

    def test_called_without_the_lock(self) -> None:
        """Connections are called outside the lock, so that they may ask and remove."""
        connection = self.connection()
        seen: list[int] = []

        def on_stop() -> None:
            asker = threading.Thread(target=lambda: seen.append(self.registry.add(ConnectionStub())))
            asker.start()
            asker.join(WAIT)
            self.registry.remove(connection)

        connection.on_stop = on_stop
        self.registry.stop_all(WAIT)
        self.assertEqual(seen, [False])
