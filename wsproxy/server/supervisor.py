"""The supervisor: forks several workers on one listening socket, and replaces those that die.

The supervisor binds the socket and forks the workers. From then on it only waits: for signals, for messages
of the workers, and for their ends. It has one thread, so it may fork at any time. A socket pair connects it
with each worker. If the supervisor is gone, that socket pair ends, and the worker stops.
"""

from __future__ import annotations

import logging
import os
import random
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from ..admin.auth import operator_guard
from ..admin.deferred import ask_through, deferred
from ..admin.endpoints import admin_endpoints, session_endpoints
from ..admin.operator import OperatorRules, operator_server
from ..admin.routes import AdminRequest
from ..admin.server import AdminServer
from ..config import Config
from ..net.listeners import Listener, listen
from ..net.resolver import Resolver
from ..runtime.cpu_affinity import settle
from ..runtime.deadline import Deadline
from ..runtime.logs import Complaints, get_logger
from ..runtime.signals import RELOAD_SIGNAL, STOP_SIGNALS, ended_children, ignore_signals, signals_to
from ..runtime.systemd import Notifier
from ..state.stores.local.own import own_store
from ..telemetry.counters import Snapshot, lost_lines
from ..telemetry.line_writer import flush_program_log, lines_lost_of_program_log
from ..upstream.dialler import Dialler
from ..upstream.readiness import Readiness
from .channel import Channel, WorkerProcess, pass_to_one
from .gateway import check_files, needs_copies, needs_store
from .lifecycle import warn_of_handover
from .worker import WORKER_SIGNALS, work

__all__ = ["Supervisor"]

logger = get_logger("wsproxy.supervisor")

_SIGNALS = (*STOP_SIGNALS, RELOAD_SIGNAL, signal.SIGCHLD, signal.SIGUSR1)
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0  # seconds before a worker that died is replaced
_GOOD_LIFE = 10.0  # if a worker lives for these seconds, its death does not count as one in a row
_START_TRIES = 3  # for each worker, until all of them serve
_STOP_SLACK = 5.0  # seconds in addition to the close timeout
_KILL_SECONDS = 5.0
_TELL_SECONDS = 1.0
_PAUSE = 0.1  # seconds after an error


@dataclass
class _Place:
    """A worker's place, which successive processes fill.

    :ivar worker: the process, None if none runs.
    :ivar deaths: how many processes died in a row, soon after their start.
    :ivar due: when to start the next process, if none runs.
    """

    number: int
    worker: WorkerProcess | None = None
    deaths: int = 0
    due: float = 0.0

    def delay(self) -> float:
        """Note a death, and return the seconds until the next start."""
        seconds = min(_FIRST_DELAY * 2.0 ** min(self.deaths, 10), _LONGEST_DELAY)
        self.deaths += 1
        self.due = time.monotonic() + seconds
        return seconds


class Supervisor:
    """Serves with ``config.workers`` processes. Needs the main thread of a process without other threads.

    :param config: the settings, with the address to listen on.
    :param notifier: told when the workers serve, reload, and stop.
    :raises ConfigError: lists every fault.
    """

    _listener: Listener
    _of_workers: Config
    _copies = ""

    def __init__(self, config: Config, notifier: Notifier | None = None) -> None:
        check_files(config)
        Readiness(Dialler(config.upstream_rules, Resolver())).check_files()
        self._config = config
        self._notifier = notifier or Notifier()
        self._places = [_Place(number) for number in range(1, config.workers + 1)]
        self._first_cpu = random.randrange(1024)
        self._stop_signals: list[int] = []
        self._ended = Snapshot()  # totals of the workers that have ended
        self._told: list[Callable[[Snapshot], None]] = []  # callbacks that wait for the workers' numbers
        self._told_due = 0.0
        self._admin: AdminServer | None = None
        self._complaints = Complaints(logger)
        self._stopping = False

    def run(self, on_ready: Callable[[tuple[str, int]], None]) -> bool:
        """Serve until SIGINT or SIGTERM; then stop every worker. Blocks. Call it once only.

        After the signal the workers drain as the settings say. A second signal ends the drain; then stopping
        takes at most the close timeout and a few seconds. A third signal kills the workers. SIGHUP makes them
        read keys and certificates again. SIGUSR1 logs the number of sessions.

        :param on_ready: called with the bound host and port, when every worker serves.
        :returns: False if a worker failed to start several times; the log says why.
        :raises OSError: if the address cannot be bound.
        :raises ConfigError: if the workers need a store in common, and no directory for it can be made.
        """
        waker, woken = socket.socketpair()
        with waker, woken, signals_to(waker, _SIGNALS), self._listen() as listener, self._state():
            self._waker, self._woken, self._listener = waker, woken, listener
            if rules := self._config.operator_rules:
                self._admin = self._serve_operator(rules)
            try:
                return self._serve(on_ready)
            finally:
                self._stop()
                if self._admin:
                    self._admin.close()

    @contextmanager
    def _state(self) -> Iterator[None]:
        """Context manager: makes the settings of the workers, which name a store if the workers need one."""
        config = self._of_workers = self._config
        needed = needs_store(config)
        if not (needed or needs_copies(config)):
            yield
            return
        with own_store(config.workers, needed) as state:
            self._of_workers, self._copies = (config.with_state(state), "") if needed else (config, state)
            yield

    def _serve_operator(self, rules: OperatorRules) -> AdminServer:
        guard = operator_guard(rules.token_file, rules.address)
        of_sessions = deferred(session_endpoints(guard, None), self._fetch)
        endpoints = admin_endpoints(self._ask) | of_sessions
        return operator_server(rules, endpoints, reuse_port=self._config.reuse_port)

    def _fetch(self, request: AdminRequest) -> socket.socket:
        """Have a worker answer a request of the operator."""
        return ask_through(request, partial(pass_to_one, () if self._stopping else self._workers()))

    def _listen(self) -> Listener:
        config = self._config
        if config.reuse_port:
            warn_of_handover(config, logger)
        return listen(config.listen or config.host, config.port, reuse_port=config.reuse_port)

    def _serve(self, on_ready: Callable[[tuple[str, int]], None]) -> bool:
        announced = False
        while not self._stop_signals:
            for place in self._places:
                if place.worker is None and time.monotonic() >= place.due:
                    self._start(place)
            if not announced and all(place.worker and place.worker.ready for place in self._places):
                on_ready(self._listener.address)
                self._notifier.ready()
                announced = True
            if not announced and any(place.deaths >= _START_TRIES for place in self._places):
                logger.error("a worker failed to start %d times: giving up", _START_TRIES)
                return False
            self._wait()
        logger.info("%s: stopping", _signal_name(self._stop_signals[0]))
        return True

    def _stop(self) -> None:
        self._stopping = True
        config = self._config
        self._notifier.stopping(config.drain_grace + config.drain_timeout + config.close_timeout)
        self._listener.close_copy()  # so that the kernel refuses clients as soon as no worker accepts
        self._signal(signal.SIGTERM)
        if not self._hurried:
            self._wait_for_ends(config.drain_grace)
        self._listener.remove_path()
        if not self._hurried:
            self._wait_for_ends(config.drain_timeout)
        if self._hurried:
            # The workers' second signal, which ends their drain. A second SIGTERM would be lost if a worker
            # has not taken the first one yet.
            self._signal(signal.SIGINT)
        self._wait_for_ends(config.close_timeout + _STOP_SLACK)
        for worker in self._workers():
            logger.error("%s is killed", worker)
        self._signal(signal.SIGKILL)
        self._wait_for_ends(_KILL_SECONDS)
        logger.info("stopped")

    @property
    def _hurried(self) -> bool:
        """Whether a second signal has come."""
        return len(self._stop_signals) > 1

    def _signal(self, number: signal.Signals) -> None:
        """Signal every worker. A process that has ended keeps its id until it is reaped."""
        for worker in self._workers():
            os.kill(worker.pid, number)

    def _wait_for_ends(self, seconds: float) -> None:
        """Wait until no worker is left, ``seconds`` have passed, or another signal to stop comes."""
        deadline, heard = Deadline(seconds), len(self._stop_signals)
        with suppress(TimeoutError):
            while any(self._workers()) and len(self._stop_signals) == heard:
                self._wait(deadline.remaining())

    def _workers(self) -> Iterator[WorkerProcess]:
        return (place.worker for place in self._places if place.worker)

    # Starting a worker

    def _start(self, place: _Place) -> None:
        try:
            pid, channel = self._fork(place.number)
        except OSError as exc:
            logger.error(
                "worker %d cannot be started: %s; next try in %g s", place.number, exc, place.delay()
            )
            return
        place.worker = WorkerProcess(place.number, pid, channel)
        logger.info("%s started", place.worker)

    def _fork(self, number: int) -> tuple[int, Channel]:
        """Fork a worker, and return its process id and the channel to it."""
        ours, theirs = socket.socketpair()
        # Block signals until the child can handle them. Otherwise it would pass its own on to the supervisor.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, WORKER_SIGNALS)
        try:
            pid = os.fork()
            if not pid:
                self._become_worker(ours, theirs, number)
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        return pid, Channel(ours)

    def _become_worker(self, ours: socket.socket, theirs: socket.socket, number: int) -> NoReturn:
        """Run the worker in the child, and exit. It closes the supervisor's end of every channel first."""
        status = 1
        try:
            ignore_signals(WORKER_SIGNALS)  # those that come after the worker has stopped
            for sock in (ours, self._waker, self._woken):
                sock.close()
            for worker in self._workers():
                worker.channel.close()
            if self._admin:
                self._admin.close()
            if self._config.cpu_affinity == "auto":
                settle(self._first_cpu + number)
            work(self._of_workers, self._listener, Channel(theirs), self._copies)
            status = 0
        except BaseException:
            logger.exception("the worker failed")
        finally:
            try:
                flush_program_log()
            finally:
                os._exit(status)  # whatever happens: the child must never go on as the supervisor

    # Waiting

    def _next_due(self) -> float | None:
        """Return the seconds until the next thing that is due by time, None if nothing is."""
        due = [] if self._stopping else [place.due for place in self._places if place.worker is None]
        if self._told:
            due.append(self._told_due)
        found = max(0.0, min(due) - time.monotonic()) if due else None
        return _sooner(found, self._admin.next_due() if self._admin else None)

    def _wait(self, seconds: float | None = None) -> None:
        """Wait for a signal, a message, or the end of the time, and handle it.

        An unexpected error is logged, and does not end the supervisor, because the workers stop with it.
        """
        try:
            self._wait_once(_sooner(seconds, self._next_due()))
        except Exception:  # noqa: BLE001 - logged by _complaints
            self._complaints.note("unexpected error; the supervisor continues")
            time.sleep(_PAUSE)

    def _wait_once(self, seconds: float | None) -> None:
        with selectors.PollSelector() as selector:  # needs no descriptor of its own: none may be left
            selector.register(self._woken, selectors.EVENT_READ)
            for worker in self._workers():
                if not worker.channel.closed:
                    selector.register(worker.channel, selectors.EVENT_READ, worker)
            if self._admin:
                selector.register(self._admin, selectors.EVENT_READ, self._admin)
            ready = [key.data for key, _ in selector.select(seconds)]
        for worker in ready:
            if worker is None:
                self._take_signals()
            elif worker is not self._admin:
                worker.hear()
        self._reap()
        if self._admin:
            self._admin.serve()
        self._tell()

    def _take_signals(self) -> None:
        for number in self._woken.recv(4096):
            if number in STOP_SIGNALS:
                self._stop_signals.append(number)
            elif number == RELOAD_SIGNAL:
                self._reload()
            elif number == signal.SIGUSR1 and not self._stopping:
                self._ask(self._log_numbers)

    def _reload(self) -> None:
        """Make every worker read its files again, also one that has just been started."""
        logger.info("%s: the workers read their files again", RELOAD_SIGNAL.name)
        self._notifier.reloading()
        self._signal(RELOAD_SIGNAL)
        self._notifier.ready()

    # The end of a worker

    def _reap(self) -> None:
        """Reap all children that have ended: workers, and, as PID 1 of a container, orphans."""
        for pid, status in ended_children():
            for place in self._places:
                if place.worker and place.worker.pid == pid:
                    self._take_leave(place, place.worker, status)

    def _take_leave(self, place: _Place, worker: WorkerProcess, status: int) -> None:
        """Note the end of a worker: keep its totals, and free its place."""
        while not worker.channel.closed and worker.hear():
            pass
        worker.channel.close()
        self._ended += worker.numbers.totals()
        place.worker = None
        self._log_end(place, worker, os.waitstatus_to_exitcode(status))

    def _log_end(self, place: _Place, worker: WorkerProcess, code: int) -> None:
        how = f"ended with status {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"
        level = logging.ERROR if code else logging.WARNING
        if self._stopping:
            logger.log(level if code else logging.INFO, "%s %s", worker, how)
            return
        if worker.ready and time.monotonic() - worker.started >= _GOOD_LIFE:
            place.deaths = 0
        logger.log(level, "%s %s; the next is started in %g s", worker, how, place.delay())

    # The numbers

    def _ask(self, then: Callable[[Snapshot], None]) -> None:
        """Ask the workers, and call ``then`` with the sum of all numbers, when all have answered.

        It waits for a second at most. If a worker does not answer in time, its previous numbers count.
        """
        for worker in self._workers():
            worker.ask()
        if not self._told:
            self._told_due = time.monotonic() + _TELL_SECONDS
        self._told.append(then)

    def _tell(self) -> None:
        """Call the waiting callbacks if every worker has answered, or if the time is over."""
        asked = any(worker.asked for worker in self._workers())
        if not self._told or (asked and time.monotonic() < self._told_due):
            return
        waiting, self._told = self._told, []
        ours = Snapshot(lost_lines=lost_lines(lines_lost_of_program_log(), 0))
        total = sum((worker.numbers for worker in self._workers()), self._ended + ours)
        for then in waiting:
            then(total)

    def _log_numbers(self, total: Snapshot) -> None:
        parts = [f"{worker}: {'no answer' if worker.asked else worker.numbers}" for worker in self._workers()]
        logger.info("%s", "; ".join([f"in all {total}", *parts]))


def _sooner(one: float | None, other: float | None) -> float | None:
    """Return the shorter of two times; None means no limit."""
    return min((seconds for seconds in (one, other) if seconds is not None), default=None)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
