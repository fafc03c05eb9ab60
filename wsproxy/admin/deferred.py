"""Answers requests of the operator in threads of their own, perhaps in another process.

The operator's listener has one thread, which must not block. What needs the store of the shared state may.
So that request goes through a socket pair to whoever answers it, and the whole response comes back.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from ..exceptions import Busy, Refused
from ..protocol.request import RequestHead
from ..protocol.response import http_response, refusal_response
from ..runtime.logs import get_logger
from ..runtime.threads import start_thread
from .routes import AdminEndpoint, AdminRequest

__all__ = ["AnswerThreads", "Fetch", "ask_through", "deferred"]

logger = get_logger("wsproxy.admin")

_SECONDS = 10.0  # longer than the listener waits for an answer
_RECEIVE = 65536
_BUG = http_response(500, b"a bug; the log has more\n")

Fetch = Callable[[AdminRequest], socket.socket]
"""Begins to answer a request. Returns a socket from which the whole response comes, until its end."""


def deferred(endpoints: Mapping[str, AdminEndpoint], fetch: Fetch) -> dict[str, AdminEndpoint]:
    """Return the same endpoints, whose answers are fetched."""
    return {path: replace(endpoint, fetch=fetch) for path, endpoint in endpoints.items()}


def ask_through(request: AdminRequest, give: Callable[[socket.socket], None]) -> socket.socket:
    """Send a request through a socket pair; return the end from which the answer comes. Does not block.

    :param give: gets the other end, for :meth:`AnswerThreads.answer`; raises if nobody can answer.
    """
    ours, theirs = socket.socketpair()
    try:
        asked = {"target": request.head.target, "path": request.path, "name": request.name}
        asked["body"] = request.body.decode("latin-1")
        ours.setblocking(False)
        ours.sendall(json.dumps(asked).encode())
        ours.shutdown(socket.SHUT_WR)
        give(theirs)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return ours


class AnswerThreads:
    """Answers requests, each in a thread of its own. Any thread may use it.

    :param endpoints: what answers, by path; no guard is asked.
    :param owner: the object that the threads work for.
    """

    def __init__(self, endpoints: Mapping[str, AdminEndpoint], owner: object) -> None:
        self._endpoints = endpoints
        self._owner = owner
        self._lock = threading.Lock()  # guards the attribute below
        self._threads: set[threading.Thread] = set()

    def fetch(self, request: AdminRequest) -> socket.socket:
        """See :data:`Fetch`."""
        return ask_through(request, self.answer)

    def answer(self, sock: socket.socket) -> None:
        """Answer the request that comes through a socket, and close that. Returns at once.

        If the system starts no more threads, the answer is 503.
        """

        def run() -> None:
            with sock:
                self._answer(sock)
            with self._lock:
                self._threads.discard(threading.current_thread())

        try:
            with self._lock:
                self._threads.add(start_thread("wsproxy-operator", run, self._owner))
        except RuntimeError as exc:
            logger.error("cannot answer the operator: %s", exc)
            with sock, suppress(OSError):
                sock.sendall(refusal_response(Busy("no thread can be started now", retry_after=1)))

    def _answer(self, sock: socket.socket) -> None:
        sock.settimeout(_SECONDS)
        try:
            asked = json.loads(b"".join(iter(lambda: sock.recv(_RECEIVE), b"")))
            head = RequestHead("", asked["target"], "1.1", [])
            request = AdminRequest(head, asked["path"], asked["name"], asked["body"].encode("latin-1"))
            sock.sendall(self._response(request))
        except OSError as exc:
            logger.debug("an answer to the operator was not taken: %s", exc)
        except Exception:
            logger.exception("answering the operator failed")

    def _response(self, request: AdminRequest) -> bytes:
        path = request.path.removesuffix(request.name) if request.name else request.path
        answers: list[bytes] = []
        try:
            self._endpoints[path].handle(request, lambda make: answers.append(make()))
        except Refused as refused:
            return refusal_response(refused)
        except Exception:
            logger.exception("answering the operator failed")
            return _BUG
        return answers[0]

    def stop(self) -> None:
        """Wait for the threads. Blocks for as long as answers take: some timeouts of the store."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join()
