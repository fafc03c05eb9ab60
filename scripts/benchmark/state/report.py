"""The report of the benchmark of the shared state: targets, and the samples behind them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from .measures import Samples

__all__ = ["state_report"]


class _Figures:
    """Medians, and differences and ratios of what was measured in the same round."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def of(self, name: str) -> list[float]:
        return self._samples.get(name, [])

    def paired(self, name: str, other: str, how: Callable[[float, float], float]) -> list[float]:
        return [how(one, two) for one, two in zip(self.of(name), self.of(other), strict=False)]

    def added(self, measure: str, store: str, figure: str, own: str = "") -> list[float]:
        return self.paired(
            f"{measure} {store} {figure}", f"{measure} memory {own or figure}", lambda a, b: a - b
        )

    def ratio(self, name: str, other: str) -> list[float]:
        return self.paired(name, other, lambda a, b: a / b)


def _shown(values: Sequence[float], digits: int = 0) -> str:
    """Return the median, and the range of several values."""
    if not values:
        return "-"
    text = f"{statistics.median(values):,.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
    return text


def _verdict(values: Sequence[float], holds: Callable[[float], bool]) -> str:
    if not values:
        return "not measured"
    return "yes" if holds(statistics.median(values)) else "**no**"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def state_report(header: Sequence[str], samples: Samples, commit: str) -> list[str]:
    """Return the lines of the report in Markdown."""
    figures = _Figures(samples)
    return [
        *(f"- {line}" for line in header),
        "",
        *_targets(figures, commit),
        "",
        *_openings(figures),
        "",
        *_before(figures, commit),
    ]


def _targets(figures: _Figures, commit: str) -> list[str]:
    p50, enter = figures.added("one", "Redis", "p50"), figures.added("enter", "Redis", "p50")
    cpu = figures.added("one", "Redis", "all", "all")
    calls, commands = figures.of("idle Redis calls"), figures.of("idle Redis commands")
    rows = [_row("target", "found: median (range)", "reached"), _row("---", "---:", "---")]

    def add(target: str, values: Sequence[float], holds: Callable[[float], bool], digits: int = 0) -> None:
        rows.append(_row(target, _shown(values, digits), _verdict(values, holds)))

    add("Redis adds at most 600 us to an opening at p50, one after the other", p50, lambda v: v <= 600)
    add("the same, up to the first echo, 50 ms apart", enter, lambda v: v <= 600)
    add("Redis adds at most 500 us of CPU to an opening, its own included", cpu, lambda v: v <= 500)
    for store in ("Redis", "local"):
        values = figures.ratio(f"four {store} rate", "four no store rate")
        add(f"4 processes with {store}: at least 0.8 x the openings a second", values, lambda v: v >= 0.8, 2)
    for store in ("memory", "local", "Redis"):
        for processes in (1, 4):
            if values := figures.of(f"alone {store} {processes}"):
                text = (
                    f"`{store}` alone, {processes} process{'es' if processes > 1 else ''}: 2,000 admissions/s"
                )
                add(text, values, lambda v: v >= 2000)
    add("2,000 idle sessions in 4 processes: under 20 commands/s", calls, lambda v: v < 20, 1)
    rows.append(_row("the same, with the commands within the scripts", _shown(commands, 1), ""))
    rows.append(_row("the same, CPU of the Redis, % of a core", _shown(figures.of("idle Redis cpu"), 2), ""))
    for at_a_time in (1, 8):
        key = f"alike-{at_a_time}"
        rate = figures.ratio(f"{key} now rate", f"{key} before rate")
        cpu = figures.ratio(f"{key} now cpu", f"{key} before cpu")
        add(
            f"`memory`, openings/s, {at_a_time} at a time, against `{commit}`: 1",
            rate,
            lambda v: v >= 0.97,
            2,
        )
        add("the same, CPU per opening: 1", cpu, lambda v: v <= 1.03, 2)
    memory = figures.ratio("alike now memory", "alike before memory")
    add(f"`memory`, memory per idle session, against `{commit}`: 1", memory, lambda v: v <= 1.03, 2)
    return rows


def _openings(figures: _Figures) -> list[str]:
    rows = [
        _row("openings", "store", "a second", "p50, us", "CPU of wsproxy, us", "CPU of the store, us"),
        _row("---", "---", "---:", "---:", "---:", "---:"),
    ]
    for measure, title, stores in (
        ("one", "1 process, one at a time", ("memory", "local", "Redis")),
        ("four", "4 processes, 16 at a time", ("no store", "local", "Redis")),
    ):
        for store in stores:
            cells = [
                _shown(figures.of(f"{measure} {store} {key}")) for key in ("rate", "p50", "cpu", "store")
            ]
            rows.append(_row(title, store, *cells))
    return rows


def _before(figures: _Figures, commit: str) -> list[str]:
    rows = [_row("one process, default settings", "now", f"`{commit}`"), _row("---", "---:", "---:")]
    for at_a_time in (1, 8):
        for key, unit in (("rate", "openings/s"), ("p50", "p50, us"), ("cpu", "CPU per opening, us")):
            cells = [_shown(figures.of(f"alike-{at_a_time} {side} {key}")) for side in ("now", "before")]
            rows.append(_row(f"{unit}, {at_a_time} at a time", *cells))
    cells = [_shown(figures.of(f"alike {side} memory"), 1) for side in ("now", "before")]
    rows.append(_row("KiB per idle session, of 500", *cells))
    return rows
