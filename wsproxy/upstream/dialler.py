"""Opens the stream of one VMI at the Kubernetes API.

TCP and TLS are connected here, under one deadline, and not by websocket-client: it would follow redirects
with our credentials, obey proxies named in the environment and take a timeout for each call.
"""

from __future__ import annotations

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

    :ivar transport: starts at the first byte behind the 101.
    :ivar subprotocol: the API's choice, None if it made none.
    """

    transport: Transport
    subprotocol: str | None


@dataclass(frozen=True)
class UpstreamRules:
    """Where the API is and how to get in, as the settings say.

    :ivar url: where it is; with TLS it is sent the service account's token, without it is not.
    :ivar sslopt: TLS in websocket-client's vocabulary; see :class:`.ClientTLS`.
    :ivar token_file: file with the service account's bearer token.
    """

    url: WebURL
    sslopt: Mapping[str, Any] = field(repr=False)
    token_file: str


class Dialler:
    """Connects to the Kubernetes API. Safe from every thread.

    :param rules: where the API is and how to get in.
    :param resolver: for a host that is no literal address.
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
        """Open ``path`` and return its stream once the API answered 101.

        Blocks until the deadline, which covers name, TCP, TLS and handshake together. A 401 is tried
        once more if the token file holds another token by then.

        :param path: API path, built from checked names.
        :param subprotocols: what to offer.
        :param on_socket: told of every socket before it blocks, so that another thread can shut it down.
        :param given_up: done when nobody wants the stream any more, which ends what blocks on no socket.
        :param on_unanswered: given the connection, to be closed there, if the API has the request but has not
            answered it: it may still do what was asked. Without it such a connection is closed at once.
        :raises UpstreamTimeout: if the deadline passes.
        :raises Refused: the API's refusal in our terms, :class:`UpstreamRefused` for all that is not
            the client's business.
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
        """Return what the API answers ``GET path`` with 200 to. Otherwise as :meth:`dial`.

        :param max_size: of the answer, bytes; a larger one is refused.
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
        """Return which of our own files keep us from the API, and what to do. Blocks on the file system."""
        faults = []
        if self._tls and (fault := _fault_of(self._tls.context)):
            remedy = "set WSPROXY_CA_FILE to the file with the API's authorities"
            faults.append(f"the API's CA cannot be used: {fault}; {remedy}")
        if self._token and (fault := _fault_of(self._token.get)):
            remedy = "give the pod a service account, or set WSPROXY_TOKEN_FILE"
            faults.append(f"the service-account token cannot be used: {fault}; {remedy}")
        return faults

    def reload(self) -> None:
        """Read CA, client certificate and token again at once. Any thread; blocks on the file system only."""
        if self._tls:
            self._tls.reload()
        if self._token:
            self._token.reload()

    def request(self, path: str, deadline: Deadline, body: bytes = b"") -> tuple[int, bytes]:
        """Send ``GET path`` with our credentials and return status and body. Blocks until the deadline.

        :param body: JSON to send, by POST then.
        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the API cannot be reached, or speaks no HTTP.
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
        lines = [
            f"{method} {self._url.target}{path} HTTP/1.1",
            f"Host: {self._url.authority}",
            "Connection: close",
        ]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _ask(
        self,
        ask: Callable[[HandshakeStream, Transport], _Result],
        deadline: Deadline,
        on_socket: OnSocket,
        given_up: Future[None] | None = None,
        on_unanswered: OnUnanswered | None = None,
    ) -> _Result:
        """Connect and call ``ask``; and once more with other credentials if the API refused ours."""

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
    """Return how to refuse a client because of what happened between the proxy and the API."""
    if isinstance(exc, Unauthorized):
        return refusal_of(401, exc.body)
    if isinstance(exc, TimeoutError):
        return UpstreamTimeout("the Kubernetes API did not answer in time", log_detail=str(exc))
    detail = f"{type(exc.__cause__ or exc).__name__}: {exc}"
    return UpstreamRefused("the Kubernetes API cannot be reached", log_detail=detail)


def read_token(path: str) -> str:
    """Return the bearer token that a file holds.

    :raises OSError: if the file cannot be read.
    :raises ValueError: if what it holds cannot be a bearer token.
    """
    with open(path, encoding="ascii", errors="strict") as file:
        token = file.read().strip()
    if not re.fullmatch(r"[!-~]+", token):  # a line break would be a header of its own
        raise ValueError(f"{path} holds no bearer token")
    return token
