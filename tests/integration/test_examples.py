"""The examples for WSGI servers do what they are for, under gunicorn."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.programs import ProgramTestCase
from wsproxy.testing.desktop import Desktop
from wsproxy.testing.rfb_client import RFBClient

_EXAMPLES = str(Path(__file__).parent.parent.parent / "examples")
_SECONDS = 60.0
_RESTARTING = 1012


class ExampleTestCase(ProgramTestCase):
    """Has a stand-in with a VMI, ``ubuntu``, that shows a desktop.

    :ivar desktops: by the names of the VMIs.
    :ivar base: ``HOST:PORT`` of the example that was started last.
    """

    def setUp(self) -> None:
        super().setUp()
        self.desktops = {"ubuntu": self.add_desktop("ubuntu")}

    def start_example(self, application: str, *options: str, **variables: str) -> Any:
        """Start an example under gunicorn and return the process."""
        process, address = self.start_gunicorn(application, "--chdir", _EXAMPLES, *options, **variables)
        self.base = "{}:{}".format(*address)
        return process

    def get(self, path: str, **headers: str) -> str:
        """Return a page."""
        request = urllib.request.Request(f"http://{self.base}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            return str(answer.read().decode())

    def view(self, url: str, vmi: str = "ubuntu", **options: Any) -> RFBClient:
        """Open a console, type into it, and see that; return the viewer."""
        viewer = RFBClient(url, timeout=_SECONDS, **options)
        self.addCleanup(viewer.close)
        assert_usable(viewer, self.desktops[vmi])
        return viewer


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

    def start_beside(self, port: int, *options: str) -> Any:
        return self.start_example(
            "beside_gunicorn:application",
            *("--config", os.path.join(_EXAMPLES, "beside_gunicorn.conf.py"), *options),
            PORT=str(port),
            LAB_MACHINES=json.dumps({"ann": list(self.desktops)}),
            LAB_NAMESPACE=self.namespace,
        )

    def test_consoles(self) -> None:
        """It hands out URLs to whom it knows; more consoles than it has threads open beside it, and end with it."""
        self.desktops.update((name := f"vm-{number}", self.add_desktop(name)) for number in range(10))
        for worker_class in ("gthread", "sync"):
            with self.subTest(worker_class), reserved_port() as port:
                gunicorn = self.start_beside(port, "--worker-class", worker_class)
                urls = json.loads(self.get("/", **{"X-Remote-User": "ann"}))
                viewers = [self.view(url, name) for name, url in urls.items()]
                gunicorn.terminate()
                self.assertEqual({viewer.wait_closed().code for viewer in viewers}, {_RESTARTING})
                self.assertEqual(gunicorn.wait(_SECONDS), 0, self.log())
                self.assertNotIn("Traceback", self.log())

    def test_stranger(self) -> None:
        """Whom the server in front has not authenticated gets nothing."""
        with reserved_port() as port:
            self.start_beside(port)
            with self.assertRaises(urllib.error.HTTPError) as caught:
                self.get("/")
            with caught.exception as answer:
                self.assertEqual(answer.code, 401)
