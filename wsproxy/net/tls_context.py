"""Every SSLContext, built again when the files that it is made of change.

Together with :mod:`wsproxy.net.tls` the only module that touches :mod:`ssl`.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from ..exceptions import ConfigError, TransportClosed
from ..runtime.reloading import Reloaded
from .certificates import check_authorities, check_certificate
from .sockets import Steps, closed_on_error
from .tls import TLSSession, TLSTransport, tls_steps

__all__ = ["ClientTLS", "ServerTLS", "ServerTLSFiles", "server_context", "sslopt_faults"]

_SSLOPT_TEXTS = ("ca_certs", "certfile", "ciphers", "keyfile", "server_hostname")
_SSLOPT_KEYS = frozenset({*_SSLOPT_TEXTS, "cert_reqs", "check_hostname"})
_ALPN = ["http/1.1"]  # RFC 7301 section 6; a WebSocket over HTTP/2 would be RFC 8441


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


@dataclass(frozen=True)
class ServerTLSFiles:
    """What TLS towards clients is made of, as the settings say.

    :ivar certfile: the certificate chain (PEM), the server's own first.
    :ivar keyfile: its private key (PEM), without a password.
    :ivar client_ca: authorities (PEM) one of which has to have signed each client's certificate; None if
        clients need none.
    """

    certfile: str
    keyfile: str
    client_ca: str | None = None


class ServerTLS:
    """TLS towards clients: the server-side SSLContext, built again when one of its files changes.

    A context in use is never altered: connections keep the one they were made with, and its tickets are of
    no use with another. While changed files cannot be used, the context from before goes on, with a warning
    in the log. Safe from every thread.

    :param files: see :class:`ServerTLSFiles`.
    :raises ConfigError: if the files cannot be read, or do not belong together.
    """

    def __init__(self, files: ServerTLSFiles) -> None:
        self._files = files
        paths = dict.fromkeys(path for path in astuple(files) if path is not None)
        self._context = Reloaded("the TLS certificate", list(paths), self._build)
        try:
            self._context.get()
        except (OSError, ValueError) as exc:
            remedy = "tls_cert, tls_key and tls_client_ca have to name PEM files"
            raise ConfigError([f"TLS for clients: {exc}; {remedy}"]) from exc

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
        certfile, keyfile, client_ca = astuple(self._files)
        check_certificate(certfile, keyfile)
        if client_ca is not None:
            check_authorities(client_ca)
        try:
            return server_context(certfile, keyfile, client_ca)
        except ssl.SSLError as exc:
            raise ValueError(f"OpenSSL does not take {certfile}: {exc}") from exc


def sslopt_faults(sslopt: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with TLS options in websocket-client's vocabulary; see :class:`ClientTLS`.

    A text may be None, as if it was left out. Whatever would only happen to mean that less is verified, such
    as an empty name of a file or ``check_hostname=None``, is a fault.
    """
    faults = []
    if unknown := sorted(set(sslopt) - _SSLOPT_KEYS):
        known = ", ".join(sorted(_SSLOPT_KEYS))
        faults.append(f"sslopt has no {', '.join(unknown)}; it takes {known}")
    for key in _SSLOPT_TEXTS:
        value = sslopt.get(key)
        if value is not None and not (isinstance(value, str | os.PathLike) and os.fspath(value)):
            faults.append(f"sslopt has a {key} that is no text, or an empty one")
    if not isinstance(sslopt.get("check_hostname", True), bool):
        faults.append("sslopt has a check_hostname that is neither true nor false")
    demanded = sslopt.get("cert_reqs", ssl.CERT_REQUIRED)
    if type(demanded) not in (int, ssl.VerifyMode) or demanded not in tuple(ssl.VerifyMode):
        faults.append("sslopt has a cert_reqs that is none of the ssl module's")
    return faults


class ClientTLS:
    """The client-side SSLContext described by ``sslopt``, built again when one of its files changes.

    A context in use is never altered: connections keep the one they were made with. The session of the last
    full handshake is resumed, which spares both sides the certificate. Safe from every thread.

    :param sslopt: websocket-client's vocabulary, limited to ``ca_certs``, ``certfile``, ``keyfile``,
        ``ciphers``, ``server_hostname``, ``check_hostname`` and ``cert_reqs``. Without ``ca_certs`` the
        system's authorities are trusted.
    :raises ConfigError: if ``sslopt`` has another key, or a value that is none of it.
    """

    def __init__(self, sslopt: Mapping[str, Any]) -> None:
        if faults := sslopt_faults(sslopt):
            raise ConfigError(faults)
        self._sslopt = dict(sslopt)
        files = [self._sslopt[key] for key in ("ca_certs", "certfile", "keyfile") if self._sslopt.get(key)]
        self._context = Reloaded("the upstream TLS configuration", files, self._build)
        # Assigned as a whole and never altered, so it needs no lock: whichever thread was last is right.
        self._session: TLSSession | None = None

    def steps(
        self, sock: socket.socket, host: str, on_socket: Callable[[socket.socket], None]
    ) -> Steps[TLSTransport]:
        """Do the TLS handshake with ``host`` step by step, resuming a session if possible.

        :param sock: connected; of no use afterwards.
        :param on_socket: told of the TLS socket before the handshake.
        :raises OSError: as :meth:`context`.
        :raises TransportClosed: if the handshake fails; the text says why.
        """
        context, name = self.context(), self.server_hostname(host)
        kept = self._session
        session = kept.fitting(context, name) if kept else None
        try:
            return (yield from tls_steps(sock, context, on_socket, server_hostname=name, session=session))
        except TransportClosed:
            self._session = None  # should it be to blame, it is not so again
            raise

    def keep_session(self, transport: TLSTransport) -> None:
        """Let later connections resume this one's session. Does not block.

        :param transport: made by :meth:`steps`; something must have been received from it.
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
