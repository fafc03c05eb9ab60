"""One direction of a relay: reads one leg, walks its frames, writes the same bytes to the other leg.

One thread at a time runs a pump, in one of two ways. :meth:`Pump.copy` blocks, and copies any amount.
:meth:`Pump.ready` never blocks. The thread of the :class:`.Poller` calls it for the small messages of all
sessions, until a large message comes or the sink is full.
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
_SMALL_READS = 32  # in a row, after which the pump gives a large buffer back
_LARGE_READ = 16 * 1024  # bytes; after a read of this size, more data is likely to come at once


class PumpEvents(Protocol):
    """Callbacks of a pump's owner. The thread that runs the pump calls them, so they must not block."""

    def ping_answered(self, pump: Pump, payload: bytes) -> None:
        """Handle a Pong that answers a ping of the proxy. The pump does not pass it on."""
        ...

    def began(self, pump: Pump) -> None:
        """Note that the first bytes came. May be called more than once."""
        ...

    def close_received(self, pump: Pump, close: ControlFrame) -> None:
        """Handle the source's Close, and forward it if it has to be forwarded."""
        ...

    def violated(self, pump: Pump, violation: ProtocolViolation) -> None:
        """Handle the source's violation of RFC 6455."""
        ...

    def let_go(self, pump: Pump) -> None:
        """Take over a pump from the poller: if it is not over, a thread has to run it."""
        ...

    def failed(self, pump: Pump, exc: Exception) -> None:
        """End the session, because of a bug in the pump."""
        ...


class Pump:
    """Copies what ``source`` sends to ``sink``, until the stream ends, a Close comes, or a frame is wrong.

    :param source: only this pump reads it.
    :param sink: only this pump streams into it.
    :param sink_transport: the sink's transport. If it is broken, the pump only wakes its reader, which
        reports the loss.
    :param scanner: scans the source's frames. The pump consumes a Pong that it stops at.
    :param closing: when it is finished, the pump reads nothing more. If a socket with unread data is closed,
        the kernel sends RST, which at once frees a peer that is blocked in sending. After a mere FIN such a
        peer could stay blocked for minutes.
    :param events: the owner's callbacks.
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
        self._last_word_said = False  # a Close or a violation came: drop what follows, up to the stream's end
        self.is_over = False
        self.received = 0
        self.data = 0
        self._control = 0  # bytes of control frames given to the sink so far

    @property
    def sent(self) -> int:
        """Bytes given to the sink so far."""
        return self.data + self._control

    @property
    def _log(self) -> SessionLogger:  # made on use, because few sessions log here
        return SessionLogger(logger, self._session)

    def fileno(self) -> int:
        """See :class:`.Watched`."""
        return self._source.fileno()

    @property
    def has_unread(self) -> bool:
        """Whether the source has bytes that have left the kernel, so that polling does not report them."""
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
        self._log.info("a leg is shut down: its peer sends TLS records without data, and no end of them")
        self._source.abort()

    def ready(self, buffer: bytearray, view: memoryview) -> bool:
        """See :class:`.Watched`: read and copy once.

        :returns: False if the pump is over, or if :meth:`copy` has to continue.
        """
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
        """Copy until the source's stream ends or the session is finished. Blocks that long.

        :param until_quiet: return earlier, when nothing more comes after a small read.
        """
        self._take_back()
        buffer = bytearray(_BUFFER_SIZE)
        view = memoryview(buffer)
        small = 0  # reads in a row that would have fitted in a quarter of the buffer
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
        """Treat a broken stream as one that has ended: return 0."""
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
        """Put the carried bytes at the front of the buffer, and return their number."""
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

        It is written as one piece, with pings and pongs. Only a Close, and a Pong that answers a ping of the
        proxy, split it.

        :returns: whether ``write`` wrote all that it was given.
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
        """Handle what stopped the scanner: a Close, a violation, or an incomplete header or control frame."""
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
        """Wake the sink's reader, unless the proxy itself has cut that leg: then the reader must continue."""
        if not self._sink.is_cut:
            self._sink_transport.abort()
