"""The examples for WSGI servers do what they are for, under gunicorn."""

from __future__ import annotations

import http.cookiejar
import json
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from werkzeug.security import generate_password_hash

from tests.integration.chromium import BrowserTestCase
from tests.integration.programs import needs
from tests.integration.wsgi_servers import Gunicorn
from wsproxy.net.addresses import host_and_port
from wsproxy.testing.rfb.client import RFBClient
from wsproxy.testing.rfb.errors import ConsoleRefused
from wsproxy.testing.screen.desktop import Desktop

EXAMPLES = str(Path(__file__).parent.parent.parent / "examples")
_SECONDS = 60.0
_RESTARTING = 1012
_NOVNC = "/usr/share/novnc"  # where Debian's package novnc puts it
# Resolves to colours of the tenth line of noVNC's canvas, once something has been drawn there.
_PIXELS = """new Promise(resolve => {
    const canvas = document.querySelector("#screen canvas");
    const look = () => {
        const colours = [];
        for (let x = 0; x < canvas.width; x += 10) {
            colours.push([...canvas.getContext("2d").getImageData(x, 10, 1, 1).data].slice(0, 3));
        }
        colours.some(colour => colour.some(part => part > 0)) ? resolve(colours) : setTimeout(look, 20);
    };
    look();
})"""


class ExampleTestCase(BrowserTestCase):
    """Has a stand-in with a VMI, ``ubuntu``, that shows a desktop.

    :ivar desktops: by the names of the VMIs.
    :ivar server: with the example that was started.
    """

    def setUp(self) -> None:
        super().setUp()
        self.desktops = {"ubuntu": self.add_desktop("ubuntu")}

    def start_example(self, application: str, *options: str, **settings: Any) -> None:
        """Start an example under gunicorn. Clients may come at once: they wait until it is there."""
        self.server = Gunicorn(self.api, "--chdir", EXAMPLES, *options, application=application, **settings)
        self.addCleanup(self.server.close)

    def get(self, path: str, **headers: str) -> str:
        """Return a page."""
        return fetch(self.page_url(path), **headers)

    def page_url(self, path: str) -> str:
        """Return the URL of a page."""
        return f"http://{host_and_port(*self.server.address)}{path}"

    def view(self, url: str, vmi: str = "ubuntu", **options: Any) -> RFBClient:
        """Open a console, type into it, and see that; return the viewer."""
        viewer = RFBClient(url, timeout=_SECONDS, **options)
        self.addCleanup(viewer.close)
        assert_usable(viewer, self.desktops[vmi])
        return viewer


def fetch(url: str, **headers: str) -> str:
    """Return a page."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_SECONDS) as answer:
        return str(answer.read().decode())


def assert_usable(viewer: RFBClient, desktop: Desktop) -> None:
    """Type, and see in the console what the desktop shows then."""
    text = desktop.text + "hello "
    viewer.type("hello ")
    assert desktop.wait_for_text(text, _SECONDS)
    area = desktop.terminal_area
    typed = desktop.screenshot().crop(*area)
    viewer.wait_until(lambda image: image.crop(*area) == typed)


@contextmanager
def reserved_port() -> Iterator[int]:
    """Keep a port free for those who share it; nobody is connected to it meanwhile."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


class BesideGunicorn(ExampleTestCase):
    """``examples/beside_gunicorn.py``: the proxy beside a server that lends no socket."""

    def start_beside(self, port: int, worker_class: str = "gthread") -> None:
        self.start_example(
            "beside_gunicorn:application",
            *("--config", f"{EXAMPLES}/beside_gunicorn.conf.py"),
            threads=4,
            worker_class=worker_class,
            PORT=str(port),
            LAB_MACHINES=json.dumps({"ann": list(self.desktops)}),
            LAB_NAMESPACE=self.namespace,
        )

    def test_consoles(self) -> None:
        """It hands out URLs; more consoles than it has threads open beside it, and end with it."""
        self.desktops.update((name := f"vm-{number}", self.add_desktop(name)) for number in range(10))
        for worker_class in ("gthread", "sync"):
            with self.subTest(worker_class), reserved_port() as port:
                self.start_beside(port, worker_class)
                urls = json.loads(self.get("/", **{"X-Remote-User": "ann"}))
                viewers = [self.view(url, name) for name, url in urls.items()]
                self.server.process.terminate()
                self.assertEqual({viewer.wait_closed().code for viewer in viewers}, {_RESTARTING})
                self.assertEqual(self.server.stop(), 0)
                self.assertNotIn("[ERROR]", self.server.output)

    def test_stranger(self) -> None:
        """Whom the server in front has not authenticated gets nothing."""
        with reserved_port() as port:
            self.start_beside(port)
            with self.assertRaises(urllib.error.HTTPError) as caught:
                self.get("/")
            with caught.exception as answer:
                self.assertEqual(answer.code, 401)


class WSGIMiddleware(ExampleTestCase):
    """``examples/wsgi_middleware.py``: consoles in front of an application."""

    def setUp(self) -> None:
        super().setUp()
        self.give("ann", "ubuntu")
        self.start_example(
            "wsgi_middleware:application",
            threads=8,
            LAB_MACHINES=self.path("machines"),
            LAB_NAMESPACE=self.namespace,
        )

    def give(self, user: str, *machines: str) -> None:
        """Let a user have these machines, and nobody else any."""
        new = Path(self.path("new"))
        new.write_text(json.dumps({user: machines}), encoding="utf-8")
        new.replace(self.path("machines"))

    def test_console(self) -> None:
        """The page names a console, which opens; once the machine is taken away it does not."""
        page = self.get("/", **{"X-Remote-User": "ann"})
        [path] = re.findall("<code>(.*?)</code>", page)
        self.view(self.server.url + path).close()
        self.give("bob", "ubuntu")
        with self.assertRaises(ConsoleRefused) as caught:
            RFBClient(self.server.url + path, timeout=_SECONDS)
        self.assertEqual((caught.exception.status, caught.exception.slug), (403, "forbidden"))
        self.assertNotIn(path.split("/")[2], self.server.output)

    def test_application(self) -> None:
        """What is not below the prefix is the application's, and strangers have no machines."""
        self.assertNotIn("<li>", self.get("/any/path"))


class Person:
    """Somebody with a browser, which keeps cookies and fills in the word that every form has."""

    def __init__(self, base: str) -> None:
        self._base = base
        self.page = ""
        self._cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))

    @property
    def cookie(self) -> str:
        """The header that it would open a WebSocket with."""
        return "Cookie: " + "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._cookies)

    def get(self, path: str) -> int:
        """Ask for a page, which is then the one that it shows; return the status."""
        return self._open(urllib.request.Request(self._base + path))

    def post(self, path: str, **fields: str) -> int:
        """Send a form of the page that it shows; return the status."""
        word = re.search(r'name="word" value="(\w+)"', self.page)
        given = urllib.parse.urlencode({"word": word[1] if word else "", **fields}).encode()
        return self._open(urllib.request.Request(self._base + path, data=given))

    def _open(self, request: urllib.request.Request) -> int:
        try:
            answer = self._opener.open(request, timeout=_SECONDS)
        except urllib.error.HTTPError as refused:
            answer = refused
        with answer:
            self.page = answer.read().decode()
            return int(answer.status)


class FlaskLab(ExampleTestCase):
    """``examples/flask_lab.py``: a lab platform."""

    def setUp(self) -> None:
        super().setUp()
        self.add_desktop("router")
        self.users = {
            name: {
                "password": generate_password_hash(f"{name}'s", "pbkdf2:sha256:1000"),
                "namespace": self.namespace,
                "machines": machines,
            }
            for name, machines in {"ann": ["ubuntu"], "bob": ["router"]}.items()
        }

    def start_lab(self, *options: str, **variables: str) -> Person:
        self.start_example(
            "flask_lab:create_app()",
            *options,
            threads=8,
            LAB_SECRET="the-secret-of-the-lab-in-32-bytes-or-more",
            LAB_USERS=json.dumps(self.users),
            LAB_PLAIN="true",
            **variables,
        )
        return Person(self.page_url(""))

    def log_in(self, browser: Person) -> None:
        browser.get("/login")
        self.assertEqual(browser.post("/login", name="ann", password="ann's"), 200)

    def open(self, browser: Person, vmi: str = "ubuntu", origin: str | None = None) -> RFBClient:
        return self.view(
            f"{self.server.url}/machines/{vmi}/console",
            header=[browser.cookie],
            origin=origin or self.page_url(""),
        )

    def test_from_login_to_logout(self) -> None:
        """Somebody logs in, sees their machine, opens its console, logs out, and is let in no more."""
        browser = self.start_lab("--workers", "1")
        self.assertEqual(browser.get("/"), 200)
        self.assertIn("Log in", browser.page)
        self.log_in(browser)
        self.assertIn('href="/machines/ubuntu/"', browser.page)
        self.assertNotIn("router", browser.page)
        self.assertEqual(browser.get("/machines/ubuntu/"), 200)
        viewer = self.open(browser)
        self.assertEqual(browser.post("/logout"), 200)
        self.assertEqual(viewer.wait_closed(_SECONDS).code, 4499)
        with self.assertRaises(ConsoleRefused) as caught:
            self.open(browser)
        self.assertEqual(caught.exception.status, 401)
        browser.get("/")
        self.assertIn("Log in", browser.page)

    def test_two_workers(self) -> None:
        """A login counts in every worker, and consoles leave threads for pages."""
        browser = self.start_lab("--workers", "2")
        self.log_in(browser)
        for _ in range(4):
            self.open(browser)
            self.assertEqual(browser.get("/"), 200)

    def test_somebody_elses(self) -> None:
        """A machine of somebody else has no page, and no console."""
        browser = self.start_lab()
        self.log_in(browser)
        self.assertEqual(browser.get("/machines/router/"), 404)
        with self.assertRaises(ConsoleRefused) as caught:
            self.open(browser, "router")
        self.assertEqual(caught.exception.slug, "forbidden")

    def test_foreign_page(self) -> None:
        """A page of another site opens no console with the browser's cookie, and sends no form."""
        browser = self.start_lab()
        self.log_in(browser)
        with self.assertRaises(ConsoleRefused) as caught:
            self.open(browser, origin="https://evil.example")
        self.assertEqual(caught.exception.slug, "forbidden")
        browser.page = "a page without the word"
        self.assertEqual(browser.post("/logout"), 400)
        self.assertEqual(browser.get("/machines/ubuntu/"), 200)

    def test_wrong_password(self) -> None:
        """Neither a wrong password nor an unknown name is let in."""
        browser = self.start_lab()
        browser.get("/login")
        self.assertEqual(browser.post("/login", name="ann", password="bob's"), 403)
        self.assertEqual(browser.post("/login", name="eve", password=""), 403)
        browser.get("/")
        self.assertIn("Log in", browser.page)

    @needs("chromium", "chromium")
    def test_in_chromium(self) -> None:
        """In a real browser the machine's page has noVNC with its console, until the person logs out."""
        self.start_lab(LAB_NOVNC=_NOVNC)
        page, desktop = self.start_browser(), self.desktops["ubuntu"]
        page.open(self.page_url("/"))
        page.wait_until("document.forms[0].elements.password")
        page.evaluate("""{
            const {name, password} = document.forms[0].elements;
            name.value = "ann";
            password.value = "ann's";
            document.forms[0].submit();
        }""")
        page.wait_until("document.links[0]")
        page.evaluate("document.links[0].click()")
        page.wait_for_text("connected to ubuntu")
        seen = page.evaluate(_PIXELS)
        picture = desktop.screenshot()
        self.assertEqual(seen, [list(picture.pixel(x, 10)) for x in range(0, picture.width, 10)])
        page.evaluate("document.forms[0].requestSubmit()")
        page.wait_until("document.forms[0].elements.password")
        self.assertTrue(desktop.wait_for(lambda: desktop.viewers == 0, _SECONDS))
        self.assertEqual(page.complaints, [])
