"""What a client is told about what the store has decided on its session. No I/O."""

from __future__ import annotations

from ...exceptions import Busy, ConsoleBusy, LimitExceeded, Refused, StateUnavailable, StoreUnavailable
from ...protocol.frames import may_be_sent
from ...runtime.logs import get_logger
from ..values import BusyReason, Decision, Message, Outcome, User

__all__ = ["end_of", "not_admitted", "taken_over", "unavailable"]

logger = get_logger("wsproxy.state")

_KICKED = 4499  # if the store has a code that may not be sent, because others write to it
_RETRY_AFTER = 2
_LIMITS = {
    "user": "you have as many sessions as you may",
    "vmi": "this console has as many sessions as it may",
}


def not_admitted(decision: Decision, show_user: bool) -> Refused:
    """Return the refusal for a session that the store does not admit.

    :param show_user: whether the client may learn who has the console.
    """
    if decision.outcome is Outcome.UNSETTLED:
        return StateUnavailable()
    if decision.outcome is Outcome.FULL:
        return _limit_refusal(decision.limit)
    by = f" by {decision.by}" if show_user and decision.by is not None else ""
    if decision.busy is BusyReason.BEING_TAKEN:
        return ConsoleBusy("another client is taking this console over right now")
    if decision.busy is BusyReason.HELD_OFF:
        return ConsoleBusy(
            f"the console was taken over{by}; to take it back, wait 30 seconds and then open it again"
        )
    return ConsoleBusy(f"the console is in use{by}")


def _limit_refusal(limit: str) -> Refused:
    if limit == "sessions":
        return Busy("the proxy has as many sessions as it may", retry_after=5)
    return LimitExceeded(limit, _LIMITS[limit], retry_after=5)


def unavailable(exc: StoreUnavailable | None = None) -> StateUnavailable:
    """Return the refusal for a client whose process is out of step, or whose store does not answer."""
    if exc:
        logger.debug("the store did not answer: %s", exc)
    return StateUnavailable(retry_after=_RETRY_AFTER)


def taken_over(by: User | None, show_user: bool) -> str:
    """Return the close reason for a client whose console another user takes over."""
    return _sendable(f"taken-over: by {by}") if show_user else "taken-over"


def end_of(message: Message) -> tuple[int, str]:
    """Return the close code and the reason that a message END has for a client."""
    return message.code if may_be_sent(message.code) else _KICKED, _sendable(message.reason)


def _sendable(reason: str) -> str:
    """Return a close reason that UTF-8 can express, whatever is in the store."""
    return reason.encode(errors="replace").decode()
