"""Consoles inside Flask applications."""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import re
import signal
import threading
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from flask import Flask, Response, current_app, g, request, session
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import ThreadedWSGIServer, make_server

from tests.wsgi.test_several_processes import ask
from wsproxy import AccessRequest, Config, ConfigError, Ending, Forbidden, Grant, SessionHandle
from wsproxy.flask import Console
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.wsgi.app import ConsoleApp

from .wsgi_servers import get

_WITHIN = 20.0


@contextmanager
def served(app: Any) -> Iterator[tuple[str, int]]:
    """Serve an application by werkzeug's development server, and yield its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    assert isinstance(server, ThreadedWSGIServer)
    server.daemon_threads = False  # so that its end waits for all
    thread = threading.Thread(target=lambda: server.serve_forever(0.01))
    thread.start()
    try:
        yield "127.0.0.1", server.port
    finally:
        server.shutdown()
        thread.join()


class FlaskTestCase(ProxyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("echo", self.namespace)
        log = logging.getLogger("werkzeug")
        self.addCleanup(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        self.console = Console(config=Config(**self.proxy_options()))
        self.addCleanup(self.console.close)

    def make_app(self) -> Flask:
        """Return an application whose users log in by naming themselves."""
        app = Flask("lab")
        app.secret_key = "a-secret-of-flask-alone"
        self.console.init_app(app)

        @app.route("/login/<name>")
        def login(name: str) -> str:
            session["user"] = name
            return "welcome\n"

        @app.route("/vms/<vmi>", websocket=True)
        def open_console(vmi: str) -> Response:
            return self.console.connect(self.grant(session.get("user", "nobody")), vmi)

        @app.route("/page")
        def page() -> str:
            return "page\n"

        return app

    def grant(self, user: str) -> Grant:
        """Return what a user may open."""
        vmis = () if user == "nobody" else ("echo",)
        return Grant(user, self.namespace, vmis, math.inf, "login")

    def serve(self, app: Any) -> tuple[str, int]:
        """Serve an application until the end of the test."""
        context = served(app)
        address = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.addCleanup(self.console.close)
        return address

    def open(self, address: tuple[str, int], path: str, *headers: str) -> RawClient:
        """Open a WebSocket and return the client, whatever was answered."""
        client = RawClient.open(f"ws://{address[0]}:{address[1]}{path}", headers=headers)
        self.addCleanup(client.close)
        return client

    def cookie(self, address: tuple[str, int], user: str) -> str:
        """Log in and return the header that says so."""
        with RawClient(address) as client:
            client.send_raw(f"GET /login/{user} HTTP/1.1\r\nHost: proxy\r\n\r\n".encode())
            client.read_head()
            return f"Cookie: {(client.header('Set-Cookie') or '').partition(';')[0]}"

    def assert_echoes(self, client: RawClient) -> None:
        """Check that a console is open."""
        self.assertEqual(client.status, 101, client.head)
        client.send_frame(BINARY, b"hello")
        self.assertEqual(client.recv_frame().payload, b"hello")

    def close(self, client: RawClient) -> None:
        """End a console in good order."""
        client.send_close(1000)
        self.assertEqual(client.recv_close(), (1000, ""))
        self.assertTrue(client.wait_for_end())


class StateNotSharedTest(ProxyTestCase):
    def test_several_processes(self) -> None:
        """Where settings need a store and there is none, wsproxy refuses its own requests only."""
        app = Flask(__name__)
        app.route("/page")(lambda: "behind")
        console = Console(app, Config(**self.proxy_options(tickets=True)))
        self.addCleanup(console.close)
        with self.assertLogs("wsproxy.wsgi", "ERROR") as logs:
            for path, method in (("/console/healthz", "GET"), ("/console/ticket", "POST")):
                status, body = ask(app, path, method)
                self.assertEqual(status, "500 Internal Server Error")
                self.assertEqual(json.loads(body)["reason"], "state-not-shared")
        self.assertEqual(len(logs.output), 1)
        self.assertEqual(ask(app, "/page"), ("200 OK", b"behind"))


class GuideTest(unittest.TestCase):
    def test_views(self) -> None:
        """The test of a view in docs/guides/testing.md runs, and passes."""
        guide = (Path(__file__).parents[2] / "docs/guides/testing.md").read_text(encoding="utf-8")
        [example] = [
            text for text in re.findall(r"(?s)```python\n(.*?)```", guide) if "class ViewTest" in text
        ]
        names: dict[str, Any] = {}
        exec(example, names)
        result = unittest.TestResult()
        names["ViewTest"]("test_view").run(result)
        self.assertEqual((result.testsRun, result.failures, result.errors), (1, [], []))


class BlueprintTest(FlaskTestCase):
    def test_token(self) -> None:
        """A client with a token gets its console under the prefix; other pages are the application's."""
        address = self.serve(self.make_app())
        for path in (f"/console/{self.token('echo')}/echo", f"/console//{self.token('echo')}/echo"):
            client = self.open(address, path)
            self.assert_echoes(client)
            self.close(client)
        self.assertEqual(self.open(address, f"/console/{self.token('echo')}/other").status, 403)
        self.assertEqual(get(address, "/console/healthz"), (200, b"ok\n"))
        self.assertEqual(get(address, "/console/nothing")[0], 404)
        self.assertEqual(get(address, "/page"), (200, b"page\n"))
        self.assertEqual(get(address, "/healthz")[0], 404)

    def test_prefix(self) -> None:
        """The prefix is the one given, else the settings', else /console."""
        options = self.proxy_options(host_path_prefix="/from/settings")
        for given, wanted in ((None, "/from/settings"), ("given", "/given"), ("", "")):
            app = Flask("lab")
            console = Console(app, Config(**options), url_prefix=given)
            self.addCleanup(console.close)
            with self.subTest(given), served(app) as address:
                self.assertEqual(get(address, f"{wanted}/healthz"), (200, b"ok\n"))
                client = self.open(address, f"{wanted}/{self.token('echo')}/echo")
                self.assert_echoes(client)
                console.close()

    def test_mounted(self) -> None:
        """An application that is itself mounted somewhere has its consoles below that place."""
        address = self.serve(DispatcherMiddleware(Flask("root"), {"/mounted": self.make_app()}))
        self.assert_echoes(self.open(address, f"/mounted/console/{self.token('echo')}/echo"))

    def test_several_applications(self) -> None:
        """One extension serves several applications, each by itself."""
        first, second = self.make_app(), self.make_app()
        self.assertIsNot(first.extensions["wsproxy"], second.extensions["wsproxy"])
        self.assertIsInstance(first.extensions["wsproxy"], ConsoleApp)
        self.api.add_vmi("other", self.namespace)
        self.assert_echoes(self.open(self.serve(first), f"/console/{self.token('echo')}/echo"))
        self.assert_echoes(self.open(self.serve(second), f"/console/{self.token('other')}/other"))
        self.assertEqual(sorted(handle.vmi for handle in self.console.sessions()), ["echo", "other"])
        self.assertEqual(len(first.extensions["wsproxy"].sessions()), 1)


class ConnectTest(FlaskTestCase):
    def test_login(self) -> None:
        """A view opens a console for whoever is logged in, without any token."""
        address = self.serve(self.make_app())
        client = self.open(address, "/vms/echo", self.cookie(address, "alice"), "Origin: http://proxy")
        self.assert_echoes(client)
        self.assertEqual([handle.user for handle in self.console.sessions()], ["alice"])
        self.assertEqual(self.open(address, "/vms/echo").status, 403)

    def test_other_page(self) -> None:
        """A page of another host cannot use the login."""
        address = self.serve(self.make_app())
        client = self.open(address, "/vms/echo", self.cookie(address, "alice"), "Origin: http://evil")
        self.assertEqual(client.recv_frame().payload, b"RFB 003.008\n")
        client.send_frame(BINARY, b"RFB 003.008\n")
        self.assertEqual(client.recv_close()[0], 4403)


class HooksTest(FlaskTestCase):
    def test_authorize(self) -> None:
        """The hook decides in the context of the request."""
        seen: list[tuple[str, str, str]] = []

        @self.console.authorize
        def may_open(grant: Grant, asked: AccessRequest) -> None:
            seen.append((asked.credential, request.path.partition("/")[2][:4], session.get("user", "")))
            if session.get("user") == "mallory":
                raise Forbidden("not you")

        address = self.serve(self.make_app())
        self.assert_echoes(self.open(address, "/vms/echo", self.cookie(address, "alice")))
        client = self.open(address, "/vms/echo", self.cookie(address, "mallory"))
        self.assertEqual((client.status, b"not you" in client.body()), (403, True))
        self.assertEqual(seen, [("grant", "vms/", "alice"), ("grant", "vms/", "mallory")])

    def test_told(self) -> None:
        """The other hooks are called in a context of the application."""
        told: list[str] = []
        over = threading.Event()

        @self.console.on_open
        def on_open(handle: SessionHandle) -> None:
            told.append(f"{current_app.name} {handle.vmi}")

        @self.console.on_close
        def on_close(handle: SessionHandle, ending: Ending) -> None:
            told.append(f"{current_app.name} {ending.code}")
            over.set()

        address = self.serve(self.make_app())
        client = self.open(address, "/vms/echo", self.cookie(address, "alice"))
        self.assert_echoes(client)
        self.close(client)
        self.assertTrue(over.wait(_WITHIN))
        self.assertEqual(told, ["lab echo", "lab 1000"])

    def test_context_is_given_back(self) -> None:
        """While a console is open, no context of its request is: databases have their connections back."""
        app = self.make_app()
        ended = threading.Event()

        @app.before_request
        def open_database() -> None:
            g.database = object()

        @app.teardown_appcontext
        def close_database(exc: BaseException | None) -> None:
            if g.pop("database", None):
                ended.set()

        address = self.serve(app)
        cookie = self.cookie(address, "alice")
        self.assertTrue(ended.wait(_WITHIN))
        ended.clear()
        client = self.open(address, "/vms/echo", cookie)
        self.assertTrue(ended.wait(_WITHIN))
        self.assert_echoes(client)


class MetricsTest(FlaskTestCase):
    def test_registry(self) -> None:
        """The consoles of all applications are counted together, at the moment of the scrape."""
        applications = self.make_app(), self.make_app()
        found = self.console.metrics_registry()
        self.assertEqual(found.get_sample_value("wsproxy_sessions"), 0)
        for app in applications:
            client = self.open(self.serve(app), f"/console/{self.token('echo')}/echo")
            self.assert_echoes(client)
        self.assertEqual(found.get_sample_value("wsproxy_sessions"), 2)
        self.assertEqual(found.get_sample_value("wsproxy_sessions_opened_total"), 2)


class SettingsTest(FlaskTestCase):
    def test_from_the_application(self) -> None:
        """The settings may stand in the application's configuration, as text or as values."""
        app = Flask("lab")
        app.config.update(
            SECRET_KEY="of-flask",
            WSPROXY_SECRET_KEY=SECRET,
            KUBERNETES_SERVICE_HOST="127.0.0.1",
            KUBERNETES_SERVICE_PORT=self.api.port,
            WSPROXY_CA_FILE=self.api.ca_file,
            WSPROXY_TOKEN_FILE=self.api.token_file,
            WSPROXY_CREDENTIALS=["path", "header"],
            WSPROXY_REQUIRE_ORIGIN=False,
            WSPROXY_CLOSE_TIMEOUT=1,
            WSPROXY_JWKS=None,
        )
        self.console = Console(app)
        self.addCleanup(self.console.close)
        config = app.extensions["wsproxy"].config
        self.assertEqual((config.credentials, config.close_timeout), (("path", "header"), 1.0))
        self.assert_echoes(self.open(self.serve(app), f"/console/{self.token('echo')}/echo"))

    def test_faults(self) -> None:
        """All faults are told at once, misspelt names included."""
        app = Flask("lab")
        app.config.update(SECRET_KEY=SECRET, LOCAL_DEV_MODE=True, WSPROXY_REJEKT="x", WSPROXY_LEEWAY="y")
        with self.assertRaises(ConfigError) as caught:
            Console(app)
        self.assertEqual(len(caught.exception.faults), 2)

    def test_lists(self) -> None:
        """A list that names nothing is a fault where it would allow everything, as one of other things is."""
        for name in ("WSPROXY_NAMESPACES", "WSPROXY_ISSUER", "WSPROXY_AUDIENCE", "WSPROXY_ALLOW_ORIGIN"):
            for wrong in ([], (), ",", [""], {"a": 1}, [5]):
                app = Flask("lab")
                app.config.update({"SECRET_KEY": SECRET, "LOCAL_DEV_MODE": True, name: wrong})
                with self.subTest(name=name, wrong=wrong), self.assertRaisesRegex(ConfigError, f"^{name} "):
                    Console(app)

    def test_environment_that_is_taken_over(self) -> None:
        """What a kubelet has put into the environment is neither a setting nor a fault."""
        app = Flask("lab")
        app.config.update(SECRET_KEY=SECRET, LOCAL_DEV_MODE=True, WSPROXY_METRICS_PORT="tcp://10.0.0.1:9100")
        self.console = Console(app)

    def test_of_the_application(self) -> None:
        """What the application means by common words is its own business; a secret may be any bytes."""
        app = Flask("lab")
        app.config.update(SECRET_KEY=SECRET.encode(), LOCAL_DEV_MODE="true", HOST="db", PORT="x", LOGLEVEL=3)
        self.console = Console(app)
        self.assertEqual(app.extensions["wsproxy"].config.secret_key, SECRET.encode())
        app = Flask("lab")
        app.config.update(SECRET_KEY=b"\xff" * 32, LOCAL_DEV_MODE=True)
        self.assertEqual(Console(app)._console_apps.pop().config.secret_key, b"\xff" * 32)

    def test_twice(self) -> None:
        """A second extension in one application is refused, and the first one goes on."""
        app = self.make_app()
        first = app.extensions["wsproxy"]
        self.assertRaises(ValueError, Console, app, Config(**self.proxy_options()))
        self.assertIs(app.extensions["wsproxy"], first)

    def test_from_the_pod(self) -> None:
        """Where the API is, Kubernetes says in the environment; nothing else is taken from there."""
        app = Flask("lab")
        app.config.update(SECRET_KEY=SECRET)
        pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        with mock.patch.dict(os.environ, pod | {"WSPROXY_REJECT": "close"}):
            config = Console(app)._console_apps.pop().config
        self.assertEqual((config.remote_url, config.reject), ("wss://10.0.0.1:443", "auto"))


class FactoryTest(FlaskTestCase):
    def test_again_and_again(self) -> None:
        """An application from a factory, started and stopped 100 times, leaves nothing in the process."""
        console = Console()
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        loggers = [list(logging.getLogger(name).handlers) for name in ("", "wsproxy", "werkzeug")]

        def create_app() -> Flask:
            app = Flask("lab")
            app.config.update(
                SECRET_KEY=SECRET,
                KUBERNETES_SERVICE_HOST="127.0.0.1",
                KUBERNETES_SERVICE_PORT=str(self.api.port),
                WSPROXY_CA_FILE=self.api.ca_file,
                WSPROXY_TOKEN_FILE=self.api.token_file,
            )
            console.init_app(app)
            return app

        with (
            mock.patch.object(atexit, "register", wraps=atexit.register) as register,
            mock.patch.object(atexit, "unregister", wraps=atexit.unregister) as unregister,
        ):
            for _ in range(100):
                app = create_app()
                with served(app) as address:
                    client = self.open(address, f"/console/{self.token('echo')}/echo")
                    self.assert_echoes(client)
                    self.close(client)
                    app.extensions["wsproxy"].close()
                names = [thread.name for thread in threading.enumerate()]
                self.assertFalse([name for name in names if name.startswith("wsproxy-")])
        self.assertEqual((register.call_count, unregister.call_count), (100, 100))
        self.assertEqual(handlers, [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)])
        self.assertEqual(
            loggers, [list(logging.getLogger(name).handlers) for name in ("", "wsproxy", "werkzeug")]
        )
