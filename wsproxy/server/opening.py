"""The first half of a session: authorise, take slots and the console, and dial."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..exceptions import Draining, Refused, TransportClosed, UpstreamRefused, UpstreamTimeout
from ..net.sockets import wake
from ..protocol.client import Client, host_of, network_of
from ..protocol.closing import Leg
from ..protocol.handshake import Upgrade, answered_subprotocol, offered_upstream
from ..protocol.request import RequestHead
from ..protocol.routing import Route
from ..runtime.deadline import Deadline
from ..state.arbitration import Claim, Console, ConsoleHolder, Requester
from ..state.limits import Slot
from ..telemetry.reports import admitted
from ..tokens.claims import Grant
from ..upstream.dialler import Upstream
from .gateway import Gateway
from .refusal import by_websocket

__all__ = ["Opened", "Opening"]


@dataclass(frozen=True)
class Opened:
    """What :meth:`Opening.open` achieved.

    :ivar subprotocol: what to answer the client, None for none.
    :ivar tells_by_rfb: whether the client is told of an early end in RFB, as a refusal is.
    """

    grant: Grant
    vmi: str
    subresource: str
    upstream: Upstream
    subprotocol: str | None
    dial_seconds: float
    tells_by_rfb: bool


class Opening:
    """What a client needs to get a console, and holds until its session has ended: slots, and the console.

    Used by the session's own thread, but for :meth:`interrupt` and :meth:`abort`, which any may call.

    :param gateway: what all sessions share.
    :param about: what is known of the session, for the log; see :class:`.Reports`.
    :param peer: the other end of the client's connection.
    :ivar opened: None before :meth:`open` has dialled.
    """

    def __init__(self, gateway: Gateway, about: dict[str, Any], peer: str) -> None:
        self.opened: Opened | None = None
        self._gateway = gateway
        self._about = about
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._dialling: socket.socket | None = None
        self._interrupted = False
        self._claim: Claim | None = None
        # Touched by the session's own thread only, but for the first two, by who makes the session.
        self._network = network_of((host_of(peer),))
        self._connection_slot = gateway.limits.take_connection(self._network)
        self._session_slot: Slot | None = None

    def open(
        self,
        holder: ConsoleHolder,
        head: RequestHead,
        upgrade: Upgrade,
        client: Client,
        before_dial: Deadline,
        on_authorised: Callable[[], None],
        granted: tuple[Route, Grant] | None,
    ) -> None:
        """Authenticate, authorise and dial; see :meth:`.Session.open`, which is for others to call.

        :param holder: the session, which has the console from then on.
        """
        route, grant = self._admitted(head, client, before_dial, granted)
        config = self._gateway.config
        subresource = route.subresource or config.routes.default
        self._about |= admitted(grant, route.vmi, subresource)
        console = Console(grant.namespace, route.vmi, subresource)
        self._session_slot = self._gateway.limits.take_session(
            grant.user, grant.namespace, route.vmi, subresource
        )
        try:
            requester = Requester(grant, client.address)
            claim = self._claim = self._gateway.arbitration.claim(console, requester, holder, before_dial)
            on_authorised()
            self.release_connection()
            path = config.path_template.path(grant.namespace, route.vmi, route.subresource)
            if claim.preserves_session and subresource == "vnc":  # which alone can be asked to
                path += "?preserveSession=true"
            upstream, seconds = self._dial(path, offered_upstream(upgrade.subprotocols))
        except BaseException:
            self._session_slot.end()  # before the client is told, and comes again
            self.release_console()
            raise
        agreed = answered_subprotocol(upgrade.subprotocols, upstream.subprotocol)
        tells_by_rfb = subresource == "vnc" and by_websocket(config.reject, upgrade)
        self.opened = Opened(grant, route.vmi, subresource, upstream, agreed, seconds, tells_by_rfb)
        claim.won()

    def _admitted(
        self, head: RequestHead, client: Client, deadline: Deadline, granted: tuple[Route, Grant] | None
    ) -> tuple[Route, Grant]:
        """Return what to open and the grant that allows it, if the client may come in."""
        access = self._gateway.access
        if not self._gateway.admits:
            raise Draining("the proxy is stopping")
        self.check_address(client)
        if granted:
            route, grant = granted
            return route, access.admit_granted(head, client, route, grant)
        return access.admit(head, client, deadline)

    def check_address(self, client: Client) -> None:
        """Refuse a client from whose address, perhaps not the peer's, too many have not authenticated.

        :raises LimitExceeded: if so.
        """
        network = network_of((client.address,))
        if network != self._network:
            self.release_connection()
            self._network = network
            self._connection_slot = self._gateway.limits.take_connection(network)
        self._connection_slot.check()

    def release_connection(self) -> None:
        """Count the client's address no more for it, since it has authenticated. Idempotent."""
        self._connection_slot.release()

    def _dial(self, path: str, offered: Sequence[str]) -> tuple[Upstream, float]:
        """Open the upstream, and return it with how many seconds that took."""
        started, deadline = time.monotonic(), Deadline(self._gateway.config.dial_timeout)
        try:
            upstream = self._gateway.dialler.dial(path, offered, deadline, self._watch)
        except Refused as refused:
            if self._interrupted:
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

    def _watch(self, sock: socket.socket | None) -> None:
        """Remember the socket that a dial blocks on, so that :meth:`interrupt` can wake it."""
        with self._lock:
            self._dialling = sock
            stopping = sock and self._interrupted
        if stopping:
            raise TransportClosed("the proxy is stopping")

    def interrupt(self) -> None:
        """Refuse a client whose console is being opened. Any thread, never blocks, idempotent."""
        with self._lock:
            self._interrupted = True
        self.abort()

    def abort(self) -> None:
        """Shut down what is being dialled. Any thread, never blocks, idempotent."""
        with self._lock:
            dialling = self._dialling
        if dialling:
            wake(dialling)

    def note_ending(self) -> None:
        """Let a further session of the same user, or with the same console, in beside this one.

        Any thread, never blocks, idempotent.
        """
        if self._session_slot:
            self._session_slot.end("user", "vmi")

    def release_console(self) -> None:
        """Let others have the console. Idempotent."""
        claim, self._claim = self._claim, None
        if claim:
            claim.release()

    def close(self) -> None:
        """Close the upstream, and release what is held, as nothing costs anything any more. Idempotent.

        The client's connection has been closed before.
        """
        if self.opened:
            self.opened.upstream.transport.close()
        self.release_console()
        self.release_connection()
        if self._session_slot:
            self._session_slot.release()
