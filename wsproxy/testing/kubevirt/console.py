"""A session of the simulated API: the server's end of a WebSocket connection after the 101."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...exceptions import TransportClosed
from ...net.tls import TLSTransport
from ...net.transport import Transport
from ...runtime.deadline import Deadline
from .frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameBuffer,
    close_payload,
    encode_frame,
    encode_message,
    parse_close,
)
from .link import Link, LinkTransport

if TYPE_CHECKING:
    from .http import RecordedRequest

__all__ = ["LINGER", "FakeConsole", "Wire"]

LINGER = 1.0
"""Seconds for which a session that dropped its connection waits for the client to end its side.

If a socket is closed with unread bytes, the kernel sends RST. An RST may destroy bytes that the client has
not read yet, and tests need to see those bytes every time.
"""
_RECEIVE = 65536
_POLL = 0.05
# gorilla/websocket gives up on a control frame after one second (its writeWait).
_CONTROL_WAIT = 1.0


class Wire:
    """A second descriptor of a connection, below the TLS layer. Any thread may end the connection with it.

    :param sock: the accepted socket, whose descriptor is duplicated.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock.dup()
        # Guards close against shutdown in another thread, since the descriptor's number may be reused.
        self._lock = threading.Lock()

    def shutdown(self, how: int) -> None:
        """Shut the connection down (``socket.SHUT_*``), and wake blocked calls. Never raises."""
        with self._lock:
            try:
                self._sock.shutdown(how)
            except OSError:
                pass  # it is closed, or no longer connected

    def reset_when_closed(self) -> None:
        """Make the last close send RST."""
        with self._lock:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Close this descriptor. Idempotent."""
        with self._lock:
            self._sock.close()


class FakeConsole:
    """The client's WebSocket connection, for a backend.

    One thread may receive, and any thread may send. When the session is killed, blocked calls raise
    :class:`~wsproxy.exceptions.TransportClosed` or ``EOFError``.

    :ivar name: the VMI's name.
    :ivar namespace: the VMI's namespace.
    :ivar subresource: the VMI's subresource.
    :ivar request: the request that opened the session.
    :ivar subprotocol: the subprotocol in the 101; None for none.
    :ivar close_received: code and reason of the client's first Close frame; (1005, "") for an empty one.
    :ivar bytes_sent: bytes after the 101 that were passed to the kernel, frame headers included.
    :ivar bytes_received: bytes received after the request's head, masks and frame headers included.
    :ivar text_dropped: how many TEXT messages were ignored.
    :ivar peer_ended: set when the client's stream has ended (FIN or RST).
    :ivar killed: set when the session must end: after a takeover, ``FakeVMI.drop_sessions`` or the API's
        ``stop``. If a backend with a sending thread serves the session, the client's end also sets it.
    :ivar is_over: whether its backend has finished, so that the console is free again.
    :ivar ended: set when the session is over and its socket is closed.
    :ivar link: the link to the client if :class:`.Behaviour` has ``delay`` or ``bandwidth``; else None. Tests
        may change it: ``console.link.delay = 0.5``.
    :ivar error: the exception that its backend raised, if the connection's end was not the cause.
    """

    def __init__(
        self,
        transport: Transport,
        wire: Wire,
        request: RecordedRequest,
        target: tuple[str, str, str],
        subprotocol: str | None,
        link: Link | None = None,
    ) -> None:
        self.namespace, self.name, self.subresource = target
        self.request = request
        self.subprotocol = subprotocol
        self.close_received: tuple[int, str] | None = None
        self.text_dropped = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.peer_ended = threading.Event()
        self.killed = threading.Event()
        self.is_over = False
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.link = link
        self._transport = self._unlinked = transport
        self._wire = wire
        self._frames = FrameBuffer()
        self._scratch = memoryview(bytearray(_RECEIVE))
        self._prefix = b""
        # A thread holds it while it writes the bytes of one call, so that frames never mix. Also guards
        # _prefix and bytes_sent.
        self._send_lock = threading.Lock()
        # Control frames of the reading thread. The thread that holds the send lock writes them after its own.
        self._controls: deque[bytes] = deque()
        self._closing = False
        # Guards _on_kill, so that each callback is called once.
        self._kill_lock = threading.Lock()
        self._on_kill: list[Callable[[], None]] = []
        if link is not None:
            slow = LinkTransport(transport, link, lambda: wire.shutdown(socket.SHUT_WR))
            self._transport = slow
            self.on_kill(slow.abort)

    # -- sending ----------------------------------------------------------------------------------

    def send_raw(self, data: bytes) -> None:
        """Send bytes unchanged. Blocks without a timeout while the client does not read.

        :raises TransportClosed: if the connection has ended, or the session was killed.
        """
        with self._send_lock:
            if self._closing:
                raise TransportClosed("the client sent a Close frame")
            self._write(data)
        self._flush_controls()

    def send_frame(self, opcode: int, payload: bytes = b"", fin: bool = True, *, rsv: int = 0) -> None:
        """Send one unmasked frame, which need not be valid. Otherwise like :meth:`send_raw`."""
        self.send_raw(encode_frame(opcode, payload, fin=fin, rsv=rsv))

    def send_message(self, payload: bytes) -> None:
        """Send one binary message in the frames that virt-handler uses."""
        self.send_raw(encode_message(payload))

    def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a Close frame; with code None, one without a code."""
        self.send_frame(CLOSE, close_payload(code, reason))

    def _write(self, data: bytes) -> None:
        head, self._prefix = self._prefix, b""
        # Count first. Otherwise a test might see the bytes before they are counted.
        self.bytes_sent += len(data)
        self._transport.sendall(head + data if head else data)

    def hold_back(self, head: bytes) -> None:
        """Keep ``head``, and send it with the next bytes in one system call."""
        with self._send_lock:
            self._prefix = head

    def _queue_control(self, frame: bytes) -> None:
        self._controls.append(frame)
        self._flush_controls()

    def _flush_controls(self) -> None:
        # Look again after each release, since another thread may have queued a frame meanwhile.
        while self._controls and self._send_lock.acquire(blocking=False):
            try:
                while self._controls:
                    self._write(self._controls.popleft())
            finally:
                self._send_lock.release()

    # -- receiving --------------------------------------------------------------------------------

    def recv_frame(self, timeout: float | None = 10.0) -> Frame:
        """Receive one frame of the client, even a control frame, without answering it.

        :param timeout: seconds; None for no timeout.
        :raises EOFError: if the client ended its stream.
        :raises TimeoutError: if no whole frame came in time. A later call continues with the bytes that came.
        :raises TransportClosed: if the connection was reset (RST).
        """
        deadline = None if timeout is None else Deadline(timeout)
        while (frame := self._frames.next()) is None:
            data = self._receive(deadline)
            if not data:
                raise EOFError("the client ended its stream")
            self._frames.feed(data)
        if frame.opcode == CLOSE and self.close_received is None:
            self.close_received = parse_close(frame.payload)
        return frame

    def recv_raw(self, size: int = _RECEIVE, timeout: float | None = 10.0) -> bytes:
        """Receive 1 to ``size`` bytes unchanged; b"" at the end. Otherwise like :meth:`recv_frame`."""
        if self._frames.rest:
            return self._frames.take(size)
        data = self._receive(None if timeout is None else Deadline(timeout))
        self._frames.feed(data)
        return self._frames.take(size)

    @property
    def unparsed(self) -> bytes:
        """Received bytes that do not make a whole frame yet."""
        return self._frames.rest

    def _receive(self, deadline: Deadline | None) -> bytes:
        try:
            if deadline is None:
                data = bytes(self._scratch[: self._transport.recv_into(self._scratch)])
            else:
                data = self._transport.recv(_RECEIVE, deadline)
        except TransportClosed:
            self.peer_ended.set()
            raise
        if not data:
            self.peer_ended.set()
        self.bytes_received += len(data)
        return data

    def read_data(self, consume: Callable[[bytes, bool], None]) -> None:
        """Receive until the client's Close or the end of its stream, as virt-handler's reader does.

        Answers a Ping with a Pong, a Close with a Close of the same code, and an unmasked frame with Close
        1002. Drops TEXT messages. Blocks without a timeout.

        :param consume: gets each binary frame's payload, and whether the frame ends the message.
        """
        dropping = False
        while True:
            try:
                frame = self.recv_frame(None)
            except (EOFError, TransportClosed):
                return
            if not frame.masked:
                return self._end_with_close(1002)
            if frame.opcode == CLOSE:
                return self._end_with_close(parse_close(frame.payload)[0])
            if frame.opcode == PING:
                self._queue_control(encode_frame(PONG, frame.payload))
            elif frame.opcode in (TEXT, BINARY, CONTINUATION):
                if frame.opcode != CONTINUATION:
                    dropping = frame.opcode == TEXT
                self.text_dropped += frame.opcode == TEXT
                if not dropping:
                    consume(frame.payload, frame.fin)

    def _end_with_close(self, code: int) -> None:
        """Send the last Close, after the frame that another thread may be writing."""
        self._closing = True
        if not self._send_lock.acquire(timeout=_CONTROL_WAIT):
            return  # the client does not read
        try:
            self._write(encode_frame(CLOSE, close_payload(code)))
        except TransportClosed:
            pass  # the client did not wait for the answer
        finally:
            self._send_lock.release()

    # -- ending -----------------------------------------------------------------------------------

    def drop(self) -> None:
        """End the sending direction by FIN, without a Close frame or close_notify. Receiving still works."""
        if isinstance(self._transport, LinkTransport):
            return self._transport.end_sending()
        self._wire.shutdown(socket.SHUT_WR)

    @property
    def linger_seconds(self) -> float:
        """Seconds to wait for the client after :meth:`drop`: ``LINGER``, and the time that its link needs."""
        slow = self._transport
        return LINGER + (slow.seconds_left() if isinstance(slow, LinkTransport) else 0.0)

    def send_close_notify(self) -> None:
        """Send close_notify, and leave TCP open. Without TLS the same as :meth:`drop`.

        Bytes that the client sends at this moment may be lost, since OpenSSL reads to find its close_notify.
        """
        if not isinstance(self._unlinked, TLSTransport):
            return self.drop()
        # No other code ends TLS and not TCP, so the transport has no method for it.
        with self._unlinked._lock:
            try:
                self._unlinked._tls.unwrap()
            except (OSError, ValueError):
                pass  # close_notify is sent; unwrap() would now wait for the client's

    def reset(self) -> None:
        """Close the connection with RST. Only the session's own thread may call it, as its last action."""
        self._wire.reset_when_closed()
        self._transport.close()
        self._wire.close()

    def kill(self) -> None:
        """Shut down both directions, and wake blocked calls. Any thread may call it. Idempotent."""
        with self._kill_lock:
            self.killed.set()
            callbacks, self._on_kill = self._on_kill, []
        self._wire.shutdown(socket.SHUT_RDWR)
        for callback in callbacks:
            callback()

    def on_kill(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the session is killed; at once if it was killed already."""
        with self._kill_lock:
            if not self.killed.is_set():
                self._on_kill.append(callback)
                return
        callback()

    def wait(self, event: threading.Event, timeout: float = 10.0) -> None:
        """Wait for a test's event without receiving anything.

        :param timeout: seconds.
        :raises TimeoutError: if the event is not set in time.
        :raises TransportClosed: if the session is killed meanwhile.
        """
        deadline = Deadline(timeout)
        # The event wakes the thread at once. It polls only to notice that the session was killed.
        while not event.wait(min(_POLL, deadline.remaining())):
            if self.killed.is_set():
                raise TransportClosed("the session was killed")

    def hold(self) -> None:
        """Keep the connection open and receive nothing until the session is killed."""
        self.killed.wait()

    def finish(self) -> None:
        """Drop the connection, and read until the client ends its side, ``linger_seconds`` at most."""
        self.is_over = True
        self.drop()
        deadline = Deadline(self.linger_seconds)
        try:
            while not self.peer_ended.is_set() and self._receive(deadline):
                pass
        except (TimeoutError, TransportClosed):
            pass  # the client had enough time

    def close(self) -> None:
        """Close the socket. Only the session's own thread may call it, after all other threads have left."""
        self._transport.close()
        self._wire.close()
        self._scratch = memoryview(b"")  # a suite may keep thousands of ended sessions
        self.ended.set()

    def __repr__(self) -> str:
        return f"<FakeConsole {self.namespace}/{self.name}/{self.subresource}>"
