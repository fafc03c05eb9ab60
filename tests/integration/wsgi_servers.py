"""WSGI servers as processes of their own, in front of a stand-in for the API."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from types import TracebackType

from tests.support.proxy_process import environment_for, wait_until
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.rfb.raw_client import RawClient

__all__ = ["APPLICATION", "Gunicorn", "WSGIServerProcess", "Werkzeug", "get"]

APPLICATION = "tests.integration.wsgi_application:application"

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 60.0


class WSGIServerProcess:
    """A WSGI server; stop it with :meth:`stop`, or use ``with``.

    :param command: what the interpreter is to run; it writes the URL that it listens at.
    :param api: the stand-in.
    :param scheme: "ws", or "wss" if the server speaks TLS.
    :param settings: further environment variables.
    :ivar address: host and port.
    :cvar stop_signal: ends such a server in good order.
    """

    stop_signal = signal.SIGTERM

    def __init__(
        self, command: Sequence[str], api: FakeKubeVirtAPI, *, scheme: str = "ws", **settings: str
    ) -> None:
        self._scheme = scheme
        self._stopping = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-X", "dev", *command],
            env=environment_for(api) | settings,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
        )
        try:
            self.address = self.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def wait_until_ready(self) -> tuple[str, int]:
        """Wait until the server has written where it listens, and return that."""
        return ("127.0.0.1", int(self.wait_for(r"https?://127\.0\.0\.1:(\d+)")[1]))

    @property
    def url(self) -> str:
        """``ws://HOST:PORT``, or ``wss://``."""
        return f"{self._scheme}://{self.address[0]}:{self.address[1]}"

    @property
    def output(self) -> str:
        """Everything that the server wrote so far."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the server has written something, and return it."""
        wait_until(
            lambda: bool(re.search(pattern, self.output)) or self.process.poll() is not None, _START_TIMEOUT
        )
        match = re.search(pattern, self.output)
        if match is None:
            raise AssertionError(f"{pattern!r} did not come: {self.output}")
        return match

    def stop(self, number: signal.Signals | None = None) -> int:
        """End the server and return its exit status. Idempotent; kills it if that takes more than 60 s.

        :param number: None for the signal that ends such a server in good order.
        """
        if not self._stopping:
            self._stopping = True
            self.process.send_signal(number or self.stop_signal)  # does nothing if it has ended
        try:
            return self.process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def close(self) -> None:
        """Stop the server and throw its output away. Idempotent."""
        self.stop()
        self._errors.close()

    def __enter__(self) -> WSGIServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Gunicorn(WSGIServerProcess):
    """gunicorn with workers of the class gthread.

    :param application: where it is.
    :param certificate: files with the certificate and its key, None for a server without TLS.
    :param options: further arguments.
    """

    def __init__(
        self,
        api: FakeKubeVirtAPI,
        *options: str,
        application: str = APPLICATION,
        worker_class: str = "gthread",
        threads: int = 16,
        certificate: tuple[str, str] | None = None,
        **settings: str,
    ) -> None:
        tls = ("--certfile", certificate[0], "--keyfile", certificate[1]) if certificate else ()
        command = ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--worker-class", worker_class]
        command += ["--threads", str(threads), "--no-control-socket", *tls, *options, application]
        super().__init__(command, api, scheme="wss" if certificate else "ws", **settings)


class Werkzeug(WSGIServerProcess):
    """werkzeug's development server.

    :param application: where it is.
    :param certificate: files with the certificate and its key, None for a server without TLS.
    :param debugger: whether its debugger stands in front of the application.
    :param threaded: whether it starts a thread for each request.
    :param reloader: further arguments of ``run_simple``, for a server with a reloader.
    """

    stop_signal = signal.SIGINT

    def __init__(
        self,
        api: FakeKubeVirtAPI,
        *,
        application: str = APPLICATION,
        certificate: tuple[str, str] | None = None,
        debugger: bool = False,
        threaded: bool = True,
        reloader: str = "",
        **settings: str,
    ) -> None:
        module, _, name = application.partition(":")
        options = f"threaded={threaded}, ssl_context={certificate!r}"
        lines = [
            "import logging; logging.basicConfig(level=logging.INFO)",
            "from werkzeug.debug import DebuggedApplication",
            "from werkzeug.serving import make_server, run_simple",
            f"from {module} import {name} as application",
            "application = DebuggedApplication(application, evalex=True)" if debugger else "",
        ]
        if reloader:
            lines.append(f"run_simple('127.0.0.1', 0, application, {options}, {reloader})")
        else:
            lines += [
                f"server = make_server('127.0.0.1', 0, application, {options})",
                "print(f'http://127.0.0.1:{server.port}', flush=True)",
                "server.serve_forever()",
            ]
        super().__init__(["-c", "\n".join(lines)], api, scheme="wss" if certificate else "ws", **settings)


def get(address: tuple[str, int], path: str) -> tuple[int, bytes]:
    """Ask a server for a page, by TLS if clients have to; return the status and the body."""
    tls = RawClient.default_tls
    connection = HTTPSConnection(*address, context=tls) if tls else HTTPConnection(*address)
    with closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
