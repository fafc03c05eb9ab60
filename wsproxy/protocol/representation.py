"""Answers GET and HEAD with a file's content, conditional requests included (RFC 9110 section 13). No I/O.

All responses are built in advance, so no response quotes a request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from email.utils import formatdate, parsedate_to_datetime

from ..exceptions import MethodNotAllowed
from .request import RequestHead
from .response import http_response

__all__ = ["Redirect", "Representation", "media_type"]

_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "gif": "image/gif",
    "htm": "text/html; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "ico": "image/vnd.microsoft.icon",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "md": "text/markdown; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "mp3": "audio/mpeg",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "otf": "font/otf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "ttf": "font/ttf",
    "txt": "text/plain; charset=utf-8",
    "wasm": "application/wasm",
    "wav": "audio/wav",
    "webp": "image/webp",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "xml": "application/xml",
}
_METHODS = ("GET", "HEAD")


def media_type(name: str) -> str:
    """Return the media type for a file's suffix. Browsers do not run the type for unknown suffixes."""
    _, dot, end = name.rpartition(".")
    return _MEDIA_TYPES.get(end.lower() if dot else "", "application/octet-stream")


class Representation:
    """The content at one path. Immutable; safe from every thread.

    :param content: the whole content.
    :param kind: its media type.
    :param modified: UNIX time of its last change, seconds.
    :param headers: further header fields of its responses.
    """

    def __init__(
        self, content: bytes, kind: str, modified: float, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        self._modified = int(modified)
        fields = [("ETag", self._etag), ("Last-Modified", formatdate(self._modified, usegmt=True)), *headers]

        def response(status: int, head_only: bool) -> bytes:
            return http_response(
                status,
                content,
                content_type=kind,
                cache_control="no-cache",  # browsers keep it, but revalidate it before each use
                headers=fields,
                head_only=head_only,
            )

        self._whole = response(200, False)
        self._head = response(200, True)
        self._unchanged = response(304, True)

    def answer(self, head: RequestHead) -> bytes:
        """Return the whole response to a request. A Range header is ignored (RFC 9110 section 14.2).

        :raises MethodNotAllowed: if the method is neither GET nor HEAD.
        :raises BadRequest: if the request has a body.
        """
        _check(head)
        head_only = head.method == "HEAD"
        if not self._is_expected(head):
            return http_response(412, b"the file has changed\n", head_only=head_only)
        if self._is_known(head):
            return self._unchanged
        return self._head if head_only else self._whole

    def _is_expected(self, head: RequestHead) -> bool:
        """Whether If-Match and If-Unmodified-Since hold (RFC 9110 sections 13.1.1 and 13.1.4)."""
        if head.values("if-match"):
            return not {"*", self._etag}.isdisjoint(head.tokens("if-match"))
        since = _time(head.values("if-unmodified-since"))
        return since is None or self._modified <= since

    def _is_known(self, head: RequestHead) -> bool:
        """Whether the client already has this version (RFC 9110 sections 13.1.2 and 13.1.3)."""
        if head.values("if-none-match"):
            tags = {tag.removeprefix("W/") for tag in head.tokens("if-none-match")}
            return not {"*", self._etag}.isdisjoint(tags)
        since = _time(head.values("if-modified-since"))
        return since is not None and self._modified <= since


class Redirect:
    """Redirects every client to one path, which is fixed at the start. Immutable.

    :param location: a relative reference.
    """

    def __init__(self, location: str) -> None:
        self._location = location

    def answer(self, head: RequestHead) -> bytes:
        """Return the 307 response; raises as :meth:`Representation.answer` does."""
        _check(head)
        return http_response(307, b"", headers=[("Location", self._location)])


def _check(head: RequestHead) -> None:
    if head.method not in _METHODS:
        raise MethodNotAllowed(", ".join(_METHODS))
    head.refuse_body()


def _time(values: Sequence[str]) -> float | None:
    """Return the UNIX time in a header; None if it has no valid date, which counts as no header."""
    if len(values) != 1:
        return None
    try:
        return parsedate_to_datetime(values[0]).timestamp()
    except (ValueError, OverflowError):
        return None
