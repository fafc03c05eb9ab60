"""Byte transports over a connected socket: their base class, and the one without TLS.

One thread may receive while another sends. Exactly one owner calls ``close()``. Any thread may call
``abort()``, which wakes all blocked calls.
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
    PEEK,
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
    """The traffic of a connection, by the local kernel's TCP_INFO.

    :ivar taken: bytes that the peer's kernel has acknowledged.
    :ivar sent_ago: seconds since the kernel last sent data.
    :ivar heard_ago: seconds since the kernel last received data.
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
        self._pieces = 0  # pieces of less than _SMALL_PIECE bytes that recv_sparingly received

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._fd

    def recv_into(self, buffer: memoryview) -> int:
        """Receive at least one byte, and return the number; 0 at the end of the stream.

        Blocks without a timeout until ``abort()``. One thread at a time.

        :raises TransportClosed: if the connection is broken.
        """
        raise NotImplementedError

    def try_recv_into(self, buffer: memoryview) -> int | None:
        """Receive the bytes that have come, and return their number. Never blocks. One thread at a time.

        If ``buffer`` has at least 16 KiB, no bytes stay behind in the TLS layer, where poll cannot see them.

        :returns: 0 at the end of the stream; None if no byte has come yet. -1 if only ``recv_into`` can
            receive the bytes, because TLS has to send an answer first and the kernel's buffer is full.
        :raises TransportClosed: if the connection is broken.
        """
        raise NotImplementedError

    def sendall(self, data: memoryview | bytes) -> None:
        """Hand all of ``data`` to the kernel.

        Blocks without a timeout until ``abort()``. One thread at a time, ``try_send`` included.

        :raises TransportClosed: if the connection is broken.
        """
        raise NotImplementedError

    def try_send(self, data: memoryview | bytes) -> int:
        """Hand the kernel the bytes that fit now, and return their number. Never blocks.

        If that is below ``len(data)``, the caller must send the rest next, and nothing else before it.

        :raises TransportClosed: if the connection is broken.
        """
        raise NotImplementedError

    def _try_recv(self, size: int) -> bytes | None:
        """Receive the bytes that have come; b"" at the end of the stream, None if none have come yet."""
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
        """Receive as :meth:`recv` does, but after 16 small pieces only ten times a second.

        Otherwise a client that has not authenticated could wake the thread for every single byte.
        """
        gather = self._pieces >= _QUICK_PIECES
        if gather:
            time.sleep(min(_PIECE_SECONDS, deadline.remaining()))
        received = self.recv(size, deadline)
        with closed_on_error():
            while gather and len(received) < size and (more := self._try_recv(size - len(received))):
                received += more  # TLS returns one record for each call
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
        """Limit the bytes that the kernel buffers before it can send them. By default it buffers megabytes.

        For peers that may be slow. The limit does not concern bytes in flight. Never blocks.
        """
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MOST_UNSENT)
        except (AttributeError, OSError):
            pass  # not TCP, or closed already

    def unread(self, data: bytes) -> None:
        """Give back bytes that belong to the next reader. The next call receives them first."""
        self._unread = memoryview(data + bytes(self._unread))

    @property
    def has_unread(self) -> bool:
        """Whether there are received bytes in this object, which no poll of the socket reports."""
        return bool(self._unread)

    def _take_unread(self, buffer: memoryview) -> int:
        size = min(len(buffer), len(self._unread))
        buffer[:size] = self._unread[:size]
        self._unread = self._unread[size:]
        return size

    def starts(self, deadline: Deadline) -> bool:
        """Whether the peer sends a byte, which stays to be received; False if it sends FIN instead.

        Blocks until one of both, or until the deadline.

        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the connection is broken.
        """
        with closed_on_error():
            wait(self._fd, READABLE, deadline)
            return bool(socket.socket.recv(self._sock, 1, PEEK))

    def has_arrived(self) -> bool:
        """Whether the kernel has unread bytes, or the end of the stream. Any thread, never blocks."""
        try:
            socket.socket.recv(self._sock, 1, PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass  # closed
        return True

    def has_hung_up(self) -> bool:
        """Whether the peer has sent FIN, also behind unread bytes. Any thread, never blocks."""
        return has_hung_up(self._sock)

    def has_left(self) -> bool:
        """Whether a peer that waits for an answer has left. Any thread, never blocks.

        A peer that has sent FIN counts, because a peer that closes its connection sends that, too. If there
        are unread bytes before the FIN, the peer may have half-closed the connection after its last request,
        and still wait for the answer. Then it counts only if the connection is broken or closed.
        """
        if not has_hung_up(self._sock):  # one system call for nearly all clients; each lets other threads run
            return False
        return not self._has_bytes_waiting() or has_hung_up(self._sock, both_ways=True)

    def _has_bytes_waiting(self) -> bool:
        return bool(self._unread)

    def peer_has_closed(self) -> bool:
        """After :meth:`abort`: whether the peer has closed, too. False if the kernel has no TCP_INFO.

        Any thread; does not block.
        """
        try:
            state = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except (AttributeError, OSError):
            return False
        return state not in _OPEN_STATES

    def traffic(self) -> Traffic | None:
        """Return the kernel's numbers for the traffic; None if it has no TCP_INFO. Never blocks."""
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            sent_ago, heard_ago, taken = _TCP_INFO.unpack(info)
        except (AttributeError, OSError, struct.error):
            return None
        return Traffic(taken, sent_ago * _MS, heard_ago * _MS)

    def bytes_waiting(self) -> int:
        """Return how many bytes the peer's kernel has not acknowledged yet; 0 if that is unknown."""
        try:
            waiting: int = struct.unpack("=i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))[0]
        except (OSError, ValueError):
            return 0
        return waiting

    def abort(self) -> None:
        """Shut both directions down, which wakes all blocked calls. Any thread; idempotent."""
        wake(self._sock)

    def end_reading(self) -> None:
        """Have the reader find the end of the stream, behind all bytes that came. Any thread; idempotent."""
        wake(self._sock, socket.SHUT_RD)

    def break_off(self) -> None:
        """Stop sending, in all threads. When the socket is closed, the kernel drops its unsent bytes.

        The peer's bytes can still be received. For TCP only, such as upstreams: on a Unix socket, a blocked
        sender would not wake. Any thread; idempotent; never blocks.
        """
        self._broken_off = True
        wake(self._sock, socket.SHUT_WR)
        reset_on_close(self._sock)

    def shut_down(self) -> None:
        """Do as ``abort``, but as gracefully as possible without blocking. Any thread; idempotent."""
        self.abort()

    def linger(self, deadline: Deadline) -> None:
        """Send FIN and drop the bytes that still come, so that the peer gets the last bytes sent.

        If a socket with unread data is closed, the kernel sends RST. The peer's kernel may then drop bytes
        that its program has not read. Blocks until the peer sends FIN, or until the deadline. Nothing can be
        received afterwards.
        """
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
            while True:
                wait(self._fd, READABLE, deadline)
                # Below TLS: bytes that come after the FIN are not decrypted any more.
                if not socket.socket.recv(self._sock, _LINGER_CHUNK, socket.MSG_DONTWAIT):
                    return
        except (OSError, ValueError):
            pass  # the deadline has passed, or the connection is broken

    def give_back(self) -> None:
        """End the connection, and leave the socket, in blocking mode, to the WSGI server that owns it.

        Call it in place of :meth:`close`. That server then reads the end of the stream, below TLS.
        """
        self.shut_down()
        try:
            self._sock.setblocking(True)
        except OSError:
            pass  # closed already

    def close(self) -> None:
        """Close the socket. Only the owner, when no other thread uses it any more. Idempotent."""
        self._sock.close()


class PlainTransport(Transport):
    """A transport without TLS. The socket stays in blocking mode, so that each call is one system call."""

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
            return bool(self._unread or self._sock.recv(1, PEEK))
        except OSError:
            return False

    def _try_recv(self, size: int) -> bytes | None:
        try:
            return self._sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
