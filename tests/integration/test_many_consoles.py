"""Fifty consoles at once to real VNC servers, through the examples under gunicorn, which go on answering."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.security import generate_password_hash

from tests.integration import test_examples
from tests.integration.programs import ProgramTestCase, needs
from tests.integration.wsgi_servers import Gunicorn
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.kubevirt.backends import UnixBackend
from wsproxy.testing.rfb.client import RFBClient
from wsproxy.testing.rfb.errors import ConsoleRefused

_CONSOLES = 50
_DISPLAYS = 5
_WORKERS = 2
_SIZE = (320, 240)
_ANSWERS = 20  # at least so many while consoles are open
_TIMEOUT = 60.0
_RESTARTING = 1012


@needs("Xvnc", "tigervnc-standalone-server")
class ManyConsoles(ProgramTestCase):
    """Fifty VMIs, ten of which share the display of one TigerVNC server each, behind two workers."""

    def setUp(self) -> None:
        super().setUp()
        displays = [
            self.start_xvnc(f"rfb-{number}", "-AlwaysShared", geometry=_SIZE)[2]
            for number in range(_DISPLAYS)
        ]
        self.vmis = [f"desktop-{number}" for number in range(_CONSOLES)]
        for number, vmi in enumerate(self.vmis):
            self.api.add_vmi(vmi, self.namespace, backend=UnixBackend(displays[number % _DISPLAYS]))

    def start(self, application: str, *options: str, **settings: Any) -> None:
        """Start an example."""
        self.server = Gunicorn(
            self.api,
            *("--chdir", test_examples.EXAMPLES, "--workers", str(_WORKERS), *options),
            application=application,
            **settings,
        )
        self.addCleanup(self.server.close)

    def test_inside(self) -> None:
        """A Flask application with 40 threads in each worker has 50 consoles open and answers its pages."""
        self.start(
            "flask_lab:create_app()",
            threads=40,
            LAB_SECRET="the-secret-of-the-lab-in-32-bytes-or-more",
            LAB_USERS=json.dumps({"ann": self.user("ann's")}),
            LAB_PLAIN="true",
        )
        page = "http://{}:{}".format(*self.server.address)
        person = test_examples.Person(page)
        person.get("/login")
        self.assertEqual(person.post("/login", name="ann", password="ann's"), 200)
        cookie = person.cookie
        with self.asking(lambda: self.assertEqual(person.get("/machines/desktop-0/"), 200)):
            viewers = [
                self.open(f"{self.server.url}/machines/{vmi}/console", header=[cookie], origin=page)
                for vmi in self.vmis
            ]
            self.look_at(viewers)
        self.assert_stops(viewers)

    def user(self, password: str) -> dict[str, Any]:
        hashed = generate_password_hash(password, "pbkdf2:sha256:1000")
        return {"password": hashed, "namespace": self.namespace, "machines": self.vmis}

    def test_beside(self) -> None:
        """A program with 4 threads in each worker has 50 consoles open beside it, and answers."""
        with test_examples.reserved_port() as port:
            self.start(
                "beside_gunicorn:application",
                *("--config", f"{test_examples.EXAMPLES}/beside_gunicorn.conf.py"),
                threads=4,
                PORT=str(port),
                LAB_MACHINES=json.dumps({"ann": self.vmis}),
                LAB_NAMESPACE=self.namespace,
            )
            urls = self.urls()
            self.assertEqual(set(urls), set(self.vmis))
            with self.asking(self.urls):
                viewers = [self.open(url) for url in urls.values()]
                self.look_at(viewers)
            self.assert_stops(viewers)
            self.assert_refused(("127.0.0.1", port))

    def urls(self) -> dict[str, str]:
        """Ask the program for the URLs of its consoles."""
        page = "http://{}:{}/".format(*self.server.address)
        return dict(json.loads(test_examples.fetch(page, **{"X-Remote-User": "ann"})))

    @contextmanager
    def asking(self, ask: Callable[[], object]) -> Iterator[None]:
        """Ask the program all the time; each time it has to answer."""
        stop, failures = threading.Event(), list[BaseException]()

        def run() -> None:
            answers = 0
            while not stop.is_set() or answers < _ANSWERS:
                try:
                    ask()
                except BaseException as exc:  # noqa: BLE001 - told below
                    failures.append(exc)
                    return
                answers += 1

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        self.assertEqual(failures, [])

    def open(self, url: str, **options: Any) -> RFBClient:
        """Open a console; a worker that has as many as it may lets the other one have it."""
        deadline = Deadline(_TIMEOUT)
        while True:
            try:
                viewer = RFBClient(url, timeout=_TIMEOUT, **options)
                break
            except ConsoleRefused as refused:
                if refused.slug != "busy" or deadline.passed:
                    raise
        self.addCleanup(viewer.close)
        return viewer

    def look_at(self, viewers: list[RFBClient]) -> None:
        """See that every console is open, and shows its display."""
        self.assertEqual(self.api.live, _CONSOLES)
        for viewer in viewers:
            image = viewer.screenshot(_TIMEOUT)
            self.assertEqual((image.width, image.height), _SIZE)

    def assert_stops(self, viewers: list[RFBClient]) -> None:
        """End gunicorn as its supervisor would; nothing is left of it, and nothing at the API."""
        process = self.server.process
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            workers = file.read().split()
        self.assertEqual(len(workers), _WORKERS)
        process.terminate()
        self.assertEqual({viewer.wait_closed(_TIMEOUT).code for viewer in viewers}, {_RESTARTING})
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual([worker for worker in workers if os.path.exists(f"/proc/{worker}")], [])
        self.assertTrue(self.api.wait_until_idle(_TIMEOUT))
        self.assert_refused(self.server.address)
        self.assertNotIn("[ERROR]", self.server.output)
        self.assertNotIn("Traceback", self.server.output)

    def assert_refused(self, address: tuple[str, int]) -> None:
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(address, _TIMEOUT)
