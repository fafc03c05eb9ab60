"""The one thread of a server that carries the small messages of all its sessions.

With a thread for each direction of each session, every small message costs a switch between threads,
and with many sessions these fight for the interpreter's lock: docs/performance.md has the figures. So a
direction has a thread of its own only while it carries much, or has to wait.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
from contextlib import suppress
from typing import Protocol

from ..runtime.forks import in_forked_child
from ..runtime.logs import Complaints, get_logger
from ..runtime.threads import VitalLoop, start_thread

__all__ = ["Poller", "Watched"]

logger = get_logger("wsproxy.poller")

_BUFFER_SIZE = 64 * 1024
_LOOK_SECONDS = 1.0
_HELD_LOOKS = 2  # in a row; one alone may come right after the whole process was stopped


class Watched(Protocol):
    """Something to be read by the poller's thread."""

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        ...

    def ready(self, buffer: bytearray, view: memoryview) -> bool:
        """Deal with what has come. Must not block.

        :param buffer: to work in; its content is of no use, before or after.
        :param view: of the buffer.
        :returns: whether to go on watching.
        """
        ...

    def let_go(self) -> None:
        """Take note that it is not watched any more. Must not block."""
        ...

    def failed(self, exc: Exception) -> None:
        """Take note of what :meth:`ready` or :meth:`let_go` raised, a bug. Must not block."""
        ...

    def abort(self) -> None:
        """Make a :meth:`ready` return that does not by itself. Any thread; must not block."""
        ...


class Poller:
    """Calls ``ready`` of everything watched, whenever its descriptor is readable.

    Only where the system has epoll, see :attr:`available`: there a descriptor can be added by one thread
    while another waits.
    """

    available = sys.platform == "linux"

    def __init__(self) -> None:
        # An entry is added before its descriptor is registered.
        self._watched: dict[int, Watched] = {}
        self._removing = threading.Lock()  # held while one is removed
        self._loop = VitalLoop("the poller", self._run)
        self._complaints = Complaints(logger)
        self._thread: threading.Thread | None = None
        # What is being read, another tuple for each time. Assigned by the poller's thread only.
        self._serving: tuple[Watched] | None = None
        self._held: tuple[Watched] | None = None  # the same, as of the look before
        self._looks = 0

    def start(self, owner: object) -> None:
        """Start the thread, which works for ``owner``. Once only."""
        self._epoll = select.epoll()
        self._waker, self._woken = socket.socketpair()
        self._epoll.register(self._woken.fileno(), select.EPOLLIN)
        in_forked_child(self, Poller._close)
        self._thread = start_thread("wsproxy-poller", self._loop.run, owner)

    @property
    def is_healthy(self) -> bool:
        """See :class:`.VitalLoop`."""
        return self._loop.is_healthy

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and not stopped."""
        return self._thread is not None

    def stop(self) -> None:
        """End the thread and wait for it; nothing may be watched any more. Idempotent."""
        if self._thread is None:
            return
        self._loop.stop()
        self._waker.send(b"\0")
        self._thread.join()
        self._thread = None
        self._close()

    def _close(self) -> None:
        for resource in (self._waker, self._woken, self._epoll):
            resource.close()

    def watch(self, watched: Watched, *, end_only: bool = False) -> None:
        """Watch from now on, until its ``ready`` returns False. Any thread; does not block.

        :param end_only: whether only the end of what the peer sends makes it ready.
        :raises OSError: if the system watches no more descriptors for this user.
        """
        descriptor = watched.fileno()
        self._watched[descriptor] = watched
        try:
            self._epoll.register(descriptor, select.EPOLLRDHUP if end_only else select.EPOLLIN)
        except OSError:
            del self._watched[descriptor]
            raise

    def forget(self, watched: Watched) -> None:
        """Watch no more, if it is watched; its ``ready`` may be under way. Any thread; does not block."""
        self._remove(watched.fileno(), watched)

    def tick(self, now: float) -> float:
        """Housekeeping: end whatever has held the thread for seconds, so that all the others go on.

        Nothing of ours does, but OpenSSL returns from a read only once there is data, or nothing more in the
        kernel: a peer that sends key updates (RFC 8446 section 4.6.3) without end keeps it there.
        """
        serving = self._serving
        self._looks = self._looks + 1 if serving is not None and serving is self._held else 0
        self._held = serving
        if serving is not None and self._looks >= _HELD_LOOKS:
            serving[0].abort()
        return now + _LOOK_SECONDS

    def _run(self) -> None:
        buffer = bytearray(_BUFFER_SIZE)
        view = memoryview(buffer)
        poll, watched = self._epoll.poll, self._watched
        stopping = self._woken.fileno()
        self._serving = None
        while True:
            for descriptor, _ in poll():
                if descriptor == stopping:
                    return
                one = watched.get(descriptor)
                if one is None:
                    continue
                self._serving = (one,)
                stays = self._is_to_stay(one, buffer, view)
                self._serving = None
                if not stays:
                    self._let_go(descriptor, one)
            one = None  # not to be kept alive, and a session with it, while nothing else comes

    def _is_to_stay(self, one: Watched, buffer: bytearray, view: memoryview) -> bool:
        try:
            return one.ready(buffer, view)
        except BaseException as exc:  # noqa: BLE001 - a bug of ours must not end every session
            self._tell_failure(one, exc)
            return False

    def _let_go(self, descriptor: int, one: Watched) -> None:
        try:
            if self._remove(descriptor, one):
                one.let_go()
        except BaseException as exc:  # noqa: BLE001 - as above
            self._tell_failure(one, exc)

    def _remove(self, descriptor: int, one: Watched) -> bool:
        """Watch no more; return whether it was watched. The descriptor may have another watcher by now."""
        with self._removing:
            if self._watched.get(descriptor) is not one:
                return False
            with suppress(OSError, ValueError):  # closed meanwhile, so the system watches it no more
                self._epoll.unregister(descriptor)
            del self._watched[descriptor]
            return True

    def _tell_failure(self, one: Watched, exc: BaseException) -> None:
        try:
            one.failed(
                exc if isinstance(exc, Exception) else RuntimeError(f"{type(exc).__name__} in a session")
            )
        except BaseException:  # noqa: BLE001 - as above
            self._complaints.note("a session could not be told of a failure")
