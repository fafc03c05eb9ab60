"""The tables of the scaling page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .model import Inputs, Run
from .simulation import Outcome, class_begins, zone_lost

__all__ = ["check_table", "deviations", "model_tables", "within"]

_WITHIN = 0.20
_SEATS = 245  # of one API server, in the level workload-low
_PER_REPLICA = 2000
_ZONES = 3
_LEASE = 15.0
_CHECKED = (
    ("open_cpu", "CPU per opening, us", 0),
    ("idle_cpu", "idle CPU, % of a core", 2),
    ("memory", "memory, MiB", 0),
    ("open_calls", "store commands per opening", 2),
    ("open_store_cpu", "CPU of the Redis per opening, us", 0),
    ("idle_calls", "store commands/s, idle", 1),
    ("store_memory", "data in the Redis, MiB", 2),
)
_INPUTS = {
    "open_cpu": ("CPU of an opening, one process", "us", 0),
    "open_cpu_more": ("the same, what several processes add", "us", 0),
    "process_cpu": ("CPU of a process without consoles", "% of a core", 2),
    "console_cpu": ("CPU of an idle console, times 1,000", "% of a core", 2),
    "single_memory": ("memory of one process without consoles", "MiB", 1),
    "shared_memory": ("memory that several processes have in common", "MiB", 1),
    "process_memory": ("memory of each of several processes", "MiB", 1),
    "console_memory": ("memory of an idle console", "KiB", 1),
    "open_calls": ("store commands of an opening", "", 2),
    "open_store_cpu": ("CPU of the Redis for an opening", "us", 0),
    "process_calls": ("store commands of a process", "1/s", 2),
    "console_store": ("data of a console in the Redis", "bytes", 0),
}


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def deviations(predicted: Run, observed: Run) -> dict[str, float]:
    """Return by how much each prediction is off, relative to what was observed."""
    found = {}
    for key, _, _ in _CHECKED:
        seen = getattr(observed, key)
        found[key] = (getattr(predicted, key) - seen) / seen if seen else 0.0
    return found


def within(predicted: Run, observed: Run) -> bool:
    """Whether all predictions are close enough."""
    return all(abs(off) <= _WITHIN for off in deviations(predicted, observed).values())


def check_table(pairs: Sequence[tuple[Run, Run]]) -> list[str]:
    """Return the predictions beside what runs have shown."""
    lines = [
        _row("processes", "consoles", *(title for _, title, _ in _CHECKED)),
        _row("---:", "---:", *("---:" for _ in _CHECKED)),
    ]
    for predicted, observed in pairs:
        cells, off = [], deviations(predicted, observed)
        for key, _, digits in _CHECKED:
            by = f"{off[key]:+.0%}"
            shown = [_number(getattr(run, key), digits) for run in (predicted, observed)]
            cells.append(f"{shown[0]} / {shown[1]} ({by if abs(off[key]) <= _WITHIN else f'**{by}**'})")
        lines.append(_row(str(observed.processes), f"{observed.consoles:,}", *cells))
    all_off = [abs(off) for pair in pairs for off in deviations(*pair).values()]
    good = sum(off <= _WITHIN for off in all_off)
    return [
        *lines,
        "",
        f"Predicted / observed (deviation). {good} of {len(all_off)} predictions are within {_WITHIN:.0%}; "
        f"the worst is off by {max(all_off):.0%}.",
    ]


def model_tables(inputs: Inputs) -> list[str]:
    """Return the inputs, and what the model says of larger numbers."""
    return [*_inputs_table(inputs), "", *_sizes(inputs), "", *_class(inputs), "", *_zone(inputs)]


def _inputs_table(inputs: Inputs) -> list[str]:
    lines = [_row("input", "value", "unit"), _row("---", "---:", "---")]
    for name, value in inputs.rows():
        if name in _INPUTS:
            title, unit, digits = _INPUTS[name]
            lines.append(_row(title, _number(value * (1000 if name == "console_cpu" else 1), digits), unit))
    return lines


def replicas_for(consoles: int) -> int:
    """Return how many replicas of one process it takes, if those that are left after a loss still suffice."""
    needed = math.ceil(consoles / _PER_REPLICA)
    for_loss = math.ceil(needed * _ZONES / (_ZONES - 1))
    return max(_ZONES, math.ceil(for_loss / _ZONES) * _ZONES)


def _sizes(inputs: Inputs) -> list[str]:
    rows: list[list[str]] = [
        [
            "replicas",
            "consoles in each; with a zone lost",
            "memory of a replica with a zone lost, MiB",
            "memory in all, GiB",
            "idle CPU in all, cores",
            "store commands/s, idle",
            "data in the store, MiB",
            "connections to the API servers",
            "seats without an exemption",
            f"API servers for them, {_SEATS} seats each",
        ]
    ]
    for consoles in (1000, 10_000, 100_000):
        replicas = replicas_for(consoles)
        each, worst = consoles / replicas, consoles / (replicas * (_ZONES - 1) / _ZONES)
        one = inputs.replica(each)
        rows.append(
            [
                f"{replicas}",
                f"{each:,.0f}; {worst:,.0f}",
                _number(inputs.replica(worst).memory, 0),
                _number(replicas * one.memory / 1024, 2),
                _number(replicas * one.idle_cpu / 100, 2),
                _number(replicas * one.idle_calls, 0),
                _number(inputs.predict(1, consoles).store_memory, 1),
                f"{consoles:,}",
                f"{consoles:,}",
                f"{math.ceil(consoles / _SEATS):,}",
            ]
        )
    lines = [_row("", "1,000 consoles", "10,000", "100,000"), _row("---", "---:", "---:", "---:")]
    return lines + [_row(*cells) for cells in zip(*rows, strict=True)]


def _outcome_rows(title: str, outcome: Outcome, calls: float) -> str:
    return _row(
        title,
        f"{outcome.p50:.2f} / {outcome.p99:.2f} / {outcome.last:.2f}",
        f"{outcome.peak:,}",
        f"{outcome.busiest:.0%}",
        f"{outcome.peak * calls:,.0f}",
        f"{outcome.attempts:.2f}",
    )


_HEAD = (
    "until the console is there, s: p50 / p99 / last",
    "openings in the busiest second",
    "the busiest replica in its busiest second",
    "store commands in that second",
    "attempts",
)


def _class(inputs: Inputs) -> list[str]:
    lines = [_row("300 consoles within a minute", *_HEAD), _row("---", *("---:" for _ in _HEAD))]
    for replicas in (1, 3):
        outcome = class_begins(300, 60.0, replicas, inputs.open_cpu, inputs.open_store_cpu)
        title = f"{replicas} replica{'s' if replicas > 1 else ''}"
        lines.append(_outcome_rows(title, outcome, inputs.open_calls))
    outcome = class_begins(300, 2.0, 3, inputs.open_cpu, inputs.open_store_cpu)
    lines.append(_outcome_rows("3 replicas, all within 2 s", outcome, inputs.open_calls))
    return lines


def _zone(inputs: Inputs) -> list[str]:
    lines = [_row(f"one zone of {_ZONES} lost", *_HEAD), _row("---", *("---:" for _ in _HEAD))]
    for held_for in (0.0, _LEASE):
        for consoles in (1000, 10_000, 100_000):
            left = replicas_for(consoles) * (_ZONES - 1) // _ZONES
            outcome = zone_lost(consoles // _ZONES, left, inputs.open_cpu, inputs.open_store_cpu, held_for)
            title = f"{consoles:,} consoles{', each user at the limit' if held_for else ''}"
            lines.append(_outcome_rows(title, outcome, inputs.open_calls))
    return lines
