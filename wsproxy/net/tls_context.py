"""Builds every SSLContext, and builds it again when its files change.

Only this file and :mod:`wsproxy.net.tls` use :mod:`ssl`.
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
    """Return a context for the server side. Blocks on the file system only.

    :param certfile: the certificate chain (PEM), the server's own first.
    :param keyfile: its private key (PEM), without a password.
    :param client_ca: file of CAs (PEM) for client certificates. If it is given, each client must have a
        certificate of one of them. None if clients need no certificate.
    :raises OSError: if a file cannot be read, or OpenSSL rejects it (``ssl.SSLError``).
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(_ALPN)
    _load_chain(context, certfile, keyfile)
    if client_ca is not None:
        context.load_verify_locations(cafile=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _context(protocol: int) -> ssl.SSLContext:
    """Return a context with the proxy's options: TLS 1.2 or newer, no compression, no renegotiation.

    If a peer sends FIN without close_notify, that is a normal end of the stream, because WebSocket has its
    own Close. OpenSSL would send an alert, and the proxy could not send its last bytes.
    """
    # Not create_default_context, which writes TLS keys to the file in SSLKEYLOGFILE.
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # OpenSSL 3 has it, and needs it
    return context


def _load_chain(context: ssl.SSLContext, certfile: str, keyfile: str | None) -> None:
    context.load_cert_chain(certfile, keyfile, password="")  # without a password OpenSSL asks on the terminal


@dataclass(frozen=True)
class ServerTLSFiles:
    """The files for TLS towards clients, from the settings.

    :ivar certfile: the certificate chain (PEM), the server's own first.
    :ivar keyfile: its private key (PEM), without a password.
    :ivar client_ca: CAs (PEM) for client certificates. If it is given, each client must have a certificate
        of one of them. None if clients need no certificate.
    """

    certfile: str
    keyfile: str
    client_ca: str | None = None


class ServerTLS:
    """TLS towards clients: the server-side SSLContext, built again when one of its files changes.

    A context never changes: each connection keeps the context that it began with. Session tickets of one
    context are not valid with another. While changed files cannot be used, the last context stays in use, and
    the log gets a warning. Safe from every thread.

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
            fault = f"cannot read {exc.filename}: {exc.strerror}" if isinstance(exc, OSError) else exc
            raise ConfigError([f"TLS for clients: {fault}; {remedy}"]) from exc

    def reload(self) -> None:
        """Read the files again at once. Any thread; blocks on the file system only."""
        self._context.reload()

    def wrap(self, sock: socket.socket) -> TLSTransport:
        """Return a transport before its handshake. It owns the connection; do not use ``sock`` any more.

        Blocks on the file system only.

        :raises TransportClosed: if the client has disconnected.
        """
        context = self._context.get()
        with closed_on_error():
            sock.getpeername()  # if this fails, wrap_socket would fail and leave the socket open
            return TLSTransport(context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False))

    def _build(self) -> ssl.SSLContext:
        certfile, keyfile, client_ca = astuple(self._files)
        check_certificate(certfile, keyfile)
        if client_ca is not None:
            check_authorities(client_ca)
        try:
            return server_context(certfile, keyfile, client_ca)
        except ssl.SSLError as exc:
            raise ValueError(f"OpenSSL rejects {certfile}: {exc}") from exc


def sslopt_faults(sslopt: Mapping[str, Any]) -> list[str]:
    """Return the faults of TLS options in websocket-client's format; see :class:`ClientTLS`.

    A text may be None, which means the same as a missing key. Values that would weaken the verification by
    accident, such as an empty file name or ``check_hostname=None``, are faults.
    """
    faults = []
    if unknown := sorted(set(sslopt) - _SSLOPT_KEYS):
        known = ", ".join(sorted(_SSLOPT_KEYS))
        faults.append(f"sslopt has the unknown key {', '.join(unknown)}; known keys are {known}")
    for key in _SSLOPT_TEXTS:
        value = sslopt.get(key)
        if value is not None and not (isinstance(value, str | os.PathLike) and os.fspath(value)):
            faults.append(f"sslopt has a {key} that is not a text, or is empty")
    if not isinstance(sslopt.get("check_hostname", True), bool):
        faults.append("sslopt has a check_hostname that is neither true nor false")
    demanded = sslopt.get("cert_reqs", ssl.CERT_REQUIRED)
    if type(demanded) not in (int, ssl.VerifyMode) or demanded not in tuple(ssl.VerifyMode):
        faults.append("sslopt has a cert_reqs that is not one of the ssl module's CERT_ values")
    return faults


class ClientTLS:
    """The client-side SSLContext described by ``sslopt``, built again when one of its files changes.

    A context never changes: each connection keeps the context that it began with. New connections resume the
    session of the last full handshake, so that neither side handles certificates again. Safe from every
    thread.

    :param sslopt: options in websocket-client's format, limited to ``ca_certs``, ``certfile``, ``keyfile``,
        ``ciphers``, ``server_hostname``, ``check_hostname`` and ``cert_reqs``. Without ``ca_certs`` the
        context trusts the system's CAs.
    :param what: its name in log lines.
    :raises ConfigError: if ``sslopt`` has another key, or an invalid value.
    """

    def __init__(self, sslopt: Mapping[str, Any], what: str = "the upstream TLS configuration") -> None:
        if faults := sslopt_faults(sslopt):
            raise ConfigError(faults)
        self._sslopt = dict(sslopt)
        files = [self._sslopt[key] for key in ("ca_certs", "certfile", "keyfile") if self._sslopt.get(key)]
        self._context = Reloaded(what, files, self._build)
        # Needs no lock: it is assigned as a whole and never changes, and the last assignment may win.
        self._session: TLSSession | None = None

    def steps(
        self, sock: socket.socket, host: str, on_socket: Callable[[socket.socket], None]
    ) -> Steps[TLSTransport]:
        """Do the TLS handshake with ``host`` step by step, and resume a session if possible.

        :param sock: a connected socket; do not use it afterwards.
        :param on_socket: gets the TLS socket before the handshake.
        :raises OSError: as :meth:`context`.
        :raises TransportClosed: if the handshake fails; the text says why.
        """
        context, name = self.context(), self.server_hostname(host)
        kept = self._session
        session = kept.fitting(context, name) if kept else None
        try:
            return (yield from tls_steps(sock, context, on_socket, server_hostname=name, session=session))
        except TransportClosed:
            self._session = None  # in case the session caused the failure
            raise

    def keep_session(self, transport: TLSTransport) -> None:
        """Have later connections resume the session of this one. Does not block.

        :param transport: made by :meth:`steps`; it must have received some bytes.
        """
        self._session = transport.session(self._session)

    def context(self) -> ssl.SSLContext:
        """Return the context. Any thread; blocks on the file system only.

        :raises OSError: if a file cannot be read, or holds no certificate or key (``ssl.SSLError``).
        """
        return self._context.get()

    def reload(self) -> None:
        """Read the files again at once. Any thread; blocks on the file system only."""
        self._context.reload()

    def server_hostname(self, host: str) -> str:
        """Return the name that the server's certificate must have: ``sslopt``'s, or else ``host``."""
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
