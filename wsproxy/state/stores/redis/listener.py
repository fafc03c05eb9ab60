"""Listens for a member's news on a connection of its own."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from ....runtime.deadline import Deadline
from ....runtime.forks import in_forked_child
from .finders import LINK_ERRORS
from .link import RedisConnection, RedisLink

__all__ = ["RedisListener"]

_SECONDS = 1.0
_PING_SECONDS = 10.0  # of silence, after which it asks whether the connection is still there


class RedisListener:
    """One subscription. One thread at a time listens; any thread may close it.

    :param member: whose news it is for.
    """

    def __init__(self, link: RedisLink, member: str) -> None:
        self._link = link
        self._channels = (f"{link.common}news", f"{link.common}news:{member}")
        self._begin()
        in_forked_child(self, RedisListener._begin)

    def _begin(self) -> None:
        self._waiting = threading.Lock()  # held by who waits, and guards the three below
        self._connection: RedisConnection | None = None
        self._heard_at = 0.0
        self._asked = False

    @property
    def is_subscribed(self) -> bool:
        """Whether it hears of all that is new from now on."""
        return self._connection is not None

    def subscribe(self) -> None:
        """Connect. Blocks for a second at most.

        :raises LINK_ERRORS: if that is not possible.
        """
        connection, deadline = self._link.new(), Deadline(_SECONDS)
        try:
            connection.open(deadline)
            connection.send(deadline, "SUBSCRIBE", *self._channels)
            for _ in self._channels:
                connection.read()
        except BaseException:
            connection.close()
            raise
        with self._waiting:
            self._connection, self._heard_at, self._asked = connection, time.monotonic(), False

    def wait(self, seconds: float) -> bool:
        """Wait for news; return whether there is any. Blocks that long.

        After an error it is not subscribed any more.

        :raises LINK_ERRORS: if the connection is broken, or :meth:`close` was called.
        """
        with self._waiting:
            connection = self._connection
            if connection is None:
                return True
            try:
                return self._wait(connection, time.monotonic() + seconds)
            except LINK_ERRORS:
                self._close()
                raise

    def _wait(self, connection: RedisConnection, until: float) -> bool:
        self._check(connection)
        while (left := until - time.monotonic()) > 0:
            if connection.has_answer(left) and self._drain(connection):
                return True
        return False

    def _check(self, connection: RedisConnection) -> None:
        """Ask whether the connection is still there, if it has been silent."""
        silent = time.monotonic() - self._heard_at
        if silent > 2 * _PING_SECONDS and self._asked:
            raise OSError("silent")
        if silent > _PING_SECONDS and not self._asked:
            connection.send(Deadline(_SECONDS), "PING")
            self._asked = True

    def _drain(self, connection: RedisConnection) -> bool:
        """Read all that is there; return whether any of it is news."""
        news = False
        while connection.has_answer(0):
            news = connection.read()[0] == b"message" or news
        self._heard_at, self._asked = time.monotonic(), False
        return news

    def close(self) -> None:
        """Close the connection, or have the thread that waits do so. Does not block. Idempotent."""
        if self._waiting.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._waiting.release()
        elif connection := self._connection:
            connection.interrupt()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(*LINK_ERRORS):
                connection.close()
