"""Finds the client's socket of a WSGI server, the number of its threads, and when it stops.

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

# Keys in the environ of servers that give no socket.
_BY_KEY = {
    "eventlet.input": "eventlet",
    "waitress.client_disconnected": "waitress",
    "uwsgi.version": "uWSGI",
    "mod_wsgi.version": "mod_wsgi",
}
_READ_AHEAD = 65536


def client_socket(environ: Environ, reserve: int) -> socket.socket:
    """Return the client's socket, which the server still owns.

    :param reserve: how many of the server's threads never serve consoles.
    :raises UnsupportedServer: if the server gives no socket, or none that a thread can wait for.
    """
    sock = environ.get("werkzeug.socket") or environ.get("gunicorn.socket")
    if sock is None:
        raise _unsupported(f"{_name_of(environ)} gives no socket", reserve, replaced_by())
    # Not isinstance: gevent and eventlet may have replaced socket.socket by their own classes.
    if type(sock).__module__ not in ("socket", "ssl"):
        library = type(sock).__module__.partition(".")[0]
        raise _unsupported(f"{library} has no threads", reserve, library)
    if not environ.get("wsgi.multithread"):
        why = f"{_name_of(environ)} serves one request at a time as it is started here"
        raise _unsupported(why, reserve, replaced_by())
    assert isinstance(sock, socket.socket)
    return sock


def _unsupported(why: str, reserve: int, library: str | None) -> UnsupportedServer:
    """Return the error, which says what to use instead.

    :param library: the library that has replaced Python's threads in this process, None if there is none.
    """
    gunicorn = f"gunicorn --worker-class gthread --threads N, where N is {reserve + 1} or more"
    if library:
        use = f"use {gunicorn}, without {library}, or run wsproxy as a program of its own"
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
    """Return the bytes that the server has read behind the head: the first WebSocket data. Does not block.

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
    except (AttributeError, OSError):  # not such a file; or TLS, which raises if there is no data
        return b""


def _take_from_gunicorn(body: Any) -> bytes:
    # The buffer is not public in gunicorn. It has been there since gunicorn 19; a test fails if it is not.
    buffer = getattr(getattr(getattr(body, "reader", None), "unreader", None), "buf", None)
    if buffer is None:
        logger.warning("cannot find what gunicorn has read ahead; a quick client's first data may be lost")
        return b""
    ahead = bytes(buffer.getvalue())
    buffer.seek(0)
    buffer.truncate()
    return ahead


@dataclass(frozen=True)
class WSGIServer:
    """How a server runs the threads of this process.

    :ivar threads: how many requests it serves at a time; None if it starts a thread for each.
    :ivar stopping: returns whether it has begun to stop and waits for its threads; None if it never waits.
    :ivar known: whether the number of threads is known.
    """

    threads: int | None = None
    stopping: Callable[[], bool] | None = None
    known: bool = True

    @classmethod
    def around(cls, environ: Environ, threads: int | None) -> WSGIServer:
        """Return how the server that made ``environ`` runs its threads.

        :param threads: their number, as the embedding program gives it; used if the server gives none.
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
        """Check that the number of threads is known.

        :raises UnsupportedServer: if it is not.
        """
        if not self.known:
            raise UnsupportedServer(
                "this program handles SIGTERM in place of gunicorn's worker, so wsproxy cannot count its "
                "threads; pass threads=N, and call close() on SIGTERM"
            )
