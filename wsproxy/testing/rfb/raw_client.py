"""A WebSocket client that sends and receives exactly what a test says, whether valid or not."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import ClassVar
from urllib.parse import urlsplit

from ...exceptions import TransportClosed
from ...net.listeners import UNIX
from ...net.tls import TLSTransport
from ...net.transport import PlainTransport, Transport
from ...runtime.deadline import Deadline
from ..kubevirt.frames import CLOSE, Frame, FrameBuffer, close_payload, encode_frame, parse_close

__all__ = ["RawClient", "client_context"]

_RECEIVE = 65536
_TIMEOUT = 60.0  # a busy machine may need much of it, and only a hang takes all


def client_context(ca_file: str, certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
    """Return a client's context with which a FIN without close_notify is an error.

    :param ca_file: authorities to trust (PEM).
    :param certificate: files with the client's own certificate and its key.
    :raises OSError: if a file cannot be read, or is not PEM (:class:`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


class RawClient:
    """One connection to a proxy, with or without TLS.

    One thread may receive while another sends. Every call that receives blocks for its timeout at most, and
    then raises TimeoutError. It raises ConnectionError after an RST, or after a FIN without close_notify.

    :param address: host and port.
    :param receive_buffer: bytes of the kernel's receive buffer. A small one fills soon.
    :param tls: see :func:`client_context`; None for :attr:`default_tls`.
    :ivar sock: the socket; a :class:`ssl.SSLSocket` with TLS.
    :ivar timeout: seconds that sending may take.
    """

    default_tls: ClassVar[ssl.SSLContext | None] = None
    """The context of clients that get none; None for no TLS. A test case may set it for a while."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        at_path = address[0].startswith(UNIX)
        family = socket.AF_UNIX if at_path else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.timeout = _TIMEOUT
        self.sock.settimeout(_TIMEOUT)
        try:
            self.sock.connect(address[0].removeprefix(UNIX) if at_path else address)
            self._transport = self._secured(tls or self.default_tls, address[0])
        except BaseException:
            self.sock.close()
            raise
        self._frames = FrameBuffer()
        self.head = b""

    def _secured(self, context: ssl.SSLContext | None, host: str) -> Transport:
        if context is None:
            return PlainTransport(self.sock)
        self.sock = context.wrap_socket(
            self.sock, server_hostname=host, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        transport = TLSTransport(self.sock)
        try:
            transport.handshake(Deadline(_TIMEOUT))
        except TransportClosed as exc:
            raise ConnectionError(str(exc)) from exc
        return transport

    @classmethod
    def open(
        cls,
        url: str,
        *,
        headers: Sequence[str] = (),
        early: bytes = b"",
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> RawClient:
        """Open a URL and return the client, whatever the answer is; see :attr:`status`.

        :param url: ``ws://``, or with TLS ``wss://``.
        :param headers: further header lines of the request.
        :param early: bytes to send in the same write as the request.
        """
        parts = urlsplit(url)
        if (parts.scheme == "wss") != bool(tls or cls.default_tls):
            raise ValueError(f"give a TLS context with wss:// URLs only; this is {parts.scheme}://")
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        client = cls((parts.hostname or "", port), receive_buffer=receive_buffer, tls=tls)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            client.send_raw(cls.request(target, headers) + early)
            client.read_head()
        except BaseException:
            client.close()
            raise
        return client

    @staticmethod
    def request(target: str, headers: Sequence[str] = ()) -> bytes:
        """Return a valid upgrade request."""
        lines = [
            f"GET {target} HTTP/1.1",
            "Host: proxy",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==",
            *headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def read_head(self, timeout: float = _TIMEOUT) -> None:
        """Receive the response head into ``head``. Later bytes stay for the next call."""
        data, deadline = b"", Deadline(timeout)
        while b"\r\n\r\n" not in data:
            received = self._receive(deadline)
            if not received:
                raise ConnectionError(f"the connection ended after {data!r}")
            data += received
        self.head, _, rest = data.partition(b"\r\n\r\n")
        self._frames.feed(rest)

    @property
    def status(self) -> int:
        """The response's HTTP status."""
        return int(self.head.split(b" ")[1])

    def header(self, name: str) -> str | None:
        """Return a response header; None if the response does not have it."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.decode("latin-1").partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    def body(self) -> bytes:
        """Receive until the end of the connection."""
        data, deadline = self._frames.take(_RECEIVE), Deadline(_TIMEOUT)
        while received := self._receive(deadline):
            data += received
        return data

    def send_raw(self, data: bytes) -> None:
        """Send bytes unchanged. Blocks for at most ``timeout`` seconds."""
        try:
            self._transport.send(data, Deadline(self.timeout))
        except TransportClosed as exc:
            raise ConnectionError(str(exc)) from exc

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
        """Send one frame with a random mask and return its bytes."""
        frame = encode_frame(opcode, payload, fin=fin, mask=os.urandom(4))
        self.send_raw(frame)
        return frame

    def send_close(self, code: int | None = 1000, reason: str = "") -> bytes:
        """Send a Close frame; with code None, one without a code. Returns its bytes."""
        return self.send_frame(CLOSE, close_payload(code, reason))

    def recv_frame(self, timeout: float = _TIMEOUT) -> Frame:
        """Receive one frame. Raises EOFError at the end of the connection."""
        deadline = Deadline(timeout)
        while (frame := self._frames.next()) is None:
            data = self._receive(deadline)
            if not data:
                raise EOFError("the connection ended")
            self._frames.feed(data)
        return frame

    def recv_close(self, timeout: float = _TIMEOUT) -> tuple[int, str]:
        """Receive until a Close frame, and return its code and reason; code 1005 if it has none."""
        deadline = Deadline(timeout)
        while (frame := self.recv_frame(deadline.remaining())).opcode != CLOSE:
            pass
        return parse_close(frame.payload)

    def recv_raw(self, timeout: float = _TIMEOUT) -> bytes:
        """Receive at least one byte; b"" at the end."""
        return self._frames.take(_RECEIVE) or self._receive(Deadline(timeout))

    def wait_for_end(self, timeout: float = _TIMEOUT) -> bool:
        """Receive and drop bytes until the connection ends. Returns whether it ended in good order.

        That means by FIN, and not by RST, and with TLS after a close_notify.
        """
        deadline = Deadline(timeout)
        try:
            while self._receive(deadline):
                pass
        except ConnectionError:
            return False
        return True

    def drop(self) -> None:
        """Send FIN without close_notify. Receiving still works."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def reset(self) -> None:
        """Close the connection with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._transport.close()

    def _receive(self, deadline: Deadline) -> bytes:
        try:
            return self._transport.recv(_RECEIVE, deadline)
        except TransportClosed as exc:
            raise ConnectionError(str(exc)) from exc

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
