"""A WSGI server that lends requests their sockets, as werkzeug's or gunicorn's does."""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, cast
from unittest import mock

from wsproxy.testing.application import ApplicationServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["GunicornWorker", "Host", "gunicorn_worker"]


class GunicornWorker:
    """What the product asks gunicorn's worker for, which handles SIGTERM by a method of its own."""

    def __init__(self, threads: int) -> None:
        self.cfg = SimpleNamespace(threads=threads)
        self.alive = True

    def handle_exit(self, number: int, frame: object) -> None:
        """Begin to stop."""


@contextmanager
def gunicorn_worker(threads: int) -> Iterator[GunicornWorker]:
    """Let the signal handlers be those of a gunicorn worker."""
    worker = GunicornWorker(threads)
    with mock.patch("wsproxy.wsgi.servers.signal.getsignal", return_value=worker.handle_exit):
        yield worker


class Host(ApplicationServer):
    """Serves an application, and leaves its consoles to the test; use ``with``.

    :param app: the application.
    :param kind: whose sockets it lends: "werkzeug" or "gunicorn".
    :param tls: a context, where clients come by TLS.
    :param environ: what every environ holds besides.
    """

    def __init__(
        self,
        app: WSGIApplication,
        kind: str = "werkzeug",
        *,
        tls: ssl.SSLContext | None = None,
        environ: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(app, tls=tls)
        self.kind = kind
        self.environ = environ or {}

    @property
    def url(self) -> str:
        """``ws://HOST:PORT``, or ``wss://``."""
        return self.console_url("").rstrip("/")

    def stop(self) -> None:
        self._stop_serving()

    def _lend(self, environ: dict[str, Any], connection: socket.socket, body: IO[bytes]) -> IO[bytes]:
        environ[f"{self.kind}.socket"] = connection
        environ.update(self.environ)
        if self.kind == "gunicorn" and "HTTP_UPGRADE" in environ:
            return cast(IO[bytes], _gunicorn_body(body, connection))
        return body


def _gunicorn_body(file: Any, sock: socket.socket) -> Any:
    """Return a body as gunicorn's is, with what has been read ahead in its reader's unreader."""
    sock.setblocking(False)
    try:
        ahead = file.read(len(file.peek()))
    except OSError:  # TLS: nothing is there
        ahead = b""
    sock.setblocking(True)
    return SimpleNamespace(reader=SimpleNamespace(unreader=SimpleNamespace(buf=io.BytesIO(ahead))))
