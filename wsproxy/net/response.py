"""Reading an HTTP response from a transport."""

from __future__ import annotations

import http.client
import io
from contextlib import closing

from ..exceptions import TransportClosed
from ..runtime.deadline import Deadline
from .transport import Transport

__all__ = ["ResponseStream", "read_good"]


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
