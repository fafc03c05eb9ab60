"""What does not hold through a WSGI server, and why. Whoever adds a line explains it to users."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DIFFERENCES"]

_NO_DEADLINE = (
    "The server sets no limit on the time that a request may take, so a client that is slow or silent gets "
    "no answer. A reverse proxy in front of the server can set such a limit."
)
_STOP = (
    "Until a request has come, the connection belongs to the server. It ends with the server, and not with "
    "the application."
)
_HEAD_SIZE = "The server decides how large a request head may be."
_OWN_WORDS = "The server itself refuses the request, with its own text, or closes the connection."
_TAKEN = (
    "The server accepts the request, or drops the faulty part. So the application sees a request without "
    "a fault."
)
_JOINED = (
    "The server joins header lines of the same name. So the application cannot tell a list from several "
    "lines, which are malformed."
)
_TLS_END = (
    "The server ends TLS without a close_notify. If a client does so, the server treats that as an error. "
    "The connection of a console does end by a close_notify."
)

_MALFORMED_HEADERS = ("X : y", "no colon", "X: a\x00b", "X: a\rb", "X: a\nY: b", "\xc4: y")


def _heads(test: str, values: Iterable[str], name: str = "new") -> tuple[str, ...]:
    """Return the sub-tests of :class:`tests.behaviour.test_refusals.HostileHeads` for some values."""
    return tuple(f"HostileHeads.{test}[{name}={value!r}]" for value in values)


_BOTH: dict[str, tuple[str, ...]] = {
    _NO_DEADLINE: (
        "ByHTTPOnly.test_slow_head",
        "ByHTTPOnly.test_silent_client",
        *_heads("test_other_protocols", ("TLS", "a byte"), "what"),
    ),
    _STOP: ("Stop.test_stop_during_the_request",),
    _HEAD_SIZE: ("ByHTTPOnly.test_large_head", "ByHTTPOnly.test_head_of_the_largest_size"),
    _JOINED: ("ByHTTPOnly.test_version[version='13, 12']",),
}
_WERKZEUG = {
    _TAKEN: (
        *_heads("test_headers", _MALFORMED_HEADERS),
        *_heads("test_request_line", ("GET  / HTTP/1.1", "GET http://other/TOKEN/vm HTTP/1.1")),
    ),
    _OWN_WORDS: (
        *_heads("test_request_line", ("GET /TOKEN/v m HTTP/1.1", "GET /TOKEN/vm HTTP/2.0", "")),
        *_heads("test_other_protocols", ("HTTP/2", "nothing", "RFB", "SSH"), "what"),
    ),
}
_GUNICORN_TLS = {
    _OWN_WORDS: (
        *_heads("test_headers", (*_MALFORMED_HEADERS, " folded: y", "Host: proxy\r\nHost: other")),
        *_heads(
            "test_body",
            (
                "Content-Length: 0\r\nContent-Length: 5",
                "Content-Length: -1",
                "Content-Length: x",
                "Transfer-Encoding: identity",
            ),
            "line",
        ),
        *_heads(
            "test_request_line",
            (
                "GET /TOKEN/vm HTTP/2.0",
                "GET /TOKEN/vm",
                "GET /TOKEN/v m HTTP/1.1",
                "GET /TOKEN/v\xe4 HTTP/1.1",
                "GET /TOKEN/vm\x00 HTTP/1.1",
                "GET * HTTP/1.1",
                "GET proxy:80 HTTP/1.1",
                "GET  / HTTP/1.1",
                "",
            ),
        ),
        *_heads("test_other_protocols", ("HTTP/2", "nothing", "RFB", "SSH"), "what"),
    ),
    _TLS_END: ("Endpoints.test_end", "HostileHeads.test_client_that_leaves"),
}


def _by_test(*differences: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {test: reason for part in differences for reason, tests in part.items() for test in tests}


DIFFERENCES: dict[str, dict[str, str]] = {
    "werkzeug": _by_test(_BOTH, _WERKZEUG),
    "gunicorn gthread, TLS": _by_test(_BOTH, _GUNICORN_TLS),
}
"""By front and test (``Class.test``, or ``Class.test[sub-test]``) the reason, which users are told."""
