"""Shared by the tests of the simulated API: a client that shows every byte, and base classes."""

from __future__ import annotations

import json
import socket
import ssl
import unittest
from collections.abc import Callable
from types import TracebackType
from typing import Any

from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.kubevirt.backends import Backend, Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, Frame, FrameBuffer, encode_frame
from wsproxy.testing.rfb.raw_client import client_context

__all__ = ["KEY", "MASK", "WAIT", "APITestCase", "RawClient", "SessionTestCase", "path"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455's example; its accept value is s3pPLMBiTxaQ9kYGzzhZRbK+xOo=."""
MASK = b"\x12\x34\x56\x78"
WAIT = 60.0
"""Seconds that no step of a test takes unless it fails."""


def path(name: str = "vm", subresource: str = "vnc", version: str = "v1", namespace: str = "default") -> str:
    """Return the path of a subresource."""
    group = f"/apis/subresources.kubevirt.io/{version}/namespaces/{namespace}"
    return f"{group}/virtualmachineinstances/{name}/{subresource}"


class RawClient:
    """One connection to the API; every receive has a timeout.

    :param strict: whether an end without close_notify is an error.
    """

    def __init__(self, api: FakeKubeVirtAPI, *, connect_to: str = "127.0.0.1", strict: bool = False) -> None:
        self.api = api
        self.sock: socket.socket = socket.create_connection((connect_to, api.port), WAIT)
        if api.tls:
            try:
                context = client_context(api.ca_file)
                if not strict:  # Python's own default differs between its releases
                    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
                self.sock = context.wrap_socket(
                    self.sock, server_hostname=connect_to, suppress_ragged_eofs=not strict
                )
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
        self.ask(target or path(), "GET", b"", **(upgrade | headers))

    def read_head(self) -> str:
        """Receive one answer's head. Later bytes are the first frames."""
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


class APITestCase(unittest.TestCase):
    """Starts a simulated API, and fails a test in which the API itself had an error."""

    tls = False
    strict = False
    """Whether clients take an end of TCP without close_notify for an error."""

    def setUp(self) -> None:
        self.api = FakeKubeVirtAPI(tls=self.tls)
        self.addCleanup(lambda: self.assertEqual([], self.api.errors))
        self.addCleanup(self.api.stop)
        self.api.start()

    def client(self, **options: Any) -> RawClient:
        client = RawClient(self.api, strict=self.strict, **options)
        self.addCleanup(client.sock.close)
        return client

    def refusal(self, target: str, **headers: str | None) -> dict[str, Any]:
        """Return the Status that an upgrade request gets."""
        client = self.client()
        client.ask_upgrade(target, **headers)
        status = client.read_status()
        expected = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.assertEqual(expected, {key: status[key] for key in expected})
        self.assertEqual(status["code"], self.api.requests[-1].status)
        return status


class SessionTestCase(APITestCase):
    """Opens a session with a backend."""

    def open(self, backend: Backend) -> tuple[RawClient, FakeConsole]:
        self.vmi = self.api.add_vmi("vm", backend=backend)
        client = self.client()
        client.upgrade()
        return client, self.vmi.wait_for_session(WAIT)

    def script(self, run: Callable[[FakeConsole], None]) -> tuple[RawClient, FakeConsole]:
        return self.open(Script(run))

    def assert_over(self, client: RawClient, console: FakeConsole) -> None:
        """Close the client's side and check that the session ends at once."""
        client.sock.close()
        self.assertTrue(console.ended.wait(WAIT))
        self.assertTrue(self.api.wait_until_idle(WAIT))
