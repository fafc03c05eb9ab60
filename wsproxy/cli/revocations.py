"""``wsproxy revocations``: lists or lifts kicks through a running proxy's operator's listener."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

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

__all__ = ["add_revocations_command"]

_NAME = "wsproxy revocations"
_HEADINGS = ("KICK", "REFUSES", "MADE", "ENDS", "LATER", "TOKENS", "REPLICA")
_MOST_PAGES = 1000
_ONE_TOKEN = {"token", "token_id"}


def add_revocations_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``revocations`` to those of the program."""
    parser = commands.add_parser(
        "revocations",
        help="list or lift the kicks that a running proxy applies",
        usage="wsproxy revocations [list | lift ID [ID ...]] [options]",  # argparse wants IDs before options
        description="List the kicks by which a running proxy refuses tokens, or lift some of them.",
        epilog="LATER says which tokens that are issued after the kick are accepted. Exit status: 1 if there "
        "is no such kick, 3 if processes have not applied a lift yet, 4 if a restart forgets it.",
    )
    parser.set_defaults(command=_run)
    parser.add_argument(
        "action", nargs="?", choices=("list", "lift"), default="list", help="default: %(default)s"
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="lift: ID of a kick, from list")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_listener_options(parser)


def _run(options: argparse.Namespace) -> int:
    faults = []
    if options.action == "list" and options.ids:
        faults.append("list always lists all kicks; give IDs to lift only")
    if options.action == "lift" and not options.ids:
        faults.append("lift needs IDs of kicks; list shows them")
    client = operator_client(options, faults)
    try:
        if options.action == "list":
            return _list(client, options.json)
        return _lift(client, options.ids, options.json)
    except Failed as exc:
        print(f"{_NAME}: {exc}", file=sys.stderr)
        return 1


def _list(client: OperatorClient, as_json: bool) -> int:
    time, found = _all(client)
    try:
        rows = [_row(one, parsed_time(time)) for one in found]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Failed(client.stranger) from None
    if as_json:
        print(json.dumps({"time": time, "revocations": found}, indent=2))
    else:
        print_table([_HEADINGS, *rows])
    return 0


def _all(client: OperatorClient) -> tuple[str, list[dict[str, Any]]]:
    """Return the proxy's time, and all kicks, which come in pages."""
    found: list[dict[str, Any]] = []
    path = "/revocations"
    for _ in range(_MOST_PAGES):
        page = client.ask("GET", path)
        try:
            found += page["revocations"]
            time, following = str(page["time"]), page["next"]
        except (KeyError, TypeError):
            raise Failed(client.stranger) from None
        if following is None:
            return time, found
        path = f"/revocations?before={quote(str(following), safe='+')}"
    raise Failed(client.stranger)


def _row(kick: Mapping[str, Any], now: float) -> tuple[str, ...]:
    matches, until = kick["matches"], kick["until"]
    refuses = [" ".join(f"{name}={value}" for name, value in match.items()) for match in matches]
    return (
        printable(kick["kick"]),
        printable("; ".join(refuses)),
        f"{duration(now - parsed_time(kick['made_at']))} ago",
        "when lifted" if until is None else f"in {duration(parsed_time(until) - now)}",
        _later(matches, kick["needs_iat"]),
        printable(kick["tokens"]),
        printable(kick["replica"]),
    )


def _later(matches: list[Mapping[str, str]], needs_iat: bool) -> str:
    """Return which tokens are accepted that are issued after the kick."""
    if all(match.keys() & _ONE_TOKEN for match in matches):
        return "-"  # it is about tokens that are there
    return "with iat" if needs_iat else "all"


def _lift(client: OperatorClient, ids: list[str], as_json: bool) -> int:
    lifted, missing = [], []
    for id in ids:
        if not re.fullmatch("[0-9A-Za-z]+", id):
            missing.append(id)
            continue
        try:
            lifted.append(client.ask("DELETE", f"/revocations/{id}"))
        except Failed as exc:
            if exc.status != 404:
                raise
            missing.append(id)
    if as_json:
        print(json.dumps({"lifted": lifted}, indent=2))
    else:
        print(f"{len(lifted)} kicks lifted")
    status = warned(_NAME, lifted)
    if missing:
        raise Failed(f"no kick has the ID {', '.join(map(printable, missing))}")
    return status
