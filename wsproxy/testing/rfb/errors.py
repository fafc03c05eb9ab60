"""The errors of opening a console, and of an open console that ends.

::

    ConnectionError
    ├── ConsoleClosed         the connection ended; code and reason as in RFC 6455 section 7.1.5
    └── ConsoleRefused        the console was not opened
        ├── UpgradeRefused    by an HTTP status, as for clients without an Origin
        └── RFBRefused        in the RFB handshake, as for browsers
"""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["ABNORMAL", "ConsoleClosed", "ConsoleRefused", "RFBRefused", "UpgradeRefused"]

ABNORMAL = 1006
"""The code that stands for an end without a Close frame (RFC 6455 section 7.4.1); never on the wire."""


class ConsoleClosed(ConnectionError):
    """The connection ended: with a Close frame, or without one (code 1006).

    :ivar code: the close code.
    :ivar reason: the close reason. wsproxy's own reasons begin with a slug, as in ``upstream-closed: ...``.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason

    @property
    def slug(self) -> str:
        """The reason up to its first colon. Tests compare this, since the text behind it may change."""
        return self.reason.partition(":")[0]


class ConsoleRefused(ConnectionError):
    """The console was not opened. The text of the exception contains all of its attributes.

    :ivar status: the HTTP status; None if the refusal came after a 101.
    :ivar code: the close code; None if the server sent none.
    :ivar slug: the reason, as in docs/reference/refusals.md; "" if the server sent none.
    :ivar message: the reason as a sentence.
    """

    def __init__(self, *, status: int | None, code: int | None, slug: str, message: str) -> None:
        number = f"HTTP {status}" if status is not None else f"close code {code}" if code is not None else ""
        where = " ".join(word for word in (number, slug) if word)
        super().__init__(f"the console was refused{f' ({where})' if where else ''}: {message}")
        self.status = status
        self.code = code
        self.slug = slug
        self.message = message

    def add_hint(self, hint: str) -> None:
        """Append a possible explanation to the text of the exception, in parentheses."""
        self.args = (f"{self.args[0]} ({hint})",)


class UpgradeRefused(ConsoleRefused):
    """The server answered the opening handshake with a status other than 101.

    :ivar headers: the answer's headers, with names in lower case.
    :ivar body: the answer's body.
    """

    def __init__(self, status: int | None, headers: Mapping[str, str], body: bytes) -> None:
        code, slug, message = _told(body)
        super().__init__(status=status, code=code, slug=slug, message=message)
        self.headers = headers
        self.body = body


class RFBRefused(ConsoleRefused):
    """The server refused the RFB handshake, and gave a reason.

    :ivar reason: the whole text of the RFB message.
    """

    def __init__(self, reason: str, end: ConsoleClosed | None = None) -> None:
        code = end.code if end is not None and end.code != ABNORMAL else None
        slug = end.slug if end is not None and ":" in end.reason else ""
        super().__init__(status=None, code=code, slug=slug, message=reason)
        self.reason = reason


def _told(body: bytes) -> tuple[int | None, str, str]:
    """Return close code, slug and message from wsproxy's JSON. The message quotes other bodies in part."""
    try:
        told = json.loads(body)
        code, slug, message = told["code"], told["reason"], told["message"]
    except (ValueError, KeyError, TypeError):
        text = body.decode("utf-8", "replace").strip()
        return None, "", f"the answer is {text[:200]!r}" if text else "the answer gives no reason"
    return (code if isinstance(code, int) else None), str(slug), str(message)
