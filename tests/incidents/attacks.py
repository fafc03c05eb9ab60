"""Requests that a stranger may send, and how each has to end."""

from __future__ import annotations

from dataclasses import dataclass

from wsproxy.testing.rfb.raw_client import RawClient

__all__ = ["ATTACKS", "Attack"]


@dataclass(frozen=True)
class Attack:
    """One hostile request.

    :ivar name: its class and what is special about it.
    :ivar request: as sent; TOKEN stands for a token.
    :ivar status: of the answer by HTTP.
    :ivar slug: of the answer by HTTP.
    """

    name: str
    request: bytes
    status: int = 400
    slug: str = "bad-request"


_UPGRADE = RawClient.request("/TOKEN/vm")
_LAST = b"\r\n\r\n"


def _with(*lines: bytes) -> bytes:
    """Return an upgrade request that would be right, with further lines at its end."""
    return _UPGRADE[:-2] + b"\r\n".join(lines) + _LAST


def _changed(old: bytes, new: bytes) -> bytes:
    assert _UPGRADE.count(old) == 1
    return _UPGRADE.replace(old, new)


def _to(target: bytes) -> bytes:
    return _changed(b"/TOKEN/vm", target)


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
_SECOND = b"GET /api/v1/secrets HTTP/1.1\r\nHost: api\r\n\r\n"

_SMUGGLING = (
    Attack("Content-Length with a body", _with(b"Content-Length: 5") + b"hello"),
    Attack("Content-Length that hides a request", _with(b"Content-Length: %d" % len(_SECOND)) + _SECOND),
    Attack("two lengths", _with(b"Content-Length: 0", b"Content-Length: 5")),
    Attack("two lengths in one line", _with(b"Content-Length: 0, 5")),
    Attack("length with a sign", _with(b"Content-Length: +0")),
    Attack("length in another base", _with(b"Content-Length: 0x0")),
    Attack("Transfer-Encoding", _with(b"Transfer-Encoding: chunked") + b"0" + _LAST),
    Attack("Transfer-Encoding that is disguised", _with(b"Transfer-Encoding: \x0bchunked")),
    Attack("Transfer-Encoding with a space before the colon", _with(b"Transfer-Encoding : chunked")),
    Attack("Transfer-Encoding in a line that goes on", _with(b"X: y", b" Transfer-Encoding: chunked")),
    Attack("value in a line that goes on", _with(b"Transfer-Encoding:", b"\tchunked")),
    Attack("both", _with(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0" + _LAST),
    Attack("two hosts", _with(b"Host: other")),
    Attack("no host", _changed(b"Host: proxy", b"X: y")),
    Attack("line that ends with LF", _with(b"X: y\nTransfer-Encoding: chunked")),
    Attack("line that ends with CR", _with(b"X: y\rTransfer-Encoding: chunked")),
    Attack("head that ends with LF", _UPGRADE.replace(b"\r\n", b"\n")),
    Attack("NUL in a value", _with(b"X: a\0b")),
    Attack("NUL in a name", _with(b"X\0: a")),
    Attack("line without a colon", _with(b"X")),
    Attack("line without a name", _with(b": x")),
    Attack("first line that goes on", _changed(b"Host: proxy", b" Host: proxy")),
    Attack("key that is doubled", _with(b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==")),
)
_OTHER_PROTOCOLS = (
    Attack("HTTP/2", _PREFACE),
    Attack("HTTP/2 in the manner of HTTP/1", _changed(b"HTTP/1.1", b"HTTP/2.0")),
    Attack(
        "h2c",
        _with(b"HTTP2-Settings: AAMAAABkAAQAAP__").replace(b": websocket", b": h2c") + _PREFACE,
        404,
        "not-found",
    ),
    Attack("h2c beside websocket", _changed(b": websocket", b": websocket, h2c")),
    Attack("h2c in a line of its own", _with(b"Upgrade: h2c")),
    Attack("h2c named as a hop", _changed(b"Connection: Upgrade", b"Connection: HTTP2-Settings")),
    Attack("another version of WebSocket", _changed(b"13", b"8"), 426, "upgrade-required"),
    Attack("HTTP/1.0", _changed(b"HTTP/1.1", b"HTTP/1.0")),
    Attack("HTTP/0.9", b"GET /TOKEN/vm" + _LAST),
    Attack("TLS", bytes.fromhex("16030100c8010000c40303") + bytes(200)),
    Attack("SSH", b"SSH-2.0-OpenSSH_9.9" + _LAST),
    Attack("PROXY v1", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + _UPGRADE),
    Attack("PROXY v2", bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + bytes(12) + _UPGRADE),
    Attack("RFB", b"RFB 003.008\n" + _LAST),
    Attack("CONNECT", b"CONNECT api:443 HTTP/1.1\r\nHost: api" + _LAST),
    Attack(
        "CONNECT that upgrades", _changed(b"GET /TOKEN/vm", b"CONNECT api:443"), 405, "method-not-allowed"
    ),
    Attack("POST", _changed(b"GET", b"POST"), 405, "method-not-allowed"),
    Attack("TRACE", b"TRACE /healthz HTTP/1.1\r\nHost: proxy" + _LAST, 405, "method-not-allowed"),
)
_TARGETS = (
    Attack("encoded slash", _to(b"/TOKEN/vm%2f..")),
    Attack("encoded dots", _to(b"/TOKEN/%2e%2e")),
    Attack("encoded twice", _to(b"/TOKEN/%252e%252e")),
    Attack("encoded NUL", _to(b"/TOKEN/vm%00")),
    Attack("dots", _to(b"/TOKEN/../../../version")),
    Attack("dots at the end", _to(b"/TOKEN/vm/..")),
    Attack("one dot", _to(b"/TOKEN/./vm")),
    Attack("dots with backslashes", _to(b"/TOKEN/..\\vm")),
    Attack("parameter", _to(b"/TOKEN/vm;x=/..")),
    Attack("user and host for a name", _to(b"/TOKEN/vm@evil.example")),
    Attack("port for a name", _to(b"/TOKEN/vm:80")),
    Attack("another resource for a subresource", _to(b"/TOKEN/vm/portforward"), 404, "not-found"),
    Attack("path of the API", _to(b"/api/v1/namespaces/kube-system/secrets"), 404, "not-found"),
    Attack("absolute form", _to(b"http://evil.example/TOKEN/vm")),
    Attack("absolute form of a WebSocket", _to(b"ws://evil.example/TOKEN/vm")),
    Attack("authority form", _to(b"evil.example:443")),
    Attack("asterisk form", _to(b"*")),
    Attack("fragment", _to(b"/TOKEN/vm#@evil.example")),
    Attack("control byte", _to(b"/TOKEN/v\x01m")),
    Attack("not UTF-8", _to(b"/TOKEN/v\xff\xfem")),
    Attack("UTF-8", _to("/TOKEN/v\u212am".encode())),
    Attack("space", _to(b"/TOKEN/v m")),
    Attack("tab", _to(b"/TOKEN/v\tm")),
    Attack("capitals", _to(b"/TOKEN/VM")),
    Attack("very long name", _to(b"/TOKEN/" + b"a" * 254)),
)
_SIZES = (
    Attack("one long line", _with(b"X: " + b"x" * 20000), 431, "head-too-large"),
    Attack("many short lines", _with(*[b"a:b"] * 4000), 431, "head-too-large"),
    Attack("long target", _to(b"/" + b"x" * 20000), 431, "head-too-large"),
    Attack("no end", b"GET /" + b"x" * 16500, 431, "head-too-large"),
)

ATTACKS = (*_SMUGGLING, *_OTHER_PROTOCOLS, *_TARGETS, *_SIZES)
"""Whoever sends one of these is refused, even if TOKEN is a token that is good for the VMI."""
