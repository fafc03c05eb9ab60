"""The TLS transport, its handshakes, and the sessions that they resume.

One OpenSSL object must never be entered by two threads, so the transport keeps its socket non-blocking
and holds a lock around each single call, and waits outside that lock.

OpenSSL keeps errors in a queue of each thread, and takes one that is left there for that of the thread's next
call, on whatever connection. So every call that fails empties the queue (:func:`forget_errors`).
"""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from ..exceptions import TransportClosed
from ..runtime.deadline import Deadline
from .sockets import READABLE, WRITABLE, Steps, closed_on_error, take, wait
from .transport import PlainTransport, Transport

__all__ = [
    "TLSSession",
    "TLSTransport",
    "accept_tls",
    "forget_errors",
    "tls_steps",
    "transport_of",
]

_RECORD = 16384  # RFC 8446 section 5.1: the most that a record carries
_MAX_SESSION_SECONDS = 3600.0
_NEW_SESSION_SECONDS = 1.0
_REMEDIES = {"HTTP_REQUEST": "http on a TLS port; the client has to use wss:// or https://"}
_NO_CONNECTION = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def forget_errors() -> None:
    """Empty the queue of OpenSSL's errors that the calling thread has. Any thread, never blocks.

    To be called when code of others has run in a thread that goes on to use TLS. Newer Pythons leave system
    errors of OpenSSL 3.4 or later in the queue (gh-148594). Then every read that finds nothing fails.
    """
    try:
        # The module ssl cannot do it by itself, but OpenSSL does at the start of each handshake.
        _NO_CONNECTION.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLWantReadError:
        pass


def _wanted(exc: OSError | ValueError) -> int:
    """Return the event that a call on a TLS connection waits for; it was the calling thread's last one.

    :param exc: what the call has raised.
    :raises TransportClosed: if the call has failed.
    """
    if isinstance(exc, ssl.SSLWantReadError):
        return READABLE
    if isinstance(exc, ssl.SSLWantWriteError):
        return WRITABLE
    forget_errors()
    raise TransportClosed(_REMEDIES.get(getattr(exc, "reason", ""), str(exc))) from exc


class TLSTransport(Transport):
    """A TLS connection that one thread may read while another writes.

    :param sock: a TLS socket. If its handshake is not done, :meth:`handshake` comes first.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        sock.setblocking(False)
        self._tls = sock
        # Guards the OpenSSL object: held for one non-blocking call, never while waiting.
        self._lock = threading.Lock()

    def handshake(self, deadline: Deadline) -> None:
        """Do the handshake, of either side. Blocks until the deadline, or ``abort``.

        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the handshake fails; the text says why.
        """
        take(self.handshake_steps(), deadline)

    def handshake_steps(self) -> Steps[None]:
        """Do as :meth:`handshake`, step by step."""
        while True:
            try:
                with self._lock:
                    self._tls.do_handshake()
                break
            except (OSError, ValueError) as exc:
                event = _wanted(exc)
            yield self._fd, event
        if self._tls.server_side and self._tls.session_reused:
            self._refuse_expired()

    def _refuse_expired(self) -> None:
        """Look at the time of a client's certificate, which OpenSSL does not when it resumes a session."""
        not_after = (self._tls.getpeercert() or {}).get("notAfter")
        now = datetime.datetime.now(datetime.timezone.utc).timestamp()
        if not_after and ssl.cert_time_to_seconds(str(not_after)) < now:
            raise TransportClosed("the client's certificate has expired since its session began")

    @property
    def has_unread(self) -> bool:
        if self._unread:
            return True
        with self._lock:  # a part of a record: the kernel has given it all to OpenSSL
            return self._tls.pending() > 0

    def recv_into(self, buffer: memoryview) -> int:
        if self._unread:
            return self._take_unread(buffer)
        while True:
            try:
                return self._recv_records(buffer)
            except (OSError, ValueError) as exc:
                event = _wanted(exc)
            wait(self._fd, event, None)

    def try_recv_into(self, buffer: memoryview) -> int | None:
        if self._unread:
            return self._take_unread(buffer)
        try:
            return self._recv_records(buffer)
        except ssl.SSLWantReadError:  # which comes after each small message
            return None
        except (OSError, ValueError) as exc:
            _wanted(exc)
            return -1

    def _recv_records(self, buffer: memoryview) -> int:
        """Receive one record, or several, if the first ones are of the largest size."""
        received: int
        with self._lock:
            # What recv_into would call, if there is still a TLS layer.
            received = self._tls.read(len(buffer), buffer)  # type: ignore[assignment]
            total = received
            while received == _RECORD and len(buffer) - total >= _RECORD:
                try:
                    received = self._tls.read(len(buffer) - total, buffer[total:])  # type: ignore[assignment]
                except ssl.SSLWantReadError:
                    break
                except OSError:  # the end, which the next call reports
                    forget_errors()
                    break
                total += received
            return total

    def sendall(self, data: memoryview | bytes) -> None:
        view = memoryview(data)
        while view:
            self._check_sending()
            try:
                # After a want, OpenSSL must be given the same bytes again: the view stays where it is.
                with self._lock:
                    sent = self._tls.send(view)
                view = view[sent:]
                continue
            except (OSError, ValueError) as exc:
                event = _wanted(exc)
            wait(self._fd, event, None)

    def try_send(self, data: memoryview | bytes) -> int:
        self._check_sending()
        try:
            with self._lock:
                return self._tls.send(data)
        except (OSError, ValueError) as exc:
            _wanted(exc)
            return 0

    def _check_sending(self) -> None:
        """Make sure that OpenSSL meets no error in sending: it would receive nothing either, then."""
        if self._broken_off:
            raise TransportClosed("nothing is sent any more")

    def _try_recv(self, size: int) -> bytes | None:
        try:
            with self._lock:
                return self._tls.recv(size)
        except (OSError, ValueError) as exc:
            _wanted(exc)
            return None

    def shut_down(self) -> None:
        self._notify_close()
        super().shut_down()

    def linger(self, deadline: Deadline) -> None:
        self._notify_close()
        super().linger(deadline)

    def give_back(self) -> None:
        super().give_back()
        try:
            # Takes the TLS layer off, which would report errors of its own from now on.
            self._tls.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more

    def close(self) -> None:
        self._notify_close()
        super().close()

    def _notify_close(self) -> None:
        """Say that nothing more comes (RFC 8446 section 6.1), if that can be said at once; never raises.

        The peer can tell from it that nobody has cut anything off. After it OpenSSL neither sends nor, in
        case of more data from the peer, receives.
        """
        with self._lock:
            # Not unwrap(): if the peer has said it too, that takes the TLS layer off.
            if (tls := self._tls._sslobj) is not None:  # type: ignore[attr-defined]
                try:
                    tls.shutdown()
                except ssl.SSLWantReadError:
                    pass  # the peer has not said it yet
                except (OSError, ValueError):  # the peer is gone, or a record is half sent
                    forget_errors()

    def session(self, known: TLSSession | None) -> TLSSession | None:
        """Return what later connections may resume, once something was received.

        Only then a TLS 1.3 server's tickets have been read. Does not block.

        :param known: what is returned again if this connection resumed it, or if it is very new.
        """
        with self._lock:
            if self._tls.session_reused or (known and known.is_new(self._tls)):
                return known
            return TLSSession(self._tls)


def transport_of(sock: socket.socket) -> Transport:
    """Return the transport for a connected socket, the TLS handshake of which has been done if it has TLS.

    The server that has done it may have used the calling thread for other connections.
    """
    if not isinstance(sock, ssl.SSLSocket):
        return PlainTransport(sock)
    forget_errors()
    return TLSTransport(sock)


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


def accept_tls(sock: socket.socket, context: ssl.SSLContext, deadline: Deadline) -> TLSTransport:
    """Do the server's TLS handshake on an accepted socket; ``sock`` itself is of no use afterwards.

    Blocks until the deadline.

    :raises TimeoutError: if the deadline passes.
    :raises TransportClosed: if the handshake fails; the text says why.
    """
    return take(tls_steps(sock, context, lambda tls: None, server_side=True), deadline)


def tls_steps(
    sock: socket.socket,
    context: ssl.SSLContext,
    on_socket: Callable[[socket.socket], None],
    **options: Any,
) -> Steps[TLSTransport]:
    """Do the TLS handshake on a connected socket, step by step; ``sock`` itself is of no use afterwards.

    :param on_socket: told of the TLS socket before the handshake, so that another thread can shut it down.
    :param options: of :meth:`ssl.SSLContext.wrap_socket`. A ``session``, of the same context and name, is
        resumed if the server agrees.
    :raises TransportClosed: if the handshake fails; the text says why.
    """
    with closed_on_error():
        tls = context.wrap_socket(sock, do_handshake_on_connect=False, **options)
    transport = TLSTransport(tls)
    try:
        on_socket(tls)
        yield from transport.handshake_steps()
        return transport
    except BaseException:
        transport.close()
        raise
