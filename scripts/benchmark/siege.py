"""Measures sessions while thousands of connections without a complete request flood the proxy."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from wsproxy.settings.table import FIELDS

from .peers import Running
from .tools import Tools

__all__ = ["NEEDED_DESCRIPTORS", "Outcome", "measure_siege"]

HALF_OPEN, SLOW = 2000, 2000
RATE = 1000
"""How many connections a second ``siege`` opens at most, including those that the proxy has closed before."""
NEEDED_DESCRIPTORS = HALF_OPEN + SLOW + 100

_CALM_SECONDS, _SIEGE_SECONDS = 8.0, 20.0
_WARMUP = 0.5
_LOOK_SECONDS = 0.25
_AFTER_SECONDS = 4.0  # until the idle threads have ended, too
_MIB = 2**20

_MOST_OPEN_US = 1e6
_MOST_ECHO_US = 5e4
_PENDING = FIELDS["max_pending"].default
_MOST_GROWTH = _PENDING * 64 * 1024 + 8 * _MIB
_MOST_THREADS = 2 * _PENDING + 32
_HOLDS = (
    "Holds: a session opens within 1 s, an echo comes within 50 ms at p99, memory grows by "
    f"{_MOST_GROWTH / _MIB:.0f} MiB at most, there are {_MOST_THREADS:,} threads at most."
)


@dataclass
class _Phase:
    """The measurements of one phase: times in microseconds, memory in bytes."""

    title: str
    enter: dict[str, float] = field(default_factory=dict)
    keys: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0
    memory: int = 0
    threads: int = 0

    def row(self) -> str:
        times = (self.enter["p50_us"], self.enter["max_us"], self.keys["p50_us"], self.keys["p99_us"])
        cells = [
            self.title,
            f"{self.enter['count']:,.0f}",
            *(f"{value / 1e3:,.2f}" for value in times),
            f"{self.cpu:.0%}",
            f"{self.memory / _MIB:.1f}",
            f"{self.threads:,}",
        ]
        return f"| {' | '.join(cells)} |"


@dataclass
class Outcome:
    """The results of a siege.

    :ivar siege: the output of ``siege``.
    :ivar turned_away: how many connections the proxy closed because of the cap, by its log.
    :ivar memory_after: bytes after the siege.
    """

    calm: _Phase
    besieged: _Phase
    siege: dict[str, Any]
    turned_away: int
    memory_after: int
    threads_after: int

    @property
    def broken(self) -> list[str]:
        """The bounds that do not hold."""
        enter, keys = self.besieged.enter, self.besieged.keys
        growth = self.besieged.memory - self.calm.memory
        checks = (
            (enter["max_us"] <= _MOST_OPEN_US, "a session took more than 1 s to open"),
            (keys["p99_us"] <= _MOST_ECHO_US, "an echo took more than 50 ms at p99"),
            (growth <= _MOST_GROWTH, f"memory grew by more than {_MOST_GROWTH / _MIB:.0f} MiB"),
            (self.besieged.threads <= _MOST_THREADS, f"there were more than {_MOST_THREADS:,} threads"),
            (self.siege["connected"] >= HALF_OPEN + SLOW, "the siege did not come about"),
            (self.turned_away > 0, "the cap was never reached"),
        )
        return [text for holds, text in checks if not holds]

    def lines(self) -> list[str]:
        """Return the report in Markdown."""
        siege = self.siege
        return [
            f"- {HALF_OPEN:,} half-open and {SLOW:,} slow connections from 127.0.0.2 to 127.0.0.254, opened "
            f"again when the proxy closes them, {RATE:,} a second at most; one proxy process with its "
            f"default settings, of which at most {_PENDING} unauthenticated connections",
            "- sessions from 127.0.0.1: one after the other, up to the first echo of 32 B, and one that "
            "echoes 32 B every 10 ms; CPU of one core; memory (PSS) and threads at the worst",
            "",
            "| | sessions opened | open p50, ms | open worst, ms | echo p50, ms | echo p99, ms | CPU "
            "| memory, MiB | threads |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            self.calm.row(),
            self.besieged.row(),
            f"| afterwards | | | | | | | {self.memory_after / _MIB:.1f} | {self.threads_after:,} |",
            "",
            f"The siege tried {siege['attempted']:,} connections, had {siege['connected']:,} and lost "
            f"{siege['closed']:,} of them, {self.turned_away:,} to the cap; {siege['answered']:,} got an "
            f"answer, {siege['failed']:,} did not connect.",
            "",
            f"Broken: {'; '.join(self.broken)}." if self.broken else _HOLDS,
        ]


def measure_siege(tools: Tools, running: Running, log: str) -> Outcome:
    """Measure sessions without a siege, and during one. Takes 40 seconds.

    :param running: the proxy.
    :param log: the file with its output.
    :raises LoadFailed: if a session failed.
    """
    process = running.process
    assert process is not None
    calm = _measure(_Phase("without a siege"), tools, running, _CALM_SECONDS)
    with tools.start_siege(process.port, half_open=HALF_OPEN, slow=SLOW, rate=RATE) as siege:
        siege.wait_for_begin()
        besieged = _measure(_Phase("under siege"), tools, running, _SIEGE_SECONDS)
        counted = siege.finish()
    time.sleep(_AFTER_SECONDS)
    return Outcome(calm, besieged, counted, _turned_away(log), process.memory(), process.threads())


def _turned_away(log: str) -> int:
    with open(log, encoding="utf-8") as file:
        return sum(int(n) for n in re.findall(r"(\d+) connections closed before authentication", file.read()))


def _measure(phase: _Phase, tools: Tools, running: Running, seconds: float) -> _Phase:
    """Open sessions and send echoes at the same time, and read the proxy's memory and threads meanwhile."""
    process = running.process
    assert process is not None
    before, started = process.cpu_seconds(), time.monotonic()
    with ThreadPoolExecutor() as pool:
        loads = [pool.submit(_load, tools, running, mode, seconds) for mode in ("enter", "keys")]
        while not all(load.done() for load in loads):
            phase.memory = max(phase.memory, process.memory())
            phase.threads = max(phase.threads, process.threads())
            time.sleep(_LOOK_SECONDS)
    phase.cpu = (process.cpu_seconds() - before) / (time.monotonic() - started)
    phase.enter, phase.keys = (load.result() for load in loads)
    return phase


def _load(tools: Tools, running: Running, mode: str, seconds: float) -> dict[str, Any]:
    return tools.run_load(
        mode,
        running.target("echo"),
        sessions=1,
        size=32,
        warmup=_WARMUP,
        seconds=seconds,
        at_begin=lambda: None,
        at_end=lambda: None,
    )
