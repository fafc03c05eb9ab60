"""The named HTTP endpoints: everything that is answered without an upgrade. No I/O."""

from __future__ import annotations

from .exceptions import MethodNotAllowed
from .routing import endpoint_of
from .upgrade import RequestHead, http_response

__all__ = ["answer"]

_ENDPOINTS = frozenset({"healthz"})


def answer(head: RequestHead, prefix: tuple[str, ...]) -> bytes:
    """Return the whole response to a request that is no upgrade.

    :param prefix: the configured path prefix.
    :raises Refused: if there is no such endpoint, or not for this method, or the request has a body.
    """
    endpoint_of(head.target, prefix, _ENDPOINTS)
    if head.method not in ("GET", "HEAD"):
        raise MethodNotAllowed("GET, HEAD")
    head.refuse_body()
    return http_response(200, b"ok\n", head_only=head.method == "HEAD")
