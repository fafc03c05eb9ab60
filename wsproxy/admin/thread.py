"""The thread that serves the operator, or waits until the operator's address is free."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable

from ..runtime.forks import in_forked_child
from ..runtime.threads import VitalLoop, start_thread
from .server import AdminServer

__all__ = ["AdminThread", "Take"]

_TAKE_SECONDS = 0.5  # between two attempts to get an address that another process has
_ASIDE_SECONDS = 1.5  # in which another process gets the address
_STOP, _ASIDE = b"\0", b"\1"

Take = Callable[[], AdminServer | None]
"""Makes the server if its address is free, and else returns None. Blocks only while it resolves a name."""


class AdminThread:
    """A thread that only serves the operator.

    :param server: the server; :meth:`stop` closes it. None if another process has its address.
    :param end: called by :meth:`stop` at last; may block.
    :param take: called twice a second as long as there is no server; None if no other process may have the
        address.
    :param let_go: called when the server no longer listens, so that another process gets the address.
    """

    def __init__(
        self,
        server: AdminServer | None,
        end: Callable[[], None] = lambda: None,
        take: Take | None = None,
        let_go: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server
        self._end = end
        self._take = take
        self._let_go = let_go
        self._pause = _TAKE_SECONDS
        self._loop = VitalLoop("serving the operator", self._run)
        self._thread: threading.Thread | None = None
        self._waker, self._woken = socket.socketpair()
        for sock in (self._waker, self._woken):
            in_forked_child(sock, socket.socket.close)

    def start(self, owner: object) -> None:
        """Start the thread on behalf of ``owner``. Once only."""
        self._thread = start_thread("wsproxy-admin", self._loop.run, owner)

    @property
    def is_healthy(self) -> bool:
        """See :class:`.VitalLoop`."""
        return self._loop.is_healthy

    def step_aside(self) -> None:
        """Let another process have the address if one wants it. If none does, take it again.

        Does nothing if no other process may have it. Any thread, before :meth:`stop`; does not block.
        """
        if self._take and self._thread:
            self._waker.send(_ASIDE)

    def stop(self) -> None:
        """End the thread, wait for it, and close the server. Idempotent; blocks as ``end`` does."""
        self._loop.stop()
        if self._thread:
            self._waker.send(_STOP)
            self._thread.join()
            self._thread = None
        if self._server:
            self._server.close()
        self._waker.close()
        self._woken.close()
        self._end()

    def _run(self) -> None:
        with selectors.PollSelector() as selector:  # needs no descriptor: the process may have none left
            selector.register(self._woken, selectors.EVENT_READ)
            if self._server:
                selector.register(self._server, selectors.EVENT_READ)
            while True:
                seconds = self._server.next_due() if self._server else self._pause
                woken = self._woken in [key.fileobj for key, _ in selector.select(seconds)]
                if woken and self._woken.recv(1) == _STOP:
                    return
                if self._server:
                    self._serve(self._server, selector, withdraw=woken)
                elif self._take and not woken:
                    self._pause = _TAKE_SECONDS
                    if server := self._take():
                        selector.register(server, selectors.EVENT_READ)
                        self._server = server

    def _serve(self, server: AdminServer, selector: selectors.BaseSelector, *, withdraw: bool) -> None:
        server.serve()
        if withdraw:
            server.withdraw()
            self._let_go()
        if server.is_over:
            selector.unregister(server)
            self._server, self._pause = None, _ASIDE_SECONDS
            server.close()
