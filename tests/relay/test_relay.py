"""The relay over socket pairs, with a clock that the test moves."""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import struct
import tempfile
import threading
import unittest
from collections.abc import Callable
from typing import cast
from unittest import mock

from tests.support.proxy_process import wait_until
from tests.support.transports import in_thread
from wsproxy.net.sockets import tune
from wsproxy.net.tls import accept_tls
from wsproxy.net.tls_context import server_context
from wsproxy.net.transport import PlainTransport, Traffic, Transport
from wsproxy.protocol import rfb
from wsproxy.protocol.closing import Ending, Leg
from wsproxy.relay.poller import Poller
from wsproxy.relay.relay import Relay, RelayLimits
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import LeakTestCase
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.kubevirt.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    Frame,
    FrameBuffer,
    close_payload,
    encode_frame,
    parse_close,
)
from wsproxy.testing.rfb.raw_client import client_context

_LIMITS = RelayLimits(close_timeout=5.0, ping_interval=10.0, max_frame_size=1 << 20)
_TIMEOUT = 60.0
_BLOCK = 65536 + 10  # bytes of an unmasked frame with 65536 bytes of payload


class Peer:
    """The far end of one leg."""

    def __init__(self, sock: socket.socket, *, masks: bool) -> None:
        self.sock = sock
        self.sock.settimeout(_TIMEOUT)
        self._masks = masks
        self._frames = FrameBuffer()

    def send(self, opcode: int, payload: bytes = b"") -> bytes:
        frame = encode_frame(opcode, payload, mask=os.urandom(4) if self._masks else None)
        self.sock.sendall(frame)
        return frame

    def recv(self) -> Frame:
        """Receive one frame; EOFError at the end."""
        while (frame := self._frames.next()) is None:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._frames.feed(data)
        return frame

    def take(self, size: int) -> bytes:
        """Receive so many bytes as they are."""
        data = b""
        while len(data) < size and (part := self.sock.recv(size - len(data))):
            data += part
        return data

    def recv_close(self) -> tuple[int, str]:
        while (frame := self.recv()).opcode != CLOSE:
            pass
        return parse_close(frame.payload)

    def ended(self) -> bool:
        """Read to the end; return False after RST, or without TLS's close_notify."""
        try:
            while self.sock.recv(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            return False
        return True


def _tcp_pair(buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
    with socket.socket() as listener:
        if buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        far = socket.socket()
        if buffer is not None:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        far.connect(listener.getsockname())
        near, _ = listener.accept()
        tune(near)
        return near, far


class RelayTestCase(LeakTestCase):
    """Runs a relay in a thread; nothing ticks but the test."""

    pair: Callable[[], tuple[socket.socket, socket.socket]] = staticmethod(socket.socketpair)
    with_poller = False
    tells_by_rfb = False

    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.woken: list[float] = []
        self.failures: list[ArithmeticError] = []
        near_client, far_client = self.pair()
        near_upstream, far_upstream = self.pair()
        self.client, self.upstream = Peer(far_client, masks=True), Peer(far_upstream, masks=False)
        self.near_client, self.near_upstream = self.transports(near_client, near_upstream)
        poller = self.start_poller() if self.with_poller else None
        self.relay = Relay(
            self.near_client,
            self.near_upstream,
            _LIMITS,
            self._wake,
            lambda: self.now,
            poller=poller,
            tells_by_rfb=self.tells_by_rfb,
        )
        self.thread: threading.Thread | None = None
        for transport in (self.near_client, self.near_upstream):
            self.addCleanup(transport.close)
        for peer in (self.client, self.upstream):
            self.addCleanup(peer.sock.close)
        self.addCleanup(self.finish)

    def transports(self, client: socket.socket, upstream: socket.socket) -> tuple[Transport, Transport]:
        return PlainTransport(client), PlainTransport(upstream)

    def start_poller(self) -> Poller:
        poller = Poller()
        poller.start(self)
        self.addCleanup(poller.stop)
        return poller

    def _wake(self, delay: float) -> None:
        self.woken.append(delay)

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, name="relay")
        self.thread.start()

    def _run(self) -> None:
        try:
            self.relay.run(self._start_pump)
        except ArithmeticError as exc:
            self.failures.append(exc)

    def _start_pump(self, pump: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                pump()
            except ArithmeticError as exc:
                self.failures.append(exc)

        thread = threading.Thread(target=run, name="relay-down")
        thread.start()
        return thread

    def finish(self) -> None:
        self.relay.abort()
        if self.thread:
            self.thread.join(_TIMEOUT)

    def assert_over(self) -> None:
        """Assert that the relay returns by itself, with both transports shut down."""
        assert self.thread is not None
        self.thread.join(_TIMEOUT)
        self.assertFalse(self.thread.is_alive(), "the relay goes on")
        self.client.ended()
        self.upstream.ended()

    def assert_open(self) -> None:
        self.assertIsNone(self.relay.ending)
        assert self.thread is not None
        self.assertTrue(self.thread.is_alive())

    def tick(self, seconds: float = 0.0) -> float:
        """Let time pass, tick, and return in how many seconds the next tick is wanted."""
        self.now += seconds
        return self.relay.tick(self.now) - self.now

    def eventually(self, condition: Callable[[], bool]) -> None:
        deadline, pause = Deadline(_TIMEOUT), threading.Event()
        while not condition():
            deadline.remaining()
            pause.wait(0.002)

    def hear(self, *peers: Peer) -> None:
        """Let a data frame of each peer pass, so that the relay has handled everything before it."""
        for peer in peers:
            other = self.client if peer is self.upstream else self.upstream
            sent = peer.send(BINARY, b"mark")
            while other.recv().raw != sent:
                pass
        # The frame is here, but its pump may not have noticed yet.
        self.eventually(lambda: not any(side.writer.busy for side in self.relay._sides.values()))

    def block(self, peer: Peer, data: bytes, sent: int = 0) -> int:
        """Let a peer send ``data`` again and again until the relay can pass on no more.

        A send that takes long does not show this, since the relay may only be waiting for a processor.

        :param sent: how much of it the peer has sent before.
        :returns: how much it has sent.
        """
        deadline, before = Deadline(_TIMEOUT), peer.sock.gettimeout()
        peer.sock.settimeout(0.1)
        while not self.is_blocked(peer):
            deadline.remaining()
            try:
                while True:
                    sent += peer.sock.send(data[sent % len(data) :])
            except TimeoutError:
                pass
        peer.sock.settimeout(before)
        return sent

    def is_blocked(self, peer: Peer) -> bool:
        """Whether neither a peer nor the relay, which has to pass on its bytes, can send any."""
        other, leg = self.near_upstream, Leg.UPSTREAM
        if peer is self.upstream:
            other, leg = self.near_client, Leg.CLIENT
        _, ready, _ = select.select([], [peer.sock, other._sock], [], 0)
        return self.relay._sides[leg].writer.busy and not ready

    def answer_ping(self, peer: Peer) -> None:
        while (frame := peer.recv()).opcode != PING:
            pass
        before = self.relay.bytes_up + self.relay.bytes_down
        sent = peer.send(PONG, frame.payload)
        self.eventually(lambda: self.relay.bytes_up + self.relay.bytes_down == before + len(sent))


class Copying(RelayTestCase):
    """What passes."""

    def test_both_ways(self) -> None:
        """Frames pass unchanged in both directions, and are counted."""
        self.start()
        for payload in (b"", b"x", bytes(125), bytes(126), bytes(70_000)):
            sent = self.client.send(BINARY, payload)
            self.assertEqual(self.upstream.recv().raw, sent)
            sent = self.upstream.send(BINARY, payload)
            self.assertEqual(self.client.recv().raw, sent)
        self.assertEqual(self.relay.bytes_up, 5 * 6 + 1 + 125 + 126 + 2 + 70_000 + 8)
        self.assertEqual(self.relay.bytes_down, 5 * 2 + 1 + 125 + 126 + 2 + 70_000 + 8)
        self.assert_open()

    def test_bytes_before_the_relay(self) -> None:
        """Bytes that came behind the handshakes are relayed first."""
        up, down = encode_frame(BINARY, b"up", mask=b"mask"), encode_frame(BINARY, b"down")
        self.near_client.unread(up)
        self.near_upstream.unread(down)
        self.start()
        self.hear(self.client, self.upstream)
        self.assertEqual((self.relay.bytes_up, self.relay.bytes_down), (len(up) + 10, len(down) + 6))

    def test_frame_above_the_limit(self) -> None:
        """A frame above the limit is not relayed."""
        self.start()
        self.upstream.sock.sendall(struct.pack("!BBQ", 0x82, 127, _LIMITS.max_frame_size + 1))
        self.assertEqual(self.client.recv_close(), (1011, "upstream-protocol-error"))
        self.assertEqual(self.upstream.recv_close()[0], 1009)


class Pings(RelayTestCase):
    """The proxy's own pings."""

    def test_schedule(self) -> None:
        """Each leg is pinged once in each interval, and not before."""
        self.start()
        self.assertAlmostEqual(self.tick(), 10.0)
        self.assertAlmostEqual(self.tick(9.9), 0.1)
        self.assertEqual(self.tick(0.1), 10.0)
        for peer, masked in ((self.client, False), (self.upstream, True)):
            frame = peer.recv()
            self.assertEqual((frame.opcode, len(frame.payload), frame.masked), (PING, 8, masked))
            self.assertEqual(frame.payload[4:], (1).to_bytes(4, "big"))
        self.hear(self.client, self.upstream)

    def test_payloads(self) -> None:
        """Pings count up behind a random number that differs between the legs; masks are fresh."""
        self.start()
        seen: dict[Peer, list[Frame]] = {self.client: [], self.upstream: []}
        for _ in range(3):
            self.tick(10)
            for peer, frames in seen.items():
                frames.append(peer.recv())
                peer.send(PONG, frames[-1].payload)
            self.hear(self.client, self.upstream)
        nonces = set()
        for frames in seen.values():
            self.assertEqual([int.from_bytes(frame.payload[4:], "big") for frame in frames], [1, 2, 3])
            nonces |= {frame.payload[:4] for frame in frames}
        self.assertEqual(len(nonces), 2)
        self.assertEqual(len({frame.raw[2:6] for frame in seen[self.upstream]}), 3)

    def test_own_pong_is_consumed(self) -> None:
        """The relay consumes an answer to its ping, also a late one to an earlier ping."""
        self.start()
        payloads = []
        for _ in range(2):
            self.tick(10)
            payloads.append(self.client.recv().payload)
            self.upstream.recv()
            self.hear(self.client, self.upstream)
        for payload in reversed(payloads):
            self.client.send(PONG, payload)
        sent = self.client.send(BINARY, b"next")
        self.assertEqual(self.upstream.recv().raw, sent)

    def test_answer_again(self) -> None:
        """Each ping is answered once: if the answer comes again, it passes."""
        self.start()
        self.tick(10)
        payload = self.client.recv().payload
        self.upstream.recv()
        self.client.send(PONG, payload)
        again = self.client.send(PONG, payload)
        self.assertEqual(self.upstream.recv().raw, again)

    def test_foreign_pongs_pass(self) -> None:
        """A Pong that does not answer a ping of the proxy on that leg passes, and so does every ping."""
        self.start()
        self.tick(10)
        mine, others = self.client.recv().payload, self.upstream.recv().payload
        nonce = mine[:4]
        for opcode, payload in (
            (PONG, nonce + (0).to_bytes(4, "big")),
            (PONG, nonce + (2).to_bytes(4, "big")),
            (PONG, mine + b"x"),
            (PONG, mine[:7]),
            (PONG, others),
            (PONG, b""),
            (PING, mine),
            (PING, b""),
        ):
            sent = self.client.send(opcode, payload)
            self.assertEqual(self.upstream.recv().raw, sent)

    def test_ping_waits_for_a_boundary(self) -> None:
        """A ping falls between frames, not into one."""
        self.start()
        frame = encode_frame(BINARY, bytes(1000))
        self.upstream.sock.sendall(frame[:500])
        got = self.client.take(500)
        self.tick(10)
        self.upstream.recv()
        self.upstream.sock.sendall(frame[500:])
        self.client._frames.feed(got)
        self.assertEqual(self.client.recv().raw, frame)
        self.assertEqual(self.client.recv().opcode, PING)


class Liveness(RelayTestCase):
    """When a leg is dead."""

    pair = staticmethod(lambda: _tcp_pair(65536))

    def test_silent_client(self) -> None:
        """A client is dead after two whole intervals without a byte and with a ping unanswered."""
        self.start()
        self.hear(self.client, self.upstream)
        self.tick(10)  # the first ping
        self.answer_ping(self.upstream)
        self.tick(10)  # one interval
        self.assert_open()
        self.answer_ping(self.upstream)
        with self.assertLogs("wsproxy.relay", "INFO") as logs:
            self.tick(10)  # two
        self.assertIn("client leg is dead: no answer", logs.output[0])
        self.assertEqual(self.upstream.recv_close(), (1000, "client-gone"))
        self.assert_over()
        self.assertEqual(self.relay.ending, Ending("client", 1000, "client-gone"))

    def test_silent_upstream(self) -> None:
        """An upstream is dead in the same way; the client is told 1011."""
        self.start()
        self.hear(self.client, self.upstream)
        for _ in range(2):
            self.tick(10)
            self.answer_ping(self.client)
            self.assert_open()
        self.tick(10)
        self.assertEqual(self.client.recv_close(), (1011, "upstream-closed"))
        self.client.send(CLOSE, close_payload(1011, ""))
        self.assert_over()
        self.assertEqual(self.relay.ending, Ending("upstream", 1011, "upstream-closed"))

    def test_any_byte_counts(self) -> None:
        """Any byte is a sign of life, a pong or not, a whole frame or not."""
        self.start()
        frame = encode_frame(BINARY, bytes(100), mask=b"mask")
        for index in range(8):
            self.tick(10)
            before = self.relay.bytes_up, self.relay.bytes_down
            self.client.sock.sendall(frame[index : index + 1])
            self.upstream.sock.sendall(b"\x82\0")
            self.eventually(
                lambda before=before: (
                    (self.relay.bytes_up, self.relay.bytes_down)  # type: ignore[misc]
                    == (before[0] + 1, before[1] + 2)
                )
            )
        self.assert_open()

    def test_one_answer_starts_the_count_again(self) -> None:
        """A leg that answers every ping, but late, lives."""
        self.start()
        self.tick(10)
        for _ in range(8):
            self.answer_ping(self.upstream)
            self.tick(9)
            self.answer_ping(self.client)
            self.tick(1)
        self.assert_open()

    def test_due_of_a_silent_leg(self) -> None:
        """The relay looks at a silent leg after exactly two intervals, and not only at the next ping."""
        self.start()
        self.hear(self.client, self.upstream)
        self.tick(10)
        self.answer_ping(self.client)
        self.answer_ping(self.upstream)
        self.assertEqual(self.tick(3), 7)  # nothing to look at before the next ping
        traffic = Traffic(taken=1000, sent_ago=7, heard_ago=6)
        with mock.patch.object(self.near_client, "traffic", return_value=traffic):
            self.tick(7)
            self.answer_ping(self.upstream)
            self.assertEqual(self.tick(10), 4)
            self.assert_open()
            with self.assertLogs("wsproxy.relay", "INFO"):
                self.tick(4)
        self.assert_over()

    def test_nobody_is_judged_without_a_ping(self) -> None:
        """However late the first tick comes, no leg is dead that got no ping."""
        self.start()
        self.tick(1000)
        self.assert_open()
        self.answer_ping(self.client)
        self.answer_ping(self.upstream)
        self.tick(1000)
        self.assert_open()

    def block_client(self) -> int:
        """Let the upstream send until the client's leg takes no more; return how much was sent."""
        return self.block(self.upstream, encode_frame(BINARY, bytes(65536)))

    def taken_by_client(self) -> int:
        traffic = self.near_client.traffic()
        assert traffic is not None
        return traffic.taken

    def client_is_full(self) -> bool:
        return self.relay._sides[Leg.CLIENT].writer.busy

    def test_stuck_client(self) -> None:
        """A client that takes no byte for two intervals is dead; the upstream, unread, is not judged."""
        self.start()
        self.block_client()
        self.tick(10)
        self.tick(10)
        self.assert_open()
        with self.assertLogs("wsproxy.relay", "INFO") as logs:
            self.tick(10)
        self.assertEqual(len(logs.output), 1, logs.output)
        self.assertIn("client leg is dead: takes nothing", logs.output[0])
        self.assert_over()
        assert self.relay.ending is not None
        self.assertEqual(self.relay.ending.by, "client")

    def test_stuck_upstream(self) -> None:
        """The same for an upstream."""
        self.start()
        self.hear(self.client, self.upstream)
        self.block(self.client, encode_frame(BINARY, bytes(65536), mask=b"mask"))
        self.tick(10)
        self.tick(10)
        self.assert_open()
        with self.assertLogs("wsproxy.relay", "INFO") as logs:
            self.tick(10)
        self.assertEqual(len(logs.output), 1, logs.output)
        self.assertIn("upstream leg is dead: takes nothing", logs.output[0])
        self.assertEqual(self.client.recv_close(), (1011, "upstream-closed"))
        self.client.sock.shutdown(socket.SHUT_WR)
        self.assert_over()

    def test_slow_but_moving(self) -> None:
        """A client that takes a little in each interval is never cut, and all arrives in the end."""
        self.start()
        sent = self.block_client()
        got = 0
        for _ in range(8):
            self.tick(10)
            self.assert_open()
            taken = self.taken_by_client()
            while self.taken_by_client() == taken:
                part = self.client.sock.recv(32768)
                self.assertNotEqual(part, b"", "the session was cut")
                got += len(part)
            self.eventually(self.client_is_full)  # again: there is more than its buffers take
        self.upstream.sock.sendall(b"\0" * (-sent % _BLOCK))
        while got < sent and (part := self.client.sock.recv(65536)):
            got += len(part)
        self.assert_open()

    def test_unread_leg_is_judged_again_when_it_is_read(self) -> None:
        """An upstream that was not read has two whole intervals from when it is read again."""
        self.start()
        sent = self.block_client()
        self.tick(10)
        self.tick(9)
        self.assert_open()
        missing = -sent % _BLOCK
        rest = threading.Thread(target=self.upstream.sock.sendall, args=(bytes(missing),))
        rest.start()
        frames = (sent + missing) // _BLOCK
        while frames:
            frame = self.client.recv()
            frames -= frame.opcode == BINARY
        rest.join()
        self.hear(self.client)
        for _ in range(2):
            self.tick(10)
            self.answer_ping(self.client)
            self.assert_open()
        with self.assertLogs("wsproxy.relay", "INFO") as logs:
            self.tick(10)
        self.assertIn("upstream leg is dead: no answer", logs.output[0])

    def test_ping_that_was_not_sent_is_not_held_against_a_leg(self) -> None:
        """A leg inside a frame gets no ping, and so is not dead for not answering one."""
        self.start()
        self.upstream.sock.sendall(encode_frame(BINARY, bytes(1000))[:500])
        self.client.take(500)
        for _ in range(6):
            self.tick(10)
            self.answer_ping(self.upstream)
        self.assert_open()

    def test_abort_frees_a_peer_that_is_blocked_in_sending(self) -> None:
        """The proxy reads nothing more from a dead leg, so that closing its socket sends RST."""
        self.start()
        self.block_client()
        self.relay.abort()
        assert self.thread is not None
        self.thread.join(_TIMEOUT)
        self.near_upstream.close()
        with self.assertRaises(ConnectionError):
            while True:
                self.upstream.sock.sendall(bytes(65536))


class Ends(RelayTestCase):
    """The close deadline, the flush, and the end of everything."""

    def test_close_deadline(self) -> None:
        """An end takes the close timeout, by the clock, if nobody answers; not less and not more."""
        self.start()
        self.hear(self.client, self.upstream)
        self.relay.end(4499, "kicked")
        self.assertEqual(self.woken, [5.0])
        self.assertEqual(self.client.recv_close(), (4499, "kicked"))
        self.assertEqual(self.upstream.recv_close(), (1000, ""))
        self.assertEqual(self.tick(), 5.0)
        self.assertAlmostEqual(self.tick(4.9), 0.1)
        assert self.thread is not None
        self.assertTrue(self.thread.is_alive())
        self.tick(0.1)
        self.assert_over()
        self.assertEqual(self.relay.ending, Ending("proxy", 4499, "kicked"))
        self.assertEqual(self.relay.close_not_sent, ())

    def test_both_answer(self) -> None:
        """An end that both sides answer needs no tick at all."""
        self.start()
        self.relay.end(1012, "restarting")
        self.client.recv_close()
        self.upstream.recv_close()
        self.client.send(CLOSE, close_payload(1012, ""))
        self.upstream.send(CLOSE, close_payload(1000, ""))
        self.assert_over()

    def test_end_twice(self) -> None:
        """The first end counts, and its deadline is not moved by a second one."""
        self.start()
        self.relay.end(4499, "kicked")
        self.now += 4
        self.relay.end(1012, "restarting")
        self.assertEqual(self.client.recv_close(), (4499, "kicked"))
        self.assertEqual(self.tick(), 1.0)
        self.tick(1)
        self.assert_over()
        self.assertEqual(self.relay.ending, Ending("proxy", 4499, "kicked"))

    def test_end_before_the_start(self) -> None:
        """An end before ``run`` takes effect, too."""
        self.relay.end(1012, "restarting")
        self.start()
        self.assertEqual(self.client.recv_close(), (1012, "restarting"))
        self.tick(5)
        self.assert_over()

    def test_no_ping_after_the_end_began(self) -> None:
        """After the proxy's Close a leg gets nothing more, no ping and no data."""
        self.start()
        self.relay.end(4499, "kicked")
        self.upstream.recv_close()
        self.upstream.send(BINARY, b"too late")
        self.tick(4.9)
        self.client.recv_close()
        self.tick(0.1)
        self.assert_over()
        self.assertEqual(self.client._frames.rest, b"")

    def test_close_waits_for_the_end_of_a_frame(self) -> None:
        """The proxy's Close waits for the end of the frame that is being sent, without earlier ticks."""
        self.start()
        frame = encode_frame(BINARY, bytes(1000))
        self.upstream.sock.sendall(frame[:500])
        got = self.client.take(500)
        self.relay.end(4499, "kicked")
        self.assertEqual(self.tick(), 5.0)
        self.upstream.sock.sendall(frame[500:])
        self.client._frames.feed(got)
        self.assertEqual(self.client.recv().raw, frame)
        self.assertEqual(self.client.recv_close(), (4499, "kicked"))

    def test_close_that_does_not_fit(self) -> None:
        """A leg that is inside a frame at the deadline is shut down, and named."""
        self.start()
        self.upstream.sock.sendall(encode_frame(BINARY, bytes(1000))[:500])
        self.client.take(500)
        self.relay.end(4499, "kicked")
        self.tick(5)
        self.assert_over()
        self.assertEqual(self.relay.close_not_sent, ("client",))

    def test_nothing_more_goes_up(self) -> None:
        """After an end of ours nothing more of the client's goes up, whatever it has begun to send."""
        for begun in (0, 500):
            with self.subTest(begun=begun):
                self.setUp()
                self.start()
                frame = encode_frame(BINARY, bytes(1000), mask=b"mask")
                self.client.sock.sendall(frame[:begun])
                got = self.upstream.take(begun)
                self.relay.end(4411, "expired")
                self.client.sock.sendall(frame[begun:] + frame)
                self.client.send(PING, b"hello")
                self.assertEqual(self.client.recv_close(), (4411, "expired"))
                self.client.send(CLOSE, close_payload(4411, ""))
                if begun:
                    self.assertEqual((got, self.upstream.take(5000)), (frame[:begun], b""))
                else:
                    self.assertEqual(parse_close(self.upstream.recv().payload), (1000, ""))
                    self.upstream.send(CLOSE, close_payload(1000, ""))
                self.assert_over()
                self.assertEqual(self.relay.close_not_sent, ("upstream",) if begun else ())

    def test_upstream_that_takes_nothing(self) -> None:
        """A client whose bytes are just being taken, or are not, is cut off in the middle of them."""
        self.start()
        self.block(self.client, encode_frame(BINARY, bytes(65536), mask=b"mask"))
        self.relay.end(4499, "kicked")
        self.assertEqual(self.client.recv_close(), (4499, "kicked"))
        self.client.sock.shutdown(socket.SHUT_WR)
        self.assert_over()
        self.assertEqual(self.relay.close_not_sent, ("upstream",))

    def test_frame_of_the_upstream_is_completed(self) -> None:
        """The client gets its Close even if both sides are inside frames: the upstream's is completed."""
        frame, theirs = encode_frame(BINARY, bytes(1000)), encode_frame(BINARY, bytes(65536), mask=b"mask")
        for stuck in (False, True):
            with self.subTest(stuck=stuck):
                self.setUp()
                self.start()
                self.client.sock.sendall(theirs[:500])
                self.upstream.take(500)
                if stuck:
                    self.block(self.client, theirs, 500)
                self.upstream.sock.sendall(frame[:500])
                got = self.client.take(500)
                self.relay.end(4499, "kicked")
                self.upstream.sock.sendall(frame[500:])
                self.client._frames.feed(got)
                self.assertEqual(self.client.recv().raw, frame)
                self.assertEqual(self.client.recv_close(), (4499, "kicked"))
                self.eventually(lambda: self.relay._closing._legs[Leg.CLIENT].written)
                self.tick(5)
                self.assert_over()
                self.assertEqual(self.relay.close_not_sent, ("upstream",))

    def fill(self, sock: socket.socket) -> int:
        """Fill the kernel's send buffer with whole frames and return their bytes."""
        total, frame = 0, encode_frame(BINARY, bytes(60))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while True:
            try:
                total += sock.send(frame, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return total

    def test_flush(self) -> None:
        """If the kernel does not take a Close, the relay soon tries again, until it fits."""
        total = self.fill(self.near_client._sock)
        self.start()
        self.relay.end(4499, "kicked")
        for _ in range(3):
            self.assertAlmostEqual(self.tick(), 0.02)
        self.assertEqual(len(self.client.take(total)), total)
        self.tick(0.02)
        self.assertEqual(self.client.recv_close(), (4499, "kicked"))
        self.assertGreater(self.tick(), 4.9)
        self.tick(5)
        self.assert_over()
        self.assertEqual(self.relay.close_not_sent, ())

    def test_flush_that_never_succeeds(self) -> None:
        """A leg that takes nothing until the deadline is shut down, and named."""
        self.fill(self.near_client._sock)
        self.start()
        self.relay.end(4499, "kicked")
        for _ in range(5):
            self.tick(1)
        self.assert_over()
        self.assertEqual(self.relay.close_not_sent, ("client",))

    def test_client_answers_and_stays(self) -> None:
        """A client that answers its Close and stays connected is shut down when the upstream is done."""
        self.start()
        self.upstream.send(CLOSE, close_payload(1000, "bye"))
        self.assertEqual(self.client.recv_close(), (1000, "bye"))
        self.client.send(CLOSE, close_payload(1000, ""))
        self.assert_over()
        self.assertEqual(self.relay.ending, Ending("upstream", 1000, "bye"))

    def test_abort(self) -> None:
        """An abort ends everything without a Close, any number of times, from any thread."""
        self.start()
        self.relay.abort()
        self.relay.abort()
        self.assert_over()

    def test_due_is_always_finite(self) -> None:
        """A tick asks to be called again, also after the end."""
        self.start()
        self.client.sock.close()
        assert self.thread is not None
        self.thread.join(_TIMEOUT)
        self.assertTrue(math.isfinite(self.tick()))
        self.assertTrue(math.isfinite(self.tick(100)))


class EndsBeforeTheFirstByte(RelayTestCase):
    """What the proxy tells a browser that expects to speak RFB."""

    tells_by_rfb = True

    def assert_told(self, words: str, code: int, reason: str) -> None:
        """Assert that the client gets RFB's refusal as two messages, and then a Close."""
        for message in rfb.refusal(words):
            frame = self.client.recv()
            self.assertEqual((frame.opcode, frame.payload), (BINARY, message))
        frame = self.client.recv()
        self.assertEqual((frame.opcode, parse_close(frame.payload)), (CLOSE, (code, reason)))

    def test_upstream_that_says_nothing(self) -> None:
        """The console ends without a byte."""
        self.start()
        self.upstream.sock.shutdown(socket.SHUT_WR)
        self.eventually(lambda: self.relay.ending is not None)
        assert self.relay.ending
        reason = self.relay.ending.reason
        self.assert_told(reason.partition(": ")[2], 4502, reason)
        self.client.send(BINARY, rfb.VERSION_3_8)  # nobody wants it any more
        self.client.send(CLOSE, close_payload(4502, ""))
        self.assert_over()

    def test_ping_alone(self) -> None:
        """A ping of the upstream is not RFB data, so the message is still sent."""
        self.start()
        ping = self.upstream.send(PING, b"x")
        self.assertEqual(self.client.recv().raw, ping)
        self.upstream.sock.shutdown(socket.SHUT_WR)
        self.assert_told("upstream-closed", 1011, "upstream-closed")

    def test_upstream_that_is_no_websocket(self) -> None:
        """An upstream that breaks RFC 6455 at once."""
        self.start()
        self.upstream.sock.sendall(b"SSH-2.0-OpenSSH\r\n")
        self.assert_told("upstream-protocol-error", 1011, "upstream-protocol-error")

    def test_end_of_ours(self) -> None:
        """If the proxy ends the session, the message has the words after the slug, or else the slug."""
        self.start()
        self.relay.end(4410, "taken-over: by user 7")
        self.assert_told("by user 7", 4410, "taken-over: by user 7")
        self.relay.end(1012, "restarting")
        self.assertEqual(self.upstream.recv_close(), (1000, ""))

    def test_console_that_has_spoken(self) -> None:
        """After the console's first byte no RFB message is sent: noVNC would take it for console data."""
        self.start()
        sent = self.upstream.send(BINARY, rfb.VERSION_3_8)
        self.assertEqual(self.client.recv().raw, sent)
        self.relay.end(1012, "restarting")
        frame = self.client.recv()
        self.assertEqual((frame.opcode, parse_close(frame.payload)), (CLOSE, (1012, "restarting")))

    def test_client_that_leaves(self) -> None:
        """A client that has sent Close gets its answer, and nothing before it."""
        self.start()
        self.client.send(CLOSE, close_payload(1000, ""))
        self.upstream.recv_close()
        self.upstream.sock.shutdown(socket.SHUT_WR)
        frame = self.client.recv()
        self.assertEqual((frame.opcode, parse_close(frame.payload)), (CLOSE, (1000, "")))

    def test_client_that_is_no_websocket(self) -> None:
        """A client that violates RFC 6455 gets no RFB message either."""
        self.start()
        self.client.sock.sendall(b"RFB 003.008\n")
        frame = self.client.recv()
        self.assertEqual((frame.opcode, parse_close(frame.payload)[0]), (CLOSE, 1002))


class WithoutPoller(RelayTestCase):
    """What holds only if each direction has a thread all the time."""

    def test_thread_that_cannot_start(self) -> None:
        """When the second pump cannot be started both legs are shut down, and the caller is told."""

        def fail(pump: Callable[[], None]) -> threading.Thread:
            raise RuntimeError("can't start new thread")

        with self.assertRaisesRegex(RuntimeError, "can't start"):
            self.relay.run(fail)
        self.assertTrue(self.client.ended())
        self.assertTrue(self.upstream.ended())


class _Broken(PlainTransport):
    def recv_into(self, buffer: memoryview) -> int:
        size = super().recv_into(buffer)
        return size and 1 // 0

    def try_recv_into(self, buffer: memoryview) -> int | None:
        size = super().try_recv_into(buffer)
        return size and 1 // 0


class Bugs(RelayTestCase):
    """A bug in one of the pumps."""

    broken = Leg.CLIENT

    def transports(self, client: socket.socket, upstream: socket.socket) -> tuple[Transport, Transport]:
        if self.broken is Leg.CLIENT:
            return _Broken(client), PlainTransport(upstream)
        return PlainTransport(client), _Broken(upstream)

    def send(self) -> None:
        (self.client if self.broken is Leg.CLIENT else self.upstream).send(BINARY, b"x")

    def test_both_legs_are_shut_down(self) -> None:
        """A bug shuts both legs down at once, ends both pumps, and is raised by ``run``."""
        self.start()
        self.send()
        self.assert_over()
        self.assertEqual([type(failure) for failure in self.failures], [ZeroDivisionError])
        self.assertEqual(self.relay.ending, Ending("proxy", None, "aborted"))


class UpstreamBugs(Bugs):
    """The same for the other one."""

    broken = Leg.UPSTREAM


class WithPoller(RelayTestCase):
    """The same with a poller, which copies small messages."""

    with_poller = True


@unittest.skipUnless(Poller.available, "needs epoll")
class CopyingWithPoller(WithPoller, Copying):
    pass


@unittest.skipUnless(Poller.available, "needs epoll")
class PingsWithPoller(WithPoller, Pings):
    pass


@unittest.skipUnless(Poller.available, "needs epoll")
class LivenessWithPoller(WithPoller, Liveness):
    pass


@unittest.skipUnless(Poller.available, "needs epoll")
class EndsWithPoller(WithPoller, Ends):
    pass


@unittest.skipUnless(Poller.available, "needs epoll")
class EndsBeforeTheFirstByteWithPoller(WithPoller, EndsBeforeTheFirstByte):
    pass


@unittest.skipUnless(Poller.available, "needs epoll")
class BugsWithPoller(WithPoller, Bugs):
    pass


@unittest.skipUnless(Poller.available, "needs epoll")
class UpstreamBugsWithPoller(WithPoller, UpstreamBugs):
    pass


class WithClientTLS(RelayTestCase):
    """The same with TLS on the client's leg."""

    def transports(self, client: socket.socket, upstream: socket.socket) -> tuple[Transport, Transport]:
        with tempfile.TemporaryDirectory() as directory:
            authority = CertificateAuthority(directory)
            ours, theirs = server_context(*authority.issue()), client_context(authority.ca_file)
        accepted = in_thread(lambda: accept_tls(client, ours, Deadline(_TIMEOUT)))
        self.client.sock = theirs.wrap_socket(
            self.client.sock, server_hostname="localhost", suppress_ragged_eofs=False
        )
        return cast(Transport, accepted()), PlainTransport(upstream)


class CopyingOverTLS(WithClientTLS, Copying):
    pass


class PingsOverTLS(WithClientTLS, Pings):
    pass


class EndsBeforeTheFirstByteOverTLS(WithClientTLS, EndsBeforeTheFirstByte):
    pass


class EndsOverTLS(WithClientTLS, Ends):
    def test_nothing_more_goes_up(self) -> None:
        """After an end of ours nothing more of the client's goes up, whatever it has begun to send."""
        for begun in (0, 500):
            with self.subTest(begun=begun):
                self.setUp()
                self.start()
                frame = encode_frame(BINARY, bytes(1000), mask=b"mask")
                self.client.sock.sendall(frame[:begun])
                got = self.upstream.take(begun)
                self.relay.end(4411, "expired")
                self.client.sock.sendall(frame[begun:] + frame)
                self.client.send(PING, b"hello")
                self.assertEqual(self.client.recv_close(), (4411, "expired"))
                self.client.send(CLOSE, close_payload(4411, ""))
                if begun:
                    self.assertEqual((got, self.upstream.take(5000)), (frame[:begun], b""))
                else:
                    self.assertEqual(parse_close(self.upstream.recv().payload), (1000, ""))
                    self.upstream.send(CLOSE, close_payload(1000, ""))
                self.assert_over()
                self.assertEqual(self.relay.close_not_sent, ("upstream",) if begun else ())

    def test_upstream_that_takes_nothing(self) -> None:
        """A client whose bytes are just being taken, or are not, is cut off in the middle of them."""
        self.start()
        self.block(self.client, encode_frame(BINARY, bytes(65536), mask=b"mask"))
        self.relay.end(4499, "kicked")
        self.assertEqual(self.client.recv_close(), (4499, "kicked"))
        self.client.sock.shutdown(socket.SHUT_WR)
        self.assert_over()
        self.assertEqual(self.relay.close_not_sent, ("upstream",))

    def test_frame_of_the_upstream_is_completed(self) -> None:
        """The client gets its Close even if both sides are inside frames: the upstream's is completed."""
        self.start()
        frame = encode_frame(BINARY, bytes(1000))
        self.client.sock.sendall(encode_frame(BINARY, bytes(1000), mask=b"mask")[:500])
        self.upstream.take(500)
        self.upstream.sock.sendall(frame[:500])
        got = self.client.take(500)
        self.relay.end(4499, "kicked")
        self.upstream.sock.sendall(frame[500:])
        self.client._frames.feed(got)
        self.assertEqual(self.client.recv().raw, frame)
        self.assertEqual(self.client.recv_close(), (4499, "kicked"))
        # Its client may have the Close before the thread that sent it takes note of that.
        self.assertTrue(wait_until(lambda: self.relay._closing.unsent == [Leg.UPSTREAM]))
        self.tick(5)
        self.assert_over()
        self.assertEqual(self.relay.close_not_sent, ("upstream",))

    def fill(self, sock: socket.socket) -> int:
        """Fill the send buffer by frames that the writer itself brings: TLS wants the last one again."""
        writer, frame, total = self.relay._sides[Leg.CLIENT].writer, encode_frame(BINARY, bytes(60)), 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while True:
            writer.inject(frame)
            if writer.waiting:
                return total
            total += len(frame)


@unittest.skipUnless(Poller.available, "needs epoll")
class CopyingOverTLSWithPoller(WithPoller, CopyingOverTLS):
    pass


@unittest.skipUnless(Poller.available, "needs epoll")
class PingsOverTLSWithPoller(WithPoller, PingsOverTLS):
    pass


@unittest.skipUnless(Poller.available, "needs epoll")
class EndsOverTLSWithPoller(WithPoller, EndsOverTLS):
    pass


if __name__ == "__main__":
    unittest.main()
