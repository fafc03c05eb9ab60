"""Two pumps that copy WebSocket frames between a client and an upstream until the session ends.

Each pump reads one leg and writes the other; nothing else reads a leg. If a pump finds the other leg broken,
it only wakes the reader of that leg. So each loss is reported exactly once, and only after everything that
arrived before it was read. :mod:`wsproxy.protocol.closing` decides what to do at an end.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from ..exceptions import ProtocolViolation
from ..net.transport import Transport
from ..protocol import rfb
from ..protocol.closing import Action, Closing, Ending, Finish, ForwardClose, Leg, SendClose
from ..protocol.frames import (
    ControlFrame,
    FrameScanner,
    Opcode,
    build_frame,
    close_payload,
    parse_close_payload,
)
from ..runtime.deadline import Clock
from ..runtime.logs import SessionLogger, get_logger
from ..telemetry.counters import Counters
from .liveness import Liveness, Look
from .pings import Pings
from .poller import Poller
from .pump import Pump
from .scheduler import PumpThreads, StartThread
from .writer import Writer

__all__ = ["Relay", "RelayLimits"]

logger = get_logger("wsproxy.relay")

_FLUSH_INTERVAL = 0.02
_TOO_BIG = 1009  # RFC 6455 section 7.4.1


@dataclass(frozen=True)
class RelayLimits:
    """The relay's timing and sizes.

    :param close_timeout: seconds that an end may take, from its first cause until both sockets are shut down.
    :param ping_interval: seconds between pings on each leg; a dead leg is found after two intervals.
    :param max_frame_size: largest payload of one data frame, bytes.
    """

    close_timeout: float = 5.0
    ping_interval: float = 25.0
    max_frame_size: int = 16 * 1024 * 1024


class _Side:
    """One leg, and the pump that reads it.

    :param now: the clock's reading.
    """

    def __init__(
        self,
        leg: Leg,
        transport: Transport,
        limits: RelayLimits,
        now: float,
        on_close_written: Callable[[], None],
    ) -> None:
        self.leg = leg
        self.transport = transport
        self.writer = Writer(transport, on_close_written)
        self.pump: Pump
        self.scanner = FrameScanner(leg is Leg.CLIENT, limits.max_frame_size)
        self.pings = Pings(self.scanner)
        self.began = False
        # Used by the housekeeping thread only.
        self.liveness = Liveness(limits.ping_interval, now)

    def own(self, opcode: Opcode, payload: bytes) -> bytes:
        """Build a frame of the proxy's own; for the upstream with a fresh mask (RFC 6455 section 5.3)."""
        return build_frame(opcode, payload, os.urandom(4) if self.leg is Leg.UPSTREAM else None)

    def ping(self, now: float) -> None:
        """Send a ping of the proxy's own."""
        self.writer.inject(self.own(Opcode.PING, self.pings.next(now)))
        self.liveness.asked(now)


class Relay:
    """The open phase of one session.

    :param client: transport to the client, after the 101.
    :param upstream: transport to the upstream, after its 101.
    :param limits: timing and sizes.
    :param wake: called with a number of seconds if the housekeeping has to call :meth:`tick` within them,
        earlier than the last call asked for.
    :param clock: seconds for intervals and the close timeout.
    :param poller: copies small messages; without one, each direction has a thread all the time.
    :param counters: gets the seconds until the upstream's first byte, and until the answers to pings.
    :param session: the session's id, for the log.
    :param tells_by_rfb: if the session ends before the client has got any data, send the reason by RFB, too.
    :ivar frame_too_big: whether a frame above the limit ended the session.
    """

    def __init__(
        self,
        client: Transport,
        upstream: Transport,
        limits: RelayLimits,
        wake: Callable[[float], None] = lambda delay: None,
        clock: Clock = time.monotonic,
        poller: Poller | None = None,
        counters: Counters | None = None,
        session: str = "",
        tells_by_rfb: bool = False,
    ) -> None:
        self._limits = limits
        self._wake = wake
        self._clock = clock
        self._poller = poller
        self._counters = counters or Counters()
        self._session = session
        self._tells_by_rfb = tells_by_rfb
        self._started = clock()
        self.frame_too_big = False
        # Objects that the relay holds refer to it weakly, so that a session's end frees them at once. The
        # garbage collector would take a tenth of an opening's time. No pump runs after run() has returned.
        self._self: Relay = weakref.proxy(self)
        self._client = self._side(Leg.CLIENT, client)
        self._upstream = self._side(Leg.UPSTREAM, upstream)
        self._sides = {Leg.CLIENT: self._client, Leg.UPSTREAM: self._upstream}
        # Guards _closing and _close_at; never held while a socket is touched.
        self._lock = threading.Lock()
        self._closing = Closing()
        self._close_at: float | None = None
        self._close_not_sent: tuple[str, ...] = ()
        self._next_ping = self._started + limits.ping_interval

        for side in self._sides.values():
            side.pump = self._pump(side, self._sides[side.leg.other])

    def _side(self, leg: Leg, transport: Transport) -> _Side:
        relay = self._self

        def close_written() -> None:
            relay._act(lambda closing: closing.close_written(leg))

        return _Side(leg, transport, self._limits, self._started, close_written)

    def _pump(self, source: _Side, sink: _Side) -> Pump:
        return Pump(
            source.transport,
            sink.writer,
            sink.transport,
            source.scanner,
            self._closing,
            self._self,
            self._session,
        )

    @property
    def ending(self) -> Ending | None:
        """Why the session ended; None while it is open."""
        return self._closing.ending

    @property
    def bytes_up(self) -> int:
        """Bytes received from the client."""
        return self._client.pump.received

    @property
    def bytes_down(self) -> int:
        """Bytes received from the upstream."""
        return self._upstream.pump.received

    @property
    def data_up(self) -> int:
        """Bytes of data frames that the client sent, without pings and pongs."""
        return self._client.pump.data

    @property
    def close_not_sent(self) -> tuple[str, ...]:
        """After the end: the legs that got no Close, because they were inside a frame or took nothing."""
        return self._close_not_sent

    def run(self, start_thread: StartThread) -> None:
        """Copy both ways until the session has ended; then both transports are shut down, but not closed.

        Blocks for the whole session. Ends within ``close_timeout`` of the first cause, if another thread
        calls :meth:`tick` at the times that it returns.

        :param start_thread: starts a second thread if one is needed; this method joins it.
        :raises RuntimeError: if that thread cannot be started.
        """
        relay = self._self
        self._threads = PumpThreads(
            self._poller,
            start_thread,
            on_end=lambda pump: relay._lost(pump),
            on_failure=lambda: relay.abort(),
        )
        self._threads.run([self._client.pump, self._upstream.pump])

    def _lost(self, pump: Pump) -> None:
        """Handle the loss of a leg: nothing more comes from it."""
        leg = self._read_by(pump).leg
        heard, stranded = pump.received > 0, self._sides[leg.other].writer.mid_frame
        self._act(lambda closing: closing.lost(leg, heard=heard, stranded=stranded))

    def _read_by(self, pump: Pump) -> _Side:
        return self._client if pump is self._client.pump else self._upstream

    # Callbacks of the pumps, see PumpEvents

    def ping_answered(self, pump: Pump, payload: bytes) -> None:
        side = self._read_by(pump)
        if (seconds := side.pings.answered(payload, self._clock())) is not None:
            self._counters.ping(side.leg, seconds)

    def began(self, pump: Pump) -> None:
        side = self._read_by(pump)
        if side is self._upstream and not side.began:
            self._counters.first_byte(self._clock() - self._started)
        side.began = True

    def close_received(self, pump: Pump, close: ControlFrame) -> None:
        leg = self._read_by(pump).leg
        code, reason = parse_close_payload(close.payload)
        self._act(lambda closing: closing.close_received(leg, code, reason), close.raw)

    def violated(self, pump: Pump, violation: ProtocolViolation) -> None:
        leg = self._read_by(pump).leg
        self.frame_too_big |= violation.code == _TOO_BIG
        self._act(lambda closing: closing.violated(leg, violation.code, str(violation)))

    def let_go(self, pump: Pump) -> None:
        self._threads.let_go(pump)

    def failed(self, pump: Pump, exc: Exception) -> None:
        self._threads.fail(exc)

    def end(self, code: int, reason: str) -> None:
        """End the session with a Close of the proxy's own. Any thread; returns at once, idempotent.

        :param code: close code for the client, one that RFC 6455 lets an endpoint send.
        :param reason: close reason for the client, at most 123 bytes, beginning with a slug.
        """
        self._act(lambda closing: closing.end(code, reason))

    def expect_takeover(self, ending: tuple[int, str] | None) -> None:
        """From now on, treat a loss of the upstream as a takeover of the console. Any thread, never blocks.

        :param ending: close code and reason for the client in that case; None revokes an earlier call.
        """
        with self._lock:
            self._closing.taken_over = ending

    def abort(self) -> None:
        """Shut both transports down without a Close. Any thread; never blocks, idempotent."""
        self._act(lambda closing: closing.abort())

    def _shut_down(self) -> None:
        for side in self._sides.values():
            side.transport.shut_down()

    def tick(self, now: float) -> float:
        """Do what is due, and return when to call it again. The housekeeping thread only; never blocks.

        :param now: the clock's reading.
        """
        due = now + self._limits.close_timeout
        dead: list[_Side] = []
        if self._close_at is None:
            dead = self._look_and_ping(now)
            due = min(self._next_ping, *(side.liveness.due for side in self._sides.values()))
        elif now >= self._close_at:
            self._act(lambda closing: closing.deadline())
        else:
            due = self._close_at
        if self._flush():
            due = min(due, now + _FLUSH_INTERVAL)
        for side in dead:  # last: the other leg's Close goes out only if nothing else is being sent there
            side.transport.abort()
        return due

    def _look_and_ping(self, now: float) -> list[_Side]:
        """Do the looks and pings that are due, and return the legs that are dead."""
        pinging = now >= self._next_ping
        sides = self._sides.values()
        dead = [side for side in sides if (pinging or now >= side.liveness.due) and self._is_dead(side, now)]
        if pinging:
            self._next_ping = now + self._limits.ping_interval
            for side in sides:
                side.ping(now)
        return dead

    # The ends

    def _act(self, event: Callable[[Closing], list[Action]], close: bytes = b"") -> None:
        """Pass an event to the state machine, and do what it says, outside the lock. Never blocks.

        :param close: the Close frame that the event is about.
        """
        with self._lock:
            actions = event(self._closing)
            started = self._close_at is None and self._closing.ending is not None
            if started:
                self._close_at = self._clock() + self._limits.close_timeout
        if started:  # before the actions: a client that gets the Close may reconnect, and wants the slots
            self._wake(self._limits.close_timeout)
        for action in actions:
            if isinstance(action, SendClose):
                self._send_close(self._sides[action.leg], action)
            elif isinstance(action, ForwardClose):
                self._sides[action.leg].writer.inject(close, close=True)
            elif isinstance(action, Finish):
                self._close_not_sent = tuple(leg.value for leg in self._closing.unsent)
                self._shut_down()
        if self._client.writer.waiting or self._upstream.writer.waiting:
            self._wake(0.0)

    def _send_close(self, side: _Side, close: SendClose) -> None:
        """Send a Close of the proxy's own. From then on, nothing from the client goes to the upstream.

        If the upstream's leg is inside a frame of the client, there is no place for a Close, so that leg is
        cut. The frame that the upstream is sending to the client may still be completed.
        """
        frame = side.own(Opcode.CLOSE, close_payload(close.code, close.reason))
        if close.leg is Leg.CLIENT:
            side.writer.inject(self._failure(close) + frame, close=True)
        elif not side.writer.stop(frame):
            side.transport.break_off()
            self._act(lambda closing: closing.cut(close.leg))

    def _failure(self, close: SendClose) -> bytes:
        """Return what goes before a Close: RFB's failure message, for a browser that has got no data yet.

        noVNC shows that message, and no close reason. The message has two parts, and noVNC need not have
        answered the first one. If the console sends data at the same moment, noVNC understands neither part.
        It then shows what it shows without them.
        """
        ending = self._closing.ending
        wanted = self._tells_by_rfb and close.leg is Leg.CLIENT and not self._upstream.pump.data
        if not wanted or (ending and ending.by == Leg.CLIENT.value):
            return b""
        slug, _, words = close.reason.partition(": ")
        return b"".join(build_frame(Opcode.BINARY, message) for message in rfb.refusal(words or slug))

    def _flush(self) -> bool:
        """Retry injected frames; return whether one still waits that a later retry may send."""
        again = False
        for side in self._sides.values():
            writer = side.writer
            if writer.waiting:
                writer.flush()
                again = again or (writer.waiting and not writer.busy and not writer.mid_frame)
        return again

    # Liveness

    def _is_dead(self, side: _Side, now: float) -> bool:
        """Judge one leg."""
        writer, other = side.writer, self._sides[side.leg.other]
        traffic = side.transport.traffic()
        seen = Look(
            received=side.pump.received,
            taken=traffic.taken if traffic else other.pump.sent,
            reading=not other.writer.busy,
            blocked=writer.busy or (writer.waiting and not writer.mid_frame),
            waiting=writer.waiting,
            in_flight=side.transport.bytes_waiting() > 0,
            heard_ago=traffic.heard_ago if traffic else None,
            sent_ago=traffic.sent_ago if traffic else None,
        )
        verdict = side.liveness.look(now, seen)
        if verdict:
            SessionLogger(logger, self._session).info("%s leg is dead: %s", side.leg.value, verdict)
        return bool(verdict)
