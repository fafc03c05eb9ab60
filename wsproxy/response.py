"""Reading an HTTP response from a transport."""

from __future__ import annotations

import io

from .deadline import Deadline
from .transport import Transport

__all__ = ["ResponseStream"]


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
