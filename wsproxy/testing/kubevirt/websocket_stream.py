"""A WebSocket as a byte stream, with websocket-client. Viewers in tests use it."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import websocket

from ...net.tls import forget_errors
from ...runtime.deadline import Deadline
from ..rfb.errors import ABNORMAL, ConsoleClosed, UpgradeRefused

__all__ = ["WebSocketStream", "open_websocket"]

_NO_STATUS = 1005  # stands for a Close frame without a code; never on the wire
_CHUNK = 65536
_RECV_SECONDS = 0.25  # after this time without data, the reader can check its own timeout
_DATA = (websocket.ABNF.OPCODE_CONT, websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY)


@contextmanager
def _leaves_no_error() -> Iterator[None]:
    """If the block fails, empty the thread's queue of OpenSSL errors; see :func:`.forget_errors`."""
    try:
        yield
    except BaseException:
        forget_errors()
        raise


def open_websocket(
    url: str,
    timeout: float = 10.0,
    *,
    header: Iterable[str] = (),
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    tls: ssl.SSLContext | None = None,
) -> websocket.WebSocket:
    """Open a ws:// or wss:// URL with websocket-client and return the connection. Blocks.

    Follows no redirects, uses no proxy from the environment, and sends an Origin only if one is given.

    :param timeout: seconds that each system call may take.
    :param header: lines ``Name: value``.
    :param tls: the context for a wss:// URL; None to trust the system's authorities.
    :raises UpgradeRefused: if the server answers with another status than 101.
    :raises OSError: if the server cannot be reached, or its certificate is not trusted.
    :raises ValueError: for other URLs, and for a context with a ws:// URL.
    """
    target = urlsplit(url)
    if target.scheme not in ("ws", "wss") or not target.hostname:
        raise ValueError("a console's URL begins with ws://HOST or wss://HOST")
    if target.scheme == "wss":
        tls = tls or ssl.create_default_context()
    elif tls:
        raise ValueError("a TLS context is given, but the URL begins with ws://")
    with ExitStack() as owned:
        connection = socket.create_connection((target.hostname, target.port or (443 if tls else 80)), timeout)
        owned.enter_context(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            connection = tls.wrap_socket(connection, server_hostname=target.hostname)
            owned.enter_context(connection)
        connected = _upgrade(connection, url, timeout, list(header), origin, list(subprotocols))
        if connected.getstatus() != 101:  # websocket-client before 1.9.2 raises nothing for a redirect
            raise UpgradeRefused(connected.getstatus(), connected.getheaders() or {}, b"")
        owned.pop_all()  # websocket-client owns the socket now
    return connected


def _upgrade(
    connection: socket.socket,
    url: str,
    timeout: float,
    header: list[str],
    origin: str | None,
    subprotocols: list[str],
) -> websocket.WebSocket:
    try:
        with _leaves_no_error():
            return websocket.create_connection(
                url,
                timeout,
                socket=connection,
                header=header,
                origin=origin,
                suppress_origin=origin is None,
                subprotocols=subprotocols or None,
                redirect_limit=0,
                enable_multithread=False,
            )
    except websocket.WebSocketBadStatusException as exc:
        raise UpgradeRefused(exc.status_code, exc.resp_headers or {}, exc.resp_body or b"") from None
    except websocket.WebSocketTimeoutException as exc:
        raise TimeoutError("the opening handshake took too long") from exc
    except websocket.WebSocketException as exc:
        raise ConnectionError(f"the opening handshake failed: {exc}") from exc


class WebSocketStream:
    """The payload of a WebSocket's messages as one byte stream.

    While it reads, it answers a Ping with a Pong, and a Close with a Close of the same code. `timeout`, in
    seconds, bounds each send and the wait for an answer to a Close. Only one thread at a time may use it.
    """

    def __init__(self, connection: websocket.WebSocket, timeout: float = 10.0) -> None:
        self.connection = connection
        self.closed: ConsoleClosed | None = None
        self._timeout = timeout
        self._rest = b""
        self._close_sent = False

    def recv(self, max_bytes: int, /) -> bytes:
        """Return payload bytes; b"" if TCP ended without a Close frame.

        After a quarter of a second without data it raises TimeoutError. A later call continues without loss.
        After the server's Close, every call raises ConsoleClosed.
        """
        while not self._rest:
            if self.closed is not None:
                raise self.closed
            try:
                frame = self._read_frame()
            except EOFError:
                return b""
            self._take(frame.opcode, frame.data)
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    def sendall(self, data: bytes, /) -> None:
        """Send bytes as one binary message. After an exception, only :meth:`close` works."""
        self._send(data, websocket.ABNF.OPCODE_BINARY)

    def close(self, code: int = 1000) -> None:
        """Send Close, wait for the answer for at most `timeout` seconds, and close the socket.

        Idempotent, never raises. Afterwards `closed` contains the answer.
        """
        deadline = Deadline(self._timeout)
        with suppress(OSError):
            if self.connection.sock is not None and not self._close_sent:
                self._send_close(struct.pack(">H", code))
                self._await_close(deadline)
        self.connection.shutdown()  # type: ignore[no-untyped-call]

    def _await_close(self, deadline: Deadline) -> None:
        while not deadline.passed:
            with suppress(TimeoutError):
                self._rest = b""
                if not self.recv(_CHUNK):
                    return

    def _read_frame(self) -> websocket.ABNF:
        """Return one frame. This does not use recv_data, which answers every Close with code 1000."""
        try:
            self.connection.settimeout(_RECV_SECONDS)
            with _leaves_no_error():
                frame: websocket.ABNF = self.connection.recv_frame()  # type: ignore[no-untyped-call]
        except websocket.WebSocketTimeoutException as exc:
            raise TimeoutError("nothing to read yet") from exc
        except websocket.WebSocketConnectionClosedException as exc:
            raise EOFError from exc
        except websocket.WebSocketException as exc:
            raise ConnectionError(f"the server broke RFC 6455: {exc}") from exc
        return frame

    def _take(self, opcode: int, payload: bytes | str) -> None:
        data = payload.encode() if isinstance(payload, str) else bytes(payload)
        if opcode in _DATA:
            self._rest += data
        elif opcode == websocket.ABNF.OPCODE_PING:
            self._send(data, websocket.ABNF.OPCODE_PONG)
        elif opcode == websocket.ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big") if data else _NO_STATUS
            self.closed = ConsoleClosed(code, data[2:].decode("utf-8", "replace"))
            if not self._close_sent:
                with suppress(OSError):  # the server may have disconnected meanwhile
                    self._send_close(data[:2])

    def _send_close(self, payload: bytes) -> None:
        self._close_sent = True
        self._send(payload, websocket.ABNF.OPCODE_CLOSE)

    def _send(self, data: bytes, opcode: int) -> None:
        try:
            self.connection.settimeout(self._timeout)
            with _leaves_no_error():
                self.connection.send(data, opcode)
        except websocket.WebSocketTimeoutException as exc:
            raise TimeoutError("the server does not read") from exc
        except websocket.WebSocketException as exc:
            raise self.closed or ConsoleClosed(ABNORMAL, str(exc)) from exc
