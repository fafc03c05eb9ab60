"""Writing lines of logs, for threads that must not wait for whoever reads them.

What a pipe, a terminal or a socket takes at once is written at once, by the thread that has the line. The
rest waits in a queue for a thread of the writer's. So does every line of a regular file: a file system that
hangs cannot say so.
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
_PAUSE_SECONDS = 0.01  # of the thread, after it has written
_FLUSH_SECONDS = 1.0
_END_SECONDS = 1.0
_NOT_TAKEN = "nobody reads it, or its file system hangs"

_writers: weakref.WeakSet[LineWriter] = weakref.WeakSet()
_program_logs: weakref.WeakSet[LineWriter] = weakref.WeakSet()


def lines_lost_of_program_log() -> int:
    """Return how many lines of the program's own log were lost in this process. Any thread."""
    return sum(writer.lost for writer in list(_program_logs))


def flush_program_log() -> None:
    """Write what waits of the program's own log, as before ``os._exit``. Takes a second at most."""
    for writer in list(_program_logs):
        writer.flush()


def _unheard(text: str) -> None:
    """What is told of a log that has no other."""


class LineWriter:
    """Writes lines to a file, in order and each whole. Safe from every thread, and within itself.

    A line that cannot be written, or for which the queue has no room, is lost. A line in its place says how
    many were. A line that was begun and cannot be completed is lost too; the next one begins on a line of its
    own. Before :meth:`use` and after :meth:`close` lines are dropped, and not counted.

    A forked child has the file, and none of the lines that wait.

    :param name: of its thread.
    :param say_lost: makes the line that says how many were lost.
    :param complain: told why, when the first line of several is lost.
    :param relieve: told how many, when they have been told in the file.
    :param is_program_log: whether it is the one of :func:`flush_program_log`, which outlives forks.
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
        """Have nothing to write: at first, and in a forked child, whose locks others may hold."""
        # Guards the attributes below. Held for moments only; a finalizer or a signal handler may log inside.
        self._lock = threading.RLock()
        self._queue = LineQueue()
        self._done = threading.Condition(self._lock)  # for the time being, or for good
        self._flushing = 0  # threads that wait for that
        self._closed = self._ending = False
        self._failing = False  # the file takes nothing at all
        self._next: LineFile | None = None  # to be used in place of the file
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        # Held while writing; a thread that has a line never waits for it. Guards the attributes below, and
        # the file.
        self._turn = threading.Lock()
        self._line = self._left = b""  # what is being written, and what is left of it
        self._told = 0  # how many lost lines it tells of

    @property
    def lost(self) -> int:
        """How many lines were lost so far, in this process."""
        return self._queue.lost

    def put(self, line: bytes) -> None:
        """Write a line, or have it written. Any thread; does not block, and raises nothing.

        :param line: with its end. Several at once stay together.
        """
        if not self._put_at_once(line):
            self._put_into_queue(line)

    def _put_at_once(self, line: bytes) -> bool:
        """Write a line without the detour by the queue, if nothing waits; return whether that was done."""
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
        elif self._queue:  # of somebody who found that it was our turn
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
        """Write to another file from now on, and close the one from before. Any thread; does not block.

        What waits is written to the new one. After :meth:`close` the file is closed.
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
        """Wait until no line waits, for at most ``seconds``; return whether none does. Any thread."""
        self._go_on()
        with self._lock:
            self._call_thread(at_once=True)
            self._flushing += 1
            try:
                return self._done.wait_for(lambda: not self._is_to_do(), seconds)
            finally:
                self._flushing -= 1

    def close(self, seconds: float = _FLUSH_SECONDS) -> None:
        """Write what waits, end the thread, and close the file; later lines are dropped. Idempotent.

        Takes ``seconds`` at most, and one more, whatever the file does. What is not written by then is lost.
        """
        with self._lock:
            before, self._closed = self._closed, True
        if before:
            return
        self.flush(seconds)
        # If the thread is stuck in the file, it closes that when it gets out.
        if self._end_thread() and self._turn.acquire(timeout=_END_SECONDS):
            try:
                self._abandon()
            finally:
                self._turn.release()

    # Who writes

    def _go_on(self) -> None:
        """Write here and now if that cannot block and nobody else does; else have the thread write."""
        while self._is_to_do() and not self._ending:
            file = self._next or self._file
            if (self._thread or (file and file.may_block)) and self._call_thread():
                return
            if not self._turn.acquire(blocking=False):
                return  # whoever has it looks again afterwards
            try:
                taken = self._write()
            finally:
                self._turn.release()
            if not taken:
                self._call_thread()
                return

    def _call_thread(self, *, at_once: bool = False) -> bool:
        """Have the thread write; return False if the system will not start it.

        :param at_once: also if it has written a moment ago.
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
                if self._thread is threading.current_thread():  # a bug; the next line starts another
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
                # One line is seldom alone. To wake this thread for each would cost more than to write it.
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
        """Whether the thread is to end: it is told to, or lines can be written without it."""
        return self._ending or not (self._is_to_do() or (self._file and self._file.may_block))

    def _end_thread(self) -> bool:
        """End the thread, whatever is left; return whether it has ended, and is not stuck in the file.

        Takes a second at most.
        """
        with self._lock:
            thread, self._ending = self._thread, True
            self._call_thread(at_once=True)
        if thread and thread is not threading.current_thread():
            thread.join(_END_SECONDS)
        return not (thread and thread.is_alive())

    def _is_to_do(self) -> bool:
        """Whether there is something to write. It is of no use to say what was lost while nothing can be."""
        with self._lock:
            if self._line or self._next:
                return True
            return bool(self._queue) and not (self._failing and self._queue.only_says_lost)

    # Writing, with the turn

    def _write(self) -> bool:
        """Write what the file takes; return False if it takes no more for now."""
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
        """Return the file to write to, from now on another one if that has come."""
        with self._lock:
            before, self._file = self._file, self._next or self._file
            if self._next:
                self._next = None
                self._failing = False
                self._left = self._line  # all of it, in the new one
        if before and before is not self._file:
            before.close()
        return self._file

    def _fetch(self) -> bool:
        """Take the next line from the queue, if none was begun; return whether there is one."""
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
        """Let what waits or was begun be lost; return whether that is the first of several."""
        begun = self._told or self._line
        self._line = self._left = b""
        self._told = 0
        return self._queue.lose_all(begun)

    def _abandon(self) -> None:
        """Give up what is left, and close the file."""
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
        """End the thread for as long as the process forks."""
        self._end_thread()

    def resume(self) -> None:
        """Go on after that."""
        with self._lock:
            self._ending = self._closed
        self._go_on()

    def renew(self) -> None:
        """Go on in the child, where there is no thread, and no line of the parent's is to be written."""
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
