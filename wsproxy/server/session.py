"""One session: opened by :mod:`wsproxy.server.opening`, then relayed and closed here."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from typing import Any, NewType

from ..access.sessions import SessionHandle
from ..config import Config
from ..net.tls import forget_errors
from ..net.transport import Transport
from ..protocol.client import Client
from ..protocol.closing import Ending
from ..protocol.handshake import Upgrade
from ..protocol.request import RequestHead
from ..protocol.routing import Route, named_subresource
from ..relay.lifetime import Lifetime
from ..relay.relay import Relay
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger, in_session
from ..runtime.threads import start_thread
from ..state.arbitration import TAKEN_OVER
from ..tokens.claims import Grant
from .gateway import Gateway
from .opening import Opened, Opening

__all__ = ["Session", "SessionId", "new_session_id", "rfb_expected"]

logger = get_logger("wsproxy.session")

SessionId = NewType("SessionId", str)

_RESTARTING = (1012, "restarting")


def rfb_expected(head: RequestHead, config: Config) -> bool:
    """Whether the client of a well-formed upgrade request is about to speak RFB."""
    return (named_subresource(head.target, config.routes.prefix) or config.routes.default) == "vnc"


def new_session_id() -> SessionId:
    """Return a name for one more connection."""
    return SessionId(f"{random.getrandbits(32):08x}")


class Session:
    """One client's session, from its upgrade request to the end.

    Used by one thread, but for :meth:`stop` and :meth:`end`, which any thread may call.

    :param gateway: what it shares with others.
    :param peer: the client's address, for the log.
    :ivar about: what is known of it, for the log; see :class:`.Reports`.
    """

    def __init__(self, gateway: Gateway, peer: str) -> None:
        self.id = new_session_id()
        self.about: dict[str, Any] = {"session": self.id, "peer": peer}
        self._gateway = gateway
        self._opening = Opening(gateway, self.about, peer)
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._relay: Relay | None = None
        self._end: tuple[int, str] | None = None
        self._takeover: tuple[int, str] | None = None
        # Held while the housekeeping looks after the session; guards the attribute below.
        self._ticking = threading.Lock()
        self._lifetime: Lifetime | None = None
        # Touched by the session's own thread only.
        self._handle: SessionHandle | None = None

    @property
    def peer(self) -> str:
        """The client's address, for the log."""
        peer: str = self.about["peer"]
        return peer

    def identify(self, client: Client) -> None:
        """Note who the client is, as its request says."""
        self.about |= {"peer": str(client), "client": client.address}

    @property
    def subprotocol(self) -> str | None:
        """What to answer the client, once :meth:`open` has returned."""
        return self._opening.opened.subprotocol if self._opening.opened else None

    def open(
        self,
        head: RequestHead,
        upgrade: Upgrade,
        client: Client,
        before_dial: Deadline,
        on_authorised: Callable[[], None],
        granted: tuple[Route, Grant] | None = None,
    ) -> None:
        """Authenticate, authorise and dial: afterwards the client may be accepted.

        Blocks for at most the dial timeout after ``before_dial``, and while the embedder's hook, if there is
        one, decides. The only path that can reach the upstream.

        :param client: who sent the request.
        :param before_dial: bounds all that comes before the dial.
        :param on_authorised: called before the dial; what it raises ends the opening.
        :param granted: what to open and for whom, if the embedding program has authenticated the client;
            then no token is looked at.
        :raises Refused: if the client is not let in, for whatever reason.
        """
        self._opening.open(self, head, upgrade, client, before_dial, on_authorised, granted)

    def relay(self, client: Transport, close_client: Callable[[], None]) -> None:
        """Relay until the session has ended. Blocks that long, and while the embedder's hooks run.

        :param client: the client's transport, after the 101.
        :param close_client: closes it, once nothing uses it any more.
        """
        opened, gateway = self._opening.opened, self._gateway
        assert opened is not None, "open() comes first"
        grant, housekeeping = opened.grant, gateway.housekeeping
        relay = self._make_relay(client, opened)
        handle = self._handle = SessionHandle(
            relay,
            id=self.id,
            grant=grant,
            vmi=opened.vmi,
            subresource=opened.subresource,
            client=self.about["client"],
        )
        started = gateway.clock()
        with self._lock:
            self._relay, end = relay, self._end
            relay.expect_takeover(self._takeover)
        if end:
            relay.end(*end)
        gateway.reports.opened(self.about, relay, opened.dial_seconds)
        gateway.sessions.add(handle)
        if gateway.denylist.denies(grant.token_key):  # since it was looked at; who revokes one now, finds us
            handle.close()
        try:
            gateway.hooks.opened(handle, gateway.failures.report)
            if gateway.hooks.authorize or gateway.hooks.on_open:
                forget_errors()  # they may have used TLS in this thread
            now, left = gateway.clock(), grant.seconds_left(gateway.wall_clock())
            self._lifetime = Lifetime(gateway.config.lifetime_rules, now, left)
            if over := self._lifetime.look(now, 0):  # during the dial, or the hook
                relay.end(*over)
            # Not called before something is due: waking one more thread would make each opening slower.
            housekeeping.add(self, min(self._lifetime.due - now, gateway.config.ping_interval))
            gateway.clock_watch.add(self)
            if relay.ending:  # it may have been ended, and its wake lost, before it was added
                housekeeping.wake(self)
            relay.run(self._start_second_thread)
        finally:
            gateway.clock_watch.remove(self)
            housekeeping.remove(self)
            with self._ticking:  # a call under way is waited for; a later one finds nothing to do
                self._lifetime = None
            # Before anything that may take long: the client may come again at once.
            close_client()
            self._opening.close()
            if relay.frame_too_big:
                gateway.limits.hit("frame")
            ending = relay.ending or Ending("proxy", None, "failed")
            gateway.sessions.remove(handle, ending)
            seconds = gateway.clock() - started
            gateway.reports.ended(self.about, relay, ending, seconds, relay.close_not_sent)
            gateway.hooks.closed(handle, ending, gateway.failures.report)

    def _make_relay(self, client: Transport, opened: Opened) -> Relay:
        gateway = self._gateway
        return Relay(
            client,
            opened.upstream.transport,
            gateway.relay_limits,
            self._wake,
            clock=gateway.clock,
            poller=gateway.poller,
            counters=gateway.counters,
            session=self.id,
            tells_by_rfb=opened.tells_by_rfb,
        )

    def check_address(self, client: Client) -> None:
        """Refuse a client that wants no session, if too many of its address have not authenticated.

        :raises LimitExceeded: if so.
        """
        self._opening.check_address(client)

    def release_connection(self) -> None:
        """Take note that a client which wants no session has authenticated. Idempotent."""
        self._opening.release_connection()

    def close(self) -> None:
        """Close the upstream, and give back what is held. By the session's own thread. Idempotent.

        The client's connection is closed before, so that nothing is given back that still costs something.
        """
        with self._lock:
            self._relay = None  # which holds us
        self._opening.close()

    def end(self, code: int, reason: str) -> None:
        """End the session with a Close of ours; one that is still opening is refused. Any thread."""
        with self._lock:
            self._end = self._end or (code, reason)
            relay = self._relay
        if relay:
            relay.end(code, reason)
        else:
            self._opening.interrupt()

    @property
    def is_ending(self) -> bool:
        """See :class:`.ConsoleHolder`."""
        relay = self._relay
        return self._end is not None or (relay is not None and relay.ending is not None)

    def expect_takeover(self, reason: str | None) -> None:
        """See :class:`.ConsoleHolder`."""
        with self._lock:
            self._takeover = (TAKEN_OVER, reason) if reason is not None else None
            if self._relay:
                self._relay.expect_takeover(self._takeover)

    def abort(self) -> None:
        """Shut the upstream down, whatever it is doing. Any thread, never blocks, idempotent."""
        with self._lock:
            relay = self._relay
        if relay:
            relay.abort()
        else:
            self._opening.abort()

    def stop(self) -> None:
        """End the session because the proxy stops. Any thread, never blocks, idempotent."""
        self.end(*_RESTARTING)

    def tick(self, now: float) -> float:
        """Housekeeping: see :class:`.Ticking`."""
        with self._ticking:
            return self._tick(now)

    def _tick(self, now: float) -> float:
        relay, lifetime, handle = self._relay, self._lifetime, self._handle
        if relay is None or lifetime is None or handle is None:
            return math.inf  # it is over, and has been removed
        handle.note_activity()
        left = handle.grant.seconds_left(self._gateway.wall_clock())
        if relay.ending is None and (over := lifetime.look(now, relay.data_up, left)):
            self.end(*over)
        due = relay.tick(now)
        return due if relay.ending else min(due, lifetime.due)

    def _wake(self, delay: float) -> None:
        """See :class:`.Relay`, which calls this also when the session begins to end.

        From then on it is in nobody's way: the page that is loaded anew must not find that its user, or its
        console, has as many sessions as may be. What it still costs is counted up to its very end, and so
        many of one user, or with one console, may be ending, as may be open.
        """
        if self.is_ending:
            self._opening.note_ending()
        self._gateway.housekeeping.wake(self, delay)

    def _start_second_thread(self, target: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            with in_session(self.id):
                target()

        return start_thread(f"wsproxy-{self.id}-second", run, self._gateway)
