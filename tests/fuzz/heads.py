"""Target: the reader of request heads and the checks of the opening handshake."""

from __future__ import annotations

import base64
import hashlib
import random
from urllib.parse import urlsplit

from tests.support.frame_streams import bytewise, random_cuts
from wsproxy.exceptions import Refused
from wsproxy.protocol.handshake import Upgrade, upgrade_of
from wsproxy.protocol.request import MAX_HEAD_SIZE, HeadReader, RequestHead

from .texts import assert_own_text

__all__ = ["check"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


def check(data: bytes) -> None:
    """Read ``data`` as a request, whole and in pieces, and judge it if it is one."""
    head, size = _read([data])
    dice = random.Random(data)
    cuts = [random_cuts(data, dice)]
    if len(data) <= 2000:
        cuts.append(bytewise(data))
    for pieces in cuts:
        again, again_size = _read(pieces)
        assert again_size == size, "the cuts decide about the end of the head"
        assert _parts(again) == _parts(head), "the cuts decide about the head"
    if head is None:
        return
    _check_lines(head, data[:size])
    _check_again(head)
    try:
        if head.asks_for_websocket:
            _check_upgrade(head, Upgrade(head))
        else:
            head.refuse_body()
            assert not head.values("transfer-encoding") and set(head.values("content-length")) <= {"0"}
    except Refused as refused:
        assert_own_text(refused)


def _read(pieces: list[bytes]) -> tuple[RequestHead | None, int]:
    """Return the head and its size; None and 0 if it is incomplete, None and -1 if it was refused."""
    reader, received = HeadReader(), 0
    try:
        for piece in pieces:
            received += len(piece)
            if head := reader.feed(piece):
                if head.fault:
                    _check_skimmed(head)
                    return None, -1
                return head, received - len(reader.rest)
            assert received <= MAX_HEAD_SIZE or reader.fault
    except Refused as refused:
        assert_own_text(refused)
        return None, -1
    return None, -1 if reader.fault else 0


def _check_skimmed(head: RequestHead) -> None:
    """Of a head that is too large there is nothing but what a browser can be told by."""
    assert head.fault and {name for name, _ in head.headers} <= _SKIMMED
    assert sum(len(name) + len(value) for name, value in head.headers) <= MAX_HEAD_SIZE
    if upgrade := upgrade_of(head):
        _check_upgrade(head, upgrade)


def _parts(head: RequestHead | None) -> object:
    return head and (head.method, head.target, head.http_version, head.headers)


def _check_lines(head: RequestHead, raw: bytes) -> None:
    """Each line is what a reader sees who knows nothing but the grammar: RFC 9112 sections 3 and 5."""
    assert len(raw) <= MAX_HEAD_SIZE and raw.index(b"\r\n\r\n") == len(raw) - 4
    request, *lines = raw[:-4].split(b"\r\n")
    method, target, version = request.decode().split(" ")
    assert (method, version) == (head.method, f"HTTP/{head.http_version}"), "the request line was changed"
    assert target == head.target or _is_own(target, head), "the target was changed"
    assert head.method.isalnum() or set(head.method) <= set("!#$%&'*+-.^_`|~") | set(_ALPHANUMERIC)
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        assert colon and name.strip() == name, "a line is not one header"
        fields.append((name.lower(), value.strip(b" \t")))
    assert _others(head.headers) == _others(fields), "a header was changed"
    assert {name for name, _ in head.headers} == {name for name, _ in fields}
    assert not any(byte in value for _, value in fields for byte in b"\r\n\0")


def _is_own(target: str, head: RequestHead) -> bool:
    """Whether a target is an absolute form of a head's, of the very host that it names."""
    parts, (host,) = urlsplit(target), head.values("host")
    with_port = {"http": ":80", "https": ":443"}[parts.scheme.lower()]
    hosts = {name.lower().removesuffix(with_port) for name in (parts.netloc, host)}
    rest = target.partition("://")[2][len(parts.netloc) :]
    return len(hosts) == 1 and head.target in (rest, f"/{rest}")


def _others(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Leave out what h11 rewrites: equal lengths become one, a coding is lower case. Both mean a refusal."""
    return [field for field in fields if field[0] not in (b"content-length", b"transfer-encoding")]


_SKIMMED = {
    b"host",
    b"connection",
    b"upgrade",
    b"origin",
    b"content-length",
    b"transfer-encoding",
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"sec-websocket-protocol",
}
_ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def _check_again(head: RequestHead) -> None:
    """A head that is written out again means the same."""
    lines = [f"{head.method} {head.target} HTTP/{head.http_version}".encode()]
    lines += [name + b": " + value for name, value in head.headers]
    raw = b"\r\n".join([*lines, b"", b""])
    if len(raw) <= MAX_HEAD_SIZE:  # it may have grown by spaces
        again, size = _read([raw + b"behind it"])
        assert size == len(raw) and _parts(again) == _parts(head)


def _check_upgrade(head: RequestHead, upgrade: Upgrade) -> None:
    assert (head.method, head.http_version) == ("GET", "1.1")
    for name in ("host", "upgrade", "sec-websocket-key", "sec-websocket-version"):
        assert len(head.values(name)) == 1, f"{name} is not there once"
    assert len(head.values("origin")) <= 1
    assert not head.values("transfer-encoding") and set(head.values("content-length")) <= {"0"}
    assert head.values("upgrade")[0].lower() == "websocket"
    key = head.values("sec-websocket-key")[0].encode()
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    answer = upgrade.accept(upgrade.subprotocols[-1] if upgrade.subprotocols else None)
    status, *lines = answer[:-4].split(b"\r\n")
    assert answer.endswith(b"\r\n\r\n") and status.startswith(b"HTTP/1.1 101 ")
    fields = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
    assert fields.pop(b"sec-websocket-accept") == accept
    chosen = fields.pop(b"sec-websocket-protocol", None)
    assert chosen == (upgrade.subprotocols[-1].encode() if upgrade.subprotocols else None)
    assert {name: value.lower() for name, value in fields.items()} == {
        b"upgrade": b"websocket",
        b"connection": b"upgrade",
    }
