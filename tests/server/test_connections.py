"""The live connections of a server, and their end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from unittest import mock

from wsproxy.server.connections import Registry
from wsproxy.testing.case import LeakTestCase

WAIT = 60.0


class ConnectionStub:
    """Notes the calls that it gets. The test sets its reaction."""

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
        """The registry counts connections that were added and not removed. Removing twice does nothing."""
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
        """``stop`` tells all connections to stop, waits for none, and lets no more be added."""
        connection = self.connection()
        self.registry.stop()
        self.registry.stop()
        self.assertEqual(connection.told, ["stop", "stop"])
        self.assertFalse(self.registry.add(ConnectionStub()))
        self.assertEqual(len(self.registry), 1)

    def test_good_order(self) -> None:
        """Connections that end when they are told to stop are not aborted."""
        connections = [self.connection() for _ in range(5)]
        for connection in connections:
            connection.on_stop = lambda connection=connection: self.registry.remove(connection)  # type: ignore[misc]
        self.assertEqual(self.registry.stop_all(WAIT), 0)
        self.assertEqual([connection.told for connection in connections], [["stop"]] * 5)

    def test_ends_in_another_thread(self) -> None:
        """``stop_all`` returns when the last connection has ended, long before its timeout."""
        connection = self.connection()
        thread = threading.Thread(target=lambda: self.registry.remove(connection))
        connection.on_stop = thread.start
        self.assertEqual(self.registry.stop_all(1000), 0)
        thread.join()

    def test_shut_down(self) -> None:
        """``stop_all`` aborts only the connections that do not end in time."""
        good, slow = self.connection(), self.connection()
        good.on_stop = lambda: self.registry.remove(good)
        slow.on_abort = lambda: self.registry.remove(slow)
        self.assertEqual(self.registry.stop_all(0), 0)
        self.assertEqual((good.told, slow.told), (["stop"], ["stop", "abort"]))

    def test_what_is_left(self) -> None:
        """If a connection does not end after its abort, ``stop_all`` counts it."""
        stuck = self.connection()
        with mock.patch("wsproxy.server.connections._ABORT_SECONDS", 0.01):
            self.assertEqual(self.registry.stop_all(0), 1)
        self.assertEqual(stuck.told, ["stop", "abort"])

    def test_takes_nothing_in_once_stopping(self) -> None:
        """From the first moment of the stop on, no connection is added."""
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
        """The registry calls connections without its lock, so that they may use the registry."""
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
