"""The sending side of one leg: the relay's stream, with the proxy's own frames between its frames."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..exceptions import TransportClosed
from ..net.transport import Transport

__all__ = ["Writer"]


def _nothing() -> None:
    pass


class Writer:
    """Lets one pump stream through a transport while any thread may inject a control frame.

    The pump sends without holding a lock. :meth:`write` blocks. :meth:`try_write` does not, and leaves to
    :meth:`resume` what it could not send. If the transport is idle at a frame boundary, an injected frame
    goes out at once, else at the next such moment. At most one ping waits, and a Close replaces it. When the
    Close is sent, the writer is sealed: it drops what the pump still brings.

    :param transport: where the bytes go; only the writer sends on it.
    :param on_close_written: called once, without a lock held, when the kernel has taken all of a Close.
    """

    def __init__(self, transport: Transport, on_close_written: Callable[[], None]) -> None:
        self._transport = transport
        self._on_close_written = on_close_written
        # Guards every attribute below. Held for assignments only, never while sending.
        self._mutex = threading.Lock()
        self._turn = threading.Condition(self._mutex)
        self._pump_waits = False
        self._busy = False  # a thread is sending
        self._streaming = False  # the pump has the turn, and a part of what it brought has not been sent
        self._stopped = False  # the writer drops what the pump brings
        self._cut = False  # stop() found no place for a Close, so none is sent
        self._mid_frame = False  # the last byte sent is inside a data frame
        self._remainder = b""  # the unsent tail of an injected frame: goes before anything else
        self._pending: bytes | None = None  # an injected frame that waits
        self._closing = False  # a Close has been accepted
        self._sealed = False  # the Close is out, or the transport is broken
        # What try_write has left for resume; used by the pump only.
        self._left: Callable[[], None] = _nothing

    @property
    def busy(self) -> bool:
        """Whether a thread is inside a send, for instance because the peer takes nothing."""
        return self._busy

    @property
    def mid_frame(self) -> bool:
        """Whether the peer has got only a part of a data frame."""
        return self._mid_frame and not self._sealed

    @property
    def waiting(self) -> bool:
        """Whether an injected frame, or a part of one, has not reached the kernel."""
        return not self._sealed and (bool(self._remainder) or self._pending is not None)

    @property
    def is_cut(self) -> bool:
        """Whether :meth:`stop` found no place for a Close."""
        return self._cut

    def write(self, data: memoryview, boundary: int, mid_frame: bool) -> None:
        """Send a piece of the stream. The pump only; blocks until the peer takes it or the transport ends.

        :param data: the piece, of any size.
        :param boundary: index in ``data`` of its last frame boundary, -1 if it has none.
        :param mid_frame: whether the piece ends inside a data frame.
        :raises TransportClosed: if the transport is broken.
        """
        with self._mutex:
            if not self._take_turn():
                return
            waiting = bool(self._remainder or self._pending)
        self._stream(data, boundary if waiting else None, mid_frame)

    def try_write(self, data: memoryview, boundary: int, mid_frame: bool) -> bool:
        """Send as much of a piece of the stream as goes without waiting. The pump only; never blocks.

        :returns: whether all is sent or dropped; if not, call :meth:`resume` before the next write.
        :raises TransportClosed: if the transport is broken.
        """
        with self._mutex:
            if self._sealed or self._stopped:
                return True
            if free := not (self._busy or self._remainder or self._pending):
                self._busy = self._streaming = True
        if not free:
            copy = memoryview(bytes(data))
            self._left = lambda: self.write(copy, boundary, mid_frame)
            return False
        try:
            sent = self._transport.try_send(data)
        except TransportClosed:
            self._give_up()
            raise
        if sent == len(data) and self._is_done(mid_frame):
            return True
        rest = memoryview(bytes(data[sent:]))
        # Keep the turn: TLS requires that these very bytes are sent before any others.
        self._left = lambda: self._stream(rest, None, mid_frame)
        return False

    def resume(self) -> None:
        """Send what :meth:`try_write` has left, if anything. The pump only; blocks like :meth:`write`.

        :raises TransportClosed: if the transport is broken.
        """
        left, self._left = self._left, _nothing
        left()

    def _stream(self, data: memoryview, boundary: int | None, mid_frame: bool) -> None:
        """Send a piece, then give the turn back. The caller has the turn.

        :param boundary: the last index at which a waiting frame may go out; None for after the piece only.
        """
        try:
            if boundary is None:
                if not self._sealed:
                    self._transport.sendall(data)
            else:
                self._write_with_injection(data, boundary)
            if not self._is_done(mid_frame):
                self._release(self._send_all)
        except TransportClosed:
            self._give_up()
            raise

    def _is_done(self, mid_frame: bool) -> bool:
        """Note how a piece ended; give the turn back, unless a frame waits that may go out now."""
        with self._mutex:
            self._mid_frame, self._streaming = mid_frame, False
            if self._remainder or (self._pending and not mid_frame):
                return False
            self._busy = False
            return True

    def inject(self, frame: bytes, *, close: bool = False) -> None:
        """Send a control frame at the next frame boundary. Any thread; never blocks, never raises.

        A ping is dropped while another injected frame waits.
        """
        with self._mutex:
            if self._closing or self._sealed or (self.waiting and not close):
                return
            self._closing, self._pending = close, frame
        self.flush()

    def stop(self, close: bytes) -> bool:
        """From now on, drop what the pump brings, and send a Close. Any thread; never blocks or raises.

        :param close: the Close, sent as :meth:`inject` does.
        :returns: False if there is no place for it, because the peer has got a part of a frame, or the pump
            is sending. The writer then starts no further send; the caller has to shut the transport down.
        """
        with self._mutex:
            self._stopped = True
            if self._sealed:
                return True
            if self._mid_frame or self._streaming:
                self._cut = self._sealed = True
                return False
            if not self._closing:
                self._closing, self._pending = True, close
        self.flush()
        return True

    def flush(self) -> None:
        """Try again to send what waits. Any thread; never blocks, never raises."""
        with self._mutex:
            if self._busy or self._sealed or self._peek() is None:
                return
            self._busy = True
        try:
            self._release(self._send_some)
        except TransportClosed:
            self._give_up()  # the pump that reads this transport reports the loss

    def _take_turn(self) -> bool:
        """Wait for the turn and take it; return False if nothing may be sent any more. Needs the mutex."""
        while self._busy:  # by an injection, which never blocks
            self._pump_waits = True
            self._turn.wait()
            self._pump_waits = False
        self._busy = self._streaming = not (self._sealed or self._stopped)
        return self._busy

    def _write_with_injection(self, data: memoryview, boundary: int) -> None:
        """Send ``data``, with the waiting frame before it or else at its last frame boundary."""
        split = 0
        if self._remainder or not self._mid_frame:
            self._drain(self._send_all)
        elif boundary >= 0:
            self._transport.sendall(data[:boundary])
            split, self._mid_frame = boundary, False
            self._drain(self._send_all)
        if not self._sealed:
            self._transport.sendall(data[split:])

    def _release(self, send: Callable[[bytes], bool]) -> None:
        """Send what may go out now, then give the turn back; the last check and that are one step."""
        takes = True
        while True:
            with self._mutex:
                if not takes or self._sealed or self._peek() is None:
                    self._busy = False
                    if self._pump_waits:
                        self._turn.notify()
                    return
            takes = self._drain(send)

    def _drain(self, send: Callable[[bytes], bool]) -> bool:
        """Send what may go out now; return False if the transport did not take it all."""
        while True:
            with self._mutex:
                frame = None if self._sealed else self._peek()
                if frame is None:
                    return True
                if not self._remainder:
                    self._remainder, self._pending = frame, None
            if not send(frame):
                return False
            with self._mutex:
                sealed = self._sealed = self._closing and self._pending is None
            if sealed:
                self._on_close_written()

    def _peek(self) -> bytes | None:
        """Return the next frame that may go out now, None if there is none. Needs the mutex."""
        assert self._mutex.locked()
        if self._remainder:
            return self._remainder
        return None if self._mid_frame else self._pending

    def _send_all(self, frame: bytes) -> bool:
        self._transport.sendall(frame)
        self._remainder = b""
        return True

    def _send_some(self, frame: bytes) -> bool:
        sent = self._transport.try_send(frame)
        self._remainder = frame[sent:]
        return not self._remainder

    def _give_up(self) -> None:
        with self._mutex:
            self._busy, self._streaming, self._sealed = False, False, True
            self._turn.notify_all()
