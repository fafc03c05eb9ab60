"""WSGI servers with :class:`.ConsoleApp`, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, ClassVar
from unittest import TestCase, mock

from tests.conformance.fronts import ConformanceTestCase, Front, Logs, ProxyApart, RunningProxy
from tests.support.proxy_process import ProcessFigures, wait_until
from wsproxy.testing.kubevirt.backends import Echo
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.rfb.raw_client import RawClient, client_context

__all__ = ["CONTROL_SOCKET", "FRONTS", "THREADS", "GunicornTLS", "WSGIServer", "Werkzeug"]

CONTROL_SOCKET = "CONFORMANCE_CONTROL_SOCKET"
"""Environment variable with the path at which the tests wait for the server's process."""

THREADS = "CONFORMANCE_THREADS"
"""Environment variable with the number of threads that the server has for requests, if that is limited."""

_GUNICORN_THREADS = 80
_PORTS = 16  # more than a test needs at once
_BACKLOG = 512
_START_TIMEOUT = 60.0
_CALL_TIMEOUT = 60.0
_STOP_TIMEOUT = 20.0
_CLEAN_TIMEOUT = 10.0
_LISTENING = "0A"  # in /proc/net/tcp
_HTTPS_ONLY = ("tls_cert", "tls_key")  # what the server does itself


class WSGIServer(Front):
    """A server with our application, in a process of its own, which is shared by the tests of a class.

    :ivar certificate: files with the server's certificate and key, None if clients come without TLS.
    """

    tls: ClassVar[bool]

    def __init__(self) -> None:
        self._calling = threading.Lock()  # guards the connection to the process
        with contextlib.ExitStack() as stack:
            self._directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="wsproxy-"))
            self.certificate: tuple[str, str] | None = None
            if self.tls:
                authority = CertificateAuthority(self._directory)
                self.certificate = authority.issue()
                self._context = client_context(authority.ca_file)
            self._log = stack.enter_context(open(self._path("log"), "w+b"))
            self._process, self._free, control = self._start()
            stack.callback(self._stop)
            self._control = stack.enter_context(self._accept(control))
            self.pid: int = self.call("pid")
            self._resources = stack.pop_all()

    @abstractmethod
    def command(self, listeners: Sequence[int]) -> list[str]:
        """Return what the interpreter is to run, given inherited sockets that listen."""

    def environment(self) -> dict[str, str]:
        """Return further variables of the environment."""
        return {}

    def call(self, name: str, *arguments: object) -> Any:
        """Call a method of the server process's :class:`.application.Control`."""
        with self._calling:
            self._control.send((name, arguments))
            if not self._control.poll(_CALL_TIMEOUT):
                raise TimeoutError(f"the server does not answer: {self.output()}")
            succeeded, value = self._control.recv()
        if not succeeded:
            raise RuntimeError(value)
        return value

    def output(self) -> str:
        """Return what the server wrote."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    # As a front

    def close(self) -> None:
        self._resources.close()

    def prepare(self, case: ConformanceTestCase) -> None:
        if self.certificate:  # instead of the one that the case has made
            case.client_context = self._context
            patcher = mock.patch.object(RawClient, "default_tls", self._context)
            patcher.start()
            case.addCleanup(patcher.stop)
        before = self.call("state")
        case.addCleanup(self._check, case, before)

    def _check(self, case: TestCase, before: Any) -> None:
        """Fail a test that left something in the server process, or from which it learned of a fault."""
        wait_until(lambda: bool(self.call("state") == before), _CLEAN_TIMEOUT)
        case.assertEqual(self.call("state"), before, "something is left in the server's process")
        case.assertEqual(self.call("take_faults"), [], "errors in the server's process")

    def start(self, options: dict[str, Any]) -> RunningProxy:
        return self._start_app(options)

    def start_apart(self, case: ConformanceTestCase, **options: Any) -> ProxyApart:
        """Start a proxy that has served once: what a process has once is made by then."""
        proxy = self._start_app(case.proxy_options(**options))
        case.api.add_vmi("first", case.namespace, backend=Echo())
        with RawClient.open(f"{proxy.url}/{case.token('first')}/first") as client:
            case.assertEqual(client.status, 101)
            client.send_close(1000)
            client.recv_close()
        case.assertTrue(case.api.wait_until_idle())
        case.assertTrue(wait_until(lambda: proxy.connections == 0))
        return proxy

    def _start_app(self, options: dict[str, Any]) -> WSGIProxy:
        port = self._free.pop()
        used = {name: value for name, value in options.items() if name not in _HTTPS_ONLY}
        self.call("start", port, used)
        return WSGIProxy(self, port)

    def stop_app(self, port: int) -> None:
        """Stop what is served at a port, which may be used again."""
        self.call("stop", port)
        self._free.add(port)

    @contextlib.contextmanager
    def logs(self, case: TestCase, logger: str) -> Iterator[Logs]:
        before, logs = self.call("line_count"), _Lines()
        yield logs
        logs.output = self.call("lines", logger, before)
        case.assertNotEqual(logs.output, [], f"{logger} was told nothing")

    def patch(self, case: TestCase, target: str, value: object) -> None:
        self.call("patch", target, value)
        case.addCleanup(self.call, "restore")

    # The process

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _start(self) -> tuple[subprocess.Popen[bytes], set[int], socket.socket]:
        """Start the server; return it, its ports, and where its process will call."""
        with contextlib.ExitStack() as stack:
            listeners = [
                stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG))
                for _ in range(_PORTS)
            ]
            descriptors = [listener.fileno() for listener in listeners]
            control = socket.socket(socket.AF_UNIX)
            try:
                control.bind(self._path("control"))
                control.listen()
                process = subprocess.Popen(
                    [sys.executable, "-W", "error", *self.command(descriptors)],
                    env=os.environ
                    | {CONTROL_SOCKET: self._path("control")}
                    | {"HOME": self._directory, "XDG_RUNTIME_DIR": self._directory}
                    | self.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=subprocess.STDOUT,
                    pass_fds=descriptors,
                )
            except BaseException:
                control.close()
                raise
            return process, {listener.getsockname()[1] for listener in listeners}, control

    def _accept(self, control: socket.socket) -> Connection[Any, Any]:
        with control:
            control.settimeout(_START_TIMEOUT)
            try:
                sock, _ = control.accept()
            except TimeoutError:
                raise RuntimeError(f"the server did not start: {self.output()}") from None
        sock.setblocking(True)
        return Connection(sock.detach())

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Lines:
    output: list[str]


class WSGIProxy(ProcessFigures):
    """One port of a server, with an application of its own."""

    def __init__(self, server: WSGIServer, port: int) -> None:
        super().__init__(server.pid)
        self.address = ("127.0.0.1", port)
        self._server = server
        self._stopped = False

    @property
    def url(self) -> str:
        """See :class:`.ProxyApart`."""
        return f"{'wss' if self._server.certificate else 'ws'}://127.0.0.1:{self.address[1]}"

    @property
    def connections(self) -> int:
        """See :class:`.RunningProxy`; a client counts until the server has closed its socket."""
        port = self.address[1]
        return max(int(self._server.call("sessions", port)), _open_connections(port))

    def stop_thread(self) -> None:
        """See :class:`.RunningProxy`."""
        if not self._stopped:  # the port may be another one's by now
            self._stopped = True
            self._server.stop_app(self.address[1])

    close = stop_thread

    def busy_threads(self) -> list[str]:
        """See :class:`.RunningProxy`."""
        return list(self._server.call("busy_threads"))

    def end_session(self, vmi: str, code: int, reason: str) -> None:
        """See :class:`.RunningProxy`."""
        self._server.call("end_session", self.address[1], vmi, code, reason)

    def threads(self) -> int:
        """How many threads there are, but for those that the server keeps for requests."""
        return len(self._server.call("state")[1])


def _open_connections(port: int) -> int:
    """Return how many sockets at a port of this machine belong to a process, those that listen left out."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    local, state, inode = 1, 3, 9  # columns
    return sum(
        row[local].endswith(f":{port:04X}") and row[state] != _LISTENING and row[inode] != "0" for row in rows
    )


class Werkzeug(WSGIServer):
    """Werkzeug's development server, a thread for each request."""

    name = "werkzeug"
    tls = False

    def command(self, listeners: Sequence[int]) -> list[str]:
        return ["-m", "tests.conformance.application", *(str(number) for number in listeners)]


class GunicornTLS(WSGIServer):
    """gunicorn with one worker of the class gthread; clients come by TLS."""

    name = "gunicorn gthread, TLS"
    tls = True
    own_tls = False

    def command(self, listeners: Sequence[int]) -> list[str]:
        assert self.certificate
        binds = [argument for number in listeners for argument in ("--bind", f"fd://{number}")]
        return [
            *("-m", "gunicorn", "--worker-class", "gthread", "--threads", str(_GUNICORN_THREADS)),
            *(
                "--keep-alive",
                "0",
                "--certfile",
                self.certificate[0],
                "--keyfile",
                self.certificate[1],
                *binds,
            ),
            "tests.conformance.application:application",
        ]

    def environment(self) -> dict[str, str]:
        return {THREADS: str(_GUNICORN_THREADS)}


FRONTS: tuple[type[WSGIServer], ...] = (Werkzeug, GunicornTLS)
"""The servers through which the suite goes."""
