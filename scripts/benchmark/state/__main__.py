"""The program behind ``scripts/bench --state``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack

from wsproxy.version import __version__

from ..__main__ import set_up
from ..measures import Pace
from ..pages import write_between
from ..processes import raise_descriptor_limit
from ..program import run, say
from ..report import Header
from .measures import StateBench
from .report import state_report
from .servers import RedisServer, redis_missing
from .sides import source_of, write_paths

_USERS = 2500
_BEFORE = "084637e"
_PACE, _ROUNDS = Pace(0.3, 3.0), 7
_QUICK_PACE, _QUICK_ROUNDS = Pace(0.2, 1.0), 3
_HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench --state",
        description="Measures what the state that processes share costs: with a store of one host, with a "
        "Redis on the loopback interface, and with neither, side by side.",
    )
    add = parser.add_argument
    add("--state", action="store_true", help=argparse.SUPPRESS)
    add(
        "--quick",
        action="store_true",
        help=f"{_QUICK_ROUNDS} rounds of {_QUICK_PACE.seconds:g} s each: 3 minutes",
    )
    add("--runs", type=int, metavar="N", help=f"rounds (default: {_ROUNDS})")
    add("--seconds", type=float, metavar="S", help=f"length of each measure (default: {_PACE.seconds:g})")
    add(
        "--before",
        default=_BEFORE,
        metavar="COMMIT",
        help="what one process is compared with (default: %(default)s)",
    )
    add("--json", metavar="FILE", help="also write every sample to a file")
    add("--write", metavar="FILE", help="also write the report into a page, between its two marks")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark, and return the exit status."""
    options = _parse()
    raise_descriptor_limit()
    pace = _QUICK_PACE if options.quick else _PACE
    pace = Pace(pace.warmup, options.seconds or pace.seconds)
    rounds = options.runs or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    missing = redis_missing()
    with ExitStack() as stack:
        tools, around = set_up(stack)
        write_paths(around, _USERS)
        before = source_of(options.before, around.directory)
        versions = _versions(missing is None)
        header = Header(rounds, pace.seconds, options.quick, versions, [])
        bench = StateBench(tools, around, pace, rounds, before, _HERE, missing is None, say)
        bench.run()
    lines = [*header.machine(), *_notes(rounds, pace)]
    lines[0] += f", after: {os.getloadavg()[0]:.1f}"
    lines += [
        f"**missing**: {what}"
        for what in (missing, None if before else f"no commit {options.before}")
        if what
    ]
    report = state_report(lines, bench.samples, options.before)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"header": lines, "samples": bench.samples}, file, indent=1)
    if options.write:
        write_between(options.write, "state", report)
    print("\n".join(report))
    return 0


def _versions(has_redis: bool) -> list[str]:
    versions = [f"wsproxy {__version__} on Python {'.'.join(map(str, sys.version_info[:3]))}"]
    if has_redis:
        import redis

        versions += [RedisServer.version(), f"redis-py {redis.__version__}"]
    return versions


def _notes(rounds: int, pace: Pace) -> list[str]:
    return [
        f"Medians of {rounds} rounds of {pace.seconds:g} s, in which the sides took turns. Differences and "
        "ratios are of the same round. Load generator, simulated API, wsproxy and store share the cores.",
        "With a store: limits in all, per user and per VM, and the rule `takeover`. Each session is another "
        "user's.",
    ]


if __name__ == "__main__":
    run(main)
