"""One client's connection: read the request, then answer it, refuse it, or open a session."""

from __future__ import annotations

import logging
import threading

from . import http
from .deadline import Deadline
from .exceptions import Refused, RequestTimeout, TransportClosed
from .refusal import Refuser
from .session import Gateway, Session, rfb_expected
from .transport import Transport
from .upgrade import HeadReader, RequestHead, Upgrade

__all__ = ["ClientConnection"]

logger = logging.getLogger("wsproxy.connection")

_RECEIVE = 4096
_LAST_WORD_SECONDS = 1.0


class ClientConnection:
    """Serves one accepted connection.

    :param gateway: what all sessions of the server share.
    :param refuser: how to refuse.
    :param transport: the client's; owned and closed here.
    :param peer: the client's address, for the log.
    """

    def __init__(self, gateway: Gateway, refuser: Refuser, transport: Transport, peer: str) -> None:
        self.session = Session(gateway, peer)
        self._gateway = gateway
        self._refuser = refuser
        self._transport = transport
        # Guards the flag: whether the session answers for how the connection ends.
        self._lock = threading.Lock()
        self._in_session = False
        self._proved = False

    def run(self) -> None:
        """Serve the connection and close it. Blocks until its end; never raises."""
        try:
            if self._open(Deadline(self._gateway.config.request_timeout)):
                self.session.relay(self._transport)
        except (TransportClosed, TimeoutError) as exc:
            logger.debug("connection %s from %s: %s", self.session.id, self.session.peer, exc)
        except Exception:  # a bug of ours
            logger.exception("connection %s failed", self.session.id)
        finally:
            self.session.close()
            self._transport.close()

    def stop(self) -> None:
        """See :class:`.Connection`: a session gets its Close, anything else is shut down."""
        self.session.stop()
        with self._lock:
            in_session = self._in_session
        if not in_session:
            self.abort()

    def abort(self) -> None:
        """See :class:`.Connection`."""
        self._transport.abort()
        self.session.abort()

    def _open(self, deadline: Deadline) -> bool:
        """Do everything up to the 101; return False if the request has been answered otherwise."""
        head: RequestHead | None = None
        upgrade: Upgrade | None = None
        try:
            head = self._read_head(deadline)
            if not head.asks_for_websocket:
                self._transport.send(http.answer(head, self._gateway.config.prefix), deadline)
                self._transport.linger(Deadline(_LAST_WORD_SECONDS))
                return False
            upgrade = Upgrade(head)
            self._set_in_session(True)
            self.session.open(head, upgrade, self._prove)
        except Refused as refused:
            self._set_in_session(False)
            self._refuse(refused, head, upgrade, deadline)
            return False
        accepted = upgrade.accept(self.session.subprotocol)
        self._transport.send(accepted, Deadline(self._gateway.config.request_timeout))
        return True

    def _read_head(self, deadline: Deadline) -> RequestHead:
        reader = HeadReader()
        while True:
            try:
                received = self._transport.recv(_RECEIVE, deadline)
            except TimeoutError:
                raise RequestTimeout("the request head did not arrive in time") from None
            if not received:
                raise TransportClosed("the client left before its request was complete")
            if head := reader.feed(received):
                self._transport.unread(reader.rest)  # WebSocket data already
                return head

    def _prove(self) -> None:
        if not self._gateway.admission.prove(self):
            raise TransportClosed("shut down to make room for others")
        self._proved = True

    def _set_in_session(self, value: bool) -> None:
        with self._lock:
            self._in_session = value

    def _refuse(
        self, refused: Refused, head: RequestHead | None, upgrade: Upgrade | None, deadline: Deadline
    ) -> None:
        admission = self._gateway.admission
        logger.log(
            logging.INFO if self._proved else admission.refusal_level(),
            "connection %s refused: client %s: %d %s: %s%s",
            self.session.id,
            self.session.peer,
            refused.status,
            refused.slug,
            refused.message,
            f" ({refused.log_detail})" if refused.log_detail else "",
        )
        if deadline.passed:  # by the dial, which has a deadline of its own, or as the reason itself
            deadline = Deadline(_LAST_WORD_SECONDS)
        self._refuser.refuse(
            self._transport,
            refused,
            upgrade,
            deadline,
            rfb_route=bool(head and upgrade and rfb_expected(head, self._gateway.config)),
            head_only=bool(head and head.method == "HEAD"),
        )
