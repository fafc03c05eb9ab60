"""What is done to sockets as such: waiting with a deadline, waking, tuning, connecting.

This is the only module that touches ``poll``.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from ..exceptions import TransportClosed
from ..runtime.deadline import Deadline
from ..runtime.forks import in_forked_child

__all__ = [
    "READABLE",
    "WRITABLE",
    "AcceptTurns",
    "Address",
    "closed_on_error",
    "connect_tcp",
    "readable_by",
    "reset_on_close",
    "tune",
    "wait",
    "wake",
]

Address = tuple[socket.AddressFamily, Any]
"""An address family and the socket address that belongs to it."""

READABLE, WRITABLE = select.POLLIN, select.POLLOUT
_NO_LINGER = struct.pack("ii", 1, 0)  # struct linger


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


def connect_tcp(
    addresses: Sequence[Address], deadline: Deadline, on_socket: Callable[[socket.socket], None]
) -> socket.socket:
    """Connect to the first address that answers and return the tuned socket.

    Blocks until the deadline, which the addresses share: each but the last gets half of what is left.

    :param on_socket: told of each socket before it connects, so that another thread can shut it down.
    :raises TimeoutError: if the deadline passes.
    :raises TransportClosed: if no address answers; the text is the last address's error.
    """
    for index, (family, address) in enumerate(addresses):
        last = index == len(addresses) - 1
        part = deadline if last else Deadline(deadline.remaining() / 2)
        sock = None
        try:
            with closed_on_error():  # the resolver may name a family that the kernel was built without
                sock = in_forked_child(socket.socket(family, socket.SOCK_STREAM), socket.socket.close)
            on_socket(sock)
            _connect(sock, address, part)
            tune(sock)
            return sock
        except BaseException as exc:
            if sock:
                sock.close()
            if last or not isinstance(exc, (TimeoutError, TransportClosed)):
                raise
    raise TransportClosed("the name has no address")


def _connect(sock: socket.socket, address: Any, deadline: Deadline) -> None:
    with closed_on_error():
        sock.settimeout(deadline.remaining())
        sock.connect(address)
        # One whose connect was shut down by another thread reports no error, and is not connected.
        sock.getpeername()
