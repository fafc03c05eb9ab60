"""From a WSGI environ (PEP 3333) to a request, as strictly as the environ still shows it. No I/O.

A WSGI server has parsed the request already. It decodes the path and joins header lines of one name by
commas, so a few faults that the socket server sees look like others here: a doubled key is a malformed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .exceptions import BadRequest
from .routing import host_and_port
from .upgrade import RequestHead

__all__ = ["Environ", "head_of", "path_segments", "peer_of"]

Environ = Mapping[str, Any]

_RAW_TARGETS = ("RAW_URI", "REQUEST_URI")  # as sent, where the server shows it
_WITHOUT_PREFIX = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}
_ONE_LINE = (b"host", b"authorization", b"origin")


def head_of(environ: Environ) -> RequestHead:
    """Return the request's head; its target is the path below the application's own, and the query.

    :raises BadRequest: if the request is malformed.
    """
    try:
        return RequestHead(
            str(environ["REQUEST_METHOD"]),
            _target(environ),
            str(environ.get("SERVER_PROTOCOL", "")).rpartition("/")[2],
            _headers(environ),
        )
    except UnicodeEncodeError:
        raise BadRequest("the request head is malformed") from None


def path_segments(environ: Environ) -> tuple[str, ...]:
    """Return the path below the application's own; repeated slashes count as one."""
    return tuple(segment for segment in str(environ.get("PATH_INFO", "")).split("/") if segment)


def peer_of(environ: Environ) -> str:
    """Return who the server, or a middleware that knows better, says the client is, for the log."""
    address = str(environ.get("REMOTE_ADDR") or "")
    return host_and_port(address, str(environ.get("REMOTE_PORT") or 0)) if address else "unknown"


def _target(environ: Environ) -> str:
    path, query = str(environ.get("PATH_INFO", "")) or "/", str(environ.get("QUERY_STRING", ""))
    for name in _RAW_TARGETS:
        raw = str(environ.get(name, "")).partition("?")[0]
        if "%" in raw:
            raise BadRequest("the path must not contain percent-encoded characters")
        if raw and not raw.startswith("/"):
            raise BadRequest("the request target must be a path of printable ASCII characters")
    if "?" in path or "#" in path:  # encoded, where the server shows no raw target
        raise BadRequest("the path must not contain percent-encoded characters")
    return f"{path}?{query}" if query else path


def _headers(environ: Environ) -> list[tuple[bytes, bytes]]:
    headers = []
    for key, value in environ.items():
        if key.startswith("HTTP_") and key != "HTTP_VERSION":  # that one is gunicorn's word for HTTP/2
            name = key[5:].replace("_", "-").lower().encode("ascii")
        elif key in _WITHOUT_PREFIX and value:
            name = _WITHOUT_PREFIX[key]
        else:
            continue
        if name in _ONE_LINE and "," in value:
            raise BadRequest("a header that may stand once in a request stands there twice")
        headers.append((name, value.encode("latin-1")))
    return headers
