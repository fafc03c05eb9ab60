"""Closed sets of words for why a client was refused and why a session ended, for counters and metrics.

Peers and embedding programs can send any close code and reason, so this module maps them to these sets.
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import exceptions
from ..protocol.closing import Ending

__all__ = ["ALL_LIMITS", "ENDINGS", "LIMITS", "OTHER", "REFUSALS", "ending_cause", "refusal_cause"]

OTHER = "other"
"""The word for every slug or code that is not in these sets."""

LIMITS = ("sessions", "user", "vmi", "address", "failures", "frame")
"""Names of the limits whose hits :class:`.Limits` counts. The slug of most is ``limit-NAME``."""

ALL_LIMITS = frozenset({*LIMITS, "pending", "tickets", "screenshots", "requests"})
"""The names of all limits."""

_NEVER_SAID = {"sessions", "frame", "pending"}  # limits without a refusal whose slug is ``limit-NAME``

_BY_PROXY = {
    1012: "restarting",
    4408: "idle",
    4410: "taken-over",
    4411: "expired",
    4412: "max-age",
    4499: "kicked",
}
_BY_PEER = ("client-gone", "upstream-closed", "upstream-refused", "protocol-error", "message-too-big")
_FAILED = ("aborted", "failed")
_CODES = range(1000, 1015)  # RFC 6455 section 7.4.1, and codes that IANA has registered since


def _slugs(kind: type[exceptions.Refused]) -> Iterator[str]:
    """Yield the slugs of a class of refusals, and of its subclasses in this package."""
    yield kind.slug
    for leaf in kind.__subclasses__():
        if leaf.__module__ == exceptions.__name__ and leaf is not exceptions.LimitExceeded:
            yield from _slugs(leaf)


REFUSALS = frozenset(
    {
        *_slugs(exceptions.Refused),
        *(f"limit-{name}" for name in ALL_LIMITS - _NEVER_SAID),
        _BY_PROXY[4499],  # of a session that was kicked while it was being opened
        OTHER,
    }
)
"""Every cause of a refusal."""

ENDINGS = frozenset(
    {
        *_BY_PROXY.values(),
        *_BY_PEER,
        *_FAILED,
        *(f"close-{code}" for code in (*_CODES, "3xxx", "4xxx", "none")),
        OTHER,
    }
)
"""Every cause of a session's end."""


def refusal_cause(slug: str) -> str:
    """Return a refusal's slug if it is in :data:`REFUSALS`, and :data:`OTHER` if not."""
    return slug if slug in REFUSALS else OTHER


def ending_cause(ending: Ending) -> str:
    """Return why a session ended, one of :data:`ENDINGS`.

    If a peer sent its own Close, the cause is its code: ``close-1000``, ``close-4xxx``, ``close-none``.
    """
    code, slug = ending.code, ending.reason.partition(":")[0]
    if ending.by == "proxy":
        if code is None:
            return slug if slug in _FAILED else OTHER
        return _BY_PROXY.get(code, OTHER)
    if slug in _BY_PEER:
        return slug
    if code is None:
        return "close-none"
    if code in _CODES:
        return f"close-{code}"
    return f"close-{code // 1000}xxx" if 3000 <= code < 5000 else OTHER
