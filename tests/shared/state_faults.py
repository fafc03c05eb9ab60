"""Makes a table of faults: ``scripts/state-faults``. Three replicas have all sessions that the limit allows.

For each fault it says what happened to these sessions, how many the simulated API had at most, and what
newcomers were told. It fails if a session was cut, or if somebody came in who may not.
"""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tests.integration.redis_server import REDIS_SERVER
from tests.shared.crowd import ADMITTED, Crowd
from tests.shared.faults import FAULTS, LIMIT, REPLICAS, Fault, Scene, Times
from tests.shared.replicas import Replicas

__all__ = ["main"]

_LEAVING = 3
_QUICK = Times(lease=5.0, short=3.0, long=9.0, addresses=3_000)
_FULL = Times(lease=15.0, short=10.0, long=60.0, addresses=100_000)


class Outcome(NamedTuple):
    """What was seen, as cells of the table."""

    cells: tuple[str, ...]
    good: bool


_HEADINGS = (
    "fault",
    "sessions cut",
    f"most at the API (limit {LIMIT})",
    "admitted meanwhile",
    "told meanwhile",
    "in step after",
    "slowest echo",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the faults happen and print the table; return 0 if what happens is allowed."""
    options = _parse(arguments)
    if options.namespace and options.fault != ["namespace"]:
        return _in_namespace(options)
    if REDIS_SERVER is None:
        print("scripts/state-faults: redis-server is missing (Debian package redis-server)", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that all that was started is ended
    _allow_many_files()
    outcomes = []
    for fault in FAULTS:
        if fault.key in options.fault if options.fault else fault.key != "namespace":
            begin = time.monotonic()
            outcomes.append(_outcome(fault, _FULL if options.full else _QUICK))
            print(f"{fault.title}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    rows = [_HEADINGS, ("---",) * len(_HEADINGS), *(one.cells for one in outcomes)]
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return 0 if all(one.good for one in outcomes) else 1


def _in_namespace(options: argparse.Namespace) -> int:
    """Run this again in a network namespace of its own."""
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        sys.executable,
        "-m",
        "tests.shared.state_faults",
    ]
    more = ["--full"] if options.full else []
    return subprocess.run([*command, "--namespace", "--fault", "namespace", *more], check=False).returncode


def _allow_many_files() -> None:
    """Let this process have clients and the API at the same time."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/state-faults", description=__doc__)
    keys = [fault.key for fault in FAULTS]
    parser.add_argument("--fault", action="append", choices=keys, help="only this one; may be repeated")
    parser.add_argument(
        "--namespace",
        action="store_true",
        help="only the fault of that name, in a namespace that the script makes",
    )
    parser.add_argument(
        "--full", action="store_true", help="the default lease, long faults, and 100,000 addresses"
    )
    return parser.parse_args(arguments)


def _outcome(fault: Fault, times: Times) -> Outcome:
    """Make one fault happen; one that cannot be shown is an outcome, too."""
    try:
        return _show(fault, times)
    except Exception as exc:  # noqa: BLE001 - shown in the table
        traceback.print_exc()
        return Outcome((fault.title, f"**{type(exc).__name__}**", *("-" for _ in _HEADINGS[2:])), False)


def _show(fault: Fault, times: Times) -> Outcome:
    settings = {
        "WSPROXY_MAX_SESSIONS": str(LIMIT),
        "WSPROXY_MAX_FAILURES": "1",
        "WSPROXY_TICKETS": "true",
        "WSPROXY_STATE_LEASE": f"{times.lease:g}",
        **fault.settings,
    }
    with ExitStack() as stack:
        store = fault.store()
        replicas = stack.enter_context(Replicas(REPLICAS, store, settings))
        crowd = stack.enter_context(Crowd(replicas, LIMIT))
        scene = Scene(store, replicas, crowd, times)
        fault.begin(scene)
        end = time.monotonic()
        fault.end(scene)
        in_step = crowd.wait_until_in_step(end)
        told = crowd.told(scene.begun, end)
        if not fault.exceeds:
            crowd.wait_for_newcomers(_LEAVING)
        return _judged(fault, scene, told, in_step)


def _judged(fault: Fault, scene: Scene, told: dict[str, int], in_step: float) -> Outcome:
    crowd = scene.crowd
    admitted = told.get(ADMITTED, 0)
    texts = [f"{count} `{said}`" for said, count in sorted(told.items()) if said != ADMITTED]
    if scene.note:
        texts.append(scene.note)
    checks = (
        (str(crowd.lost), crowd.lost == 0),
        (f"{crowd.most}, {crowd.above:.0f} s above", crowd.most <= LIMIT or fault.exceeds),
        (str(admitted), admitted == 0 or fault.admits),
        ("; ".join(texts), scene.is_good),
        (f"{in_step:.1f} s", True),
        (f"{max(crowd.slowest):.2f} s", True),
    )
    cells = tuple(text if good else f"**{text}**" for text, good in checks)
    return Outcome((fault.title, *cells), all(good for _, good in checks))


if __name__ == "__main__":
    sys.exit(main())
