"""Whether the proxy is ready for clients: the Kubernetes API answered lately, and we are not stopping."""

from __future__ import annotations

import threading
import time

from ..exceptions import TransportClosed
from ..runtime.deadline import Clock, Deadline
from .dialler import Dialler

__all__ = ["Readiness"]

_PROBE = "/version"
_PROBE_SECONDS = 3.0
_GOOD_SECONDS = 10.0  # for so long an answer of the API counts
_BAD_SECONDS = 2.0  # and so long a probe that failed
_UNAUTHORIZED, _SERVER_ERRORS = 401, 500


class Readiness:
    """Knows whether the API answers: from the sessions that dial, and, without any of late, from a probe.

    Strangers can ask, so there is one probe at a time, and one in two seconds at most. Any thread.

    :param dialler: sends the probe.
    """

    def __init__(self, dialler: Dialler, clock: Clock = time.monotonic) -> None:
        self._dialler = dialler
        self._clock = clock
        self._probing = threading.Lock()
        # Assigned as a whole: whether the API answered, and until when that counts.
        self._known = (False, clock())
        self._draining = False

    def answered(self) -> None:
        """Take note that the API answered. Does not block."""
        self._known = (True, self._clock() + _GOOD_SECONDS)

    def drain(self) -> None:
        """Be ready no more. Does not block."""
        self._draining = True

    def is_ready(self, deadline: Deadline) -> bool:
        """Whether to send clients here. Blocks for a probe, 3 s and ``deadline`` at most.

        While another thread probes, the answer is what was known before.
        """
        if not self._draining and self._clock() >= self._known[1] and self._probing.acquire(blocking=False):
            try:
                good = self._probe(deadline)
                self._known = (good, self._clock() + (_GOOD_SECONDS if good else _BAD_SECONDS))
            finally:
                self._probing.release()
        return self._known[0] and not self._draining

    def _probe(self, deadline: Deadline) -> bool:
        """Whether the API answers, and takes our service account for one of its own."""
        try:
            seconds = min(_PROBE_SECONDS, deadline.remaining())
            status, _ = self._dialler.request(_PROBE, Deadline(seconds))
        except (TimeoutError, TransportClosed, OSError, ValueError):
            return False
        return status < _SERVER_ERRORS and status != _UNAUTHORIZED
