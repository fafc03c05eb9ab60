"""The operator's listener: HTTP for few clients. One thread serves it without blocking, beside other work.

It has an address of its own, so clients of the proxy's port cannot reach these endpoints. Each connection
carries one request.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..exceptions import Refused, RequestTimeout
from ..net.sockets import GONE, why_not_accepted
from ..protocol.request import HeadReader
from ..protocol.response import http_response, refusal_response
from ..runtime.deadline import Clock
from ..runtime.forks import in_forked_child
from ..runtime.logs import Complaints, get_logger
from .routes import AdminEndpoint, AdminRequest, AdminRoutes, body_size

__all__ = ["AdminServer"]

logger = get_logger("wsproxy.admin")

_MAX_CONNECTIONS = 16
_REQUEST_SECONDS = 5.0  # for the whole request
_ANSWER_SECONDS = 5.0  # for making the answer, and again for sending it
_LINGER_SECONDS = 1.0
_PAUSE_SECONDS = 0.5  # until the next accept, if accepting has failed
_RECEIVE = 4096
_RECEIVE_ANSWER = 65536
_BUG = http_response(500, b"a bug; the log has more\n")
_GONE = http_response(503, b"the process that was to answer is gone; try again\n")
_SLOW = http_response(504, b"the proxy did not make the answer in time\n")


class AdminServer:
    """Serves the operator. Only one thread may use it; nothing in it blocks.

    Its descriptor becomes readable when :meth:`serve` has something to do.

    :param listener: a listening socket; :meth:`close` closes it.
    :param endpoints: by path. A path that ends with a slash stands for any path with one more segment.
    :param hosts: names that the Host header may have, besides IP addresses and localhost.
    :param clock: seconds that never go backwards.
    """

    def __init__(
        self,
        listener: socket.socket,
        endpoints: Mapping[str, AdminEndpoint],
        hosts: Collection[str] = (),
        clock: Clock = time.monotonic,
    ) -> None:
        self._listener = listener
        self._routes = AdminRoutes(endpoints, hosts)
        self._clock = clock
        self._exchanges: dict[_Exchange, None] = {}  # the oldest first
        self._resume: float | None = None  # when to accept again; None if it accepts now
        self._complained = False
        self._complaints = Complaints(logger, clock)
        in_forked_child(listener, socket.socket.close)
        listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        descriptor: int = self._selector.fileno()
        return descriptor

    def next_due(self) -> float | None:
        """Return the seconds until :meth:`serve` is due without a readable descriptor; None for never."""
        due = [exchange.due for exchange in self._exchanges]
        if self._resume is not None:
            due.append(self._resume)
        return max(0.0, min(due) - self._clock()) if due else None

    def serve(self) -> None:
        """Do everything that can be done without blocking."""
        for key, _ in self._selector.select(0):
            if key.data is None:
                self._try(self._accept)
            elif isinstance(key.data, _Source):
                self._try(self._fetch_more, key.data.exchange)
            elif key.data in self._exchanges:
                self._try(self._advance, key.data)
        now = self._clock()
        if self._resume is not None and self._resume <= now:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._resume = None  # only after register(), so that the next call repeats a failed one
        for exchange in [one for one in self._exchanges if one.due <= now]:
            self._try(self._run_out, exchange)

    def _try(self, step: Callable[..., None], *exchange: _Exchange) -> None:
        """Call ``step``. If it raises an unexpected error, drop its exchange and no other."""
        try:
            step(*exchange)
        except Exception:  # noqa: BLE001 - note() logs it
            self._complaints.note("serving the operator failed")
            for one in exchange:
                self._drop(one)

    def withdraw(self) -> None:
        """Accept nobody any more, and serve those who are connected. Idempotent."""
        with suppress(KeyError, ValueError):  # it does not accept now
            self._selector.unregister(self._listener)
        self._resume = None
        self._listener.close()

    @property
    def is_over(self) -> bool:
        """Whether it has withdrawn, and nobody is connected any more."""
        return self._listener.fileno() < 0 and not self._exchanges

    def close(self) -> None:
        """Close the listener and every connection. Idempotent."""
        for exchange in self._exchanges:
            exchange.sock.close()
            if exchange.source:
                exchange.source.close()
        self._exchanges.clear()
        with suppress(OSError):  # a kqueue does not survive a fork
            self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except GONE:
            return
        except OSError as exc:
            return self._pause(exc)
        self._complained = False
        try:
            sock.setblocking(False)
            exchange = _Exchange(sock, _host_of(address), self._clock() + _REQUEST_SECONDS)
            self._selector.register(sock, selectors.EVENT_READ, exchange)
        except BaseException:
            sock.close()
            raise
        self._exchanges[exchange] = None
        if len(self._exchanges) > _MAX_CONNECTIONS:
            self._drop(self._victim(exchange))

    def _pause(self, exc: OSError) -> None:
        """Stop accepting for half a second; otherwise the backlog would wake the thread again at once."""
        self._selector.unregister(self._listener)
        self._resume = self._clock() + _PAUSE_SECONDS
        if not self._complained:
            logger.error("cannot accept a connection of the operator: %s", why_not_accepted(exc))
            self._complained = True

    def _victim(self, newcomer: _Exchange) -> _Exchange:
        """Return the exchange to drop so that a newcomer gets a place; it may be the newcomer itself.

        An exchange that has shown a token keeps its place. An exchange with an incomplete request goes first:
        the oldest of the address with most exchanges. If there is none, one that has its answer goes, chosen
        the same way. Otherwise the newest exchange of the address with most goes, if that address has more
        than the newcomer's. If not, the newcomer goes.
        """
        places = Counter(exchange.address for exchange in self._exchanges)
        others = [one for one in self._exchanges if one is not newcomer and not one.trusted]
        if idle := [one for one in others if one.answered or not one.asked]:
            return max(idle, key=lambda one: (not one.answered, places[one.address]))
        crowd = [one for one in reversed(others) if places[one.address] > places[newcomer.address]]
        return max(crowd, key=lambda one: places[one.address], default=newcomer)

    def _advance(self, exchange: _Exchange) -> None:
        """Send or receive what is possible without blocking."""
        try:
            if exchange.unsent:
                self._send(exchange)
            elif not (received := exchange.sock.recv(_RECEIVE)):
                self._drop(exchange)
            elif not exchange.asked:
                self._receive(exchange, received)
            # Bytes behind the request are dropped.
        except BlockingIOError:
            pass
        except OSError:
            self._drop(exchange)

    def _receive(self, exchange: _Exchange, received: bytes) -> None:
        try:
            if exchange.found is None:
                head = exchange.reader.feed(received)
                if head is None:
                    return
                exchange.found = self._routes.find(head)
                exchange.trusted = exchange.found[0].guard is not None
                exchange.body_size = body_size(head)
                received = exchange.reader.rest
            exchange.body += received
            if len(exchange.body) < exchange.body_size:
                return
            exchange.asked, exchange.due = True, self._clock() + _ANSWER_SECONDS
            endpoint, request = exchange.found
            request = replace(request, body=bytes(exchange.body[: exchange.body_size]))
            if endpoint.fetch:
                exchange.source = endpoint.fetch(request)
                self._selector.register(exchange.source, selectors.EVENT_READ, _Source(exchange))
            else:
                endpoint.handle(request, lambda make: self._reply(exchange, make))
        except Refused as refused:
            exchange.asked = True
            self._refuse(exchange, refused)

    def _fetch_more(self, exchange: _Exchange) -> None:
        """Receive more of an answer that is made elsewhere; reply when it is whole."""
        source = exchange.source
        if source is None:
            return
        try:
            received = source.recv(_RECEIVE_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        exchange.fetched += received
        if not received:
            self._close_source(exchange)
            self._reply(exchange, lambda: bytes(exchange.fetched) or _GONE)

    def _close_source(self, exchange: _Exchange) -> None:
        source, exchange.source = exchange.source, None
        if source:
            with suppress(KeyError, ValueError):
                self._selector.unregister(source)
            source.close()

    def _refuse(self, exchange: _Exchange, refused: Refused) -> None:
        self._reply(exchange, lambda: refusal_response(refused))

    def _reply(self, exchange: _Exchange, make: Callable[[], bytes]) -> None:
        """Begin to send a response. Do nothing if there is one already, or if the client has left."""
        if exchange not in self._exchanges or exchange.answered:
            return
        exchange.answered = True
        try:
            response = make()
        except Refused as refused:
            response = refusal_response(refused)
        except Exception:
            logger.exception("answering the operator failed")
            response = _BUG
        exchange.unsent = memoryview(response)
        exchange.due = self._clock() + _ANSWER_SECONDS
        self._selector.modify(exchange.sock, selectors.EVENT_WRITE, exchange)

    def _send(self, exchange: _Exchange) -> None:
        exchange.unsent = exchange.unsent[exchange.sock.send(exchange.unsent) :]
        if not exchange.unsent:
            # Half-close and linger: close() with unread data would send a RST, and the answer could be lost.
            exchange.sock.shutdown(socket.SHUT_WR)
            exchange.due = self._clock() + _LINGER_SECONDS
            self._selector.modify(exchange.sock, selectors.EVENT_READ, exchange)

    def _run_out(self, exchange: _Exchange) -> None:
        """End an exchange whose time is over, with a response if it has none yet."""
        if exchange.answered:
            self._drop(exchange)
        elif exchange.asked:
            self._reply(exchange, lambda: _SLOW)
        else:
            exchange.asked = True
            self._refuse(exchange, RequestTimeout("the request did not arrive in time"))

    def _drop(self, exchange: _Exchange) -> None:
        """Close a connection. Idempotent."""
        self._exchanges.pop(exchange, None)
        self._close_source(exchange)
        with suppress(KeyError, ValueError):  # the socket was not registered, or is closed
            self._selector.unregister(exchange.sock)
        exchange.sock.close()


def _host_of(address: Any) -> str:
    """Return a peer's address without the port; "" for every peer of a Unix socket."""
    return str(address[0]) if isinstance(address, tuple) else ""


class _Exchange:
    """One connection, its request and its response.

    :ivar address: the client's address, without the port.
    :ivar due: when the time for its current phase is over, by the server's clock.
    :ivar trusted: whether it has passed the guard of an endpoint.
    :ivar found: its endpoint, and the request without the body; None until the head is complete.
    :ivar asked: whether its request is complete, or is refused before that.
    :ivar answered: whether it has a response.
    :ivar source: from where the response comes, if it is made elsewhere.
    :ivar fetched: what has come of that response.
    :ivar unsent: the part of the response that is not sent yet.
    """

    def __init__(self, sock: socket.socket, address: str, due: float) -> None:
        self.sock = sock
        self.address = address
        self.due = due
        self.reader = HeadReader()
        self.found: tuple[AdminEndpoint, AdminRequest] | None = None
        self.body = bytearray()
        self.body_size = 0
        self.asked = self.answered = self.trusted = False
        self.source: socket.socket | None = None
        self.fetched = bytearray()
        self.unsent = memoryview(b"")


class _Source:
    """Marks the socket from which the answer for an exchange comes."""

    def __init__(self, exchange: _Exchange) -> None:
        self.exchange = exchange
