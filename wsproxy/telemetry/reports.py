"""Writes what happens to sessions to the log, the audit log and the counters, in one place."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence

from ..exceptions import Refused
from ..protocol.closing import Ending
from ..runtime.logs import get_logger, rfc3339
from .audit import AuditLog
from .causes import ending_cause, refusal_cause
from .counters import Counters, SessionCounts
from .record import SessionRecord

__all__ = ["Reports"]

_connection = get_logger("wsproxy.connection")
_session = get_logger("wsproxy.session")
_operator = get_logger("wsproxy.admin")


class Reports:
    """Reports on the sessions of one server. Safe from every thread; blocks as the log does."""

    def __init__(self, counters: Counters, audit: AuditLog) -> None:
        self._counters = counters
        self._audit = audit

    def opened(self, record: SessionRecord, session: SessionCounts, dial_seconds: float) -> None:
        """Report that a session was opened.

        :param dial_seconds: seconds that dialling took.
        """
        self._counters.add(session, dial_seconds)
        fields = record.fields()
        _session.info("session %s opened: %s", record.session, str(record), extra={"fields": fields})
        self._audit.write("open", fields)

    def ended(
        self,
        record: SessionRecord,
        session: SessionCounts,
        ending: Ending,
        seconds: float,
        close_not_sent: Collection[str],
    ) -> None:
        """Report that a session ended.

        :param seconds: how long it was open.
        :param close_not_sent: the legs that should have got a Close, but did not.
        """
        self._counters.remove(session, ending, seconds)
        fields = {
            **record.fields(),
            "seconds": round(seconds, 3),
            "bytes_up": session.bytes_up,
            "bytes_down": session.bytes_down,
            "by": ending.by,
            "cause": ending_cause(ending),
            "code": ending.code,
            "reason": ending.reason,
            "close_not_sent": list(close_not_sent),
        }
        _session.info(
            "session %s ended: by %s code %s %r after %.1f s, %d bytes up, %d bytes down%s: %s",
            record.session,
            ending.by,
            ending.code,
            ending.reason,
            seconds,
            session.bytes_up,
            session.bytes_down,
            f", close not sent to {' and '.join(close_not_sent)}" if close_not_sent else "",
            str(record),
            extra={"fields": fields},
        )
        self._audit.write("end", fields)

    def refused(self, record: SessionRecord, refused: Refused, level: int) -> None:
        """Report that a client was refused.

        :param level: level of the log line. The audit log gets only refusals of INFO and above, so that a
            flood of refusals does not fill a disk.
        """
        self._counters.refuse(refused.slug)
        fields = {
            **record.fields(),
            "status": refused.status,
            "cause": refusal_cause(refused.slug),
            "reason": refused.slug,
            "text": refused.message,
            "detail": refused.log_detail,
        }
        _connection.log(
            level,
            "connection %s refused: %s: %d %s: %s%s",
            record.session,
            str(record),
            refused.status,
            refused.slug,
            refused.message,
            f" ({refused.log_detail})" if refused.log_detail else "",
            extra={"fields": fields},
        )
        if level >= logging.INFO:
            self._audit.write("refused", fields)

    def left(self, record: SessionRecord, text: str, level: int) -> None:
        """Report that a client left before it was accepted or refused.

        :param level: level of the log line.
        """
        _connection.log(
            level,
            "connection %s: %s: %s",
            record.session,
            text,
            str(record),
            extra={"fields": record.fields()},
        )

    def kicked(
        self,
        by: Mapping[str, str],
        sessions: Sequence[str],
        tokens: Sequence[str],
        kick: str = "",
        until: float | None = None,
        behind: Sequence[str] = (),
    ) -> None:
        """Report that the operator ended sessions, or refuses tokens.

        :param by: names and values by which the operator chose them; never a token.
        :param sessions: their ids; each end has a report of its own.
        :param tokens: ids of the tokens of those sessions, which the proxy refuses from now on.
        :param kick: the kick's id; "" if it refuses no token.
        :param until: UNIX time until which it refuses tokens; infinite until somebody lifts it.
        :param behind: names of the processes that have not applied it yet.
        """
        fields = {
            "by": dict(by),
            "sessions": list(sessions),
            "tokens": list(tokens),
            "kick": kick or None,
            "until": None if until is None or until == math.inf else rfc3339(until),
            "behind": list(behind),
        }
        _operator.info(
            "kicked %d sessions by %s; %s%s",
            len(sessions),
            ", ".join(f"{name} {value!r}" for name, value in by.items()),
            _refusal(kick, until),
            _shown_behind(behind),
            extra={"fields": fields},
        )
        self._audit.write("kicked", fields)

    def lifted(self, kick: str, behind: Sequence[str]) -> None:
        """Report that the operator lifted a kick.

        :param behind: as for :meth:`kicked`.
        """
        fields = {"kick": kick, "behind": list(behind)}
        _operator.info("lifted kick %s%s", kick, _shown_behind(behind), extra={"fields": fields})
        self._audit.write("lifted", fields)


def _refusal(kick: str, until: float | None) -> str:
    if not kick or until is None:
        return "no token is refused"
    end = "for ever, until it is lifted" if until == math.inf else f"until {rfc3339(until)}"
    return f"kick {kick} refuses tokens {end}"


def _shown_behind(behind: Sequence[str]) -> str:
    return f"; not applied yet by {', '.join(map(repr, behind))}" if behind else ""
