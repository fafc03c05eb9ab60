"""Fifty consoles at once to real VNC servers, through a program under gunicorn that goes on answering."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.integration import beside_app
from tests.integration.programs import ProgramTestCase, needs
from tests.proxy_process import environment_for, wait_until
from wsproxy.testing.kubevirt_backends import UnixBackend
from wsproxy.testing.rfb_client import RFBClient

_CONSOLES = 50
_DISPLAYS = 5
_WORKERS = 2
_SIZE = (320, 240)
_REQUESTS_BESIDE = 20  # at least so many are answered while consoles are open
_TIMEOUT = 60.0


class ManyConsolesTestCase(ProgramTestCase):
    """Fifty VMIs, ten of which share the display of one TigerVNC server each."""

    def setUp(self) -> None:
        super().setUp()
        self.vmis = [f"desktop-{number}" for number in range(_CONSOLES)]
        displays = [
            self.start_xvnc(f"rfb-{number}", "-AlwaysShared", geometry=_SIZE)[2]
            for number in range(_DISPLAYS)
        ]
        for number, vmi in enumerate(self.vmis):
            self.api.add_vmi(vmi, self.namespace, backend=UnixBackend(displays[number % _DISPLAYS]))

    def start_gunicorn(self, application: str, *options: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start gunicorn with two workers; return it when both are there."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        with listener:
            self.address: tuple[str, int] = listener.getsockname()
            return self.start_program(
                *(sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"),
                *("--worker-class", "gthread", "--workers", str(_WORKERS), *options, application),
                pass_fds=(listener.fileno(),),
                env=environment_for(self.api) | {"XDG_RUNTIME_DIR": self.directory} | variables,
            )

    def get(self, target: str = "/") -> Any:
        """Ask the program itself, and return its JSON."""
        connection = http.client.HTTPConnection(*self.address, timeout=_TIMEOUT)
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        self.assertEqual(response.status, 200)
        return json.loads(body)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask the program all the time; every request has to be answered."""
        stop, failures = threading.Event(), list[Exception]()

        def ask() -> None:
            asked = 0
            while not stop.is_set() or asked < _REQUESTS_BESIDE:
                try:
                    self.get()
                except Exception as exc:  # noqa: BLE001 - told below
                    return failures.append(exc)
                asked += 1

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        self.assertEqual(failures, [])

    def use(self, viewers: list[RFBClient]) -> None:
        """See that every console shows its display and takes what is typed."""
        for viewer in viewers:
            self.assertEqual(viewer.size, _SIZE)
            image = viewer.screenshot(_TIMEOUT)
            self.assertEqual((image.width, image.height), _SIZE)

    def children(self, process: subprocess.Popen[bytes]) -> list[int]:
        """Return the processes that a program has started."""
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            return [int(number) for number in file.read().split()]

    def assert_stops(self, process: subprocess.Popen[bytes], viewers: list[RFBClient]) -> None:
        """End gunicorn as its supervisor would; nothing is left of it, and nothing at the API."""
        workers = self.children(process)
        self.assertEqual(len(workers), _WORKERS)
        process.terminate()
        codes = {viewer.wait_closed(_TIMEOUT).code for viewer in viewers}
        self.assertEqual(codes, {1012})
        self.assertEqual(process.wait(_TIMEOUT), 0, self.log())
        for worker in workers:
            self.assertFalse(os.path.exists(f"/proc/{worker}"))
        self.assertTrue(self.api.wait_until_idle(_TIMEOUT))
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(self.address)
        self.assertNotIn("Traceback", self.log())


@needs("Xvnc", "tigervnc-standalone-server")
class Beside(ManyConsolesTestCase):
    """A program with four threads in each of two workers, and a proxy beside it in each."""

    def test_fifty_consoles(self) -> None:
        """Fifty consoles are open at once beside the program, which is answered, and nothing stays."""
        os.mkdir(self.path("proxies"))
        gunicorn = self.start_gunicorn(
            "tests.integration.beside_app:application",
            *("--threads", "4", "--config", "python:tests.integration.beside_app"),
            **{beside_app.ADDRESSES: self.path("proxies")},
        )
        ports = self.ports(self.path("proxies"))
        with self.asking():
            viewers = [
                self.connect(f"ws://127.0.0.1:{ports[number % _WORKERS]}/{self.token(vmi)}/{vmi}")
                for number, vmi in enumerate(self.vmis)
            ]
            self.use(viewers)
            self.assertEqual(self.get()["consoles"], _CONSOLES // _WORKERS)
        self.assertEqual(self.api.live, _CONSOLES)
        self.assert_stops(gunicorn, viewers)

    def ports(self, directory: str) -> list[int]:
        """Return the port of each worker's proxy."""
        wait_until(lambda: len(self.ready(directory)) == _WORKERS, _TIMEOUT)
        found = []
        for name in self.ready(directory):
            with open(os.path.join(directory, name), encoding="ascii") as file:
                found.append(int(file.read()))
        return found

    def ready(self, directory: str) -> list[str]:
        return [name for name in os.listdir(directory) if not name.endswith(".part")]
