"""Keeps a process in step with the store: it beats, reports, and listens for news."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ...exceptions import StoreUnavailable
from ...runtime.deadline import Clock
from ...runtime.logs import get_logger
from ...runtime.threads import VitalLoop, start_thread
from ...telemetry.state_numbers import StateNumbers
from ..store import SCHEMA
from .shared_link import IN_STEP_SECONDS, SharedLink

__all__ = ["Heartbeat"]

logger = get_logger("wsproxy.state")

_BEAT_SECONDS = 0.45  # a process reads the version of the rules every 500 ms
_BEATS_IN_A_LEASE = 3
_LISTEN_SECONDS = 1.0
_BEGIN_SECONDS = 5.0
_PAUSE = 0.2  # seconds after a failure to listen
_GATHERING = 0.02  # seconds for which a report waits: more may follow, or an opening takes it along


class Heartbeat:
    """Two threads: ``wsproxy-state`` calls the store for the process, ``wsproxy-state-news`` waits for news.

    :param link: what it keeps in step.
    :param lease: of the member, seconds.
    :param observe: told the seconds until a beat was answered, and what the answer said was done.
    :param refuses: whether new sessions are refused while the store is away, for the log.
    """

    def __init__(
        self,
        link: SharedLink,
        lease: float,
        observe: Callable[[float], None],
        *,
        refuses: bool,
        clock: Clock = time.monotonic,
    ) -> None:
        self._link = link
        self._observe = observe
        self._interval = min(_BEAT_SECONDS, lease / _BEATS_IN_A_LEASE)
        self._refuses = refuses
        self._clock = clock
        self._stopping = threading.Event()
        self._loop = VitalLoop("state", self._beat_on)
        self._news_loop = VitalLoop("state-news", self._listen_on)
        self._threads: list[threading.Thread] = []
        self._started = clock()  # assigned before the threads start
        # Assigned by the thread wsproxy-state only.
        self._next_beat = 0.0
        self._is_away = False
        self._schema = SCHEMA
        self._failures = 0  # beats and reports that the store has not answered so far

    @property
    def is_healthy(self) -> bool:
        """See :class:`.VitalLoop`. A store that is away is no failure."""
        return self._loop.is_healthy and self._news_loop.is_healthy

    @property
    def numbers(self) -> StateNumbers:
        """What the process has seen of the store. Any thread; does not block."""
        if self._link.is_in_step:
            return StateNumbers(in_step=1, failures=self._failures)
        away = int(min(self._link.seconds_away, self._clock() - self._started))
        return StateNumbers(out_of_step=1, longest_away=max(away, 1), failures=self._failures)

    def start(self, owner: object) -> None:
        """Start both threads, which work for ``owner``. Once only.

        Blocks until the process is in step, for five seconds at most.
        """
        self._started = self._clock()
        self._threads = [
            start_thread("wsproxy-state", self._loop.run, owner),
            start_thread("wsproxy-state-news", self._news_loop.run, owner),
        ]
        self._link.began.wait(_BEGIN_SECONDS)

    def stop(self) -> None:
        """End the threads, leave the store and close it. Idempotent.

        Blocks for a few timeouts of the store.
        """
        self._loop.stop()
        self._news_loop.stop()
        self._stopping.set()
        self._link.wake.set()
        if self._threads:
            self._threads[0].join()
            try:
                self._link.leave()
            finally:
                self._threads[1].join()
                self._threads = []

    # wsproxy-state

    def _beat_on(self) -> None:
        while not self._stopping.is_set():
            self._link.wake.clear()
            try:
                self._turn()
            except StoreUnavailable as exc:
                self._note_failure(exc)
                self._stopping.wait(self._interval / 2)
            else:
                self._link.wake.wait(max(self._next_beat - self._clock(), 0.0))

    def _turn(self) -> None:
        """Report what waits, and beat if that is due or there may be news."""
        link = self._link
        if len(link.outbox) and (link.is_in_step or link.is_alone):
            self._report()
        now = self._clock()
        if now >= self._next_beat or link.has_news:
            link.has_news = False
            link.beat()
            self._next_beat = now + self._interval
            self._observe(self._clock() - now)
            self._note_answer()
            self._note_schema()

    def _report(self) -> None:
        """Report what waits, once it has waited for a while.

        If clients come all the time, their openings take along what waits. What is in the outbox by then is
        younger, and waits for another turn.
        """
        link = self._link
        if (left := link.outbox.seconds_until(_GATHERING)) > 0:
            self._stopping.wait(min(left, _GATHERING))
        if link.is_alone or link.outbox.seconds_until(_GATHERING) <= 0:
            link.report(_GATHERING)
        if len(link.outbox):
            link.wake.set()

    def _note_failure(self, exc: StoreUnavailable) -> None:
        self._failures += 1
        link = self._link
        is_starting = not link.began.is_set() and self._clock() - self._started < _BEGIN_SECONDS
        if is_starting or link.seconds_away < IN_STEP_SECONDS:
            return
        link.be_alone()
        if not self._is_away:
            self._is_away = True
            then = "new sessions are refused" if self._refuses else "this process counts for itself"
            logger.warning("the store of the shared state is away: %s; %s until it is back", exc, then)

    def _note_answer(self) -> None:
        if self._is_away:
            self._is_away = False
            logger.info("the store of the shared state is back")

    def _note_schema(self) -> None:
        pulse = self._link.pulse
        if pulse and pulse.schema != self._schema:
            self._schema = pulse.schema
            logger.info("the schema of the shared state is %d; this process knows %d", self._schema, SCHEMA)

    # wsproxy-state-news

    def _listen_on(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._link.store.listen(self._link.member, _LISTEN_SECONDS):
                    self._link.has_news = True
                    self._link.wake.set()
            except StoreUnavailable:
                self._stopping.wait(_PAUSE)
