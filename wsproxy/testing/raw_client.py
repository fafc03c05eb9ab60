"""A WebSocket client that does just what it is told: every byte, every end, right or wrong."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from urllib.parse import urlsplit

from ..deadline import Deadline
from .kubevirt_frames import CLOSE, Frame, FrameBuffer, close_payload, encode_frame, parse_close

__all__ = ["RawClient"]

_RECEIVE = 65536
_TIMEOUT = 10.0


class RawClient:
    """One TCP connection to a proxy, plain.

    Not for several threads, but one may receive while another sends. Every call that receives blocks for
    at most ``timeout`` seconds and raises TimeoutError then, ConnectionError after a reset.

    :param address: host and port.
    :param receive_buffer: size of the kernel's receive buffer, bytes; a small one fills soon.
    """

    def __init__(self, address: tuple[str, int], *, receive_buffer: int | None = None) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(_TIMEOUT)
        try:
            self.sock.connect(address)
        except BaseException:
            self.sock.close()
            raise
        self._frames = FrameBuffer()
        self.head = b""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        headers: Sequence[str] = (),
        early: bytes = b"",
        receive_buffer: int | None = None,
    ) -> RawClient:
        """Open a ``ws://`` URL and return the client, whatever was answered: see :attr:`status`.

        :param headers: further request header lines.
        :param early: bytes sent in the same write as the request.
        """
        parts = urlsplit(url)
        client = cls((parts.hostname or "", parts.port or 80), receive_buffer=receive_buffer)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        client.send_raw(cls.request(target, headers) + early)
        client.read_head()
        return client

    @staticmethod
    def request(target: str, headers: Sequence[str] = ()) -> bytes:
        """Return a well-formed upgrade request."""
        lines = [
            f"GET {target} HTTP/1.1",
            "Host: proxy",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==",
            *headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def read_head(self, timeout: float = _TIMEOUT) -> None:
        """Receive the response head into :attr:`head`; what follows it is kept for the next call."""
        data, deadline = b"", Deadline(timeout)
        while b"\r\n\r\n" not in data:
            received = self._receive(deadline)
            if not received:
                raise ConnectionError(f"the connection ended after {data!r}")
            data += received
        self.head, _, rest = data.partition(b"\r\n\r\n")
        self._frames.feed(rest)

    @property
    def status(self) -> int:
        """The response's HTTP status."""
        return int(self.head.split(b" ")[1])

    def header(self, name: str) -> str | None:
        """Return a response header, None if there is none of that name."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.decode("latin-1").partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    def body(self) -> bytes:
        """Receive until the end of the connection."""
        data, deadline = self._frames.take(_RECEIVE), Deadline(_TIMEOUT)
        while received := self._receive(deadline):
            data += received
        return data

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
        """Send one frame with a random mask and return its bytes."""
        frame = encode_frame(opcode, payload, fin=fin, mask=os.urandom(4))
        self.send_raw(frame)
        return frame

    def send_close(self, code: int | None = 1000, reason: str = "") -> bytes:
        """Send a Close frame; None for one without a code."""
        return self.send_frame(CLOSE, close_payload(code, reason))

    def recv_frame(self, timeout: float = _TIMEOUT) -> Frame:
        """Receive one frame; raises EOFError at the end of the connection."""
        deadline = Deadline(timeout)
        while (frame := self._frames.next()) is None:
            data = self._receive(deadline)
            if not data:
                raise EOFError("the connection ended")
            self._frames.feed(data)
        return frame

    def recv_close(self, timeout: float = _TIMEOUT) -> tuple[int, str]:
        """Receive up to the Close frame and return its code and reason; 1005 for one without."""
        deadline = Deadline(timeout)
        while (frame := self.recv_frame(deadline.remaining())).opcode != CLOSE:
            pass
        return parse_close(frame.payload)

    def recv_raw(self, timeout: float = _TIMEOUT) -> bytes:
        """Receive at least one byte as it comes, b"" at the end."""
        return self._frames.take(_RECEIVE) or self._receive(Deadline(timeout))

    def wait_for_end(self, timeout: float = _TIMEOUT) -> bool:
        """Receive and drop until the connection ends; return whether in good order (FIN, not RST)."""
        deadline = Deadline(timeout)
        try:
            while self._receive(deadline):
                pass
        except ConnectionError:
            return False
        return True

    def drop(self) -> None:
        """End our direction (FIN)."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close the connection with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.sock.close()

    def _receive(self, deadline: Deadline) -> bytes:
        readable, _, _ = select.select([self.sock], [], [], deadline.remaining())
        if not readable:
            raise TimeoutError("nothing came in time")
        return self.sock.recv(_RECEIVE)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
