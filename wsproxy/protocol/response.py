"""Builds HTTP responses as bytes (RFC 9112). No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from http import HTTPStatus

from ..exceptions import Refused

__all__ = ["http_response", "reason_phrase", "refusal_response"]


# RFC 9110 sections 5.1 and 5.5, but ASCII only.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~]*")


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

    :param cache_control: value of the Cache-Control header.
    :param head_only: whether to leave the body out, as in the answer to HEAD.
    :raises ValueError: if a header's name or value is not valid in HTTP.
    """
    lines = [f"HTTP/1.1 {status} {reason_phrase(status)}"]
    fields = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", cache_control),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),  # the path may hold a token
        ("Connection", "close"),
        *headers,
    ]
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"{name!r} with {value!r} is not a valid HTTP header")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (b"" if head_only else body)


def reason_phrase(status: int) -> str:
    """Return the reason phrase of a status; "Refused" for a status that is not registered."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def refusal_response(refused: Refused, *, status: int | None = None, head_only: bool = False) -> bytes:
    """Return the HTTP response that refuses a request, with the reason as JSON.

    :param status: status of the response; None for the refusal's own.
    :raises ValueError: if a header of the refusal is not valid in HTTP.
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
