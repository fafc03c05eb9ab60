"""A slow link between a client and the simulated API: each direction has a delay and a bandwidth.

Threads: each direction of a session has its own thread, which moves bytes between the socket and the line.
The session's threads use the other end of the line. A condition guards each direction. No thread uses a
socket while it holds one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from ...exceptions import TransportClosed
from ...net.transport import Transport
from ...runtime.deadline import Clock, Deadline

__all__ = ["Line", "Link", "LinkTransport", "Schedule"]

_MOST_UNDER_WAY = 1 << 20
_CHUNK = 65536
_PIECES_A_SECOND = 50
_SMALLEST_PIECE = 256
_JOIN_SECONDS = 1.0


class Link:
    """The delay and the bandwidth of a session, in each direction.

    Both may change while the session is open. Data in flight keeps its time of arrival.

    :param delay: seconds by which each byte is delayed.
    :param bandwidth: bytes a second, including the headers of frames; None for no limit.
    :raises ValueError: if the delay is below 0, or the bandwidth is not above 0.
    """

    def __init__(self, delay: float = 0.0, bandwidth: float | None = None) -> None:
        if not delay >= 0 or (bandwidth is not None and not bandwidth > 0):
            raise ValueError(
                "a link needs a delay of 0 s or more, and a bandwidth of more than 0 bytes a second"
            )
        self.delay = delay
        self.bandwidth = bandwidth

    @property
    def piece(self) -> int:
        """The number of bytes that arrive together: those of a fiftieth of a second."""
        if self.bandwidth is None:
            return _CHUNK
        return max(_SMALLEST_PIECE, int(self.bandwidth / _PIECES_A_SECOND))


class Schedule:
    """Computes when data in one direction of a link arrives. No I/O, no clock."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._free = float("-inf")  # when the earlier bytes have left the sender
        self._last = float("-inf")  # when they arrive; later bytes never arrive before

    def arrival(self, size: int, now: float) -> float:
        """Return when ``size`` bytes arrive that are sent at ``now``, after all earlier bytes."""
        self._free = max(self._free, now)
        if self._link.bandwidth is not None:
            self._free += size / self._link.bandwidth
        self._last = max(self._last, self._free + self._link.delay)
        return self._last


class Line:
    """One direction of a link. A thread puts bytes in, and another takes them out when they have arrived.

    :param clock: returns the present time in seconds.
    """

    def __init__(self, link: Link, clock: Clock = time.monotonic) -> None:
        self._link, self._clock = link, clock
        self._schedule = Schedule(link)
        self._changed = threading.Condition()  # guards all below
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._ended = False
        self._broken = False

    def put(self, data: bytes) -> None:
        """Send bytes. Blocks while a MiB is in flight. :meth:`cut` ends that.

        :raises TransportClosed: if the line has been cut.
        """
        for start in range(0, len(data), size := self._link.piece):
            self._put(data[start : start + size])

    def end(self) -> None:
        """Send the end of the stream, which arrives after all earlier bytes. Does not block."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._append(b"")

    def _put(self, piece: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._broken or self._size < _MOST_UNDER_WAY)
            if self._broken or self._ended:
                raise TransportClosed("the link was cut")
            self._append(piece)

    def _append(self, piece: bytes) -> None:
        self._under_way.append((self._schedule.arrival(len(piece), self._clock()), piece))
        self._size += len(piece)
        self._changed.notify_all()

    def take(self, deadline: Deadline | None = None) -> bytes:
        """Return the bytes that arrive next; b"" at the end of the stream. Blocks; :meth:`cut` ends that.

        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the line has been cut.
        """
        with self._changed:
            while not self._broken and (wait := self._seconds()) != 0:
                left = None if deadline is None else deadline.remaining()
                self._changed.wait(wait if left is None or (wait is not None and wait < left) else left)
            if self._broken:
                raise TransportClosed("the link was cut")
            piece = self._under_way.popleft()[1]
            if not piece:
                self._under_way.appendleft((self._clock(), b""))  # the end stays
            self._size -= len(piece)
            self._changed.notify_all()
            return piece

    def _seconds(self) -> float | None:
        """Return the seconds until bytes arrive; None if none are in flight."""
        return max(0.0, self._under_way[0][0] - self._clock()) if self._under_way else None

    def seconds_left(self) -> float:
        """Return the seconds until all bytes in flight have arrived."""
        with self._changed:
            return max(0.0, self._under_way[-1][0] - self._clock()) if self._under_way else 0.0

    def cut(self) -> None:
        """Drop the bytes in flight, and wake blocked threads. Any thread may call it. Idempotent."""
        with self._changed:
            self._broken = True
            self._changed.notify_all()


class LinkTransport(Transport):
    """A transport behind a link. It has only the methods that :class:`.FakeConsole` calls.

    :param inner: the transport to the client. This object closes it.
    :param end: is called to end the direction to the client, after all bytes have arrived.
    """

    def __init__(self, inner: Transport, link: Link, end: Callable[[], None]) -> None:
        self._inner, self._end = inner, end
        self._up, self._down = Line(link), Line(link)
        self._arrived = memoryview(b"")
        # close() joins these. They are daemons so that a process ends even if a test forgets to stop the API.
        name = threading.current_thread().name
        self._threads = [
            threading.Thread(target=self._fetch, name=f"{name}-link-up", daemon=True),
            threading.Thread(target=self._deliver, name=f"{name}-link-down", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _fetch(self) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        try:
            while size := self._inner.recv_into(buffer):
                self._up.put(bytes(buffer[:size]))
            self._up.end()
        except TransportClosed:
            self._up.cut()

    def _deliver(self) -> None:
        try:
            while data := self._down.take():
                self._inner.sendall(data)
            self._end()
        except TransportClosed:
            self._down.cut()

    def recv_into(self, buffer: memoryview) -> int:
        size = min(len(self._arrived) or self._take(None), len(buffer))
        buffer[:size] = self._arrived[:size]
        self._arrived = self._arrived[size:]
        return size

    def recv(self, size: int, deadline: Deadline) -> bytes:
        if not self._arrived:
            self._take(deadline)
        data, self._arrived = bytes(self._arrived[:size]), self._arrived[size:]
        return data

    def _take(self, deadline: Deadline | None) -> int:
        self._arrived = memoryview(self._up.take(deadline))
        return len(self._arrived)

    def sendall(self, data: memoryview | bytes) -> None:
        self._down.put(bytes(data))

    def end_sending(self) -> None:
        """End the direction to the client after all sent bytes. Any thread may call it. Does not block."""
        self._down.end()

    def seconds_left(self) -> float:
        """Return the seconds until all sent bytes have reached the client."""
        return self._down.seconds_left()

    def abort(self) -> None:
        self._up.cut()
        self._down.cut()

    def close(self) -> None:
        self.abort()
        # End only reading: to end both directions would send FIN, although the session may want RST.
        self._inner.end_reading()
        if not self._join():
            self._inner.abort()  # ends a thread that still sends
            self._join()
        self._inner.close()

    def _join(self) -> bool:
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        return not any(thread.is_alive() for thread in self._threads)
