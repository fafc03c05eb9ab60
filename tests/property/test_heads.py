"""Request heads: what is written is read, however it is cut, and what is doubtful is refused."""

from __future__ import annotations

import string
import unittest
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from wsproxy.exceptions import Refused
from wsproxy.protocol.request import MAX_HEAD_SIZE, HeadReader, RequestHead

from .profile import few, many

_TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
_REWRITTEN = {"host", "content-length", "transfer-encoding"}  # by h11, or checked by it
_NAMES = st.text(_TOKEN, min_size=1, max_size=20).filter(lambda name: name.lower() not in _REWRITTEN)
_VALUES = st.text(string.printable[:94] + " \t\x80\xff", max_size=40).map(lambda value: value.strip(" \t"))
_FIELDS = st.lists(st.tuples(_NAMES, _VALUES), max_size=8)
_TARGETS = st.text(string.printable[:94], min_size=1, max_size=40)
_METHODS = st.text(string.ascii_letters, min_size=1, max_size=8)


def written(method: str, target: str, fields: Sequence[tuple[str, str]]) -> bytes:
    """Return a request head."""
    lines = [f"{method} {target} HTTP/1.1", "Host: proxy", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Return the data in pieces."""
    ends = [*sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=True)]


def read(pieces: Sequence[bytes]) -> tuple[RequestHead | None, bytes] | None:
    """Return the head, None if it is incomplete, and what stands behind it; None if it is refused."""
    reader = HeadReader()
    for index, piece in enumerate(pieces):
        try:
            head = reader.feed(piece)
        except Refused:
            return None
        if head:
            return head, reader.rest + b"".join(pieces[index + 1 :])
    return None, b""


class HeadsTest(unittest.TestCase):
    @many
    @given(_METHODS, _TARGETS, _FIELDS, st.binary(max_size=30), st.lists(st.integers(0, 2000), max_size=10))
    def test_read_as_written(
        self, method: str, target: str, fields: list[tuple[str, str]], rest: bytes, places: list[int]
    ) -> None:
        """A well-formed head is read as it was written, and what follows it is not touched."""
        data = written(method, target, fields)
        result = read(cut(data + rest, places))
        assert result is not None
        head, behind = result
        assert head is not None
        self.assertEqual((head.method, head.target, head.http_version), (method, target, "1.1"))
        expected = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
        self.assertEqual(head.headers, [(b"host", b"proxy"), *expected])
        self.assertEqual(behind, rest)

    @many
    @given(_FIELDS, st.data(), st.lists(st.integers(0, 2000), max_size=10))
    def test_cuts(self, fields: list[tuple[str, str]], data: st.DataObject, places: list[int]) -> None:
        """Whether a damaged head is accepted does not depend on its cuts, nor how it is read."""
        damaged = bytearray(written("GET", "/x/vm", fields))
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.integers(0, len(damaged)))
            damaged[place : place + data.draw(st.integers(0, 2))] = data.draw(
                st.binary(max_size=2) | st.sampled_from((b"\r", b"\n", b"\r\n ", b"\0", b": ", b" :"))
            )
        results = [read([bytes(damaged)]), read(cut(bytes(damaged), places))]
        whole, pieces = (result and (result[0] and vars(result[0]), result[1]) for result in results)
        self.assertEqual(pieces, whole)

    @few
    @given(_NAMES, st.sampled_from(("\r\n b", "\r\n\tb", "\nX: b", "\rX: b", "\0")), _FIELDS)
    def test_one_line_is_one_header(self, name: str, breach: str, fields: list[tuple[str, str]]) -> None:
        """No header goes on in another line, and no line ends but with CR LF."""
        self.assertIsNone(read([written("GET", "/x/vm", [(name, f"a{breach}"), *fields])]))

    @few
    @given(st.integers(MAX_HEAD_SIZE - 3, MAX_HEAD_SIZE + 3), st.lists(st.integers(0, 20000), max_size=10))
    def test_size(self, size: int, places: list[int]) -> None:
        """A head is read up to the largest size, and refused above it."""
        empty = len(written("GET", "/x/vm", [("X", "")]))
        data = written("GET", "/x/vm", [("X", "x" * (size - empty))])
        self.assertEqual(len(data), size)
        self.assertEqual(read(cut(data, places)) is not None, size <= MAX_HEAD_SIZE)
