"""One connection of a process to the store's process."""

from __future__ import annotations

import socket
from typing import Any

from ....exceptions import TransportClosed
from ....net.sockets import bound_waits, has_hung_up
from ....runtime.deadline import Deadline
from ....runtime.forks import in_forked_child
from .frames import Inbox, packed, unpacked
from .peers import is_trusted, peer_process

__all__ = ["StoreConnection", "Stranger"]

_CHUNK = 65536


class Stranger(Exception):
    """Another user's process listens in the place of the store."""


class StoreConnection:
    """A connection, which one thread at a time uses. A forked child closes its copy.

    :param path: of the store's socket.
    :param group: id of a group whose processes may be the store.
    :param deadline: for the connection.
    :raises OSError: if nobody listens there.
    :raises Stranger: if somebody does who may not know the state.
    """

    def __init__(self, path: str, group: int | None, deadline: Deadline) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        try:
            self._sock.settimeout(deadline.remaining())
            self._sock.connect(path)
            peer = peer_process(self._sock)
            if not is_trusted(peer, group):
                raise Stranger(
                    f"user {peer.uid if peer else ''} listens there, who is neither this one nor root"
                )
        except BaseException:
            self._sock.close()
            raise
        in_forked_child(self, StoreConnection.close)

    def ask(self, operation: str, arguments: list[Any], deadline: Deadline) -> dict[str, Any]:
        """Send a request, and return the answer. Blocks until the deadline at most.

        After any error the connection is of no further use, because an answer may come late.

        :raises TransportClosed: if the store's process has ended.
        :raises TimeoutError: if the deadline passes.
        :raises ValueError: if the request is too long, or the answer is none.
        """
        message = packed([operation, arguments])
        try:
            bound_waits(self._sock, deadline.remaining())
            self._sock.sendall(message)
            text = self._received(deadline)
        except TimeoutError:
            raise
        except OSError as exc:
            raise TransportClosed(str(exc)) from exc
        answer = unpacked(text)
        if not isinstance(answer, dict):
            raise ValueError("its answer is none of a store")
        return answer

    def _received(self, deadline: Deadline) -> bytes:
        inbox = Inbox()
        while True:
            data = self._sock.recv(_CHUNK)
            if not data:
                raise TransportClosed("it closed the connection")
            inbox.feed(data)
            if (text := inbox.take()) is not None:
                return text
            self._sock.settimeout(deadline.remaining())

    @property
    def is_open(self) -> bool:
        """Whether the store's process has not closed it. Does not block."""
        return not has_hung_up(self._sock)

    def interrupt(self) -> None:
        """Have a request in another thread fail at once. Does not block."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # closed already

    def close(self) -> None:
        """Close it. Idempotent, does not block."""
        self._sock.close()
