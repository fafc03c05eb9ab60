"""Opens a console for a session: authorises, takes slots and the console, and dials."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass

from ..access.control import OnVerified
from ..exceptions import (
    ConsoleBusy,
    Draining,
    Forbidden,
    LimitExceeded,
    Refused,
    TransportClosed,
    UpstreamRefused,
    UpstreamTimeout,
)
from ..net.sockets import wake
from ..net.transport import Transport
from ..protocol.client import Client, Peer
from ..protocol.closing import Leg
from ..protocol.handshake import Upgrade, answered_subprotocol, offered_upstream
from ..protocol.request import RequestHead
from ..protocol.routing import Route
from ..runtime.deadline import Deadline
from ..state.limits import AddressSlot
from ..state.participant.held_session import HeldSession
from ..state.participant.holding import Holding, Mark
from ..state.values import Console, SharedSession
from ..telemetry.record import Admitted, SessionRecord
from ..tokens.claims import Grant
from ..upstream.dialler import Upstream
from .gateway import Gateway
from .refusal import by_websocket

__all__ = ["ClientLeft", "EndedWhileOpening", "Opened", "Opening"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds before another dial if the console is in use
_PATIENCE = 5.0  # seconds of such dials if the new client may evict the holder; afterwards it does


class ClientLeft(TransportClosed):
    """The client left before its console was open."""


class EndedWhileOpening(Forbidden):
    """The operator or the embedding program ended a session before it was open.

    :param code: close code, as for an open one.
    :param reason: the close reason.
    """

    def __init__(self, code: int, reason: str) -> None:
        slug, _, words = reason.partition(":")
        super().__init__(words.strip() or "the session was ended before it was open")
        self.close_code, self.slug = code, slug
        self._reason = reason

    @property
    def close_reason(self) -> str:
        return self._reason


@dataclass(frozen=True)
class Opened:
    """The result of :meth:`Opening.open`.

    :ivar subprotocol: the subprotocol to answer the client with, None for none.
    :ivar dial_seconds: how long the dial took.
    :ivar tells_by_rfb: if the session ends early, tell the client the reason by RFB, as for a refusal.
    """

    grant: Grant
    upstream: Upstream
    subprotocol: str | None
    dial_seconds: float
    tells_by_rfb: bool


class Opening:
    """Opens a console for a client, and holds its slots and the console until the session has ended.

    Only the session's own thread uses it, except for :meth:`interrupt`, :meth:`abandon`, :meth:`abort` and
    :meth:`note_ending`, which any thread may call.

    :param gateway: what all sessions share.
    :param record: what the proxy knows of the session, for the log.
    :param peer: the other end of the client's connection.
    :ivar address_slot: counts the client until it has authenticated.
    """

    def __init__(self, gateway: Gateway, record: SessionRecord, peer: Peer) -> None:
        self._gateway = gateway
        self._record = record
        self._given_up: Future[None] = Future()  # done when the opening is given up, which ends its waits
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._dialling: socket.socket | None = None
        self._why: Refused | ClientLeft | None = None  # why the opening was given up; None if it was not
        self._is_won = False  # the console is open, so the opening cannot be given up any more
        self._holding: Holding | None = None
        self._mark: Mark | None = None  # of a dial that was under way when the opening was given up
        # Assigned by the session's own thread only; the first one before that thread starts.
        self.address_slot = AddressSlot(gateway.limits, peer.network)
        self._upstream: Upstream | None = None

    def open(
        self,
        holder: HeldSession,
        head: RequestHead,
        upgrade: Upgrade,
        client: Client,
        before_dial: Deadline,
        on_authorised: Callable[[], None],
        granted: tuple[Route, Grant] | None,
        on_verified: OnVerified,
        look: Callable[[], object],
    ) -> Opened:
        """Authenticate, authorise and dial. Other files call :meth:`.Session.open`, which describes this.

        :param holder: the session, which holds the console from then on.
        :param on_verified: see :meth:`.AccessControl.admit`.
        :param look: checks once more whether the client is there, and calls :meth:`abandon` if it is not.
        :raises ClientLeft: if the client has left.
        """
        try:
            route, grant = self._admitted(head, client, before_dial, granted, on_verified)
            self._check()
            console = Console(grant.namespace, route.vmi, route.subresource)
            self._record.admitted = Admitted.by(grant, route)
            holding = self._hold(holder, grant, console, client)
            self._admit(holding, before_dial, on_authorised)
            upstream, seconds = self._dial(holding, console, offered_upstream(upgrade.subprotocols))
            look()
            self._take_console(holding, upstream, grant)
            self._win(holding, upstream)
        except BaseException:
            self.release_console()  # before the client is told
            raise
        agreed = answered_subprotocol(upgrade.subprotocols, upstream.subprotocol)
        tells_by_rfb = route.subresource == "vnc" and by_websocket(self._gateway.config.reject, upgrade)
        self._upstream = upstream
        return Opened(grant, upstream, agreed, seconds, tells_by_rfb)

    @property
    def client_left(self) -> bool:
        """Whether the opening was given up because the client left."""
        return isinstance(self._why, ClientLeft)

    # The way to the dial

    def _admitted(
        self,
        head: RequestHead,
        client: Client,
        deadline: Deadline,
        granted: tuple[Route, Grant] | None,
        on_verified: OnVerified,
    ) -> tuple[Route, Grant]:
        """Return the route and the grant that allows it, if the client may come in."""
        access = self._gateway.access
        if not self._gateway.admits:
            raise Draining("the proxy is stopping")
        self.address_slot.check(client.network)
        if granted:
            route, grant = granted
            return route, access.admit_granted(head, client, route, grant, on_verified)
        return access.admit(head, client, deadline, on_verified)

    def _hold(self, session: HeldSession, grant: Grant, console: Console, client: Client) -> Holding:
        """Return what the session holds: nothing yet."""
        shared = SharedSession(
            id=self._record.session,
            user=grant.user,
            console=console,
            client=client.address,
            network=client.network,
            token_id=grant.token_id,
            may_take_over=grant.may_take_over,
            since=self._gateway.wall_clock(),
            expires_at=grant.expires_at,
        )
        holding = self._gateway.participant.holding(session, shared)
        with self._lock:
            self._holding = holding
        self._check()
        return holding

    def _admit(self, holding: Holding, deadline: Deadline, on_authorised: Callable[[], None]) -> None:
        """Take the session's slots and claim the console, and stop counting the client as a stranger."""
        is_told = False

        def tell() -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                on_authorised()  # before any wait: admission may close pending clients, but not this one
                self.address_slot.release()

        try:
            self._admit_once(holding, deadline, tell)
        except (Refused, TransportClosed):
            self._check()
            raise
        tell()
        self._check()

    def _admit_once(self, holding: Holding, deadline: Deadline, before_wait: Callable[[], None]) -> None:
        """Ask for a session's slots. If none is left, look which clients have just left, and ask again."""
        session = holding.shared
        try:
            holding.admit(deadline, before_wait)
        except LimitExceeded:
            if not self._gateway.sessions.note_departures(session.user, session.console):
                raise
            holding.admit(deadline, before_wait)

    # The dial

    def _dial(self, holding: Holding, console: Console, offered: Sequence[str]) -> tuple[Upstream, float]:
        """Open the upstream, and return it with the number of seconds that this took.

        If the console is in use, and a session of this proxy may be the reason, it dials again, within the
        dial's deadline. If this deadline ends such a dial, and no client may lose the console, the answer is
        that the console is in use.
        """
        config = self._gateway.config
        path = config.path_template.path(console.namespace, console.vmi, console.subresource)
        preserve = holding.asks_first and console.subresource == "vnc"  # KubeVirt knows the query only there
        started, deadline, pause = time.monotonic(), Deadline(config.dial_timeout), _FIRST_PAUSE
        in_use: list[Refused] = []  # a list, because a local variable would make a cycle of objects
        most = min(_PATIENCE, config.dial_timeout / 2)
        patience = deadline if holding.preserves_session else Deadline(most)
        while True:
            try:
                wanted = f"{path}?preserveSession=true" if preserve else path
                return self._dial_once(holding, wanted, offered, deadline), time.monotonic() - started
            except UpstreamTimeout:
                if not holding.preserves_session or not in_use:
                    raise
                raise in_use.pop() from None
            except (ConsoleBusy, UpstreamRefused) as refused:
                if not preserve or not _is_in_use(refused):
                    raise
                if holding.evict() and self._pauses(pause, patience):
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    in_use[:] = [refused.with_traceback(None)]
                elif holding.preserves_session:
                    raise
                else:
                    preserve = False  # a client outside this proxy has the console: KubeVirt evicts it

    def _dial_once(self, holding: Holding, path: str, offered: Sequence[str], deadline: Deadline) -> Upstream:
        def leave(transport: Transport) -> None:
            self._leave(holding, transport)

        try:
            upstream = self._gateway.dialler.dial(path, offered, deadline, self._watch, self._given_up, leave)
        except Refused as refused:
            self._check()
            self._note_refusal(refused)
            raise
        finally:
            self._watch(None)
        self._gateway.readiness.answered()
        return upstream

    def _note_refusal(self, refused: Refused) -> None:
        """Note what a refusal of the Kubernetes API says about the API itself."""
        if isinstance(refused, UpstreamRefused | UpstreamTimeout):
            self._gateway.counters.fail_handshake(Leg.UPSTREAM)
        else:
            self._gateway.readiness.answered()

    def _pauses(self, seconds: float, deadline: Deadline) -> bool:
        """Wait before the next dial; return False if no time is left for one."""
        if deadline.passed or deadline.remaining() <= seconds:
            return False
        wait((self._given_up,), seconds)
        self._check()
        return True

    def _watch(self, sock: socket.socket | None) -> None:
        """Remember the socket that a dial blocks on, so that another thread can wake it."""
        with self._lock:
            self._dialling = sock
            stopping = sock and self._why
        if stopping:
            raise TransportClosed("the opening was given up")

    def _leave(self, holding: Holding, transport: Transport) -> None:
        """Give up a connection on which the API may still open the console, and leave a mark for that."""
        with self._lock:
            mark, self._mark = self._mark, None
        mark = mark or holding.mark()
        if mark:
            mark.tell()
            self._gateway.given_up.add(transport, mark.remove)
        else:
            transport.close()

    def _take_console(self, holding: Holding, upstream: Upstream, grant: Grant) -> None:
        """Tell the store that the console is open. Then look once more whether the token is revoked."""
        try:
            holding.opened()
            self._gateway.access.check_revoked(grant, holding.shared.console.vmi)
        except BaseException:
            self._leave(holding, upstream.transport)
            self._check()
            raise

    def _win(self, holding: Holding, upstream: Upstream) -> None:
        """Take the console, unless the opening has been given up. Afterwards it cannot be given up."""
        with self._lock:
            self._is_won = self._why is None
        if not self._is_won:
            self._leave(holding, upstream.transport)
            self._check()
        del self._given_up  # an open session needs none, and it is a kilobyte

    # Giving up

    def interrupt(self, refused: Refused) -> None:
        """Refuse a client whose console is being opened. Any thread, never blocks, idempotent."""
        self._give_up(refused)

    def abandon(self) -> None:
        """Give up the opening because the client has left, and let others take its slots and console.

        This ends what the session's own thread waits for. Any thread, never blocks, idempotent.
        """
        if self._give_up(ClientLeft("the client left while its console was being opened")):
            self.address_slot.end()

    def _give_up(self, why: Refused | ClientLeft) -> bool:
        with self._lock:
            if self._why or self._is_won:
                return False
            self._why, dialling, holding = why, self._dialling, self._holding
            if dialling and holding:
                self._mark = holding.mark()  # the API may already have the request
        self._given_up.set_result(None)
        if dialling:
            wake(dialling)
        if holding:
            holding.given_up()
        return True

    def _check(self) -> None:
        """Raise if the opening has been given up."""
        if self._why:
            raise self._why

    def abort(self) -> None:
        """Shut down what is being dialled. Any thread, never blocks, idempotent."""
        with self._lock:
            dialling = self._dialling
        if dialling:
            wake(dialling)

    def note_ending(self) -> None:
        """Report that the session has begun to end. Any thread, never blocks, idempotent."""
        with self._lock:
            holding = self._holding
        if holding:
            holding.ending()

    def release_console(self) -> None:
        """Let other sessions have the console, and the slots of a failed opening. Idempotent."""
        with self._lock:
            holding, mark, self._mark = self._holding, self._mark, None
        if holding:
            holding.given_up()
        if mark:
            mark.remove()

    def close(self) -> None:
        """Close the upstream, and release the console and all slots. Idempotent.

        The caller has closed the client's connection, so the session uses no resources any more.
        """
        if self._upstream:
            self._upstream.transport.close()
        self.address_slot.release()
        with self._lock:
            holding, mark, self._holding, self._mark = self._holding, self._mark, None, None
        if mark:
            mark.remove()
        if holding:
            holding.released()


def _is_in_use(refused: Refused) -> bool:
    """Whether a refusal of the API says, or may mean, that the console is in use."""
    return isinstance(refused, ConsoleBusy) or (isinstance(refused, UpstreamRefused) and refused.maybe_in_use)
