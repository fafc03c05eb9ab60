"""Byte transports over a connected socket: what they have in common, and the plain one.

One thread may receive while another sends.

Exactly one owner calls ``close()``; any thread may call ``abort()``, which wakes every blocked call.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from typing import NamedTuple

from ..exceptions import TransportClosed
from ..runtime.deadline import Deadline
from ..runtime.forks import in_forked_child
from .sockets import (
    READABLE,
    WRITABLE,
    closed_on_error,
    has_hung_up,
    reset_on_close,
    wait,
    wake,
)

__all__ = ["PlainTransport", "Traffic", "Transport"]

# Of struct tcp_info (linux/tcp.h): tcpi_last_data_sent and _recv, and, since Linux 4.1, tcpi_bytes_acked.
_TCP_INFO = struct.Struct("=44x I 4x I 64x Q")
_OPEN_STATES = (1, 4, 5)  # of tcpi_state: TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2
_MS = 0.001
_LINGER_CHUNK = 65536
_MOST_UNSENT = 128 * 1024
_SMALL_PIECE = 256
_QUICK_PIECES = 16
_PIECE_SECONDS = 0.1


class Traffic(NamedTuple):
    """What has passed through a connection, as our kernel sees it.

    :ivar taken: bytes that the peer's kernel has acknowledged.
    :ivar sent_ago: seconds since bytes were last sent.
    :ivar heard_ago: seconds since bytes last came.
    """

    taken: int
    sent_ago: float
    heard_ago: float


class Transport:
    """A connected stream socket.

    :param sock: a connected socket, which the transport owns from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = in_forked_child(sock, socket.socket.close)
        self._fd = sock.fileno()
        self._unread = memoryview(b"")
        self._broken_off = False
        self._pieces = 0  # of less than _SMALL_PIECE bytes, received by recv_sparingly

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._fd

    def recv_into(self, buffer: memoryview) -> int:
        """Receive at least one byte; return 0 at the end of the stream.

        Blocks without a limit until ``abort()``. One thread at a time.

        :raises TransportClosed: if the connection is broken.
        """
        raise NotImplementedError

    def try_recv_into(self, buffer: memoryview) -> int | None:
        """Receive what is there, 0 at the end of the stream; None if nothing is there yet. Never blocks.

        All that could be had is taken, or ``buffer`` is full, provided that it takes 16 KiB.

        :returns: -1 if something is there that only ``recv_into`` can receive, as it has to wait for room
            to send: TLS may answer the peer by itself.
        :raises TransportClosed: if the connection is broken.
        """
        raise NotImplementedError

    def sendall(self, data: memoryview | bytes) -> None:
        """Hand all of ``data`` to the kernel.

        Blocks without a limit until ``abort()``. One thread at a time, ``try_send`` included.

        :raises TransportClosed: if the connection is broken.
        """
        raise NotImplementedError

    def try_send(self, data: memoryview | bytes) -> int:
        """Hand over what fits now and return how many bytes that were. Never blocks.

        After a return below ``len(data)`` the rest, and nothing else, must be sent next.

        :raises TransportClosed: if the connection is broken.
        """
        raise NotImplementedError

    def _try_recv(self, size: int) -> bytes | None:
        """Receive what is there, b"" at the end; None if nothing is there yet."""
        raise NotImplementedError

    def recv(self, size: int, deadline: Deadline) -> bytes:
        """Receive 1 to ``size`` bytes, b"" at the end of the stream. Blocks until the deadline.

        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the connection is broken.
        """
        if self._unread:
            data, self._unread = bytes(self._unread[:size]), self._unread[size:]
            return data
        with closed_on_error():
            while (received := self._try_recv(size)) is None:
                wait(self._fd, READABLE, deadline)
            return received

    def recv_sparingly(self, size: int, deadline: Deadline) -> bytes:
        """Receive as :meth:`recv` does, but what comes in many small pieces ten times a second only.

        To be woken for every single byte by somebody who has proved nothing would cost too much.
        """
        gather = self._pieces >= _QUICK_PIECES
        if gather:
            time.sleep(min(_PIECE_SECONDS, deadline.remaining()))
        received = self.recv(size, deadline)
        with closed_on_error():
            while gather and len(received) < size and (more := self._try_recv(size - len(received))):
                received += more  # TLS gives out one record for each call
        self._pieces += len(received) < min(size, _SMALL_PIECE)
        return received

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Hand all of ``data`` to the kernel. Blocks until the deadline.

        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the connection is broken.
        """
        view = memoryview(data)
        while view:
            sent = self.try_send(view)
            view = view[sent:]
            if view and not sent:
                with closed_on_error():
                    wait(self._fd, WRITABLE, deadline)

    def bound_unsent(self) -> None:
        """Have the kernel take few bytes that it cannot send yet; by itself it takes megabytes for each peer.

        For what is sent to somebody who may be slow. What is on its way is not limited.
        """
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MOST_UNSENT)
        except (AttributeError, OSError):
            pass  # no TCP, or closed already

    def unread(self, data: bytes) -> None:
        """Give back bytes received too far; they are received first from now on."""
        self._unread = memoryview(data + bytes(self._unread))

    @property
    def has_unread(self) -> bool:
        """Whether there are bytes that the kernel does not know of any more."""
        return bool(self._unread)

    def _take_unread(self, buffer: memoryview) -> int:
        size = min(len(buffer), len(self._unread))
        buffer[:size] = self._unread[:size]
        self._unread = self._unread[size:]
        return size

    def starts(self, deadline: Deadline) -> bool:
        """Wait until the peer says something, which is left to be received; False if it ends instead.

        Blocks until the deadline.

        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the connection is broken.
        """
        with closed_on_error():
            wait(self._fd, READABLE, deadline)
            return bool(socket.socket.recv(self._sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT))

    def has_arrived(self) -> bool:
        """Whether something has come that was not received yet, or the end. Any thread, never blocks."""
        try:
            socket.socket.recv(self._sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass  # closed
        return True

    def has_hung_up(self) -> bool:
        """Whether the peer has ended its direction, whatever has come before. Any thread, never blocks."""
        return has_hung_up(self._sock)

    def has_left(self) -> bool:
        """Whether the peer, which waits for an answer, does so no more. Any thread, never blocks.

        One that has ended its direction counts, as whoever closes its connection does. If bytes wait to be
        received, it was in no hurry to leave: it may want to hear the answer to all that it had to say.
        """
        return has_hung_up(self._sock, both_ways=self._has_bytes_waiting())

    def _has_bytes_waiting(self) -> bool:
        return bool(self._unread)

    def peer_has_closed(self) -> bool:
        """After :meth:`abort`: whether the peer has closed, too. False where the kernel does not say.

        Any thread; does not block.
        """
        try:
            state = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except (AttributeError, OSError):
            return False
        return state not in _OPEN_STATES

    def traffic(self) -> Traffic | None:
        """Return what the kernel knows of the traffic; None where it does not say."""
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            sent_ago, heard_ago, taken = _TCP_INFO.unpack(info)
        except (AttributeError, OSError, struct.error):
            return None
        return Traffic(taken, sent_ago * _MS, heard_ago * _MS)

    def bytes_waiting(self) -> int:
        """Return how many bytes the peer's kernel has not acknowledged yet; 0 where that is unknown."""
        try:
            waiting: int = struct.unpack("=i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))[0]
        except (OSError, ValueError):
            return 0
        return waiting

    def abort(self) -> None:
        """Shut both directions down, which wakes every blocked call. Any thread, any number of times."""
        wake(self._sock)

    def end_reading(self) -> None:
        """Have whoever reads find the end, behind all that has come. Any thread, any number of times."""
        wake(self._sock, socket.SHUT_RD)

    def break_off(self) -> None:
        """Send nothing more, whoever is about to; what the kernel still has is dropped at the close.

        What the peer sends can still be received. For TCP, as upstreams are: a Unix socket wakes no sender.
        Any thread, any number of times; never blocks.
        """
        self._broken_off = True
        wake(self._sock, socket.SHUT_WR)
        reset_on_close(self._sock)

    def shut_down(self) -> None:
        """Do as ``abort``, in such order as is possible without waiting. Any thread, any number of times."""
        self.abort()

    def linger(self, deadline: Deadline) -> None:
        """End our direction and drop what still comes, so that the last bytes sent are not lost.

        A socket closed with unread data resets the connection, and the peer's kernel may then throw
        away what it had received. Blocks until the peer ends its direction, or the deadline. Nothing can be
        received afterwards.
        """
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
            while True:
                wait(self._fd, READABLE, deadline)
                # Below TLS: what comes after our own last word is not to be understood any more.
                if not socket.socket.recv(self._sock, _LINGER_CHUNK, socket.MSG_DONTWAIT):
                    return
        except (OSError, ValueError):
            pass  # the peer had its chance

    def give_back(self) -> None:
        """End the connection, and leave the socket, in blocking mode, to the server that it belongs to.

        In place of :meth:`close`. That server finds an end of the stream in it, below TLS.
        """
        self.shut_down()
        try:
            self._sock.setblocking(True)
        except OSError:
            pass  # closed already

    def close(self) -> None:
        """Close the socket. Only the owner, after every other thread left. Idempotent."""
        self._sock.close()


class PlainTransport(Transport):
    """A TCP or Unix stream socket, kept in blocking mode: one system call for each call."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        if sock.gettimeout() is not None:
            sock.setblocking(True)

    def recv_into(self, buffer: memoryview) -> int:
        if self._unread:
            return self._take_unread(buffer)
        try:
            return self._sock.recv_into(buffer)
        except OSError as exc:
            raise TransportClosed(str(exc)) from exc

    def try_recv_into(self, buffer: memoryview) -> int | None:
        if self._unread:
            return self._take_unread(buffer)
        try:
            return self._sock.recv_into(buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise TransportClosed(str(exc)) from exc

    def sendall(self, data: memoryview | bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as exc:
            raise TransportClosed(str(exc)) from exc

    def try_send(self, data: memoryview | bytes) -> int:
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise TransportClosed(str(exc)) from exc

    def _has_bytes_waiting(self) -> bool:
        try:
            return bool(self._unread or self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _try_recv(self, size: int) -> bytes | None:
        try:
            return self._sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
