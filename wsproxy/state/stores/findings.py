"""What ``wsproxy check`` finds out about a store."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FAULT", "OK", "WARNING", "StoreFinding"]

OK, WARNING, FAULT = "ok", "warning", "fault"


class StoreFinding(NamedTuple):
    """One thing that was found.

    :ivar level: :data:`OK`, :data:`WARNING`, or :data:`FAULT`.
    :ivar text: what was found; unless all is well, it includes the remedy.
    """

    level: str
    text: str
