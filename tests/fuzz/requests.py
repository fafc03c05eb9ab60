"""Request heads for targets: the program reads them, and a reader that knows nothing but the grammar."""

from __future__ import annotations

from wsproxy.exceptions import Refused
from wsproxy.protocol.request import HeadReader, RequestHead

__all__ = ["head_of", "own_fields"]


def head_of(target: bytes, lines: list[bytes]) -> RequestHead | None:
    """Return what is read of a request with these header lines; None if it is refused, or is not one head."""
    raw = b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: console.example", *lines, b"", b""])
    reader = HeadReader()
    try:
        head = reader.feed(raw)
    except Refused:
        return None
    return head if head and not reader.rest else None


def own_fields(lines: list[bytes]) -> list[tuple[str, str]]:
    """Return names, in lower case, and values, byte by byte."""
    pairs = [line.partition(b":") for line in lines]
    return [
        (name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")) for name, _, value in pairs
    ]
