"""One session: authorise, dial, and, once the client has been accepted, relay and close."""

from __future__ import annotations

import math
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NewType

from ..access.sessions import SessionHandle
from ..config import Config
from ..exceptions import Draining, Refused, TransportClosed, UpstreamRefused, UpstreamTimeout
from ..net.sockets import wake
from ..net.transport import Transport
from ..protocol.client import Client, host_of, network_of
from ..protocol.closing import Ending, Leg
from ..protocol.handshake import Upgrade, answered_subprotocol, offered_upstream
from ..protocol.request import RequestHead
from ..protocol.routing import Route, named_subresource
from ..relay.lifetime import Lifetime
from ..relay.relay import Relay
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger, in_session
from ..runtime.threads import start_thread
from ..state.arbitration import TAKEN_OVER, Claim, Claimant, Console
from ..telemetry.reports import admitted
from ..tokens.claims import Grant
from ..upstream.dialler import Upstream
from .gateway import Gateway
from .refusal import by_websocket

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


@dataclass(frozen=True)
class _Opened:
    """What :meth:`Session.open` achieved."""

    grant: Grant
    vmi: str
    subresource: str
    upstream: Upstream
    subprotocol: str | None
    dial_seconds: float
    tells_by_rfb: bool


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
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._dialling: socket.socket | None = None
        self._relay: Relay | None = None
        self._end: tuple[int, str] | None = None
        self._takeover: tuple[int, str] | None = None
        self._claim: Claim | None = None
        self._opened: _Opened | None = None
        # Touched by the session's own thread only, but for the first, by who makes the session.
        self._network = network_of((host_of(peer),))
        self._places = [gateway.limits.take_connection(self._network)]
        self._lifetime: Lifetime | None = None
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
        return self._opened.subprotocol if self._opened else None

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
        config, access = self._gateway.config, self._gateway.access
        if not self._gateway.admits:
            raise Draining("the proxy is stopping")
        self._check_address(client)
        if granted:
            route = granted[0]
            grant = access.admit_granted(head, client, route, granted[1])
        else:
            route, grant = access.admit(head, client, before_dial)
        subresource = route.subresource or config.routes.default
        self.about |= admitted(grant, route.vmi, subresource)
        console = Console(grant.namespace, route.vmi, subresource)
        place = self._gateway.limits.take_session(grant.user, grant.namespace, route.vmi, subresource)
        try:
            claim = self._claim = self._gateway.arbitration.claim(
                console, Claimant(grant, client.address), self, before_dial
            )
            on_authorised()
            self._give_back()
            path = config.path_template.path(grant.namespace, route.vmi, route.subresource)
            if claim.preserves_session and subresource == "vnc":  # which alone can be asked to
                path += "?preserveSession=true"
            upstream, seconds = self._dial(path, offered_upstream(upgrade.subprotocols))
        except BaseException:
            place.give_back()  # before the client is told, and comes again
            self._give_up()
            raise
        self._places = [place]
        agreed = answered_subprotocol(upgrade.subprotocols, upstream.subprotocol)
        tells_by_rfb = subresource == "vnc" and by_websocket(config.reject, upgrade)
        self._opened = _Opened(grant, route.vmi, subresource, upstream, agreed, seconds, tells_by_rfb)
        claim.won()

    def _check_address(self, client: Client) -> None:
        """Refuse a client from whose address, perhaps not the peer's, too many have not authenticated."""
        network = network_of((client.address,))
        if network != self._network:
            self._give_back()
            self._places = [self._gateway.limits.take_connection(network)]
        for place in self._places:
            place.check()

    def _dial(self, path: str, offered: Sequence[str]) -> tuple[Upstream, float]:
        """Open the upstream, and return it with how many seconds that took."""
        started, deadline = time.monotonic(), Deadline(self._gateway.config.dial_timeout)
        try:
            upstream = self._gateway.dialler.dial(path, offered, deadline, self._watch)
        except Refused as refused:
            if self._end:
                raise Draining("the proxy is stopping") from None
            self._note_refusal(refused)
            raise
        finally:
            self._watch(None)
        self._gateway.readiness.answered()
        return upstream, time.monotonic() - started

    def _note_refusal(self, refused: Refused) -> None:
        """Note what a refusal by the Kubernetes API says of the API itself."""
        if isinstance(refused, UpstreamRefused | UpstreamTimeout):
            self._gateway.counters.fail_handshake(Leg.UPSTREAM)
        else:
            self._gateway.readiness.answered()

    def _give_back(self) -> None:
        for place in self._places:
            place.give_back()

    def _give_up(self) -> None:
        claim, self._claim = self._claim, None
        if claim:
            claim.give_up()

    def relay(self, client: Transport) -> None:
        """Relay until the session has ended. Blocks that long, and while the embedder's hooks run.

        :param client: the client's transport, after the 101; shut down afterwards, not closed.
        """
        assert self._opened is not None, "open() comes first"
        opened, grant = self._opened, self._opened.grant
        gateway, housekeeping = self._gateway, self._gateway.housekeeping
        relay = Relay(
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
            gateway.hooks.opened(handle)
            now = gateway.clock()
            self._lifetime = Lifetime(gateway.config.lifetime_rules, now, grant.seconds_left())
            # Not called before something is due: waking one more thread would make each opening slower.
            housekeeping.add(self, min(self._lifetime.due - now, gateway.config.ping_interval))
            if relay.ending:  # it may have been ended, and its wake lost, before it was added
                housekeeping.wake(self)
            relay.run(self._start_second_thread)
        finally:
            # Before anything that may take long: the client may come again at once.
            self._give_back()
            self._give_up()  # the upstream has been shut down
            housekeeping.remove(self)
            if relay.frame_too_big:
                gateway.limits.hit("frame")
            ending = relay.ending or Ending("proxy", None, "failed")
            gateway.sessions.remove(handle, ending)
            seconds = gateway.clock() - started
            gateway.reports.ended(self.about, relay, ending, seconds, relay.close_not_sent)
            gateway.hooks.closed(handle, ending)

    def close(self) -> None:
        """Close the upstream, and give back what is held. By the session's own thread, last. Idempotent."""
        with self._lock:
            self._relay = None  # which holds us
        self._give_back()
        if self._opened:
            self._opened.upstream.transport.close()
        self._give_up()

    def end(self, code: int, reason: str) -> None:
        """End the session with a Close of ours; one that is still opening is refused. Any thread."""
        with self._lock:
            self._end = self._end or (code, reason)
            relay, dialling = self._relay, self._dialling
        if relay:
            relay.end(code, reason)
        elif dialling:
            wake(dialling)

    @property
    def is_ending(self) -> bool:
        """See :class:`.Contender`."""
        relay = self._relay
        return self._end is not None or (relay is not None and relay.ending is not None)

    def expect_takeover(self, reason: str | None) -> None:
        """See :class:`.Contender`."""
        with self._lock:
            self._takeover = (TAKEN_OVER, reason) if reason is not None else None
            if self._relay:
                self._relay.expect_takeover(self._takeover)

    def abort(self) -> None:
        """Shut the upstream down, whatever it is doing. Any thread, never blocks, idempotent."""
        with self._lock:
            relay, dialling = self._relay, self._dialling
        if relay:
            relay.abort()
        elif dialling:
            wake(dialling)

    def stop(self) -> None:
        """End the session because the proxy stops. Any thread, never blocks, idempotent."""
        self.end(*_RESTARTING)

    def tick(self, now: float) -> float:
        """Housekeeping: see :class:`.Ticking`."""
        relay, lifetime, handle = self._relay, self._lifetime, self._handle
        if relay is None or lifetime is None or handle is None:
            return math.inf  # it is over, and has been removed
        handle.note_activity()
        if relay.ending is None and (over := lifetime.look(now, relay.data_up)):
            self.end(*over)
        due = relay.tick(now)
        return due if relay.ending else min(due, lifetime.due)

    def _watch(self, sock: socket.socket | None) -> None:
        """Remember the socket that a dial blocks on, so that :meth:`end` can wake it."""
        with self._lock:
            self._dialling = sock
            stopping = sock and self._end
        if stopping:
            raise TransportClosed("the proxy is stopping")

    def _wake(self, delay: float) -> None:
        """See :class:`.Relay`, which calls this also when the session begins to end.

        From then on it is in nobody's way: the page that is loaded anew must not find that its user, or its
        console, has as many sessions as may be. What it still costs is counted up to its very end.
        """
        if self.is_ending:
            for place in self._places:
                place.give_back("user", "vmi")
        self._gateway.housekeeping.wake(self, delay)

    def _start_second_thread(self, target: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            with in_session(self.id):
                target()

        return start_thread(f"wsproxy-{self.id}-second", run, self._gateway)
