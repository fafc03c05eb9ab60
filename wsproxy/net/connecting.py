"""Connects to a server of which some addresses may not answer (RFC 8305, "Happy Eyeballs").

A dead server does not answer TCP. A frozen server does, because its kernel needs no program for that, but it
does not answer TLS. So an address wins when both handshakes are done. No request is sent before that.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from ..exceptions import TransportClosed
from ..runtime.deadline import Clock, Deadline
from ..runtime.forks import in_forked_child
from .resolver import Resolver
from .sockets import READABLE, WRITABLE, Address, Steps, closed_on_error, take, tune, wait_any
from .tls_context import ClientTLS
from .transport import PlainTransport, Transport

__all__ = ["Connected", "Connector", "OnSocket", "connect"]

OnSocket = Callable[[socket.socket], None]

_ATTEMPT_DELAY = 0.25  # RFC 8305 section 8: seconds before the next attempt starts beside the others
_REMEMBERED_SECONDS = 60.0
_WOKEN = "another thread stopped the connecting"


class Connected(NamedTuple):
    """A connection, after the TLS handshake if TLS is used.

    :ivar transport: no request has been sent on it yet.
    :ivar address: the address that answered.
    :ivar slower: the addresses that were tried earlier, but answered later or not at all.
    """

    transport: Transport
    address: Address
    slower: tuple[Address, ...]


class Connector:
    """Connects to one server, and remembers which of its addresses do not answer. Safe from every thread.

    :param host: a name or a literal address.
    :param resolver: resolves a name.
    :param tls: does the TLS handshake; None for plain TCP.
    :param clock: seconds, for how long an address is remembered.
    """

    def __init__(
        self,
        host: str,
        port: int,
        resolver: Resolver,
        tls: ClientTLS | None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._host = host
        self._port = port
        self._resolver = resolver
        self._tls = tls
        self._clock = clock
        # Guards the attribute below.
        self._lock = threading.Lock()
        self._silent: dict[Address, float] = {}  # addresses that did not answer; until when to try them last

    def connect(
        self, deadline: Deadline, on_socket: OnSocket, given_up: Future[None] | None = None
    ) -> Connected:
        """Connect to the address that answers first. Addresses that did not answer lately are tried last.

        Blocks until the deadline, which covers name, TCP and TLS.

        :param on_socket: gets every socket before it blocks, so that another thread can shut it down.
        :param given_up: see :meth:`.Resolver.resolve`.
        :raises TimeoutError: if the deadline passes.
        :raises OSError: if the files for TLS cannot be read.
        :raises TransportClosed: if no address answers; the text says why.
        """
        addresses = self._ordered(self._resolver.resolve(self._host, self._port, deadline, given_up))
        connected = connect(addresses, deadline, on_socket, self._host, self._tls)
        self.note_answer(connected.address)
        self.note_silent(*connected.slower)
        return connected

    @contextmanager
    def connection(
        self,
        deadline: Deadline,
        on_socket: OnSocket,
        given_up: Future[None] | None = None,
        let_go: Callable[[Transport], None] = Transport.close,
    ) -> Iterator[Transport]:
        """Connect as :meth:`connect` does, for a ``with`` block. If the block raises, call ``let_go``.

        :param let_go: gets the transport, and has to close it.
        """
        transport, address, _ = self.connect(deadline, on_socket, given_up)
        try:
            yield transport
        except BaseException as exc:
            let_go(transport)
            if isinstance(exc, TimeoutError):  # the address may be dead: next time, try another one first
                self.note_silent(address)
            raise

    def note_answer(self, address: Address) -> None:
        """Note that an address answers: try it in its usual turn again."""
        with self._lock:
            self._silent.pop(address, None)

    def note_silent(self, *addresses: Address) -> None:
        """Note that these addresses do not answer: for a minute, try them after the others."""
        until = self._clock() + _REMEMBERED_SECONDS
        with self._lock:
            self._silent |= dict.fromkeys(addresses, until)

    def _ordered(self, addresses: Sequence[Address]) -> list[Address]:
        now = self._clock()
        with self._lock:
            # Forget addresses that the server no longer has: a name may resolve to others each time.
            self._silent = {
                address: until
                for address, until in self._silent.items()
                if until > now and address in addresses
            }
            return sorted(_interleaved(addresses), key=lambda address: self._silent.get(address, 0.0))


def _interleaved(addresses: Iterable[Address]) -> Iterable[Address]:
    """Alternate between the address families, starting with the first address's (RFC 8305 section 4)."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return (address for address in chain.from_iterable(zip_longest(*families.values())) if address)


def connect(
    addresses: Sequence[Address],
    deadline: Deadline,
    on_socket: OnSocket,
    host: str = "",
    tls: ClientTLS | None = None,
) -> Connected:
    """Connect to the first address that answers.

    The next attempt starts when one has failed, or after a quarter of a second without an answer. If less
    than half a second is left, it starts after half of that. Blocks until the deadline.

    :param on_socket: as for :meth:`Connector.connect`. With several addresses it gets one socket that stands
        for all attempts, and then the connected one.
    :param host: the name that the server's certificate must have.
    :param tls: None for plain TCP.
    :raises TimeoutError: if the deadline passes.
    :raises TransportClosed: if no address answers, or if ``on_socket``'s socket is shut down.
    """
    if len(addresses) > 1:
        return _raced(addresses, deadline, on_socket, host, tls)
    for address in addresses:
        return Connected(take(_attempt(address, on_socket, host, tls), deadline), address, ())
    raise TransportClosed("the name has no address")


def _attempt(address: Address, on_socket: OnSocket, host: str, tls: ClientTLS | None) -> Steps[Transport]:
    family, name = address
    with closed_on_error():  # the resolver may name a family that the kernel was built without
        sock = in_forked_child(socket.socket(family, socket.SOCK_STREAM), socket.socket.close)
    try:
        sock.setblocking(False)
        on_socket(sock)
        yield from _tcp(sock, name)
        tune(sock)
        if tls is None:
            return PlainTransport(sock)
        return (yield from tls.steps(sock, host, on_socket))
    except BaseException:
        sock.close()
        raise


def _tcp(sock: socket.socket, name: Any) -> Steps[None]:
    with closed_on_error():
        error = sock.connect_ex(name)
    if error == errno.EINPROGRESS:
        yield sock.fileno(), WRITABLE
        with closed_on_error():
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    with closed_on_error():
        if error:
            raise OSError(error, os.strerror(error))
        # If another thread shut the socket down while it connected, there is no error but this one.
        sock.getpeername()


def _raced(
    addresses: Sequence[Address],
    deadline: Deadline,
    on_socket: OnSocket,
    host: str,
    tls: ClientTLS | None,
) -> Connected:
    woken, waker = (in_forked_child(sock, socket.socket.close) for sock in socket.socketpair())
    with woken, waker:
        on_socket(waker)
        race = _Race(addresses, lambda address, shown: _attempt(address, shown, host, tls), deadline)
        try:
            winner, transport = race.run(woken)
        finally:
            race.close()
        try:
            on_socket(winner.socket)
            if wait_any({woken.fileno(): READABLE}, 0):  # shut down after the race was won
                raise TransportClosed(_WOKEN)
        except BaseException:
            transport.close()
            raise
    return Connected(transport, winner.address, tuple(race.begun[: race.begun.index(winner.address)]))


class _Runner:
    """One attempt of a race.

    :ivar socket: its connection to the server.
    """

    def __init__(self, address: Address, begin: Callable[[Address, OnSocket], Steps[Transport]]) -> None:
        self.address = address
        self.socket: socket.socket
        self.steps = begin(address, self._show)

    def _show(self, sock: socket.socket) -> None:
        self.socket = sock


class _Race:
    """Several attempts in one thread; the first that succeeds wins.

    :param addresses: in the order of the attempts.
    :param begin: returns the steps of an attempt.
    :ivar begun: the addresses of the attempts so far.
    """

    def __init__(
        self,
        addresses: Iterable[Address],
        begin: Callable[[Address, OnSocket], Steps[Transport]],
        deadline: Deadline,
    ) -> None:
        self.begun: list[Address] = []
        self._left = deque(addresses)
        self._begin = begin
        self._deadline = deadline
        self._next = 0.0  # when the next attempt starts, even if others are still running
        self._runners: dict[int, _Runner] = {}  # by descriptor
        self._events: dict[int, int] = {}  # the event that each descriptor waits for
        self._failures: dict[str, TransportClosed] = {}  # by their texts

    def run(self, woken: socket.socket) -> tuple[_Runner, Transport]:
        """Return the winner. Blocks until the deadline, or until ``woken`` is readable.

        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if every attempt failed, or ``woken`` became readable.
        """
        while self._left or self._runners:
            if self._left and (time.monotonic() >= self._next or not self._runners):
                won = self._start()
            else:
                won = self._go_on(woken.fileno())
            if won:
                return won
        last = [*self._failures.values()][-1]
        raise TransportClosed("; ".join(self._failures)) from last.__cause__

    def _start(self) -> tuple[_Runner, Transport] | None:
        self._next = time.monotonic() + min(_ATTEMPT_DELAY, self._remaining() / 2)
        runner = _Runner(self._left.popleft(), self._begin)
        self.begun.append(runner.address)
        return self._step(runner)

    def _go_on(self, woken: int) -> tuple[_Runner, Transport] | None:
        seconds = self._remaining()
        if self._left:
            seconds = min(seconds, max(0.0, self._next - time.monotonic()))
        ready = wait_any({woken: READABLE, **self._events}, seconds)
        if woken in ready:
            raise TransportClosed(_WOKEN)
        for fd in ready:
            del self._events[fd]
            if won := self._step(self._runners.pop(fd)):
                return won
        return None

    def _step(self, runner: _Runner) -> tuple[_Runner, Transport] | None:
        try:
            fd, event = next(runner.steps)
        except StopIteration as done:
            return runner, done.value
        except TransportClosed as exc:
            self._failures[str(exc)] = exc
            self._next = 0.0
            return None
        self._runners[fd], self._events[fd] = runner, event
        return None

    def _remaining(self) -> float:
        try:
            return self._deadline.remaining()
        except TimeoutError as exc:
            raise TimeoutError("; ".join([str(exc), *self._failures])) from None

    def close(self) -> None:
        """Close every attempt that is still running."""
        for runner in self._runners.values():
            runner.steps.close()
