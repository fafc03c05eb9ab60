"""The backends that serve the sessions of a simulated VMI."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Protocol

from ...exceptions import TransportClosed
from .console import FakeConsole
from .frames import encode_message

__all__ = ["Backend", "Echo", "Script", "SocketBackend", "Stream", "TCPBackend", "UnixBackend"]

# The size of io.Copy's buffer in virt-handler. Each of its reads becomes one message.
_READ = 32768
_CONNECT_TIMEOUT = 5.0


class Backend(Protocol):
    """Serves sessions. Several threads may call it at once."""

    def serve(self, console: FakeConsole) -> None:
        """Serve one session in its own thread. When it returns, the connection is dropped without a Close.

        ``TransportClosed`` and ``EOFError`` have the same effect as a return. Every other exception goes to
        ``FakeKubeVirtAPI.errors``.
        """


class Echo:
    """Sends every binary message back, as one binary message."""

    def serve(self, console: FakeConsole) -> None:
        message = bytearray()

        def consume(payload: bytes, fin: bool) -> None:
            if fin and not message:
                console.send_message(payload)
                return
            message.extend(payload)
            if fin:
                console.send_message(bytes(message))
                message.clear()

        console.read_data(consume)


class Script:
    """Runs a function in the session's thread. Nothing else answers a Ping or a Close.

    :param run: gets the session.
    """

    def __init__(self, run: Callable[[FakeConsole], None]) -> None:
        self._run = run

    def serve(self, console: FakeConsole) -> None:
        self._run(console)


class _Relay:
    """Serves both directions of a session: the session's thread receives, and a second thread sends.

    :param produce: sends. When it returns, the connection is dropped.
    :param consume: gets the bytes that the client sends.
    """

    def __init__(
        self, console: FakeConsole, produce: Callable[[], None], consume: Callable[[bytes], None]
    ) -> None:
        self._console = console
        self._produce = produce
        self._consume = consume
        self._reader_done = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run until either side ends, or the session is killed. Blocks without a timeout."""
        name = f"{threading.current_thread().name}-backend"
        # It is joined below. It is a daemon so that a process ends even if a test forgets to stop the API.
        writer = threading.Thread(target=self._send, name=name, daemon=True)
        writer.start()
        try:
            self._console.read_data(self._receive)
        finally:
            self._reader_done.set()
            self._console.kill()
            writer.join()
        if self._error is not None:
            raise self._error

    def _receive(self, payload: bytes, fin: bool) -> None:
        try:
            self._consume(payload)
        except OSError:
            pass  # the backend has ended; further bytes of the client are dropped

    def _send(self) -> None:
        try:
            self._produce()
        except (TransportClosed, OSError):
            pass  # the client or the backend has ended
        except BaseException as exc:  # noqa: BLE001 - the session's thread raises it
            self._error = exc
        self._console.drop()
        if not self._reader_done.wait(self._console.linger_seconds):
            self._console.kill()


class Stream:
    """Sends RFB-like bytes as fast as the client takes them, and counts the bytes that the client sends.

    :param chunk: bytes in one message. virt-handler's messages have at most 32768.
    :param total: payload bytes after which the session ends, as when a VM stops; None for no end.
    :param stay: with ``total``: whether the session stays open after the last byte, until the client ends it.
    :ivar bytes_sent: payload bytes that were passed to the kernel, of all sessions.
    :ivar bytes_received: payload bytes of received binary messages, of all sessions.
    """

    GREETING = b"RFB 003.008\n"

    def __init__(self, chunk: int = _READ, total: int | None = None, *, stay: bool = False) -> None:
        self.bytes_sent = 0
        self.bytes_received = 0
        self._payload = (bytes(range(256)) * (chunk // 256 + 1))[:chunk]
        self._frames = encode_message(self._payload)
        self._total = total
        self._stay = stay
        # Guards bytes_sent and bytes_received.
        self._lock = threading.Lock()

    def serve(self, console: FakeConsole) -> None:
        _Relay(console, lambda: self._produce(console), self._count).run()

    def _count(self, payload: bytes) -> None:
        with self._lock:
            self.bytes_received += len(payload)

    def _produce(self, console: FakeConsole) -> None:
        left = self._total
        self._send(console, self.GREETING[:left], None)
        left = None if left is None else left - len(self.GREETING)
        while left is None or left > 0:
            whole = left is None or left >= len(self._payload)
            payload = self._payload if whole else self._payload[:left]
            self._send(console, payload, self._frames if whole else None)
            left = None if left is None else left - len(payload)
        if self._stay:
            console.killed.wait()

    def _send(self, console: FakeConsole, payload: bytes, frames: bytes | None) -> None:
        with self._lock:
            self.bytes_sent += len(payload)
        console.send_raw(frames or encode_message(payload))


def _copy_socket(console: FakeConsole, sock: socket.socket) -> None:
    """Copy between a session and a stream socket until either side ends. The caller closes the socket."""

    def produce() -> None:
        while data := sock.recv(_READ):
            console.send_message(data)

    def wake() -> None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is no longer connected

    console.on_kill(wake)
    _Relay(console, produce, sock.sendall).run()


class TCPBackend:
    """Connects each session to a TCP server. As in KubeVirt, it connects after the 101.

    So if the server refuses, the client gets the 101 and then EOF.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def serve(self, console: FakeConsole) -> None:
        try:
            sock = socket.create_connection(self._address, timeout=_CONNECT_TIMEOUT)
        except OSError:
            return
        with sock:
            sock.settimeout(None)
            _copy_socket(console, sock)


class UnixBackend:
    """Connects each session to a Unix stream socket, such as QEMU's VNC server. Like :class:`TCPBackend`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def serve(self, console: FakeConsole) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.settimeout(_CONNECT_TIMEOUT)
                sock.connect(self._path)
            except OSError:
                return
            sock.settimeout(None)
            _copy_socket(console, sock)


class SocketBackend:
    """Calls a function with a connected stream socket, in a separate thread for each session.

    :param serve: gets the socket, which is closed when the function returns. It must return at the end of the
        stream. ``OSError`` has the same effect as a return.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve

    def serve(self, console: FakeConsole) -> None:
        errors: list[BaseException] = []
        ours, theirs = socket.socketpair()

        def run() -> None:
            with theirs:
                try:
                    self._serve(theirs)
                except OSError:
                    pass  # the session has ended
                except BaseException as exc:  # noqa: BLE001 - the session's thread raises it
                    errors.append(exc)

        server = threading.Thread(target=run, name=f"{threading.current_thread().name}-serve", daemon=True)
        server.start()
        try:
            with ours:
                _copy_socket(console, ours)
        finally:
            server.join()
        if errors:
            raise errors[0]
