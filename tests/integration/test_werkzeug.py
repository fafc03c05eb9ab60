"""Consoles under werkzeug's development server, as it is."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from typing import Any

from tests.integration.wsgi_case import WSGIServerTestCase
from tests.integration.wsgi_servers import Werkzeug, WSGIServerProcess, get
from tests.support.proxy_process import wait_until


class WerkzeugTest(WSGIServerTestCase):
    """Consoles through a thread for each request."""

    def start(self, **options: Any) -> WSGIServerProcess:
        """Start a server."""
        options["certificate"] = self.certificate
        return self.watch(Werkzeug(self.api, WSPROXY_CLOSE_TIMEOUT="2", **options))

    def test_console(self) -> None:
        """Frames pass both ways, those sent with the request included, and the client's Close ends it."""
        self.check_console(self.start())

    def test_paths_are_not_logged(self) -> None:
        """The server's own log shows the path of no console, opened or refused, for it may hold a token."""
        server = self.start()
        client = self.open(server)
        self.assert_echoes(client)
        client.send_close(1000)
        self.assert_ends(client, 1000)
        self.assertEqual(self.open(server, "other").status, 404)
        get(server.address, "/page")
        server.stop()
        self.assertIn("/page", server.output)
        self.assertNotIn(self.token("echo").partition(".")[0], server.output)

    def test_debugger(self) -> None:
        """werkzeug's debugger takes the end of a console for no error."""
        server = self.start(debugger=True)
        client = self.open(server)
        self.assert_echoes(client)
        client.send_close(1000)
        self.assert_ends(client, 1000)
        self.assertEqual(self.open(server, "other").status, 404)

    def test_without_threads(self) -> None:
        """A server that serves one request at a time says so."""
        server = Werkzeug(self.api, certificate=self.certificate, threaded=False)
        self.addCleanup(server.close)
        client = self.open(server)
        self.assertEqual(client.status, 501)

    def test_interrupted(self) -> None:
        """Control-C ends consoles with a Close."""
        server = self.start()
        client = self.open(server)
        self.assert_echoes(client)
        server.process.send_signal(signal.SIGINT)
        self.assert_ends(client, 1012)
        self.assertEqual(server.process.wait(60), 0)


class WerkzeugTLSTest(WerkzeugTest):
    """The same, where werkzeug speaks TLS."""

    client_tls = True


class ReloaderTest(WSGIServerTestCase):
    def test_reload(self) -> None:
        """When the reloader starts the server anew, consoles get their Close, and new ones are opened."""
        with tempfile.TemporaryDirectory() as directory:
            changed = os.path.join(directory, "changed.py")
            with open(changed, "w", encoding="ascii") as file:
                file.write("")
            options = f"use_reloader=True, extra_files=[{changed!r}], reloader_type='stat'"
            server = Werkzeug(self.api, reloader=options)
            self.addCleanup(server.close)
            client = self.open(server)
            self.assert_echoes(client)
            newer = itertools.count(os.stat(changed).st_mtime + 100)

            def noticed() -> bool:
                os.utime(changed, (0, next(newer)))  # again and again, until the reloader has seen one before
                return "Restarting with stat" in server.output.partition("session")[2]

            self.assertTrue(wait_until(noticed, 60.0))
            self.assert_ends(client, 1012)
            self.assert_echoes(self.open(server))
