"""Requests that hang until the simulated API recovers. As a real API does, it then carries them out."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .http import RecordedRequest

__all__ = ["Hanging"]

_BEGIN_TIMEOUT = 10.0


class Hanging:
    """The requests that hang. Any thread may use it.

    If a client gives up, its request stays with the API, which carries it out later.

    :param changed: guards this object, and is notified when it changes.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._stopped = False
        # By id of the request: a function that says whether it still hangs; None if it may continue.
        self._requests: dict[int, Callable[[], bool] | None] = {}

    def wait(self, request: RecordedRequest, hangs: Callable[[], bool]) -> bool:
        """Block until :meth:`recover` finds that a request no longer hangs, or until :meth:`stop`.

        The caller then carries the request out, and calls :meth:`begun`.

        :param hangs: returns whether the request still hangs.
        :returns: False if :meth:`stop` ended the wait.
        """
        with self._changed:
            self._requests[id(request)] = hangs
            self._changed.wait_for(lambda: self._stopped or self._requests[id(request)] is None)
            return not self._stopped

    def begun(self, request: RecordedRequest) -> None:
        """Note that the API carries a request out, if it hung. The caller holds the condition."""
        if id(request) in self._requests:
            del self._requests[id(request)]
            self._changed.notify_all()

    def __contains__(self, request: RecordedRequest) -> bool:
        return id(request) in self._requests

    def recover(self) -> None:
        """Continue the requests that no longer hang. Blocks until they have begun, ten seconds at most."""
        with self._changed:
            due = [one for one, hangs in self._requests.items() if hangs is None or not hangs()]
            self._requests.update(dict.fromkeys(due))
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._stopped or not any(one in self._requests for one in due), _BEGIN_TIMEOUT
            )

    def stop(self) -> None:
        """End all waits, without carrying out the requests."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
