"""The program behind ``scripts/scaling``."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields

from wsproxy.version import __version__

from ..__main__ import set_up
from ..pages import write_between
from ..peers import Surroundings
from ..processes import raise_descriptor_limit
from ..program import run, say
from ..report import Header
from ..state.servers import RedisServer, redis_missing
from ..state.sides import write_paths
from ..tools import Tools
from .model import Inputs, Run, fit
from .report import check_table, model_tables, within
from .runs import PING, observe

_USERS = 2500
_CALIBRATION = ((1, 300), (1, 1500), (3, 700), (3, 1500), (6, 1200))
_CHECK = tuple((processes, consoles) for processes in (1, 2, 4) for consoles in (500, 1000, 2000))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/scaling",
        description="Predicts what 1,000, 10,000 and 100,000 consoles cost. First it measures its inputs in "
        "small runs. With --check it then predicts larger runs, makes them, and compares.",
    )
    add = parser.add_argument
    add("--check", action="store_true", help="compare predictions with runs that are not the model's input")
    add("--runs", type=int, default=1, metavar="N", help="how often to make each run; medians count")
    add("--inputs", metavar="FILE", help="take the inputs from a file of --json instead of measuring them")
    add("--json", metavar="FILE", help="write the inputs, and what the runs have shown, to a file")
    add("--write", metavar="FILE", help="write the tables into a page, between their marks")
    return parser.parse_args()


class Observer:
    """Makes runs, each several times, and keeps what they show."""

    def __init__(self, tools: Tools, around: Surroundings, times: int) -> None:
        self._tools = tools
        self._around = around
        self._times = times

    def observe(self, what: str, sizes: Sequence[tuple[int, int]]) -> list[Run]:
        """Return what a run of each size has shown: medians."""
        found: dict[tuple[int, int], list[Run]] = {size: [] for size in sizes}
        for _ in range(self._times):
            for processes, consoles in sizes:
                run = observe(self._tools, self._around, processes, consoles)
                found[processes, consoles].append(run)
                values = ", ".join(f"{key} {value:,.2f}" for key, value in asdict(run).items())
                say(f"{what}: {values}")
        return [_median(runs) for runs in found.values()]


def _median(runs: Sequence[Run]) -> Run:
    values = {
        field.name: statistics.median(getattr(run, field.name) for run in runs) for field in fields(Run)
    }
    return Run(**{**values, "processes": runs[0].processes, "consoles": runs[0].consoles})


def _header(times: int) -> list[str]:
    import redis

    versions = [
        f"wsproxy {__version__} on Python {'.'.join(map(str, sys.version_info[:3]))}",
        RedisServer.version(),
        f"redis-py {redis.__version__}",
    ]
    lines = list(Header(times, 0, False, versions, []).machine())
    calibration = ", ".join(f"{processes} x {consoles}" for processes, consoles in _CALIBRATION)
    return [
        *lines,
        f"Medians of {times} {'runs' if times > 1 else 'run'}, with TLS towards the API and a Redis on the "
        f"loopback interface. Limits and the rule `takeover` were set, and a ping each {PING:g} s. Runs "
        f"behind the inputs, processes x consoles: {calibration}.",
    ]


def main() -> int:
    """Calibrate, check, print the tables, and return 1 if a prediction is too far off."""
    options = _parse()
    raise_descriptor_limit()
    if missing := redis_missing():
        raise SystemExit(f"scaling: {missing}")
    header, calibration, pairs = _header(options.runs), [], []
    with ExitStack() as stack:
        observer = None
        if options.check or not options.inputs:
            tools, around = set_up(stack)
            write_paths(around, _USERS)
            observer = Observer(tools, around, options.runs)
        if options.inputs:
            with open(options.inputs, encoding="utf-8") as file:
                inputs = Inputs(**json.load(file)["inputs"])
        else:
            assert observer
            calibration = observer.observe("calibration", _CALIBRATION)
            inputs = fit(calibration, PING)
        if options.check:
            assert observer
            predicted = [inputs.predict(*size) for size in _CHECK]  # before the runs
            pairs = list(zip(predicted, observer.observe("check", _CHECK), strict=True))
    header[0] += f", after: {os.getloadavg()[0]:.1f}"
    _tell(options, header, inputs, calibration, pairs)
    return 0 if all(within(*pair) for pair in pairs) else 1


def _tell(
    options: argparse.Namespace,
    header: list[str],
    inputs: Inputs,
    calibration: Sequence[Run],
    pairs: Sequence[tuple[Run, Run]],
) -> None:
    head = [f"- {line}" for line in header]
    tables = {"scaling-model": model_tables(inputs)}
    if pairs:
        tables["scaling-check"] = [*head, "", *check_table(pairs)]
    for name, lines in tables.items():
        print("\n".join([*lines, ""]))
        if options.write:
            write_between(options.write, name, lines)
    if options.json:
        data = {
            "header": header,
            "inputs": asdict(inputs),
            "calibration": [asdict(run) for run in calibration],
            "check": [asdict(observed) for _, observed in pairs],
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)


if __name__ == "__main__":
    run(main)
