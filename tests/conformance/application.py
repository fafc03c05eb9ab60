"""The WSGI application that a server under test runs, and what the tests can ask and tell its process.

It has an application of ours for each port that it is served at; the tests start and stop these over a Unix
socket, so that one server process does for all tests of a class. Run as a program it is werkzeug's
development server.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from tests.conformance.fronts import busy_threads, end_session
from tests.conformance.wsgi_servers import CONTROL_SOCKET, THREADS
from wsproxy.config import Config
from wsproxy.wsgi.app import ConsoleApp

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Control", "application"]

_POOL = "ThreadPoolExecutor"  # gunicorn's; it has more of them the more clients came at once, and keeps them


class _Faults(logging.Handler):
    """Collects what the proxy logs, and what anything logs as a fault."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname}:{record.name}:{record.getMessage()}"
        if record.exc_info and record.exc_info[0]:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        if record.name.startswith("wsproxy"):
            self.lines.append((record.name, text))
        # A request that a server does not understand is an error in its log, too.
        if record.levelno >= logging.ERROR and ("Traceback" in text or record.name.startswith("wsproxy")):
            self.faults.append(text)


class Control:
    """What the tests may call: every method without an underscore."""

    def __init__(self) -> None:
        self.apps: dict[int, ConsoleApp] = {}
        self._log = _Faults()
        self._patched: list[tuple[object, str, object]] = []
        threading.excepthook = lambda args: self._log.faults.append(
            f"{args.thread.name if args.thread else 'a thread'}: {args.exc_value!r}"
        )
        sys.unraisablehook = lambda args: self._log.faults.append(f"{args.object!r}: {args.exc_value!r}")
        for name in (None, "gunicorn.error"):  # which does not propagate
            logging.getLogger(name).addHandler(self._log)
        logging.getLogger("wsproxy").setLevel(logging.INFO)

    def start(self, port: int, options: dict[str, Any]) -> None:
        """Serve consoles at a port."""
        threads = os.environ.get(THREADS)
        self.apps[port] = ConsoleApp(Config(**options), threads=int(threads) if threads else None)

    def stop(self, port: int) -> None:
        """Serve no consoles at a port any more."""
        self.apps.pop(port).close()

    def sessions(self, port: int) -> int:
        """How many sessions a port has."""
        return len(self.apps[port].sessions()) if port in self.apps else 0

    def end_session(self, port: int, vmi: str, code: int, reason: str) -> None:
        """End the session with a VMI."""
        end_session(self.apps[port].sessions, vmi, code, reason)

    def busy_threads(self) -> list[str]:
        """Names of threads that work for a session."""
        return busy_threads()

    def patch(self, target: str, value: object) -> None:
        """Replace a name until :meth:`restore`."""
        module_name, _, name = target.rpartition(".")
        module = importlib.import_module(module_name)
        self._patched.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    def restore(self) -> None:
        """Undo what :meth:`patch` did."""
        while self._patched:
            setattr(*self._patched.pop())

    def lines(self, logger: str, start: int) -> list[str]:
        """Return what a logger was told since there were ``start`` lines in all."""
        return [text for name, text in self._log.lines[start:] if name == logger]

    def line_count(self) -> int:
        """How many lines the proxies logged."""
        return len(self._log.lines)

    def take_faults(self) -> list[str]:
        """Return all exceptions and errors since the last call."""
        faults, self._log.faults = self._log.faults, []
        return faults

    def state(self) -> tuple[list[str], list[str]]:
        """What the process's descriptors are, and its threads but for those kept for requests."""
        gc.collect()  # werkzeug leaves a selector to it where a client was reset
        threads = [thread.name for thread in threading.enumerate() if not thread.name.startswith(_POOL)]
        return sorted(_descriptors()), sorted(threads)

    def pid(self) -> int:
        """The process that serves: not the one that was started, if that one has workers."""
        return os.getpid()

    def _serve(self, connection: Connection[Any, Any]) -> None:
        """Do what the tests say, until they end."""
        while True:
            try:
                name, arguments = connection.recv()
            except EOFError:
                return
            try:
                answer = (True, getattr(self, name)(*arguments))
            except Exception:  # noqa: BLE001 - told to the test
                answer = (False, traceback.format_exc())
            connection.send(answer)

    def _connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.environ[CONTROL_SOCKET])
        connection: Connection[Any, Any] = Connection(sock.detach())
        thread = threading.Thread(
            target=self._serve, args=(connection,), name="conformance-control", daemon=True
        )
        thread.start()


def _descriptors() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the directory's own
            yield os.readlink(f"/proc/self/fd/{name}")


_control = Control()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Let the application of the port answer."""
    app = _control.apps.get(int(environ["SERVER_PORT"]))
    if app is None:
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return []
    return app(environ, start_response)


def _run_werkzeug(listeners: list[int]) -> None:
    """Serve at inherited sockets until the process is ended."""
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    servers = [make_server("127.0.0.1", 0, application, threaded=True, fd=fd) for fd in listeners]
    for fd in listeners:
        os.close(fd)
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    _control._connect()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    _run_werkzeug([int(argument) for argument in sys.argv[1:]])
else:
    _control._connect()
