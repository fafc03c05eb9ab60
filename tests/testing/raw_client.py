"""A WebSocket client made of a socket, which shows every byte that the stand-in API sends."""

from __future__ import annotations

import json
import socket
import ssl
from types import TracebackType
from typing import Any

from wsproxy.testing.fake_kubevirt import FakeKubeVirtAPI
from wsproxy.testing.kubevirt_frames import BINARY, Frame, FrameBuffer, encode_frame

__all__ = ["KEY", "MASK", "RawClient", "path"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455's example; its accept value is s3pPLMBiTxaQ9kYGzzhZRbK+xOo=."""
MASK = b"\x12\x34\x56\x78"
TIMEOUT = 5.0


def path(name: str = "vm", subresource: str = "vnc", version: str = "v1", namespace: str = "default") -> str:
    """Return the path of a subresource."""
    group = f"/apis/subresources.kubevirt.io/{version}/namespaces/{namespace}"
    return f"{group}/virtualmachineinstances/{name}/{subresource}"


class RawClient:
    """One connection to the API; every receive has a timeout."""

    def __init__(self, api: FakeKubeVirtAPI, *, connect_to: str = "127.0.0.1") -> None:
        self.api = api
        self.sock: socket.socket = socket.create_connection((connect_to, api.port), TIMEOUT)
        if api.tls:
            try:
                context = ssl.create_default_context(cafile=api.ca_file)
                self.sock = context.wrap_socket(self.sock, server_hostname=connect_to)
            except BaseException:
                self.sock.close()
                raise
        self.frames = FrameBuffer()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def ask(self, target: str, method: str = "GET", body: bytes = b"", **headers: str | None) -> None:
        """Send a request with the bearer; ``_`` in a header's name is ``-``, None leaves one out."""
        fields: dict[str, str | None] = {"host": "api"}
        if self.api.tls:
            fields["authorization"] = f"Bearer {self.api.token}"
        if body:
            fields["content-length"] = str(len(body))
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def ask_upgrade(self, target: str | None = None, **headers: str | None) -> None:
        """Send an opening handshake."""
        upgrade: dict[str, str | None] = {"connection": "Upgrade", "upgrade": "websocket"}
        upgrade |= {"sec_websocket_version": "13", "sec_websocket_key": KEY}
        self.ask(target or path(), **(upgrade | headers))

    def read_head(self) -> str:
        """Receive one answer's head; what came behind it is the first frames."""
        data = b""
        while b"\r\n\r\n" not in data:
            received = self.sock.recv(65536)
            if not received:
                raise EOFError(data)
            data += received
        head, _, rest = data.partition(b"\r\n\r\n")
        self.frames.feed(rest)
        return head.decode()

    def upgrade(self, target: str | None = None, **headers: str | None) -> str:
        """Do the opening handshake and return the 101's head."""
        self.ask_upgrade(target, **headers)
        head = self.read_head()
        if not head.startswith("HTTP/1.1 101 "):
            raise AssertionError(head)
        return head

    def read_rest(self) -> bytes:
        """Receive until the end of the stream."""
        data = self.frames.take(1 << 30)
        while received := self.sock.recv(65536):
            data += received
        return data

    def read_status(self) -> dict[str, Any]:
        """Receive an answer and return the JSON of its body."""
        head = self.read_head()
        if "application/json" not in head:
            raise AssertionError(head)
        status: dict[str, Any] = json.loads(self.read_rest())
        return status

    def frame(self) -> Frame:
        """Receive one frame."""
        while (frame := self.frames.next()) is None:
            received = self.sock.recv(65536)
            if not received:
                raise EOFError(self.frames.rest)
            self.frames.feed(received)
        return frame

    def send(self, payload: bytes, opcode: int = BINARY, *, fin: bool = True) -> None:
        """Send one masked frame."""
        self.sock.sendall(encode_frame(opcode, payload, fin=fin, mask=MASK))
