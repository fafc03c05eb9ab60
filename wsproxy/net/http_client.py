"""One HTTP GET for a small response, under one deadline."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Callable, Iterable
from contextlib import closing

from ..exceptions import TransportClosed
from ..runtime.deadline import Deadline
from .addresses import WebURL
from .connecting import Connector
from .transport import Transport

__all__ = ["ResponseStream", "fetch", "read_good", "request_head"]

_FIELDS = ("Accept: application/jwk-set+json, application/json", "User-Agent: wsproxy")


def fetch(
    url: WebURL,
    connector: Connector,
    max_size: int,
    deadline: Deadline,
    on_socket: Callable[[socket.socket], None],
) -> bytes:
    """Return the body of the 200 that ``url`` answers.

    Blocks until the deadline, which covers name, TCP, TLS, request and response together. It follows no
    redirects, uses no proxy from the environment, and has no cookies.

    :param connector: connects to the URL's host and port; with TLS for an https URL.
    :param max_size: of the body, bytes.
    :param on_socket: gets every socket before it blocks, so that another thread can shut it down.
    :raises TimeoutError: if the deadline passes.
    :raises OSError: if the CA file cannot be read.
    :raises TransportClosed: if the server cannot be reached, does not speak HTTP, or ends the stream early.
    :raises ValueError: if the status is not 200, or the body is larger.
    """
    with connector.connection(deadline, on_socket) as transport, closing(transport):
        transport.send(request_head("GET", url.target, url.authority, _FIELDS), deadline)
        return read_good(ResponseStream(transport, deadline), max_size)


def request_head(
    method: str, target: str, host: str, fields: Iterable[str] = (), body: bytes | None = None
) -> bytes:
    """Return the head of the only request on a connection. The caller sends the body behind it.

    :param target: path and query.
    :param host: value of the Host field.
    :param fields: further header fields, as ``NAME: VALUE``.
    :param body: JSON; None if the request has no body.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class ResponseStream(io.RawIOBase):
    """The socket from which :class:`http.client.HTTPResponse` reads.

    :param transport: the stream receives from it, and does not close it.
    :param deadline: bounds all reads together.
    """

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        super().__init__()
        self._transport = transport
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._transport.recv(len(buffer), self._deadline)
        buffer[: len(data)] = data
        return len(data)


def read_good(stream: ResponseStream, max_size: int) -> bytes:
    """Return the body of a response with status 200. Blocks until the stream's deadline.

    :param max_size: of the body, bytes.
    :raises TimeoutError: if the deadline passes.
    :raises TransportClosed: if the response is not HTTP, or ends early.
    :raises ValueError: if the status is not 200, or the body is larger.
    """
    try:
        # Closed here: if the garbage collector frees a response that was not read to its end, Python may
        # write a complaint to stderr.
        with closing(http.client.HTTPResponse(stream)) as response:  # type: ignore[arg-type]
            response.begin()
            if response.status != 200:
                raise ValueError(f"the response has status {response.status}")
            body = response.read(max_size + 1)
    except http.client.HTTPException as exc:
        raise TransportClosed(f"the response is not HTTP/1.1: {type(exc).__name__}") from None
    if len(body) > max_size:
        raise ValueError(f"the body has more than {max_size} bytes")
    return body
