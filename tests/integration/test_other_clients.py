"""Other people's WebSocket clients through the proxy: they judge by their own reading of RFC 6455."""

from __future__ import annotations

import random
import unittest
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any, ClassVar

import simple_websocket

from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.backends import SocketBackend
from wsproxy.testing.screen.login_shell import LoginShell

try:
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import ClientConnection, connect
    from websockets.typing import Subprotocol
except ImportError:
    websockets_missing = True
else:
    websockets_missing = False

_SIZES = (0, 1, 125, 126, 4096, 65535, 65536, 200_000)
_TIMEOUT = 10
_UPSTREAM_CLOSED = 1011


def _messages() -> list[bytes]:
    return [random.Random(size).randbytes(size) for size in _SIZES]


@unittest.skipIf(websockets_missing, "websockets is not installed; scripts/integration installs it")
class WebsocketsTest(ProxyTestCase):
    """The library websockets, with its threaded client."""

    def setUp(self) -> None:
        super().setUp()
        self.vmi = self.api.add_vmi("echo", self.namespace)
        self.proxy = self.start_proxy()

    def connect(self, *subprotocols: str) -> ClientConnection:
        """Open a session; it is closed with the test."""
        names = [Subprotocol(name) for name in subprotocols]
        stack = ExitStack()
        self.addCleanup(stack.close)
        return stack.enter_context(
            connect(
                self.url(self.proxy, "echo"), subprotocols=names or None, max_size=None, open_timeout=_TIMEOUT
            )
        )

    def test_messages(self) -> None:
        """Messages of every size come back as they went, and no extension is agreed on."""
        client = self.connect()
        for message in _messages():
            client.send(message)
            self.assertEqual(client.recv(_TIMEOUT), message)
        assert client.response is not None
        self.assertNotIn("Sec-WebSocket-Extensions", client.response.headers)

    def test_fragments(self) -> None:
        """A message that is sent in fragments comes back whole."""
        client = self.connect()
        client.send([b"one ", b"", b"two ", b"three"])
        self.assertEqual(client.recv(_TIMEOUT), b"one two three")

    def test_ping(self) -> None:
        """A ping is answered by the other end of the session."""
        self.assertTrue(self.connect().ping(b"are you there").wait(_TIMEOUT))

    def test_subprotocol(self) -> None:
        """The subprotocol binary is agreed on if it was offered, and none if none was."""
        self.assertEqual(self.connect("binary").subprotocol, "binary")
        self.assertIsNone(self.connect().subprotocol)

    def test_close(self) -> None:
        """The client's Close is answered, with its code."""
        client = self.connect()
        client.close(1000, "done")
        with self.assertRaises(ConnectionClosed) as caught:
            client.recv(_TIMEOUT)
        assert caught.exception.rcvd is not None
        self.assertEqual(caught.exception.rcvd.code, 1000)
        self.assertTrue(self.api.wait_until_idle())

    def test_upstream_closed(self) -> None:
        """A VM that stops is a Close with code 1011 and a reason."""
        client = self.connect()
        client.send(b"x")
        client.recv(_TIMEOUT)
        self.vmi.drop_sessions()
        with self.assertRaises(ConnectionClosed) as caught:
            client.recv(_TIMEOUT)
        assert caught.exception.rcvd is not None
        self.assertEqual(caught.exception.rcvd.code, _UPSTREAM_CLOSED)
        self.assertTrue(caught.exception.rcvd.reason.startswith("upstream-closed"))

    def test_refused(self) -> None:
        """A refusal is an HTTP status with a body in JSON."""
        url = self.url(self.proxy, "missing")
        with self.assertRaises(InvalidStatus) as caught, connect(url, open_timeout=_TIMEOUT):
            pass
        self.assertEqual(caught.exception.response.status_code, 404)
        self.assertIn(b"vmi-not-found", bytes(caught.exception.response.body or b""))


@unittest.skipIf(websockets_missing, "websockets is not installed; scripts/integration installs it")
class SerialConsoleTest(ProxyTestCase):
    """A serial console as ``virtctl console`` opens it: a bearer token, KubeVirt's subprotocol, raw bytes."""

    proxy_settings: ClassVar[Mapping[str, Any]] = MappingProxyType({"subresources": ("console",)})

    def setUp(self) -> None:
        super().setUp()
        self.shell = LoginShell("vm")
        self.addCleanup(self.shell.close)
        self.api.add_vmi("vm", self.namespace, console_backend=SocketBackend(self.shell.serve))

    def connect(self, vmi: str = "vm") -> ClientConnection:
        """Open a VM's serial console; it is closed with the test."""
        host, port = self.console_proxy.address
        stack = ExitStack()
        self.addCleanup(stack.close)
        return stack.enter_context(
            connect(
                f"ws://{host}:{port}/-/{self.namespace}/{vmi}/console",
                additional_headers={"Authorization": f"Bearer {self.token('vm', 'mute')}"},
                subprotocols=[Subprotocol("plain.kubevirt.io")],
                open_timeout=_TIMEOUT,
            )
        )

    def assert_answers(self, client: ClientConnection, keys: str, answer: str) -> None:
        """Type keys one by one, and wait for what the machine answers to the last one."""
        for key in keys:
            client.send(key.encode())
        received = b""
        while not received.endswith(answer.encode()):
            message = client.recv(_TIMEOUT)
            assert isinstance(message, bytes)
            received += message

    def test_login(self) -> None:
        """Somebody logs in, runs a command and interrupts another one; the session goes on."""
        client = self.connect()
        self.assertEqual(client.subprotocol, "plain.kubevirt.io")
        self.assert_answers(client, "\r", "vm login: ")
        self.assert_answers(client, "student\r", "Password: ")
        self.assert_answers(client, "student\r", "student@vm:~$ ")
        self.assert_answers(client, "echo grüße\r", "\r\ngrüße\r\nstudent@vm:~$ ")
        self.assert_answers(client, "seq 1000000\r\x03", "^C\r\nstudent@vm:~$ ")

    def test_refused(self) -> None:
        """A VM without a serial console is refused with KubeVirt's own words."""
        self.api.add_vmi("mute", self.namespace, serial=False)
        with self.assertRaises(InvalidStatus) as caught:
            self.connect("mute")
        self.assertEqual(caught.exception.response.status_code, 409)
        self.assertIn(b"No serial consoles are present.", bytes(caught.exception.response.body or b""))


class SimpleWebsocketTest(ProxyTestCase):
    """The library simple-websocket."""

    def setUp(self) -> None:
        super().setUp()
        self.vmi = self.api.add_vmi("echo", self.namespace)
        self.proxy = self.start_proxy()

    def connect(self) -> simple_websocket.Client:
        """Open a session; it is closed with the test."""
        client = simple_websocket.Client(self.url(self.proxy, "echo"))
        self.addCleanup(self.close, client)
        return client

    @staticmethod
    def close(client: simple_websocket.Client) -> None:
        """Close a session, if it is not closed yet, and wait for the client's thread."""
        try:
            client.close()
        except simple_websocket.ConnectionClosed:
            pass
        client.thread.join(_TIMEOUT)

    def test_messages(self) -> None:
        """Messages of every size come back as they went."""
        client = self.connect()
        for message in _messages():
            client.send(message)
            self.assertEqual(client.receive(_TIMEOUT), message)

    def test_upstream_closed(self) -> None:
        """A VM that stops is a Close with code 1011 and a reason."""
        client = self.connect()
        client.send(b"x")
        client.receive(_TIMEOUT)
        self.vmi.drop_sessions()
        with self.assertRaises(simple_websocket.ConnectionClosed) as caught:
            client.receive(_TIMEOUT)
        self.assertEqual(caught.exception.reason, _UPSTREAM_CLOSED)

    def test_close(self) -> None:
        """The client's Close ends the session on both sides."""
        self.connect().close(1000, "done")
        self.assertTrue(self.api.wait_until_idle())
