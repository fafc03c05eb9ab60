"""Frames leave the proxy as they came: both ways at once, however cut, the proxy's own pings in between."""

from __future__ import annotations

import queue
import random
import threading
import unittest
from collections.abc import Callable, Sequence

from tests.conformance.fronts import ConformanceTestCase
from wsproxy.exceptions import TransportClosed
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameBuffer,
    encode_frame,
)
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.rfb.raw_client import RawClient

_PING_INTERVAL = 0.01
_LARGEST = 1 << 20
_EDGES = (0, 1, 125, 126, 127, 65535, 65536, _LARGEST)
_SEEDS = range(4)
_MESSAGES = 30
_PAUSES = 5
_CUTS = 64
_WAIT = 20.0


class Frames:
    """A random stream of frames.

    :param rng: makes it.
    :param masked: whether they are a client's.
    :ivar frames: the frames, in order.
    """

    def __init__(self, rng: random.Random, masked: bool) -> None:
        self.frames: list[bytes] = []
        self._rng = rng
        self._masked = masked

    @property
    def wire(self) -> bytes:
        """All of them as bytes."""
        return b"".join(self.frames)

    def add(self, opcode: int, size: int, fin: bool = True) -> None:
        """Add a frame with a random payload."""
        mask = self._rng.randbytes(4) if self._masked else None
        self.frames.append(encode_frame(opcode, self._rng.randbytes(size), fin=fin, mask=mask))

    def add_control(self) -> None:
        """Add a ping or a pong; some look like the proxy's own."""
        self.add(self._rng.choice((PING, PONG)), self._rng.choice((0, 4, 8, 125, self._rng.randrange(126))))

    def add_message(self, size: int) -> None:
        """Add a message in one frame or in several, with control frames between them."""
        opcode = self._rng.choice((BINARY, BINARY, TEXT))
        while self._rng.random() < 0.5:
            part = self._rng.choice((0, 1, self._rng.randint(0, size)))
            part = min(part, size)
            self.add(opcode, part, fin=False)
            opcode, size = CONTINUATION, size - part
            while self._rng.random() < 0.4:
                self.add_control()
        self.add(opcode, size)

    def add_many(self) -> Frames:
        """Add messages of every size from nothing to 1 MiB, half of them small, and control frames."""
        sizes = [*_EDGES, *(int(2 ** self._rng.uniform(0, 20)) for _ in range(_MESSAGES))]
        self._rng.shuffle(sizes)
        for size in sizes:
            while self._rng.random() < 0.3:
                self.add_control()
            self.add_message(size)
        return self

    def add_beginning(self, variant: int) -> Frames:
        """Add frames of which the first 64 bytes hold headers of every kind; a few more behind them."""
        if variant == 0:
            for opcode, size, fin in (
                (PING, 0, True),
                (BINARY, 1, False),
                (PONG, 2, True),
                (CONTINUATION, 300, True),
            ):
                self.add(opcode, size, fin)
        elif variant == 1:
            for opcode, size, fin in ((BINARY, 0, True), (PING, 8, True), (BINARY, 65536, True)):
                self.add(opcode, size, fin)
        else:
            for opcode, size, fin in ((TEXT, 3, False), (PING, 30, True), (CONTINUATION, 0, False)):
                self.add(opcode, size, fin)
            self.add(CONTINUATION, 126)
        self.add_message(self._rng.randrange(200))
        return self


class Peer:
    """One end of a session: sends a stream in random pieces while it receives the other end's.

    :param send: sends bytes.
    :param receive: receives at least one byte, b"" at the end.
    :param outgoing: what to send.
    :param expected: how many bytes the other side's stream has.
    :param masked: whether frames of this end are masked.
    :param rng: cuts the stream.
    :ivar received: what came, without the proxy's own pings.
    :ivar own_pings: the payloads of those.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        receive: Callable[[], bytes],
        outgoing: Sequence[bytes],
        expected: bytes,
        masked: bool,
        rng: random.Random,
    ) -> None:
        self.received = bytearray()
        self.own_pings: list[bytes] = []
        self._send = send
        self._receive = receive
        self._outgoing = outgoing
        self._masked = masked
        self._rng = rng
        self._expected = len(expected)
        self._foreign = _ping_payloads(expected)
        self._buffer = FrameBuffer()
        self._pongs: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._pinged = threading.Semaphore(0)
        self._receiving = True  # else no ping is seen any more; released once when it changes
        self._wire = bytearray()

    def exchange(self, own_pings: int, pauses: int, mid_frame: bool) -> None:
        """Send and receive everything, and at least so many pings of the proxy's. Blocks that long.

        :param pauses: how often the sender stops until it has got a ping of the proxy's.
        :param mid_frame: whether it stops inside frames. One end of a session only: a ping waits for the
            end of the frame that the far side is sending.
        """
        sender = threading.Thread(target=self._send_all, args=(pauses, mid_frame))
        sender.start()
        try:
            # To the end of a frame, because others go on reading frames then.
            while len(self.received) < self._expected or len(self.own_pings) < own_pings or self._buffer.rest:
                data = self._receive()
                if not data:
                    raise EOFError(f"the end came after {len(self.received)} of {self._expected} bytes")
                self._take(data)
        finally:
            self._receiving = False
            self._pinged.release()
            self._pongs.put(None)
            sender.join()

    def _take(self, data: bytes) -> None:
        self._buffer.feed(data)
        while frame := self._buffer.next():
            if frame.opcode == PING and len(frame.payload) == 8 and frame.payload not in self._foreign:
                self.own_pings.append(frame.payload)
                mask = self._rng.randbytes(4) if self._masked else None
                self._pongs.put(encode_frame(PONG, frame.payload, mask=mask))
                self._pinged.release()
            else:
                self.received += frame.raw

    def _send_all(self, pauses: int, mid_frame: bool) -> None:
        stops = {len(self._outgoing) * (number + 1) // (pauses + 1) for number in range(pauses)}
        try:
            for index, frame in enumerate(self._outgoing):
                if index:  # the first may be the rest of a frame
                    self._add_pongs()
                self._wire += frame
                if index in stops:
                    self._flush(keep=len(frame) // 2 if mid_frame else 0)
                    self._wait_for_a_ping()
                elif len(self._wire) > _LARGEST // 4:
                    self._flush(keep=len(self._wire) // 8)
            self._flush(keep=0)
            while pong := self._pongs.get():
                self._send(pong)
        except (OSError, TransportClosed):
            pass  # the receiving thread meets the same end, and tells

    def _add_pongs(self) -> None:
        while not self._pongs.empty():
            if (pong := self._pongs.get()) is None:  # all has been received; for the end of the sending
                return self._pongs.put(None)
            self._wire += pong

    def _flush(self, keep: int) -> None:
        """Send in pieces of every size, but for the last ``keep`` bytes."""
        while len(self._wire) > keep:
            size = min(int(2 ** self._rng.uniform(0, 17)), len(self._wire) - keep)
            self._send(bytes(self._wire[:size]))
            del self._wire[:size]

    def _wait_for_a_ping(self) -> None:
        while self._pinged.acquire(blocking=False):
            pass
        if self._receiving:
            self._pinged.acquire(timeout=_WAIT)  # if none comes, the count of pings tells


def _ping_payloads(wire: bytes) -> set[bytes]:
    """Return the payloads of the pings in a stream."""
    buffer = FrameBuffer()
    buffer.feed(wire)
    found = set()
    while frame := buffer.next():
        if frame.opcode == PING:
            found.add(frame.payload)
    return found


class ByteIdentity(ConformanceTestCase):
    """Over a TLS upstream; every session with pings of the proxy's each 10 ms."""

    def setUp(self) -> None:
        super().setUp()
        # With pings each 10 ms, two intervals without a byte are no sign of death on a busy machine.
        self.front.patch(self, "wsproxy.relay.liveness._DEAD_AFTER_INTERVALS", 1000)
        # And an answer may come when many more pings have gone out.
        self.front.patch(self, "wsproxy.relay.pings._MOST_UNANSWERED", 1000)
        self.proxy = self.start_proxy(ping_interval=_PING_INTERVAL)

    def check(
        self,
        up: Frames,
        down: Frames,
        rng: random.Random,
        *,
        early_up: int = 0,
        early_down: int = 0,
        coalesce: bool = False,
        own_pings: int = 0,
        pauses: int = 0,
    ) -> None:
        """Send ``up`` and ``down`` through one session at once and compare what arrives.

        :param early_up: how many bytes of ``up`` go in the same write as the request.
        :param early_down: how many bytes of ``down`` go in the same write as the 101.
        """
        upstream: list[Peer] = []
        last: list[object] = []
        received = threading.Event()
        console_rng = random.Random(rng.random())
        down_rest, up_rest = _without(down.frames, early_down), _without(up.frames, early_up)

        def serve(console: FakeConsole) -> None:
            peer = Peer(console.send_raw, console.recv_raw, down_rest, up.wire, False, console_rng)
            upstream.append(peer)
            try:
                peer.exchange(own_pings, pauses, mid_frame=False)
            finally:
                received.set()
            while (frame := console.recv_frame()).opcode == PING and len(frame.payload) == 8:
                pass
            last.append(console.close_received)
            console.send_close(3001, "and back")

        behaviour = Behaviour(early=down.wire[:early_down], coalesce=coalesce)
        self.api.add_vmi("vm", self.namespace, backend=Script(serve), behaviour=behaviour)
        with RawClient.open(self.url(self.proxy, "vm"), early=up.wire[:early_up]) as client:
            self.assertEqual(client.status, 101)
            peer = Peer(client.send_raw, client.recv_raw, up_rest, down.wire, True, rng)
            peer.exchange(own_pings, pauses, mid_frame=True)
            self.assertTrue(received.wait(_WAIT))
            client.send_close(3000, "all there")
            while (frame := client.recv_frame()).opcode == PING and len(frame.payload) == 8:
                pass
            self.assertEqual(frame.payload, (3001).to_bytes(2, "big") + b"and back")
        self.assertTrue(self.api.wait_until_idle())
        self.assertEqual(last, [(3000, "all there")], "something came behind the stream")
        self.assert_same(bytes(peer.received), down.wire, "down")
        self.assert_same(bytes(upstream[0].received), up.wire, "up")
        for side in (peer, upstream[0]):
            self.assert_own(side.own_pings)
        both = {payload[:4] for side in (peer, upstream[0]) for payload in side.own_pings}
        self.assertLessEqual(len(both), 2)

    def assert_same(self, got: bytes, sent: bytes, direction: str) -> None:
        """Assert that two streams are equal; say where they part instead of showing megabytes."""
        if got != sent:
            place = next((at for at, (a, b) in enumerate(zip(got, sent, strict=False)) if a != b), len(sent))
            self.fail(f"{direction}: {len(got)} bytes for {len(sent)}, different from byte {place} on")

    def assert_own(self, pings: list[bytes]) -> None:
        """Assert that pings are those of one leg: one nonce, and a number that grows."""
        self.assertLessEqual(len({payload[:4] for payload in pings}), 1, "pings of two legs on one")
        numbers = [int.from_bytes(payload[4:], "big") for payload in pings]
        self.assertEqual(numbers, sorted(set(numbers)))

    def test_random_streams(self) -> None:
        """Random frame streams cross each other, cut anywhere, and arrive as they were sent."""
        for seed in _SEEDS:
            with self.subTest(seed=seed):
                rng = random.Random(seed)
                up, down = Frames(rng, masked=True).add_many(), Frames(rng, masked=False).add_many()
                self.check(up, down, rng, own_pings=2 * _PAUSES, pauses=_PAUSES)

    def test_every_cut_of_the_first_bytes(self) -> None:
        """Streams that begin in the handshake's segment arrive whole, cut at any of 64 bytes."""
        for cut in range(_CUTS + 1):
            rng = random.Random(cut)
            for variant in range(3):
                up = Frames(rng, masked=True).add_beginning(variant)
                down = Frames(rng, masked=False).add_beginning((variant + cut) % 3)
                with self.subTest(cut=cut, variant=variant):
                    self.check(up, down, rng, early_up=cut, early_down=cut)

    def test_whole_stream_in_the_segment_of_the_handshake(self) -> None:
        """Whole frames in the handshake's segment are delivered, even if nothing follows them."""
        rng = random.Random(0)
        up, down = Frames(rng, masked=True), Frames(rng, masked=False)
        up.add(BINARY, 12)
        down.add(BINARY, 12)
        self.check(up, down, rng, early_up=len(up.wire), early_down=len(down.wire))

    def test_upstream_speaks_in_the_same_write_as_its_101(self) -> None:
        """If the API sends the 101 with the VM's first bytes, as kube-apiserver does, none is lost."""
        rng = random.Random(1)
        up = Frames(rng, masked=True).add_beginning(0)
        down = Frames(rng, masked=False).add_beginning(2)
        self.check(up, down, rng, coalesce=True)


class PlainByteIdentity(ByteIdentity):
    """The same without TLS, as behind kubectl proxy."""

    tls = False


class BothTLSByteIdentity(ByteIdentity):
    """The same with TLS on both legs."""

    client_tls = True


class ClientTLSByteIdentity(ByteIdentity):
    """The same with TLS on the client's leg only."""

    tls = False
    client_tls = True


def _without(frames: Sequence[bytes], early: int) -> list[bytes]:
    """Return the frames without their first ``early`` bytes; the first may be a part of one then."""
    rest = []
    for frame in frames:
        rest.append(frame[early:])
        early = max(0, early - len(frame))
    return [frame for frame in rest if frame]


if __name__ == "__main__":
    unittest.main()
