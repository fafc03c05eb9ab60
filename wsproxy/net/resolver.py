"""Resolves names in a thread of its own.

``getaddrinfo`` has no timeout and cannot be interrupted. So one thread of the server calls it, and a session
waits for the answer until its own deadline. An answer that comes later serves the next session.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from ..exceptions import TransportClosed
from ..runtime.deadline import Clock, Deadline
from ..runtime.threads import VitalLoop, start_thread
from .sockets import Address

__all__ = ["Resolver"]

_KEPT_SECONDS = 30.0
_JOIN_SECONDS = 1.0

_Key = tuple[str, int]
_Answer = Future[tuple[Address, ...]]


def _getaddrinfo(host: str, port: int) -> tuple[Address, ...]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple((family, address) for family, _, _, _, address in found)


class Resolver:
    """Resolves names in one thread, which starts with the first name. Keeps answers for 30 s.

    Safe from every thread.

    :param ask: resolves a name; blocks, raises OSError.
    :param clock: seconds, for the age of answers.
    """

    def __init__(
        self,
        ask: Callable[[str, int], tuple[Address, ...]] = _getaddrinfo,
        clock: Clock = time.monotonic,
    ) -> None:
        self._ask = ask
        self._clock = clock
        # Guards the three attributes below.
        self._lock = threading.Lock()
        self._answers: dict[_Key, tuple[float, _Answer]] = {}
        self._loop = VitalLoop("resolving names", self._run)
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._questions: queue.SimpleQueue[tuple[_Key, _Answer] | None] = queue.SimpleQueue()

    def resolve(
        self, host: str, port: int, deadline: Deadline, given_up: Future[None] | None = None
    ) -> Sequence[Address]:
        """Return the addresses of ``host``. Blocks until the deadline, except for a literal address.

        :param given_up: done when the caller does not need the answer any more.
        :raises TimeoutError: if no answer came by the deadline.
        :raises TransportClosed: if the name cannot be resolved, if ``given_up`` is done, or if the resolver
            is stopped.
        """
        try:
            if literal := _literal(host, port):
                return [literal]
            answer = self._answer(host, port)
            if given_up and not answer.done():
                either: tuple[Future[Any], ...] = (answer, given_up)
                wait(either, deadline.remaining(), FIRST_COMPLETED)
                if given_up.done():
                    raise TransportClosed("the caller does not need the address any more")
            return answer.result(deadline.remaining())
        except (FutureTimeout, TimeoutError):  # the same class since Python 3.11
            raise TimeoutError(f"the name {host} was not resolved in time") from None
        except OSError as exc:
            raise TransportClosed(f"the name {host} cannot be resolved: {exc}") from exc

    def stop(self) -> None:
        """Fail all requests under way, and end the thread. Blocks for at most a second. Idempotent.

        A thread inside ``getaddrinfo`` cannot be woken. It ends by itself when that returns.
        """
        with self._lock:
            self._stopped = True
            thread, self._thread = self._thread, None
            pending = [answer for _, answer in self._answers.values() if not answer.done()]
            self._answers.clear()
        for answer in pending:
            _fail(answer, TransportClosed("the proxy is stopping"))
        self._loop.stop()
        if thread:
            self._questions.put(None)
            thread.join(_JOIN_SECONDS)

    def _answer(self, host: str, port: int) -> _Answer:
        key = (host, port)
        with self._lock:
            if self._stopped:
                raise TransportClosed("the proxy is stopping")
            asked, answer = self._answers.get(key, (0.0, None))
            if answer is None or self._clock() - asked > _KEPT_SECONDS or _failed(answer):
                self._start_thread()
                answer = Future()
                self._answers[key] = self._clock(), answer
                self._questions.put((key, answer))
            return answer

    def _start_thread(self) -> None:
        if self._thread is None:
            try:
                self._thread = start_thread("wsproxy-resolver", self._loop.run, self)
            except RuntimeError as exc:
                raise TransportClosed(f"names cannot be resolved: {exc}") from exc

    def _run(self) -> None:
        while question := self._questions.get():
            (host, port), answer = question
            try:
                addresses = self._ask(host, port)
            except Exception as exc:  # noqa: BLE001 - such as UnicodeError, if IDNA cannot encode a label
                _fail(answer, exc if isinstance(exc, OSError) else OSError(str(exc)))
            else:
                _settle(lambda found=addresses, to=answer: to.set_result(found))  # type: ignore[misc]


def _literal(host: str, port: int) -> Address | None:
    if ":" in host:
        return _literal_ipv6(host, port)
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return None
    return socket.AF_INET, (host, port)


def _literal_ipv6(host: str, port: int) -> Address | None:
    name, _, scope = host.partition("%")
    try:
        address = ipaddress.IPv6Address(name)
    except ValueError:
        return None
    return socket.AF_INET6, (str(address), port, 0, socket.if_nametoindex(scope) if scope else 0)


def _failed(answer: _Answer) -> bool:
    return answer.done() and answer.exception() is not None


def _fail(answer: _Answer, exc: BaseException) -> None:
    _settle(lambda: answer.set_exception(exc))


def _settle(set_answer: Callable[[], Any]) -> None:
    try:
        set_answer()
    except Exception:  # noqa: BLE001 - InvalidStateError: stop() has failed the answer already
        pass
