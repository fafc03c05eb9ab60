"""A WSGI server from the standard library that gives its sockets away, as werkzeug's or gunicorn's does."""

from __future__ import annotations

import io
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, cast
from unittest import mock
from urllib.parse import urlsplit
from wsgiref.handlers import SimpleHandler
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

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


class Host:
    """Serves an application with a thread for each connection; use ``with``.

    :param app: the application.
    :param kind: "werkzeug" or "gunicorn".
    :param tls: a context, where clients come by TLS.
    :param environ: what every environ holds besides.
    :ivar address: host and port.
    :ivar errors: what the application raised, but for connections that were gone.
    """

    def __init__(
        self,
        app: WSGIApplication,
        kind: str = "werkzeug",
        *,
        tls: ssl.SSLContext | None = None,
        environ: dict[str, Any] | None = None,
    ) -> None:
        self.app = app
        self.kind = kind
        self.tls = tls
        self.environ = environ or {}
        self.errors: list[BaseException | None] = []
        self._server = _Server(self)
        self.address: tuple[str, int] = self._server.server_address  # type: ignore[assignment]
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.01))

    @property
    def url(self) -> str:
        """``ws://HOST:PORT``, or ``wss://``."""
        return f"{'wss' if self.tls else 'ws'}://{self.address[0]}:{self.address[1]}"

    def __enter__(self) -> Host:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()  # waits for the threads of all connections


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, host: Host) -> None:
        self.host = host
        super().__init__(("127.0.0.1", 0), _RequestHandler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's looks the host's name up
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]
        self.setup_environ()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        if self.host.tls:
            request = self.host.tls.wrap_socket(request, server_side=True)
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(error := sys.exc_info()[1], ConnectionError):
            self.host.errors.append(error)


class _RequestHandler(WSGIRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.parse_request():
            return
        self.path = self.requestline.split(" ")[1]  # as sent: the standard library changes it
        host, environ = self.server.host, self.get_environ()
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.client_address[0], str(self.client_address[1])
        environ["RAW_URI"] = self.path
        if "://" in self.path:
            environ["PATH_INFO"] = urlsplit(self.path).path  # as both of these servers have it
        environ[f"{host.kind}.socket"] = self.connection
        if host.tls:
            environ["HTTPS"] = "on"  # from which the standard library makes wsgi.url_scheme
        environ.update(host.environ)
        body: Any = self.rfile
        if host.kind == "gunicorn" and "HTTP_UPGRADE" in environ:
            body = _gunicorn_body(self.rfile, self.connection)
        handler = _ServerHandler(body, cast(IO[bytes], self.wfile), io.StringIO(), environ)
        handler.host = host
        handler.run(host.app)


class _ServerHandler(ServerHandler):
    host: Host

    def log_exception(self, exc_info: Any) -> None:
        self.host.errors.append(exc_info[1])

    def close(self) -> None:
        SimpleHandler.close(self)  # the other one logs the request by its request handler


def _gunicorn_body(file: Any, sock: socket.socket) -> Any:
    """Return a body as gunicorn's is, with what has been read ahead in its reader's unreader."""
    sock.setblocking(False)
    try:
        ahead = file.read(len(file.peek()))
    except OSError:  # TLS: nothing is there
        ahead = b""
    sock.setblocking(True)
    return SimpleNamespace(reader=SimpleNamespace(unreader=SimpleNamespace(buf=io.BytesIO(ahead))))
