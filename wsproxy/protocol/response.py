"""HTTP responses as bytes (RFC 9112). No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus

from ..exceptions import Refused

__all__ = ["http_response", "refusal_response"]


def http_response(
    status: int,
    body: bytes,
    *,
    content_type: str = "text/plain; charset=utf-8",
    cache_control: str = "no-store",
    headers: Sequence[tuple[str, str]] = (),
    head_only: bool = False,
) -> bytes:
    """Return a whole HTTP/1.1 response that closes the connection.

    :param cache_control: who may keep it.
    :param head_only: leave the body out, as the answer to HEAD.
    """
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    fields = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", cache_control),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),  # the path may hold a token
        ("Connection", "close"),
        *headers,
    ]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (b"" if head_only else body)


def refusal_response(refused: Refused, *, status: int | None = None, head_only: bool = False) -> bytes:
    """Return the HTTP response that refuses a request, with the reason as JSON.

    :param status: of the response, where that is not the refusal's own.
    """
    body = {
        "status": refused.status,
        "code": refused.close_code,
        "reason": refused.slug,
        "message": refused.message,
    }
    return http_response(
        status or refused.status,
        json.dumps(body).encode() + b"\n",
        content_type="application/json",
        headers=refused.headers,
        head_only=head_only,
    )
