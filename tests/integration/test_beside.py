"""A proxy beside a WSGI application, in the processes of servers that give no socket, or have few threads."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
from unittest import mock

from tests.integration.programs import ProgramTestCase
from tests.support.ports import listeners
from tests.support.proxy_process import needs_proc
from wsproxy.testing.case import SECRET
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_APPLICATION = "tests.integration.beside_application"
_CONSOLES = 8
_TIMEOUT = 60.0
_RELOADED = """
import os, sys
import flask
from tests.integration.beside_application import _ADDRESS, proxy

app = flask.Flask(__name__)
if os.environ.get("WERKZEUG_RUN_MAIN"):
    proxy.run_in_thread(*_ADDRESS)
    print("serving consoles", file=sys.stderr)
"""


@needs_proc
class BesideTest(ProgramTestCase):
    """The application tells where consoles are, and answers while there are more of them than threads."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        for number in range(_CONSOLES):
            self.api.add_vmi(f"vm-{number}", self.namespace)
        # Bound but not listening: nobody else gets the port, but who says SO_REUSEPORT.
        reserved = socket.socket()
        self.addCleanup(reserved.close)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        self.reserved, self.port = reserved, reserved.getsockname()[1]
        environment = {
            "SECRET_KEY": SECRET,
            "LOCAL_DEV_MODE": "true",
            "WS_REMOTE_URL": self.api.url,
            "BESIDE_PORT": str(self.port),
        }
        patcher = mock.patch.dict(os.environ, environment)
        patcher.start()
        self.addCleanup(patcher.stop)

    def start_workers(self, *options: str) -> subprocess.Popen[bytes]:
        """Start gunicorn with two workers of its default class, which serve one request at a time each."""
        return self.start_program(
            *(sys.executable, "-m", "gunicorn", *options, "--workers", "2"),
            *("--bind", f"unix:{self.path('http')}", f"{_APPLICATION}:application"),
        )

    def start_workers_with_hooks(self) -> subprocess.Popen[bytes]:
        """Start gunicorn, which imports the application before it forks; each worker starts a proxy."""
        return self.start_workers("--config", f"python:{_APPLICATION}", "--preload")

    def ask(self, path: str) -> str:
        """Return what the application answers."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT)
            sock.connect(self.path("http"))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: sock.recv(4096), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertIn(b" 200 OK", head)
        return body.decode()

    def wait_forlisteners(self, count: int) -> None:
        """Wait until so many sockets listen on the consoles' port."""
        self.wait_for(lambda: listeners(self.port) == count, f"{count} listeners", _TIMEOUT)

    def check_consoles(self, server: subprocess.Popen[bytes], end: signal.Signals) -> None:
        """Open consoles by the application's URLs, ask it once more, and end the server: nothing is left."""
        clients = []
        for number in range(_CONSOLES):
            client = RawClient.open(self.ask(f"/vm-{number}"))
            self.addCleanup(client.close)
            self.assertEqual(client.status, 101, self.log())
            clients.append(client)
        for client in clients:
            client.send_frame(BINARY, b"hello")
            self.assertEqual(client.recv_frame().payload, b"hello")
        self.assertIn(f"ws://127.0.0.1:{self.port}/", self.ask("/vm-0"))
        server.send_signal(end)
        for client in clients:
            self.assertEqual(client.recv_close(_TIMEOUT), (1012, "restarting"), self.log())
            client.send_close(1012)
        self.assertEqual(server.wait(_TIMEOUT), 0, self.log())
        self.assertEqual(listeners(self.port), 0)
        self.assertNotIn("Traceback", self.log())

    def test_gunicorn(self) -> None:
        """gunicorn's sync workers have eight consoles beside them on one port, and still answer."""
        gunicorn = self.start_workers_with_hooks()
        self.wait_forlisteners(2)
        self.check_consoles(gunicorn, signal.SIGTERM)

    def test_nobody_stops_it(self) -> None:
        """A proxy that each worker starts at its import, and nobody stops, ends with gunicorn, too."""
        os.environ["BESIDE_TRAP"] = "yes"  # as it was after the test
        gunicorn = self.start_workers()
        self.wait_forlisteners(2)
        self.check_consoles(gunicorn, signal.SIGTERM)

    def test_reloader(self) -> None:
        """A proxy that nobody stops keeps Flask's reloader from nothing: the next process has its port."""
        self.reserved.close()
        module = self.path("lab.py")
        with open(module, "w", encoding="utf-8") as file:
            file.write(_RELOADED)
        flask = self.start_program(
            *(sys.executable, "-m", "flask", "--app", module, "run", "--reload", "--port", "0"),
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        newer = itertools.count(2_000_000_000)

        def has_served_three_times() -> bool:
            os.utime(module, (0, next(newer)))  # again and again, until the reloader has seen one before
            return self.log().count("serving consoles") >= 3

        self.wait_for(has_served_three_times, "a third process", _TIMEOUT)
        flask.send_signal(signal.SIGINT)
        self.assertEqual(flask.wait(_TIMEOUT), 0, self.log())
        self.assertNotIn("Traceback", self.log())

    def test_started_before_the_fork(self) -> None:
        """A proxy that was started at the import, before gunicorn forked, says so in the workers."""
        os.environ["BESIDE_TRAP"] = "yes"  # as it was after the test
        self.start_workers_with_hooks()
        self.wait_forlisteners(1)
        self.wait_for(lambda: "Booting worker" in self.log(), "a worker")
        self.assertIn("this proxy was started before a fork", self.ask("/vm-0"))

    def test_waitress(self) -> None:
        """waitress with one thread has eight consoles beside it, and still answers."""
        self.check_waitress(signal.SIGINT)

    def test_waitress_is_terminated(self) -> None:
        """With the guide's handler of SIGTERM clients are told of a restart, and it ends in good order."""
        self.check_waitress(signal.SIGTERM)

    def check_waitress(self, end: signal.Signals) -> None:
        """Start waitress, open consoles beside it, and end it."""
        self.reserved.close()
        waitress = self.start_program(sys.executable, "-m", _APPLICATION, self.path("http"))
        self.wait_forlisteners(1)
        self.wait_for(lambda: os.path.exists(self.path("http")), "the socket of waitress")
        self.check_consoles(waitress, end)
