"""The store that processes of one host share: the side of a process."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ....exceptions import ConfigError, StoreUnavailable, TransportClosed
from ....runtime.deadline import Deadline
from ....runtime.forks import in_forked_child
from ....runtime.logs import get_logger
from ...membership import Copy, Publication, Pulse
from ..places import MOST_PATH_BYTES
from ..remote import RemoteCalls
from .connection import StoreConnection, Stranger
from .lock import StoreLock
from .process import CannotStart, start_process

__all__ = ["LocalStore"]

logger = get_logger("wsproxy.state.local")

_MOST_CONNECTIONS = 8  # with a request at a time; others wait for their turn
_NOBODY = (FileNotFoundError, ConnectionRefusedError)
_TRIES = 3  # of one request, if the store ends meanwhile
_LOOK_AGAIN = 0.02  # seconds between two looks for a store that is being started
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds from one start to the next


class _Starter:
    """Connects to the store, and starts it if there is none. One for each process."""

    def __init__(self, path: str, group: int | None, starts: bool) -> None:
        self._path = path
        self._group = group
        self._starts = starts
        # Guards the process below, while a thread starts it. No thread waits for this lock.
        self._lock = threading.Lock()
        self._started: subprocess.Popen[bytes] | None = None
        # Any thread may assign these. Whichever comes last, the starts have pauses between them.
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0

    def connect(self, deadline: Deadline) -> StoreConnection:
        """Return a new connection. Blocks until the deadline at most.

        :raises OSError: if there is no store, and none can be started; TimeoutError if it takes too long.
        :raises CannotStart: if that is not this process's business.
        :raises Stranger: if it is another user's.
        """
        while True:
            try:
                return StoreConnection(self._path, self._group, deadline)
            except _NOBODY:
                if not self._starts:
                    raise
            if self._lock.acquire(blocking=False):  # else another thread is at it
                try:
                    self._start(deadline)
                finally:
                    self._lock.release()
            time.sleep(min(_LOOK_AGAIN, deadline.remaining()))

    def _start(self, deadline: Deadline) -> None:
        """Start the store, unless somebody does. Needs the lock."""
        lock = StoreLock.take(self._path, self._group)
        if lock is None:
            return
        with lock:
            if lock.is_managed:
                raise CannotStart("it belongs to a service manager")
            now = time.monotonic()
            if self._is_there(deadline) or now < self._not_before:
                return
            self._not_before = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self.reap(0)
            self._started = start_process(self._path, self._group, lock)
        self.reap(deadline.remaining())

    def _is_there(self, deadline: Deadline) -> bool:
        """Whether somebody has started it since the last look, so that it ended again or has no lock."""
        try:
            StoreConnection(self._path, self._group, deadline).close()
        except _NOBODY:
            return False
        return True

    def is_well(self) -> None:
        """Take note that the store answers, so that it is started again at once when it dies."""
        self._pause, self._not_before = _FIRST_PAUSE, 0.0

    def reap(self, seconds: float) -> None:
        """Wait for the process between this one and the store, for a while."""
        if self._started:
            with suppress(subprocess.TimeoutExpired):
                self._started.wait(seconds)
                self._started = None


class _Lines:
    """The connections of one process: a forked child has others."""

    def __init__(self) -> None:
        self.turns = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        # Guards the attributes below. Nobody waits with it.
        self.lock = threading.Lock()
        self.idle: list[StoreConnection] = []
        self.listening: set[StoreConnection] = set()
        self.is_closed = False
        self.is_away = False
        self.members: set[str] = set()  # that end with the lifeline
        # Guards the lifeline, also while a member is announced: for the store's timeout at most.
        self.lifeline_lock = threading.Lock()
        self.lifeline: StoreConnection | None = None

    def take(self) -> StoreConnection | None:
        """Return an idle connection; None if there is none."""
        with self.lock:
            return self.idle.pop() if self.idle else None

    def keep(self, connection: StoreConnection) -> None:
        """Take a connection back."""
        with self.lock:
            if not self.is_closed:
                self.idle.append(connection)
                return
        connection.close()

    def drop_idle(self) -> None:
        """Close what is idle."""
        with self.lock:
            idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()


class LocalStore(RemoteCalls):
    """A :class:`.Store` in a process of its own, behind a Unix socket. See :mod:`.local.server`.

    Any thread may call it. A call blocks for ``timeout`` seconds at most; :meth:`listen` adds that to its own
    time. It makes its first connection when it is first called, and a forked child makes its own.

    :param path: of the socket. Beside it there are PATH.lock and PATH.log.
    :param group: id of a group whose members share the state, too.
    :param starts: whether to start the store's process when there is none.
    :param timeout: seconds for one call, a start of the store included.
    :raises ConfigError: if the path cannot be one of a socket.
    """

    def __init__(
        self, path: str, *, group: int | None = None, starts: bool = True, timeout: float = 1.0
    ) -> None:
        super().__init__(self._asked)
        if not path or "\0" in path or len(os.fsencode(path)) > MOST_PATH_BYTES:
            raise ConfigError(
                [f"the store's path is {path!r}; a socket's path has 1 to {MOST_PATH_BYTES} bytes"]
            )
        self._path = os.path.abspath(path)
        self._group = group
        self._starts = starts
        self._timeout = timeout
        self._begin()

    def _begin(self) -> None:
        """Begin without a connection, also in a forked child, whose copies are closed already."""
        self._lines = _Lines()
        self._starter = _Starter(self._path, self._group, self._starts)
        in_forked_child(self, LocalStore._begin)

    # Operations

    def publish(self, publication: Publication) -> Pulse:
        """See :meth:`.Store.publish`. The store forgets the member when this process ends."""
        self._hold(publication.member.id)
        return super().publish(publication)

    def borrow(self, member: str, name: str, max_age: float, turn_seconds: float) -> Copy:
        """See :meth:`.Store.borrow`. A turn ends with this process."""
        self._hold(member)
        return super().borrow(member, name, max_age, turn_seconds)

    def leave(self, member: str) -> None:
        """See :meth:`.Store.leave`."""
        with self._lines.lock:
            self._lines.members.discard(member)
        super().leave(member)

    def sizes(self) -> dict[str, int]:
        """Return how many things the store remembers, by kind."""
        sizes: dict[str, int] = self._asked("sizes", [])
        return sizes

    def listen(self, member: str, seconds: float) -> bool:
        """See :meth:`.Store.listen`. Returns at once when the store is closed.

        :raises StoreUnavailable: at once, if there is no store. The caller pauses before it listens again.
        """
        lines, deadline = self._lines, Deadline(self._timeout)
        connection: StoreConnection | None = None
        try:
            with self._explained(lines):
                connection = self._starter.connect(deadline)
                with lines.lock:
                    lines.listening.add(connection)
                if lines.is_closed:
                    return False
                answer = connection.ask("listen", [member, seconds], Deadline(seconds + self._timeout))
            return bool(self._result("listen", answer))
        except StoreUnavailable:
            if lines.is_closed:
                return False
            raise
        finally:
            if connection:
                with lines.lock:
                    lines.listening.discard(connection)
                connection.close()

    def close(self) -> None:
        """See :meth:`.Store.close`. What this process's members still hold is void at once."""
        lines = self._lines
        with lines.lock:
            lines.is_closed = True
            for connection in lines.listening:
                connection.interrupt()
        lines.drop_idle()
        with lines.lifeline_lock:
            if lines.lifeline:
                lines.lifeline.close()
        self._starter.reap(self._timeout)

    # Requests

    def _asked(self, operation: str, arguments: list[Any]) -> Any:
        """Send a request to the store, and return the result."""
        lines, deadline = self._lines, Deadline(self._timeout)
        with self._explained(lines):
            if lines.is_closed:
                raise TransportClosed("this process has closed it")
            if not lines.turns.acquire(timeout=deadline.remaining()):
                raise TimeoutError
            try:
                answer = self._exchanged(lines, operation, arguments, deadline)
            finally:
                lines.turns.release()
        return self._result(operation, answer)

    def _exchanged(
        self, lines: _Lines, operation: str, arguments: list[Any], deadline: Deadline
    ) -> dict[str, Any]:
        for _ in range(_TRIES):
            connection = lines.take() or self._starter.connect(deadline)
            try:
                return self._exchange(lines, connection, operation, arguments, deadline)
            except TransportClosed:  # the store has ended, or is about to; every operation may be repeated
                lines.drop_idle()
            time.sleep(min(_LOOK_AGAIN, deadline.remaining()))
        raise TransportClosed("it ends whenever it is asked")

    def _exchange(
        self,
        lines: _Lines,
        connection: StoreConnection,
        operation: str,
        arguments: list[Any],
        deadline: Deadline,
    ) -> dict[str, Any]:
        try:
            answer = connection.ask(operation, arguments, deadline)
        except BaseException:
            connection.close()
            raise
        lines.keep(connection)
        return answer

    def _result(self, operation: str, answer: dict[str, Any]) -> Any:
        if "result" not in answer:
            raise StoreUnavailable(
                f"the store at {self._path} cannot do {operation}: {answer.get('fault')}; "
                "if it is of another version, end it, and it is started again"
            )
        return answer["result"]

    def _hold(self, member: str) -> None:
        """Have the store know that a member ends with this process."""
        lines, deadline = self._lines, Deadline(self._timeout)
        with self._explained(lines):
            if not lines.lifeline_lock.acquire(timeout=deadline.remaining()):
                raise TimeoutError
            try:
                self._hold_on(lines, member, deadline)
            finally:
                lines.lifeline_lock.release()

    def _hold_on(self, lines: _Lines, member: str, deadline: Deadline) -> None:
        """Announce a member. Needs the lock of the lifeline."""
        if lines.is_closed:
            raise TransportClosed("this process has closed it")
        if lines.lifeline and not lines.lifeline.is_open:
            lines.lifeline.close()
            lines.lifeline = None
        if lines.lifeline is None:
            lines.lifeline = self._starter.connect(deadline)
            with lines.lock:
                lines.members.clear()
        if member in lines.members:
            return
        try:
            lines.lifeline.ask("hold", [member], deadline)
        except BaseException:
            lines.lifeline.close()
            lines.lifeline = None
            raise
        with lines.lock:
            lines.members.add(member)

    # What goes wrong

    @contextmanager
    def _explained(self, lines: _Lines) -> Iterator[None]:
        """Context manager: say what is wrong with the store, and log when it goes and when it comes."""
        try:
            yield
        except (OSError, TransportClosed, ValueError, Stranger, CannotStart) as exc:
            text = f"the store at {self._path} does not answer: {self._why(exc)}"
            self._note(lines, is_away=True, text=text)
            raise StoreUnavailable(text) from None
        self._starter.is_well()
        if lines.is_away:
            self._note(lines, is_away=False, text=f"the store at {self._path} answers again")

    def _why(self, exc: Exception) -> str:
        """Return what is wrong, and what to do."""
        remedy = f"start wsproxy state --listen unix:{self._path}"
        if isinstance(exc, _NOBODY):
            missing = not os.path.isdir(os.path.dirname(self._path))
            return "its directory is missing; make it" if missing else f"it does not run; {remedy}"
        if isinstance(exc, CannotStart):
            return f"it does not run, and {exc}; {remedy}"
        if isinstance(exc, TimeoutError | BlockingIOError):  # the latter: too many wait for it
            return f"there was no answer within {self._timeout:g} s; {self._path}.log may say why"
        if isinstance(exc, PermissionError):
            return f"{exc}; give this user the right, or choose another path"
        return str(exc)

    def _note(self, lines: _Lines, *, is_away: bool, text: str) -> None:
        with lines.lock:
            news = lines.is_away != is_away and not lines.is_closed
            lines.is_away = is_away
        if news and is_away:
            logger.error("%s", text)
        elif news:
            logger.info("%s", text)
