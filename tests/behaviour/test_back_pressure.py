"""A slow reader slows the other side: nothing is cut, and nothing piles up in the proxy.

The full size is in ``tests/integration/test_back_pressure_full.py``.
"""

from __future__ import annotations

import os
import threading
import unittest

from tests.conformance.fronts import ConformanceTestCase
from tests.support.proxy_process import Pace, needs_proc
from wsproxy.exceptions import TransportClosed
from wsproxy.testing.kubevirt.backends import Echo, Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    encode_frame,
    parse_close,
)
from wsproxy.testing.rfb.raw_client import RawClient

_MIB = 1 << 20
_MESSAGE = 32768
_WAIT = 30.0
_MESSAGES_PER_SAMPLE = 16


@needs_proc
class BackPressureTestCase(ConformanceTestCase):
    """Sends one stream through a proxy in a process of its own to a reader with a fixed pace.

    :cvar total: bytes of the stream.
    :cvar rate: bytes that the reader takes in a second.
    :cvar most_ahead: bytes that the sender may be ahead of the reader: what the kernel's buffers of both
        legs hold.
    :cvar most_memory: bytes by which the proxy's memory may grow.
    :cvar ping_interval: seconds; an answer to a ping waits behind everything that the reader has not read.
    :cvar receive_buffer: size of the client's kernel buffer, None for the system's choice.
    """

    total = 64_000_000
    rate = 16_000_000.0
    most_ahead = 48 * _MIB
    most_memory = 2 * _MIB
    ping_interval = 1.0  # the reader, or a proxy, that gets no processor for two intervals counts as dead
    receive_buffer: int | None = 65536

    def setUp(self) -> None:
        super().setUp()
        self.go = threading.Event()
        self.done = threading.Event()
        self.sent = 0  # payload bytes, by one thread
        self.read = 0
        self.proxy = self.start_apart(ping_interval=self.ping_interval, close_timeout=2.0)
        self.payload = os.urandom(_MESSAGE)
        self.messages = -(-self.total // _MESSAGE)
        self.grown = 0
        self.ahead = 0
        self.warm_up()

    def open(self, vmi: str, receive_buffer: int | None = None) -> RawClient:
        client = RawClient.open(f"{self.proxy.url}/{self.token(vmi)}/{vmi}", receive_buffer=receive_buffer)
        self.addCleanup(client.close)
        self.assertEqual(client.status, 101)
        return client

    def warm_up(self) -> None:
        """Have the proxy load what it loads once, and grow the buffers of a session once."""
        self.api.add_vmi("warm", self.namespace, backend=Echo())
        client = self.open("warm")
        for _ in range(8):
            client.send_frame(BINARY, self.payload)
            size = 0
            while size < _MESSAGE:
                size += len(client.recv_frame().payload)
        client.send_close(1000)
        client.recv_close()
        client.close()
        self.assertTrue(self.api.wait_until_idle())

    def sample(self) -> None:
        """Note how much the proxy has grown and how far the sender is ahead."""
        self.grown = max(self.grown, self.proxy.memory() - self.memory)
        self.ahead = max(self.ahead, self.sent - self.read)

    def start_sampling(self) -> None:
        self.memory = self.proxy.memory()

    def assert_bounded(self) -> None:
        """Assert what the class says of memory and of the distance between sender and reader."""
        self.assertLess(self.grown, self.most_memory, "memory")
        self.assertLess(self.ahead, self.most_ahead, "sent and not read")
        # The kernel's buffers are smaller than the stream, or the bounds would show nothing.
        self.assertLess(self.most_ahead, self.total)


class SlowClient(BackPressureTestCase):
    """The upstream sends all it can, the client reads slowly."""

    def serve(self, console: FakeConsole) -> None:
        """Send the stream in messages as virt-handler's, answer pings and the Close."""
        sender = threading.Thread(target=self.send_stream, args=(console,))
        sender.start()
        try:
            console.read_data(lambda payload, fin: None)
        finally:
            console.kill()
            sender.join()

    def send_stream(self, console: FakeConsole) -> None:
        console.wait(self.go)
        try:
            for _ in range(self.messages):
                self.sent += _MESSAGE
                console.send_message(self.payload)
        except TransportClosed:
            pass  # the client sees the end

    def test_slow_client(self) -> None:
        """A stream to a client that reads slowly is neither cut nor buffered."""
        self.api.add_vmi("vm", self.namespace, backend=Script(self.serve))
        client = self.open("vm", self.receive_buffer)
        self.start_sampling()
        self.go.set()
        pace, pings = Pace(self.rate), 0
        while self.read < self.messages * _MESSAGE:
            frame = client.recv_frame()
            if frame.opcode == PING:
                client.send_frame(PONG, frame.payload)
                pings += 1
                self.sample()
                continue
            self.assertIn(frame.opcode, (BINARY, CONTINUATION))
            if frame.payload:
                self.assertTrue(frame.payload == self.payload, f"changed after {self.read} bytes")
            pace.take(len(frame.raw))
            self.read += len(frame.payload)
            self.sample()
        client.send_close(1000, "enough")
        self.assertEqual(client.recv_close()[0], 1000)
        self.assertGreater(pings, 0)
        self.assert_bounded()


class PlainSlowClient(SlowClient):
    """The same without TLS, as behind kubectl proxy."""

    tls = False


class BothTLSSlowClient(SlowClient):
    """The same with TLS on both legs."""

    client_tls = True


class SlowUpstream(BackPressureTestCase):
    """The client sends all it can, the upstream reads slowly."""

    ping_interval = 1.0  # what waits in the upstream's own kernel is in front of an answer, and is megabytes

    def serve(self, console: FakeConsole) -> None:
        """Read the stream at its pace, answer pings and the Close."""
        pace = Pace(self.rate)
        while (frame := console.recv_frame(_WAIT)).opcode != CLOSE:
            if frame.opcode == PING:
                console.send_frame(PONG, frame.payload)
                continue
            assert frame.payload == self.payload, f"changed after {self.read} bytes"
            pace.take(len(frame.raw))
            self.read += len(frame.payload)
        console.send_close(1000)
        self.done.set()

    def answer_pings(self, client: RawClient) -> None:
        """Receive until the Close that answers ours; the pongs wait for the stream's frames."""
        while (frame := client.recv_frame(_WAIT)).opcode != CLOSE:
            self.assertEqual(frame.opcode, PING)
            with self.sending:
                client.send_frame(PONG, frame.payload)
        self.assertEqual(parse_close(frame.payload)[0], 1000)

    def test_slow_upstream(self) -> None:
        """A stream to an upstream that reads slowly is neither cut nor buffered."""
        self.api.add_vmi("vm", self.namespace, backend=Script(self.serve))
        self.sending = threading.Lock()
        client = self.open("vm")
        client.timeout = _WAIT
        self.start_sampling()
        sender = threading.Thread(target=self.send_stream, args=(client,))
        sender.start()
        self.answer_pings(client)
        sender.join()
        self.assertTrue(self.done.wait(_WAIT))
        self.assertEqual(self.read, self.messages * _MESSAGE)
        self.assert_bounded()

    def send_stream(self, client: RawClient) -> None:
        frame = encode_frame(BINARY, self.payload, mask=b"mask")
        for number in range(self.messages):
            self.sent += _MESSAGE
            with self.sending:
                client.send_raw(frame)
            if number % _MESSAGES_PER_SAMPLE == 0:
                self.sample()
        with self.sending:
            client.send_close(1000)


class BothTLSSlowUpstream(SlowUpstream):
    """The same with TLS on both legs."""

    client_tls = True


class PlainSlowUpstream(SlowUpstream):
    """The same without TLS, as behind kubectl proxy."""

    tls = False


if __name__ == "__main__":
    unittest.main()
