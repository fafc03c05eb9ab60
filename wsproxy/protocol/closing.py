"""How a session ends: a state machine that knows no sockets, threads or time.

The relay reports each event (:meth:`Closing.close_received`, :meth:`~Closing.lost`,
:meth:`~Closing.violated`, :meth:`~Closing.end`, :meth:`~Closing.close_written`, :meth:`~Closing.cut`,
:meth:`~Closing.deadline`, :meth:`~Closing.abort`). Each method returns the actions to take, in order.

A leg is *done* when it is lost or cut, or when a Close went each way on it (RFC 6455 section 7.1.4). The
session is finished when both legs are done, when the close timeout passes, or when waiting cannot help.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Action", "Closing", "Ending", "Finish", "ForwardClose", "Leg", "SendClose"]

_NEVER_SPOKE = (
    "upstream-refused: the console ended before it showed anything; the machine may be starting or stopping"
)


class Leg(Enum):
    """One of the two connections of a session."""

    CLIENT = "client"
    UPSTREAM = "upstream"

    __hash__ = object.__hash__  # Enum's own is slow, and every event of an end looks legs up

    @property
    def other(self) -> Leg:
        return Leg.UPSTREAM if self is Leg.CLIENT else Leg.CLIENT


@dataclass(frozen=True)
class Ending:
    """Why a session ended, for the log.

    :ivar by: "client", "upstream" or "proxy".
    :ivar code: the close code; None for a peer's Close without a code, and for an abort.
    :ivar reason: the proxy's reason code, which a detail may follow; or the close reason of a peer.
    """

    by: str
    code: int | None
    reason: str


@dataclass(frozen=True)
class ForwardClose:
    """Forward the Close frame that the other leg just sent, unchanged, to ``leg``."""

    leg: Leg


@dataclass(frozen=True)
class SendClose:
    """Send a Close frame of the proxy's own to ``leg``. If that is the upstream, forward no more to it."""

    leg: Leg
    code: int | None
    reason: str


@dataclass(frozen=True)
class Finish:
    """Shut both connections down now."""


Action = ForwardClose | SendClose | Finish


@dataclass
class _LegState:
    sent: bool = False  # an action told the relay to send a Close to this leg
    written: bool = False  # the kernel has taken that whole Close
    received: bool = False  # a Close came from this leg
    echo: tuple[int | None, str] = (None, "")  # code and reason of the Close that came
    lost: bool = False
    cut: bool = False  # the proxy sends nothing more to this leg, which is inside a frame


class Closing:
    """The state of one session's end. Not safe for threads: the relay holds a lock around each call.

    :ivar ending: the first cause, None while the session is open.
    :ivar finished: whether a method has returned :class:`Finish`.
    :ivar taken_over: None while no other client takes the console over. If the upstream is lost during a
        takeover, close code and reason for the client.
    """

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self.finished = False
        self.taken_over: tuple[int, str] | None = None
        self._legs = {Leg.CLIENT: _LegState(), Leg.UPSTREAM: _LegState()}

    @property
    def unsent(self) -> list[Leg]:
        """The legs whose Close the kernel did not take whole. A lost leg counts only if it was cut."""
        return [
            leg
            for leg, state in self._legs.items()
            if state.sent and not state.written and (state.cut or not state.lost)
        ]

    def close_received(self, leg: Leg, code: int | None, reason: str) -> list[Action]:
        """A valid Close frame came from ``leg``."""
        state, other = self._legs[leg], self._legs[leg.other]
        if state.received:
            return []
        state.received, state.echo = True, (code, reason)
        self._begin(leg.value, code, reason)
        actions: list[Action] = []
        if not other.sent and not other.lost and not self.finished:
            other.sent = True
            actions.append(ForwardClose(leg.other))
        return actions + self._finish_if_done()

    def lost(self, leg: Leg, *, heard: bool = True, stranded: bool = False) -> list[Action]:
        """The connection of ``leg`` is lost.

        :param heard: whether any byte ever came from it. If not, an upstream counts as having refused.
        :param stranded: whether the other leg is inside a frame that only this leg could complete.
        """
        state, other = self._legs[leg], self._legs[leg.other]
        state.lost = True
        by, wait = leg.value, True
        if leg is Leg.UPSTREAM and self.taken_over:
            by, (code, slug) = "proxy", self.taken_over
        elif leg is Leg.UPSTREAM:
            code, slug = (1011, "upstream-closed") if heard else (4502, _NEVER_SPOKE)
        else:
            code, slug = 1000, "client-gone"
            # If the client sent a Close and left, the upstream still gets time to answer that Close.
            wait = state.received and other.sent and not other.received
        self._begin(by, code, slug)
        actions = self._answer(leg.other) if other.received else self._close(leg.other, code, slug)
        if stranded or not wait:
            return actions + self._finish()
        return actions + self._finish_if_done()

    def violated(self, leg: Leg, code: int, reason: str) -> list[Action]:
        """``leg`` broke RFC 6455, so the proxy cannot parse what it sends from now on."""
        slug = "message-too-big" if code == 1009 else "protocol-error"
        self._begin(leg.value, code, f"{slug}: {reason}")
        return self._close(leg, code, f"{slug}: {reason}") + self._close_other(leg)

    def end(self, code: int, reason: str) -> list[Action]:
        """The proxy ends the session. The client gets ``code`` and ``reason``."""
        self._begin("proxy", code, reason)
        return self._close(Leg.CLIENT, code, reason) + self._close(Leg.UPSTREAM, 1000, "")

    def close_written(self, leg: Leg) -> list[Action]:
        """The kernel has taken the whole Close for ``leg``."""
        self._legs[leg].written = True
        return self._finish_if_done()

    def cut(self, leg: Leg) -> list[Action]:
        """The proxy cannot send the Close for ``leg``, which is inside a frame that will stay incomplete."""
        self._legs[leg].cut = True
        return self._finish_if_done()

    def deadline(self) -> list[Action]:
        """The close timeout passed: answer each Close that the other peer did not answer, and finish."""
        actions: list[Action] = []
        for leg, state in self._legs.items():
            if state.received and not state.sent and not state.lost:
                actions += self._answer(leg)
        return actions + self._finish()

    def abort(self) -> list[Action]:
        """The proxy cannot continue: finish at once, without a Close."""
        self._begin("proxy", None, "aborted")
        return self._finish()

    def _begin(self, by: str, code: int | None, reason: str) -> None:
        if self.ending is None:
            self.ending = Ending(by, code, reason)

    def _answer(self, leg: Leg) -> list[Action]:
        return self._close(leg, *self._legs[leg].echo)

    def _close_other(self, offender: Leg) -> list[Action]:
        if offender is Leg.UPSTREAM:
            return self._close(Leg.CLIENT, 1011, "upstream-protocol-error")
        return self._close(Leg.UPSTREAM, 1000, "")

    def _close(self, leg: Leg, code: int | None, reason: str) -> list[Action]:
        state = self._legs[leg]
        if state.sent or state.lost or self.finished:
            return []
        state.sent = True
        return [SendClose(leg, code, reason)]

    def _finish_if_done(self) -> list[Action]:
        for state in self._legs.values():
            if not (state.lost or state.cut or (state.received and state.written)):
                return []
        return self._finish()

    def _finish(self) -> list[Action]:
        if self.finished:
            return []
        self.finished = True
        return [Finish()]
