"""One live session of the stand-in API: the server's end of a WebSocket connection, after the 101."""

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

A socket closed with unread bytes is reset, and the reset may destroy what the client has not read yet;
tests want to see those bytes each time.
"""
_RECEIVE = 65536
_POLL = 0.05
# gorilla/websocket gives a control frame one second (its writeWait) before it gives up.
_CONTROL_WAIT = 1.0


class Wire:
    """A second descriptor of a connection, under the TLS layer, with which any thread may end it.

    :param sock: the accepted socket; it is duplicated, not kept.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock.dup()
        # Guards closing against shutdown in another thread: the number may be reused in between.
        self._lock = threading.Lock()

    def shutdown(self, how: int) -> None:
        """Shut the connection down (``socket.SHUT_*``); also wakes blocked calls. Never raises."""
        with self._lock:
            try:
                self._sock.shutdown(how)
            except OSError:
                pass  # closed, or not connected any more

    def reset_when_closed(self) -> None:
        """Make the last close send RST."""
        with self._lock:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Close this descriptor. Idempotent."""
        with self._lock:
            self._sock.close()


class FakeConsole:
    """What a backend has in its hands: the client's WebSocket connection.

    One thread receives; any thread may send. Everything that blocks ends with
    :class:`~wsproxy.exceptions.TransportClosed` or ``EOFError`` when the session is killed.

    :ivar name: the VMI's name; ``namespace`` and ``subresource`` alike.
    :ivar request: the request that opened it.
    :ivar subprotocol: what the 101 named, None if nothing.
    :ivar close_received: code and reason of the client's first Close frame; (1005, "") for an empty one.
    :ivar bytes_sent: bytes after the 101 that the kernel took or is being given, frame headers included.
    :ivar bytes_received: bytes received after the request's head, masks and frame headers included.
    :ivar text_dropped: how many TEXT messages were ignored.
    :ivar peer_ended: set when the end of the client's stream was seen (FIN or RST).
    :ivar killed: set when it has to end: takeover, ``FakeVMI.drop_sessions``, the API's ``stop``, or the
        client's own end while a backend with a sending thread serves it.
    :ivar is_over: whether its backend serves it no more: the console is free again.
    :ivar ended: set when it is over and its socket closed.
    :ivar link: with :class:`.Behaviour`'s ``delay`` or ``bandwidth``, the link to the client, which may be
        changed: ``console.link.delay = 0.5``; None without.
    :ivar error: what its backend raised, if that was not the connection's end.
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
        # Held while bytes of one call are written, so that frames never mix; also guards _prefix
        # and bytes_sent.
        self._send_lock = threading.Lock()
        # Control frames of the reading thread; whoever holds the send lock writes them after its own.
        self._controls: deque[bytes] = deque()
        self._closing = False
        # Guards _on_kill, and that each callback is called once.
        self._kill_lock = threading.Lock()
        self._on_kill: list[Callable[[], None]] = []
        if link is not None:
            slow = LinkTransport(transport, link, lambda: wire.shutdown(socket.SHUT_WR))
            self._transport = slow
            self.on_kill(slow.abort)

    # -- sending ----------------------------------------------------------------------------------

    def send_raw(self, data: bytes) -> None:
        """Hand ``data`` to the kernel as it is. Blocks without a limit while the client does not read.

        :raises TransportClosed: if the connection is gone, or the session killed.
        """
        with self._send_lock:
            if self._closing:
                raise TransportClosed("the client sent a Close frame")
            self._write(data)
        self._flush_controls()

    def send_frame(self, opcode: int, payload: bytes = b"", fin: bool = True, *, rsv: int = 0) -> None:
        """Send one frame, unmasked, whether it is valid or not; otherwise as :meth:`send_raw`."""
        self.send_raw(encode_frame(opcode, payload, fin=fin, rsv=rsv))

    def send_message(self, payload: bytes) -> None:
        """Send one binary message in the frames that virt-handler would use."""
        self.send_raw(encode_message(payload))

    def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a Close frame; None for one without a code."""
        self.send_frame(CLOSE, close_payload(code, reason))

    def _write(self, data: bytes) -> None:
        head, self._prefix = self._prefix, b""
        # SessionCounts first: a test that has seen the bytes must not find them missing in the count.
        self.bytes_sent += len(data)
        self._transport.sendall(head + data if head else data)

    def hold_back(self, head: bytes) -> None:
        """Write ``head`` together with the next bytes that are sent, in one system call."""
        with self._send_lock:
            self._prefix = head

    def _queue_control(self, frame: bytes) -> None:
        self._controls.append(frame)
        self._flush_controls()

    def _flush_controls(self) -> None:
        # Looked at again after each release: a frame queued while the lock was held would else stay.
        while self._controls and self._send_lock.acquire(blocking=False):
            try:
                while self._controls:
                    self._write(self._controls.popleft())
            finally:
                self._send_lock.release()

    # -- receiving --------------------------------------------------------------------------------

    def recv_frame(self, timeout: float | None = 10.0) -> Frame:
        """Receive one frame of the client, control frames too; nothing is answered.

        :param timeout: seconds; None waits without a limit.
        :raises EOFError: if the client ended its stream.
        :raises TimeoutError: if no whole frame came in time; what came is kept.
        :raises TransportClosed: if the connection broke (RST).
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
        """Receive 1 to ``size`` bytes as they come, b"" at the end; otherwise as :meth:`recv_frame`."""
        if self._frames.rest:
            return self._frames.take(size)
        data = self._receive(None if timeout is None else Deadline(timeout))
        self._frames.feed(data)
        return self._frames.take(size)

    @property
    def unparsed(self) -> bytes:
        """Bytes received that do not make a whole frame."""
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

        Pings are answered, TEXT is dropped, a Close is echoed with its code, an unmasked frame is
        answered with Close 1002. Blocks without a limit.

        :param consume: is given each binary frame's payload, and whether it ends the message.
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
            pass  # it did not wait for the answer
        finally:
            self._send_lock.release()

    # -- ending -----------------------------------------------------------------------------------

    def drop(self) -> None:
        """End our direction: TCP FIN with neither Close frame nor close_notify. Receiving still works."""
        if isinstance(self._transport, LinkTransport):
            return self._transport.end_sending()
        self._wire.shutdown(socket.SHUT_WR)

    @property
    def linger_seconds(self) -> float:
        """How long the client is waited for after :meth:`drop`: ``LINGER``, and what its link takes."""
        slow = self._transport
        return LINGER + (slow.seconds_left() if isinstance(slow, LinkTransport) else 0.0)

    def send_close_notify(self) -> None:
        """End our direction of the TLS layer only, TCP stays open; without TLS the same as :meth:`drop`.

        What the client sends in that very moment may be lost, since OpenSSL looks for its close_notify.
        """
        if not isinstance(self._unlinked, TLSTransport):
            return self.drop()
        # Nothing but this stand-in ends TLS and not TCP, so the transport has no method for it.
        with self._unlinked._lock:
            try:
                self._unlinked._tls.unwrap()
            except (OSError, ValueError):
                pass  # sent; it would now wait for the client's close_notify

    def reset(self) -> None:
        """Close the connection with RST. Only in the session's own thread, and the last thing it does."""
        self._wire.reset_when_closed()
        self._transport.close()
        self._wire.close()

    def kill(self) -> None:
        """End the session from any thread: both directions shut down, blocked calls woken. Idempotent."""
        with self._kill_lock:
            self.killed.set()
            callbacks, self._on_kill = self._on_kill, []
        self._wire.shutdown(socket.SHUT_RDWR)
        for callback in callbacks:
            callback()

    def on_kill(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once when the session is killed; at once if it is already."""
        with self._kill_lock:
            if not self.killed.is_set():
                self._on_kill.append(callback)
                return
        callback()

    def wait(self, event: threading.Event, timeout: float = 10.0) -> None:
        """Wait for a test's event without receiving anything.

        :raises TimeoutError: if it is not set in time.
        :raises TransportClosed: if the session is killed meanwhile.
        """
        deadline = Deadline(timeout)
        # The event itself wakes at once; the period is for the kill only, which is another event.
        while not event.wait(min(_POLL, deadline.remaining())):
            if self.killed.is_set():
                raise TransportClosed("the session was killed")

    def hold(self) -> None:
        """Keep the connection open and receive nothing until the session is killed."""
        self.killed.wait()

    def finish(self) -> None:
        """Drop the connection and read on until the client ends its side, at most ``LINGER`` seconds."""
        self.is_over = True
        self.drop()
        deadline = Deadline(self.linger_seconds)
        try:
            while not self.peer_ended.is_set() and self._receive(deadline):
                pass
        except (TimeoutError, TransportClosed):
            pass  # it had its chance

    def close(self) -> None:
        """Close the socket; only the session's own thread, after every other one left."""
        self._transport.close()
        self._wire.close()
        self._scratch = memoryview(b"")  # a suite may keep thousands of ended sessions
        self.ended.set()

    def __repr__(self) -> str:
        return f"<FakeConsole {self.namespace}/{self.name}/{self.subresource}>"
