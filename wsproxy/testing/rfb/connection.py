"""The viewer's end of an RFB connection (RFC 6143): the handshake, and the bytes that follow."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from ...protocol.rfb import SECURITY_NONE, VERSION_3_8, RFBError, parse_version
from ...runtime.deadline import Deadline
from .errors import ABNORMAL, ConsoleClosed, RFBRefused
from .messages import SECURITY_OK, ServerInit

__all__ = ["ByteStream", "RFBConnection"]

_CHUNK = 65536
_MAX_REASON = 65536  # bytes of a refusal's reason, and of a desktop's name
_GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


class ByteStream(Protocol):
    """The transport of a viewer, such as a :class:`socket.socket`.

    ``recv`` blocks and returns at least one byte, or ``b""`` at the end. It may raise TimeoutError after any
    time. The viewer then calls it again until the timeout of its operation passes. If ``recv`` never raises
    TimeoutError, the viewer cannot bound its operation.
    """

    def recv(self, max_bytes: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...

    def close(self) -> None: ...


class RFBConnection:
    """A stream to an RFB server. Only one thread at a time may use it.

    Every method may raise :class:`.ConsoleClosed`, RFBError, or TimeoutError.

    :param stream: a connected stream, from which nothing has been read.
    :param timeout: seconds for reading the rest of the stream if a send fails.
    """

    def __init__(self, stream: ByteStream, timeout: float) -> None:
        self._stream = stream
        self._timeout = timeout
        self._pending = bytearray()  # received bytes of the handshake that are not parsed yet

    def handshake(self, deadline: Deadline) -> tuple[ServerInit, bytes]:
        """Do the RFB handshake with security type None (RFC 6143 section 7.1). Blocks.

        :returns: the server's ServerInit, and the bytes that came after it.
        :raises RFBRefused: if the server refuses; contains the server's reason.
        """
        if parse_version(self._take(12, deadline)) < (3, 8):
            raise RFBError("the server does not speak RFB 3.8")
        self.send(VERSION_3_8)
        self._agree_on_security(deadline)
        self.send(b"\x01")  # ClientInit with shared-flag: other viewers may stay
        head = self._take(ServerInit.HEAD, deadline)
        init = ServerInit.parse(head + self._take_counted(ServerInit.name_length(head), deadline))
        rest = bytes(self._pending)
        self._pending.clear()
        return init, rest

    def receive(self, deadline: Deadline) -> bytes:
        """Return the next bytes. Blocks until the deadline at most."""
        while True:
            if deadline.passed:
                raise TimeoutError("the server did not send the expected bytes in time")
            with suppress(TimeoutError):
                try:
                    data = self._stream.recv(_CHUNK)
                except _GONE as exc:
                    raise ConsoleClosed(ABNORMAL, str(exc)) from exc
                if not data:
                    raise ConsoleClosed(ABNORMAL, "the connection ended without a Close frame")
                return data

    def send(self, data: bytes) -> None:
        """Send all bytes. Blocks only if the server does not read."""
        try:
            self._stream.sendall(data)
        except _GONE as exc:
            # The server's last bytes, such as a Close, may still be unread.
            raise self.wait_closed(Deadline(self._timeout)) from exc

    def wait_closed(self, deadline: Deadline) -> ConsoleClosed:
        """Drop further bytes until the connection ends, and return how it ended. Blocks."""
        try:
            while True:
                self.receive(deadline)
        except ConsoleClosed as end:
            return end

    def _agree_on_security(self, deadline: Deadline) -> None:
        offered = self._take(self._take(1, deadline)[0], deadline)
        if not offered:
            raise RFBRefused(self._take_reason(deadline))
        if SECURITY_NONE not in offered:
            raise RFBError(f"the server offers security types {list(offered)}, not None")
        self.send(bytes((SECURITY_NONE,)))
        if self._take(4, deadline) != SECURITY_OK:
            raise RFBRefused(self._take_reason(deadline))

    def _take_reason(self, deadline: Deadline) -> str:
        length = int.from_bytes(self._take(4, deadline), "big")
        return self._take_counted(length, deadline).decode("utf-8", "replace")

    def _take_counted(self, length: int, deadline: Deadline) -> bytes:
        if length > _MAX_REASON:
            raise RFBError(f"the server sent a text of {length} bytes; at most {_MAX_REASON} are allowed")
        return self._take(length, deadline)

    def _take(self, length: int, deadline: Deadline) -> bytes:
        while len(self._pending) < length:
            self._pending += self.receive(deadline)
        data = bytes(self._pending[:length])
        del self._pending[:length]
        return data
