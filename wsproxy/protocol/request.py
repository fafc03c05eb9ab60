"""The head of an HTTP request (RFC 9112): read with a bound, and parsed strictly. No I/O."""

from __future__ import annotations

import re

import h11

from ..exceptions import BadRequest, ContentTooLarge, HeadTooLarge, LengthRequired

__all__ = ["MAX_HEAD_SIZE", "OWS", "HeadReader", "RequestHead"]

MAX_HEAD_SIZE = 16 * 1024
"""Bytes of a request head; what h11 and many servers take."""

OWS = " \t"
"""Optional whitespace (RFC 9110 section 5.6.3): what ``strip`` takes off by itself is more."""

_MAX_LINES = 100  # as Apache has it; a line costs far more than its bytes
_MOST_ELEMENTS = 100  # of a list in a header, each of which costs more than its bytes, too
_END_OF_HEAD = b"\r\n\r\n"


class RequestHead:
    """A parsed request head.

    :ivar method: as sent.
    :ivar target: the request target; holds a token, so it must never be logged or quoted.
    :ivar http_version: such as "1.1".
    :ivar headers: names in lower case, and values; as many of a name as there were lines of it.
    """

    def __init__(
        self, method: str, target: str, http_version: str, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.method = method
        self.target = target
        self.http_version = http_version
        self.headers = headers
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
            raise BadRequest(f"the {name} header has more than {_MOST_ELEMENTS} elements")
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

    :ivar rest: the bytes behind the head, once it is complete: WebSocket data already.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self.rest = b""

    def feed(self, data: bytes) -> RequestHead | None:
        """Take received bytes and return the head as soon as it is complete.

        :raises HeadTooLarge: if the head is larger than :data:`MAX_HEAD_SIZE`, or has too many lines.
        :raises BadRequest: if it is not HTTP.
        """
        searched = max(0, len(self._data) - len(_END_OF_HEAD))
        self._data += data
        if self._data and not 0x41 <= self._data[0] <= 0x7A:
            # Methods begin with a letter. Said at once, because a TLS client waits for an answer.
            raise BadRequest("this is not HTTP; is the client using https or wss on a port without TLS?")
        end = self._data.find(_END_OF_HEAD, searched)
        if max(end + len(_END_OF_HEAD), 0 if end >= 0 else len(self._data)) > MAX_HEAD_SIZE:
            raise HeadTooLarge(f"the request head is larger than {MAX_HEAD_SIZE} bytes")
        if self._has_bare_lf(searched, end if end >= 0 else len(self._data)):
            raise BadRequest("lines of the request head must end with CR LF")
        if end < 0:
            return None
        if self._data.count(b"\r\n", 0, end) > _MAX_LINES:
            raise HeadTooLarge(f"the request head has more than {_MAX_LINES} header lines")
        head = bytes(self._data[: end + len(_END_OF_HEAD)])
        self.rest = bytes(self._data[len(head) :])
        return self._parse(head)

    def _has_bare_lf(self, start: int, stop: int) -> bool:
        ends = self._data.count(b"\r\n", max(0, start - 1), stop)
        return self._data.count(b"\n", start, stop) != ends

    @staticmethod
    def _parse(head: bytes) -> RequestHead:
        if b"\r\n " in head or b"\r\n\t" in head:
            # h11 joins them, others see another header: RFC 9112 section 5.2 lets it be refused.
            raise BadRequest("a header must not go on in the next line")
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_SIZE)
        try:
            connection.receive_data(head)
            event = connection.next_event()
        except h11.RemoteProtocolError:
            raise BadRequest("the request head is malformed") from None  # h11's text quotes it
        if not isinstance(event, h11.Request):
            raise BadRequest("the request head is malformed")
        return RequestHead(
            event.method.decode("ascii"),
            event.target.decode("ascii"),
            event.http_version.decode("ascii"),
            [(name.lower(), value) for name, value in event.headers.raw_items()],
        )
