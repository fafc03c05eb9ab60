"""Two pumps that copy WebSocket frames between a client and an upstream until the session ends.

Each pump reads one leg and writes the other; nothing else reads a leg. A pump that finds the other
leg broken only wakes that leg's own reader, so each leg's loss is reported by exactly one thread, after
all that had arrived before it was read. What to do at an end is decided by :mod:`wsproxy.closing`.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .closing import Action, Closing, Ending, Finish, ForwardClose, Leg, SendClose
from .deadline import Clock
from .exceptions import ProtocolViolation, TransportClosed
from .frames import (
    ControlFrame,
    FrameScanner,
    Opcode,
    build_frame,
    close_payload,
    parse_close_payload,
)
from .transport import Transport
from .writer import Writer

__all__ = ["Relay", "RelayLimits"]

logger = logging.getLogger("wsproxy.relay")

_BUFFER_SIZE = 4 * 1024
_MAX_BUFFER_SIZE = 256 * 1024
_SMALL_READS = 32  # in a row, after which a large buffer is given back
_FLUSH_INTERVAL = 0.02
_DEAD_AFTER_INTERVALS = 2
_PING = struct.Struct(">4sI")


@dataclass(frozen=True)
class RelayLimits:
    """The relay's timing and sizes.

    :param close_timeout: seconds an end may take, from its first cause to both sockets shut down.
    :param ping_interval: seconds between pings on each leg; a dead leg is found after two to three.
    :param max_frame_size: largest payload of one data frame, bytes.
    """

    close_timeout: float = 5.0
    ping_interval: float = 25.0
    max_frame_size: int = 16 * 1024 * 1024


@dataclass
class _Side:
    """One leg: what the pump that reads it and the housekeeping know of it."""

    leg: Leg
    transport: Transport
    writer: Writer
    scanner: FrameScanner
    masks: bool  # whether frames of our own to this leg are masked
    received: int = 0  # bytes; written by this leg's pump only
    sent: int = 0  # bytes; written by the other leg's pump only
    nonce: bytes = field(default_factory=lambda: os.urandom(4))
    pings: int = 0
    # Liveness, as of the tick before; touched by the housekeeping only.
    received_then: int = -1
    taken_then: int = -1
    blocked_then: bool = False
    read_then: bool = False
    silent: int = 0
    stuck: int = 0

    def own(self, opcode: Opcode, payload: bytes) -> bytes:
        """Build a frame of our own for this leg; to a server with a fresh mask (RFC 6455 section 5.3)."""
        return build_frame(opcode, payload, os.urandom(4) if self.masks else None)


class Relay:
    """The open phase of one session.

    :param client: transport to the client, after the 101.
    :param upstream: transport to the upstream, after its 101.
    :param limits: timing and sizes.
    :param wake: called when the housekeeping should call :meth:`tick` earlier than it was asked to.
    :param clock: seconds for intervals and the close timeout.
    """

    def __init__(
        self,
        client: Transport,
        upstream: Transport,
        limits: RelayLimits,
        wake: Callable[[], None] = lambda: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._limits = limits
        self._wake = wake
        self._clock = clock
        self._sides = {
            Leg.CLIENT: self._side(Leg.CLIENT, client, masked=True),
            Leg.UPSTREAM: self._side(Leg.UPSTREAM, upstream, masked=False),
        }
        # Guards _closing and _close_at; never held while a socket is touched.
        self._lock = threading.Lock()
        self._closing = Closing()
        self._close_at: float | None = None
        self._close_not_sent: tuple[str, ...] = ()
        self._next_ping = clock() + limits.ping_interval

    def _side(self, leg: Leg, transport: Transport, masked: bool) -> _Side:
        writer = Writer(transport, lambda: self._close_written(leg))
        scanner = FrameScanner(masked, self._limits.max_frame_size)
        return _Side(leg, transport, writer, scanner, masks=not masked)

    @property
    def ending(self) -> Ending | None:
        """Why the session ended; None while it is open."""
        return self._closing.ending

    @property
    def bytes_up(self) -> int:
        """Bytes received from the client."""
        return self._sides[Leg.CLIENT].received

    @property
    def bytes_down(self) -> int:
        """Bytes received from the upstream."""
        return self._sides[Leg.UPSTREAM].received

    @property
    def close_not_sent(self) -> tuple[str, ...]:
        """After the end: the legs that were to get a Close but were inside a frame or took nothing."""
        return self._close_not_sent

    def run(self, start_thread: Callable[[Callable[[], None]], threading.Thread]) -> None:
        """Copy both ways until the session has ended; both transports are shut down then, not closed.

        Blocks for the whole session. The calling thread is the client-to-upstream pump. Ends within
        ``close_timeout`` of the first cause, provided somebody calls :meth:`tick` as it asks.

        :param start_thread: starts the thread of the upstream-to-client pump, which is joined here.
        :raises RuntimeError: if that thread cannot be started.
        """
        try:
            thread = start_thread(lambda: self._pump(Leg.UPSTREAM))
        except BaseException:
            self.abort()
            raise
        try:
            self._pump(Leg.CLIENT)
        finally:
            thread.join()

    def end(self, code: int, reason: str) -> None:
        """End the session with a Close of ours. Any thread; returns at once, idempotent.

        :param code: close code for the client, one that RFC 6455 lets be sent.
        :param reason: what the client reads, at most 123 bytes, beginning with a slug.
        """
        self._act(lambda closing: closing.end(code, reason))

    def abort(self) -> None:
        """Shut both transports down without a Close. Any thread; idempotent."""
        for side in self._sides.values():
            side.transport.abort()

    def tick(self, now: float) -> float:
        """Do what is due and return when to call again. The housekeeping thread only; never blocks.

        :param now: the clock's reading.
        """
        due = now + self._limits.close_timeout
        dead: list[_Side] = []
        if self._close_at is None:
            if now >= self._next_ping:
                self._next_ping = now + self._limits.ping_interval
                dead = [side for side in self._sides.values() if self._is_dead(side)]
                for side in self._sides.values():
                    self._ping(side)
            due = self._next_ping
        elif now >= self._close_at:
            self._act(lambda closing: closing.deadline())
        else:
            due = self._close_at
        if self._flush():
            due = min(due, now + _FLUSH_INTERVAL)
        for side in dead:  # last: the other leg's Close goes out only if nothing else is being sent there
            side.transport.abort()
        return due

    # The pumps

    def _pump(self, leg: Leg) -> None:
        source, sink = self._sides[leg], self._sides[leg.other]
        try:
            if self._copy(source, sink):
                self._drop_the_rest(source)
        except TransportClosed as exc:
            logger.debug("%s leg: %s", leg.value, exc)
        except BaseException:
            self.abort()  # a bug of ours must not leave the other pump waiting
            raise
        heard, stranded = source.received > 0, sink.writer.mid_frame
        self._act(lambda closing: closing.lost(leg, heard=heard, stranded=stranded))

    def _copy(self, source: _Side, sink: _Side) -> bool:
        """Forward what ``source`` sends until its stream, its Close or its first mistake ends that.

        Returns whether the stream goes on, with nothing in it that matters.
        """
        buffer = bytearray(_BUFFER_SIZE)
        view = memoryview(buffer)
        held = 0  # bytes at the start of the buffer that could not be passed yet
        small = 0  # reads in a row that would have fitted into a quarter of the buffer
        while not self._closing.finished:
            received = source.transport.recv_into(view[held:])
            if not received:
                return False
            source.received += received
            end = held + received
            held = self._pass_on(source, sink, buffer, view, end)
            if held < 0:
                return True
            size = len(buffer)
            small = small + 1 if end < size // 4 else 0
            if end == size < _MAX_BUFFER_SIZE or (small > _SMALL_READS and size > _BUFFER_SIZE):
                buffer = bytearray(2 * size if end == size else _BUFFER_SIZE)
                buffer[:held] = view[:held]
                view, small = memoryview(buffer), 0
        return False

    def _pass_on(self, source: _Side, sink: _Side, buffer: bytearray, view: memoryview, end: int) -> int:
        """Forward ``buffer[:end]``; move an incomplete rest to the front and return its size.

        Returns -1 when ``source`` has said its last word.
        """
        scanner = source.scanner
        start = 0
        while True:
            cut = scanner.scan(buffer, start, end)
            if cut > start:
                self._write(sink, view[start:cut], scanner.boundary - start, scanner.mid_frame)
            if cut == end:
                return 0
            if scanner.violation:
                self._violated(source, scanner.violation)
                return -1
            if not scanner.control:
                view[: end - cut] = view[cut:end]
                return end - cut
            if self._control(source, sink, scanner.control):
                return -1
            start = cut + len(scanner.control.raw)

    def _write(self, sink: _Side, piece: memoryview, boundary: int, mid_frame: bool) -> None:
        try:
            sink.writer.write(piece, boundary, mid_frame)
        except TransportClosed:
            sink.transport.abort()  # its own reader reports the loss
        sink.sent += len(piece)

    def _control(self, source: _Side, sink: _Side, frame: ControlFrame) -> bool:
        """Handle a control frame of ``source``; return True for its Close."""
        if frame.opcode is Opcode.CLOSE:
            code, reason = parse_close_payload(frame.payload)
            actions = self._act(lambda closing: closing.close_received(source.leg, code, reason))
            if any(isinstance(action, ForwardClose) for action in actions):
                self._write_close(sink, frame.raw)
            return True
        if not (frame.opcode is Opcode.PONG and self._answers_a_ping_of_ours(source, frame.payload)):
            self._write(sink, memoryview(frame.raw), len(frame.raw), False)
        return False

    def _write_close(self, sink: _Side, frame: bytes) -> None:
        try:
            sink.writer.write_close(frame)
        except TransportClosed:
            sink.transport.abort()

    def _violated(self, source: _Side, violation: ProtocolViolation) -> None:
        self._act(lambda closing: closing.violated(source.leg, violation.code, str(violation)))

    def _drop_the_rest(self, source: _Side) -> None:
        """Read until the stream ends: the peer may still be sending, and its end has to be seen.

        Not once the session is finished: closing a socket with unread data resets the connection, which
        frees a peer that is blocked in sending at once. After a mere FIN it could stay so for minutes.
        """
        with memoryview(bytearray(_BUFFER_SIZE)) as view:
            while not self._closing.finished and (received := source.transport.recv_into(view)):
                source.received += received

    # The ends

    def _act(self, event: Callable[[Closing], list[Action]]) -> list[Action]:
        """Tell the state machine and do what it says, outside the lock."""
        with self._lock:
            actions = event(self._closing)
            started = self._close_at is None and self._closing.ending is not None
            if started:
                self._close_at = self._clock() + self._limits.close_timeout
        for action in actions:
            if isinstance(action, SendClose):
                side = self._sides[action.leg]
                frame = side.own(Opcode.CLOSE, close_payload(action.code, action.reason))
                side.writer.inject(frame, close=True)
            elif isinstance(action, Finish):
                self._close_not_sent = tuple(leg.value for leg in self._closing.unsent)
                self.abort()
        if started or any(side.writer.waiting for side in self._sides.values()):
            self._wake()
        return actions

    def _close_written(self, leg: Leg) -> None:
        self._act(lambda closing: closing.close_written(leg))

    def _flush(self) -> bool:
        """Retry injected frames; return whether one still waits that a later retry may bring out."""
        again = False
        for side in self._sides.values():
            writer = side.writer
            if writer.waiting:
                writer.flush()
                again = again or (writer.waiting and not writer.busy and not writer.mid_frame)
        return again

    # Liveness

    def _ping(self, side: _Side) -> None:
        side.pings = (side.pings + 1) & 0xFFFFFFFF
        side.writer.inject(side.own(Opcode.PING, _PING.pack(side.nonce, side.pings)))

    @staticmethod
    def _answers_a_ping_of_ours(side: _Side, payload: bytes) -> bool:
        if len(payload) != _PING.size:
            return False
        nonce, number = _PING.unpack(payload)
        return bool(nonce == side.nonce and 1 <= number <= side.pings)

    def _is_dead(self, side: _Side) -> bool:
        """Judge one leg, once in each ping interval.

        It is dead if, for two intervals in which we were reading it, no byte came while a ping of ours
        was with the kernel, or if for two intervals it took no byte of ours. A leg that is not read
        because its partner takes nothing is not judged; the partner is. Nor is a ping unanswered that
        has to wait in our kernel's buffer behind what the peer is still taking.
        """
        writer = side.writer
        read = not self._sides[side.leg.other].writer.busy
        taken = side.transport.bytes_taken()
        taken = side.sent if taken is None else taken
        taking = taken != side.taken_then and side.transport.bytes_waiting() > 0
        asked = side.pings > 0 and not writer.waiting and not taking
        silent = asked and read and side.read_then and side.received == side.received_then
        side.silent = side.silent + 1 if silent else 0
        blocked = writer.busy or bool(writer.waiting and not writer.mid_frame)
        stuck = blocked and side.blocked_then and taken == side.taken_then
        side.stuck = side.stuck + 1 if stuck else 0
        side.read_then, side.received_then = read, side.received
        side.blocked_then, side.taken_then = blocked, taken
        if max(side.silent, side.stuck) < _DEAD_AFTER_INTERVALS:
            return False
        logger.info("%s leg is dead: %s", side.leg.value, "takes nothing" if side.stuck else "no answer")
        return True
