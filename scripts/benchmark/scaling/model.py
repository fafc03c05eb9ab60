"""The model: what consoles cost, from inputs that small runs have measured. No I/O."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

__all__ = ["DEFAULT_PING", "Inputs", "Run", "fit"]

DEFAULT_PING = 25.0
"""Seconds between two pings of a console, with the default settings."""


@dataclass(frozen=True)
class Run:
    """What one run has shown, or what is predicted for it.

    :ivar open_cpu: CPU of wsproxy for one opening, microseconds.
    :ivar idle_cpu: CPU of wsproxy with the consoles idle, percent of a core.
    :ivar memory: of wsproxy, MiB.
    :ivar open_calls: commands for the store for one opening.
    :ivar open_store_cpu: CPU of the Redis for one opening, microseconds.
    :ivar idle_calls: commands for the store in a second, with the consoles idle.
    :ivar store_memory: of the data in the Redis, MiB more than without consoles.
    """

    processes: int
    consoles: int
    open_cpu: float
    idle_cpu: float
    memory: float
    open_calls: float
    open_store_cpu: float
    idle_calls: float
    store_memory: float


@dataclass(frozen=True)
class Inputs:
    """What the model has been told. CPU is of wsproxy, if nothing else is said.

    :ivar ping: seconds between two pings of a console, in the runs behind the inputs.
    :ivar open_cpu: microseconds for one opening with one process.
    :ivar open_cpu_more: microseconds that it takes more with several.
    :ivar process_cpu: percent of a core for a process without consoles.
    :ivar console_cpu: percent of a core for an idle console.
    :ivar single_memory: MiB of the one process without consoles.
    :ivar shared_memory: MiB that several processes have in common, with their supervisor.
    :ivar process_memory: MiB of each of several processes without consoles.
    :ivar console_memory: KiB of an idle console.
    :ivar open_calls: commands for the store for one opening.
    :ivar open_store_cpu: microseconds of the Redis for one opening.
    :ivar process_calls: commands a second for a process.
    :ivar console_store: bytes of an idle console in the Redis.
    """

    ping: float
    open_cpu: float
    open_cpu_more: float
    process_cpu: float
    console_cpu: float
    single_memory: float
    shared_memory: float
    process_memory: float
    console_memory: float
    open_calls: float
    open_store_cpu: float
    process_calls: float
    console_store: float

    def predict(self, processes: int, consoles: int, ping: float | None = None) -> Run:
        """Return what so many consoles cost in so many processes of one supervisor.

        :param ping: seconds between two pings; None for those of the runs behind the inputs.
        """
        several = processes > 1
        base = self.shared_memory + processes * self.process_memory if several else self.single_memory
        pings = self.ping / (ping or self.ping)
        return Run(
            processes,
            consoles,
            open_cpu=self.open_cpu + several * self.open_cpu_more,
            idle_cpu=processes * self.process_cpu + consoles * self.console_cpu * pings,
            memory=base + consoles * self.console_memory / 1024,
            open_calls=self.open_calls,
            open_store_cpu=self.open_store_cpu,
            idle_calls=processes * self.process_calls,
            store_memory=consoles * self.console_store / 2**20,
        )

    def replica(self, consoles: float, ping: float = DEFAULT_PING) -> Run:
        """Return what consoles cost in a replica of one process."""
        return self.predict(1, round(consoles), ping)

    def rows(self) -> list[tuple[str, float]]:
        """Return the names and values, for a table."""
        return list(asdict(self).items())


def fit(runs: Sequence[Run], ping: float) -> Inputs:
    """Return the inputs that fit some runs best: of one process, and of different numbers of several.

    :param ping: seconds between two pings in these runs.
    """
    single = [run for run in runs if run.processes == 1]
    several = [run for run in runs if run.processes > 1]

    def of(some: Sequence[Run], value: Callable[[Run], float]) -> float:
        return statistics.fmean(map(value, some))

    idle = _least_squares([(run.processes, run.consoles) for run in runs], [run.idle_cpu for run in runs])
    memory = _least_squares(
        [(run.processes == 1, run.processes > 1, *_workers(run)) for run in runs],
        [run.memory for run in runs],
    )
    alone = of(single, lambda run: run.open_cpu)
    return Inputs(
        ping=ping,
        open_cpu=alone,
        open_cpu_more=of(several, lambda run: run.open_cpu) - alone,
        process_cpu=idle[0],
        console_cpu=idle[1],
        single_memory=memory[0],
        shared_memory=memory[1],
        process_memory=memory[2],
        console_memory=memory[3] * 1024,
        open_calls=of(runs, lambda run: run.open_calls),
        open_store_cpu=of(runs, lambda run: run.open_store_cpu),
        process_calls=of(runs, lambda run: run.idle_calls / run.processes),
        console_store=of(runs, lambda run: run.store_memory / run.consoles) * 2**20,
    )


def _workers(run: Run) -> tuple[float, float]:
    return (run.processes if run.processes > 1 else 0, run.consoles)


def _least_squares(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Return the factors with which the rows come closest to the values, relative to these."""
    scaled = [[float(cell) / value for cell in row] for row, value in zip(rows, values, strict=True)]
    size = len(scaled[0])
    matrix = [
        [sum(row[i] * row[j] for row in scaled) for j in range(size)] + [sum(row[i] for row in scaled)]
        for i in range(size)
    ]
    for i in range(size):  # Gauss and Jordan
        pivot = max(range(i, size), key=lambda k: abs(matrix[k][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        if math.isclose(matrix[i][i], 0.0, abs_tol=1e-30):
            raise ValueError("the runs are too much alike to tell the inputs apart")
        matrix[i] = [cell / matrix[i][i] for cell in matrix[i]]
        for k in range(size):
            if k != i:
                matrix[k] = [a - matrix[k][i] * b for a, b in zip(matrix[k], matrix[i], strict=True)]
    return [row[-1] for row in matrix]
