"""Watches whether a client is still connected while its thread is busy for it."""

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
    """Watches for the end of what a client sends, in a ``with`` block. Needs no thread of its own.

    The kernel reports that end to the poller. If there is no poller, or if it can watch no more descriptors,
    housekeeping checks twice a second instead. It does so, too, if the client may only be half-closed.

    :param transport: to the client; no other code may read it meanwhile.
    :param on_left: called when the client has left, by any thread; may be called more than once, and must not
        block.
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
        self._lock = threading.Lock()  # guards the attribute below; nothing is added after it is set
        self._is_over = False

    def __enter__(self) -> Presence:
        if self.look():  # the client has left already, so there is nothing to watch
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
        except OSError:  # this user has reached the system's limit of watched descriptors
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
        """Check whether the client has left; call ``on_left`` if so. Any thread; never blocks.

        :returns: whether the client has left.
        """
        if left := self._transport.has_left():
            self._on_left()
        return left

    def tick(self, now: float) -> float:
        """Housekeeping: see :class:`.Ticking`."""
        self.look()
        return now + _LOOK_SECONDS

    # The methods that the poller calls, see Watched

    def fileno(self) -> int:
        return self._transport.fileno()

    def ready(self, buffer: bytearray, view: memoryview) -> bool:
        if not self.look():
            self._look_again()
        return False

    def let_go(self) -> None:
        pass

    def failed(self, exc: Exception) -> None:
        logger.error("watching a client failed", exc_info=exc)

    def abort(self) -> None:
        pass
