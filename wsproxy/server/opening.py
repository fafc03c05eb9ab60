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
from ..state.arbitration import Claim, ConsoleHolder, Mark, Requester
from ..state.limits import AddressSlot, Slot
from ..state.values import Console
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
        self._claim: Claim | None = None
        self._mark: Mark | None = None  # of a dial that was under way when the opening was given up
        # Assigned by the session's own thread only; the first one before that thread starts.
        self.address_slot = AddressSlot(gateway.limits, peer.network)
        self._session_slot: Slot | None = None
        self._upstream: Upstream | None = None

    def open(
        self,
        holder: ConsoleHolder,
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
            self._take_slot(grant, console)
            on_authorised()  # before any wait: admission may close pending clients, but not this one any more
            self.address_slot.release()
            claim = self._claim_console(console, Requester(grant, client.address), holder, before_dial)
            upstream, seconds = self._dial(claim, console, offered_upstream(upgrade.subprotocols))
            look()
            self._win(claim, upstream)
        except BaseException:
            self._give_back()
            raise
        agreed = answered_subprotocol(upgrade.subprotocols, upstream.subprotocol)
        tells_by_rfb = route.subresource == "vnc" and by_websocket(self._gateway.config.reject, upgrade)
        self._upstream = upstream
        claim.won()
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

    def _take_slot(self, grant: Grant, console: Console) -> None:
        """Take a slot for the session. If none is left, look first which clients have just left."""
        gateway, names = self._gateway, (console.namespace, console.vmi, console.subresource)
        try:
            slot = gateway.limits.take_session(grant.user, *names)
        except LimitExceeded:
            if not gateway.sessions.note_departures(grant.user, names):
                raise
            slot = gateway.limits.take_session(grant.user, *names)
        self._session_slot = slot
        self._check()

    def _claim_console(
        self, console: Console, who: Requester, holder: ConsoleHolder, deadline: Deadline
    ) -> Claim:
        try:
            claim = self._gateway.arbitration.claim(console, who, holder, deadline)
        except (ConsoleBusy, TransportClosed):
            self._check()
            raise
        with self._lock:
            self._claim = claim
        self._check()
        return claim

    # The dial

    def _dial(self, claim: Claim, console: Console, offered: Sequence[str]) -> tuple[Upstream, float]:
        """Open the upstream, and return it with the number of seconds that this took.

        If the console is in use, and a session of this proxy may be the reason, it dials again, within the
        dial's deadline. If this deadline ends such a dial, and no client may lose the console, the answer is
        that the console is in use.
        """
        config = self._gateway.config
        path = config.path_template.path(console.namespace, console.vmi, console.subresource)
        preserve = claim.asks_first and console.subresource == "vnc"  # KubeVirt knows the query only there
        started, deadline, pause = time.monotonic(), Deadline(config.dial_timeout), _FIRST_PAUSE
        in_use: list[Refused] = []  # a list, because a local variable would make a cycle of objects
        patience = deadline
        if not claim.preserves_session:
            patience = Deadline(min(_PATIENCE, config.dial_timeout / 2))
        while True:
            try:
                wanted = f"{path}?preserveSession=true" if preserve else path
                return self._dial_once(claim, wanted, offered, deadline), time.monotonic() - started
            except UpstreamTimeout:
                if not claim.preserves_session or not in_use:
                    raise
                raise in_use.pop() from None
            except (ConsoleBusy, UpstreamRefused) as refused:
                if not preserve or not _is_in_use(refused):
                    raise
                if (claim.evict() or claim.may_be_free_soon) and self._pauses(pause, patience):
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    in_use[:] = [refused.with_traceback(None)]
                elif claim.preserves_session:
                    raise
                else:
                    preserve = False  # a client outside this proxy has the console: KubeVirt evicts it

    def _dial_once(self, claim: Claim, path: str, offered: Sequence[str], deadline: Deadline) -> Upstream:
        def leave(transport: Transport) -> None:
            self._leave(claim, transport)

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

    def _leave(self, claim: Claim, transport: Transport) -> None:
        """Give up a connection on which the API may still open the console, and leave a mark for that."""
        with self._lock:
            mark, self._mark = self._mark, None
        mark = mark or claim.mark()
        if mark:
            self._gateway.given_up.add(transport, mark.remove)
        else:
            transport.close()

    def _win(self, claim: Claim, upstream: Upstream) -> None:
        """Take the console, unless the opening has been given up. Afterwards it cannot be given up."""
        with self._lock:
            self._is_won = self._why is None
        if not self._is_won:
            self._leave(claim, upstream.transport)
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
            self._why, dialling, claim = why, self._dialling, self._claim
            if dialling and claim:
                self._mark = claim.mark()  # the API may already have the request
        self._given_up.set_result(None)
        if dialling:
            wake(dialling)
        if self._session_slot:
            self._session_slot.end()
        if claim:
            claim.release()
        self._gateway.arbitration.look_again()
        return True

    def _check(self) -> None:
        """Raise if the opening has been given up."""
        if self._why:
            raise self._why

    def _give_back(self) -> None:
        """Free what a failed opening has taken, before its client is told."""
        if self._session_slot:
            self._session_slot.end()
        self.release_console()

    def abort(self) -> None:
        """Shut down what is being dialled. Any thread, never blocks, idempotent."""
        with self._lock:
            dialling = self._dialling
        if dialling:
            wake(dialling)

    def note_ending(self) -> None:
        """Let the limits admit another session of the same user, or with the same console, beside this one.

        Any thread, never blocks, idempotent.
        """
        if self._session_slot:
            self._session_slot.end("user", "vmi")

    def release_console(self) -> None:
        """Release the console, so that other sessions can claim it. Idempotent."""
        with self._lock:
            claim, self._claim = self._claim, None
            mark, self._mark = self._mark, None
        if claim:
            claim.release()
        if mark:
            mark.remove()

    def close(self) -> None:
        """Close the upstream, and release the console and all slots. Idempotent.

        The caller has closed the client's connection, so the session uses no resources any more.
        """
        if self._upstream:
            self._upstream.transport.close()
        self.release_console()
        self.address_slot.release()
        if self._session_slot:
            self._session_slot.release()


def _is_in_use(refused: Refused) -> bool:
    """Whether a refusal of the API says, or may mean, that the console is in use."""
    return isinstance(refused, ConsoleBusy) or (isinstance(refused, UpstreamRefused) and refused.maybe_in_use)
