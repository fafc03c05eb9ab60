"""What a client is told if the store does not admit its session. No I/O."""

from __future__ import annotations

from ...exceptions import Busy, ConsoleBusy, LimitExceeded, Refused
from ..values import BusyReason, Decision

__all__ = ["busy_refusal", "limit_refusal"]

_LIMITS = {
    "user": "you have as many sessions as you may",
    "vmi": "this console has as many sessions as it may",
}


def busy_refusal(decision: Decision, show_user: bool) -> ConsoleBusy:
    """Return the refusal for a console that the session cannot have.

    :param show_user: whether the client may learn who has it.
    """
    by = f" by {decision.by}" if show_user and decision.by is not None else ""
    if decision.busy is BusyReason.BEING_TAKEN:
        return ConsoleBusy("another client is taking this console over right now")
    if decision.busy is BusyReason.HELD_OFF:
        return ConsoleBusy(
            f"the console was taken over{by}; to take it back, wait 30 seconds and then open it again"
        )
    return ConsoleBusy(f"the console is in use{by}")


def limit_refusal(limit: str) -> Refused:
    """Return the refusal for a limit of sessions that is reached."""
    if limit == "sessions":
        return Busy("the proxy has as many sessions as it may", retry_after=5)
    return LimitExceeded(limit, _LIMITS[limit], retry_after=5)
