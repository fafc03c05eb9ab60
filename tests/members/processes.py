"""The processes as the one who observes them sees them."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.members import child

__all__ = ["Command", "Member", "Observer", "Pulse"]

# Children of a process that has imported all of this start in some milliseconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([child.__name__])


@dataclass
class Pulse:
    """An answer of the store to a beat, or to the last part of a publication.

    :ivar known: whether the store had all that the member held.
    :ivar is_publication: whether it answers one.
    """

    began: float
    ended: float
    epoch: str
    known: bool
    is_publication: bool


@dataclass
class Command:
    """What a process was told to do. Times are of the host's monotonic clock.

    :ivar sent: when the observer sent it.
    :ivar began: when the process began it; None without an answer.
    :ivar fault: why there is no result.
    """

    member: Member
    verb: str
    given: tuple[Any, ...]
    sent: float
    began: float | None = None
    ended: float | None = None
    result: Any = None
    fault: str = ""

    @property
    def is_done(self) -> bool:
        return self.ended is not None

    @property
    def succeeded(self) -> bool:
        return self.is_done and not self.fault


@dataclass
class Session:
    """What was seen of one session.

    :ivar decided: when the store began and ended to decide on it, if it admitted the session.
    :ivar confirmed: the same of the answer that gave the session its console, if it asked.
    :ivar reported: the same of the report that it was open, if it did not ask.
    :ivar is_open: whether its client was let in.
    :ivar left: when it was first told to leave, or heard that it has to; no later than it did anything.
    :ivar code: the code with which its process ended it.
    :ivar ended: when it did.
    """

    member: Member
    id: str
    user: str
    vmi: str
    asked: float
    decided: tuple[float, float] | None = None
    confirmed: tuple[float, float] | None = None
    reported: tuple[float, float] | None = None
    is_open: bool = False
    opened: tuple[float, float] | None = None
    left: float | None = None
    code: int | None = None
    ended: float = 0.0
    released: bool = False


class Observer:
    """Keeps what happened, and tells threads that wait for something to happen."""

    def __init__(self) -> None:
        # Guards all that the processes tell; notified with each word of theirs.
        self.changed = threading.Condition()
        self.members: list[Member] = []
        self.sessions: dict[str, Session] = {}
        self.commands: list[Command] = []

    def wait_for(self, what: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so, which is looked at with each word of a process."""
        with self.changed:
            return self.changed.wait_for(what, seconds)


class Member:
    """One process, until it is killed.

    :ivar pulses: what the store said to it, the first first.
    :ivar killed: when it was killed.
    """

    _numbers = itertools.count()

    def __init__(self, observer: Observer, slot: int, url: str) -> None:
        self.slot = slot
        self.name = f"process-{next(self._numbers)}"
        self.pulses: list[Pulse] = []
        self.born, self.killed = time.monotonic(), float("inf")
        self.is_stopped = self.is_ready = False
        self._observer = observer
        self._waiting: dict[int, Command] = {}
        self._count = itertools.count()
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=child.be_a_member, args=(theirs, url, self.name), daemon=True)
        self._process.start()
        theirs.close()
        self._reader = threading.Thread(target=self._read, name=f"reader-{self.name}")
        self._reader.start()
        observer.members.append(self)

    def __repr__(self) -> str:
        return self.name

    @property
    def is_alive(self) -> bool:
        return self.killed == float("inf")

    # What it is told

    def tell(self, verb: str, *given: Any) -> Command:
        """Tell it to do something. Returns at once; see :attr:`Command.is_done`."""
        command = Command(self, verb, given, time.monotonic())
        number = next(self._count)
        with self._observer.changed:
            self._waiting[number] = command
            self._observer.commands.append(command)
        self._pipe.send((number, verb, *given))
        return command

    @property
    def is_busy(self) -> bool:
        """Whether it has not answered to all that it was told."""
        return self.is_alive and bool(self._waiting or not self.is_ready)

    def stop(self) -> None:
        self.is_stopped = True
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.is_stopped = False
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word, and forget what it has not answered."""
        self.killed = min(self.killed, time.monotonic())
        self._signal(signal.SIGKILL)
        self._process.join()
        self._reader.join()
        self._pipe.close()
        self._process.close()

    def _signal(self, number: signal.Signals) -> None:
        pid = self._process.pid
        assert pid
        os.kill(pid, number)

    # What it says

    def _read(self) -> None:
        while True:
            try:
                kind, *said = self._pipe.recv()
            except (EOFError, OSError):
                return
            with self._observer.changed:
                getattr(self, f"_note_{kind}")(*said)
                self._observer.changed.notify_all()

    def _note_ready(self) -> None:
        self.is_ready = True

    def _note_pulse(self, *said: Any) -> None:
        self.pulses.append(Pulse(*said))

    def _note_decided(self, began: float, ended: float, id: str, outcome: str) -> None:
        if outcome == "admitted":
            self._observer.sessions[id].decided = began, ended

    def _note_confirmed(self, began: float, ended: float, id: str, admitted: bool) -> None:
        if admitted:
            self._observer.sessions[id].confirmed = began, ended

    def _note_reported(self, began: float, ended: float, id: str) -> None:
        self._observer.sessions[id].reported = began, ended

    def _note_ended(self, id: str, code: int, at: float) -> None:
        session = self._observer.sessions[id]
        session.code, session.ended = code, at
        session.left = min(session.left or at, at)

    def _note_reply(self, number: int, began: float, ended: float, result: Any, fault: str) -> None:
        command = self._waiting.pop(number)
        command.began, command.ended, command.result, command.fault = began, ended, result, fault
        if command.verb in ("open", "admit", "confirm"):
            session = self._observer.sessions[command.given[0]]
            if command.verb != "admit" and result == "":
                session.is_open, session.opened = True, (began, ended)
            elif result != "":
                session.released = True
                session.left = min(session.left or session.asked, session.asked)
