"""One session: opened by :mod:`wsproxy.server.opening`, then relayed and closed here."""

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
from ..state.arbitration import TAKEN_OVER
from ..telemetry.record import SessionRecord
from ..tokens.claims import Grant
from .gateway import Gateway
from .opening import EndedWhileOpening, Opened, Opening
from .presence import Presence

__all__ = ["OpenSession", "Session", "SessionId", "new_session_id"]

logger = get_logger("wsproxy.session")

SessionId = NewType("SessionId", str)

_RESTARTING = (1012, "restarting")
_CLIENT_GONE = Ending("client", None, "client-gone")  # before the session was open


def new_session_id() -> SessionId:
    """Return a name for one more connection."""
    return SessionId(f"{random.getrandbits(32):08x}")


class _BeingOpened:
    """What the handle of a session needs until it is open."""

    bytes_up = bytes_down = data_up = 0

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def ending(self) -> Ending | None:
        return self._session.ending

    def end(self, code: int, reason: str) -> None:
        self._session.end(code, reason)


def _ending_of(exc: BaseException) -> Ending:
    """Return what is said of a session that was not opened because of an exception."""
    if isinstance(exc, Refused):
        return Ending("proxy", exc.close_code, exc.slug)
    if isinstance(exc, TransportClosed):
        return _CLIENT_GONE
    return Ending("proxy", None, "failed")


class Session:
    """One client's session, from its upgrade request to the end.

    Used by one thread, but for :meth:`stop` and :meth:`end`, which any thread may call.

    :param gateway: what it shares with others.
    :param peer: the other end of the client's connection.
    :ivar record: what is known of it, for the log.
    :ivar opening: what it holds from its beginning.
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
        # Touched by the session's own thread only.
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
        """Authenticate, authorise and dial: afterwards the client may be accepted.

        Blocks for at most the dial timeout after ``before_dial``, and while the embedder's hook, if there is
        one, decides. The only path that can reach the upstream.

        When the client leaves meanwhile, nothing is opened for it, and nothing is kept from others.

        :param client: who sent the request.
        :param before_dial: bounds all that comes before the dial.
        :param on_authorised: called before the dial; what it raises ends the opening.
        :param granted: what to open and for whom, if the embedding program has authenticated the client;
            then no token is looked at.
        :param transport: to the client, which nobody reads meanwhile.
        :raises Refused: if the client is not let in, for whatever reason.
        :raises ClientLeft: if it has left.
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
        """Have others find the session from now on."""
        self._handle = SessionHandle(
            _BeingOpened(self),
            id=self.id,
            grant=grant,
            vmi=route.vmi,
            subresource=route.subresource,
            client=client.address,
            is_open=False,
        )
        self._gateway.sessions.begin(self._handle, self._note_departure)

    def _unlist(self, ending: Ending) -> None:
        """Let nobody find it any more. Idempotent."""
        handle, self._handle = self._handle, None
        if handle:
            self._gateway.sessions.remove(handle, ending)

    def _note_departure(self) -> bool:
        """Look whether the client has left, and keep nobody out then. Any thread, never blocks."""
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
        :param close_client: closes it, once nothing uses it any more.
        """
        handle = self._handle
        assert handle is not None, "nothing is opened before it is listed"
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
        """Close the upstream, and give back what is held. By the session's own thread. Idempotent.

        The client's connection is closed before, so that nothing is given back that still costs something.
        """
        with self._lock:
            self._open = None
        self.opening.close()
        self._unlist(Ending("proxy", None, "failed"))  # where the client was not let in after all

    def end(self, code: int, reason: str) -> None:
        """End the session with a Close of ours; one that is still opening is refused. Any thread."""
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
        """Why the session ends; None while nothing ends it."""
        session, end = self._open, self._end
        if session:
            return session.relay.ending
        if end:
            return Ending("proxy", *end)
        return _CLIENT_GONE if self.opening.client_left else None

    @property
    def is_ending(self) -> bool:
        """See :class:`.ConsoleHolder`."""
        return self.ending is not None or self._has_client_left()

    def expect_takeover(self, reason: str | None) -> None:
        """See :class:`.ConsoleHolder`."""
        with self._lock:
            self._takeover = (TAKEN_OVER, reason) if reason is not None else None
            if self._open:
                self._open.relay.expect_takeover(self._takeover)

    def abort(self) -> None:
        """Shut the upstream down, whatever it is doing. Any thread, never blocks, idempotent."""
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
    """A session whose console is open, and whose client has been let in.

    Used by the session's own thread, but for :meth:`tick`, and for the relay, which any thread may end.

    :param handle: how others know it.
    :param client: the client's transport, after the 101.
    :param on_ending: called when it begins to end, perhaps more than once, by any thread; must not block.
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
        this = weakref.ref(self)  # so that what a session leaves is freed at once; see Relay

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
        """Relay until the session has ended, and tell of both. Blocks that long, and while the hooks run.

        :param let_go: lets go of what the session holds, before anything that may take long: the client may
            come again at once.
        """
        gateway, relay, handle, grant = self._gateway, self.relay, self._handle, self._opened.grant
        started = gateway.clock()
        handle.note_opened(relay, grant)
        gateway.reports.opened(self._record, relay, self._opened.dial_seconds)
        gateway.sessions.add(handle)
        if gateway.denylist.denies(grant.token_key):  # since it was looked at; who revokes one now, finds us
            handle.close()
        try:
            gateway.hooks.opened(handle, gateway.failures.report)
            if gateway.hooks.authorize or gateway.hooks.on_open:
                forget_errors()  # they may have used TLS in this thread
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
        if over := self._lifetime.look(now, 0):  # during the dial, or the hook
            self.relay.end(*over)
        # Not called before something is due: waking one more thread would make each opening slower.
        gateway.housekeeping.add(self, min(self._lifetime.due - now, gateway.config.ping_interval))
        gateway.clock_watch.add(self)
        if self.relay.ending:  # it may have been ended, and its wake lost, before it was added
            gateway.housekeeping.wake(self)

    def _end_ticking(self) -> None:
        self._gateway.clock_watch.remove(self)
        self._gateway.housekeeping.remove(self)
        with self._ticking:  # a call under way is waited for; a later one finds nothing to do
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
        """See :class:`.Relay`, which calls this also when the session begins to end.

        From then on it is in nobody's way: the page that is loaded anew must not find that its user, or its
        console, has as many sessions as may be. What it still costs is counted up to its very end, and so
        many of one user, or with one console, may be ending, as may be open.
        """
        if self.relay.ending:
            self._on_ending()
        self._gateway.housekeeping.wake(self, delay)


def _second_thread(gateway: Gateway, session: str) -> StartThread:
    """Return what starts the second thread of a session."""

    def start(target: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            with in_session(session):
                target()

        return start_thread(f"wsproxy-{session}-second", run, gateway)

    return start
