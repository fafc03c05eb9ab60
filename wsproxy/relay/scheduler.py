"""Decides which thread runs a pump: the poller's, the session's own, or a second one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ..runtime.cpu_affinity import anywhere
from .poller import Poller
from .pump import Pump

__all__ = ["PumpThreads", "StartThread"]

StartThread = Callable[[Callable[[], None]], threading.Thread]
"""Starts a thread that runs a function; raises RuntimeError if the system refuses one."""


class PumpThreads:
    """Runs the pumps of one session to their ends.

    :param poller: copies small messages; without one, each pump has a thread all the time.
    :param start_thread: starts the second thread, which :meth:`run` joins.
    :param on_end: called for each pump at its end, in the thread that ran it.
    :param on_failure: called in any thread if the session cannot continue; it has to end every pump.
    """

    def __init__(
        self,
        poller: Poller | None,
        start_thread: StartThread,
        *,
        on_end: Callable[[Pump], None],
        on_failure: Callable[[], None],
    ) -> None:
        self._poller = poller
        self._start_thread = start_thread
        self._on_end = on_end
        self._on_failure = on_failure
        # Guards the attributes below.
        self._turn = threading.Condition()
        self._waiting: list[Pump] = []  # two at most; an empty deque takes more memory than the rest
        self._free = 1  # threads that will take a waiting pump: at first the session's own
        self._left = 0  # pumps that have not ended
        self._starting = 0  # second threads that are being started
        self._started: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def run(self, pumps: Sequence[Pump]) -> None:
        """Run the pumps until all have ended. Blocks that long; the calling thread runs pumps, too.

        :raises BaseException: the first exception that a pump, or the start of the second thread, raised.
            Every pump has ended by then.
        """
        self._left = len(pumps)
        for pump in pumps:
            if self._poller is None or pump.has_unread:
                self._run_in_thread(pump)
            else:
                self._watch(pump)
        while waiting := self._next(stay=True):
            self._serve(waiting)
        for thread in self._started:
            thread.join()
        if self._failure:
            raise self._failure

    def let_go(self, pump: Pump) -> None:
        """Take over a pump that the poller does not watch any more. Any thread; does not block."""
        if pump.is_over:
            self._finish(pump)
        else:
            self._run_in_thread(pump)

    def fail(self, exc: BaseException) -> None:
        """End every pump, and let :meth:`run` raise ``exc``. Any thread; does not block."""
        with self._turn:
            self._failure = self._failure or exc
        self._on_failure()

    def _run_in_thread(self, pump: Pump) -> None:
        with self._turn:
            self._waiting.append(pump)
            enough = len(self._waiting) <= self._free
            if not enough:
                self._free += 1
                self._starting += 1
            self._turn.notify()
        if not enough:
            self._start_second()

    def _start_second(self) -> None:
        started = []
        try:
            started.append(self._start_thread(self._help))
        except BaseException as exc:  # noqa: BLE001 - raised by run()
            self.fail(exc)  # this ends the pump of the session's thread, which then takes the waiting one
        with self._turn:
            self._starting -= 1
            self._free -= not started
            self._started = [one for one in self._started if one.is_alive()] + started
            self._turn.notify()

    def _help(self) -> None:
        while pump := self._next(stay=False):
            self._serve(pump)

    def _next(self, *, stay: bool) -> Pump | None:
        """Take a pump that waits; None if no pump waits.

        :param stay: block until a pump waits, and return None only when no pump can wait any more.
        """
        with self._turn:
            while stay and not self._waiting and (self._left or self._starting):
                self._turn.wait()
            self._free -= 1
            return self._waiting.pop(0) if self._waiting else None

    def _serve(self, pump: Pump) -> None:
        try:
            with anywhere():
                pump.copy(until_quiet=self._poller is not None)
        except BaseException as exc:  # noqa: BLE001 - raised by run()
            pump.is_over = True
            self.fail(exc)
        with self._turn:
            self._free += 1
        if pump.is_over:
            self._finish(pump)
        else:
            self._watch(pump)

    def _finish(self, pump: Pump) -> None:
        try:
            self._on_end(pump)
        except BaseException as exc:  # noqa: BLE001 - raised by run()
            self.fail(exc)
        with self._turn:
            self._left -= 1
            if not self._left:
                self._turn.notify()

    def _watch(self, pump: Pump) -> None:
        assert self._poller
        try:
            self._poller.watch(pump)
        except OSError as exc:  # this user has reached the system's limit of watched descriptors
            self.fail(exc)
            self._run_in_thread(pump)
