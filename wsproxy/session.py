"""One session: authorise, dial, and, once the client has been accepted, relay and close."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NewType

from .access import AccessControl
from .admission import Admission
from .claims import Grant
from .closing import Ending
from .config import Config
from .counters import Counters
from .deadline import Deadline
from .exceptions import Draining, Refused, TransportClosed
from .forwarded import Client
from .hooks import Hooks
from .housekeeping import Housekeeping
from .live_keys import LiveKeys
from .live_sessions import LiveSessions, SessionHandle
from .poller import Poller
from .relay import Relay, RelayLimits
from .resolver import Resolver
from .routing import session_route
from .sockets import wake
from .threads import start_thread
from .tickets import Tickets
from .tls import ServerTLS
from .tokens import TokenVerifier
from .transport import Transport
from .upgrade import RequestHead, Upgrade, answered_subprotocol, offered_upstream
from .upstream import Dialler, Upstream

__all__ = ["Gateway", "Session", "SessionId", "rfb_expected"]

logger = logging.getLogger("wsproxy.session")

SessionId = NewType("SessionId", str)

_RESTARTING = (1012, "restarting")
_EXPIRED = (4411, "expired: the token's time is over")
_NO_HOOKS = Hooks()


class Gateway:
    """What all sessions of one server share.

    :param config: the settings.
    :param hooks: what the embedding program is asked and told.
    :ivar tls: TLS towards clients, None if they come without.
    :ivar sessions: the sessions that are open.
    :ivar draining: whether the proxy is about to stop, so that nobody should be sent here any more.
    :ivar admits: whether new sessions may be opened.
    :ivar on_reload: what :meth:`reload` calls. They may block on the file system.
    :raises ConfigError: if the TLS options of either side are wrong, or a key file cannot be used.
    """

    def __init__(self, config: Config, hooks: Hooks = _NO_HOOKS) -> None:
        self.config = config
        self.hooks = hooks
        self.draining, self.admits = False, True
        self.sessions = LiveSessions()
        self.tls = ServerTLS.from_config(config)
        self.resolver = Resolver()
        self.keys = LiveKeys(config, self.resolver)
        self.verifier = TokenVerifier(self.keys, config.claim_rules)
        self.tickets = Tickets(threading.Lock()) if config.tickets else None
        self.access = AccessControl(config, self.verifier, self.tickets, hooks.authorize)
        self.dialler = Dialler(config, self.resolver)
        self.housekeeping = Housekeeping()
        self.poller = Poller() if Poller.available else None
        self.counters = Counters()
        self.admission = Admission(config.max_pending, self.counters, self.housekeeping)
        self.relay_limits = RelayLimits(config.close_timeout, config.ping_interval, config.max_frame_size)

        self.on_reload: list[Callable[[], None]] = [self.keys.reload, self.dialler.reload]
        if self.tls:
            self.on_reload.append(self.tls.reload)

    def reload(self) -> None:
        """Read keys and certificates again, whether they look different or not; open sessions go on.

        What cannot be used stays as it was, with one error in the log. Not for a signal handler; any thread.
        Blocks on the file system only.
        """
        for step in self.on_reload:
            try:
                step()
            except Exception:  # a bug of ours, which must not keep the others from what they do
                logger.exception("reloading failed")

    def start(self) -> None:
        """Start the threads that all sessions share. Once only."""
        self.housekeeping.start(self)
        self.keys.start(self)
        if self.poller:
            self.poller.start(self)
            self.housekeeping.add(self.poller)

    def stop(self) -> None:
        """End the threads that all sessions share. After the last session."""
        if self.poller:
            self.poller.stop()
        self.keys.stop()
        self.housekeeping.stop()

    def stop_resolving(self) -> None:
        """Fail the sessions that wait for a name or a key, now and later. Idempotent.

        Waits at most a second.
        """
        self.keys.stop_waiting()
        self.resolver.stop()


def rfb_expected(head: RequestHead, config: Config) -> bool:
    """Whether the client of a well-formed upgrade request is about to speak RFB."""
    try:
        route = session_route(head.target, config.prefix, config.enabled_subresources)
    except Refused:
        return config.path_template.subresource == "vnc"
    return (route.subresource or config.path_template.subresource) == "vnc"


@dataclass(frozen=True)
class _Opened:
    """What :meth:`Session.open` achieved."""

    grant: Grant
    vmi: str
    subresource: str
    client: str  # its IP address, "" if that is not known
    upstream: Upstream
    subprotocol: str | None


class Session:
    """One client's session, from its upgrade request to the end.

    Used by one thread, but for :meth:`stop` and :meth:`end`, which any thread may call.

    :param gateway: what it shares with others.
    :param peer: the client's address, for the log.
    """

    def __init__(self, gateway: Gateway, peer: str) -> None:
        self.id = SessionId(f"{random.getrandbits(32):08x}")
        self.peer = peer
        self._gateway = gateway
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._dialling: socket.socket | None = None
        self._relay: Relay | None = None
        self._end: tuple[int, str] | None = None
        self._opened: _Opened | None = None
        self._expires = 0.0

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
    ) -> None:
        """Authenticate, authorise and dial: afterwards the client may be accepted.

        Blocks for at most the dial timeout after ``before_dial``, and while the embedder's hook, if there is
        one, decides. The only path that can reach the upstream.

        :param client: who sent the request.
        :param before_dial: bounds all that comes before the dial.
        :param on_authorised: called before the dial; what it raises ends the opening.
        :raises Refused: if the client is not let in, for whatever reason.
        """
        config = self._gateway.config
        if not self._gateway.admits:
            raise Draining("the proxy is stopping")
        route, grant = self._gateway.access.admit(head, client, before_dial)
        on_authorised()
        path = config.path_template.path(grant.namespace, route.vmi, route.subresource)
        offered = offered_upstream(upgrade.subprotocols)
        deadline = Deadline(config.dial_timeout)
        try:
            upstream = self._gateway.dialler.dial(path, offered, deadline, self._watch)
        except Refused:
            if self._end:
                raise Draining("the proxy is stopping") from None
            raise
        finally:
            self._watch(None)
        agreed = answered_subprotocol(upgrade.subprotocols, upstream.subprotocol)
        subresource = route.subresource or config.path_template.subresource
        self._opened = _Opened(grant, route.vmi, subresource, client.address, upstream, agreed)

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
            lambda delay: housekeeping.wake(self, delay),
            poller=gateway.poller,
        )
        handle = SessionHandle(
            relay,
            id=self.id,
            grant=grant,
            vmi=opened.vmi,
            subresource=opened.subresource,
            client=opened.client,
        )
        started = time.monotonic()
        with self._lock:
            self._relay, end = relay, self._end
        if end:
            relay.end(*end)
        self._log_open(grant)
        gateway.counters.add(relay)
        gateway.sessions.add(handle)
        try:
            gateway.hooks.opened(handle)
            left = grant.seconds_left()
            self._expires = time.monotonic() + left
            # Not called before something is due: waking one more thread would make each opening slower.
            housekeeping.add(self, min(left, gateway.config.ping_interval))
            if relay.ending:  # it may have been ended, and its wake lost, before it was added
                housekeeping.wake(self)
            relay.run(self._start_second_thread)
        finally:
            housekeeping.remove(self)
            gateway.counters.remove(relay)
            ending = relay.ending or Ending("proxy", None, "failed")
            gateway.sessions.remove(handle, ending)
            self._log_end(relay, ending, time.monotonic() - started)
            gateway.hooks.closed(handle, ending)

    def close(self) -> None:
        """Close the upstream. By the session's own thread, last. Idempotent."""
        if self._opened:
            self._opened.upstream.transport.close()

    def end(self, code: int, reason: str) -> None:
        """End the session with a Close of ours; one that is still opening is refused. Any thread."""
        with self._lock:
            self._end = self._end or (code, reason)
            relay, dialling = self._relay, self._dialling
        if relay:
            relay.end(code, reason)
        elif dialling:
            wake(dialling)

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
        assert self._relay is not None
        if now >= self._expires and self._relay.ending is None:
            self.end(*_EXPIRED)
        due = self._relay.tick(now)
        return min(due, self._expires) if now < self._expires else due

    def _watch(self, sock: socket.socket | None) -> None:
        """Remember the socket that a dial blocks on, so that :meth:`end` can wake it."""
        with self._lock:
            self._dialling = sock
            stopping = sock and self._end
        if stopping:
            raise TransportClosed("the proxy is stopping")

    def _start_second_thread(self, target: Callable[[], None]) -> threading.Thread:
        return start_thread(f"wsproxy-{self.id}-second", target, self._gateway)

    def _log_open(self, grant: Grant) -> None:
        assert self._opened
        logger.info(
            "session %s opened: client %s user %r vmi %s/%s",
            self.id,
            self.peer,
            grant.user,
            grant.namespace,
            self._opened.vmi,
        )

    def _log_end(self, relay: Relay, ending: Ending, seconds: float) -> None:
        logger.info(
            "session %s ended: by %s code %s %r after %.1f s, %d bytes up, %d bytes down%s",
            self.id,
            ending.by,
            ending.code,
            ending.reason,
            seconds,
            relay.bytes_up,
            relay.bytes_down,
            f", close not sent to {' and '.join(relay.close_not_sent)}" if relay.close_not_sent else "",
        )
