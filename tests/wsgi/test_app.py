"""Consoles through a WSGI application."""

from __future__ import annotations

import atexit
import json
import math
import os
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from tests.support.gate import Gate
from tests.support.novnc import stand_in_novnc
from tests.support.proxy_process import wait_until
from tests.support.wsgi_host import Host, gunicorn_worker
from wsproxy import AccessRequest, Config, ConfigError, Ending, Grant, SessionHandle
from wsproxy.net.tls_context import server_context
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import LeakTestCase, ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.wsgi.app import ConsoleApp

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_EARLY = b"\x82\x85\0\0\0\0early"
_WAIT = 20.0


def behind(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """The application behind a middleware."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"behind"]


class WSGITestCase(ProxyTestCase):
    """Consoles of an echo server under a WSGI server.

    :cvar kind: what server it pretends to be.
    """

    kind = "werkzeug"

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("echo", self.namespace)

    def config(self, **options: Any) -> Config:
        """Return settings for an application in front of the stand-in."""
        given = self.proxy_options(**options)
        for name in ("tls_cert", "tls_key"):
            given.pop(name, None)
        return Config(**given)

    def make_app(
        self, app: Any = None, *, threads: int | None = None, reserve: int = 2, **options: Any
    ) -> ConsoleApp:
        """Return an application, which is closed with the test."""
        hooks = {name: options.pop(name) for name in ("authorize", "on_open", "on_close") if name in options}
        made = ConsoleApp(self.config(**options), app, threads=threads, reserve=reserve, **hooks)
        self.addCleanup(made.close)
        return made

    def serve(self, app: Any, **environ: Any) -> Host:
        """Serve an application until the end of the test."""
        tls = server_context(*self.proxy_certificate) if self.client_tls else None
        host = Host(app, self.kind, tls=tls, environ=environ)
        host.start()
        self.addCleanup(lambda: self.assertEqual(host.errors, []))
        self.addCleanup(host.stop)
        return host

    def open(self, host: Host, path: str = "", *headers: str, early: bytes = b"") -> RawClient:
        """Open a console and return the client, whatever was answered."""
        path = path or f"/{self.token('echo')}/echo"
        client = RawClient.open(host.url + path, headers=headers, early=early)
        self.addCleanup(client.close)
        return client

    def get(self, host: Host, path: str, method: str = "GET") -> tuple[int, bytes]:
        """Ask for a page."""
        with RawClient(host.address) as client:
            client.send_raw(f"{method} {path} HTTP/1.1\r\nHost: proxy\r\n\r\n".encode())
            client.read_head()
            return client.status, self.body(client)

    def body(self, client: RawClient) -> bytes:
        """Receive a body; a server may end TLS without close_notify."""
        body, size = b"", int(client.header("Content-Length") or 0)
        while len(body) < size:
            body += client.recv_raw()
        return body

    def assert_echoes(self, client: RawClient, payload: bytes = b"hello") -> None:
        """Check that a console is open, and what is sent comes back."""
        self.assertEqual(client.status, 101, client.head)
        client.send_frame(BINARY, payload)
        self.assertEqual(client.recv_frame().payload, payload)


class BehindOtherProxies(WSGITestCase):
    def test_scheme_of_a_websocket(self) -> None:
        """Traefik sets wss, which werkzeug's ProxyFix passes on. The proxy's own pages are https anyway."""

        def fixed(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
            environ["wsgi.url_scheme"] = scheme
            return app(environ, start_response)

        app = self.make_app(allow_origin=["https://lab.example"])
        host = self.serve(fixed)
        for scheme, page, status in (
            ("wss", "https://proxy", 101),
            ("https", "https://proxy", 101),
            ("ws", "http://proxy", 101),
            ("http", "http://proxy", 101),
            ("wss", "http://proxy", 403),
            ("ws", "https://proxy", 403),
        ):
            with self.subTest(scheme=scheme, page=page), RawClient(host.address) as client:
                path = f"/{self.token('echo')}/echo"
                client.send_raw(RawClient.request(path, [f"Origin: {page}"]))
                client.read_head()
                self.assertEqual(client.status, 101)
                if status == 101:
                    self.assert_echoes(client)
                else:
                    self.assertEqual(client.recv_frame().payload, b"RFB 003.008\n")

    def test_headers_of_a_trusted_proxy(self) -> None:
        """The setting ``forwarded_headers`` also works under a WSGI server."""
        options: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"], "allow_origin": ["https://lab.example"]}
        both = [
            "Forwarded: for=6.6.6.6;host=evil.example",
            "X-Forwarded-For: 192.0.2.7",
            "Origin: http://proxy",
        ]
        host = self.serve(self.make_app(**options))
        client = self.open(host, "", *both)
        self.assertEqual(client.recv_frame().payload, b"RFB 003.008\n")
        self.assert_echoes(
            self.open(self.serve(self.make_app(forwarded_headers="x-forwarded", **options)), "", *both)
        )

    def test_proxy_protocol(self) -> None:
        """The setting ``proxy_protocol`` is a fault, because the server reads connections here."""
        with self.assertRaisesRegex(ConfigError, "proxy_protocol"):
            self.make_app(trusted_proxies=["127.0.0.1"], proxy_protocol=True)


class ConsoleTest(WSGITestCase):
    def test_session(self) -> None:
        """A console is opened, carries frames both ways, and ends with the client's Close."""
        host = self.serve(self.make_app())
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            client = self.open(host)
            self.assert_echoes(client)
            self.assert_echoes(client, bytes(300_000))
            client.send_close(1000, "bye")
            self.assertEqual(client.recv_close(), (1000, ""))
            self.assertTrue(client.wait_for_end())
            host.stop()
        self.assertRegex(logs.output[0], r"opened: client 127\.0\.0\.1:\d+ user 0 vmi lab-1/echo")
        self.assertRegex(logs.output[1], "ended: by client code 1000 'bye'")

    def test_early_frames(self) -> None:
        """Frames that a client sends with its request are delivered."""
        self.assertEqual(self.open(self.serve(self.make_app()), early=_EARLY).recv_frame().payload, b"early")

    def test_handshake(self) -> None:
        """The subprotocol is what was agreed on upstream, and there is no extension."""
        client = self.open(
            self.serve(self.make_app()),
            "",
            "Sec-WebSocket-Protocol: other, Binary",
            "Sec-WebSocket-Extensions: permessage-deflate",
        )
        self.assertEqual(client.header("Sec-WebSocket-Protocol"), "Binary")
        self.assertIsNone(client.header("Sec-WebSocket-Extensions"))
        self.assertEqual(client.header("Sec-WebSocket-Accept"), "Bz3qJYTGdOe8gUSpLosEdiLKDrk=")
        self.assert_echoes(client)

    def test_upstream_ends(self) -> None:
        """The upstream's end reaches the client as 1011."""
        client = self.open(self.serve(self.make_app()))
        self.assert_echoes(client)
        self.api.stop()
        self.assertEqual(client.recv_close()[0], 1011)

    def test_refused_before_the_101(self) -> None:
        """No client gets its 101 before the upstream is open. A refusal comes by HTTP, and then the end."""
        host = self.serve(self.make_app())
        for path, status, reason in (
            (f"/{self.token('echo')}x/echo", 401, "bad-token"),
            (f"/{self.token('echo')}/other", 403, "forbidden"),
            (f"/{self.token('gone')}/gone", 404, "vmi-not-found"),
            (f"/{self.token('echo')}/echo/console", 404, "not-found"),
            (f"/{self.token('echo')}/e%63ho", 400, "bad-request"),
            ("/nothing", 404, "not-found"),
        ):
            with self.subTest(path.rpartition("/")[2]):
                client = self.open(host, path)
                self.assertEqual(client.status, status)
                self.assertEqual(json.loads(self.body(client))["reason"], reason)

    def test_browser_is_refused(self) -> None:
        """A browser is told by a Close frame."""
        client = self.open(self.serve(self.make_app()), f"/{self.token('other')}/echo", "Origin: http://page")
        self.assertEqual(client.status, 101)
        client.send_frame(BINARY, b"RFB 003.008\n")
        self.assertEqual(client.recv_close()[0], 4403)

    def test_malformed_upgrade(self) -> None:
        """A WebSocket of another version gets 426."""
        host = self.serve(self.make_app())
        with RawClient(host.address) as client:
            client.send_raw(RawClient.request("/x/y").replace(b"Version: 13", b"Version: 8"))
            client.read_head()
            self.assertEqual((client.status, client.header("Sec-WebSocket-Version")), (426, "13"))

    def test_no_secrets_in_the_log(self) -> None:
        """No record of wsproxy's, at any level, contains a token."""
        host, token = self.serve(self.make_app()), self.token("echo")
        with self.assertLogs(level="DEBUG") as logs:
            self.assert_echoes(self.open(host, f"/{token}/echo"))
            self.open(host, f"/{token}/other")
            self.get(host, f"/{token}/echo")
        self.assertNotIn(token.rpartition(".")[2], "\n".join(logs.output))


class GunicornConsoleTest(ConsoleTest):
    """The same, with a socket and a body as gunicorn gives them."""

    kind = "gunicorn"

    def setUp(self) -> None:
        super().setUp()
        worker = gunicorn_worker(threads=8)
        self.worker = worker.__enter__()
        self.addCleanup(worker.__exit__, None, None, None)


class TLSConsoleTest(ConsoleTest):
    """The same by TLS, which the server speaks."""

    client_tls = True


class TLSGunicornConsoleTest(GunicornConsoleTest):
    """And that as gunicorn does."""

    client_tls = True


class HTTPTest(WSGITestCase):
    def request(self, app: ConsoleApp, path: str, method: str = "GET") -> tuple[str, dict[str, str], bytes]:
        """Call an application as a strict server does; it needs no socket for this."""
        environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": ""}
        environ["REQUEST_METHOD"] = method
        setup_testing_defaults(environ)
        answers: list[tuple[str, dict[str, str]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            answers.append((status, dict(headers)))
            return lambda data: None

        result = validator(app)(environ, start_response)
        try:
            body = b"".join(result)
        finally:
            result.close()  # type: ignore[attr-defined]
        return (*answers[0], body)

    def test_health(self) -> None:
        """Named endpoints are answered through WSGI, under any server."""
        app = self.make_app()
        status, headers, body = self.request(app, "/healthz")
        self.assertEqual((status, body), ("200 OK", b"ok\n"))
        self.assertNotIn("Connection", headers)
        self.assertEqual(headers["Content-Length"], "3")
        status, headers, body = self.request(app, "/healthz", "HEAD")
        self.assertEqual((status, body), ("200 OK", b""))

    def test_refusals(self) -> None:
        """Unknown paths and wrong methods are refused through WSGI, too."""
        app = self.make_app()
        status, _, body = self.request(app, "/nothing")
        self.assertEqual((status, json.loads(body)["reason"]), ("404 Not Found", "not-found"))
        status, headers, _ = self.request(app, "/healthz", "PUT")
        self.assertEqual((status, headers["Allow"]), ("405 Method Not Allowed", "GET, HEAD"))

    def test_middleware_with_a_prefix(self) -> None:
        """Every path below the prefix belongs to wsproxy, and every other one to the application."""
        host = self.serve(self.make_app(behind, host_path_prefix="a/b"))
        for path in ("/", "/healthz", "/a", "/x/y"):
            self.assertEqual(self.get(host, path), (200, b"behind"))
        self.assertEqual(self.get(host, "/a/b/healthz"), (200, b"ok\n"))
        self.assertEqual(self.get(host, "//a//b/x")[0], 404)
        self.assert_echoes(self.open(host, f"/a/b/{self.token('echo')}/echo"))
        self.assertEqual(self.open(host, f"/{self.token('echo')}/echo").status, 200)

    def test_middleware_without_a_prefix(self) -> None:
        """Without a prefix, wsproxy takes consoles and endpoints; other WebSockets go to the application."""
        host = self.serve(self.make_app(behind))
        self.assertEqual(self.get(host, "/healthz"), (200, b"ok\n"))
        for path in ("/", "/ticket", f"/{self.token('echo')}/echo"):
            self.assertEqual(self.get(host, path), (200, b"behind"))
        for path in ("/socket/chat", "/a.b.c", "/a.b.c/d/e/f"):
            self.assertEqual(self.open(host, path).status, 200)
        self.assert_echoes(self.open(host))
        self.assertEqual(self.open(host, "/-/echo").status, 401)

    def test_middleware_with_files(self) -> None:
        """Without a prefix, wsproxy takes the files, the page and its endpoint, and no other path."""
        web = tempfile.TemporaryDirectory()
        self.addCleanup(web.cleanup)
        Path(web.name, "vnc.html").write_text("noVNC", encoding="ascii")
        host = self.serve(self.make_app(behind, web=web.name, console_page=True, novnc=stand_in_novnc(self)))
        self.assertEqual(self.get(host, "/vnc.html?path=x"), (200, b"noVNC"))
        self.assertEqual(self.get(host, "/vnc.html", "PUT")[0], 405)
        self.assertEqual(self.get(host, "/console")[0], 307)
        self.assertIn(b"<title>", self.get(host, "/console/")[1])
        self.assertEqual(self.get(host, "/console/grant")[0], 401)
        for path in ("/", "//vnc.html", "/vnc.html/", "/console/nothing", "/console/grant/x", "/VNC.html"):
            self.assertEqual(self.get(host, path), (200, b"behind"))
        self.assertEqual(self.open(host, "/vnc.html").status, 200)

    def test_page_of_a_mounted_application(self) -> None:
        """The page works wherever the application is mounted: no path in it is absolute."""
        app = self.make_app(console_page=True, novnc=stand_in_novnc(self), host_path_prefix="p")
        host = self.serve(app, SCRIPT_NAME="/mounted")
        status, headers, _ = self.request(app, "/p/console")
        self.assertEqual((status, headers["Location"]), ("307 Temporary Redirect", "console/"))
        self.assertEqual(self.get(host, "/p/console/")[0], 200)
        status, headers, body = self.request(app, "/p/console/", "HEAD")
        self.assertEqual((status, body), ("200 OK", b""))
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])

    def test_ticket(self) -> None:
        """A ticket's path leads to its console from where the application is mounted."""
        host = self.serve(self.make_app(tickets=True, host_path_prefix="p"), SCRIPT_NAME="/mounted")
        body = b'{"vmi": "echo"}'
        with RawClient(host.address) as client:
            lines = ["POST /p/ticket HTTP/1.1", "Host: proxy", f"Authorization: Bearer {self.token('echo')}"]
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
            client.send_raw("\r\n".join(lines).encode() + body)
            client.read_head()
            self.assertEqual(client.status, 201)
            path = json.loads(self.body(client))["path"]
        self.assertTrue(path.startswith("/mounted/p/"))
        self.assert_echoes(self.open(host, path.removeprefix("/mounted")))

    def test_pending_per_address(self) -> None:
        """A request that is not authorised yet counts against the limit, which never refuses a probe."""
        gate = Gate(self, _WAIT)

        def authorize(grant: Grant, request: AccessRequest) -> Grant:
            gate.stop()
            return grant

        host = self.serve(self.make_app(screenshots=True, max_pending_per_address=1, authorize=authorize))
        with RawClient(host.address) as slow:
            path = f"/{self.token('echo')}/echo/screenshot.png"
            slow.send_raw(f"GET {path} HTTP/1.1\r\nHost: proxy\r\n\r\n".encode())
            gate.wait()
            self.assertEqual(self.get(host, "/nothing")[0], 429)
            self.assertEqual(self.get(host, "/healthz")[0], 200)
            gate.open()
            slow.read_head()
            self.body(slow)
            self.assertEqual(self.get(host, "/nothing")[0], 404)
        self.assertTrue(wait_until(lambda: self.get(host, "/nothing")[0] == 404))


class ConnectTest(WSGITestCase):
    """The application has authenticated its user by itself."""

    def grant(self, **changes: Any) -> Grant:
        """Return a grant for the console."""
        return replace(Grant("5", self.namespace, ("echo",), math.inf, "login"), **changes)

    def serve_grant(self, grant: Any, vmi: str = "echo", **options: Any) -> Host:
        """Serve an application that passes the grant for every request."""
        subresource = options.pop("subresource", None)
        app = self.make_app(**options)
        return self.serve(
            lambda environ, start_response: app.connect(
                environ, start_response, grant, vmi, subresource=subresource
            )
        )

    def test_console(self) -> None:
        """No token is needed, and any path works."""
        requests: list[AccessRequest] = []
        authorize = lambda grant, request: requests.append(request)  # noqa: E731
        host = self.serve_grant(self.grant(), authorize=authorize)
        self.assert_echoes(self.open(host, "/any/path/what/ever"))
        self.assertEqual([(r.credential, r.vmi) for r in requests], [("grant", "echo")])

    def test_pages(self) -> None:
        """Pages of other hosts are refused, because their requests carry the login cookie, too."""
        host = self.serve_grant(self.grant(), reject="http", allow_origin=("https://friend",))
        for origin, status in (("http://proxy", 101), ("https://friend", 101), ("http://evil", 403)):
            with self.subTest(origin):
                self.assertEqual(self.open(host, "/x", f"Origin: {origin}").status, status)
        host = self.serve_grant(self.grant(), reject="http")
        self.assertEqual(self.open(host, "/x", "Origin: http://evil").status, 403)

    def test_refused(self) -> None:
        """A grant opens the consoles that it names, if they exist, until it expires."""
        for grant, vmi, options, status in (
            (self.grant(), "other", {}, 403),
            (self.grant(vmis=("gone",)), "gone", {}, 404),
            (self.grant(vmis=("../x",)), "../x", {}, 400),
            (self.grant(namespace="A/b"), "echo", {}, 400),
            (self.grant(), "echo", {"namespaces": ("lab-2",)}, 403),
            (self.grant(), "echo", {"subresource": "console"}, 404),
            (self.grant(expires_at=1.0), "echo", {}, 401),
        ):
            with self.subTest(grant=grant, vmi=vmi, options=options):
                client = self.open(self.serve_grant(grant, vmi, **options), "/x")
                self.assertEqual(client.status, status)

    def test_view_without_start_response(self) -> None:
        """A framework may begin its own response first, and stream: docs/guides/wsgi.md has it for Django."""
        app = self.make_app()

        def framework(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
            told: list[tuple[str, Any]] = []
            remember = lambda status, headers, exc_info=None: told.append((status, headers))  # noqa: E731
            vmi = environ["PATH_INFO"][1:]
            pieces = app.connect(environ, remember, self.grant(), vmi)  # type: ignore[arg-type]
            start_response(*(told[0] if told else ("200 OK", [("X-Frame-Options", "DENY")])))
            return (piece for piece in pieces)

        host = self.serve(framework)
        client = self.open(host, "/echo")
        self.assert_echoes(client)
        client.send_close(1000)
        self.assertEqual(client.recv_close()[0], 1000)
        self.assertEqual(self.open(host, "/other").status, 403)
        self.assertEqual(self.get(host, "/echo")[0], 426)

    def test_no_upgrade(self) -> None:
        """Other requests are told to upgrade."""
        self.assertEqual(self.get(self.serve_grant(self.grant()), "/x")[0], 426)

    def test_no_grant(self) -> None:
        """If the grant is not a Grant, or a field has the wrong type, ``connect`` raises TypeError."""
        app = self.make_app()
        for grant in (
            None,
            "echo",
            self.grant(vmis="echo"),
            self.grant(vmis=["echo"]),
            self.grant(expires_at=10**400),  # as no float is
            self.grant(user=10**400),  # Python would not write one of 5000 digits to a log
        ):
            with self.subTest(grant), self.assertRaises(TypeError):
                app.connect({}, lambda *args: None, grant, "echo")  # type: ignore[arg-type]

    def test_browser_without_console(self) -> None:
        """If the console speaks RFB, a browser gets a refusal as RFB's failure message."""
        client = self.open(self.serve_grant(self.grant(), "other"), "/x", "Origin: http://proxy")
        self.assertEqual(client.recv_frame().payload, b"RFB 003.008\n")


class HooksTest(WSGITestCase):
    def test_sessions(self) -> None:
        """The program is told of sessions, sees them, and may close them."""
        opened: list[SessionHandle] = []
        closed: list[Ending] = []
        over = threading.Event()

        def on_close(session: SessionHandle, ending: Ending) -> None:
            closed.append(ending)
            over.set()

        app = self.make_app(on_open=opened.append, on_close=on_close)
        self.assertEqual(app.sessions(), [])
        client = self.open(self.serve(app))
        self.assert_echoes(client)
        self.assertEqual(app.sessions(), opened)
        opened[0].close(4499, "kicked")
        self.assertEqual(client.recv_close(), (4499, "kicked"))
        client.send_close(4499)
        self.assertTrue(over.wait(_WAIT))
        self.assertEqual((closed[0].by, closed[0].code), ("proxy", 4499))


class ThreadsTest(WSGITestCase):
    """A console holds a thread of the server."""

    kind = "gunicorn"

    def test_busy(self) -> None:
        """The last threads serve no consoles: one more is refused as busy, and let in afterwards."""
        over = threading.Event()
        with gunicorn_worker(threads=3):
            host = self.serve(self.make_app(behind, reserve=2, on_close=lambda *args: over.set()))
            first = self.open(host)
            self.assert_echoes(first)
            busy = self.open(host)
            self.assertEqual((busy.status, busy.header("Retry-After")), (503, "5"))
            self.assertEqual(json.loads(self.body(busy))["reason"], "busy")
            browser = self.open(host, "", "Origin: http://page")
            browser.send_frame(BINARY, b"RFB 003.008\n")
            self.assertEqual(browser.recv_close()[0], 4503)
            self.assertEqual(self.get(host, "/page"), (200, b"behind"))
            first.send_close()
            self.assertTrue(first.wait_for_end())
            self.assertTrue(over.wait(_WAIT))
            self.assert_soon_open(host)

    def assert_soon_open(self, host: Host) -> None:
        """Check that a thread is free again, a moment after the hook was called."""
        deadline = Deadline(_WAIT)
        while (client := self.open(host)).status != 101:
            self.assertEqual(client.status, 503)
            self.assertFalse(deadline.passed, "the server is still busy")
            client.wait_for_end()

    def test_too_few(self) -> None:
        """A server with too few threads serves no console; log and refusal say how many it needs."""
        for threads in (1, 2):
            with gunicorn_worker(threads=threads), self.assertLogs("wsproxy.wsgi", "WARNING") as logs:
                client = self.open(self.serve(self.make_app()))
                self.assertEqual(client.status, 503)
            told = f"it has {threads}, and keeps 2 for other requests; a console needs 3 or more"
            self.assertIn(told, json.loads(self.body(client))["message"])
            self.assertIn(told, logs.output[0])

    def test_told(self) -> None:
        """The program may give the number of threads, if the server does not."""
        self.kind = "werkzeug"
        host = self.serve(self.make_app(threads=3))
        self.assert_echoes(self.open(host))
        self.assertEqual(self.open(host).status, 503)

    def test_unknown(self) -> None:
        """If neither server nor program gives the number of threads, no console is opened."""
        with self.assertLogs("wsproxy.wsgi", "ERROR") as logs:
            host = self.serve(self.make_app())
            for _ in range(2):
                client = self.open(host)
                self.assertEqual(
                    (client.status, json.loads(self.body(client))["reason"]), (501, "unsupported-server")
                )
        self.assertEqual(len(logs.output), 1)

    def test_worker_stops(self) -> None:
        """When the worker is about to stop, its consoles get their Close, and no new one is opened."""
        with gunicorn_worker(threads=8) as worker:
            host = self.serve(self.make_app())
            client = self.open(host)
            self.assert_echoes(client)
            worker.alive = False
            self.assertEqual(client.recv_close(), (1012, "restarting"))
            client.send_close(1012)
            self.assertTrue(client.wait_for_end())
            late = self.open(host)
            self.assertEqual((late.status, json.loads(self.body(late))["reason"]), (503, "draining"))


class UnsupportedTest(LeakTestCase):
    def test_one_error(self) -> None:
        """If the server gives no socket, one log line and each refusal say so; other requests are served."""
        config = Config(remote_url="ws://localhost:1", secret_key="s" * 32, local_dev_mode=True)
        app = ConsoleApp(config)
        self.addCleanup(app.close)
        environ: dict[str, Any] = {"PATH_INFO": "/-/echo", "HTTP_UPGRADE": "websocket", "REMOTE_ADDR": "::1"}
        environ |= {"waitress.client_disconnected": None}
        setup_testing_defaults(environ)
        answers: list[str] = []
        with self.assertLogs("wsproxy.wsgi", "ERROR") as logs:
            for _ in range(2):
                body = b"".join(app(environ, lambda status, *rest: answers.append(status)))  # type: ignore[arg-type]
                self.assertIn("gthread", json.loads(body)["message"])
        self.assertEqual(answers, ["501 Not Implemented"] * 2)
        self.assertEqual(len(logs.output), 1)
        del environ["HTTP_UPGRADE"]
        self.assertEqual(
            b"".join(app(environ | {"PATH_INFO": "/healthz"}, lambda *args: None)),  # type: ignore[arg-type]
            b"ok\n",
        )


class LifeTest(WSGITestCase):
    def test_close(self) -> None:
        """``close`` ends consoles with 1012, refuses later ones, and may be called again."""
        app = self.make_app()
        host = self.serve(app)
        client = self.open(host)
        self.assert_echoes(client)
        closing = threading.Thread(target=app.close)
        closing.start()
        self.assertEqual(client.recv_close(), (1012, "restarting"))
        client.send_close(1012)
        closing.join(_WAIT)
        self.assertFalse(closing.is_alive())
        app.close()
        self.assertEqual(app.sessions(), [])
        self.assertEqual(self.open(host).status, 503)
        self.assertEqual(self.get(host, "/healthz")[0], 503)

    def test_close_before_the_start(self) -> None:
        """An application that never started can be closed."""
        app = self.make_app()
        app.close()
        self.assertEqual(self.open(self.serve(app)).status, 503)

    def test_silent_client(self) -> None:
        """``close`` takes no longer than its timeout, whatever the clients do."""
        app = self.make_app(close_timeout=60.0)
        client = self.open(self.serve(app))
        self.assert_echoes(client)
        app.close(timeout=0.1)
        self.assertEqual(client.recv_close(), (1012, "restarting"))
        self.assertTrue(client.wait_for_end())
        self.assertEqual(app.sessions(), [])

    def test_close_from_a_session(self) -> None:
        """A session cannot wait for its own end."""
        errors: list[str] = []

        def on_open(session: SessionHandle) -> None:
            try:
                app.close()
            except RuntimeError as exc:
                errors.append(str(exc))

        app = self.make_app(on_open=on_open)
        self.assert_echoes(self.open(self.serve(app)))
        self.assertEqual(errors, ["a session cannot close the application that it is part of"])
        self.assertEqual(len(app.sessions()), 1)

    def test_nothing_before_the_first_request(self) -> None:
        """An application that has served nothing has no thread and no exit handler."""
        with mock.patch.object(atexit, "register") as register:
            app = self.make_app(behind)
            host = self.serve(app)
            self.get(host, "/page")
            register.assert_not_called()
            names = [thread.name for thread in threading.enumerate()]
            self.assertFalse([name for name in names if name.startswith("wsproxy-")])

    def test_fork(self) -> None:
        """A forked process starts anew, even if a lock was held at the fork."""
        app = self.make_app()
        host = self.serve(app)
        self.assertEqual(self.get(host, "/healthz"), (200, b"ok\n"))
        parent, parents = app._own_process(), os.getpid()
        with app._lock(), mock.patch("os.getpid", return_value=parents + 1):
            self.assertEqual(app.sessions(), [])
            self.assert_echoes(self.open(host))
            self.assertIsNot(app._own_process(), parent)
            app._own_process().stop(None)  # type: ignore[union-attr]
        assert parent is not None
        parent.stop(None)

    def test_again_and_again(self) -> None:
        """Started and closed 100 times in one process, it leaves no thread, socket or exit handler."""
        with (
            mock.patch.object(atexit, "register", wraps=atexit.register) as register,
            mock.patch.object(atexit, "unregister", wraps=atexit.unregister) as unregister,
        ):
            for _ in range(100):
                app = ConsoleApp(self.config())
                with Host(app) as host:
                    with RawClient.open(f"{host.url}/{self.token('echo')}/echo") as client:
                        self.assert_echoes(client)
                    app.close()
                names = [thread.name for thread in threading.enumerate()]
                self.assertFalse([name for name in names if name.startswith("wsproxy-")])
            self.assertEqual((register.call_count, unregister.call_count), (100, 100))


class FaultsTest(WSGITestCase):
    def test_faults(self) -> None:
        """Settings that make no sense here are refused together."""
        config = Config(**self.proxy_options(tls_cert="/x.pem"))
        with self.assertRaises(ConfigError) as caught:
            ConsoleApp(config, threads=0, reserve=-1)
        self.assertEqual(
            [fault.split()[0] for fault in caught.exception.faults], ["tls_cert", "threads", "reserve"]
        )

    def test_types(self) -> None:
        """If a number of threads has the wrong type, the fault names the parameter."""
        config = Config(**self.proxy_options())
        for wrong in ("4", True, 2.0, b"4"):
            for name in ("threads", "reserve"):
                options: dict[str, Any] = {name: wrong}
                with self.subTest(options=options), self.assertRaisesRegex(ConfigError, f"^{name} must be"):
                    ConsoleApp(config, **options)

    def test_faults_of_files(self) -> None:
        """Faults of files, which the settings alone do not show, are found at once."""
        with self.assertRaises(ConfigError):
            ConsoleApp(self.config(secret_key="", secret_key_files=("/nowhere",)))


class ClientLeavesTest(WSGITestCase):
    def test_client_leaves_while_dialling(self) -> None:
        """A client that leaves before the 101 ends only its own session."""
        self.api.add_vmi("left", self.namespace)
        host = self.serve(self.make_app())
        with RawClient(host.address) as client:
            client.send_raw(RawClient.request(f"/{self.token('left')}/left"))
            client.reset()
        self.assert_echoes(self.open(host))

    def test_threads_of_clients_that_left(self) -> None:
        """If a user reloads a page again and again while the API hangs, no thread stays in use."""
        vmi = self.api.add_vmi("slow", self.namespace, behaviour=Behaviour(hang=True))
        self.kind = "gunicorn"
        with gunicorn_worker(threads=3):
            app = self.make_app(reserve=2, console=("refuse",), dial_timeout=60, max_sessions_per_user=1)
            host = self.serve(app)
            for number in range(1, 6):
                with RawClient(host.address) as client:
                    client.send_raw(RawClient.request(f"/{self.token('slow')}/slow"))
                    self.api.wait_for_requests(number)
                    self.assertEqual([session.is_open for session in app.sessions()], [False])
                self.assertTrue(wait_until(lambda: not app.sessions()))
                self.assertTrue(wait_until(lambda: app._process is not None and not app._process._held))
            vmi.behaviour = None
            self.assert_echoes(self.open(host, f"/{self.token('slow')}/slow"))

    def test_logout(self) -> None:
        """``end_sessions`` also ends sessions that are being opened, and returns how many it ended."""
        self.api.add_vmi("slow", self.namespace, behaviour=Behaviour(hang=True))
        app = self.make_app()
        self.assertEqual(app.end_sessions(user=7), 0)
        host = self.serve(app)
        with RawClient(host.address) as client:
            client.send_raw(RawClient.request(f"/{self.token('slow', user=7)}/slow"))
            self.api.wait_for_requests(1)
            self.assertEqual(app.end_sessions(user=7), 1)
            client.read_head()
            self.assertEqual(client.status, 403)
