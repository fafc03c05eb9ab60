"""A TCP server with one thread for each connection, all of which its stop ends."""

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
    """Listens at once; accepts from :meth:`start` to :meth:`stop`.

    :param host: a name or literal address; port 0 is asked for.
    :param port: 0 for any.
    :param serve: is given each accepted socket, its :class:`Wire` and the peer's address, in a thread of
        its own; both are closed after it.
    :param fail: is given what ``serve`` raises.
    :param socket_buffer: bytes of the kernel's buffers for each direction of a connection.
    :raises ConfigError: if there is no such port.
    :raises OSError: if it cannot listen; the text says where.
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
        # A daemon only so that a test that forgets stop() ends; stop() joins it.
        name = f"fake-kubevirt-{self.address[1]}-accept"
        self._acceptor = threading.Thread(target=self._accept, name=name, daemon=True)

    def start(self) -> None:
        """Start to accept."""
        self._acceptor.start()

    def stop(self, deadline: Deadline, kill: Callable[[], None]) -> list[threading.Thread]:
        """Stop to accept, end every connection, and join the threads. Once. Blocks until the deadline.

        :param kill: is called when nothing is accepted any more.
        :return: the threads that did not end.
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
            return  # woken, or the client is gone already
        except OSError:  # no descriptor left: the connection stays in the queue, and select() returns
            self._stopping.wait(_PAUSE)
            return
        try:
            sock.setblocking(True)
            tune(sock)
            self._spawn(sock, peer)
        except BaseException as exc:  # noqa: BLE001 - a thread that cannot start, a client that is gone
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
        except BaseException as exc:  # noqa: BLE001 - recorded, where a test can see it
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
