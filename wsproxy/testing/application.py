"""A threaded server on loopback for a test's WSGI application whose views open consoles.

Like werkzeug's development server, it passes each request its socket. So a test can reach an application of
Flask, Django or another framework through a real connection. It requires the standard library only.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import sys
import threading
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit
from wsgiref.handlers import SimpleHandler
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from ..net.addresses import host_and_port

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["ApplicationServer"]

_POLL = 0.01
_MAX_LINE = 65536

_Self = TypeVar("_Self", bound="ApplicationServer")


class ApplicationServer:
    """Serves a WSGI application on loopback from :meth:`start`, or ``with``, to :meth:`stop`.

    :param app: the application.
    :param tls: a server's context; None to serve without TLS.
    :ivar address: host and port.
    :ivar errors: the exceptions that the application raised, except those of lost connections.
    """

    def __init__(self, app: WSGIApplication, *, tls: ssl.SSLContext | None = None) -> None:
        self.app, self.tls = app, tls
        self.errors: list[BaseException] = []
        self._server = _Server(self)
        self.address: tuple[str, int] = ("127.0.0.1", self._server.server_port)
        name = f"application-{self.address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL,), name=name, daemon=True
        )

    def start(self: _Self) -> _Self:
        """Serve in a thread. Returns itself."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the application's consoles, and stop serving. Idempotent.

        This method finds the consoles of a :class:`.ConsoleApp` and of a Flask application. Close others
        first, or let their clients disconnect. Blocks until all requests are answered.
        """
        consoles = getattr(self.app, "extensions", {}).get("wsproxy", self.app)
        if hasattr(consoles, "close"):
            consoles.close()
        self._stop_serving()

    def _stop_serving(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()  # waits for the threads of all connections

    def __enter__(self: _Self) -> _Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _lend(self, environ: dict[str, Any], connection: socket.socket, body: IO[bytes]) -> IO[bytes]:
        """Put the socket of a request into its environ; return the file from which its body is read."""
        environ["werkzeug.socket"] = connection
        return body

    @property
    def url(self) -> str:
        """The URL of the application: ``http://HOST:PORT``, or ``https://``."""
        return f"{'https' if self.tls else 'http'}://{host_and_port(*self.address)}"

    def console_url(self, path: str) -> str:
        """Return the WebSocket URL of a view, such as ``/machines/ubuntu/console``."""
        return f"{'wss' if self.tls else 'ws'}://{host_and_port(*self.address)}/{path.lstrip('/')}"


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, served: ApplicationServer) -> None:
        self.served = served
        super().__init__(("127.0.0.1", 0), _RequestHandler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer.server_bind looks up the host's name
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]
        self.setup_environ()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        if self.served.tls:
            try:
                request = self.served.tls.wrap_socket(request, server_side=True)
            except OSError:  # the client failed the TLS handshake
                return self.shutdown_request(request)
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.served.errors.append(error)


class _RequestHandler(WSGIRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass  # paths may contain tokens

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(_MAX_LINE)
        if not self.parse_request():
            return
        self.path = self.requestline.split(" ")[1]  # as sent; the standard library changes it
        served, environ = self.server.served, self.get_environ()
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.client_address[0], str(self.client_address[1])
        environ["RAW_URI"] = self.path
        if "://" in self.path:
            environ["PATH_INFO"] = urlsplit(self.path).path  # as werkzeug has it
        if served.tls:
            environ["HTTPS"] = "on"  # the standard library makes wsgi.url_scheme from it
        body = served._lend(environ, self.connection, cast(IO[bytes], self.rfile))
        handler = _ServerHandler(body, cast(IO[bytes], self.wfile), sys.stderr, environ)
        handler.served = served
        handler.run(served.app)


class _ServerHandler(ServerHandler):
    served: ApplicationServer

    def log_exception(self, exc_info: Any) -> None:
        self.served.errors.append(exc_info[1])

    def close(self) -> None:
        SimpleHandler.close(self)  # ServerHandler.close logs the request
