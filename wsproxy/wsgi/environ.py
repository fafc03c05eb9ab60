"""Makes a request head from a WSGI environ (PEP 3333). No I/O.

A WSGI server has parsed the request already: it decodes the path, and joins header lines of one name by
commas. Where that hides faults, this module undoes it as far as the environ allows. So the checks of the head
find the same faults under every server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..protocol.client import Peer
from ..protocol.request import RequestHead, origin_form

__all__ = ["Environ", "head_of", "is_tls", "path_of", "path_segments", "peer_of"]

Environ = Mapping[str, Any]

_RAW_TARGETS = ("RAW_URI", "REQUEST_URI")  # the target as the client sent it, if the server sets one of them
_WITHOUT_PREFIX = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}
# A request may have one line of each of these, without commas.
_ONE_LINE = ("host", "origin", "sec-websocket-key", "sec-websocket-version")
# Where a Cookie line may begin. It never begins before a name that browsers guard (RFC 6265bis section
# 4.1.3). A neighbouring host may set a cookie whose value contains a comma and such a name.
_COOKIE_LINE = re.compile(r",[ \t]*(?!__(?:host|secure)-)(?=[!#$%&'*+.^_`|~0-9a-z-]+=)", re.IGNORECASE)
_BEARER = re.compile(r"(?:\A|,) *bearer ", re.IGNORECASE)  # credentials of other schemes may have commas


def head_of(environ: Environ) -> RequestHead:
    """Return the request's head. Its target is the path below the application's own, and the query."""
    version = str(environ.get("SERVER_PROTOCOL", "")).rpartition("/")[2]
    return RequestHead(str(environ["REQUEST_METHOD"]), _target(environ), version, _headers(environ))


def is_tls(environ: Environ) -> bool:
    """Whether the client uses TLS. A middleware may set the scheme of a proxy, such as Traefik's "wss"."""
    return environ.get("wsgi.url_scheme") in ("https", "wss")


def path_of(environ: Environ) -> str:
    """Return the path below the application's own, unchanged; "/" if it is empty."""
    return str(environ.get("PATH_INFO", "")) or "/"


def path_segments(environ: Environ) -> tuple[str, ...]:
    """Return the segments of the path below the application's own. Repeated slashes count as one."""
    return tuple(segment for segment in path_of(environ).split("/") if segment)


def peer_of(environ: Environ) -> Peer:
    """Return the client that the environ names. A middleware may have corrected the server's entry."""
    address = str(environ.get("REMOTE_ADDR") or "")
    return Peer.at(address, str(environ.get("REMOTE_PORT") or 0)) if address else Peer("unknown")


def _target(environ: Environ) -> str:
    """Return path and query; or the target as the client sent it, if only that shows its fault."""
    hosts = [str(environ["HTTP_HOST"])] if "HTTP_HOST" in environ else []
    for name in _RAW_TARGETS:
        raw = origin_form(str(environ.get(name, "")), hosts)
        if raw and (not raw.startswith("/") or "#" in raw or "%" in raw.partition("?")[0]):
            return raw
    # The client sent these two percent-encoded: otherwise they would have ended the path.
    path = path_of(environ).replace("?", "%3F").replace("#", "%23")
    query = str(environ.get("QUERY_STRING", ""))
    return f"{path}?{query}" if query else path


def _headers(environ: Environ) -> list[tuple[bytes, bytes]]:
    headers = []
    for key, value in environ.items():
        if key.startswith("HTTP_") and key != "HTTP_VERSION":  # gunicorn sets that for HTTP/2
            name = key[5:].replace("_", "-").lower()
        elif key in _WITHOUT_PREFIX and value:
            name = _WITHOUT_PREFIX[key]
        else:
            continue
        if name.isascii() and isinstance(value, str):  # otherwise a middleware has set it
            headers += [(name.encode(), _encoded(line)) for line in _lines(name, value)]
    return headers


def _encoded(value: str) -> bytes:
    """Return a value as the client sent it; if no client can have sent it, some bytes beyond ASCII."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


def _lines(name: str, value: str) -> list[str]:
    """Return the header lines that the server joined, if a valid line of this header has no comma."""
    if name == "cookie":
        return _COOKIE_LINE.split(value)
    if name in _ONE_LINE or (name == "authorization" and _BEARER.search(value)):
        return value.split(",")
    return [value]
