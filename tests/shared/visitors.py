"""Clients of a deployment: each try is a TCP connection of its own, so that any process may get it."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from types import TracebackType
from typing import NamedTuple, Protocol

from tests.shared.cluster import NAMESPACE, CountingAPI
from tests.support.proxy_process import wait_until
from wsproxy.exceptions import TransportClosed
from wsproxy.testing.case import SECRET
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.tokens.issue import make_token

__all__ = ["GONE", "Deployed", "Try", "Visitors", "Wanted", "token_for"]

GONE = (OSError, EOFError, TransportClosed, TimeoutError)
"""What a client sees whose connection was cut, or that nobody answers."""

_WITHIN = 10.0
_OPEN_WITHIN = 15.0
_MOST_ADDRESSES = 250
_numbers = itertools.count()


class Deployed(Protocol):
    """Where clients connect."""

    api: CountingAPI

    def address(self) -> tuple[str, int]:
        """Return where the next client connects."""


class Wanted(NamedTuple):
    """What a client asks for.

    :ivar credential: a token or a ticket.
    :ivar forwarded: the client's address.
    """

    vmi: str
    credential: str
    forwarded: str


class Try(NamedTuple):
    """A try and its answer. ``client`` is open; its status is 101 if it has got its session."""

    wanted: Wanted
    client: RawClient

    @property
    def is_open(self) -> bool:
        return self.client.status == 101

    def reason(self) -> str:
        """Return the slug of a refusal; "" if there is none. Receives until the end of the connection."""
        try:
            return str(json.loads(self.client.body())["reason"])
        except (*GONE, ValueError, KeyError, TypeError):
            return ""


def token_for(vmi: str, user: str, *, seconds: float = 600) -> str:
    """Return a token of a user for one VMI."""
    return make_token(SECRET, namespace=NAMESPACE, vmis=[vmi], user=user, expires_in=seconds)


class Visitors:
    """Opens sessions, and ends those that are left at the end of a ``with``."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed
        self._lock = threading.Lock()  # guards the list
        self._clients: list[RawClient] = []

    @staticmethod
    def new_address() -> str:
        """Return an address that no earlier client had (RFC 2544): nobody inherits failed attempts."""
        high, low = divmod(next(_numbers), _MOST_ADDRESSES)
        return f"198.{18 + high // 256}.{high % 256}.{low + 1}"

    def wanted(self, vmi: str, user: str) -> Wanted:
        """Return what a user with a token of their own asks for, from an address of their own."""
        return Wanted(vmi, token_for(vmi, user), self.new_address())

    def ask(self, wanted: Wanted, at: tuple[str, int] | None = None) -> Try:
        """Ask for a session, once.

        :param at: host and port; None for the deployment's next address.
        """
        host, port = at or self._deployed.address()
        client = RawClient.open(
            f"ws://{host}:{port}/{wanted.credential}/{wanted.vmi}",
            headers=[f"X-Forwarded-For: {wanted.forwarded}"],
        )
        with self._lock:
            self._clients.append(client)
        return Try(wanted, client)

    def ask_all(self, wanted: Sequence[Wanted]) -> list[Try]:
        """Ask for sessions, all at the same moment."""
        if not wanted:
            return []
        start = threading.Barrier(len(wanted))

        def ask(one: Wanted) -> Try:
            start.wait(_WITHIN)
            return self.ask(one)

        with ThreadPoolExecutor(len(wanted)) as pool:
            return list(pool.map(ask, wanted))

    def ask_patiently(self, wanted: Wanted) -> Try:
        """Ask for a session, and again while the answer is 503: such a client is told to come again.

        Blocks for 15 seconds at most.
        """
        tries: list[Try] = []

        def is_decided() -> bool:
            tries.append(self.ask(wanted))
            return tries[-1].client.status != 503

        wait_until(is_decided, _OPEN_WITHIN)
        return tries[-1]

    def open(self, wanted: Wanted) -> Try:
        """Open a session, patiently.

        :raises AssertionError: if it is refused.
        """
        last = self.ask_patiently(wanted)
        if not last.is_open:
            raise AssertionError(f"no session with {wanted.vmi}: {last.client.head!r} {last.reason()}")
        return last

    def issue_ticket(self, wanted: Wanted, at: tuple[str, int] | None = None) -> str:
        """Exchange a token for a ticket; return "" if that is refused. Parameters are as for :meth:`ask`."""
        connection = HTTPConnection(*(at or self._deployed.address()), timeout=_WITHIN)
        headers = {"Authorization": f"Bearer {wanted.credential}", "Content-Type": "application/json"}
        headers["X-Forwarded-For"] = wanted.forwarded
        try:
            connection.request("POST", "/ticket", json.dumps({"vmi": wanted.vmi}), headers)
            return str(json.loads(connection.getresponse().read()).get("ticket", ""))
        except (*GONE, ValueError, AttributeError):
            return ""
        finally:
            connection.close()

    def forget(self, one: Try) -> None:
        """Close the connection of a client that was refused."""
        with self._lock:
            self._clients.remove(one.client)
        one.client.close()

    def leave(self, clients: Sequence[RawClient]) -> None:
        """End sessions in good order: their connections are closed when it returns."""
        with self._lock:
            self._clients = [client for client in self._clients if client not in clients]
        for client in clients:
            _say_goodbye(client)
        for client in clients:
            _hear_goodbye(client)

    def close(self) -> None:
        """End all sessions that are left. Idempotent."""
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            if client.status != 101:
                client.close()
        self.leave([client for client in clients if client.status == 101])
        self._deployed.api.wait_until_idle(_WITHIN)

    def __enter__(self) -> Visitors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _say_goodbye(client: RawClient) -> None:
    try:
        client.send_close(1000)
    except GONE:
        pass  # it has ended already


def _hear_goodbye(client: RawClient) -> None:
    try:
        client.recv_close(_WITHIN)
        client.wait_for_end(_WITHIN)
    except GONE:
        pass
    client.close()
