"""``wsproxy sessions``: lists or ends sessions through a running proxy's operator's listener."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from ..runtime.wall_clock import unix_time
from .ends import end_time
from .operator_client import (
    Failed,
    OperatorClient,
    add_listener_options,
    duration,
    operator_client,
    parsed_time,
    print_table,
    printable,
    warned,
)

__all__ = ["add_sessions_command"]

_NAME = "wsproxy sessions"
_CHOICES = ("user", "namespace", "vmi", "token_id")
_HEADINGS = (
    *("ID", "USER", "NAMESPACE", "VMI", "CONSOLE", "CLIENT"),
    *("OPEN", "EXPIRES", "IDLE", "UP", "DOWN", "REPLICA"),
)


def add_sessions_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``sessions`` to those of the program."""
    parser = commands.add_parser(
        "sessions",
        help="list or end the sessions of a running proxy",
        usage="wsproxy sessions [list | kick [ID ...]] [options]",  # argparse wants IDs before options
        description="List the sessions of a running proxy, or end some of them and revoke tokens.",
        epilog="kick ends the sessions with the given IDs, and revokes their tokens. With options it refuses "
        "every token that matches all of them and was issued until now, also of users who have no session. "
        "Exit status: 1 if there is no such session, 3 if processes have not applied the kick yet, 4 if a "
        "restart forgets it.",
    )
    parser.set_defaults(command=_run)
    parser.add_argument(
        "action", nargs="?", choices=("list", "kick"), default="list", help="default: %(default)s"
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="kick: ID of a session, from list")
    parser.add_argument("--user", help="kick: tokens of this user")
    parser.add_argument("--namespace", help="kick: tokens for this namespace")
    parser.add_argument("--vmi", help="kick: tokens, when they open this VMI; requires --namespace")
    parser.add_argument("--token-id", help="kick: the token with this ID")
    parser.add_argument(
        "--token-file", metavar="FILE", help="kick: the token in this file; - for standard input"
    )
    parser.add_argument(
        "--until",
        metavar="WHEN",
        help="kick: when the tokens are accepted again, a time such as 2030-01-31T18:00:00Z or a duration "
        "such as 30m, 2h or 7d (default: when none of them is valid any more)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_listener_options(parser)


def _run(options: argparse.Namespace) -> int:
    faults: list[str] = []
    until = _until(options, faults)
    client = operator_client(options, _faults(options) + faults)
    try:
        if options.action == "list":
            return _list(client, options.json)
        return _kick(client, options, until)
    except Failed as exc:
        print(f"{_NAME}: {exc}", file=sys.stderr)
        return 1


def _faults(options: argparse.Namespace) -> list[str]:
    """Return what is wrong with the choice of sessions and tokens."""
    chosen = [options.ids, options.token_file, _criteria(options)]
    if options.action == "list":
        return ["list always lists all sessions; give IDs and options to kick only"] if any(chosen) else []
    if sum(map(bool, chosen)) != 1:
        return ["kick needs IDs, or --token-file, or any of --user, --namespace, --vmi and --token-id"]
    return []


def _until(options: argparse.Namespace, faults: list[str]) -> float | None:
    """Return the UNIX time of the option; None without one. Add what is wrong to the faults."""
    if options.until is None:
        return None
    if options.action == "list":
        faults.append("--until is for kick only")
    elif options.ids:
        faults.append("--until does not go with IDs: the token of a session is refused until it expires")
    try:
        return end_time(options.until, unix_time())
    except ValueError as exc:
        faults.append(f"--until is {options.until!r}; {exc}")
        return None


def _criteria(options: argparse.Namespace) -> dict[str, str]:
    return {name: value for name in _CHOICES if (value := getattr(options, name)) is not None}


def _list(client: OperatorClient, as_json: bool) -> int:
    found = client.ask("GET", "/sessions")
    try:
        now = parsed_time(found["time"])
        rows = [_row(session, now) for session in found["sessions"]]
    except (KeyError, TypeError, ValueError):
        raise Failed(client.stranger) from None
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_table([_HEADINGS, *rows])
    return 0


def _kick(client: OperatorClient, options: argparse.Namespace, until: float | None) -> int:
    if options.token_file:
        wanted: list[dict[str, object]] = [{"token": _read_token(options.token_file)}]
    else:
        wanted = [{"session": id} for id in options.ids] or [dict(_criteria(options))]
    answers, missing = [], []
    for body in wanted:
        answer = client.ask("POST", "/kick", body if until is None else body | {"until": until})
        try:
            found = bool(answer["sessions"] or answer["kick"])
        except KeyError:
            raise Failed(client.stranger) from None
        if found:
            answers.append(answer)
        else:
            missing.append(printable(body.get("session", "the options")))
    try:
        _print_kicks(answers, options)
    except (TypeError, KeyError):
        raise Failed(client.stranger) from None
    status = warned(_NAME, answers)
    if missing:
        raise Failed(f"no session matches {', '.join(missing)}")
    return status


def _print_kicks(answers: list[dict[str, Any]], options: argparse.Namespace) -> None:
    sessions = [id for answer in answers for id in answer["sessions"]]
    kicks = [answer for answer in answers if answer["kick"]]
    if options.json:
        tokens = [id for answer in answers for id in answer["tokens"]]
        told = [
            {name: one for name, one in kick.items() if name not in ("sessions", "tokens")} for kick in kicks
        ]
        print(json.dumps({"sessions": sessions, "tokens": tokens, "kicks": told}, indent=2))
        return
    lines = [line for kick in kicks for line in _effect(kick, options)]
    print("\n".join([f"{len(sessions)} sessions ended", *lines]))


def _chosen(options: argparse.Namespace) -> str:
    """Return which tokens a kick is about."""
    if options.token_file:
        return "the token is"
    if options.ids:
        return "the token of the session is"
    criteria = _criteria(options)
    shown = ", ".join(f"{name} {printable(value)}" for name, value in criteria.items())
    return f"tokens with {shown}{'' if 'token_id' in criteria else ' that were issued until now'} are"


def _effect(kick: Mapping[str, Any], options: argparse.Namespace) -> list[str]:
    """Return lines that say which tokens a kick refuses, and until when."""
    id, until = printable(kick["kick"]), kick["until"]
    end = f"until {printable(until)}" if until else "until you lift the kick"
    lines = [f"kick {id}: {_chosen(options)} refused from now on, {end}"]
    if kick.get("needs_iat"):
        lines.append(
            "  tokens without iat are refused, too, if they are issued later; see WSPROXY_TOKEN_LIFETIME"
        )
    if options.until and _criteria(options) and kick["tokens"]:
        lines.append("  the tokens of the sessions that ended are refused until they expire")
    if not until:
        lines.append(f"  to lift it: wsproxy revocations lift {id}")
    return lines


def _read_token(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read().strip()
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError as exc:
        raise Failed(f"--token-file {path}: {exc.strerror}") from None


def _row(session: Mapping[str, Any], now: float) -> tuple[str, ...]:
    expires, active = session["expires"], session["last_activity"]
    if session["since"] is None:  # the proxy could not describe the session; its log says why
        return (printable(session["id"]), *("-" for _ in _HEADINGS[1:]))
    return (
        *(printable(session[name]) for name in ("id", "user", "namespace", "vmi", "subresource", "client")),
        "opening" if session.get("state") == "opening" else duration(now - parsed_time(session["since"])),
        "never" if expires is None else f"in {duration(parsed_time(expires) - now)}",
        "-" if active is None else duration(now - parsed_time(active)),  # another process knows it
        _size(session["bytes_up"]),
        _size(session["bytes_down"]),
        printable(session.get("replica") or "-"),
    )


def _size(count: int | None) -> str:
    """Return a size, such as 512, 3.4K or 120M; "-" for an unknown one."""
    if count is None:
        return "-"
    if count < 1024:
        return str(count)
    size, units = count / 1024, "KMGTP"
    while size >= 1000 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.{1 if size < 10 else 0}f}{units[0]}"
