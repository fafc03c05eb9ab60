"""Byte transports over a connected socket, plain and TLS, and every SSLContext.

This is the only module that touches :mod:`ssl`.

One thread may receive while another sends. On a plain socket the kernel allows that; one OpenSSL
object must never be entered by two threads, so the TLS transport keeps its socket non-blocking and
holds a lock around each single call, and waits outside that lock.

Exactly one owner calls ``close()``; any thread may call ``abort()``, which wakes every blocked call.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .deadline import Deadline
from .exceptions import ConfigError, TransportClosed
from .reloaded import Reloaded
from .sockets import READABLE, WRITABLE, closed_on_error, wait, wake

__all__ = [
    "ClientTLS",
    "PlainTransport",
    "TLSSession",
    "TLSTransport",
    "Transport",
    "accept_tls",
    "connect_tls",
    "server_context",
]

_SSLOPT_KEYS = frozenset(
    {"ca_certs", "cert_reqs", "certfile", "check_hostname", "ciphers", "keyfile", "server_hostname"}
)
# struct tcp_info (linux/tcp.h): tcpi_bytes_acked is a u64 at this offset since Linux 4.1.
_TCP_INFO_BYTES_ACKED = 120
_LINGER_CHUNK = 65536
_SMALL_PIECE = 256
_QUICK_PIECES = 16
_PIECE_SECONDS = 0.1
_TLS_RECORD = 16384  # RFC 8446 section 5.1: the most that a record carries
_MAX_SESSION_SECONDS = 3600.0
_NEW_SESSION_SECONDS = 1.0


class Transport:
    """A connected stream socket.

    :param sock: a connected socket, which the transport owns from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._unread = memoryview(b"")
        self._pieces = 0  # received by recv, of less than _SMALL_PIECE bytes

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

        A peer that sends in many small pieces is read ten times a second: to be woken for every single byte,
        by somebody who has proved nothing, would cost too much.

        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the connection is broken.
        """
        if self._unread:
            data, self._unread = bytes(self._unread[:size]), self._unread[size:]
            return data
        gather = self._pieces >= _QUICK_PIECES
        if gather:
            time.sleep(min(_PIECE_SECONDS, deadline.remaining()))
        with closed_on_error():
            while (received := self._try_recv(size)) is None:
                wait(self._fd, READABLE, deadline)
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

    def bytes_taken(self) -> int | None:
        """Return how many bytes the peer's kernel has acknowledged; None where that is unknown."""
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES_ACKED + 8)
        except (AttributeError, OSError):
            return None
        if len(info) < _TCP_INFO_BYTES_ACKED + 8:
            return None
        acked: int = struct.unpack_from("=Q", info, _TCP_INFO_BYTES_ACKED)[0]
        return acked

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

    def linger(self, deadline: Deadline) -> None:
        """End our direction and drop what still comes, so that the last bytes sent are not lost.

        A socket closed with unread data resets the connection, and the peer's kernel may then throw
        away what it had received. Blocks until the peer ends its direction, or the deadline.
        """
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
            while self.recv(_LINGER_CHUNK, deadline):
                pass
        except (OSError, TransportClosed):
            pass  # the peer had its chance

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

    def _try_recv(self, size: int) -> bytes | None:
        try:
            return self._sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None


class TLSTransport(Transport):
    """A TLS connection that one thread may read while another writes.

    :param sock: a non-blocking TLS socket after its handshake.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        sock.setblocking(False)
        self._tls = sock
        # Guards the OpenSSL object: held for one non-blocking call, never while waiting.
        self._lock = threading.Lock()

    def recv_into(self, buffer: memoryview) -> int:
        if self._unread:
            return self._take_unread(buffer)
        while True:
            event = READABLE
            try:
                return self._recv_records(buffer)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLWantWriteError:
                event = WRITABLE
            except (OSError, ValueError) as exc:
                raise TransportClosed(str(exc)) from exc
            wait(self._fd, event, None)

    def try_recv_into(self, buffer: memoryview) -> int | None:
        if self._unread:
            return self._take_unread(buffer)
        try:
            return self._recv_records(buffer)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            return -1
        except (OSError, ValueError) as exc:
            raise TransportClosed(str(exc)) from exc

    def _recv_records(self, buffer: memoryview) -> int:
        """Receive one record, or several, if the first ones are of the largest size."""
        with self._lock:
            total = received = self._tls.recv_into(buffer)
            while received == _TLS_RECORD and len(buffer) - total >= _TLS_RECORD:
                try:
                    received = self._tls.recv_into(buffer[total:])
                except OSError:  # nothing yet, or the end, which the next call reports
                    break
                total += received
            return total

    def sendall(self, data: memoryview | bytes) -> None:
        view = memoryview(data)
        while view:
            event = WRITABLE
            try:
                # After a want, OpenSSL must be given the same bytes again: the view stays where it is.
                with self._lock:
                    sent = self._tls.send(view)
                view = view[sent:]
                continue
            except ssl.SSLWantWriteError:
                pass
            except ssl.SSLWantReadError:
                event = READABLE
            except (OSError, ValueError) as exc:
                raise TransportClosed(str(exc)) from exc
            wait(self._fd, event, None)

    def try_send(self, data: memoryview | bytes) -> int:
        try:
            with self._lock:
                return self._tls.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except (OSError, ValueError) as exc:
            raise TransportClosed(str(exc)) from exc

    def _try_recv(self, size: int) -> bytes | None:
        try:
            with self._lock:
                return self._tls.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def session(self, known: TLSSession | None) -> TLSSession | None:
        """Return what later connections may resume, once something was received.

        Only then a TLS 1.3 server's tickets have been read. Does not block.

        :param known: what is returned again if this connection resumed it, or if it is very new.
        """
        with self._lock:
            if self._tls.session_reused or (known and known.is_new(self._tls)):
                return known
            return TLSSession(self._tls)


class TLSSession:
    """A TLS session that later connections to the same server may resume, which spares the certificates.

    For an hour at most, and not beyond the time of the server's certificate, because OpenSSL does not
    verify it again then. Immutable.

    :param tls: a connection, verified in a full handshake.
    """

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._made_for = tls.context, tls.server_hostname
        self._new_until = Deadline(_NEW_SESSION_SECONDS)
        session = tls.session  # a copy, as slow to make as a certificate is to verify
        self._session = session if session and session.has_ticket else None
        seconds = _MAX_SESSION_SECONDS
        if self._session and (not_after := (tls.getpeercert() or {}).get("notAfter")):
            seconds = min(seconds, ssl.cert_time_to_seconds(str(not_after)) - self._session.time)
        self._until = Deadline(seconds)

    def is_new(self, tls: ssl.SSLSocket) -> bool:
        """Whether looking at this connection as well is not worth its while.

        It bounds what is spent on a server that gives no tickets, or on several behind one address.
        """
        return self._made_for == (tls.context, tls.server_hostname) and not self._new_until.passed

    def fitting(self, context: ssl.SSLContext, server_hostname: str) -> ssl.SSLSession | None:
        """Return the session if it may be resumed with this very context, for this name, now."""
        fits = self._made_for == (context, server_hostname) and not self._until.passed
        return self._session if fits else None


def connect_tls(
    sock: socket.socket,
    context: ssl.SSLContext,
    server_hostname: str,
    deadline: Deadline,
    on_socket: Callable[[socket.socket], None],
    session: ssl.SSLSession | None = None,
) -> TLSTransport:
    """Do the client's TLS handshake on a connected socket; ``sock`` itself is of no use afterwards.

    Blocks until the deadline.

    :param on_socket: told of the TLS socket before the handshake, as in :func:`connect_tcp`.
    :param session: of the same context and name, to be resumed; a server that will not makes it anew.
    :raises TimeoutError: if the deadline passes.
    :raises TransportClosed: if the handshake fails; the text says why.
    """
    return _handshake(sock, context, deadline, on_socket, server_hostname=server_hostname, session=session)


def accept_tls(sock: socket.socket, context: ssl.SSLContext, deadline: Deadline) -> TLSTransport:
    """Do the server's TLS handshake on an accepted socket; otherwise as :func:`connect_tls`."""
    return _handshake(sock, context, deadline, lambda tls: None, server_side=True)


def _handshake(
    sock: socket.socket,
    context: ssl.SSLContext,
    deadline: Deadline,
    on_socket: Callable[[socket.socket], None],
    **options: Any,
) -> TLSTransport:
    sock.setblocking(False)
    with closed_on_error():
        tls = context.wrap_socket(sock, do_handshake_on_connect=False, **options)
        try:
            on_socket(tls)
            while True:
                try:
                    tls.do_handshake()
                    return TLSTransport(tls)
                except ssl.SSLWantReadError:
                    wait(tls.fileno(), READABLE, deadline)
                except ssl.SSLWantWriteError:
                    wait(tls.fileno(), WRITABLE, deadline)
        except BaseException:
            tls.close()
            raise


def server_context(certfile: str, keyfile: str) -> ssl.SSLContext:
    """Return a context for the server side: TLS 1.2 or newer, the given certificate chain and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certfile, keyfile)
    return context


class ClientTLS:
    """The client-side SSLContext described by ``sslopt``, built again when one of its files changes.

    A context in use is never altered: connections keep the one they were made with. The session of the last
    full handshake is resumed, which spares both sides the certificate. Safe from every thread.

    :param sslopt: websocket-client's vocabulary, limited to ``ca_certs``, ``certfile``, ``keyfile``,
        ``ciphers``, ``server_hostname``, ``check_hostname`` and ``cert_reqs``. Without ``ca_certs`` the
        system's authorities are trusted.
    :raises ConfigError: if ``sslopt`` has another key.
    """

    def __init__(self, sslopt: Mapping[str, Any]) -> None:
        if unknown := sorted(set(sslopt) - _SSLOPT_KEYS):
            known = ", ".join(sorted(_SSLOPT_KEYS))
            raise ConfigError([f"sslopt has no {', '.join(unknown)}; it takes {known}"])
        self._sslopt = dict(sslopt)
        files = [self._sslopt[key] for key in ("ca_certs", "certfile", "keyfile") if self._sslopt.get(key)]
        self._context = Reloaded("the upstream TLS configuration", files, self._build)
        # Assigned as a whole and never altered, so it needs no lock: whichever thread was last is right.
        self._session: TLSSession | None = None

    def connect(
        self,
        sock: socket.socket,
        host: str,
        deadline: Deadline,
        on_socket: Callable[[socket.socket], None],
    ) -> TLSTransport:
        """Do the TLS handshake with ``host`` as :func:`connect_tls` does, resuming a session if possible.

        :raises OSError: as :meth:`context`; everything else as :func:`connect_tls`.
        """
        context, name = self.context(), self.server_hostname(host)
        kept = self._session
        session = kept.fitting(context, name) if kept else None
        try:
            return connect_tls(sock, context, name, deadline, on_socket, session)
        except TransportClosed:
            self._session = None  # should it be to blame, it is not so again
            raise

    def keep_session(self, transport: TLSTransport) -> None:
        """Let later connections resume this one's session. Does not block.

        :param transport: made by :meth:`connect`; something must have been received from it.
        """
        self._session = transport.session(self._session)

    def context(self) -> ssl.SSLContext:
        """Return the context; safe from every thread, blocks on the file system only.

        :raises OSError: if a file cannot be read, or holds no certificate or key (``ssl.SSLError``).
        """
        return self._context.get()

    def server_hostname(self, host: str) -> str:
        """Return the name the server's certificate must carry, ``host`` unless ``sslopt`` says otherwise."""
        name: str = self._sslopt.get("server_hostname") or host
        return name

    def _build(self) -> ssl.SSLContext:
        # Not create_default_context: that one writes TLS keys to the file named by SSLKEYLOGFILE.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        cert_reqs = self._sslopt.get("cert_reqs", ssl.CERT_REQUIRED)
        context.check_hostname = self._sslopt.get("check_hostname", True) and cert_reqs != ssl.CERT_NONE
        context.verify_mode = cert_reqs
        if ca_certs := self._sslopt.get("ca_certs"):
            context.load_verify_locations(cafile=ca_certs)
        else:
            context.load_default_certs()
        if certfile := self._sslopt.get("certfile"):
            context.load_cert_chain(certfile, self._sslopt.get("keyfile"))
        if ciphers := self._sslopt.get("ciphers"):
            context.set_ciphers(ciphers)
        return context
