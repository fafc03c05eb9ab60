"""TLS: the transport, and every SSLContext.

This is the only module that touches :mod:`ssl`.

One OpenSSL object must never be entered by two threads, so the transport keeps its socket non-blocking
and holds a lock around each single call, and waits outside that lock.
"""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..config import Config
from ..exceptions import ConfigError, TransportClosed
from ..runtime.deadline import Deadline
from ..runtime.reloading import Reloaded
from .certificates import check_authorities, check_certificate
from .sockets import READABLE, WRITABLE, closed_on_error, wait
from .transport import PlainTransport, Transport

__all__ = [
    "ClientTLS",
    "ServerTLS",
    "TLSSession",
    "TLSTransport",
    "accept_tls",
    "connect_tls",
    "server_context",
    "transport_of",
]

_SSLOPT_KEYS = frozenset(
    {"ca_certs", "cert_reqs", "certfile", "check_hostname", "ciphers", "keyfile", "server_hostname"}
)
_RECORD = 16384  # RFC 8446 section 5.1: the most that a record carries
_MAX_SESSION_SECONDS = 3600.0
_NEW_SESSION_SECONDS = 1.0
_ALPN = ["http/1.1"]  # RFC 7301 section 6; a WebSocket over HTTP/2 would be RFC 8441
_REMEDIES = {"HTTP_REQUEST": "http on a TLS port; the client has to use wss:// or https://"}


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
        with closed_on_error():
            while True:
                try:
                    with self._lock:
                        self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    wait(self._fd, READABLE, deadline)
                except ssl.SSLWantWriteError:
                    wait(self._fd, WRITABLE, deadline)
                except ssl.SSLError as exc:
                    raise TransportClosed(_REMEDIES.get(exc.reason, str(exc))) from exc
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
        received: int
        with self._lock:
            # What recv_into would call, if there is still a TLS layer.
            received = self._tls.read(len(buffer), buffer)  # type: ignore[assignment]
            total = received
            while received == _RECORD and len(buffer) - total >= _RECORD:
                try:
                    received = self._tls.read(len(buffer) - total, buffer[total:])  # type: ignore[assignment]
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
                except (OSError, ValueError):
                    pass  # the peer has not said it yet, or is gone, or a record is half sent

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
    """Return the transport for a connected socket, the TLS handshake of which has been done if it has TLS."""
    return TLSTransport(sock) if isinstance(sock, ssl.SSLSocket) else PlainTransport(sock)


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
    with closed_on_error():
        tls = context.wrap_socket(sock, do_handshake_on_connect=False, **options)
    transport = TLSTransport(tls)
    try:
        on_socket(tls)
        transport.handshake(deadline)
        return transport
    except BaseException:
        transport.close()
        raise


def server_context(certfile: str, keyfile: str, client_ca: str | None = None) -> ssl.SSLContext:
    """Return a context for the server side, with the given certificate chain and key.

    :param client_ca: authorities one of which has to have signed each client's certificate; None if clients
        need none.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(_ALPN)
    _load_chain(context, certfile, keyfile)
    if client_ca is not None:
        context.load_verify_locations(cafile=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _context(protocol: int) -> ssl.SSLContext:
    """Return a context as all of ours are: TLS 1.2 or newer, neither compression nor renegotiation.

    A peer that ends TCP without close_notify has just ended: WebSocket has a Close of its own, and OpenSSL
    would answer with an alert in place of what we still have to say.
    """
    # Not create_default_context: that one writes TLS keys to the file named by SSLKEYLOGFILE.
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # new in OpenSSL 3, which needs it
    return context


def _load_chain(context: ssl.SSLContext, certfile: str, keyfile: str | None) -> None:
    context.load_cert_chain(certfile, keyfile, password="")  # without one OpenSSL asks on the terminal


class ServerTLS:
    """TLS towards clients: the server-side SSLContext, built again when one of its files changes.

    A context in use is never altered: connections keep the one they were made with, and its tickets are of
    no use with another. While changed files cannot be used, the context from before goes on, with a warning
    in the log. Safe from every thread.

    :param certfile: the certificate chain (PEM), the server's own first.
    :param keyfile: its private key (PEM), without a password.
    :param client_ca: authorities (PEM) one of which has to have signed each client's certificate; None if
        clients need none.
    :raises ConfigError: if the files cannot be read, or do not belong together.
    """

    def __init__(self, certfile: str, keyfile: str, client_ca: str | None = None) -> None:
        self._files = certfile, keyfile, client_ca
        paths = dict.fromkeys(file for file in self._files if file is not None)
        self._context = Reloaded("the TLS certificate", list(paths), self._build)
        try:
            self._context.get()
        except (OSError, ValueError) as exc:
            remedy = "tls_cert, tls_key and tls_client_ca have to name PEM files"
            raise ConfigError([f"TLS for clients: {exc}; {remedy}"]) from exc

    @classmethod
    def from_config(cls, config: Config) -> ServerTLS | None:
        """Return what a proxy's settings ask for, None if clients come without TLS; raises as the class."""
        if config.tls_cert is None:
            return None
        return cls(config.tls_cert, config.tls_key or config.tls_cert, config.tls_client_ca)

    def reload(self) -> None:
        """Read the files again at once. Any thread; blocks on the file system only."""
        self._context.reload()

    def wrap(self, sock: socket.socket) -> TLSTransport:
        """Return a transport before its handshake. It owns the connection; ``sock`` is of no use any more.

        Blocks on the file system only.

        :raises TransportClosed: if the client is gone.
        """
        context = self._context.get()
        with closed_on_error():
            sock.getpeername()  # or wrap_socket would fail, and leave the socket open
            return TLSTransport(context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False))

    def _build(self) -> ssl.SSLContext:
        certfile, keyfile, client_ca = self._files
        check_certificate(certfile, keyfile)
        if client_ca is not None:
            check_authorities(client_ca)
        try:
            return server_context(certfile, keyfile, client_ca)
        except ssl.SSLError as exc:
            raise ValueError(f"OpenSSL does not take {certfile}: {exc}") from exc


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

    def reload(self) -> None:
        """Read the files again at once. Any thread; blocks on the file system only."""
        self._context.reload()

    def server_hostname(self, host: str) -> str:
        """Return the name the server's certificate must carry, ``host`` unless ``sslopt`` says otherwise."""
        name: str = self._sslopt.get("server_hostname") or host
        return name

    def _build(self) -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_CLIENT)
        cert_reqs = self._sslopt.get("cert_reqs", ssl.CERT_REQUIRED)
        context.check_hostname = self._sslopt.get("check_hostname", True) and cert_reqs != ssl.CERT_NONE
        context.verify_mode = cert_reqs
        if ca_certs := self._sslopt.get("ca_certs"):
            context.load_verify_locations(cafile=ca_certs)
        else:
            context.load_default_certs()
        if certfile := self._sslopt.get("certfile"):
            _load_chain(context, certfile, self._sslopt.get("keyfile"))
        if ciphers := self._sslopt.get("ciphers"):
            context.set_ciphers(ciphers)
        return context
