"""One thread that copies the small messages of all sessions.

With a thread for each direction of each session, every small message costs a switch between threads.
With many sessions, these threads compete for the interpreter's lock: docs/performance.md has the figures.
So a direction has a thread of its own only while it carries much data, or has to wait.
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
_HELD_LOOKS = 2  # in a row; a single one may come right after the whole process was stopped


class Watched(Protocol):
    """What the poller's thread can read."""

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        ...

    def ready(self, buffer: bytearray, view: memoryview) -> bool:
        """Read and handle what has come. Must not block.

        :param buffer: scratch space, whose content has no meaning before or after the call.
        :param view: of the buffer.
        :returns: whether the poller continues to watch it.
        """
        ...

    def let_go(self) -> None:
        """Called after :meth:`ready` returned False or raised: it is watched no more. Must not block."""
        ...

    def failed(self, exc: Exception) -> None:
        """Handle what :meth:`ready` or :meth:`let_go` raised, which is a bug. Must not block."""
        ...

    def abort(self) -> None:
        """Make :meth:`ready` return if it does not return by itself. Any thread; must not block."""
        ...


class Poller:
    """Calls ``ready`` of each watched object whenever its descriptor is readable.

    It needs epoll, which lets one thread add a descriptor while another waits: see :attr:`available`.
    """

    available = sys.platform == "linux"

    def __init__(self) -> None:
        # An entry is added before its descriptor is registered.
        self._watched: dict[int, Watched] = {}
        self._removing = threading.Lock()  # held while one is removed
        self._loop = VitalLoop("the poller", self._run)
        self._complaints = Complaints(logger)
        self._thread: threading.Thread | None = None
        # What the thread is reading, in a new tuple for each call. Assigned by the poller's thread only.
        self._serving: tuple[Watched] | None = None
        self._held: tuple[Watched] | None = None  # what it was at the previous tick
        self._looks = 0

    def start(self, owner: object) -> None:
        """Start the thread, which works for ``owner``. Call it once only."""
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
        """Whether the thread has been started, and not stopped."""
        return self._thread is not None

    def stop(self) -> None:
        """End the thread and wait for it. Nothing may be watched any more by then. Idempotent."""
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
        """Watch an object until its ``ready`` returns False. Any thread; does not block.

        :param end_only: call ``ready`` only when the peer ends its direction (FIN or RST).
        :raises OSError: if this user has reached the system's limit of watched descriptors.
        """
        descriptor = watched.fileno()
        self._watched[descriptor] = watched
        try:
            self._epoll.register(descriptor, select.EPOLLRDHUP if end_only else select.EPOLLIN)
        except OSError:
            del self._watched[descriptor]
            raise

    def forget(self, watched: Watched) -> None:
        """Stop watching an object, if it is watched. Any thread; does not block.

        Its ``ready`` may still be running when this returns.
        """
        self._remove(watched.fileno(), watched)

    def tick(self, now: float) -> float:
        """Housekeeping: abort an object that has held the thread for seconds, so that all others continue.

        OpenSSL returns from a read only when it has data, or when the kernel has no more bytes. So a peer
        that sends key updates (RFC 8446 section 4.6.3) without end keeps the thread in that read.
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
            one = None  # or it would keep the object and its session alive until the next event

    def _is_to_stay(self, one: Watched, buffer: bytearray, view: memoryview) -> bool:
        try:
            return one.ready(buffer, view)
        except BaseException as exc:  # noqa: BLE001 - a bug in one session must not end the others
            self._tell_failure(one, exc)
            return False

    def _let_go(self, descriptor: int, one: Watched) -> None:
        try:
            if self._remove(descriptor, one):
                one.let_go()
        except BaseException as exc:  # noqa: BLE001 - as above
            self._tell_failure(one, exc)

    def _remove(self, descriptor: int, one: Watched) -> bool:
        """Stop watching; return whether it was watched. The descriptor may have another owner by now."""
        with self._removing:
            if self._watched.get(descriptor) is not one:
                return False
            with suppress(OSError, ValueError):  # closed meanwhile: the kernel has removed it from the set
                self._epoll.unregister(descriptor)
            del self._watched[descriptor]
            return True

    def _tell_failure(self, one: Watched, exc: BaseException) -> None:
        try:
            one.failed(
                exc if isinstance(exc, Exception) else RuntimeError(f"{type(exc).__name__} in a session")
            )
        except BaseException:  # noqa: BLE001 - as above
            self._complaints.note("a session failed to handle an error of its own")
