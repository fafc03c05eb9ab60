"""The operator's listener of one process. If several processes have the same address, one of them gets it.

A path has a lock beside it, at ``PATH.lock``. The process that has the lock listens at the path. The kernel
frees the lock when that process ends, however that happens. Then one of the others gets it. A port needs no
lock, because the kernel lets one process bind it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ..net.addresses import ListenAddress
from ..net.listeners import (
    OPERATOR_FAULT,
    UNIX,
    Listener,
    address_text,
    listen_for_operator,
    naming_address,
)
from ..runtime.logs import get_logger
from ..state.stores.local.lock import StoreLock
from ..telemetry.counters import Snapshot
from .auth import operator_guard
from .deferred import AnswerThreads, deferred
from .endpoints import admin_endpoints, session_endpoints
from .kick import Kicks
from .routes import AdminEndpoint
from .server import AdminServer
from .thread import AdminThread

__all__ = ["Candidate", "OperatorRules", "candidate_thread", "operator_server", "operator_thread"]

logger = get_logger("wsproxy.admin")

_IN_USE = (errno.EADDRINUSE, errno.EAGAIN)  # EAGAIN: somebody is binding in the same directory


@dataclass(frozen=True)
class OperatorRules:
    """Where the operator's listener is, and who may use it.

    :ivar token_file: see :func:`.operator_guard`.
    :ivar hosts: see :class:`.AdminServer`.
    """

    address: ListenAddress
    token_file: str | None = None
    hosts: Collection[str] = ()


class Candidate:
    """Tries to get the operator's address for this process. One thread at a time.

    :param is_shared: whether the process that has the address knows the sessions of this one.
    """

    def __init__(self, address: ListenAddress, *, is_shared: bool) -> None:
        self._address = address
        self._is_shared = is_shared
        self._lock: StoreLock | None = None
        self._said = ""

    def take(self) -> Listener | None:
        """Return the listening socket, which the caller closes; None if another process has the address.

        Blocks only while it resolves a name.

        :raises OSError: if the address cannot be bound for another reason; the text names it.
        """
        try:
            listener = self._bound()
        except OSError as exc:
            self.release()
            if exc.errno not in _IN_USE:
                raise
            listener = None
        if listener is None:
            self._say_who_has_it()
            return None
        logger.info("the operator's listener is at %s", address_text(*listener.address))
        self._said = ""
        return listener

    def try_to_take(self) -> Listener | None:
        """As :meth:`take`, but if the address cannot be bound, log that as an error, and return None."""
        try:
            return self.take()
        except OSError as exc:
            text = f"{exc.strerror or exc}; until then nobody can list or end sessions"
            if text != self._said:
                self._said = text
                logger.error("%s", text)
            return None

    def release(self) -> None:
        """Let another process have the address, after the listening socket was closed. Idempotent."""
        lock, self._lock = self._lock, None
        if lock:
            lock.close()

    def _bound(self) -> Listener | None:
        if self._address.path:
            with naming_address(UNIX + self._address.path, 0, OPERATOR_FAULT):
                self._lock = StoreLock.take(self._address.path)
            if self._lock is None:
                return None
        return listen_for_operator(self._address)

    def _say_who_has_it(self) -> None:
        text = f"another process has the operator's listener at {self._address}"
        if text == self._said:
            return
        self._said = text
        if self._is_shared:
            logger.info("%s; this one gets it when that one ends", text)
        else:
            logger.warning("%s; until that one ends, nobody can list or end the sessions of this one", text)


def operator_server(
    rules: OperatorRules, endpoints: Mapping[str, AdminEndpoint], *, reuse_port: bool
) -> AdminServer:
    """Listen for the operator, and return what serves there. Blocks only while it resolves a name.

    :param reuse_port: see :func:`.listen`.
    :raises OSError: if the address cannot be bound; the text names it.
    """
    listener = listen_for_operator(rules.address, reuse_port=reuse_port)
    logger.info("the operator's listener is at %s", address_text(*listener.address))
    return AdminServer(listener, endpoints, rules.hosts)


def operator_thread(
    rules: OperatorRules, kicks: Kicks, numbers: Callable[[], Snapshot], owner: object, *, reuse_port: bool
) -> AdminThread:
    """Listen for the operator, and return the thread that serves there, for the caller to start.

    Blocking and the errors are as for :func:`operator_server`.

    :param kicks: lists and ends sessions.
    :param numbers: returns the numbers of the process.
    :param owner: the object that threads work for.
    :raises ConfigError: see :func:`.operator_guard`.
    """
    endpoints, threads = _endpoints(rules, kicks, numbers, owner)
    return AdminThread(operator_server(rules, endpoints, reuse_port=reuse_port), threads.stop)


def candidate_thread(
    rules: OperatorRules, kicks: Kicks, numbers: Callable[[], Snapshot], owner: object, *, strict: bool
) -> AdminThread:
    """Return a thread that serves the operator as soon as no other process does, for the caller to start.

    The parameters are as for :func:`operator_thread`.

    :param strict: whether to raise if the address cannot be bound, but no other process has it. If not, the
        log has an error, and the thread tries again.
    :raises OSError: as ``strict`` says.
    :raises ConfigError: see :func:`.operator_guard`.
    """
    endpoints, threads = _endpoints(rules, kicks, numbers, owner)
    candidate = Candidate(rules.address, is_shared=kicks.participant.is_shared)

    def made(listener: Listener | None) -> AdminServer | None:
        return AdminServer(listener, endpoints, rules.hosts) if listener else None

    def end() -> None:
        candidate.release()
        threads.stop()

    first = candidate.take if strict else candidate.try_to_take
    return AdminThread(made(first()), end, lambda: made(candidate.try_to_take()), candidate.release)


def _endpoints(
    rules: OperatorRules, kicks: Kicks, numbers: Callable[[], Snapshot], owner: object
) -> tuple[Mapping[str, AdminEndpoint], AnswerThreads]:
    """Return the endpoints, and the threads that answer what may wait for the store."""
    of_sessions = session_endpoints(operator_guard(rules.token_file, rules.address), kicks)
    threads = AnswerThreads(of_sessions, owner)
    if kicks.participant.is_shared:
        of_sessions = deferred(of_sessions, threads.fetch)
    return admin_endpoints(lambda then: then(numbers())) | of_sessions, threads
