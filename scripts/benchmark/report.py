"""The report: a table in Markdown, and the samples in JSON."""

from __future__ import annotations

import datetime
import os
import platform
import ssl
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .measures import Figure, Measure
from .peers import Peer

__all__ = ["Header", "Results", "to_json", "to_markdown"]

_OTHERS = ("nginx", "haproxy", "original")
_NONE = "-"
_NOTES = (
    "peers run with default settings and buffers, one worker or thread; TLS towards the upstream only, its "
    "certificate verified; wsproxy and nginx log each session to a file, the others do not",
    "nginx and haproxy check no token; the original keeps its upstream connection when a client closes; "
    "websockify does less: bytes over bare TCP, frames of its own, a process for each session",
    "direct TLS is a TLS client without session resumption; CPU is the peer's own; memory is the "
    "proportional set size; a ratio is our figure divided by theirs",
)


@dataclass
class Results:
    """The results of all measures.

    :ivar samples: values by measure, figure and peer, one for each run.
    :ivar failures: a text for each failed measure.
    """

    samples: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, measure: Measure, peer: Peer, values: dict[str, float]) -> None:
        """Add the values of one run."""
        for key, value in values.items():
            self.samples.setdefault((measure.key, key, peer.name), []).append(value)

    def median(self, measure: Measure, figure: Figure, peer: Peer | None) -> float | None:
        """Return the median of the runs; None if there is no value."""
        if peer is None or not (values := self.samples.get((measure.key, figure.key, peer.name))):
            return None
        return statistics.median(values)


@dataclass
class Header:
    """The circumstances that a reader of the figures has to know.

    :ivar missing: peers that were not measured, and why.
    :ivar load: load averages before the start.
    """

    runs: int
    seconds: float
    quick: bool
    versions: list[str]
    missing: list[str]
    date: str = field(
        default_factory=lambda: f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    )
    load: tuple[float, ...] = field(default_factory=os.getloadavg)

    def machine(self) -> tuple[str, str]:
        """Return the machine, and the versions."""
        return (
            f"{self.date}; {_machine()}; Linux {platform.release()}; load average before: {self.load[0]:.1f}",
            f"{', '.join(self.versions)}; {ssl.OPENSSL_VERSION}",
        )

    def lines(self) -> list[str]:
        """Return the header as a Markdown list."""
        machine, versions = self.machine()
        runs = "1 run only: no medians" if self.runs == 1 else f"medians of {self.runs} runs, interleaved"
        lines = [
            machine,
            versions,
            f"{'--quick, ' if self.quick else ''}{runs}, {self.seconds:g} s each; all on loopback, "
            "nothing pinned to a CPU: load generator, upstream and peer share the cores",
            *_NOTES,
        ]
        if self.missing:
            lines.append(f"**missing**: {'; '.join(self.missing)}")
        return [f"- {line}" for line in lines]


def _machine() -> str:
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    with open("/proc/meminfo", encoding="ascii") as file:
        gib = int(file.readline().split()[1]) / 2**20
    return f"{model}, {os.cpu_count()} cores, {gib:.0f} GiB"


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


class _Table:
    """The table. Rows are figures for one kind of upstream. Columns are peers, and ratios to our figures."""

    def __init__(self, results: Results, peers: Sequence[Peer]) -> None:
        self._results = results
        self._peers = {(peer.column, peer.tls): peer for peer in peers}
        self._columns = list(dict.fromkeys(peer.column for peer in peers))
        self._others = [column for column in _OTHERS if column in self._columns]
        self._ours = [column for column in self._columns if column.startswith("ours") and self._others]

    def head(self) -> list[str]:
        against = " / ".join(f"x {column}" for column in self._others)
        names = [
            "measure",
            "upstream",
            "unit",
            *self._columns,
            *(f"{ours}: {against}" for ours in self._ours),
        ]
        marks = ["---", "---", "---", *("---:" for _ in names[3:])]
        return [_row(names), _row(marks)]

    def rows(self, measure: Measure) -> list[str]:
        rows = []
        for tls in (False, True):
            for figure in measure.figures:
                values = {
                    column: self._results.median(measure, figure, self._peers.get((column, tls)))
                    for column in self._columns
                }
                if any(value is not None for value in values.values()):
                    rows.append(self._one(measure, figure, tls, values))
        return rows

    def _one(self, measure: Measure, figure: Figure, tls: bool, values: dict[str, float | None]) -> str:
        return _row(
            [
                measure.title,
                "TLS" if tls else "plain",
                figure.unit + (" (less is better)" if figure.less_is_better else ""),
                *(_number(values[column]) for column in self._columns),
                *(self._ratios(values, ours) for ours in self._ours),
            ]
        )

    def _ratios(self, values: dict[str, float | None], ours: str) -> str:
        return " / ".join(_ratio(values[ours], values[other]) for other in self._others)


def _ratio(ours: float | None, theirs: float | None) -> str:
    if ours is None or not theirs:
        return _NONE
    return f"{ours / theirs:.2f}"


def _spread(results: Results) -> list[str]:
    """Return lines that say how much the runs differ."""
    spreads = sorted(
        ((max(values) - min(values)) / statistics.median(values), " ".join(key))
        for key, values in results.samples.items()
        if len(values) > 1 and statistics.median(values) > 0
    )
    if not spreads:
        return []
    middle, (worst, where) = spreads[len(spreads) // 2][0], spreads[-1]
    return [
        "",
        f"Range of the runs relative to the median: half of the figures within {middle:.0%}, "
        f"the worst {worst:.0%} ({where}).",
    ]


def to_markdown(header: Header, measures: Sequence[Measure], peers: Sequence[Peer], results: Results) -> str:
    """Return the report. A ratio is our figure divided by theirs."""
    table = _Table(results, peers)
    lines = [*header.lines(), "", *table.head()]
    for measure in measures:
        lines += table.rows(measure)
    lines += _spread(results)
    if results.failures:
        lines += ["", "Failed:", "", *(f"- {failure}" for failure in results.failures)]
    return "\n".join(lines)


def to_json(header: Header, results: Results) -> dict[str, Any]:
    """Return the report with every sample."""
    return {
        "header": header.lines(),
        "samples": [
            {"measure": measure, "figure": figure, "peer": peer, "values": values}
            for (measure, figure, peer), values in results.samples.items()
        ],
        "failures": results.failures,
    }
