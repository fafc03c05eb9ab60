"""One HTTP GET, for what is small and has to come soon."""

from __future__ import annotations

import socket
from collections.abc import Callable

from ..runtime.deadline import Deadline
from ..tokens.jwks import WebURL
from .resolver import Resolver
from .response import ResponseStream, read_good
from .sockets import connect_tcp
from .tls import ClientTLS
from .transport import PlainTransport, Transport

__all__ = ["fetch"]


def fetch(
    url: WebURL,
    resolver: Resolver,
    tls: ClientTLS,
    max_size: int,
    deadline: Deadline,
    on_socket: Callable[[socket.socket], None],
) -> bytes:
    """Return what ``url`` answers with 200 to.

    Blocks until the deadline, which covers name, TCP, TLS, request and response together. Redirects are not
    followed, no proxy of the environment is asked, and there are no cookies.

    :param tls: for an https URL.
    :param max_size: of the body, bytes.
    :param on_socket: told of every socket before it blocks, so that another thread can shut it down.
    :raises TimeoutError: if the deadline passes.
    :raises OSError: if the authorities cannot be read.
    :raises TransportClosed: if the server cannot be reached, speaks no HTTP, or breaks off.
    :raises ValueError: if it answers anything but 200, or too much.
    """
    sock = connect_tcp(resolver.resolve(url.host, url.port, deadline), deadline, on_socket)
    transport: Transport
    try:
        transport = tls.connect(sock, url.host, deadline, on_socket) if url.tls else PlainTransport(sock)
    except BaseException:
        sock.close()
        raise
    try:
        transport.send(_request(url), deadline)
        return read_good(ResponseStream(transport, deadline), max_size)
    finally:
        transport.close()


def _request(url: WebURL) -> bytes:
    lines = (
        f"GET {url.target} HTTP/1.1",
        f"Host: {url.authority}",
        "Accept: application/jwk-set+json, application/json",
        "User-Agent: wsproxy",
        "Connection: close",
    )
    return "\r\n".join([*lines, "", ""]).encode("ascii")
