"""Opens the stream of one VMI at the Kubernetes API.

This module connects TCP and TLS itself, under one deadline. With websocket-client, each call would have a
timeout of its own. It would also follow redirects with the proxy's credentials, and use HTTP proxies that the
environment names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..exceptions import (
    Refused,
    TransportClosed,
    UpstreamRefused,
    UpstreamTimeout,
)
from ..net.addresses import WebURL
from ..net.connecting import Connector, OnSocket
from ..net.http_client import request_head
from ..net.resolver import Resolver
from ..net.tls import TLSTransport
from ..net.tls_context import ClientTLS
from ..net.transport import Transport
from ..runtime.deadline import Deadline
from ..runtime.reloading import Reloaded
from .errors import refusal_of
from .handshake import HandshakeStream, Unauthorized, chosen_subprotocol, shake_hands

__all__ = ["Dialler", "Upstream", "UpstreamRules", "read_token"]

OnUnanswered = Callable[[Transport], None]

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Upstream:
    """An open stream.

    :ivar transport: starts at the first byte after the 101.
    :ivar subprotocol: the API's choice, None if it chose no subprotocol.
    """

    transport: Transport
    subprotocol: str | None


@dataclass(frozen=True)
class UpstreamRules:
    """The API's address and the proxy's credentials, as the settings say.

    :ivar url: the address. Only with TLS does the proxy send the service account's token there.
    :ivar sslopt: TLS options in websocket-client's terms; see :class:`.ClientTLS`.
    :ivar token_file: file with the service account's bearer token.
    """

    url: WebURL
    sslopt: Mapping[str, Any] = field(repr=False)
    token_file: str

    @property
    def way(self) -> str:
        """Names the API, and how the proxy reaches it: who has the same sees the same. It has no secret."""
        options = sorted((name, str(value)) for name, value in self.sslopt.items())
        return json.dumps(
            [self.url.tls, self.url.host, self.url.port, self.url.target, options, self.token_file]
        )


class Dialler:
    """Connects to the Kubernetes API. Safe from every thread.

    :param rules: the API's address and the proxy's credentials.
    :param resolver: resolves a host that is not a literal address.
    """

    def __init__(self, rules: UpstreamRules, resolver: Resolver) -> None:
        self._url = rules.url
        self._tls: ClientTLS | None = None
        self._token: Reloaded[str] | None = None
        if rules.url.tls:
            self._tls = ClientTLS(rules.sslopt)
            path = rules.token_file
            self._token = Reloaded("the service-account token", [path], lambda: read_token(path))
        self._connector = Connector(rules.url.host, rules.url.port, resolver, self._tls)

    def dial(
        self,
        path: str,
        subprotocols: Sequence[str],
        deadline: Deadline,
        on_socket: OnSocket,
        given_up: Future[None] | None = None,
        on_unanswered: OnUnanswered | None = None,
    ) -> Upstream:
        """Open ``path`` and return its stream when the API has answered 101.

        Blocks until the deadline, which covers name, TCP, TLS and handshake together. After a 401 it tries
        once more if the token file holds another token by then.

        :param path: API path, built from checked names.
        :param subprotocols: the subprotocols to offer.
        :param on_socket: gets every socket before it blocks, so that another thread can shut it down.
        :param given_up: done when the opening is given up; this also ends a wait for the resolver.
        :param on_unanswered: gets the connection, and has to close it, if the API may have the request but
            has not answered it. The API may still carry it out. Without this, the dialler closes it at once.
        :raises UpstreamTimeout: if the deadline passes.
        :raises Refused: the API's refusal, translated; :class:`UpstreamRefused` if the reason concerns the
            operator and not the client.
        """

        def shake(stream: HandshakeStream, transport: Transport) -> Upstream:
            shake_hands(stream, self._url, path, subprotocols)
            chosen = chosen_subprotocol(stream, subprotocols)
            stream.hand_over()
            if self._tls and isinstance(transport, TLSTransport):
                self._tls.keep_session(transport)
            return Upstream(transport, chosen)

        return self._ask(shake, deadline, on_socket, given_up, on_unanswered)

    def get(
        self, path: str, max_size: int, deadline: Deadline, on_socket: OnSocket = lambda sock: None
    ) -> bytes:
        """Return the body of the API's 200 for ``GET path``. Blocks and raises as :meth:`dial` does.

        :param max_size: of the body, bytes; a larger one raises :class:`UpstreamRefused`.
        """

        def read(stream: HandshakeStream, transport: Transport) -> bytes:
            with closing(transport):
                stream.send(self._request_head(path))
                status = stream.read_head()
                if status == 401:
                    raise Unauthorized(stream.read_body())
                if status != 200:
                    raise refusal_of(status, stream.read_body())
                try:
                    return stream.read_good(max_size)
                except ValueError as exc:
                    what = "the Kubernetes API's answer is too large"
                    raise UpstreamRefused(what, log_detail=str(exc)) from None

        return self._ask(read, deadline, on_socket)

    def file_faults(self) -> list[str]:
        """Return the faults of the CA file and the token file, with remedies. Blocks on the file system."""
        faults = []
        if self._tls and (fault := _fault_of(self._tls.context)):
            remedy = "set WSPROXY_CA_FILE to the file with the API's authorities"
            faults.append(f"the API's CA cannot be used: {fault}; {remedy}")
        if self._token and (fault := _fault_of(self._token.get)):
            remedy = "give the pod a service account, or set WSPROXY_TOKEN_FILE"
            faults.append(f"the service-account token cannot be used: {fault}; {remedy}")
        return faults

    def reload(self) -> None:
        """Read CA, client certificate and token again now. Any thread; blocks on the file system only."""
        if self._tls:
            self._tls.reload()
        if self._token:
            self._token.reload()

    def request(self, path: str, deadline: Deadline, body: bytes = b"") -> tuple[int, bytes]:
        """Send ``GET path`` with the proxy's credentials; return status and body. Blocks until the deadline.

        :param body: JSON to send; if there is any, the method is POST.
        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the API cannot be reached, or does not speak HTTP.
        :raises OSError: if the CA or the token cannot be read.
        """
        with self._connector.connection(deadline, lambda sock: None) as transport, closing(transport):
            stream = HandshakeStream(transport, deadline, self._credentials())
            stream.send(self._request_head(path, body))
            if body:
                transport.send(body, deadline)
            status = stream.read_head()
            return status, stream.read_body()

    def _request_head(self, path: str, body: bytes = b"") -> bytes:
        method = "POST" if body else "GET"
        return request_head(method, f"{self._url.target}{path}", self._url.authority, body=body or None)

    def _ask(
        self,
        ask: Callable[[HandshakeStream, Transport], _Result],
        deadline: Deadline,
        on_socket: OnSocket,
        given_up: Future[None] | None = None,
        on_unanswered: OnUnanswered | None = None,
    ) -> _Result:
        """Connect and call ``ask``; repeat that once if the API sent 401 and the file has another token."""

        def ask_with(credentials: str | None) -> _Result:
            def let_go(transport: Transport) -> None:
                if on_unanswered and stream.is_unanswered:
                    on_unanswered(transport)
                else:
                    transport.close()

            with self._connector.connection(deadline, on_socket, given_up, let_go) as transport:
                stream = HandshakeStream(transport, deadline, credentials)
                return ask(stream, transport)

        try:
            credentials = self._credentials()
            try:
                return ask_with(credentials)
            except Unauthorized:
                fresh = self._credentials()
                if fresh == credentials:
                    raise
                return ask_with(fresh)
        except (Unauthorized, TimeoutError, TransportClosed, OSError, ValueError) as exc:
            raise _in_our_terms(exc) from exc

    def _credentials(self) -> str | None:
        return self._token.get() if self._token else None


def _fault_of(read: Callable[[], object]) -> str | None:
    try:
        read()
    except (OSError, ValueError) as exc:
        return str(exc)
    return None


def _in_our_terms(exc: Exception) -> Refused:
    """Translate an error between the proxy and the API into a :class:`Refused` for the client."""
    if isinstance(exc, Unauthorized):
        return refusal_of(401, exc.body)
    if isinstance(exc, TimeoutError):
        return UpstreamTimeout("the Kubernetes API did not answer in time", log_detail=str(exc))
    detail = f"{type(exc.__cause__ or exc).__name__}: {exc}"
    return UpstreamRefused("the Kubernetes API cannot be reached", log_detail=detail)


def read_token(path: str) -> str:
    """Return the bearer token that a file holds. Blocks on the file system.

    :raises OSError: if the file cannot be read.
    :raises ValueError: if its content cannot be a bearer token.
    """
    with open(path, encoding="ascii", errors="strict") as file:
        token = file.read().strip()
    if not re.fullmatch(r"[!-~]+", token):  # a line break would begin another header
        raise ValueError(f"{path} holds no bearer token")
    return token
