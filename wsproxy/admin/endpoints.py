"""The endpoints of the operator's listener: metrics, the list of sessions, kicks and what they refuse."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..access.sessions import SessionHandle
from ..exceptions import BadRequest, ConfigError
from ..protocol.response import http_response
from ..protocol.strict_json import parse_json
from ..runtime.logs import get_logger, rfc3339
from ..state.membership import Member
from ..state.revocations import Match
from ..state.values import Held, Stage
from ..telemetry.counters import Snapshot
from ..telemetry.metrics import check_metrics, exposition
from .auth import Guard
from .kick import Chosen, Kicked, Kicks
from .revocations import Revocation
from .routes import AdminEndpoint, AdminRequest, Reply

__all__ = ["Gather", "admin_endpoints", "session_endpoints"]

logger = get_logger("wsproxy.admin")

_MAX_BRACKETS = 16
_DIGITS = 16  # as many as the id of a token without "jti" has
_FIELDS = (
    "replica",
    "user",
    "namespace",
    "vmi",
    "subresource",
    "client",
    "token_id",
    "state",
    "since",
    "expires",
    "last_activity",
    "bytes_up",
    "bytes_down",
)


def session_endpoints(guard: Guard | None, kicks: Kicks | None) -> dict[str, AdminEndpoint]:
    """Return the endpoints for sessions, by path.

    :param guard: checks that the operator sent the request; None if that was checked before.
    :param kicks: lists and ends the sessions; None if the answers are made elsewhere: see :func:`.deferred`.
    """

    def endpoint(method: str, answer: Any) -> AdminEndpoint:
        def handle(request: AdminRequest, reply: Reply) -> None:
            reply(lambda: answer(kicks, request))

        return AdminEndpoint(method, handle, guard)

    return {
        "/sessions": endpoint("GET", _list),
        "/sessions/": endpoint("DELETE", _end),
        "/kick": endpoint("POST", _kick),
        "/revocations": endpoint("GET", _revocations),
        "/revocations/": endpoint("DELETE", _lift),
    }


def _list(kicks: Kicks, request: AdminRequest) -> bytes:
    name = kicks.participant.member.name
    sessions = [_row(session.id, partial(_described, session, name)) for session in kicks.sessions.all()]
    for member, held in kicks.others():
        sessions.append(_row(held.session.id, partial(_described_of_other, member, held)))
    sessions.sort(key=lambda row: row["since"] or "")  # the oldest first
    return _json(200, {"time": rfc3339(time.time()), "sessions": sessions})


def _row(id: str, describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a session's entry in the list. If that fails, return its id, with null for the rest."""
    try:
        described = describe()
        json.dumps(described, allow_nan=False)
        return described
    except Exception:
        logger.exception("cannot describe session %s", id)
        return {"id": id, **dict.fromkeys(_FIELDS)}


def _described_of_other(member: Member, held: Held) -> dict[str, Any]:
    """Return the entry of a session of another process, which alone knows what the session has copied."""
    session = held.session
    return {
        "id": session.id,
        "replica": member.name,
        "user": session.user,
        "namespace": session.console.namespace,
        "vmi": session.console.vmi,
        "subresource": session.console.subresource,
        "client": session.client,
        "token_id": session.token_id,
        "state": "open" if held.stage is Stage.OPEN else "opening",
        "since": rfc3339(session.since),
        "expires": _time(session.expires_at),
        "last_activity": None,
        "bytes_up": None,
        "bytes_down": None,
    }


def _described(session: SessionHandle, replica: str) -> dict[str, Any]:
    return {
        "id": session.id,
        "replica": replica,
        "user": session.user,
        "namespace": session.namespace,
        "vmi": session.vmi,
        "subresource": session.subresource,
        "client": session.client,
        "token_id": session.grant.token_id,
        "state": "open" if session.is_open else "opening",
        "since": rfc3339(session.opened),
        "expires": _time(session.grant.expires_at),
        "last_activity": rfc3339(session.last_activity),
        "bytes_up": session.bytes_up,
        "bytes_down": session.bytes_down,
    }


def _end(kicks: Kicks, request: AdminRequest) -> bytes:
    return _done(kicks.end(request.name))


def _kick(kicks: Kicks, request: AdminRequest) -> bytes:
    try:
        wanted = parse_json(request.body, _MAX_BRACKETS)
    except ValueError as exc:
        raise BadRequest(f"the body is wrong: {exc}") from None
    return _done(kicks.kick(Chosen.parse(wanted)))


def _done(kicked: Kicked) -> bytes:
    body: dict[str, Any] = {"sessions": kicked.sessions, "tokens": kicked.tokens, "kick": kicked.kick}
    body |= {"until": _time(kicked.until) if kicked.kick else None, "behind": kicked.behind}
    if kicked.kick:
        body["needs_iat"] = kicked.needs_iat
    return _json(200, body | _unsaved(kicked.unsaved))


def _unsaved(why: str) -> dict[str, str]:
    return {"unsaved": why} if why else {}


def _revocations(kicks: Kicks, request: AdminRequest) -> bytes:
    page = kicks.revocations(_before(request.head.target))
    found = [_shown_kick(kicks, one) for one in page.kicks]
    return _json(200, {"time": rfc3339(time.time()), "revocations": found, "next": page.next or None})


def _before(target: str) -> str:
    """Return the parameter ``before`` of a query; "" if there is no query."""
    query = target.partition("?")[2]
    name, _, value = query.partition("=")
    if query and (name != "before" or not value):
        raise BadRequest("the query may only be before=, with the next of another page")
    return value


def _shown_kick(kicks: Kicks, one: Revocation) -> dict[str, Any]:
    return {
        "kick": one.kick,
        "matches": [_shown_match(match) for match in one.matches],
        "made_at": rfc3339(one.made_at),
        "until": _time(one.until),
        "replica": one.maker,
        "tokens": one.tokens,
        "needs_iat": any(map(kicks.needs_iat, one.matches)),
    }


def _shown_match(match: Match) -> dict[str, str]:
    """Return what a rule matches. Of a token's hash it has as much as a token's id may have."""
    shown = {name: value for name, value in match._asdict().items() if value}
    if digest := shown.pop("digest", ""):
        shown["token"] = digest[:_DIGITS]
    return shown


def _lift(kicks: Kicks, request: AdminRequest) -> bytes:
    lifted = kicks.lift(request.name)
    return _json(200, {"kick": lifted.id, "behind": lifted.behind} | _unsaved(lifted.unsaved))


def _time(seconds: float) -> str | None:
    return None if seconds == math.inf else rfc3339(seconds)


def _json(status: int, body: dict[str, Any]) -> bytes:
    return http_response(status, json.dumps(body).encode() + b"\n", content_type="application/json")


Gather = Callable[[Callable[[Snapshot], None]], None]
"""Calls the given function with the numbers of the whole proxy, now or later, in the same thread."""


def admin_endpoints(gather: Gather) -> dict[str, AdminEndpoint]:
    """Return the endpoint for metrics, by path. Log a warning if prometheus-client is not installed.

    :param gather: gets the numbers of the whole proxy.
    """
    try:
        check_metrics()
    except ConfigError as exc:
        logger.warning("%s", exc)

    def metrics(request: AdminRequest, reply: Reply) -> None:
        accept = ", ".join(request.head.values("accept"))
        gather(lambda numbers: reply(lambda: _metrics(numbers, accept)))

    return {"/metrics": AdminEndpoint("GET", metrics)}


def _metrics(numbers: Snapshot, accept: str) -> bytes:
    try:
        content_type, body = exposition(numbers, accept)
    except ConfigError as exc:
        return http_response(501, f"{exc}\n".encode())
    return http_response(200, body, content_type=content_type)
