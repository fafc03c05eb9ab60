"""What the benchmark of the shared state measures, each with all sides in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from ..measures import Pace
from ..peers import Running, Surroundings
from ..tools import LoadFailed, Tools
from .alone import admissions_per_second
from .servers import LocalServer, RedisServer, StoreServer
from .sides import SHARED_SETTINGS, Side

__all__ = ["Samples", "StateBench"]

_READY_SECONDS = 40.0
_SETTLING = 1.0  # seconds between the last opening and the first look
_LEASE = "2"  # seconds; a new Redis admits nobody for so long. Processes beat as often as with a longer one.
_IDLE, _IDLE_PROCESSES = 2000, 4
_MEMORY_SESSIONS = 500

Samples = dict[str, list[float]]
"""Values by name, one for each round."""


@dataclass
class StateBench:
    """Measures, and keeps the samples.

    :ivar rounds: how often each side is measured.
    :ivar before: the directory with the package of an earlier commit; None if there is none.
    :ivar redis: whether there is a Redis.
    :ivar say: told what happens.
    """

    tools: Tools
    around: Surroundings
    pace: Pace
    rounds: int
    before: str | None
    here: str
    redis: bool
    say: Callable[[str], None]
    samples: Samples = field(default_factory=dict)

    def run(self) -> None:
        """Measure everything."""
        self._one_process()
        self._four_processes()
        if self.redis:
            self._idle()
        self._alone()
        if self.before:
            self._against_before()

    # The sides

    @contextmanager
    def _stores(self) -> Iterator[dict[str, StoreServer]]:
        """Context manager for the stores that there are, by name."""
        with ExitStack() as stack:
            stores: dict[str, StoreServer] = {"local": LocalServer(self.around.directory)}
            stack.callback(stores["local"].stop)
            if self.redis:
                stores["Redis"] = RedisServer(self.around.directory)
                stack.callback(stores["Redis"].stop)
            yield stores

    def _started(self, stack: ExitStack, sides: Iterable[Side]) -> list[Running]:
        running = []
        for side in sides:
            one = side.run(self.around)
            stack.callback(one.stop)
            running.append(one)
        for one in running:
            self._wait_until_admitted(one)
        return running

    def _wait_until_admitted(self, running: Running) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                self._open(running, "open", 1, Pace(0, 0.1))
                return
            except LoadFailed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _open(
        self, running: Running, mode: str, at_a_time: int, pace: Pace, look: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        vmi = "echo" if mode == "enter" else "idle"
        return self.tools.run_load(
            mode,
            running.target(vmi),
            sessions=at_a_time,
            size=32,
            warmup=pace.warmup,
            seconds=pace.seconds,
            at_begin=look,
            at_end=look,
        )

    def _measured(
        self, name: str, running: Running, store: StoreServer | None, at_a_time: int
    ) -> dict[str, float]:
        """Open and close sessions, and return the rate, the time, and the CPU time of each."""
        process, looks = running.process, []
        assert process is not None
        look = lambda: looks.append((process.cpu_seconds(), store.cpu_seconds() if store else 0.0))  # noqa: E731
        result = self._open(running, "open", at_a_time, self.pace, look)
        count = result["count"]
        own, stores = ((looks[1][i] - looks[0][i]) / count * 1e6 for i in (0, 1))
        values = {"rate": result["seconds"] and count / result["seconds"], "p50": result["p50_us"]}
        values |= {"cpu": own, "store": stores, "all": own + stores}
        self.say(f"    {name}: " + ", ".join(f"{key} {value:,.0f}" for key, value in values.items()))
        return values

    def _note(self, measure: str, side: str, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.samples.setdefault(f"{measure} {side} {key}", []).append(value)

    def _turns(self, items: Sequence[tuple[str, Running]]) -> Iterator[tuple[int, str, Running]]:
        """Yield every item in every round. Each round begins with another one."""
        for number in range(self.rounds):
            first = number % len(items)
            for name, running in (*items[first:], *items[:first]):
                yield number, name, running

    # The measures

    def _one_process(self) -> None:
        self.say("one process, one opening at a time")
        with ExitStack() as stack:
            stores = stack.enter_context(self._stores())
            shared = {**SHARED_SETTINGS, "WSPROXY_STATE_LEASE": _LEASE}
            sides = [Side("memory", False, settings=SHARED_SETTINGS)]
            sides += [
                Side(name, False, settings={**shared, "WSPROXY_STATE": store.url})
                for name, store in stores.items()
            ]
            running = self._started(stack, sides)
            names = [side.column for side in sides]
            for _, name, one in self._turns(list(zip(names, running, strict=True))):
                self._note("one", name, self._measured(name, one, stores.get(name), 1))
                entered = self._open(one, "enter", 1, Pace(0.1, self.pace.seconds))
                self._note("enter", name, {"p50": entered["p50_us"]})

    def _four_processes(self) -> None:
        self.say("four processes, 16 openings at a time")
        with ExitStack() as stack:
            stores = stack.enter_context(self._stores())
            shared = {**SHARED_SETTINGS, "WSPROXY_STATE_LEASE": _LEASE}
            sides = [Side("no store", False, workers=4)]
            sides += [
                Side(name, False, workers=4, settings={**shared, "WSPROXY_STATE": store.url})
                for name, store in stores.items()
            ]
            running = self._started(stack, sides)
            names = [side.column for side in sides]
            for _, name, one in self._turns(list(zip(names, running, strict=True))):
                self._note("four", name, self._measured(name, one, stores.get(name), 16))

    def _idle(self) -> None:
        self.say(f"{_IDLE:,} idle sessions in {_IDLE_PROCESSES} processes")
        with ExitStack() as stack:
            store = RedisServer(self.around.directory)
            stack.callback(store.stop)
            settings = {**SHARED_SETTINGS, "WSPROXY_STATE": store.url}
            (running,) = self._started(
                stack, [Side("idle", False, workers=_IDLE_PROCESSES, settings=settings)]
            )
            seconds = max(self.pace.seconds * 3, 5.0)
            with self.tools.start_load(
                "hold", running.target("idle"), sessions=_IDLE, size=32, warmup=0, seconds=seconds + 60
            ) as load:
                load.wait_for_begin()
                time.sleep(_SETTLING)
                for _ in range(self.rounds):
                    self._note("idle", "Redis", self._idle_costs(store, seconds))
                load.finish()

    def _idle_costs(self, store: RedisServer, seconds: float) -> dict[str, float]:
        begun, cpu = time.monotonic(), store.cpu_seconds()
        calls, commands = store.calls(), store.commands()
        time.sleep(seconds)
        calls, commands = store.calls() - calls, store.commands() - commands
        passed = time.monotonic() - begun
        cpu = (store.cpu_seconds() - cpu) / passed * 100
        values = {"calls": calls / passed, "commands": commands / passed, "cpu": cpu}
        self.say("    " + ", ".join(f"{key} {value:.2f}" for key, value in values.items()))
        return values

    def _alone(self) -> None:
        self.say("admissions of the stores by themselves")
        with self._stores() as stores:
            places = {"memory": "memory", **{name: store.url for name, store in stores.items()}}
            for number in range(self.rounds):
                for name, url in places.items():
                    for processes in (1, 4) if name != "memory" else (1,):
                        rate = admissions_per_second(url, processes, self.pace.seconds)
                        self._note("alone", name, {f"{processes}": rate})
                        self.say(f"    round {number + 1}, {name}, {processes} processes: {rate:,.0f}/s")

    def _against_before(self) -> None:
        self.say("one process with the default settings, now and before")
        assert self.before
        sides = [Side("now", False, source=self.here), Side("before", False, source=self.before)]
        with ExitStack() as stack:
            running = self._started(stack, sides)
            for _, name, one in self._turns(list(zip(("now", "before"), running, strict=True))):
                for at_a_time in (1, 8):
                    self._note(f"alike-{at_a_time}", name, self._measured(name, one, None, at_a_time))
        for _ in range(self.rounds):
            for side in sides:
                with ExitStack() as stack:
                    (one,) = self._started(stack, [side])
                    self._note("alike", side.column, {"memory": self._memory(one)})

    def _memory(self, running: Running) -> float:
        """Return the KiB of an idle session."""
        process = running.process
        assert process is not None
        before = process.memory()
        with self.tools.start_load(
            "hold", running.target("idle"), sessions=_MEMORY_SESSIONS, size=32, warmup=0, seconds=30
        ) as load:
            load.wait_for_begin()
            time.sleep(_SETTLING)
            found = (process.memory() - before) / _MEMORY_SESSIONS / 1024
            load.finish()
        self.say(f"    {found:.1f} KiB")
        return found
