"""Functions for single sockets: wait with a deadline, wake, tune. Only this file uses ``select.poll``."""

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
    "PEEK",
    "READABLE",
    "WRITABLE",
    "AcceptTurns",
    "Address",
    "Steps",
    "bound_waits",
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
"""Error numbers of ``accept`` that leave the client in the backlog."""

GONE = (BlockingIOError, ConnectionAbortedError)
"""What ``accept`` raises if the client has left the backlog. After other errors the client is still there."""

PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)  # to combine two flags takes longer than the call
READABLE, WRITABLE = select.POLLIN, select.POLLOUT
_HUNG_UP = getattr(select, "POLLRDHUP", 0)
_NO_LINGER = struct.pack("ii", 1, 0)  # struct linger

T = TypeVar("T")

Steps = Generator[tuple[int, int], None, T]
"""An operation that never blocks. If it has to wait, it yields a descriptor and an event to wait for."""


def why_not_accepted(exc: OSError) -> str:
    """Return a log text for an error of ``accept``, with a remedy if there is one."""
    return f"{exc}; raise the limit on open files" if exc.errno in OUT_OF_RESOURCES else str(exc)


def wait(fd: int, event: int, deadline: Deadline | None) -> None:
    """Block until ``fd`` is ready for ``event``, or is broken; without a limit if ``deadline`` is None.

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
    """Block until one of several descriptors is ready, or broken, and return those that are.

    :param events: the events to wait for, by descriptor.
    :param seconds: how long to block at most; the list is empty then.
    """
    poller = select.poll()
    for fd, event in events.items():
        poller.register(fd, event)
    return [fd for fd, _ in poller.poll(math.ceil(seconds * 1000))]


def readable_by(sock: socket.socket, deadline: Deadline) -> bool:
    """Whether there is something to receive, or to accept. Blocks until there is, or until the deadline."""
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
    """Whether the peer has sent FIN, or the connection is broken or closed. Never blocks.

    If the system has no POLLRDHUP, a FIN behind unread bytes is not seen.

    :param both_ways: True not to count a half-closed connection, whose peer may still receive.
    """
    descriptor = sock.fileno()
    if descriptor < 0:
        return True
    poller = select.poll()
    poller.register(descriptor, 0 if both_ways else _HUNG_UP)  # poll always reports broken sockets
    if (told := bool(poller.poll(0))) or both_ways or _HUNG_UP:
        return told
    try:
        return not socket.socket.recv(sock, 1, PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


class AcceptTurns:
    """Waits for clients of a listening socket, in turn with other processes. One thread at a time.

    Linux wakes one process for each client, the first in a queue. Each process joins the end of the queue
    whenever it waits. A process that kept its place would get nearly all clients. On other systems each
    client wakes all processes, and the fastest accepts it.

    :param listener: the listening socket, non-blocking.
    :param woken: a socket that ends :meth:`wait` when it is readable.
    :param shared: whether other processes accept from the same socket.
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
        """Block until there may be a client, or ``woken`` is readable. Accept at most one client after it."""
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
    """Context manager: raises :class:`TransportClosed` for errors of a broken socket or TLS layer.

    It is used several times per session. A generator as a context manager would cost three times as much.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, TimeoutError) and exc.errno is None:  # a Deadline's, not ETIMEDOUT
            return
        if isinstance(exc, (OSError, ValueError)):  # ValueError: the socket is closed already
            raise TransportClosed(str(exc)) from exc


def take(steps: Steps[T], deadline: Deadline) -> T:
    """Run an operation to its end, and return its result. Blocks while it has to wait, until the deadline.

    :raises TimeoutError: if the deadline passes.
    :raises TransportClosed: if the connection is broken or closed.
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
    """Shut a socket down, which wakes all calls that block on it. Any thread; never blocks; idempotent.

    For TLS, too, this calls ``socket.socket.shutdown``. ``SSLSocket.shutdown`` would remove the TLS layer, so
    that a later read would return ciphertext as data.

    :param how: both directions, or one of them.
    """
    try:
        socket.socket.shutdown(sock, how)
    except OSError:
        pass  # not connected any more


def reset_on_close(sock: socket.socket) -> None:
    """Have the kernel drop unsent data and send RST when the socket is closed. Any thread; never raises."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    except OSError:
        pass  # closed already; or macOS, and the peer has disconnected


def tune(sock: socket.socket) -> None:
    """Enable TCP_NODELAY and TCP keepalive. Has no effect on sockets other than TCP. Never raises."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError:
        pass  # macOS: the peer has disconnected already, which the next read reports


def bound_waits(sock: socket.socket, seconds: float) -> None:
    """Have each call of a socket wait for so many seconds at most, or for up to 5 % less.

    It leaves a timeout that fits. A new one is a system call, which gives up the interpreter's lock.
    """
    current = sock.gettimeout()
    if current is None or not 0.95 * seconds <= current <= seconds:
        sock.settimeout(0.98 * seconds)
