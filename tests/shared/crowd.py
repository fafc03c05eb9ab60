"""Many live sessions, and clients that try to come in beside them: what a fault of the store does to them."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple

from tests.shared.replicas import Replicas
from tests.shared.visitors import GONE, Try, Visitors
from tests.support.proxy_process import wait_until
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE, PING, PONG

__all__ = ["ADMITTED", "AWAY", "SILENT", "Answer", "Crowd"]

ADMITTED = "admitted"
AWAY = "state-unavailable"
SILENT = "no answer"

_AT_ONCE = 16
_ECHO_WITHIN = 120.0  # seconds: a replica may be stopped for long
_PAUSE = 0.1  # seconds between two rounds of echoes, and between two newcomers
_SAMPLE = 0.05  # seconds between two looks at the API
_SETTLED = 8  # answers in a row without AWAY, after which a replica is in step
_STEP_WITHIN = 90.0


class Answer(NamedTuple):
    """What a newcomer was told.

    :ivar asked: when they asked, by ``time.monotonic``.
    :ivar replica: whom they asked.
    :ivar said: the slug, :data:`ADMITTED`, or :data:`SILENT`.
    """

    asked: float
    replica: int
    said: str


class Crowd:
    """Sessions with the same number at each replica, which say something all the time; use ``with``.

    A newcomer at each replica tries to come in all the time, and stays if that succeeds.

    :param replicas: with a limit of ``count`` sessions.
    :param count: how many sessions there are at first.
    :ivar answers: what newcomers were told.
    :ivar most: the greatest number of sessions that the API had at a time.
    :ivar above: for how many seconds the API had more than ``count``.
    :ivar slowest: the longest time that an echo took, for each replica.
    """

    def __init__(self, replicas: Replicas, count: int) -> None:
        self.replicas = replicas
        self.answers: list[Answer] = []
        self.most = 0
        self.above = 0.0
        self._count = count
        self.slowest = [0.0] * len(replicas.all)
        self._lost: list[int] = []
        self._gone: set[int] = set()  # replicas that are not there any more
        self._lock = threading.Lock()  # guards the lists above
        self._over = threading.Event()
        self._numbers = itertools.count()
        self._stack = ExitStack()
        self._visitors = self._stack.enter_context(Visitors(replicas))
        try:
            self._sessions = self._open(count)
            tasks: list[Callable[[], None]] = [self._sample]
            for replica in range(len(replicas.all)):
                tasks += [self._echoing(replica), self._coming(replica)]
            for task in tasks:
                self._begin(task)
        except BaseException:
            self.close()
            raise

    def _begin(self, task: Callable[[], None]) -> None:
        thread = threading.Thread(target=task, name=f"crowd-{next(self._numbers)}")
        self._stack.callback(thread.join)
        thread.start()

    def _open(self, count: int) -> list[list[Try]]:
        """Open the sessions, and return them for each replica."""
        names = self.replicas.api.add_group("crowd", count)
        shares = [names[number :: len(self.replicas.all)] for number in range(len(self.replicas.all))]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [
                list(pool.map(lambda name, at=at: self._open_one(name, at), share))
                for at, share in enumerate(shares)
            ]

    def _open_one(self, name: str, replica: int) -> Try:
        found = self._visitors.ask(self._visitors.wanted(name, name), self.replicas.all[replica].address)
        assert found.is_open, (found.client.head, found.reason())
        return found

    # What happens meanwhile

    def _sample(self) -> None:
        last = time.monotonic()
        while not self._over.wait(_SAMPLE):
            live, now = self.replicas.api.live, time.monotonic()
            self.most = max(self.most, live)
            self.above += now - last if live > self._count else 0.0
            last = now

    def _echoing(self, replica: int) -> Callable[[], None]:
        def run() -> None:
            while not self._over.wait(_PAUSE):
                for one in list(self._sessions[replica]):
                    if not self._over.is_set():
                        self._echo(replica, one)

        return run

    def _echo(self, replica: int, one: Try) -> None:
        begin = time.monotonic()
        try:
            one.client.send_frame(BINARY, b"there?")
            while (frame := one.client.recv_frame(_ECHO_WITHIN)).opcode == PING:
                one.client.send_frame(PONG, frame.payload)
        except GONE:
            frame = None
        with self._lock:
            self.slowest[replica] = max(self.slowest[replica], time.monotonic() - begin)
            if (frame is None or frame.opcode == CLOSE) and one in self._sessions[replica]:
                self._lost.append(replica)
                self._sessions[replica].remove(one)

    def _coming(self, replica: int) -> Callable[[], None]:
        def run() -> None:
            while not self._over.wait(_PAUSE):
                if replica not in self._gone:
                    self._come(replica)

        return run

    def _come(self, replica: int) -> None:
        [name] = self.replicas.api.add_group(f"new-{replica}-{next(self._numbers)}", 1)
        asked = time.monotonic()
        said = SILENT
        try:
            found = self._visitors.ask(self._visitors.wanted(name, name), self.replicas.all[replica].address)
            said = ADMITTED if found.is_open else found.reason()
            self._stay(replica, found)
        except GONE:
            pass
        with self._lock:
            self.answers.append(Answer(asked, replica, said))

    def _stay(self, replica: int, newcomer: Try) -> None:
        """Have a newcomer who was admitted talk as the others do."""
        if not newcomer.is_open:
            self._visitors.forget(newcomer)
            return
        with self._lock:
            if replica not in self._gone:
                self._sessions[replica].append(newcomer)

    # What the faults ask of it

    def forget_replica(self, replica: int) -> None:
        """Expect nothing more of a replica that has been killed: its sessions do not count as lost."""
        with self._lock:
            self._gone.add(replica)
            self._sessions[replica] = []

    def wait_until_told(self, what: str, times: int = 3) -> None:
        """Wait until newcomers at each replica have been told something as often as that from now on."""
        since = time.monotonic()

        def is_told() -> bool:
            told = Counter(one.replica for one in self._since(since) if one.said == what)
            return all(told[replica] >= times for replica in self._present())

        if not wait_until(is_told, _STEP_WITHIN):
            raise AssertionError(f"newcomers are not told {what}: {self.told(since)}")

    def wait_until_in_step(self, since: float) -> float:
        """Wait until all replicas answer as usual; return how many seconds after a moment they did so.

        :param since: the moment, at which the fault ended.
        """

        def is_in_step() -> bool:
            return all(self._usual_answers(replica, since) >= _SETTLED for replica in self._present())

        if not wait_until(is_in_step, _STEP_WITHIN):
            raise AssertionError(f"not in step: {self.told(since)}")
        unusual = [one.asked for one in self._since(since) if one.said in (AWAY, SILENT)]
        return max(unusual, default=since) - since

    def _usual_answers(self, replica: int, since: float) -> int:
        """Return how many of the last answers of a replica were as usual."""
        said = [one.said for one in self._since(since) if one.replica == replica]
        return len(list(itertools.takewhile(lambda one: one not in (AWAY, SILENT), reversed(said))))

    def wait_for_newcomers(self, leaving: int) -> None:
        """Let some sessions leave, and wait until as many newcomers are in; places are given again."""
        with self._lock:
            replica = min(self._present())
            left = [self._sessions[replica].pop() for _ in range(leaving)]
            before = sum(one.said == ADMITTED for one in self.answers)
        self._visitors.leave([one.client for one in left])

        def are_in() -> bool:
            return sum(one.said == ADMITTED for one in list(self.answers)) >= before + leaving

        if not wait_until(are_in, _STEP_WITHIN):
            raise AssertionError("no newcomer gets a place that is free again")

    def _present(self) -> list[int]:
        return [number for number in range(len(self.replicas.all)) if number not in self._gone]

    def _since(self, moment: float) -> list[Answer]:
        with self._lock:
            return [one for one in self.answers if one.asked >= moment]

    def told(self, begin: float, end: float = math.inf, replica: int | None = None) -> Counter[str]:
        """Return what newcomers were told who asked between two moments.

        :param replica: whom they asked; None for all.
        """
        asked = [one for one in self._since(begin) if one.asked < end]
        return Counter(one.said for one in asked if replica in (None, one.replica))

    @property
    def lost(self) -> int:
        """How many sessions ended by themselves, of replicas that were not killed."""
        with self._lock:
            return sum(replica not in self._gone for replica in self._lost)

    def close(self) -> None:
        """End all sessions. Idempotent."""
        self._over.set()
        self._stack.close()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
