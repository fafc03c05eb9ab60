"""Requests that hang until the stand-in API recovers, and are carried out then, as a real API does."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .http import RecordedRequest

__all__ = ["Hanging"]

_BEGIN_TIMEOUT = 10.0


class Hanging:
    """Knows which requests hang. Safe from every thread.

    A client that gives a request up does not take it back: the API has it, and carries it out.

    :param changed: notified when something has changed; guards what is in here.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._stopped = False
        # By id: whether each would still hang, None for those that were told to go on.
        self._requests: dict[int, Callable[[], bool] | None] = {}

    def wait(self, request: RecordedRequest, hangs: Callable[[], bool]) -> bool:
        """Block until a request need not hang any more, and :meth:`recover` is called.

        Afterwards :meth:`begun` is called.

        :param hangs: whether it does still.
        :returns: False if it was :meth:`stop` that ended it.
        """
        with self._changed:
            self._requests[id(request)] = hangs
            self._changed.wait_for(lambda: self._stopped or self._requests[id(request)] is None)
            return not self._stopped

    def begun(self, request: RecordedRequest) -> None:
        """Take note that a request is being carried out, if it hung. Needs the condition."""
        if id(request) in self._requests:
            del self._requests[id(request)]
            self._changed.notify_all()

    def __contains__(self, request: RecordedRequest) -> bool:
        return id(request) in self._requests

    def recover(self) -> None:
        """Have everything carried out that hangs no more. Blocks until it has begun, ten seconds at most."""
        with self._changed:
            due = [one for one, hangs in self._requests.items() if hangs is None or not hangs()]
            self._requests.update(dict.fromkeys(due))
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._stopped or not any(one in self._requests for one in due), _BEGIN_TIMEOUT
            )

    def stop(self) -> None:
        """Have nothing hang any more, without carrying it out."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
