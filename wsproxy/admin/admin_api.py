"""What the operator's listener answers."""

from __future__ import annotations

from collections.abc import Callable

from ..exceptions import ConfigError
from ..protocol.handshake import http_response
from ..runtime.logs import get_logger
from ..telemetry.counters import Numbers
from ..telemetry.metrics import check_metrics, exposition
from .server import AdminEndpoint, AdminRequest, Reply

__all__ = ["Gather", "admin_endpoints"]

logger = get_logger("wsproxy.admin")

Gather = Callable[[Callable[[Numbers], None]], None]
"""Has a function called with the numbers of the whole proxy, now or later, in the same thread."""


def admin_endpoints(gather: Gather) -> dict[str, AdminEndpoint]:
    """Return what answers, by path.

    :param gather: where the numbers come from.
    """
    try:
        check_metrics()
    except ConfigError as exc:
        logger.warning("%s", exc)

    def metrics(request: AdminRequest, reply: Reply) -> None:
        accept = ", ".join(request.head.values("accept"))
        gather(lambda numbers: reply(lambda: _metrics(numbers, accept)))

    return {"/metrics": AdminEndpoint("GET", metrics)}


def _metrics(numbers: Numbers, accept: str) -> bytes:
    try:
        content_type, body = exposition(numbers, accept)
    except ConfigError as exc:
        return http_response(501, f"{exc}\n".encode())
    return http_response(200, body, content_type=content_type)
