"""Sessions that come and go in every way, with faults on both sides; at the end nothing may be left.

``scripts/soak --churn`` runs it. The proxy is the program, in a process of its own, with TLS towards the
stand-in; the clients and the stand-in are in this one. What happens follows from the seed, as far as threads
and the network let it. A second, short run of a proxy that loses something on purpose has to fail.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone

from tests.soak.churn_program import MALLOC, MARK
from tests.soak.churn_visits import SETTINGS, Visit, add_shared_consoles
from tests.support.proxy_process import ProxyProcess, wait_until
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.version import __version__

__all__ = ["main"]

_PER_SECOND = 25.0
_CLIENTS = 16
_WARM_UP = 0.15  # of all clients: caches fill, and memory settles
_KIB_IN_USE = 1024
_MEMORY = 4 << 20  # of which the cache of tokens may take one, and holes between what is in use
# One arena of glibc's for all threads. There are eight for a CPU otherwise, each with holes of its own that
# grow until each has had its busiest moment.
_MALLOC = {"MALLOC_ARENA_MAX": "1"}
_SETTLE = 60.0
_LOOK = 0.5
_PROGRESS = 10.0
_ANSWER = 30.0
_CONTROL_SECONDS = 10.0
_MOST_SHOWN = 10


@dataclass
class Tally:
    """What came of the clients. Safe from every thread."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, outcome: str) -> None:
        with self.lock:
            self.done += 1
            self.outcomes.setdefault(what, Counter())[outcome] += 1

    def fail(self, error: str) -> None:
        with self.lock:
            self.done += 1
            self.errors.append(error)


@dataclass(frozen=True)
class Figures:
    """What the proxy's process holds at one moment.

    :ivar numbers: what it knows of clients, by its own account.
    :ivar objects: what it has for single connections, by class; only where garbage was collected before,
        as ``allocated``.
    :ivar allocated: what its allocators have given out.
    :ivar gauges: what its metrics say.
    """

    descriptors: int
    threads: int
    memory: int
    numbers: dict[str, int]
    objects: dict[str, int]
    allocated: dict[str, int]
    gauges: dict[str, int]

    @property
    def held(self) -> dict[str, int]:
        """All that has to come back, memory aside."""
        counted = {name: count for name, count in self.numbers.items() if name != "opened"}
        objects = {f"{name} objects": count for name, count in self.objects.items()}
        own = {"descriptors": self.descriptors, "threads": self.threads}
        return own | counted | self.gauges | objects

    def shown(self) -> dict[str, str]:
        """Return everything as text."""
        own = {"descriptors": self.descriptors, "threads": self.threads} | self.numbers | self.gauges
        own["Python objects of single connections"] = sum(self.objects.values())
        memory = f"{self.memory / 2**20:.1f}"
        shown = {name: str(count) for name, count in (self.allocated | own).items()}
        return {"resident memory, MiB": memory} | shown


class Subject:
    """A proxy under test: asks it for its numbers.

    :param admin: path of its operator's listener.
    """

    def __init__(self, process: ProxyProcess, admin: str) -> None:
        self.process = process
        self._admin = admin
        self._asked = 0
        self._never = threading.Event()

    def figures(self, thorough: bool = False) -> Figures:
        """Ask for everything.

        :param thorough: have it collect its garbage before, and count objects.
        :raises RuntimeError: if it does not answer.
        """
        self._asked += 1
        process = self.process
        process.process.send_signal(signal.SIGUSR2 if thorough else signal.SIGUSR1)
        if not wait_until(lambda: len(self._told()) >= self._asked, _ANSWER):
            raise RuntimeError("the proxy does not say what it holds")
        told = json.loads(self._told()[-1])
        return Figures(
            process.descriptors(),
            process.threads(),
            process.memory(),
            told["numbers"],
            told.get("objects", {}),
            told.get("memory", {}),
            _gauges(self._admin) if thorough else {},
        )

    def settled(self, before: Figures) -> Figures:
        """Wait until it holds what it held before, a minute at most, and return what it holds then."""
        figures, deadline = self.figures(thorough=True), Deadline(_SETTLE)
        while _left(before, figures) and not deadline.passed:
            self._never.wait(_LOOK)
            figures = self.figures(thorough=True)
        return figures

    def log(self) -> list[str]:
        """Return what it has logged, but for its answers."""
        lines = self.process.output.decode(errors="replace").splitlines()
        return [line for line in lines if not line.startswith((MARK, "wsproxy "))]

    def _told(self) -> list[str]:
        lines = self.process.output.decode(errors="replace").split("\n")[:-1]
        return [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]


def _gauges(admin: str) -> dict[str, int]:
    """Return the gauges of sessions and connections that the operator's listener shows."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_ANSWER)
        sock.connect(admin)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with sock.makefile("rb") as answer:
            text = answer.read().decode()
    found = re.findall(r"^(wsproxy_sessions|wsproxy_connections) (\S+)$", text, re.MULTILINE)
    if len(found) != 2:
        raise RuntimeError(f"no metrics: {text[:200]!r}")
    return {name: int(float(value)) for name, value in found}


def _left(before: Figures, after: Figures) -> list[str]:
    """Return what there is more of than before, a line each; memory is another matter."""
    held = before.held
    return [
        f"{name}: {held.get(name, 0)} before, {count} now"
        for name, count in after.held.items()
        if count > held.get(name, 0)
    ]


class Churn:
    """So many clients through one proxy, several at a time, at an even pace.

    :param seconds: in which they are to come.
    :param clients: how many at a time.
    :param seed: of what they do.
    :param cut: leave out those that have not come when the time is over.
    """

    def __init__(
        self,
        api: FakeKubeVirtAPI,
        subject: Subject,
        seconds: float,
        clients: int,
        seed: int,
        cut: bool,
    ) -> None:
        self.tally = Tally()
        self._api = api
        self._subject = subject
        self._seconds = seconds
        self._clients = clients
        self._seed = seed
        self._cut = cut
        self._lock = threading.Lock()
        self._next = 0

    def run(self, total: int, number: int) -> None:
        """Let ``number`` clients more come, of ``total``. Blocks until the last one has gone."""
        until, pace = self._next + number, self._seconds / total
        started = time.monotonic() - self._next * pace
        threads = [
            threading.Thread(target=self._client, args=(f"vm-{client}", until, started, pace))
            for client in range(self._clients)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            deadline = time.monotonic() + _PROGRESS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            self._show(time.monotonic() - started)

    def _client(self, own: str, until: int, started: float, pace: float) -> None:
        never = threading.Event()
        while (number := self._take(until, started)) is not None:
            due = started + number * pace - time.monotonic()
            if due > 0:
                never.wait(due)
            visit = Visit(
                self._api, self._subject.process.address, own, random.Random(f"{self._seed} {number}")
            )
            try:
                self.tally.count(*visit.run())
            except Exception as exc:  # noqa: BLE001 - told at the end
                self.tally.fail(f"client {number}: {exc!r}")

    def _take(self, until: int, started: float) -> int | None:
        late = self._cut and time.monotonic() - started > self._seconds
        with self._lock:
            if self._next >= until or late or self._subject.process.process.poll() is not None:
                return None
            self._next += 1
            return self._next - 1

    def _show(self, seconds: float) -> None:
        try:
            now = self._subject.figures()
        except (OSError, RuntimeError, AssertionError) as exc:
            return print(f"  {seconds:4.0f} s: {exc}", flush=True)
        print(
            f"  {seconds:4.0f} s: {self.tally.done} clients, {len(self.tally.errors)} errors; proxy: "
            f"{now.numbers['opened']} sessions opened, {now.numbers['active sessions']} open, "
            f"{now.descriptors} descriptors, {now.threads} threads, {now.memory / 2**20:.1f} MiB",
            flush=True,
        )


@dataclass
class Outcome:
    """What is to be said of one run."""

    faults: list[str]
    lines: list[str]


def _run(options: argparse.Namespace, seconds: float, number: int, cut: bool, leak: bool) -> Outcome:
    """Run clients through a proxy, and look at what is left."""
    command = ("-m", "tests.soak.churn_program", *(["--leak"] if leak else []))
    with ExitStack() as owned:
        api = owned.enter_context(FakeKubeVirtAPI())
        add_shared_consoles(api)
        admin = os.path.join(owned.enter_context(tempfile.TemporaryDirectory()), "admin")
        settings = SETTINGS | _MALLOC | {"LOGLEVEL": "WARNING", "WSPROXY_ADMIN": f"unix:{admin}"}
        subject = Subject(owned.enter_context(ProxyProcess(api, command, **settings)), admin)
        churn = Churn(api, subject, seconds, options.clients, options.seed, cut)
        try:
            return _look(churn, api, subject, number, leak)
        except (RuntimeError, OSError, AssertionError) as exc:
            return Outcome([f"the proxy is gone: {exc!r}", *_faults(churn.tally, subject, api)], [])


def _look(churn: Churn, api: FakeKubeVirtAPI, subject: Subject, number: int, leak: bool) -> Outcome:
    """Look at the proxy before and after: a proxy that loses something is not waited for."""
    first = subject.figures(thorough=True)
    warm_up = max(1, int(number * _WARM_UP))
    churn.run(number, warm_up)
    warm = subject.figures(thorough=True) if leak else subject.settled(first)
    churn.run(number, number - warm_up)
    live = 0 if api.wait_until_idle(_SETTLE) else api.live
    last = subject.figures(thorough=True) if leak else subject.settled(first)
    status = subject.process.stop()
    faults = _left(first, last) + _faults(churn.tally, subject, api)
    if (grown := last.memory - warm.memory) > _MEMORY:
        faults.append(f"memory: {grown / 2**20:.1f} MiB more since the warm-up, {_MEMORY >> 20} may be")
    if (grown := last.allocated.get(MALLOC, 0) - warm.allocated.get(MALLOC, 0)) > _KIB_IN_USE:
        faults.append(f"{MALLOC}: {grown} more since the warm-up, {_KIB_IN_USE} may be")
    if live:
        faults.append(f"{live} consoles are still open at the stand-in")
    if status or not last.numbers["opened"]:
        faults.append(f"{last.numbers['opened']} sessions were opened; the proxy's status is {status}")
    return Outcome(faults, [*_outcomes(churn.tally), "", *_table(first, warm, last, live)])


def _faults(tally: Tally, subject: Subject, api: FakeKubeVirtAPI) -> list[str]:
    """Return what went wrong on the way."""
    faults = tally.errors[:_MOST_SHOWN] + [f"logged: {line}" for line in subject.log()[:_MOST_SHOWN]]
    return faults + [f"the stand-in: {error!r}" for error in api.errors[:_MOST_SHOWN]]


def _outcomes(tally: Tally) -> list[str]:
    lines = [f"{tally.done} clients, {len(tally.errors)} errors. What they did, and what came of it:", ""]
    for what, outcomes in sorted(tally.outcomes.items(), key=lambda item: -item[1].total()):
        parts = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
        lines.append(f"- {what}, {outcomes.total()}: {parts}")
    return lines


def _table(first: Figures, warm: Figures, last: Figures, live: int) -> list[str]:
    rows = [["", "at the start", "after the warm-up", "at the end"], ["---", "---:", "---:", "---:"]]
    columns = [figures.shown() for figures in (first, warm, last)]
    rows += [[name, *(column[name] for column in columns)] for name in columns[0]]
    rows.append(["consoles open at the stand-in", "0", "", str(live)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _describe(options: argparse.Namespace, number: int) -> list[str]:
    now = datetime.now(timezone.utc)
    return [
        f"{now:%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
        f"load average before: {os.getloadavg()[0]:.1f}",
        f"wsproxy {__version__} on Python {platform.python_version()}, {ssl.OPENSSL_VERSION}",
        f"{number} clients in {options.seconds:g} s, {options.clients} at a time, seed {options.seed}; "
        "TLS to the stand-in, all of it on loopback",
    ]


def _say(lines: Sequence[str], prefix: str = "") -> None:
    for line in lines:
        print(f"{prefix}{line}".rstrip(), flush=True)


def _churn(options: argparse.Namespace) -> int:
    number = options.sessions or max(1, round(options.seconds * _PER_SECOND))
    _say(_describe(options, number), "- ")
    outcome = _run(options, options.seconds, number, not options.sessions, leak=options.control)
    _say(["", *outcome.lines, ""])
    if outcome.faults:
        _say(["Something is left, or went wrong:", *(f"  {fault}" for fault in outcome.faults)])
    else:
        print("Nothing is left.", flush=True)
    good = not outcome.faults
    if not options.control and not options.no_control:
        good = _control(options) and good
    return 0 if good else 1


def _control(options: argparse.Namespace) -> bool:
    """Run the control; return whether everything that it loses was found."""
    number = round(_CONTROL_SECONDS * _PER_SECOND)
    print(f"Control, a proxy that loses something with every session, {number} clients:", flush=True)
    faults = _run(options, _CONTROL_SECONDS, number, False, leak=True).faults
    missed = []
    for name in ("descriptors", "threads", "memory", "active sessions", "wsproxy_sessions"):
        found = [fault for fault in faults if fault.startswith(f"{name}:")]
        _say(found, "  ")
        missed += [] if found else [name]
    print(
        f"It fails, but not for its {', '.join(missed)}" if missed else "It fails as it has to.", flush=True
    )
    return not missed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the churn and return its exit status."""
    parser = argparse.ArgumentParser(prog="scripts/soak --churn", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of load (default: %(default)s)")
    parser.add_argument(
        "--sessions",
        type=int,
        help=f"all of which come; by default as many as fit, {_PER_SECOND:g} a second at most",
    )
    parser.add_argument("--clients", type=int, default=_CLIENTS, help="at a time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of what happens; by default a random one")
    parser.add_argument("--control", action="store_true", help="have the proxy lose something: must fail")
    parser.add_argument("--no-control", action="store_true", help="leave the control out")
    options = parser.parse_args(argv)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    return _churn(options)


if __name__ == "__main__":
    sys.exit(main())
