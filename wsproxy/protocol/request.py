"""Reads the head of an HTTP request (RFC 9112) with a size limit, and parses it strictly. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence

import h11

from ..exceptions import BadRequest, ContentTooLarge, HeadTooLarge, LengthRequired, Refused
from .origin import Origin

__all__ = ["MAX_HEAD_SIZE", "OWS", "HeadReader", "RequestHead", "origin_form"]

MAX_HEAD_SIZE = 16 * 1024
"""Default limit on the bytes of a request head; h11 and many servers have the same."""

OWS = " \t"
"""Optional whitespace (RFC 9110 section 5.6.3); ``strip()`` without an argument would remove more."""

_MAX_LINES = 100  # as in Apache; parsing a line costs far more than its bytes
_MOST_ELEMENTS = 100  # of a list in a header; parsing each costs more than its bytes, too
_ABSOLUTE_FORM = re.compile(r"(https?)://([^/?#]+)((?:[/?][^#]*)?)", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"
_MOST_SKIMMED = 256 * 1024  # bytes of a head that is too large
# The headers that the proxy needs to tell a browser that its head is too large.
_SKIMMED = (
    b"host",
    b"connection",
    b"upgrade",
    b"origin",
    b"content-length",
    b"transfer-encoding",
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"sec-websocket-protocol",
)
_LONGEST_NAME = max(map(len, _SKIMMED))


def origin_form(target: str, hosts: Sequence[str]) -> str:
    """Return the path and query of a target that names the Host header's host; any other target unchanged.

    :param hosts: the values of all Host headers. Only one Host header is valid (RFC 9112 section 3.2.2).
    """
    match = _ABSOLUTE_FORM.fullmatch(target)
    if match is None or len(hosts) != 1:
        return target
    scheme, authority, path = match.groups(default="")
    asked = Origin.parse(f"{scheme}://{authority}")
    if asked is None or asked != Origin.parse(f"{scheme}://{hosts[0]}"):
        return target
    return path if path.startswith("/") else f"/{path}"


class RequestHead:
    """A parsed request head.

    :ivar method: as sent.
    :ivar target: the request target, in origin form if it names the host of the Host header. It may hold a
        token, so no code may log or quote it.
    :ivar http_version: such as "1.1".
    :ivar headers: pairs of lower-case name and value, one for each header line.
    :ivar fault: if set, the proxy refuses the request with this error. The head then has only the headers
        that a refusal needs.
    """

    def __init__(
        self, method: str, target: str, http_version: str, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.method = method
        self.target = target
        self.http_version = http_version
        self.headers = headers
        self.fault: Refused | None = None
        self._values: dict[str, list[str]] = {}
        for name, value in headers:
            self._values.setdefault(name.decode("ascii"), []).append(value.decode("latin-1"))

    def values(self, name: str) -> list[str]:
        """Return the values of all header lines with this lower-case name."""
        return self._values.get(name, [])

    def tokens(self, name: str) -> list[str]:
        """Return the elements of a comma-separated header (RFC 9110 section 5.6.1).

        :raises BadRequest: if there are more than 100.
        """
        whole = ",".join(self.values(name))
        if whole.count(",") >= _MOST_ELEMENTS:
            raise BadRequest(f"a header that is a list has more than {_MOST_ELEMENTS} elements")
        return [stripped for part in whole.split(",") if (stripped := part.strip(OWS))]

    @property
    def asks_for_websocket(self) -> bool:
        """Whether this is an upgrade request. An ``Upgrade`` to another protocol is not (RFC 9110, 7.8).

        :raises BadRequest: as :meth:`tokens`.
        """
        return "websocket" in (token.lower() for token in self.tokens("upgrade"))

    @property
    def origin(self) -> str | None:
        """The Origin header; None without one, as from clients that are not browsers.

        :raises BadRequest: if there is more than one.
        """
        values = self.values("origin")
        if len(values) > 1:
            raise BadRequest("more than one Origin header")
        return values[0] if values else None

    def body_size(self, most: int) -> int:
        """Return the size of the body in bytes, 1 to ``most``.

        :raises LengthRequired: if the request has no Content-Length (RFC 9110 section 15.5.12).
        :raises ContentTooLarge: if the body is larger than ``most``.
        :raises BadRequest: if the length is ambiguous (RFC 9112 section 6.3) or malformed, or the body empty.
        """
        lengths, chunked = self.values("content-length"), self.values("transfer-encoding")
        if len(lengths) > 1 or (lengths and (chunked or not re.fullmatch("[0-9]+", lengths[0]))):
            raise BadRequest("the length of the body is ambiguous")
        if not lengths:
            raise LengthRequired("this request needs a Content-Length header")
        digits = lengths[0].lstrip("0")
        if len(digits) > len(str(most)) or int(digits or 0) > most:
            raise ContentTooLarge(f"the body is larger than {most} bytes")
        if not digits:
            raise BadRequest("this request needs a body")
        return int(digits)

    def refuse_body(self) -> None:
        """Refuse a request with a body.

        :raises BadRequest: if the request has one.
        """
        if self.values("transfer-encoding") or any(
            v.strip(OWS) != "0" for v in self.values("content-length")
        ):
            raise BadRequest("this request must not have a body")


class HeadReader:
    """Collects bytes until the request head is complete.

    A browser's head is usually too large because of cookies, and its page cannot see the HTTP status of a
    refused upgrade. So the reader receives an oversized upgrade request to its end. It keeps only the headers
    that the proxy needs to complete the handshake and refuse by a Close.

    :param most: limit on the bytes of a head.
    :ivar rest: once the head is complete, the bytes behind it, such as the first WebSocket frames.
    """

    def __init__(self, most: int = MAX_HEAD_SIZE) -> None:
        self._most = most
        self._data = bytearray()
        self._skimmer: _Skimmer | None = None
        self.rest = b""

    def feed(self, data: bytes) -> RequestHead | None:
        """Take received bytes and return the head as soon as it is complete.

        :returns: a head with a ``fault`` if a head with an Origin is too large, or has too many lines.
        :raises HeadTooLarge: if another head is too large, or has too many lines.
        :raises BadRequest: if the bytes are not HTTP, or not strictly so.
        """
        if self._skimmer:
            return self._skimmer.feed(data)
        searched = max(0, len(self._data) - len(_END_OF_HEAD))
        self._data += data
        if self._data and not 0x41 <= self._data[0] <= 0x7A:
            # Methods begin with a letter. Refuse at once, because a TLS client waits for an answer.
            raise BadRequest("this is not HTTP; is the client using https or wss on a port without TLS?")
        end = self._data.find(_END_OF_HEAD, searched)
        if max(end + len(_END_OF_HEAD), 0 if end >= 0 else len(self._data)) > self._most:
            return self._skim(
                f"the request head is larger than {self._most} bytes; "
                "there may be too many cookies for this host"
            )
        if self._has_bare_lf(searched, end if end >= 0 else len(self._data)):
            raise BadRequest("lines of the request head must end with CR LF")
        if end < 0:
            return None
        if self._data.count(b"\r\n", 0, end) > _MAX_LINES:
            return self._skim(f"the request head has more than {_MAX_LINES} header lines")
        head = bytes(self._data[: end + len(_END_OF_HEAD)])
        self.rest = bytes(self._data[len(head) :])
        return _parsed(head)

    @property
    def fault(self) -> HeadTooLarge | None:
        """Why the proxy refuses the head, which has not ended yet; None if it does not."""
        return self._skimmer.fault if self._skimmer else None

    def _skim(self, fault: str) -> RequestHead | None:
        """Continue with a head that is too large; see :meth:`feed`."""
        too_large = HeadTooLarge(fault)
        if b"\norigin:" not in self._data[: self._most].lower():
            raise too_large
        self._skimmer = _Skimmer(too_large, self._most)
        data, self._data = bytes(self._data), bytearray()
        return self._skimmer.feed(data)

    def _has_bare_lf(self, start: int, stop: int) -> bool:
        ends = self._data.count(b"\r\n", max(0, start - 1), stop)
        return self._data.count(b"\n", start, stop) != ends


class _Skimmer:
    """Extracts from an oversized head what a refusal needs. It never holds more bytes than a head may have.

    :param fault: the error that the head gets.
    :param most: limit on the bytes that it keeps.
    """

    def __init__(self, fault: HeadTooLarge, most: int) -> None:
        self.fault = fault
        self._most = most
        self._size = 0
        self._kept = bytearray()
        self._line = b""  # the last line, which has not ended yet

    def feed(self, data: bytes) -> RequestHead | None:
        """Take received bytes; when the head has ended, return it with the headers that were kept.

        :raises HeadTooLarge: if the kept headers are too large, or the head does not end.
        :raises BadRequest: if the kept part is not HTTP.
        """
        self._size += len(data)
        *lines, rest = (self._line + data).split(b"\r\n")
        for line in lines:
            if not line:
                head = _parsed(bytes(self._kept) + b"\r\n")
                head.fault = self.fault
                return head
            if not self._kept or _is_needed(line):
                self._kept += line + b"\r\n"
        if self._kept and len(rest) > _LONGEST_NAME and not _is_needed(rest):
            rest = rest[: _LONGEST_NAME + 1] + rest[-1:]  # the last byte may be the CR of its CR LF
        self._line = rest
        if self._size > _MOST_SKIMMED or len(self._kept) + len(rest) > self._most:
            raise self.fault
        return None


def _is_needed(line: bytes) -> bool:
    return line.partition(b":")[0].lower() in _SKIMMED


def _parsed(head: bytes) -> RequestHead:
    if b"\r\n " in head or b"\r\n\t" in head:
        # h11 joins the lines, other parsers see another header. RFC 9112 section 5.2 permits a refusal.
        raise BadRequest("a header must not continue on the next line")
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head))
    try:
        connection.receive_data(head)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        raise BadRequest("the request head is malformed") from None  # h11's text quotes the head
    if not isinstance(event, h11.Request):
        raise BadRequest("the request head is malformed")
    headers = [(name.lower(), value) for name, value in event.headers.raw_items()]
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    target = origin_form(event.target.decode("ascii"), hosts)
    return RequestHead(event.method.decode("ascii"), target, event.http_version.decode("ascii"), headers)
