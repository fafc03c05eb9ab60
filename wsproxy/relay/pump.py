"""One direction of a relay: reads one leg, walks its frames, writes the same bytes to the other leg.

A pump is run by one thread at a time, in one of two ways. :meth:`Pump.copy` blocks, and carries any
amount. :meth:`Pump.ready` never blocks; it is how one thread, the :class:`.Poller`, carries the small
messages of all sessions, until something large comes or the sink is full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..exceptions import ProtocolViolation, TransportClosed
from ..net.transport import Transport
from ..protocol.closing import Closing
from ..protocol.frames import ControlFrame, FrameScanner, Opcode
from ..runtime.logs import SessionLogger, get_logger
from .writer import Writer

__all__ = ["Pump", "PumpEvents"]

logger = get_logger("wsproxy.pump")

_BUFFER_SIZE = 4 * 1024
_MAX_BUFFER_SIZE = 256 * 1024
_SMALL_READS = 32  # in a row, after which a large buffer is given back
_LARGE_READ = 16 * 1024  # bytes; after one, more is likely to come at once


class PumpEvents(Protocol):
    """What a pump tells whoever it works for, in the thread that runs it. Nothing here may block."""

    def ping_answered(self, pump: Pump, payload: bytes) -> None:
        """Take note of a Pong with that payload, at which the scanner was to stop; it goes no further."""
        ...

    def began(self, pump: Pump) -> None:
        """Take note of the first bytes; perhaps more than once."""
        ...

    def close_received(self, pump: Pump, close: ControlFrame) -> None:
        """Take note of the source's Close, and forward it if need be."""
        ...

    def violated(self, pump: Pump, violation: ProtocolViolation) -> None:
        """Take note of the source's breach of RFC 6455."""
        ...

    def let_go(self, pump: Pump) -> None:
        """Take note that the poller lets go of the pump: it is over, or else has to be run by a thread."""
        ...

    def failed(self, pump: Pump, exc: Exception) -> None:
        """End the session: there is a bug in the pump."""
        ...


class Pump:
    """Copies what ``source`` sends to ``sink``, until its stream, its Close or its first mistake ends that.

    :param source: read by this pump only.
    :param sink: streamed into by this pump only.
    :param sink_transport: the sink's own; one found broken is only woken, its own reader reports it.
    :param scanner: of the source's frames. A Pong that it stops at is consumed.
    :param closing: once it is finished nothing more is read. Closing a socket with unread data resets
        the connection, which frees a peer that is blocked in sending at once; after a mere FIN it could
        stay so for minutes.
    :param events: whom to tell.
    :param session: the session's id, for the log.
    :ivar is_over: whether there will never be more to copy.
    :ivar received: bytes from the source so far.
    :ivar data: bytes of data frames given to the sink so far.
    """

    def __init__(
        self,
        source: Transport,
        sink: Writer,
        sink_transport: Transport,
        scanner: FrameScanner,
        closing: Closing,
        events: PumpEvents,
        session: str = "",
    ) -> None:
        self._source = source
        self._sink = sink
        self._sink_transport = sink_transport
        self._scanner = scanner
        self._closing = closing
        self._events = events
        self._session = session
        self._carry = b""  # received, but not passed on yet
        self._last_word_said = False  # what still comes does not matter, but its end has to be seen
        self.is_over = False
        self.received = 0
        self.data = 0
        self._control = 0  # bytes of control frames given to the sink so far

    @property
    def sent(self) -> int:
        """Bytes given to the sink so far."""
        return self.data + self._control

    @property
    def _log(self) -> SessionLogger:  # made when it is needed, which is rare
        return SessionLogger(logger, self._session)

    def fileno(self) -> int:
        """See :class:`.Watched`."""
        return self._source.fileno()

    @property
    def has_unread(self) -> bool:
        """Whether there is something to copy that no descriptor tells of."""
        return self._source.has_unread

    def failed(self, exc: Exception) -> None:
        """See :class:`.Watched`."""
        self.is_over = True
        self._events.failed(self, exc)

    def let_go(self) -> None:
        """See :class:`.Watched`."""
        self._events.let_go(self)

    def abort(self) -> None:
        """See :class:`.Watched`."""
        self._log.info("a leg is shut down: its TLS keeps us reading and brings no data")
        self._source.abort()

    def ready(self, buffer: bytearray, view: memoryview) -> bool:
        """See :class:`.Watched`: copy what has come, once; False if it is over or :meth:`copy` is needed."""
        if self._closing.finished:
            self.is_over = True
            return False
        held = self._put_carry(buffer) if self._carry else 0
        try:
            received = self._source.try_recv_into(view[held:] if held else view)
        except TransportClosed as exc:
            received = self._broken(exc)
        if received is None:
            return True
        if received <= 0:
            self.is_over = received == 0
            return False
        if not self.received:
            self._events.began(self)
        self.received += received
        end = held + received
        passed_on = self._pass_on(buffer, view, end, self._try_write)
        self.is_over = self._closing.finished
        return passed_on and not self.is_over and end <= len(buffer) - _LARGE_READ

    def copy(self, *, until_quiet: bool) -> None:
        """Copy until the source's stream ends or the session is finished, whatever it takes. Blocks.

        :param until_quiet: return earlier, once nothing more comes after a small read.
        """
        self._take_back()
        buffer = bytearray(_BUFFER_SIZE)
        view = memoryview(buffer)
        small = 0  # reads in a row that would have fitted into a quarter of the buffer
        quiet = until_quiet
        while not self._closing.finished:
            receive = self._source.try_recv_into if quiet else self._source.recv_into
            held = self._put_carry(buffer)
            try:
                received = receive(view[held:])
                if received == -1:
                    received = self._source.recv_into(view[held:])
            except TransportClosed as exc:
                received = self._broken(exc)
            if received is None:
                return
            if not received:
                break
            if not self.received:
                self._events.began(self)
            self.received += received
            end, size = held + received, len(buffer)
            self._pass_on(buffer, view, end, self._write)
            quiet = until_quiet and received < _LARGE_READ
            small = small + 1 if end < size // 4 else 0
            if end == size < _MAX_BUFFER_SIZE or (small > _SMALL_READS and size > _BUFFER_SIZE):
                buffer = bytearray(2 * size if end == size else _BUFFER_SIZE)
                view, small = memoryview(buffer), 0
        self.is_over = True

    def _broken(self, exc: TransportClosed) -> int:
        """A broken stream has ended, too."""
        self._log.debug("a leg broke: %s", exc)
        return 0

    def _take_back(self) -> None:
        """Finish what :meth:`ready` began."""
        try:
            self._sink.resume()
        except TransportClosed:
            self._note_broken_sink()
        if self._carry:
            self._source.unread(self._carry)
            self.received -= len(self._carry)
            self._carry = b""

    def _put_carry(self, buffer: bytearray) -> int:
        """Put what is carried to the front of the buffer and return its size."""
        held = len(self._carry)
        buffer[:held] = self._carry
        return held

    def _pass_on(
        self,
        buffer: bytearray,
        view: memoryview,
        end: int,
        write: Callable[[memoryview, int, bool], bool],
    ) -> bool:
        """Write ``buffer[:end]`` to the sink; carry what is incomplete, or what has to wait.

        That is one piece, pings and pongs included, but for a few answers to pings of ours and a Close.

        :returns: whether ``write`` did all that it was to do.
        """
        self._carry = b""
        scanner, start = self._scanner, 0
        while not self._last_word_said:
            cut = scanner.scan(buffer, start, end)
            if cut > start:
                self.data += cut - start - scanner.passed_by
                self._control += scanner.passed_by
                if not write(view[start:cut], scanner.boundary - start, scanner.mid_frame):
                    self._carry = bytes(view[cut:end])
                    return False
            if cut == end:
                return True
            frame = scanner.control
            if frame is None or frame.opcode is Opcode.CLOSE:
                self._stopped(frame, view[cut:end])
                return True
            start = cut + len(frame.raw)
            self._events.ping_answered(self, frame.payload)
        return True

    def _stopped(self, close: ControlFrame | None, rest: memoryview) -> None:
        """Deal with what the scanner does not go beyond: a Close, a breach, or something incomplete."""
        if close is None and self._scanner.violation is None:
            self._carry = bytes(rest)
            return
        self._last_word_said = True
        if close is not None:
            self._events.close_received(self, close)
        elif self._scanner.violation is not None:
            self._events.violated(self, self._scanner.violation)

    def _write(self, piece: memoryview, boundary: int, mid_frame: bool) -> bool:
        try:
            self._sink.write(piece, boundary, mid_frame)
        except TransportClosed:
            self._note_broken_sink()
        return True

    def _try_write(self, piece: memoryview, boundary: int, mid_frame: bool) -> bool:
        try:
            return self._sink.try_write(piece, boundary, mid_frame)
        except TransportClosed:
            self._note_broken_sink()
            return True

    def _note_broken_sink(self) -> None:
        """Wake the sink's reader, unless we have broken off by ourselves: then it still has to read."""
        if not self._sink.is_cut:
            self._sink_transport.abort()
