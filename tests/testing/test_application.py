"""Consoles that an application's own views open, through a real server and a real connection."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING
from unittest import TestResult
from urllib.request import urlopen

from wsproxy import Grant
from wsproxy.testing import ConsoleRefused, ProxyTestCase
from wsproxy.wsgi import ConsoleApp

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class ViewTest(ProxyTestCase):
    """An application that knows its user by a cookie."""

    def setUp(self) -> None:
        super().setUp()
        self.desktop = self.add_desktop("ubuntu")
        self.consoles = ConsoleApp(self.console_config())
        self.addCleanup(self.consoles.close)

    def application(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/":
            start_response("200 OK", [("Content-Length", "4")])
            return [b"page"]
        if environ["PATH_INFO"] == "/bug":
            raise ZeroDivisionError("a bug")
        vmis = ("ubuntu", "gone") if environ.get("HTTP_COOKIE") == "user=ann" else ()
        grant = Grant("ann", self.namespace, vmis, math.inf, "login")
        vmi = environ["PATH_INFO"].rpartition("/")[2]
        return self.consoles.connect(environ, start_response, grant, vmi)

    def test_console(self) -> None:
        """A test types into a view's console. Pages are served during it, and after it."""
        server = self.serve_application(self.application)
        vm = self.open_console_at(server.console_url("/vms/ubuntu"), header=["Cookie: user=ann"])
        vm.type("hello")
        self.desktop.assert_text("hello")
        for _ in range(2):
            with urlopen(server.url, context=self.client_context) as page:
                self.assertEqual(page.read(), b"page")
            vm.close()

    def test_refused(self) -> None:
        """The view's grant refuses a user without the right. If there is no VMI, the refusal lists others."""
        server = self.serve_application(self.application)
        with self.assertRaises(ConsoleRefused) as refused:
            self.open_console_at(server.console_url("/vms/ubuntu"))
        self.assertEqual(refused.exception.slug, "forbidden")
        with self.assertRaisesRegex(ConsoleRefused, r"\(the simulated cluster has lab-1/ubuntu\)"):
            self.open_console_at(server.console_url("vms/gone"), header=["Cookie: user=ann"])


class TLSViewTest(ViewTest):
    client_tls = True


class Suite(ProxyTestCase):
    """Tests of a platform, run by the tests below."""

    tls = False

    def middleware(self) -> None:
        self.add_desktop("ubuntu")
        server = self.serve_application(ConsoleApp(self.console_config(host_path_prefix="c")))
        self.open_console_at(server.console_url(f"/c/{self.token('ubuntu')}/ubuntu"))

    def stopped_with_an_open_console(self) -> None:
        self.add_desktop("ubuntu")
        server = self.serve_application(ConsoleApp(self.console_config()))
        vm = self.open_console_at(server.console_url(f"/{self.token('ubuntu')}/ubuntu"))
        server.stop()
        self.assertEqual(vm.wait_closed().code, 1012)

    def bug(self) -> None:
        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            raise ZeroDivisionError("a bug")

        with self.assertRaises(OSError):
            urlopen(self.serve_application(app).url)


class SuitesTest(ProxyTestCase):
    def test_ends(self) -> None:
        """An application that is served is closed with the test, in whatever state it is."""
        for name in ("middleware", "stopped_with_an_open_console"):
            with self.subTest(name):
                result = TestResult()
                Suite(name).run(result)
                self.assertEqual((result.failures, result.errors), ([], []))

    def test_bug(self) -> None:
        """An exception of the application fails the test, even if its client only got a 500."""
        result = TestResult()
        Suite("bug").run(result)
        [(_, text)] = result.failures
        self.assertIn("a bug", text)
        self.assertIn("the application failed", text)
