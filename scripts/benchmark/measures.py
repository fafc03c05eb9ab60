"""The measures, and how each computes its figures for a peer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .peers import Peer, Running
from .processes import Process
from .tools import Target, Tools

__all__ = ["IDLE_2000", "MEASURES", "Figure", "Idle", "Load", "Measure", "Memory", "Pace"]

# Seconds between the last session's opening and the reading of the memory.
_SETTLING = 1.0
_MIB, _GIB = 2**20, 2**30


@dataclass(frozen=True)
class Pace:
    """How long a measure takes.

    :ivar warmup: seconds of warm-up, which are not measured.
    :ivar seconds: seconds that are measured.
    """

    warmup: float
    seconds: float


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    :ivar key: identifies it within the measure.
    :ivar less_is_better: whether a ratio below 1 is good.
    :ivar compute: returns the value, from the output of ``load`` and the peer's CPU seconds (None without a
        process).
    """

    key: str
    unit: str
    less_is_better: bool
    compute: Callable[[Mapping[str, Any], float | None], float | None]


@dataclass(frozen=True)
class Measure:
    """One thing to measure.

    :ivar key: the name that ``--only`` matches.
    :ivar title: the heading of its rows.
    :ivar vmi: the virtual machine whose consoles the sessions open.
    :ivar fresh: whether the peer must be started for this measure.
    """

    key: str
    title: str
    vmi: str
    sessions: int
    figures: tuple[Figure, ...]
    fresh: bool = field(default=False, kw_only=True)

    def applies(self, peer: Peer) -> bool:
        """Whether the measure makes sense for this peer."""
        return True

    def run(self, tools: Tools, running: Running, pace: Pace) -> dict[str, float]:
        """Measure, and return values by the figures' keys.

        :raises LoadFailed: if the measure failed.
        """
        raise NotImplementedError


class _Cpu:
    """Reads a peer's CPU time at the beginning and at the end of the measured time."""

    def __init__(self, process: Process | None) -> None:
        self._process = process
        self._at_begin = self._at_end = 0.0

    def begin(self) -> None:
        if self._process is not None:
            self._at_begin = self._process.cpu_seconds()

    def end(self) -> None:
        if self._process is not None:
            self._at_end = self._process.cpu_seconds()

    @property
    def seconds(self) -> float | None:
        return None if self._process is None else self._at_end - self._at_begin


@dataclass(frozen=True)
class Load(Measure):
    """A measure that ``load`` makes by itself.

    :ivar mode: the mode of ``load``.
    :ivar size: bytes of payload in a frame.
    :ivar framed: whether it counts frames. Then it does not apply to a peer that changes frames.
    """

    mode: str = field(kw_only=True)
    size: int = field(default=32, kw_only=True)
    framed: bool = field(default=False, kw_only=True)

    def applies(self, peer: Peer) -> bool:
        return peer.frames or not self.framed

    def run(self, tools: Tools, running: Running, pace: Pace) -> dict[str, float]:
        cpu = _Cpu(running.process)
        result = tools.run_load(
            self.mode,
            running.target(self.vmi),
            sessions=self.sessions,
            size=self.size,
            warmup=pace.warmup,
            seconds=pace.seconds,
            at_begin=cpu.begin,
            at_end=cpu.end,
        )
        values = {figure.key: figure.compute(result, cpu.seconds) for figure in self.figures}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class _Held(Measure):
    """A measure of a peer with idle sessions."""

    def applies(self, peer: Peer) -> bool:
        return peer.column != "direct"

    def run(self, tools: Tools, running: Running, pace: Pace) -> dict[str, float]:
        process = running.process
        assert process is not None
        target = running.target(self.vmi)
        # Costs of the first session only, such as imports, must not count.
        self._hold(tools, target, 1, lambda: 0.0)
        before = process.memory()
        value = self._hold(tools, target, self.sessions, lambda: self.look(process, before))
        return {self.figures[0].key: value}

    def _hold(self, tools: Tools, target: Target, sessions: int, look: Callable[[], float]) -> float:
        """Return the value of ``look`` while sessions are open."""
        with tools.start_load(
            "hold", target, sessions=sessions, size=32, warmup=0, seconds=self.duration()
        ) as load:
            load.wait_for_begin()
            value = look()
            load.finish()
        return value

    def duration(self) -> float:
        """The seconds for which the sessions are held at most."""
        return 60.0

    def look(self, process: Process, before: int) -> float:
        """Return the value while the sessions are open. ``before`` is the memory used before they opened."""
        raise NotImplementedError


@dataclass(frozen=True)
class Memory(_Held):
    """Memory per idle session."""

    def look(self, process: Process, before: int) -> float:
        time.sleep(_SETTLING)
        return (process.memory() - before) / self.sessions / 1024


@dataclass(frozen=True)
class Idle(_Held):
    """CPU time of idle sessions, as a share of one core.

    :ivar period: seconds; a multiple of wsproxy's ping interval (25 s) and of the original's (20 s).
    """

    period: float = field(default=100.0, kw_only=True)
    settling: float = field(default=5.0, kw_only=True)

    def applies(self, peer: Peer) -> bool:
        return peer.pings

    def duration(self) -> float:
        return self.period + self.settling + 60.0

    def look(self, process: Process, before: int) -> float:
        time.sleep(self.settling)
        started, cpu = time.monotonic(), process.cpu_seconds()
        time.sleep(self.period)
        return (process.cpu_seconds() - cpu) / (time.monotonic() - started) * 100


def _per(what: str, unit: float) -> Callable[[Mapping[str, Any], float | None], float | None]:
    """Return a function that computes the CPU seconds for each ``unit`` of a counter."""

    def compute(result: Mapping[str, Any], cpu: float | None) -> float | None:
        return cpu / (result[what] / unit) if cpu is not None and result[what] else None

    return compute


def _rate(what: str, unit: float) -> Callable[[Mapping[str, Any], float | None], float | None]:
    return lambda result, cpu: result[what] / unit / result["seconds"]


def _time(which: str) -> Callable[[Mapping[str, Any], float | None], float | None]:
    return lambda result, cpu: result.get(which)


_BYTES = Figure("rate", "MiB/s", False, _rate("bytes", _MIB))
_MESSAGES = Figure("rate", "thousand/s", False, _rate("messages", 1000))
_CPU_BYTES = Figure("cpu", "CPU s per GiB", True, _per("bytes", _GIB))
_CPU_MESSAGES = Figure("cpu", "CPU s per million", True, _per("messages", 1e6))
_P50 = Figure("p50", "p50, us", True, _time("p50_us"))
_P99 = Figure("p99", "p99, us", True, _time("p99_us"))
_ECHOES = Figure("rate", "thousand/s", False, _rate("count", 1000))
_CPU_ECHO = Figure("cpu", "CPU us each", True, _per("count", 1e6))
_OPENED = Figure("rate", "sessions/s", False, _rate("count", 1))
_CPU_OPEN = Figure("cpu", "CPU ms each", True, _per("count", 1e3))
_KIB = Figure("memory", "KiB", True, lambda result, cpu: None)
_SHARE = Figure("share", "% of one core", True, lambda result, cpu: None)


def _bulk(key: str, title: str, vmi: str, size: int, figures: tuple[Figure, ...]) -> Load:
    mode = "up" if vmi == "sink" else "down"
    return Load(key, title, vmi, 1, figures, mode=mode, size=size, framed=_MESSAGES in figures)


def _echo(sessions: int) -> Load:
    title = f"echo of 32 B, {sessions} session{'s' if sessions > 1 else ''}"
    return Load(f"echo-{sessions}", title, "echo", sessions, (_P50, _P99, _ECHOES, _CPU_ECHO), mode="echo")


def _open(at_a_time: int) -> Load:
    title = f"sessions opened and closed, {at_a_time} at a time"
    return Load(f"open-{at_a_time}", title, "idle", at_a_time, (_OPENED, _P50, _CPU_OPEN), mode="open")


MEASURES: tuple[Measure, ...] = (
    _bulk("down-32k", "32 KiB frames down", "bulk-32k", 32768, (_BYTES, _CPU_BYTES)),
    _bulk("down-1k", "1 KiB frames down", "bulk-1k", 1024, (_MESSAGES, _CPU_MESSAGES)),
    _bulk("down-64", "64 B frames down", "bulk-64", 64, (_MESSAGES, _CPU_MESSAGES)),
    _bulk("up-32k", "32 KiB frames up", "sink", 32768, (_BYTES, _CPU_BYTES)),
    _bulk("up-1k", "1 KiB frames up", "sink", 1024, (_MESSAGES, _CPU_MESSAGES)),
    _echo(1),
    _echo(16),
    _echo(128),
    # After these the original still holds its upstream connections: it does not notice that clients leave.
    _open(1),
    _open(8),
    Memory("memory", "memory per idle session, of 500", "idle", 500, (_KIB,), fresh=True),
)
"""The measures, in the order in which the benchmark makes them."""

IDLE_2000 = Idle(
    "idle-2000", "2,000 idle sessions with default pings, one run", "idle", 2000, (_SHARE,), fresh=True
)
