"""Runs wsproxy with consoles, and measures what the model predicts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..measures import Pace
from ..peers import Running, Surroundings
from ..processes import Process
from ..state.servers import RedisServer
from ..state.sides import SHARED_SETTINGS, Side
from ..tools import LoadFailed, Tools
from .model import Run

__all__ = ["PING", "observe"]

PING = 5.0
"""Seconds between two pings of a console in these runs: shorter than the default, so that runs are."""

_WINDOW = 2 * PING  # seconds for which idle consoles are observed
_SETTLING = 1.5  # seconds
_READY_SECONDS = 40.0
_WARM = Pace(0.2, 0.8)  # each process opens its first sessions
_AT_A_TIME = 24


def observe(tools: Tools, around: Surroundings, processes: int, consoles: int) -> Run:
    """Open consoles one after the other, and watch them idle. Takes about 20 seconds.

    :raises LoadFailed: if a console cannot be opened.
    """
    with ExitStack() as stack:
        store = RedisServer(around.directory)
        stack.callback(store.stop)
        settings = {
            **SHARED_SETTINGS,
            "WSPROXY_STATE": store.url,
            "WSPROXY_STATE_LEASE": "2",
            "WSPROXY_PING_INTERVAL": f"{PING:g}",
        }
        running = Side("scaling", True, workers=processes, settings=settings).run(around)
        stack.callback(running.stop)
        process = running.process
        assert process is not None
        _warm_up(tools, running)
        data, store_cpu = store.data(), store.cpu_seconds()
        calls, cpu = store.calls(), process.cpu_seconds()
        with _held(tools, running, consoles) as opening_seconds:
            opened = store.calls() - calls, process.cpu_seconds() - cpu
            store_cpu = store.cpu_seconds() - store_cpu
            time.sleep(_SETTLING)
            idle_cpu, idle_calls = _idle(process, store)
            beats = idle_calls * opening_seconds
            return Run(
                processes,
                consoles,
                open_cpu=opened[1] / consoles * 1e6,
                idle_cpu=idle_cpu,
                memory=process.memory() / 2**20,
                open_calls=max(opened[0] - beats, 0) / consoles,
                open_store_cpu=store_cpu / consoles * 1e6,
                idle_calls=idle_calls,
                store_memory=(store.data() - data) / 2**20,
            )


def _warm_up(tools: Tools, running: Running) -> None:
    """Wait until the store admits sessions, and have every process open some."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            tools.run_load(
                "open",
                running.target("idle"),
                sessions=_AT_A_TIME,
                size=32,
                warmup=_WARM.warmup,
                seconds=_WARM.seconds,
                at_begin=lambda: None,
                at_end=lambda: None,
            )
            break
        except LoadFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    time.sleep(_SETTLING)


@contextmanager
def _held(tools: Tools, running: Running, consoles: int) -> Iterator[float]:
    """Context manager for open consoles. Its value says how many seconds it took to open them."""
    begun = time.monotonic()
    target = running.target("idle")
    with tools.start_load("hold", target, sessions=consoles, size=32, warmup=0, seconds=60) as load:
        load.wait_for_begin()
        yield time.monotonic() - begun
        load.finish()


def _idle(process: Process, store: RedisServer) -> tuple[float, float]:
    """Return the percentage of a core, and the commands for the store in a second."""
    begun, cpu, calls = time.monotonic(), process.cpu_seconds(), store.calls()
    time.sleep(_WINDOW)
    passed = time.monotonic() - begun
    return (process.cpu_seconds() - cpu) / passed * 100, (store.calls() - calls) / passed
