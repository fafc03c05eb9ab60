"""Whether the proxy is ready for clients: the API has answered lately, and the proxy does not drain."""

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
_GOOD_SECONDS = 10.0  # for which an answer of the API counts
_BAD_SECONDS = 2.0  # for which a failed probe counts
_TELL_SECONDS = 60.0  # between two reasons in the log, while the proxy is not ready
_UNAUTHORIZED, _SERVER_ERRORS = 401, 500


class Readiness:
    """Knows whether the API answers, from the sessions that dial. If none dialled lately, it sends a probe.

    Unauthenticated clients can ask, so it sends one probe at a time, and at most one in two seconds. It logs
    one line when the proxy stops being ready, and one when the proxy is ready again. Any thread.

    :param dialler: sends the probe.
    """

    def __init__(self, dialler: Dialler, clock: Clock = time.monotonic) -> None:
        self._dialler = dialler
        self._clock = clock
        # Guards what is logged, and lets one thread probe at a time.
        self._probing = threading.Lock()
        self._told = ""  # why the proxy is not ready, as last logged; "" if no fault is known
        self._told_at = clock()
        # Assigned as a whole: whether the API answered, and until when that counts.
        self._known = (False, clock())
        self._draining = False

    def check_files(self, *, told: bool = False) -> None:
        """Log the faults of the CA file and the token file, at the start. Blocks on the file system.

        :param told: whether another process has logged them already.
        """
        with self._probing:
            if faults := self._dialler.file_faults():
                self._tell("; ".join(faults), quietly=told)

    def answered(self) -> None:
        """Note that the API answered. Does not block."""
        self._known = (True, self._clock() + _GOOD_SECONDS)

    def drain(self) -> None:
        """From now on, say that the proxy is not ready. Does not block."""
        self._draining = True

    def is_ready(self, deadline: Deadline) -> bool:
        """Whether clients may be sent to this proxy. May block for a probe, at most 3 s.

        If another thread probes, this returns the last result. If ``deadline`` has passed, it sends no probe.
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
        """Return why the API does not answer or does not accept the service account; "" if all is well.

        The probe has a timeout of its own, and not what is left of the request's deadline. Otherwise a client
        that sends its request slowly could make the API seem slow to everybody.
        """
        if faults := self._dialler.file_faults():
            return "; ".join(faults)
        try:
            status, _ = self._dialler.request(_PROBE, Deadline(_PROBE_SECONDS))
        except TimeoutError:
            return f"the Kubernetes API does not answer within {_PROBE_SECONDS:g} s"
        except (TransportClosed, OSError, ValueError) as exc:
            return f"the Kubernetes API cannot be reached: {exc}; run `wsproxy check` for details"
        if status == _UNAUTHORIZED:
            return "the Kubernetes API rejects the service-account token (401); is it of this cluster?"
        return f"the Kubernetes API answers {status}" if status >= _SERVER_ERRORS else ""

    def _tell(self, fault: str, *, quietly: bool = False) -> None:
        """Log a change, but another reason only after a minute. Needs the lock."""
        now = self._clock()
        if fault == self._told or (fault and self._told and now - self._told_at < _TELL_SECONDS):
            return
        self._told, self._told_at = fault, now
        if fault and not quietly:
            logger.error("not ready: %s", fault)
        elif not fault:
            logger.info("ready again")
