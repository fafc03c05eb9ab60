"""Consoles under gunicorn, as it is."""

from __future__ import annotations

import signal
from typing import Any

from tests.integration.wsgi_case import WSGIServerTestCase
from tests.integration.wsgi_servers import Gunicorn, WSGIServerProcess, get
from wsproxy.testing.rfb.raw_client import RawClient


class GunicornTest(WSGIServerTestCase):
    """Consoles through workers of the class gthread."""

    def start(self, *options: str, **more: Any) -> WSGIServerProcess:
        """Start a server."""
        more["certificate"] = self.certificate
        return self.watch(Gunicorn(self.api, *options, WSPROXY_CLOSE_TIMEOUT="2", **more))

    def test_console(self) -> None:
        """Frames pass both ways, those sent with the request included, and the client's Close ends it."""
        self.check_console(self.start())

    def test_console_after_a_page(self) -> None:
        """A connection that was kept alive becomes a console, and serves no page afterwards."""
        server = self.start()
        with RawClient(server.address) as client:
            for _ in range(2):
                client.send_raw(b"GET /page HTTP/1.1\r\nHost: proxy\r\n\r\n")
                client.read_head()
                body = b""
                while not body.endswith(b"\n"):
                    body += client.recv_raw()
            client.send_raw(RawClient.request(f"/{self.token('echo')}/echo"))
            client.read_head()
            self.assert_echoes(client)
            client.send_close(1000)
            self.assert_ends(client, 1000)

    def test_refused(self) -> None:
        """A refusal ends the connection, so that nothing behind it is taken for a request."""
        server = self.start()
        url = f"{server.url}/{self.token('other')}/echo"
        with RawClient.open(url, early=b"GET /page HTTP/1.1\r\nHost: proxy\r\n\r\n") as client:
            self.assertEqual(client.status, 403)
            self.assertNotIn(b"hello", client.body())

    def test_several_workers(self) -> None:
        """With several workers, the application loaded before the fork, all have consoles."""
        server = self.start("--workers", "3", "--preload", threads=16)
        names = [f"vm-{number}" for number in range(12)]
        for name in names:
            self.api.add_vmi(name, self.namespace)
        clients = [self.open(server, name) for name in names]
        for client in clients:
            self.assert_echoes(client)
        self.assertEqual(get(server.address, "/page")[0], 200)
        server.process.send_signal(signal.SIGTERM)
        for client in clients:
            self.assert_ends(client, 1012)

    def test_busy(self) -> None:
        """Beyond threads - reserve consoles are refused, and pages are still answered."""
        self.api.add_vmi("second", self.namespace)
        server = self.start(threads=3)
        self.assert_echoes(self.open(server))
        self.assertEqual(self.open(server, "second").status, 503)
        self.assertEqual(get(server.address, "/page")[0], 200)

    def test_stop(self) -> None:
        """When gunicorn is told to stop, consoles get their Close, and the worker waits for no more."""
        server = self.start("--graceful-timeout", "3600")
        self.assert_stops(server, signal.SIGTERM)

    def test_quit(self) -> None:
        """Also when it is told to stop at once."""
        for number in (signal.SIGINT, signal.SIGQUIT):
            with self.subTest(number):
                # Not watched: a worker that quits leaves its sockets open, and is warned of them.
                server = Gunicorn(self.api, "--graceful-timeout", "3600", certificate=self.certificate)
                self.addCleanup(server.close)
                self.assert_stops(server, number)

    def assert_stops(self, server: WSGIServerProcess, number: signal.Signals) -> None:
        """Check that a signal ends a console, and then the server."""
        client = self.open(server)
        self.assert_echoes(client)
        server.process.send_signal(number)
        self.assert_ends(client, 1012)
        self.assertEqual(server.process.wait(60), 0)

    def test_silent_client(self) -> None:
        """A client that does not answer its Close keeps the worker no longer than the close timeout."""
        server = self.start("--graceful-timeout", "3600")
        client = self.open(server)
        self.assert_echoes(client)
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(60), 0)

    def test_reload(self) -> None:
        """A reload ends the old worker's consoles, and the new worker has some."""
        server = self.start()
        client = self.open(server)
        self.assert_echoes(client)
        server.process.send_signal(signal.SIGHUP)
        self.assert_ends(client, 1012)
        self.assert_echoes(self.open(server))


class GunicornTLSTest(GunicornTest):
    """The same, where gunicorn speaks TLS."""

    client_tls = True


class OtherWorkersTest(WSGIServerTestCase):
    def test_sync_worker(self) -> None:
        """A worker without threads says what to use instead, and serves pages."""
        with Gunicorn(self.api, worker_class="sync", threads=1) as server:
            with RawClient.open(f"{server.url}/{self.token('echo')}/echo") as client:
                self.assertEqual(client.status, 501)
                body = b""
                while not body.endswith(b"\n"):
                    body += client.recv_raw()
                self.assertIn(b"--worker-class gthread", body)
            self.assertEqual(get(server.address, "/page")[0], 200)
