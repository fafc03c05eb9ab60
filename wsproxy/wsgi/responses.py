"""What the WSGI server is handed: answers in pieces, and consoles that it asks for."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..protocol.response import reason_phrase
from ..web.in_flight import Place
from .environ import Environ

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = ["ConsoleResponse", "respond"]

_END_OF_HEAD = b"\r\n\r\n"
_PIECE = 64 * 1024
_HOP_BY_HOP = ("connection", "upgrade")  # PEP 3333: these are the server's


class ConsoleResponse(Iterator[bytes]):
    """Serves a console when the server asks for the first piece of the response.

    Not before, so that whatever the application holds for a request, such as a connection to its database,
    has been given back by then.

    :param serve: does it, and returns the HTTP status.
    """

    def __init__(self, serve: Callable[[], int], environ: Environ, start_response: StartResponse) -> None:
        self._serve: Callable[[], int] | None = serve
        self._environ = environ
        self._start_response = start_response

    def __next__(self) -> bytes:
        serve, self._serve = self._serve, None
        if serve is None:
            raise StopIteration
        status = serve()
        if "werkzeug.socket" in self._environ and "werkzeug.debug.preserve_context" not in self._environ:
            # Or it would log the path, which may hold a token; its debugger, though, shows every error.
            raise BrokenPipeError(errno.EPIPE, "the connection was a WebSocket, which has been closed")
        # The server finds a connection that takes nothing any more, and closes it.
        self._start_response(f"{status} {reason_phrase(status)}", [])
        raise StopIteration


def respond(response: bytes, start_response: StartResponse, places: Sequence[Place]) -> Iterable[bytes]:
    """Answer by WSGI's own means.

    :param places: released when the server has sent the answer, or gives up.
    """
    end = response.index(_END_OF_HEAD)
    status, *lines = response[:end].decode("ascii").split("\r\n")
    fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    start_response(
        status.partition(" ")[2], [field for field in fields if field[0].lower() not in _HOP_BY_HOP]
    )
    return _Body(response, end + len(_END_OF_HEAD), places)


class _Body(Iterator[bytes]):
    """Gives a body to the server in pieces, as a copy of all of it for each client would be too much.

    :param response: which others may be given, too.
    :param start: where its body begins.
    """

    def __init__(self, response: bytes, start: int, places: Sequence[Place]) -> None:
        self._response = response
        self._at = start
        self._places = places

    def __next__(self) -> bytes:
        piece = self._response[self._at : self._at + _PIECE]
        self._at += len(piece)
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Called by the server at the end, whatever that is (PEP 3333)."""
        for place in self._places:
            place.release()
