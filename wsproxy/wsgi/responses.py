"""The iterables that the WSGI server gets: an answer in pieces, or a console."""

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
_HOP_BY_HOP = ("connection", "upgrade")  # PEP 3333: only the server may set them


class ConsoleResponse(Iterator[bytes]):
    """Serves a console when the server asks for the first piece of the response.

    By then, the application has released what it holds for a request, such as a database connection.

    :param serve: serves the console until it ends, and returns the HTTP status.
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
            # Otherwise werkzeug logs the path, which may contain a token. Its debugger shows every error.
            raise BrokenPipeError(errno.EPIPE, "the connection was a WebSocket, which has been closed")
        # The server finds that the connection takes no more bytes, and closes it.
        self._start_response(f"{status} {reason_phrase(status)}", [])
        raise StopIteration


def respond(response: bytes, start_response: StartResponse, places: Sequence[Place]) -> Iterable[bytes]:
    """Answer through WSGI: start the response, and return its body.

    :param places: released when the server has sent the body, or gives up.
    """
    end = response.index(_END_OF_HEAD)
    status, *lines = response[:end].decode("ascii").split("\r\n")
    fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    start_response(
        status.partition(" ")[2], [field for field in fields if field[0].lower() not in _HOP_BY_HOP]
    )
    return _Body(response, end + len(_END_OF_HEAD), places)


class _Body(Iterator[bytes]):
    """Gives a body to the server in pieces. A whole copy for each client would take too much memory.

    :param response: the response, which other clients may get too.
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
        """Release the places. The server calls this at the end, even after an error (PEP 3333)."""
        for place in self._places:
            place.release()
