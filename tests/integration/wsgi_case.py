"""What the tests of WSGI servers have in common."""

from __future__ import annotations

from typing import Any

from tests.integration.wsgi_servers import WSGIServerProcess, get
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

__all__ = ["WSGIServerTestCase"]

_COMPLAINTS = ("Traceback", "Warning", "ERROR", "WARNING", "Exception")
_WITHIN = 20.0
_BIG = bytes(range(256)) * 8192


class WSGIServerTestCase(ProxyTestCase):
    """Opens consoles of an echo server through WSGI servers."""

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("echo", self.namespace)

    @property
    def certificate(self) -> tuple[str, str] | None:
        """Files with the server's certificate and key, None where clients come without TLS."""
        return self.proxy_certificate if self.client_tls else None

    def watch(self, server: WSGIServerProcess) -> WSGIServerProcess:
        """Stop a server with the test, and check that it ended in good order and complained about nothing."""
        self.addCleanup(server.close)
        self.addCleanup(self._check, server)
        return server

    def _check(self, server: WSGIServerProcess) -> None:
        self.assertEqual(server.stop(), 0, server.output)
        for word in _COMPLAINTS:
            self.assertNotIn(word, server.output)

    def open(self, server: WSGIServerProcess, vmi: str = "echo", **options: Any) -> RawClient:
        """Open a console and return the client, whatever was answered."""
        client = RawClient.open(f"{server.url}/{self.token(vmi)}/{vmi}", **options)
        self.addCleanup(client.close)
        return client

    def assert_echoes(self, client: RawClient, payload: bytes = b"hello") -> None:
        """Check that a console is open."""
        self.assertEqual(client.status, 101, client.head)
        client.send_frame(BINARY, payload)
        received = b""
        while len(received) < len(payload):
            received += client.recv_frame().payload
        self.assertEqual(received, payload)

    def check_console(self, server: WSGIServerProcess) -> None:
        """Check that a console carries early and big frames, and that pages are answered after its end."""
        client = self.open(server, early=b"\x82\x85\0\0\0\0early")
        self.assertEqual(client.recv_frame().payload, b"early")
        self.assert_echoes(client, _BIG)
        client.send_close(1000)
        self.assert_ends(client, 1000)
        self.assertEqual(get(server.address, "/page")[0], 200)

    def assert_ends(self, client: RawClient, code: int) -> None:
        """Check that a console ends in good order."""
        self.assertEqual(client.recv_close(_WITHIN)[0], code)
        client.send_close(code)
        self.assertTrue(client.wait_for_end(_WITHIN))
