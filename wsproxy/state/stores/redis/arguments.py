"""What the scripts of Redis get: flat lists of texts and numbers. No I/O.

Lua reads few fields of what is stored, and its numbers are not those of JSON: it makes 1.0 of 1. So sessions,
users, rules and tickets go there as JSON texts, which Lua gives back as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from ...codec import from_json, to_json
from ...revocations import Rule, rule_order
from ...values import User

__all__ = ["Argument", "script_arguments"]

Argument = str | int | float

_Json = Any


def script_arguments(operation: str, arguments: list[_Json]) -> list[Argument]:
    """Return what the script of an operation gets.

    :param arguments: the JSON form of the operation's arguments.
    """
    special = _SPECIAL.get(operation)
    return special(*arguments) if special else arguments


_ENCODER = json.JSONEncoder(separators=(",", ":"))  # json.dumps would make one for each call
_text: Callable[[_Json], str] = _ENCODER.encode  # of a str it takes a tenth of what anything else takes


def _user(user: User) -> str:
    return _text(user) if isinstance(user, str) else str(user)


def _console(console: _Json) -> str:
    return f"[{_text(console['namespace'])},{_text(console['vmi'])},{_text(console['subresource'])}]"


def _session(session: _Json) -> list[str | bool]:
    user = _user(session["user"])
    return [
        session["id"],
        _text(session),
        user,
        _console(session["console"]),
        f"[{_text(session['token_id'])},{user},{_text(session['network'])}]",
        session["may_take_over"],
    ]


def _held(held: _Json) -> list[str | bool]:
    return [*_session(held["session"]), held["stage"], held["policy"], held["ending"]]


def _event(event: _Json) -> list[str]:
    console = event["console"]
    return [event["kind"], event["session"], _console(console) if console else "", _text(event["by"])]


def _rule(rule: _Json) -> list[str]:
    order = rule_order(from_json(Rule, rule))
    times = _text(rule["made_at"]), _text(rule["until"])
    return [rule["id"], rule["kick"], *times, _text(rule["match"]), _text(rule["maker"]), order]


def _list(items: list[_Json], one: Callable[[_Json], list[Any]]) -> str:
    return _text([one(item) for item in items]) if items else "[]"


def _publish(publication: _Json) -> list[Argument]:
    member = publication["member"]
    return [
        member["id"],
        _text(member),
        member["lease"],
        publication["part"],
        int(publication["last"]),
        _list(publication["sessions"], _held),
        _list(publication["rules"], _rule),
        _text(publication["knew"]),
    ]


def _beat(member: str, beat: _Json) -> list[Argument]:
    failures = _list(beat["failures"], lambda one: [one["bucket"], one["seconds"]])
    numbers = beat["number"], beat["epoch"], beat["applied"], beat["seen"], beat["roster"]
    return [member, *numbers, failures, beat["failures_since"]]


def _admit(member: str, request: _Json, events: _Json) -> list[Argument]:
    limits = request["limits"]
    *session, may_take_over = _session(request["session"])
    return [
        member,
        _list(events, _event),
        *session,
        int(may_take_over),
        request["policy"],
        limits["sessions"],
        limits["user"],
        limits["vmi"],
        int(request["may_wait"]),
    ]


def _issue(digest: str, ticket: _Json) -> list[Argument]:
    return [digest, _user(ticket["grant"]["user"]), _text(ticket)]


def _lift(kick: str, lifted_at: float) -> list[Argument]:
    lift = Rule.lift(kick, lifted_at, math.inf)
    return [kick, _text(lifted_at), _text(to_json(lift.until)), rule_order(lift)]


_SPECIAL: dict[str, Callable[..., list[Argument]]] = {
    "publish": _publish,
    "beat": _beat,
    "admit": _admit,
    "report": lambda member, events: [member, _list(events, _event)],
    "issue": _issue,
    "revoke": lambda rules: [_list(rules, _rule)],
    "lift": _lift,
    "keep": lambda member, name, text, *numbers: [member, name, _text(text), *numbers],
}
