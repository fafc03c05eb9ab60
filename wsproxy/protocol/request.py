"""The head of an HTTP request (RFC 9112): read with a bound, and parsed strictly. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence

import h11

from ..exceptions import BadRequest, ContentTooLarge, HeadTooLarge, LengthRequired, Refused
from .origin import Origin

__all__ = ["MAX_HEAD_SIZE", "OWS", "HeadReader", "RequestHead", "origin_form"]

MAX_HEAD_SIZE = 16 * 1024
"""Bytes of a request head, if nothing else is said; what h11 and many servers take."""

OWS = " \t"
"""Optional whitespace (RFC 9110 section 5.6.3): what ``strip`` takes off by itself is more."""

_MAX_LINES = 100  # as Apache has it; a line costs far more than its bytes
_MOST_ELEMENTS = 100  # of a list in a header, each of which costs more than its bytes, too
_ABSOLUTE_FORM = re.compile(r"(https?)://([^/?#]+)((?:[/?][^#]*)?)", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"
_MOST_SKIMMED = 256 * 1024  # bytes of a head that is too large
# What a browser is told by that its head is too large.
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
    """Return the path and query of a target that names our own host; any other target as it is.

    :param hosts: the values of the Host headers, which have to name the same one (RFC 9112 section 3.2.2).
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
    :ivar target: the request target, in origin form if it names our own host; holds a token, so it must never
        be logged or quoted.
    :ivar http_version: such as "1.1".
    :ivar headers: names in lower case, and values; as many of a name as there were lines of it.
    :ivar fault: why it is refused, whatever it asks for; it has only what a refusal is made by then.
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
        """Return the values of all header lines of that lower-case name."""
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
        """Whether this is an upgrade request; any other ``Upgrade`` is ignored (RFC 9110 section 7.8).

        :raises BadRequest: as :meth:`tokens`.
        """
        return "websocket" in (token.lower() for token in self.tokens("upgrade"))

    @property
    def origin(self) -> str | None:
        """The Origin header, None for a client that is no browser.

        :raises BadRequest: if there is more than one.
        """
        values = self.values("origin")
        if len(values) > 1:
            raise BadRequest("more than one Origin header")
        return values[0] if values else None

    def body_size(self, most: int) -> int:
        """Return how many bytes of body follow the head, 1 to ``most``.

        :raises LengthRequired: if the request does not say (RFC 9110 section 15.5.12).
        :raises ContentTooLarge: if there are more.
        :raises BadRequest: if it says it in two ways (RFC 9112 section 6.3), or there is no body.
        """
        lengths, chunked = self.values("content-length"), self.values("transfer-encoding")
        if len(lengths) > 1 or (lengths and (chunked or not re.fullmatch("[0-9]+", lengths[0]))):
            raise BadRequest("the length of the body is ambiguous")
        if not lengths:
            raise LengthRequired("a Content-Length is needed here")
        digits = lengths[0].lstrip("0")
        if len(digits) > len(str(most)) or int(digits or 0) > most:
            raise ContentTooLarge(f"the body is larger than {most} bytes")
        if not digits:
            raise BadRequest("a body is needed here")
        return int(digits)

    def refuse_body(self) -> None:
        """Refuse a request that has a body.

        :raises BadRequest: if it has.
        """
        if self.values("transfer-encoding") or any(
            v.strip(OWS) != "0" for v in self.values("content-length")
        ):
            raise BadRequest("a request here has no body")


class HeadReader:
    """Collects bytes until the request head is complete.

    A browser that sends too much does so because of its cookies, and its page cannot see the status of the
    answer. So its upgrade request is received to the end, and skimmed for what it can be told by.

    :param most: bytes of a head.
    :ivar rest: the bytes behind the head, once it is complete: WebSocket data already.
    """

    def __init__(self, most: int = MAX_HEAD_SIZE) -> None:
        self._most = most
        self._data = bytearray()
        self._skimmer: _Skimmer | None = None
        self.rest = b""

    def feed(self, data: bytes) -> RequestHead | None:
        """Take received bytes and return the head as soon as it is complete.

        :returns: one with a ``fault`` if it is a browser's upgrade request, and too large.
        :raises HeadTooLarge: if another one is too large, or has too many lines.
        :raises BadRequest: if it is not HTTP.
        """
        if self._skimmer:
            return self._skimmer.feed(data)
        searched = max(0, len(self._data) - len(_END_OF_HEAD))
        self._data += data
        if self._data and not 0x41 <= self._data[0] <= 0x7A:
            # Methods begin with a letter. Said at once, because a TLS client waits for an answer.
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
        """Why what has come is refused, though its end has not."""
        return self._skimmer.fault if self._skimmer else None

    def _skim(self, fault: str) -> RequestHead | None:
        """Go on with a head that is too large; see :meth:`feed`."""
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
    """Takes out of a head that is too large what a browser is told by. It holds as much as a head may have.

    :param fault: what to say.
    :param most: bytes of a head.
    """

    def __init__(self, fault: HeadTooLarge, most: int) -> None:
        self.fault = fault
        self._most = most
        self._size = 0
        self._kept = bytearray()
        self._line = b""  # which has not ended yet

    def feed(self, data: bytes) -> RequestHead | None:
        """Take received bytes; return what there is of the head once that has ended.

        :raises HeadTooLarge: if that is too large itself, or does not end.
        :raises BadRequest: if that is not HTTP.
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
            rest = rest[: _LONGEST_NAME + 1] + rest[-1:]  # which may be half of its end
        self._line = rest
        if self._size > _MOST_SKIMMED or len(self._kept) + len(rest) > self._most:
            raise self.fault
        return None


def _is_needed(line: bytes) -> bool:
    return line.partition(b":")[0].lower() in _SKIMMED


def _parsed(head: bytes) -> RequestHead:
    if b"\r\n " in head or b"\r\n\t" in head:
        # h11 joins them, others see another header: RFC 9112 section 5.2 lets it be refused.
        raise BadRequest("a header must not go on in the next line")
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head))
    try:
        connection.receive_data(head)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        raise BadRequest("the request head is malformed") from None  # h11's text quotes it
    if not isinstance(event, h11.Request):
        raise BadRequest("the request head is malformed")
    headers = [(name.lower(), value) for name, value in event.headers.raw_items()]
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    target = origin_form(event.target.decode("ascii"), hosts)
    return RequestHead(event.method.decode("ascii"), target, event.http_version.decode("ascii"), headers)
