"""Every error of the project.

::

    WSProxyError
    ├── ConfigError             settings are wrong: the proxy does not start, and lists every fault
    ├── TransportClosed         a connection ended; expected, never a bug
    ├── ProtocolViolation       a peer broke RFC 6455 on an open connection
    ├── StoreUnavailable        the store of the shared state does not answer
    └── Refused                 the proxy refuses a client; contains the answer
        ├── BadRequest          400 / 4400
        ├── BadToken            401 / 4401
        │   ├── TokenExpired    401 / 4401
        │   └── TokenNotYetValid 401 / 4401
        ├── Forbidden           403 / 4403
        ├── NotFound            404 / 4404
        ├── MethodNotAllowed    405, HTTP only
        ├── RequestTimeout      408, HTTP only
        ├── LengthRequired      411, HTTP only
        ├── ContentTooLarge     413, HTTP only
        ├── UnsupportedMediaType 415, HTTP only
        ├── UpgradeRequired     426, HTTP only
        ├── HeadTooLarge        431 / 4431
        ├── InternalError       500 / 4500
        ├── UnsupportedServer   501, HTTP only
        │   └── StateNotShared  500, HTTP only
        ├── VMINotFound         404 / 4404
        ├── ConsoleBusy         409 / 4409
        ├── VMINotRunning       409 / 4420
        ├── VMINoConsole        409 / 4421
        ├── LimitExceeded       429 / 4429
        ├── Busy                503 / 4503
        │   ├── Draining        503 / 4503
        │   └── StateUnavailable 503 / 4503
        ├── UpstreamRefused     502 / 4502
        └── UpstreamTimeout     504 / 4504

The proxy logs a ``Refused`` in one line at INFO. An exception outside this tree is a bug in wsproxy, and
the proxy logs it with its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "BadRequest",
    "BadToken",
    "Busy",
    "ConfigError",
    "ConsoleBusy",
    "ContentTooLarge",
    "Draining",
    "Forbidden",
    "HeadTooLarge",
    "InternalError",
    "LengthRequired",
    "LimitExceeded",
    "MethodNotAllowed",
    "NotFound",
    "ProtocolViolation",
    "Refused",
    "RequestTimeout",
    "StateNotShared",
    "StateUnavailable",
    "StoreUnavailable",
    "TokenExpired",
    "TokenNotYetValid",
    "TransportClosed",
    "UnsupportedMediaType",
    "UnsupportedServer",
    "UpgradeRequired",
    "UpstreamRefused",
    "UpstreamTimeout",
    "VMINoConsole",
    "VMINotFound",
    "VMINotRunning",
    "WSProxyError",
]


_MOST_TEXT = 1000


def _one_line(text: object) -> str:
    """Return a text of bounded length that cannot start a new line in a log or control a terminal."""
    # Control characters, line breaks and marks of writing direction are not printable.
    return "".join(char if char.isprintable() else " " for char in str(text)[:_MOST_TEXT])


class WSProxyError(Exception):
    """The base class of every error that this package raises on purpose."""


class ConfigError(WSProxyError, ValueError):
    """One or more settings are wrong, and nothing has been started.

    :ivar faults: one sentence for each fault. It says what is wrong and what to do.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


class TransportClosed(WSProxyError):
    """The connection ended: the peer closed or reset it, or the proxy shut it down."""


class ProtocolViolation(WSProxyError):
    """A peer broke RFC 6455 after the opening handshake.

    :ivar code: the close code of the answer: 1002 (protocol error) or 1009 (message too big).
    """

    def __init__(self, message: str, code: int = 1002) -> None:
        super().__init__(message)
        self.code = code


class StoreUnavailable(WSProxyError):
    """The store of the shared state gave no answer in time, or none that makes sense.

    What it was asked to do may have happened all the same.
    """


class Refused(WSProxyError):
    """The proxy refuses a client. Each subclass contains the answer.

    The client sees the text of the exception, so it never contains a token, a path or a credential.
    Details for the operator go into ``log_detail``. Both are one line of at most 1000 characters.
    Characters that are not printable become spaces, and longer text is cut off.

    :param message: the text; "" for ``default_message``.
    :ivar status: HTTP status (RFC 9110).
    :ivar close_code: WebSocket close code; None if the refusal exists in HTTP only.
    :ivar slug: the reason in one word. It starts the close reason, and metrics and logs count by it.
    :ivar default_message: the text if no message is given.
    :ivar headers: further HTTP response headers.
    :ivar log_detail: what the log says in addition; never sent to the client.
    """

    status: int = 400
    close_code: int | None = 4400
    slug: str = "bad-request"
    default_message: str = "the request is refused"

    def __init__(
        self, message: str = "", *, headers: Iterable[tuple[str, str]] = (), log_detail: str | None = None
    ) -> None:
        super().__init__(_one_line(message or "").strip() or self.default_message)
        self.headers = tuple(headers)
        self.log_detail = None if log_detail is None else _one_line(log_detail)

    @property
    def close_reason(self) -> str:
        """The reason in the Close frame: slug and message."""
        return f"{self.slug}: {self.message}"

    @property
    def message(self) -> str:
        """The sentence that the client sees."""
        return str(self)


class BadRequest(Refused):
    """The request is malformed, or its credentials are ambiguous."""


class NotFound(Refused):
    """There is no such route, or the path prefix is wrong."""

    status, close_code, slug = 404, 4404, "not-found"


class MethodNotAllowed(Refused):
    """The route exists, but not for this method (RFC 9110 section 15.5.6)."""

    status, close_code, slug = 405, None, "method-not-allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"only {allowed} is allowed here", headers=[("Allow", allowed)])


class RequestTimeout(Refused):
    """The request did not arrive within the request deadline (RFC 9110 section 15.5.9)."""

    status, close_code, slug = 408, None, "request-timeout"


class LengthRequired(Refused):
    """A request that needs a body has no Content-Length (RFC 9110 section 15.5.12)."""

    status, close_code, slug = 411, None, "length-required"


class ContentTooLarge(Refused):
    """The request's body is larger than the limit (RFC 9110 section 15.5.14)."""

    status, close_code, slug = 413, None, "content-too-large"


class UnsupportedMediaType(Refused):
    """The request's body has a media type that the proxy does not read (RFC 9110 section 15.5.16)."""

    status, close_code, slug = 415, None, "unsupported-media-type"


class UpgradeRequired(Refused):
    """The client wants another WebSocket version than 13 (RFC 6455 section 4.4)."""

    status, close_code, slug = 426, None, "upgrade-required"

    def __init__(self) -> None:
        headers = [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")]
        super().__init__("only WebSocket version 13 is spoken here", headers=headers)


class HeadTooLarge(Refused):
    """The request head is larger than the limit (RFC 6585 section 5)."""

    status, close_code, slug = 431, 4431, "head-too-large"


class InternalError(Refused):
    """The proxy has a bug. Its log has the details."""

    status, close_code, slug = 500, 4500, "internal-error"
    default_message = "the proxy failed; its log says why"


class UnsupportedServer(Refused):
    """The WSGI server cannot carry a WebSocket (RFC 9110 section 15.6.2)."""

    status, close_code, slug = 501, None, "unsupported-server"


class StateNotShared(UnsupportedServer):
    """Several processes serve, with settings that are true only if these share their state."""

    status, slug = 500, "state-not-shared"


class BadToken(Refused):
    """The request has no token, or its token is not valid.

    :param attempts: how many failed attempts to authenticate this refusal counts as.
    """

    status, close_code, slug = 401, 4401, "bad-token"

    def __init__(self, message: str = "", *, log_detail: str | None = None, attempts: float = 1.0) -> None:
        self.attempts = attempts
        # RFC 9110 section 11.6.1: a 401 names a scheme that the server accepts.
        super().__init__(message, headers=[("WWW-Authenticate", "Bearer")], log_detail=log_detail)


class TokenExpired(BadToken):
    """The token has expired (``exp``)."""

    slug = "token-expired"


class TokenNotYetValid(BadToken):
    """The token is not valid yet (``nbf``, ``iat``), or its issuer's clock is ahead."""

    slug = "token-not-yet-valid"


class Forbidden(Refused):
    """The token is valid, but does not allow this VMI, or the page's origin is not allowed."""

    status, close_code, slug = 403, 4403, "forbidden"
    default_message = "this is not allowed"


class VMINotFound(Refused):
    """The virtual machine instance does not exist in the Kubernetes API."""

    status, close_code, slug = 404, 4404, "vmi-not-found"


class ConsoleBusy(Refused):
    """Another client has the console and keeps it."""

    status, close_code, slug = 409, 4409, "console-busy"


class VMINotRunning(Refused):
    """The virtual machine instance exists but does not run."""

    status, close_code, slug = 409, 4420, "vmi-not-running"


class VMINoConsole(Refused):
    """The virtual machine instance has no display, or no serial console."""

    status, close_code, slug = 409, 4421, "vmi-no-console"


class LimitExceeded(Refused):
    """A limit is reached; the slug names it.

    :param limit: NAME in the slug ``limit-NAME``.
    :param retry_after: whole seconds after which the client may try again.
    """

    status, close_code = 429, 4429
    default_message = "a limit is reached"

    def __init__(self, limit: str, message: str = "", *, retry_after: int = 5) -> None:
        super().__init__(message, headers=[("Retry-After", str(retry_after))])
        self.slug = _one_line(f"limit-{limit}")


class Busy(Refused):
    """The proxy is full.

    :param retry_after: whole seconds after which the client may try again.
    """

    status, close_code, slug = 503, 4503, "busy"
    default_message = "the proxy is full"

    def __init__(self, message: str = "", *, retry_after: int = 5) -> None:
        super().__init__(message, headers=[("Retry-After", str(retry_after))])


class Draining(Busy):
    """The proxy is draining: it stops, and opens no further sessions."""

    slug = "draining"


class StateUnavailable(Busy):
    """The proxy is out of step with the store of the shared state, so it cannot decide who may come in."""

    slug = "state-unavailable"
    default_message = "the proxy cannot reach the state that it shares with others"


class UpstreamRefused(Refused):
    """The Kubernetes API did not open the console, and the client is not to blame.

    :ivar maybe_in_use: whether the reason may be that another client has the console.
    """

    status, close_code, slug = 502, 4502, "upstream-refused"
    maybe_in_use = False


class UpstreamTimeout(Refused):
    """The Kubernetes API did not answer within the dial deadline."""

    status, close_code, slug = 504, 4504, "upstream-timeout"
