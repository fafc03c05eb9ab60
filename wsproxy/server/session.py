"""One session: :mod:`wsproxy.server.opening` opens it, and this file relays and closes it."""

from __future__ import annotations

import math
import random
import threading
import weakref
from collections.abc import Callable
from typing import NewType

from ..access.sessions import SessionHandle
from ..exceptions import Draining, Refused, TransportClosed
from ..net.tls import forget_errors
from ..net.transport import Transport
from ..protocol.client import Client, Peer
from ..protocol.closing import Ending
from ..protocol.handshake import Upgrade
from ..protocol.request import RequestHead
from ..protocol.routing import Route
from ..relay.lifetime import Lifetime
from ..relay.relay import Relay
from ..relay.scheduler import StartThread
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger, in_session
from ..runtime.threads import start_thread
from ..state.participant.holding import TAKEN_OVER
from ..telemetry.record import SessionRecord
from ..tokens.claims import Grant
from .gateway import Gateway
from .opening import EndedWhileOpening, Opened, Opening
from .presence import Presence

__all__ = ["OpenSession", "Session", "SessionId", "new_session_id"]

logger = get_logger("wsproxy.session")

SessionId = NewType("SessionId", str)

_RESTARTING = (1012, "restarting")
_CLIENT_GONE = Ending("client", None, "client-gone")  # if the client left before the session was open


def new_session_id() -> SessionId:
    """Return a random id for a connection and its session."""
    return SessionId(f"{random.getrandbits(32):08x}")


class _BeingOpened:
    """What :class:`.SessionHandle` uses until the session is open."""

    bytes_up = bytes_down = data_up = 0

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def ending(self) -> Ending | None:
        return self._session.ending

    def end(self, code: int, reason: str) -> None:
        self._session.end(code, reason)


def _ending_of(exc: BaseException) -> Ending:
    """Return the ending to report if an exception has kept a session from opening."""
    if isinstance(exc, Refused):
        return Ending("proxy", exc.close_code, exc.slug)
    if isinstance(exc, TransportClosed):
        return _CLIENT_GONE
    return Ending("proxy", None, "failed")


class Session:
    """One client's session, from its upgrade request to the end.

    Only the session's own thread uses it, except for the methods that say that any thread may call them.

    :param gateway: what all sessions share.
    :param peer: the other end of the client's connection.
    :ivar record: what the proxy knows of the session, for the log.
    :ivar opening: opens the console, and holds slots and console until the end.
    """

    def __init__(self, gateway: Gateway, peer: Peer) -> None:
        self.id = new_session_id()
        self.record = SessionRecord(self.id, str(peer))
        self._gateway = gateway
        self.opening = Opening(gateway, self.record, peer)
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._transport: Transport | None = None  # to the client
        self._open: OpenSession | None = None
        self._end: tuple[int, str] | None = None
        self._takeover: tuple[int, str] | None = None
        # Used by the session's own thread only.
        self._handle: SessionHandle | None = None

    def open(
        self,
        head: RequestHead,
        upgrade: Upgrade,
        client: Client,
        before_dial: Deadline,
        on_authorised: Callable[[], None],
        granted: tuple[Route, Grant] | None,
        transport: Transport,
    ) -> Opened:
        """Authenticate, authorise and dial. Afterwards the proxy may send the client its 101.

        Blocks for at most the dial timeout after ``before_dial``, and while the embedder's hook decides. For
        WebSocket clients, only this method can reach the upstream. If the client leaves meanwhile, the
        opening is given up and frees what it holds.

        :param client: the client that sent the request.
        :param before_dial: bounds everything that comes before the dial.
        :param on_authorised: called before the dial; an exception of it ends the opening.
        :param granted: route and grant, if the embedding program has authenticated the client. Then no token
            is read. None otherwise.
        :param transport: to the client; no other code may read it meanwhile.
        :raises Refused: if the client may not come in, for any reason.
        :raises ClientLeft: if the client has left.
        """

        def on_verified(route: Route, grant: Grant) -> None:
            self._list(route, grant, client)

        self._transport, gateway = transport, self._gateway
        with Presence(transport, gateway.poller, gateway.housekeeping, self.opening.abandon) as presence:
            try:
                return self.opening.open(
                    self,
                    head,
                    upgrade,
                    client,
                    before_dial,
                    on_authorised,
                    granted,
                    on_verified,
                    presence.look,
                )
            except BaseException as exc:
                self._unlist(_ending_of(exc))
                raise

    def _list(self, route: Route, grant: Grant, client: Client) -> None:
        """Add the session to the list of sessions."""
        self._handle = SessionHandle(
            _BeingOpened(self),
            id=self.id,
            grant=grant,
            vmi=route.vmi,
            subresource=route.subresource,
            client=client.address,
            is_open=False,
        )
        self._gateway.sessions.begin(self._handle, self.note_departure)

    def _unlist(self, ending: Ending) -> None:
        """Remove the session from the list. Idempotent."""
        handle, self._handle = self._handle, None
        if handle:
            self._gateway.sessions.remove(handle, ending)

    def note_departure(self) -> bool:
        """Check whether the client has left; if so, report that the session ends. Any thread, never blocks.

        :returns: whether the client has left.
        """
        if left := self._has_client_left():
            self.opening.abandon()
            self.opening.note_ending()
        return left

    def _has_client_left(self) -> bool:
        transport = self._transport
        if transport is None:
            return False
        return transport.has_hung_up() if self._open else transport.has_left()

    def relay(self, opened: Opened, client: Transport, close_client: Callable[[], None]) -> None:
        """Relay until the session has ended. Blocks that long, and while the embedder's hooks run.

        :param opened: what :meth:`open` has returned.
        :param client: the client's transport, after the 101.
        :param close_client: closes that transport; called when nothing uses it any more.
        """
        handle = self._handle
        assert handle is not None, "open() lists each session that it opens"
        session = OpenSession(self._gateway, self.record, opened, handle, client, self.opening.note_ending)
        with self._lock:
            self._open, end = session, self._end
            session.relay.expect_takeover(self._takeover)
        if end:
            session.relay.end(*end)

        def let_go(ending: Ending) -> None:
            close_client()
            self.opening.close()
            self._unlist(ending)

        session.run(let_go)

    def close(self) -> None:
        """Close the upstream, and release slots and console. By the session's own thread. Idempotent.

        The caller closes the client's connection first, because a slot counts as long as the session uses
        resources.
        """
        with self._lock:
            self._open = None
        self.opening.close()
        self._unlist(Ending("proxy", None, "failed"))  # still listed if the client never got its 101

    def end(self, code: int, reason: str) -> None:
        """End the session with a Close of the proxy's own, or refuse the client if it is still opening.

        Any thread, never blocks, idempotent.
        """
        with self._lock:
            self._end = self._end or (code, reason)
            session = self._open
        if session:
            session.relay.end(code, reason)
        elif (code, reason) == _RESTARTING:
            self.opening.interrupt(Draining("the proxy is stopping"))
        else:
            self.opening.interrupt(EndedWhileOpening(code, reason))

    @property
    def ending(self) -> Ending | None:
        """Why the session ends; None as long as it goes on."""
        session, end = self._open, self._end
        if session:
            return session.relay.ending
        if end:
            return Ending("proxy", *end)
        return _CLIENT_GONE if self.opening.client_left else None

    @property
    def is_ending(self) -> bool:
        """See :class:`.HeldSession`."""
        return self.ending is not None or self._has_client_left()

    def expect_takeover(self, reason: str | None) -> None:
        """See :class:`.HeldSession`."""
        with self._lock:
            self._takeover = (TAKEN_OVER, reason) if reason is not None else None
            if self._open:
                self._open.relay.expect_takeover(self._takeover)

    def abort(self) -> None:
        """Shut the upstream down at once, during a dial as well. Any thread, never blocks, idempotent."""
        with self._lock:
            session = self._open
        if session:
            session.relay.abort()
        else:
            self.opening.abort()

    def stop(self) -> None:
        """End the session because the proxy stops. Any thread, never blocks, idempotent."""
        self.end(*_RESTARTING)


class OpenSession:
    """A session whose console is open, and whose client has its 101.

    Only the session's own thread uses it, except for :meth:`tick`, and the relay, which any thread may end.

    :param handle: its entry in the list of sessions.
    :param client: the client's transport, after the 101.
    :param on_ending: called when the session begins to end, by any thread; may be called more than once, and
        must not block.
    :ivar relay: copies its bytes.
    """

    def __init__(
        self,
        gateway: Gateway,
        record: SessionRecord,
        opened: Opened,
        handle: SessionHandle,
        client: Transport,
        on_ending: Callable[[], None],
    ) -> None:
        self._gateway = gateway
        self._record = record
        self._opened = opened
        self._handle = handle
        self._on_ending = on_ending
        this = weakref.ref(self)  # so that a session's end frees it at once; see Relay

        def wake(delay: float) -> None:
            if session := this():
                session._wake(delay)

        self.relay = Relay(
            client,
            opened.upstream.transport,
            gateway.relay_limits,
            wake,
            clock=gateway.clock,
            poller=gateway.poller,
            counters=gateway.counters,
            session=record.session,
            tells_by_rfb=opened.tells_by_rfb,
        )
        # Held while the housekeeping looks after the session; guards the attributes below.
        self._ticking = threading.Lock()
        self._is_over = False
        self._lifetime: Lifetime

    def run(self, let_go: Callable[[Ending], None]) -> None:
        """Report that the session opened, relay, and report its end. Blocks that long, and while hooks run.

        :param let_go: releases what the session holds. It is called before the hook, which may take long,
            because the client may reconnect at once.
        """
        gateway, relay, handle, grant = self._gateway, self.relay, self._handle, self._opened.grant
        started = gateway.clock()
        handle.note_opened(relay, grant)
        gateway.reports.opened(self._record, relay, self._opened.dial_seconds)
        gateway.sessions.add(handle)
        if gateway.participant.known.is_revoked(grant, handle.vmi):  # since the last check
            handle.close()
        try:
            gateway.hooks.opened(handle, gateway.failures.report)
            if gateway.hooks.authorize or gateway.hooks.on_open:
                forget_errors()  # the hooks may have used TLS in this thread
            self._begin_ticking()
            relay.run(_second_thread(gateway, self._record.session))
        finally:
            self._end_ticking()
            if relay.frame_too_big:
                gateway.limits.hit("frame")
            ending = relay.ending or Ending("proxy", None, "failed")
            let_go(ending)
            seconds = gateway.clock() - started
            gateway.reports.ended(self._record, relay, ending, seconds, relay.close_not_sent)
            gateway.hooks.closed(handle, ending, gateway.failures.report)

    def _begin_ticking(self) -> None:
        gateway = self._gateway
        now, left = gateway.clock(), self._seconds_left()
        self._lifetime = Lifetime(gateway.config.lifetime_rules, now, left)
        if over := self._lifetime.look(now, 0):  # the token may have expired during the dial or the hook
            self.relay.end(*over)
        # The first tick comes when something is due: waking another thread would slow down each opening.
        gateway.housekeeping.add(self, min(self._lifetime.due - now, gateway.config.ping_interval))
        gateway.clock_watch.add(self)
        if self.relay.ending:  # if it ended before it was added, its wake was lost
            gateway.housekeeping.wake(self)

    def _end_ticking(self) -> None:
        self._gateway.clock_watch.remove(self)
        self._gateway.housekeeping.remove(self)
        with self._ticking:  # waits for a tick that is running; a later one does nothing
            self._is_over = True

    def _seconds_left(self) -> float:
        return self._handle.grant.seconds_left(self._gateway.wall_clock())

    def tick(self, now: float) -> float:
        """Housekeeping: see :class:`.Ticking`."""
        with self._ticking:
            return math.inf if self._is_over else self._tick(now)

    def _tick(self, now: float) -> float:
        relay, lifetime = self.relay, self._lifetime
        self._handle.note_activity()
        if relay.ending is None and (over := lifetime.look(now, relay.data_up, self._seconds_left())):
            relay.end(*over)
        due = relay.tick(now)
        return due if relay.ending else min(due, lifetime.due)

    def _wake(self, delay: float) -> None:
        """Wake the housekeeping for :class:`.Relay`, which calls this also when the session begins to end.

        From then on, the same user may open the same console again, as somebody does who reloads a page: that
        session inherits this one's slot. Other newcomers that a limit keeps out wait for the end.
        """
        if self.relay.ending:
            self._on_ending()
        self._gateway.housekeeping.wake(self, delay)


def _second_thread(gateway: Gateway, session: str) -> StartThread:
    """Return a function that starts the second thread of a session."""

    def start(target: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            with in_session(session):
                target()

        return start_thread(f"wsproxy-{session}-second", run, gateway)

    return start
