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

    :param changed: notified when a behaviour has changed; guards what is in here.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._requests: dict[int, Callable[[], bool]] = {}  # whether they still hang, by id

    def wait(self, request: RecordedRequest, hangs: Callable[[], bool]) -> None:
        """Block until a request need not hang any more. :meth:`begun` comes next.

        :param hangs: whether it does; is asked again whenever something changed.
        """
        with self._changed:
            self._requests[id(request)] = hangs
            self._changed.wait_for(lambda: not hangs())

    def begun(self, request: RecordedRequest) -> None:
        """Take note that a request is being carried out, if it hung. Needs the condition."""
        if self._requests.pop(id(request), None):
            self._changed.notify_all()

    def __contains__(self, request: RecordedRequest) -> bool:
        return id(request) in self._requests

    def recover(self) -> None:
        """Have everything carried out that hangs no more. Blocks until it has begun, ten seconds at most."""
        with self._changed:
            self._changed.notify_all()
            due = [request for request, hangs in self._requests.items() if not hangs()]
            self._changed.wait_for(lambda: not any(one in self._requests for one in due), _BEGIN_TIMEOUT)
