"""Whether the proxy is ready for clients: the Kubernetes API answered lately, and we are not stopping."""

from __future__ import annotations

import threading
import time

from ..exceptions import TransportClosed
from ..runtime.deadline import Clock, Deadline
from ..runtime.logs import get_logger
from .dialler import Dialler

__all__ = ["Readiness"]

logger = get_logger("wsproxy.readiness")

_PROBE = "/version"
_PROBE_SECONDS = 3.0
_GOOD_SECONDS = 10.0  # for so long an answer of the API counts
_BAD_SECONDS = 2.0  # and so long a probe that failed
_TELL_SECONDS = 60.0  # between two reasons, while the proxy is not ready
_UNAUTHORIZED, _SERVER_ERRORS = 401, 500


class Readiness:
    """Knows whether the API answers: from the sessions that dial, and, without any of late, from a probe.

    Strangers can ask, so there is one probe at a time, and one in two seconds at most. The log has one line
    when the proxy is found not to be ready, and one when it is again. Any thread.

    :param dialler: sends the probe.
    """

    def __init__(self, dialler: Dialler, clock: Clock = time.monotonic) -> None:
        self._dialler = dialler
        self._clock = clock
        # Guards what is told, and lets one thread probe at a time.
        self._probing = threading.Lock()
        self._told = ""  # why it is not ready, as the log has it; "" if it is, for all that is known
        self._told_at = clock()
        # Assigned as a whole: whether the API answered, and until when that counts.
        self._known = (False, clock())
        self._draining = False

    def check_files(self, *, told: bool = False) -> None:
        """Say in the log which files of ours keep us from the API. For the start; blocks on the file system.

        :param told: whether it has been said already, by another process.
        """
        with self._probing:
            if faults := self._dialler.file_faults():
                self._tell("; ".join(faults), quietly=told)

    def answered(self) -> None:
        """Take note that the API answered. Does not block."""
        self._known = (True, self._clock() + _GOOD_SECONDS)

    def drain(self) -> None:
        """Be ready no more. Does not block."""
        self._draining = True

    def is_ready(self, deadline: Deadline) -> bool:
        """Whether to send clients here. Blocks for a probe, 3 s at most, and not at all after ``deadline``.

        While another thread probes, the answer is what was known before.
        """
        due = self._clock() >= self._known[1] and not self._draining and not deadline.passed
        if due and self._probing.acquire(blocking=False):
            try:
                fault = self._probe()
                self._known = (not fault, self._clock() + (_BAD_SECONDS if fault else _GOOD_SECONDS))
                self._tell(fault)
            finally:
                self._probing.release()
        return self._known[0] and not self._draining

    def _probe(self) -> str:
        """Return why the API does not answer, or does not take our service account; "" if it does both.

        It takes its time whatever is left of the request that it is for: whoever sends that slowly must not
        make the API seem slow to everybody.
        """
        if faults := self._dialler.file_faults():
            return "; ".join(faults)
        try:
            status, _ = self._dialler.request(_PROBE, Deadline(_PROBE_SECONDS))
        except TimeoutError:
            return f"the Kubernetes API does not answer within {_PROBE_SECONDS:g} s"
        except (TransportClosed, OSError, ValueError) as exc:
            return f"the Kubernetes API cannot be reached: {exc}; wsproxy check says more"
        if status == _UNAUTHORIZED:
            return "the Kubernetes API does not take the service-account token (401); is it of this cluster?"
        return f"the Kubernetes API answers {status}" if status >= _SERVER_ERRORS else ""

    def _tell(self, fault: str, *, quietly: bool = False) -> None:
        """Log a change, unless it is only another reason, and soon. Needs the lock."""
        now = self._clock()
        if fault == self._told or (fault and self._told and now - self._told_at < _TELL_SECONDS):
            return
        self._told, self._told_at = fault, now
        if fault and not quietly:
            logger.error("not ready: %s", fault)
        elif not fault:
            logger.info("ready again")
