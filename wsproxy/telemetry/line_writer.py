"""Writes log lines for threads that must not wait for the log's reader.

If a pipe, a terminal or a socket takes a line at once, the calling thread writes it. Otherwise the line waits
in a queue for the writer's own thread. Lines for a regular file always go through the queue, because a write
to a file system that hangs blocks.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from ..runtime.threads import start_thread
from .line_file import LineFile
from .line_queue import LineQueue

__all__ = ["LineWriter", "flush_program_log", "lines_lost_of_program_log"]

_LOOK_SECONDS = 0.1
_PAUSE_SECONDS = 0.01  # for which the thread rests after it has written
_FLUSH_SECONDS = 1.0
_END_SECONDS = 1.0
_NOT_TAKEN = "its reader does not read, or its file system hangs"

_writers: weakref.WeakSet[LineWriter] = weakref.WeakSet()
_program_logs: weakref.WeakSet[LineWriter] = weakref.WeakSet()


def lines_lost_of_program_log() -> int:
    """Return how many lines of the program's own log this process has lost. Any thread."""
    return sum(writer.lost for writer in list(_program_logs))


def flush_program_log() -> None:
    """Write the waiting lines of the program's own log, for example before ``os._exit``.

    Blocks for a second at most for each such log.
    """
    for writer in list(_program_logs):
        writer.flush()


def _unheard(text: str) -> None:
    """Ignore a complaint: the default, for a log without another log to complain to."""


class LineWriter:
    """Writes lines to a file, in order and each whole. Safe from every thread, and reentrant.

    If a line cannot be written, or the queue is full, the line is lost. A line in its place says how many
    were lost. If a line was begun and cannot be completed, it is lost, too, and the next one starts on a new
    line. Before :meth:`use` and after :meth:`close` lines are dropped, and not counted as lost.

    A forked child keeps the file, and none of the waiting lines.

    :param name: the name of its thread.
    :param say_lost: makes the line that says how many lines were lost.
    :param complain: told the reason when the first line of a series is lost.
    :param relieve: told the number of lost lines after the file tells it.
    :param is_program_log: whether :func:`flush_program_log` flushes it; its thread then pauses during forks.
    """

    def __init__(
        self,
        name: str,
        say_lost: Callable[[int], bytes],
        complain: Callable[[str], None] = _unheard,
        relieve: Callable[[int], None] = lambda lost: None,
        *,
        is_program_log: bool = False,
    ) -> None:
        self._name = name
        self._say_lost = say_lost
        self._complain = complain
        self._relieve = relieve
        self._file: LineFile | None = None
        self._begin()
        _writers.add(self)
        if is_program_log:
            _program_logs.add(self)

    def _begin(self) -> None:
        """Start with nothing to write: at first, and in a forked child, as other threads held the locks."""
        # Guards the attributes below. Held briefly. Reentrant, as a finalizer or a signal handler may log.
        self._lock = threading.RLock()
        self._queue = LineQueue()
        self._done = threading.Condition(self._lock)  # notified when all lines are written or lost
        self._flushing = 0  # threads that wait for _done
        self._closed = self._ending = False
        self._failing = False  # the last write failed
        self._next: LineFile | None = None  # replaces the file at the next write
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        # Held by the thread that writes; put() never waits for it. Guards the attributes below, and the file.
        self._turn = threading.Lock()
        self._line = self._left = b""  # the line that is being written, and the rest of it
        self._told = 0  # the number of lost lines that this line tells

    @property
    def lost(self) -> int:
        """How many lines this process has lost so far."""
        return self._queue.lost

    def put(self, line: bytes) -> None:
        """Write a line, or queue it. Any thread; does not block, and raises nothing.

        :param line: one or more lines, each with its newline. They stay together.
        """
        if not self._put_at_once(line):
            self._put_into_queue(line)

    def _put_at_once(self, line: bytes) -> bool:
        """Write a line without the queue, if nothing waits in it; return whether this took the line."""
        file = self._file
        if not file or file.may_block or self._thread or not self._turn.acquire(blocking=False):
            return False
        try:
            if self._closed or self._next or self._line or self._queue:
                return False
            self._line = self._left = line
            taken = self._write()
        finally:
            self._turn.release()
        if not taken:
            self._call_thread()
        elif self._queue:  # another thread queued a line while this one wrote
            self._go_on()
        return True

    def _put_into_queue(self, line: bytes) -> None:
        with self._lock:
            if self._closed or not (self._file or self._next):
                return
            begins = self._queue.add(line)
        if begins:
            self._complain(_NOT_TAKEN)
        self._go_on()

    def use(self, file: LineFile) -> None:
        """Write to another file from now on, and close the earlier one. Any thread; does not block.

        Waiting lines go to the new file. After :meth:`close` this only closes the new file.
        """
        with self._lock:
            unused, self._next = (file, None) if self._closed else (self._next, file)
        if unused:
            unused.close()
        if self._turn.acquire(blocking=False):
            try:
                self._used()
            finally:
                self._turn.release()
        self._go_on()

    def flush(self, seconds: float = _FLUSH_SECONDS) -> bool:
        """Block until no line waits, for at most ``seconds``; return whether none does. Any thread."""
        self._go_on()
        with self._lock:
            self._call_thread(at_once=True)
            self._flushing += 1
            try:
                return self._done.wait_for(lambda: not self._is_to_do(), seconds)
            finally:
                self._flushing -= 1

    def close(self, seconds: float = _FLUSH_SECONDS) -> None:
        """Write the waiting lines, end the thread, and close the file. Later lines are dropped. Idempotent.

        Blocks for ``seconds`` and one second more at most, even if the file hangs. Lines that are not written
        by then are lost.
        """
        with self._lock:
            before, self._closed = self._closed, True
        if before:
            return
        self.flush(seconds)
        # If the thread is stuck in a write, it closes the file itself after that.
        if self._end_thread() and self._turn.acquire(timeout=_END_SECONDS):
            try:
                self._abandon()
            finally:
                self._turn.release()

    # Who writes

    def _go_on(self) -> None:
        """Write in this thread if that cannot block and no other thread writes; otherwise wake the writer."""
        while self._is_to_do() and not self._ending:
            file = self._next or self._file
            if (self._thread or (file and file.may_block)) and self._call_thread():
                return
            if not self._turn.acquire(blocking=False):
                return  # the thread that has the turn looks again afterwards
            try:
                taken = self._write()
            finally:
                self._turn.release()
            if not taken:
                self._call_thread()
                return

    def _call_thread(self, *, at_once: bool = False) -> bool:
        """Have the writer's thread write; return False if the system cannot start it.

        :param at_once: whether to cut short the pause after its last write.
        """
        with self._lock:
            if self._asleep or (self._thread and at_once):
                self._asleep = False
                self._wakes.put(None)
            elif self._thread is None and not self._ending and self._is_to_do():
                try:
                    self._thread = start_thread(self._name, self._run, self)
                except RuntimeError:
                    return False
        return True

    def _run(self) -> None:
        try:
            self._write_until_over()
        finally:
            with self._lock:
                if self._thread is threading.current_thread():  # after a bug; the next line starts another
                    self._thread = None
        if self._ending and self._closed:
            with self._turn:
                self._abandon()

    def _write_until_over(self) -> None:
        while True:
            with self._turn:
                taken = self._write()
                if not taken and self._file:
                    self._file.wait(_LOOK_SECONDS)
            if taken and not self._ending:
                # Lines often come in groups, and waking this thread for each costs more than writing it.
                with suppress(queue.Empty):
                    self._wakes.get(timeout=_PAUSE_SECONDS)
            with self._lock:
                if self._is_over():
                    self._thread = None
                    return
                if self._is_to_do():
                    continue
                self._asleep = True
            self._wakes.get()

    def _is_over(self) -> bool:
        """Whether the thread must end: another thread told it to, or lines can be written without it."""
        return self._ending or not (self._is_to_do() or (self._file and self._file.may_block))

    def _end_thread(self) -> bool:
        """End the thread, even if lines wait; return False if it is stuck in a write.

        Blocks for a second at most.
        """
        with self._lock:
            thread, self._ending = self._thread, True
            self._call_thread(at_once=True)
        if thread and thread is not threading.current_thread():
            thread.join(_END_SECONDS)
        return not (thread and thread.is_alive())

    def _is_to_do(self) -> bool:
        """Whether there is something to write; a number of lost lines is not, while writing fails."""
        with self._lock:
            if self._line or self._next:
                return True
            return bool(self._queue) and not (self._failing and self._queue.only_says_lost)

    # Writing, with the turn

    def _write(self) -> bool:
        """Write what the file takes; return False if it takes no more now. Needs the turn."""
        file = self._used() if self._next else self._file
        while file and not self._ending and self._fetch():
            if self._left is self._line and file.is_torn():
                self._left = b"\n" + self._line
            try:
                while self._left:
                    self._left = self._left[file.write(self._left) :]
            except BlockingIOError:
                return False
            except OSError as exc:
                self._fail(exc.strerror or str(exc))
            else:
                self._succeed()
        return True

    def _used(self) -> LineFile | None:
        """Return the file to write to, after replacing it if there is a new one."""
        with self._lock:
            before, self._file = self._file, self._next or self._file
            if self._next:
                self._next = None
                self._failing = False
                self._left = self._line  # the new file gets the whole line
        if before and before is not self._file:
            before.close()
        return self._file

    def _fetch(self) -> bool:
        """Take the next line from the queue, unless one was begun; return whether there is a line."""
        if self._line or not self._queue:
            return bool(self._line)
        with self._lock:
            if not self._is_to_do():
                return False
            item = self._queue.take()
            if isinstance(item, bytes):
                self._line = self._left = item
                self._told = 0
                return True
            self._told = item
            self._line = self._left = self._say_lost(item)
            return True

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._failing = True
            first = self._lose_all()
            self._done.notify_all()
        if first:
            self._complain(reason)

    def _succeed(self) -> None:
        told, self._told = self._told, 0
        self._line = b""
        self._failing = False
        if told:
            self._queue.note_told()
            self._relieve(told)
        if self._flushing and not self._queue:
            with self._lock:
                self._done.notify_all()

    def _lose_all(self) -> bool:
        """Lose all lines that wait or were begun; return whether that begins a series of losses."""
        begun = self._told or self._line
        self._line = self._left = b""
        self._told = 0
        return self._queue.lose_all(begun)

    def _abandon(self) -> None:
        """Lose the remaining lines, and close the file."""
        with self._lock:
            first = self._lose_all()
            files, self._file, self._next = (self._file, self._next), None, None
        for file in files:
            if file:
                file.close()
        if first:
            self._complain(_NOT_TAKEN)

    # Forks

    def pause(self) -> None:
        """End the thread while the process forks. Blocks for a second at most."""
        self._end_thread()

    def resume(self) -> None:
        """Go on in the parent after the fork."""
        with self._lock:
            self._ending = self._closed
        self._go_on()

    def renew(self) -> None:
        """Start afresh in a forked child, which has no thread, and must not write the parent's lines."""
        files = self._file, self._next
        self._begin()
        if files[1]:
            self.use(files[1])


def _pause() -> None:
    for writer in list(_program_logs):
        writer.pause()


def _resume() -> None:
    for writer in list(_program_logs):
        writer.resume()


def _renew() -> None:
    for writer in list(_writers):
        writer.renew()


os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_renew)
