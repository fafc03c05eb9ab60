"""One HTTP GET, for what is small and has to come soon."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Callable
from contextlib import closing

from ..exceptions import TransportClosed
from ..runtime.deadline import Deadline
from .addresses import WebURL
from .connecting import Connector
from .transport import Transport

__all__ = ["ResponseStream", "fetch", "read_good"]


def fetch(
    url: WebURL,
    connector: Connector,
    max_size: int,
    deadline: Deadline,
    on_socket: Callable[[socket.socket], None],
) -> bytes:
    """Return what ``url`` answers with 200 to.

    Blocks until the deadline, which covers name, TCP, TLS, request and response together. Redirects are not
    followed, no proxy of the environment is asked, and there are no cookies.

    :param connector: for the URL's host and port, with TLS for an https URL.
    :param max_size: of the body, bytes.
    :param on_socket: told of every socket before it blocks, so that another thread can shut it down.
    :raises TimeoutError: if the deadline passes.
    :raises OSError: if the authorities cannot be read.
    :raises TransportClosed: if the server cannot be reached, speaks no HTTP, or breaks off.
    :raises ValueError: if it answers anything but 200, or too much.
    """
    with connector.connection(deadline, on_socket) as transport, closing(transport):
        transport.send(_request(url), deadline)
        return read_good(ResponseStream(transport, deadline), max_size)


def _request(url: WebURL) -> bytes:
    lines = (
        f"GET {url.target} HTTP/1.1",
        f"Host: {url.authority}",
        "Accept: application/jwk-set+json, application/json",
        "User-Agent: wsproxy",
        "Connection: close",
    )
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class ResponseStream(io.RawIOBase):
    """What :class:`http.client.HTTPResponse` takes for a socket to read from.

    :param transport: received from; not closed here.
    :param deadline: bounds every read.
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
    :raises TransportClosed: if it is no HTTP, or breaks off.
    :raises ValueError: if the status is another one, or the body is larger.
    """
    try:
        # Closed here, because as garbage one that was not read to its end may complain on stderr.
        with closing(http.client.HTTPResponse(stream)) as response:  # type: ignore[arg-type]
            response.begin()
            if response.status != 200:
                raise ValueError(f"the answer is {response.status}")
            body = response.read(max_size + 1)
    except http.client.HTTPException as exc:
        raise TransportClosed(f"the answer is not HTTP/1.1: {type(exc).__name__}") from None
    if len(body) > max_size:
        raise ValueError(f"the answer has more than {max_size} bytes")
    return body
