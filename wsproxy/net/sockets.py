"""What is done to sockets as such: waiting with a deadline, waking, tuning.

This is the only module that touches ``poll``.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import struct
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any, TypeVar

from ..exceptions import TransportClosed
from ..runtime.deadline import Deadline

__all__ = [
    "GONE",
    "OUT_OF_RESOURCES",
    "READABLE",
    "WRITABLE",
    "AcceptTurns",
    "Address",
    "Steps",
    "closed_on_error",
    "has_hung_up",
    "readable_by",
    "reset_on_close",
    "take",
    "tune",
    "wait",
    "wait_any",
    "wake",
    "why_not_accepted",
]

Address = tuple[socket.AddressFamily, Any]
"""An address family and the socket address that belongs to it."""

OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Why a client cannot be accepted now, and stays in the queue."""

GONE = (BlockingIOError, ConnectionAbortedError)
"""What accepting raises if the client has left the queue; after anything else it would be asked for again."""

READABLE, WRITABLE = select.POLLIN, select.POLLOUT
_HUNG_UP = getattr(select, "POLLRDHUP", 0)
_NO_LINGER = struct.pack("ii", 1, 0)  # struct linger

T = TypeVar("T")

Steps = Generator[tuple[int, int], None, T]
"""Something that never blocks. It yields for which descriptor, and which event of it, it has to wait."""


def why_not_accepted(exc: OSError) -> str:
    """Return what a log says of an error of accepting, with the remedy if there is one."""
    return f"{exc}; raise the limit on open files" if exc.errno in OUT_OF_RESOURCES else str(exc)


def wait(fd: int, event: int, deadline: Deadline | None) -> None:
    """Block until ``fd`` is ready for ``event``, or is broken.

    :raises TimeoutError: if the deadline passes first.
    """
    poller = select.poll()
    poller.register(fd, event)
    if deadline is None:
        poller.poll()
    else:
        while not poller.poll(max(1, int(deadline.remaining() * 1000))):
            pass


def wait_any(events: Mapping[int, int], seconds: float) -> list[int]:
    """Block until one of several descriptors is ready, or broken; return which are. None is after that time.

    :param events: what to wait for, by descriptor.
    """
    poller = select.poll()
    for fd, event in events.items():
        poller.register(fd, event)
    return [fd for fd, _ in poller.poll(math.ceil(seconds * 1000))]


def readable_by(sock: socket.socket, deadline: Deadline) -> bool:
    """Return whether there is something to receive, or accept. Blocks until there is, or the deadline."""
    try:
        wait(sock.fileno(), READABLE, deadline)
    except TimeoutError:
        return _is_readable(sock)
    return True


def _is_readable(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, READABLE)
    return bool(poller.poll(0))


def has_hung_up(sock: socket.socket, *, both_ways: bool = False) -> bool:
    """Whether the peer has ended its direction, or the connection is broken, or closed. Never blocks.

    Where the system cannot tell without reading, it is not seen behind bytes that wait to be received.

    :param both_ways: whether a peer that may still receive does not count.
    """
    descriptor = sock.fileno()
    if descriptor < 0:
        return True
    poller = select.poll()
    poller.register(descriptor, 0 if both_ways else _HUNG_UP)  # what is broken is always told
    if (told := bool(poller.poll(0))) or both_ways or _HUNG_UP:
        return told
    try:
        return not socket.socket.recv(sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


class AcceptTurns:
    """Waits for clients of a listening socket, in turn with other processes.

    Linux wakes one process for each client: the one that has waited longest, since each goes to the end
    of the queue whenever it waits. One that kept its place would get nearly all of them. Elsewhere every
    client wakes all processes, and whoever is first has it.

    :param listener: the listening socket, non-blocking.
    :param woken: ends a :meth:`wait` when it can be read.
    :param shared: whether there are other processes.
    """

    def __init__(self, listener: socket.socket, woken: socket.socket, shared: bool) -> None:
        self._listener = listener
        self._queue: Any = None
        if shared and hasattr(select, "EPOLLEXCLUSIVE"):
            self._queue = select.epoll()
            self._queue.register(woken, select.EPOLLIN)
        else:
            self._poll = select.poll()
            for sock in (listener, woken):
                self._poll.register(sock, READABLE)

    def wait(self) -> None:
        """Block until there may be a client to accept, or ``woken`` can be read. Accept one at most, then."""
        if self._queue is None:
            self._poll.poll()
            return
        self._queue.register(self._listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        try:
            self._queue.poll()
        finally:
            self._queue.unregister(self._listener)

    def __enter__(self) -> AcceptTurns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._queue is not None:
            self._queue.close()


class closed_on_error:
    """``with`` it, every error of a broken socket or TLS layer is :class:`TransportClosed`.

    A class, because a generator as a context manager costs three times as much, several times per session.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, TimeoutError) and exc.errno is None:  # a deadline of ours, not ETIMEDOUT
            return
        if isinstance(exc, (OSError, ValueError)):  # ValueError: the socket is closed already
            raise TransportClosed(str(exc)) from exc


def take(steps: Steps[T], deadline: Deadline) -> T:
    """Take steps to their end, and return what they do. Blocks until the deadline, while they have to wait.

    :raises TimeoutError: if the deadline passes.
    """
    try:
        while True:
            fd, event = next(steps)
            with closed_on_error():
                wait(fd, event, deadline)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()


def wake(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Shut a socket down, which wakes every call blocked on it. Any thread; idempotent.

    :param how: both directions, or one of them.

    ``socket.socket.shutdown`` also for TLS: ``SSLSocket.shutdown`` would take the TLS layer off and a
    later read would return ciphertext as data.
    """
    try:
        socket.socket.shutdown(sock, how)
    except OSError:
        pass  # not connected any more


def reset_on_close(sock: socket.socket) -> None:
    """Have the kernel keep nothing of a connection when its socket is closed. Any thread; never raises."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    except OSError:
        pass  # closed already; or macOS, and the peer has gone


def tune(sock: socket.socket) -> None:
    """Switch TCP_NODELAY and TCP keepalive on; a socket that is not TCP is left alone."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError:
        pass  # macOS: the peer has gone already, as its reader will find
