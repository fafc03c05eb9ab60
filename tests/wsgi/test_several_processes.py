"""A WSGI application whose server has several processes: what must be true for all of them."""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
from http.client import HTTPConnection
from typing import Any
from unittest import mock
from wsgiref.util import setup_testing_defaults

from tests.support.proxy_process import wait_until
from tests.wsgi.test_app import WSGITestCase, behind
from wsproxy import Grant
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.wsgi.app import ConsoleApp

_NEEDS: tuple[dict[str, Any], ...] = (
    {"max_sessions": 1},
    {"max_sessions_per_user": 1},
    {"max_sessions_per_vmi": 1},
    {"max_failures": 1},
    {"tickets": True},
    {"console": "takeover"},
)
_FAULT = "500 Internal Server Error"
_UPGRADE: dict[str, Any] = {
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
}


def ask(app: Any, path: str, method: str = "GET", **more: Any) -> tuple[str, bytes]:
    """Ask an application whose server has several processes; return status and body."""
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method, **more}
    environ |= {"wsgi.multiprocess": True, "wsgi.multithread": True}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    body = app(environ, lambda status, headers, exc_info=None: statuses.append(status))
    return statuses[0], b"".join(body)


class DirectoryTestCase(WSGITestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)


class StateNotSharedTest(DirectoryTestCase):
    def check_refused(self, app: Any, path: str, method: str = "GET", **more: Any) -> None:
        status, body = ask(app, path, method, **more)
        self.assertEqual(status, _FAULT, path)
        if method != "HEAD":
            self.assertEqual(json.loads(body)["reason"], "state-not-shared", path)

    def test_each_setting(self) -> None:
        """Each setting that needs one truth is a fault, and the text names it and the remedy."""
        own = ({"admin": f"unix:{self.path('admin')}"}, {"state_file": self.path("rules")})
        for options in (*_NEEDS, *own):
            with self.subTest(options), self.assertLogs("wsproxy.wsgi", "ERROR") as logs:
                status, body = ask(self.make_app(**options), "/healthz")
                self.assertEqual(status, _FAULT)
                for text in (body.decode(), logs.output[0]):
                    self.assertIn(next(iter(options)), text)
                    self.assertIn("WSPROXY_STATE", text)
        self.assertEqual(os.listdir(self.directory), [])

    def test_each_request(self) -> None:
        """Each request of ours is refused, and the log has one line."""
        app = self.make_app(behind, host_path_prefix="console", tickets=True, screenshots=True)
        token = self.token("echo")
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        with self.assertLogs("wsproxy.wsgi", "ERROR") as logs:
            for path in ("/healthz", "/readyz", "/nothing", f"/{token}/echo/screenshot.png"):
                self.check_refused(app, "/console" + path)
            self.check_refused(app, "/console/ticket", "POST")
            self.check_refused(app, "/console/healthz", "HEAD")
            for path in (f"/console/{token}/echo", "/console/nothing"):
                self.check_refused(app, path, **(_UPGRADE | {"werkzeug.socket": ours}))
        self.assertEqual([record.levelno for record in logs.records], [logging.ERROR])

    def test_granted_console(self) -> None:
        """A console that a view opens is refused, too."""
        app = self.make_app(max_sessions=1)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        grant = Grant("5", self.namespace, ("echo",), 1e12, "login")
        with self.assertLogs("wsproxy.wsgi", "ERROR"):
            self.check_refused(
                lambda environ, start: app.connect(environ, start, grant, "echo"),
                "/any",
                **(_UPGRADE | {"werkzeug.socket": ours}),
            )

    def test_pages_of_the_application(self) -> None:
        """Pages of the embedding application are not touched."""
        app = self.make_app(behind, host_path_prefix="console", tickets=True)
        for path in ("/", "/page", "/consoles", "/healthz"):
            self.assertEqual(ask(app, path), ("200 OK", b"behind"))

    def test_line_of_each_process(self) -> None:
        """A process logs one line, also if another process has logged it before the fork."""
        app = self.make_app(tickets=True)
        with self.assertLogs("wsproxy.wsgi", "ERROR") as logs:
            for pid in (os.getpid(), os.getpid(), -2, -2):
                with mock.patch("wsproxy.wsgi.app.os.getpid", return_value=pid):
                    ask(app, "/healthz")
        self.assertEqual(len(logs.output), 2)

    def test_nothing_to_share(self) -> None:
        """What bounds a process's own cost needs no store."""
        app = self.make_app(max_pending=8, max_pending_per_address=5)
        self.assertEqual(ask(app, "/healthz")[0], "200 OK")


class OperatorCase(DirectoryTestCase):
    """Has an operator's listener in a WSGI application's process."""

    def setUp(self) -> None:
        super().setUp()
        self.admin = self.path("admin")
        for patcher in (
            mock.patch("wsproxy.admin.thread._TAKE_SECONDS", 0.01),
            mock.patch("wsproxy.admin.endpoints.check_metrics"),  # else it would warn where that is missing
        ):
            patcher.start()
            self.addCleanup(patcher.stop)

    def operator(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        status, answer = self.ask_operator(method, target, body)
        return status, json.loads(answer)

    def ask_operator(self, method: str, target: str, body: Any = None) -> tuple[int, bytes]:
        connection = HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(20)
            connection.sock.connect(self.admin)
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, target, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def start(self, **options: Any) -> tuple[ConsoleApp, RawClient, str]:
        """Open a console through an application with an operator's listener."""
        app = self.make_app(admin=f"unix:{self.admin}", **options)
        token = self.token("echo", user=5)
        client = self.open(self.serve(app), f"/{token}/echo")
        self.assert_echoes(client)
        return app, client, token


class OperatorTest(OperatorCase):
    def test_lists_and_kicks(self) -> None:
        """It starts with the first request, lists and ends sessions, and ends with the application."""
        app = self.make_app(admin=f"unix:{self.admin}")
        self.assertFalse(os.path.exists(self.admin))
        host, token = self.serve(app), self.token("echo", user=5)
        client = self.open(host, f"/{token}/echo")
        self.assert_echoes(client)
        status, listed = self.operator("GET", "/sessions")
        self.assertEqual((status, [one["user"] for one in listed["sessions"]]), (200, [5]))
        self.assertEqual(self.operator("POST", "/kick", {"user": "5"})[0], 200)
        self.assertEqual(client.recv_close(), (4499, "kicked"))
        client.send_close(4499)
        self.assertEqual(self.open(host, f"/{token}/echo").status, 401)
        app.close()
        self.assertFalse(os.path.exists(self.admin))

    def test_second_application(self) -> None:
        """Of two with one address, the second waits, serves consoles meanwhile, and then takes over."""
        first, _, _ = self.start()
        with self.assertLogs("wsproxy.admin", "WARNING") as logs:
            self.start()
        self.assertIn("nobody can list or end the sessions of this one", logs.output[0])
        first.close()
        self.assertTrue(wait_until(lambda: os.path.exists(self.admin)))
        self.assertEqual(len(self.operator("GET", "/sessions")[1]["sessions"]), 1)

    def test_wrong_address(self) -> None:
        """Consoles open although the address cannot be bound; the log says once that nobody can end them."""
        self.admin = self.path("nowhere/admin")
        with self.assertLogs("wsproxy.admin", "ERROR") as logs:
            self.start()
        self.assertEqual(len(logs.output), 1)

    def test_no_token(self) -> None:
        """Without the operator's token no console opens, and the log has one line; with it, they do."""
        file = self.path("token")
        with open(file, "w", encoding="ascii") as empty:
            empty.write("short\n")
        app = self.make_app(admin=f"unix:{self.admin}", admin_token_file=file, state_file=self.path("rules"))
        host = self.serve(app)
        with self.assertLogs("wsproxy.wsgi", "ERROR") as logs:
            for _ in range(2):
                self.assertEqual(self.open(host).status, 500)
                self.assertEqual(self.get(host, "/healthz")[0], 500)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("operator's token", logs.output[0])
        with open(file, "w", encoding="ascii") as full:
            full.write("0123456789abcdef\n")
        self.assert_echoes(self.open(host))

    def test_file_of_another_process(self) -> None:
        """While another process has the file of revocations, no console opens, and the log says why once."""
        options: dict[str, Any] = {"state_file": self.path("rules")}
        first, second = self.make_app(**options), self.make_app(**options)
        self.assertEqual(self.get(self.serve(first), "/healthz")[0], 200)
        host = self.serve(second)
        with self.assertLogs("wsproxy.wsgi", "ERROR") as logs:
            for _ in range(3):
                self.assertEqual(self.get(host, "/healthz")[0], 500)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("another process has it", logs.output[0])
        first.close()
        self.assertEqual(self.get(host, "/healthz")[0], 200)
