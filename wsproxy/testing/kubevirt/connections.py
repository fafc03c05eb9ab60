"""A TCP server with one thread for each connection. Its ``stop`` ends all of them."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

from ...kinds import setting_value
from ...net.listeners import naming_address
from ...net.sockets import tune
from ...runtime.deadline import Deadline
from .console import Wire

__all__ = ["ConnectionServer"]

_BACKLOG = 1024
_PAUSE = 0.05


class ConnectionServer:
    """Listens from construction on, and accepts from :meth:`start` to :meth:`stop`.

    :param host: a host name or an IP address.
    :param port: 0 for any free port.
    :param serve: gets each accepted socket, its :class:`Wire` and the peer's address, in a separate thread.
        Afterwards the socket and the wire are closed.
    :param fail: gets the exceptions that ``serve`` raises.
    :param socket_buffer: bytes of the kernel's buffers for each direction of a connection.
    :raises ConfigError: if the port is not valid.
    :raises OSError: if it cannot listen. The text names the address.
    """

    def __init__(
        self,
        host: str,
        port: int,
        serve: Callable[[socket.socket, Wire, Any], None],
        fail: Callable[[BaseException], None],
        socket_buffer: int | None = None,
    ) -> None:
        self._serve = serve
        self._fail = fail
        self._stopping = threading.Event()
        # Guards _connections and accepted.
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, Wire] = {}
        self.accepted = 0
        self._listener = _listen(host, port, socket_buffer)
        self.address: tuple[Any, ...] = self._listener.getsockname()
        self._waker, self._woken = socket.socketpair()
        # stop() joins it. It is a daemon so that a process ends even if a test forgets stop().
        name = f"fake-kubevirt-{self.address[1]}-accept"
        self._acceptor = threading.Thread(target=self._accept, name=name, daemon=True)

    def start(self) -> None:
        """Start accepting connections."""
        self._acceptor.start()

    def stop(self, deadline: Deadline, kill: Callable[[], None]) -> list[threading.Thread]:
        """Stop accepting, end every connection, and join the threads. Blocks until the deadline at most.

        Call it only once.

        :param kill: is called after the last connection has been accepted.
        :return: the threads that have not ended.
        """
        self._stopping.set()
        self._waker.close()
        threads = [self._acceptor]
        _join(threads, deadline)
        self._listener.close()
        kill()
        with self._lock:
            connections = dict(self._connections)
        for wire in connections.values():
            wire.shutdown(socket.SHUT_RDWR)
        threads += connections
        _join(threads, deadline)
        self._woken.close()
        return [thread for thread in threads if thread.is_alive()]

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                self._accept_one()

    def _accept_one(self) -> None:
        try:
            sock, peer = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # stop() woke the thread, or the client has disconnected already
        except OSError:  # no descriptor is left; the connection stays in the backlog, so select() returns
            self._stopping.wait(_PAUSE)
            return
        try:
            sock.setblocking(True)
            tune(sock)
            self._spawn(sock, peer)
        except BaseException as exc:  # noqa: BLE001 - a thread cannot start, or a client has disconnected
            sock.close()
            if not isinstance(exc, OSError):
                self._fail(exc)

    def _spawn(self, sock: socket.socket, peer: Any) -> None:
        wire = Wire(sock)
        with self._lock:
            self.accepted += 1
            name = f"fake-kubevirt-{self.address[1]}-{self.accepted}"
            thread = threading.Thread(target=self._run, args=(sock, wire, peer), name=name, daemon=True)
            self._connections[thread] = wire
        try:
            thread.start()
        except BaseException:
            self._forget(thread)
            wire.close()
            raise

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            del self._connections[thread]

    def _run(self, sock: socket.socket, wire: Wire, peer: Any) -> None:
        try:
            self._serve(sock, wire, peer)
        except BaseException as exc:  # noqa: BLE001 - tests see it in FakeKubeVirtAPI.errors
            self._fail(exc)
        finally:
            sock.close()
            wire.close()
            self._forget(threading.current_thread())


def _listen(host: str, port: int, socket_buffer: int | None) -> socket.socket:
    port = setting_value("Port", "port", port)
    with naming_address(host, port):
        return _bound(host, port, socket_buffer)


def _bound(host: str, port: int, socket_buffer: int | None) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if socket_buffer is not None:  # accepted sockets inherit them
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, socket_buffer)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, socket_buffer)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        return listener
    except BaseException:
        listener.close()
        raise


def _join(threads: list[threading.Thread], deadline: Deadline) -> None:
    for thread in threads:
        try:
            thread.join(deadline.remaining())
        except TimeoutError:
            return
