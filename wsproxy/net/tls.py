"""The TLS transport, its handshakes, and the sessions that they resume.

Two threads must never call into one OpenSSL object at the same time. So the transport keeps its socket
non-blocking, holds a lock around each single call, and waits outside that lock.

OpenSSL keeps a queue of errors for each thread. If an error stays there, OpenSSL reports it for the thread's
next call, even on another connection. So every call that fails empties the queue (:func:`forget_errors`).
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

_RECORD = 16384  # RFC 8446 section 5.1: the largest plaintext of a record, bytes
_MAX_SESSION_SECONDS = 3600.0
_NEW_SESSION_SECONDS = 1.0
_REMEDIES = {"HTTP_REQUEST": "http on a TLS port; the client has to use wss:// or https://"}
_NO_CONNECTION = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def forget_errors() -> None:
    """Empty the calling thread's queue of OpenSSL errors. Any thread, never blocks.

    Call it if other code has run in a thread that uses TLS afterwards. With OpenSSL 3.4 or later, newer
    Pythons leave system errors in the queue (gh-148594). Then every read that finds nothing fails.
    """
    try:
        # The module ssl has no function for this, but OpenSSL empties the queue when it starts a handshake.
        _NO_CONNECTION.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLWantReadError:
        pass


def _wanted(exc: OSError | ValueError) -> int:
    """Return the event that a call on a TLS connection waits for.

    The call must be the last OpenSSL call of this thread.

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

    :param sock: a TLS socket. If its handshake is not done, call :meth:`handshake` first.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        sock.setblocking(False)
        self._tls = sock
        # Guards the OpenSSL object: held for one non-blocking call, never while waiting.
        self._lock = threading.Lock()

    def handshake(self, deadline: Deadline) -> None:
        """Do the handshake, as client or server. Blocks until the deadline, or ``abort``.

        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the handshake fails; the text says why.
        """
        take(self.handshake_steps(), deadline)

    def handshake_steps(self) -> Steps[None]:
        """Do the handshake in steps: see :meth:`handshake`."""
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
        """Check that the client's certificate has not expired: OpenSSL does not when it resumes a session."""
        not_after = (self._tls.getpeercert() or {}).get("notAfter")
        now = datetime.datetime.now(datetime.timezone.utc).timestamp()
        if not_after and ssl.cert_time_to_seconds(str(not_after)) < now:
            raise TransportClosed("the client's certificate has expired since its session began")

    @property
    def has_unread(self) -> bool:
        if self._unread:
            return True
        with self._lock:  # OpenSSL may hold the rest of a record that has left the kernel
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
        except ssl.SSLWantReadError:  # handled here for speed: it comes after each small message
            return None
        except (OSError, ValueError) as exc:
            _wanted(exc)
            return -1

    def _recv_records(self, buffer: memoryview) -> int:
        """Receive one record, and further ones while each is of the largest size."""
        received: int
        with self._lock:
            # recv_into would call this, after checking for a TLS layer.
            received = self._tls.read(len(buffer), buffer)  # type: ignore[assignment]
            total = received
            while received == _RECORD and len(buffer) - total >= _RECORD:
                try:
                    received = self._tls.read(len(buffer) - total, buffer[total:])  # type: ignore[assignment]
                except ssl.SSLWantReadError:
                    break
                except OSError:  # the end of the stream, which the next call reports
                    forget_errors()
                    break
                total += received
            return total

    def sendall(self, data: memoryview | bytes) -> None:
        view = memoryview(data)
        while view:
            self._check_sending()
            try:
                # After a want, OpenSSL must get the same bytes again, so the view stays where it is.
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
        """Raise if ``break_off`` was called: after a failed send, OpenSSL would receive nothing either."""
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
            # This removes the TLS layer, which would report errors of its own from now on.
            self._tls.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more

    def close(self) -> None:
        self._notify_close()
        super().close()

    def _notify_close(self) -> None:
        """Send close_notify (RFC 8446 section 6.1), if that does not block; never raises.

        It tells the peer that nobody has truncated the stream. Afterwards OpenSSL sends nothing. If more data
        comes from the peer, OpenSSL does not receive it either.
        """
        with self._lock:
            # Not unwrap(): if the peer has sent close_notify too, unwrap() removes the TLS layer.
            if (tls := self._tls._sslobj) is not None:  # type: ignore[attr-defined]
                try:
                    tls.shutdown()
                except ssl.SSLWantReadError:
                    pass  # the peer has not sent its close_notify yet
                except (OSError, ValueError):  # the peer is gone, or a record is half sent
                    forget_errors()

    def session(self, known: TLSSession | None) -> TLSSession | None:
        """Return the session that later connections may resume. Does not block.

        Call it after something was received, because OpenSSL reads a TLS 1.3 server's tickets only then.

        :param known: the session so far; returned again if this connection resumed it, or if it is very new.
        """
        with self._lock:
            if self._tls.session_reused or (known and known.is_new(self._tls)):
                return known
            return TLSSession(self._tls)


def transport_of(sock: socket.socket) -> Transport:
    """Return the transport for a connected socket; with TLS, the handshake has been done.

    The server that did it may have used the calling thread for other connections, so this empties the
    thread's queue of OpenSSL errors.
    """
    if not isinstance(sock, ssl.SSLSocket):
        return PlainTransport(sock)
    forget_errors()
    return TLSTransport(sock)


class TLSSession:
    """A TLS session that later connections to the same server may resume, without verifying certificates.

    It is valid for an hour at most, and not beyond the expiry of the server's certificate, because OpenSSL
    does not verify that again. Immutable.

    :param tls: a connection, verified in a full handshake.
    """

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._made_for = tls.context, tls.server_hostname
        self._new_until = Deadline(_NEW_SESSION_SECONDS)
        session = tls.session  # a copy, which takes as long as verifying a certificate
        self._session = session if session and session.has_ticket else None
        seconds = _MAX_SESSION_SECONDS
        if self._session and (not_after := (tls.getpeercert() or {}).get("notAfter")):
            seconds = min(seconds, ssl.cert_time_to_seconds(str(not_after)) - self._session.time)
        self._until = Deadline(seconds)

    def is_new(self, tls: ssl.SSLSocket) -> bool:
        """Whether this session is so new that one from ``tls``, to the same server, need not replace it.

        This bounds the cost if a server gives no tickets, or if several servers stand behind one address.
        """
        return self._made_for == (tls.context, tls.server_hostname) and not self._new_until.passed

    def fitting(self, context: ssl.SSLContext, server_hostname: str) -> ssl.SSLSession | None:
        """Return the session if this context may resume it for this name, now; else None."""
        fits = self._made_for == (context, server_hostname) and not self._until.passed
        return self._session if fits else None


def accept_tls(sock: socket.socket, context: ssl.SSLContext, deadline: Deadline) -> TLSTransport:
    """Do the server's TLS handshake on an accepted socket; ``sock`` itself is detached afterwards.

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
    """Do the TLS handshake on a connected socket, in steps; ``sock`` itself is detached afterwards.

    :param on_socket: gets the TLS socket before the handshake, so that another thread can shut it down.
    :param options: arguments of :meth:`ssl.SSLContext.wrap_socket`. If one is a ``session`` of the same
        context and name, it is resumed if the server agrees.
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
