"""The operator's listener: HTTP for few clients, by one thread that never blocks and may do other things.

It is apart from the clients' port, so what is answered here is never within reach of those. A connection
carries one request.
"""

from __future__ import annotations

import selectors
import socket
import threading
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
from ..runtime.threads import VitalLoop, start_thread
from .routes import AdminEndpoint, AdminRequest, AdminRoutes, body_size

__all__ = ["AdminServer", "AdminThread"]

logger = get_logger("wsproxy.admin")

_MAX_CONNECTIONS = 16
_REQUEST_SECONDS = 5.0  # for the whole request
_ANSWER_SECONDS = 5.0  # for making the answer, and once more for its being taken
_LINGER_SECONDS = 1.0
_PAUSE_SECONDS = 0.5  # without descriptors
_RECEIVE = 4096
_BUG = http_response(500, b"a bug; the log has more\n")
_SLOW = http_response(504, b"the answer was not there in time\n")


class AdminServer:
    """Serves the operator. For one thread.

    It has a descriptor that becomes readable when :meth:`serve` has something to do.

    :param listener: a listening socket, closed by :meth:`close`.
    :param endpoints: by their paths; one that ends with a slash is for any one name behind it.
    :param hosts: names that the Host header may have, besides addresses and localhost.
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
        self._resume: float | None = None  # when to accept again, if not now
        self._complained = False
        self._complaints = Complaints(logger, clock)
        listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        descriptor: int = self._selector.fileno()
        return descriptor

    def next_due(self) -> float | None:
        """Return the seconds after which :meth:`serve` has something to do in any case; None for never."""
        due = [exchange.due for exchange in self._exchanges]
        if self._resume is not None:
            due.append(self._resume)
        return max(0.0, min(due) - self._clock()) if due else None

    def serve(self) -> None:
        """Do everything that can be done without waiting."""
        for key, _ in self._selector.select(0):
            if key.data is None:
                self._try(self._accept)
            elif key.data in self._exchanges:
                self._try(self._advance, key.data)
        now = self._clock()
        if self._resume is not None and self._resume <= now:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._resume = None  # not before: if that fails, it is tried again
        for exchange in [one for one in self._exchanges if one.due <= now]:
            self._try(self._run_out, exchange)

    def _try(self, step: Callable[..., None], *exchange: _Exchange) -> None:
        """Call ``step``; an error that nobody expects ends one exchange, and no other."""
        try:
            step(*exchange)
        except Exception:  # noqa: BLE001 - it is logged there
            self._complaints.note("serving the operator failed")
            for one in exchange:
                self._drop(one)

    def close(self) -> None:
        """Close the listener and every connection. Idempotent."""
        for exchange in self._exchanges:
            exchange.sock.close()
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
        """Accept nobody for a moment: who waits in the queue would be seen again at once."""
        self._selector.unregister(self._listener)
        self._resume = self._clock() + _PAUSE_SECONDS
        if not self._complained:
            logger.error("cannot accept the operator: %s", why_not_accepted(exc))
            self._complained = True

    def _victim(self, newcomer: _Exchange) -> _Exchange:
        """Return whose place somebody new gets, perhaps their own.

        Nobody takes it from who has shown a token, or is about to be answered. Of the others those go first
        that have said nothing whole, and of these one of the address with most places, the oldest.
        """
        places = Counter(exchange.address for exchange in self._exchanges)
        others = [one for one in self._exchanges if one is not newcomer and not one.trusted]
        if idle := [one for one in others if one.answered or not one.asked]:
            return max(idle, key=lambda one: (not one.answered, places[one.address]))
        crowd = [one for one in reversed(others) if places[one.address] > places[newcomer.address]]
        return max(crowd, key=lambda one: places[one.address], default=newcomer)

    def _advance(self, exchange: _Exchange) -> None:
        """Send, or receive, what can be without waiting."""
        try:
            if exchange.unsent:
                self._send(exchange)
            elif not (received := exchange.sock.recv(_RECEIVE)):
                self._drop(exchange)
            elif not exchange.asked:
                self._receive(exchange, received)
            # What comes behind the request is dropped.
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
            endpoint.handle(request, lambda make: self._reply(exchange, make))
        except Refused as refused:
            exchange.asked = True
            self._refuse(exchange, refused)

    def _refuse(self, exchange: _Exchange, refused: Refused) -> None:
        self._reply(exchange, lambda: refusal_response(refused))

    def _reply(self, exchange: _Exchange, make: Callable[[], bytes]) -> None:
        """Begin to send a response; nothing if there is one already, or the client has gone."""
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
            # Closed at once with unread data, it would be reset, and the client lose the answer.
            exchange.sock.shutdown(socket.SHUT_WR)
            exchange.due = self._clock() + _LINGER_SECONDS
            self._selector.modify(exchange.sock, selectors.EVENT_READ, exchange)

    def _run_out(self, exchange: _Exchange) -> None:
        """Deal with one whose time is over."""
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
        with suppress(KeyError, ValueError):  # it was not registered, or is closed
            self._selector.unregister(exchange.sock)
        exchange.sock.close()


def _host_of(address: Any) -> str:
    """Return the address of a peer without the port; that of all who come by a path is the same."""
    return str(address[0]) if isinstance(address, tuple) else ""


class _Exchange:
    """One connection, its request and its response.

    :ivar address: where the client is.
    :ivar due: when its time is over, for what it is at.
    :ivar trusted: whether it has shown what the endpoint wants to see.
    :ivar found: what answers it, and the request without its body, once the head is there.
    :ivar asked: whether its request is complete, or will never be.
    :ivar answered: whether it has a response.
    :ivar unsent: the rest of that.
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
        self.unsent = memoryview(b"")


class AdminThread:
    """A thread that does nothing but serve the operator.

    :param server: closed at the end.
    """

    def __init__(self, server: AdminServer) -> None:
        self._server = server
        self._loop = VitalLoop("serving the operator", self._run)
        self._thread: threading.Thread | None = None
        self._waker, self._woken = socket.socketpair()
        for sock in (server._listener, self._waker, self._woken):
            in_forked_child(sock, socket.socket.close)

    def start(self, owner: object) -> None:
        """Start the thread, which works for ``owner``. Once only."""
        self._thread = start_thread("wsproxy-admin", self._loop.run, owner)

    @property
    def is_healthy(self) -> bool:
        """See :class:`.VitalLoop`."""
        return self._loop.is_healthy

    def stop(self) -> None:
        """End the thread and wait for it, and close the server. Idempotent; does not take long."""
        self._loop.stop()
        if self._thread:
            self._waker.send(b"\0")
            self._thread.join()
            self._thread = None
        self._server.close()
        self._waker.close()
        self._woken.close()

    def _run(self) -> None:
        with selectors.PollSelector() as selector:  # which needs no descriptor: there may be none
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while self._woken not in [key.fileobj for key, _ in selector.select(self._server.next_due())]:
                self._server.serve()
