"""One of several processes serves the operator, for all of them, and another one when that one ends."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from typing import Any

from tests.integration.programs import ProgramTestCase
from tests.integration.wsgi_servers import Gunicorn, Werkzeug, WSGIServerProcess
from tests.shared.columns import ask_operator
from tests.support.ports import free_port, listeners
from tests.support.proxy_process import ProxyProcess, environment_for, needs_proc, wait_until
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 30.0
_WORKERS = 4
_MOST = 60  # consoles, until several processes have some
_TRIES = 12  # so many that each process gets one


@needs_proc
class OperatorTestCase(ProgramTestCase):
    """Processes with a store in common, and one path of the operator's listener."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.admin, state = self.path("admin"), self.path("state")
        self.settings: dict[str, Any] = {
            "WSPROXY_ADMIN": f"unix:{self.admin}",
            "WSPROXY_STATE": f"local:{state}",
            "WSPROXY_STATE_LEASE": "2",
            "WSPROXY_CLOSE_TIMEOUT": "2",
        }
        self.start_program(sys.executable, "-m", "wsproxy", "state", "--listen", f"unix:{state}")
        self.assertTrue(wait_until(lambda: os.path.exists(state), _TIMEOUT))
        self.clients: dict[str, RawClient] = {}

    def knock(self, url: str, vmi: str, token: str = "") -> RawClient:
        """Ask for a console, and return the client."""
        client = RawClient.open(f"{url}/{token or self.token(vmi, user=5)}/{vmi}")
        self.addCleanup(client.close)
        return client

    def open(self, url: str) -> None:
        """Open a console of a VMI of its own, as soon as the store is settled."""
        vmi = f"vm-{len(self.clients)}"
        self.api.add_vmi(vmi, self.namespace)
        found: list[RawClient] = []

        def is_open() -> bool:
            found.append(self.knock(url, vmi))
            return found[-1].status == 101

        self.assertTrue(wait_until(is_open, _TIMEOUT))
        client = self.clients[vmi] = found[-1]
        client.send_frame(BINARY, b"hello")
        client.recv_frame()

    def ask(self, method: str, target: str, body: dict[str, str] | None = None) -> Any:
        status, answer = ask_operator(self.admin, method, target, body)
        self.assertEqual(status, 200, answer)
        return answer

    def listed(self) -> list[dict[str, Any]]:
        sessions: list[dict[str, Any]] = self.ask("GET", "/sessions")["sessions"]
        return sessions

    def open_in_several(self, url: str) -> None:
        """Open consoles until the process that serves the operator has some, and another one, too."""
        for _ in range(_MOST):
            self.open(url)
            if {session["bytes_up"] is None for session in self.listed()} == {True, False}:
                return
        self.fail(f"one process has all {_MOST} consoles")

    def owner(self) -> int:
        """Return the id of the process that listens for the operator; 0 if none does."""
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(self.admin)
            except OSError:
                return 0
            found: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            return found

    def wait_for_all(self) -> None:
        """Wait until the list has every console that is open."""
        self.assertTrue(
            wait_until(lambda: {one["vmi"] for one in self.listed()} == {*self.clients}, _TIMEOUT),
            self.clients,
        )

    def check_takes_over(self, url: str) -> None:
        """Kill the process that serves the operator: another one does, and it knows the sessions left."""
        own = {one["vmi"] for one in self.listed() if one["bytes_up"] is not None}
        killed = self.owner()
        os.kill(killed, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: self.owner() not in (0, killed), _TIMEOUT))
        for vmi in own:
            self.clients.pop(vmi).wait_for_end(_TIMEOUT)
        self.wait_for_all()

    def check_kick(self, url: str) -> None:
        """A kick ends the sessions of all processes, and all refuse the token; a lift concerns all, too."""
        token = self.token("vm-0", user=5)
        kicked = self.ask("POST", "/kick", {"user": "5"})
        self.assertEqual((len(kicked["sessions"]), kicked["behind"]), (len(self.clients), []))
        for client in self.clients.values():
            self.assertEqual(client.recv_close(_TIMEOUT), (4499, "kicked"))
            client.send_close(4499)
        statuses = [self.knock(url, "vm-0", token).status for _ in range(_TRIES)]
        self.assertEqual({*statuses}, {401})
        self.ask("DELETE", f"/revocations/{kicked['kick']}")
        statuses = [self.knock(url, "vm-0", token).status for _ in range(_TRIES)]
        self.assertEqual({*statuses}, {101})


class GunicornTest(OperatorTestCase):
    """gunicorn with four workers."""

    def start(self, *options: str) -> WSGIServerProcess:
        server = Gunicorn(
            self.api, "--workers", str(_WORKERS), *options, threads=_MOST + _TRIES, **self.settings
        )
        self.addCleanup(server.close)
        return server

    def check(self, server: WSGIServerProcess) -> None:
        self.assertEqual(self.owner(), 0, "no request has come")
        self.open(server.url)
        self.open_in_several(server.url)
        self.wait_for_all()
        self.check_takes_over(server.url)
        self.check_kick(server.url)
        self.assertEqual(server.stop(), 0, server.output)
        self.assertFalse(os.path.exists(self.admin))
        self.assertNotIn("Traceback", server.output)

    def test_loaded_by_each_worker(self) -> None:
        """Each worker loads the application."""
        self.check(self.start())

    def test_loaded_before_the_fork(self) -> None:
        """The application is loaded before the fork, and has no thread and no socket then."""
        self.check(self.start("--preload"))

    def test_nothing_in_common(self) -> None:
        """Without a store in common, the listener is a fault, in one line of each worker."""
        del self.settings["WSPROXY_STATE"], self.settings["WSPROXY_STATE_LEASE"]
        server = self.start()
        for _ in range(_TRIES):
            self.assertEqual(self.knock(server.url, "vm-0").status, 500)
        lines = [line for line in server.output.splitlines() if "admin" in line]
        self.assertLessEqual(len(lines), _WORKERS)
        self.assertIn("set WSPROXY_STATE to local:PATH", lines[0])
        self.assertFalse(os.path.exists(self.admin))


class WerkzeugTest(OperatorTestCase):
    """Two development servers."""

    def test_two_servers(self) -> None:
        """The second serves the operator when the first has ended."""
        first, second = (Werkzeug(self.api, **self.settings) for _ in range(2))
        for server in (first, second):
            self.addCleanup(server.close)
            for _ in range(2):
                self.open(server.url)
        self.wait_for_all()
        self.assertEqual(self.owner(), first.process.pid)
        self.check_takes_over(second.url)
        self.assertEqual(self.owner(), second.process.pid)
        self.check_kick(second.url)


class HandoverTest(OperatorTestCase):
    """An old and a new program at one port."""

    def start(self, port: int = 0) -> ProxyProcess:
        program = ProxyProcess(
            self.api,
            **self.settings
            | {"PORT": str(port), "WSPROXY_REUSE_PORT": "true", "WSPROXY_DRAIN_TIMEOUT": "60"},
        )
        self.addCleanup(program.close)
        return program

    def test_drain(self) -> None:
        """While the old program drains, the new one serves the operator, for the sessions of both."""
        old = self.start()
        self.open(old.url)
        new = self.start(old.address[1])
        self.assertEqual(self.owner(), old.process.pid)
        old.process.send_signal(signal.SIGTERM)
        self.assertTrue(wait_until(lambda: self.owner() == new.process.pid, _TIMEOUT))
        self.open(new.url)
        self.wait_for_all()
        self.check_kick(new.url)
        self.assertEqual(old.process.wait(_TIMEOUT), 0)
        self.assertEqual(self.owner(), new.process.pid)

    def test_no_successor(self) -> None:
        """A program that drains without a successor goes on serving the operator."""
        program = self.start()
        self.open(program.url)
        program.process.send_signal(signal.SIGTERM)
        self.assertTrue(wait_until(lambda: self.owner() == 0, _TIMEOUT))
        self.assertTrue(wait_until(lambda: self.owner() == program.process.pid, _TIMEOUT))
        self.wait_for_all()


class BesideTest(OperatorTestCase):
    """Proxies beside an application, one in each worker of gunicorn, at one port."""

    def start(self, **settings: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start gunicorn; return it, and the URL of consoles."""
        port = free_port()
        gunicorn = self.start_program(
            *(sys.executable, "-m", "gunicorn", "--bind", f"unix:{self.path('http')}"),
            *("--workers", str(_WORKERS), "--config", "python:tests.integration.beside_application"),
            "tests.integration.beside_application:application",
            env=environment_for(self.api) | self.settings | {"BESIDE_PORT": str(port)} | settings,
        )
        self.assertTrue(wait_until(lambda: listeners(port) == _WORKERS, _TIMEOUT), self.log())
        return gunicorn, f"ws://127.0.0.1:{port}"

    def test_path(self) -> None:
        """One worker gets the path, and none dies of it."""
        gunicorn, url = self.start()
        self.open(url)
        self.open_in_several(url)
        self.wait_for_all()
        self.check_takes_over(url)
        self.check_kick(url)
        gunicorn.terminate()
        self.assertEqual(gunicorn.wait(_TIMEOUT), 0, self.log())
        self.assertFalse(os.path.exists(self.admin))

    def test_port(self) -> None:
        """One worker gets the port. Whichever is killed, the operator is served again."""
        port = free_port()
        gunicorn, _ = self.start(
            WSPROXY_ADMIN=f"127.0.0.1:{port}", WSPROXY_ADMIN_TOKEN_FILE=self.path("token")
        )
        with open(f"/proc/{gunicorn.pid}/task/{gunicorn.pid}/children", encoding="ascii") as children:
            workers = [int(pid) for pid in children.read().split()]
        self.assertEqual(len(workers), _WORKERS)
        for worker in workers:
            self.assertTrue(wait_until(lambda: self.answers(port), _TIMEOUT), self.log())
            self.assertEqual(listeners(port), 1)
            os.kill(worker, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: self.answers(port), _TIMEOUT), self.log())
        self.assertNotIn("Traceback", self.log())

    def answers(self, port: int) -> bool:
        """Whether the listener asks for the operator's token."""
        try:
            with RawClient(("127.0.0.1", port)) as client:
                client.send_raw(b"GET /sessions HTTP/1.1\r\nHost: localhost\r\n\r\n")
                client.read_head()
                return client.status == 401
        except OSError:
            return False
