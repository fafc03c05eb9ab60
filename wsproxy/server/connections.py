"""The live connections of one server, and the way in which all of them end."""

from __future__ import annotations

import threading
from logging import Logger
from typing import Protocol

from ..runtime.deadline import Deadline
from ..runtime.threads import ThreadPool
from .gateway import Gateway

__all__ = ["Connection", "Registry", "stop_serving"]

_ABORT_SECONDS = 1.0
_JOIN_SECONDS = 1.0


class Connection(Protocol):
    """One client's connection, in any phase."""

    def stop(self) -> None:
        """Make the connection end soon and in order. Any thread, never blocks, idempotent."""
        ...

    def abort(self) -> None:
        """Shut the connection's sockets down. Any thread, never blocks, idempotent."""
        ...


class Registry:
    """Holds each connection from before its thread starts until it is closed. Safe from every thread."""

    def __init__(self) -> None:
        # Guards the attributes below. No thread holds it while it calls a connection.
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()
        self._stopping = self._draining_over = False

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: Connection) -> bool:
        """Add a connection. If :meth:`stop` has been called, return False and do not add it."""
        with self._changed:
            if not self._stopping:
                self._connections.add(connection)
            return not self._stopping

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended. Idempotent."""
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def drain(self, timeout: float) -> None:
        """Wait until every connection has ended by itself. Blocks for at most ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._draining_over or not self._connections, timeout)

    def stop_draining(self) -> None:
        """Make :meth:`drain` return at once, also in later calls. Does not block. Idempotent."""
        with self._changed:
            self._draining_over = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Tell every connection to stop, and add no more connections. Does not block; idempotent."""
        with self._changed:
            self._stopping = True
            connections = list(self._connections)
        for connection in connections:
            connection.stop()

    def stop_all(self, timeout: float) -> int:
        """Tell every connection to stop, and abort those that have not ended within ``timeout`` seconds.

        Blocks for at most a second longer than that. Adds no more connections.

        :returns: how many connections are left even then. Each of them is a bug.
        """
        self.stop()
        self._wait_until_empty(Deadline(timeout))
        with self._changed:
            connections = list(self._connections)
        for connection in connections:
            connection.abort()
        self._wait_until_empty(Deadline(_ABORT_SECONDS))
        return len(self)

    def _wait_until_empty(self, deadline: Deadline) -> None:
        with self._changed:
            while self._connections:
                try:
                    self._changed.wait(deadline.remaining())
                except TimeoutError:
                    return


def stop_serving(
    registry: Registry, gateway: Gateway, logger: Logger, timeout: float | None, pool: ThreadPool | None
) -> None:
    """End every connection, and then every thread. Idempotent.

    Blocks for at most ``timeout`` and a few seconds. One thread at a time, and never one of the server's own.

    :param timeout: seconds in which connections may end; None for the close timeout and one second.
    :param pool: the connections' threads; None if they belong to a WSGI server.
    """
    gateway.stop_resolving()
    if left := registry.stop_all(gateway.config.close_timeout + 1 if timeout is None else timeout):
        logger.error("%d connections did not end", left)
    if pool:
        pool.stop(_JOIN_SECONDS)
    gateway.stop()
