"""What is known of the WSGI server around an application: its client's socket, its threads, its end.

A console needs the client's socket, and a thread for as long as it is open. werkzeug's development server
and gunicorn's gthread workers give both.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..exceptions import UnsupportedServer
from ..runtime.logs import get_logger
from ..runtime.threads import replaced_by
from .environ import Environ

__all__ = ["WSGIServer", "client_socket", "take_read_ahead"]

logger = get_logger("wsproxy.wsgi")

# What betrays a server that gives no socket.
_BY_KEY = {
    "eventlet.input": "eventlet",
    "waitress.client_disconnected": "waitress",
    "uwsgi.version": "uWSGI",
    "mod_wsgi.version": "mod_wsgi",
}
_READ_AHEAD = 65536


def client_socket(environ: Environ, reserve: int) -> socket.socket:
    """Return the client's socket, which stays the server's.

    :param reserve: how many of the server's threads never serve consoles.
    :raises UnsupportedServer: if the server gives none, or none that a thread could wait for.
    """
    sock = environ.get("werkzeug.socket") or environ.get("gunicorn.socket")
    if sock is None:
        raise _unsupported(f"{_name_of(environ)} gives no socket", reserve, replaced_by())
    # Not isinstance: gevent and eventlet may have put classes of their own in place of socket.socket.
    if type(sock).__module__ not in ("socket", "ssl"):
        library = type(sock).__module__.partition(".")[0]
        raise _unsupported(f"{library} has no threads", reserve, library)
    if not environ.get("wsgi.multithread"):
        why = f"{_name_of(environ)} serves one request at a time as it is started here"
        raise _unsupported(why, reserve, replaced_by())
    assert isinstance(sock, socket.socket)
    return sock


def _unsupported(why: str, reserve: int, library: str | None) -> UnsupportedServer:
    """Say what to use instead.

    :param library: what has replaced Python's threads and sockets in this process; None for nothing.
    """
    gunicorn = f"gunicorn --worker-class gthread --threads N, N being {reserve + 1} or more"
    if library:
        use = f"use {gunicorn}, and no {library}, or run the program wsproxy beside this one"
    else:
        use = (
            f"use {gunicorn}, or the development server of werkzeug 2.0 or newer with threads, "
            "or let WebsocketProxy.run_in_thread listen on a port of its own in this process"
        )
    return UnsupportedServer(f"no console through this WSGI server: {why}; {use}")


def _name_of(environ: Environ) -> str:
    for key, name in _BY_KEY.items():
        if key in environ:
            return name
    return str(environ.get("SERVER_SOFTWARE") or "").partition("/")[0] or "the WSGI server"


def take_read_ahead(environ: Environ, sock: socket.socket) -> bytes:
    """Return what the server has read behind the request's head: WebSocket data already. Does not block.

    :param sock: from :func:`client_socket`; non-blocking afterwards.
    """
    sock.setblocking(False)
    given = environ.get("wsgi.input")
    if "werkzeug.socket" in environ:
        return _take_from_file(given)
    return _take_from_gunicorn(given)


def _take_from_file(file: Any) -> bytes:
    try:
        ahead = file.peek(_READ_AHEAD)
        return bytes(file.read(len(ahead))) if ahead else b""
    except (AttributeError, OSError):  # no such file; or TLS, which says by an error that nothing is there
        return b""


def _take_from_gunicorn(body: Any) -> bytes:
    # Nothing public leads there. It has been so since gunicorn 19; a test tells when it is not.
    buffer = getattr(getattr(getattr(body, "reader", None), "unreader", None), "buf", None)
    if buffer is None:
        logger.warning("cannot see what gunicorn has read ahead; a client that is very quick may lose it")
        return b""
    ahead = bytes(buffer.getvalue())
    buffer.seek(0)
    buffer.truncate()
    return ahead


@dataclass(frozen=True)
class WSGIServer:
    """How a server runs the threads of this process.

    :ivar threads: how many requests it serves at a time; None if it starts a thread for each.
    :ivar stopping: tells whether it is about to stop and waits for its threads; None where it waits for none.
    :ivar known: whether this is so, or could not be found out.
    """

    threads: int | None = None
    stopping: Callable[[], bool] | None = None
    known: bool = True

    @classmethod
    def around(cls, environ: Environ, threads: int | None) -> WSGIServer:
        """Find out about the server that made ``environ``.

        :param threads: what the embedding program says of them, if the server does not.
        """
        if "werkzeug.socket" in environ:
            return cls(threads)
        # A gunicorn worker handles SIGTERM by a method of its own.
        worker: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        found = getattr(getattr(worker, "cfg", None), "threads", None)
        if isinstance(found, int) and hasattr(worker, "alive"):
            return cls(found, lambda: not worker.alive)
        return cls(threads, known=threads is not None)

    def check(self) -> None:
        """Refuse to guess.

        :raises UnsupportedServer: if nobody knows how many threads there are.
        """
        if not self.known:
            raise UnsupportedServer(
                "this program handles SIGTERM in place of gunicorn's worker, so that its threads cannot be "
                "counted; pass threads=N, and call close() on SIGTERM"
            )
