"""Whether a client is still there, while a thread does something for it that may take long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from ..net.transport import Transport
from ..relay.poller import Poller
from ..runtime.logs import get_logger
from ..runtime.timers import Housekeeping

__all__ = ["Presence"]

logger = get_logger("wsproxy.session")

_LOOK_SECONDS = 0.5


class Presence:
    """Watches the end of what a client sends; use ``with``. Costs no thread.

    The poller is told of it by the kernel. Where there is no poller, or it can watch no more descriptors, or
    the client may only have ended its own direction, housekeeping looks twice a second.

    :param transport: to the client, which nobody reads meanwhile.
    :param on_left: called when the client has left, by any thread, perhaps more than once; must not block.
    """

    def __init__(
        self,
        transport: Transport,
        poller: Poller | None,
        housekeeping: Housekeeping,
        on_left: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._poller = poller
        self._housekeeping = housekeeping
        self._on_left = on_left
        self._lock = threading.Lock()  # guards the attribute below, and that nothing is added after it is set
        self._is_over = False

    def __enter__(self) -> Presence:
        if self.look():  # it left before: nobody needs to be told by another thread, perhaps too late
            self._poller = None
        elif not self._is_polled():
            self._poller = None
            self._look_again()
        return self

    def _is_polled(self) -> bool:
        try:
            if is_polled := self._poller is not None and self._poller.is_running:
                self._poller.watch(self, end_only=True)
            return is_polled
        except OSError:  # the system watches no more descriptors for us
            return False

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._poller:
            self._poller.forget(self)
        with self._lock:
            self._is_over = True
        self._housekeeping.remove(self)

    def _look_again(self) -> None:
        with self._lock:
            if not self._is_over:
                self._housekeeping.add(self, _LOOK_SECONDS)

    def look(self) -> bool:
        """Return whether the client has left. Any thread; never blocks."""
        if left := self._transport.has_left():
            self._on_left()
        return left

    def tick(self, now: float) -> float:
        """Housekeeping: see :class:`.Ticking`."""
        self.look()
        return now + _LOOK_SECONDS

    # What the poller asks, see Watched

    def fileno(self) -> int:
        return self._transport.fileno()

    def ready(self, buffer: bytearray, view: memoryview) -> bool:
        if not self.look():
            self._look_again()
        return False

    def let_go(self) -> None:
        pass

    def failed(self, exc: Exception) -> None:
        logger.error("a client is watched no more", exc_info=exc)

    def abort(self) -> None:
        pass
