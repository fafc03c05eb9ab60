"""Slow links: when data arrives, in which order, and how a link ends."""

from __future__ import annotations

import threading
import time
import unittest
from collections.abc import Callable

from wsproxy.exceptions import TransportClosed
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing import Behaviour, Desktop, Echo, FakeConsole, ProxyTestCase, RawClient, Script, Stream
from wsproxy.testing.kubevirt.link import Line, Link, Schedule

_DELAY = 0.05
_WAIT = 60.0


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class ScheduleTest(unittest.TestCase):
    def test_delay(self) -> None:
        """Each piece arrives after the delay, whatever was sent before."""
        schedule = Schedule(Link(delay=2.0))
        self.assertEqual([schedule.arrival(1000, now) for now in (0.0, 0.5, 3.0)], [2.0, 2.5, 5.0])

    def test_bandwidth(self) -> None:
        """A piece waits for earlier pieces. After an idle time it does not."""
        schedule = Schedule(Link(delay=1.0, bandwidth=100))
        self.assertEqual([schedule.arrival(50, 0.0) for _ in range(3)], [1.5, 2.0, 2.5])
        self.assertEqual(schedule.arrival(50, 10.0), 11.5)

    def test_order(self) -> None:
        """When the link becomes faster, later bytes do not overtake earlier ones."""
        link = Link(delay=5.0)
        schedule = Schedule(link)
        self.assertEqual(schedule.arrival(1, 0.0), 5.0)
        link.delay, link.bandwidth = 0.0, 1.0
        self.assertEqual([schedule.arrival(1, 1.0), schedule.arrival(1, 9.0)], [5.0, 10.0])

    def test_nonsense(self) -> None:
        """A negative delay and a bandwidth of 0 are refused."""
        for delay, bandwidth in ((-1.0, None), (0.0, 0), (0.0, -5.0), (float("nan"), None)):
            with self.subTest(delay=delay, bandwidth=bandwidth), self.assertRaises(ValueError):
                Link(delay, bandwidth)


class LineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.link = Link(delay=1.0, bandwidth=50 * 1000)
        self.line = Line(self.link, self.clock)

    def test_arrival(self) -> None:
        """Arrived bytes can be taken piece by piece. After the last one, every take returns the end."""
        self.line.put(bytes(1500))
        self.line.end()
        self.assertAlmostEqual(self.line.seconds_left(), 1.03)
        with self.assertRaises(TimeoutError):
            self.line.take(Deadline(0.0))
        self.clock.now += 1.04
        self.assertEqual([len(self.line.take()) for _ in range(4)], [1000, 500, 0, 0])
        with self.assertRaises(TransportClosed):
            self.line.put(b"x")

    def test_bound(self) -> None:
        """At most a MiB is in flight. The sender continues when some of it has arrived."""
        self.link.bandwidth = None
        self.line.put(bytes(1 << 20))
        done = threading.Event()

        def send() -> None:
            self.line.put(b"more")
            done.set()

        sender = threading.Thread(target=send)
        sender.start()
        try:
            self.assertFalse(done.is_set())
            self.clock.now += 1.0
            self.line.take()
            self.assertTrue(done.wait(_WAIT))
        finally:
            self.line.cut()
            sender.join()

    def test_cut(self) -> None:
        """A cut wakes waiting threads, and drops the bytes in flight."""
        failures: list[str] = []

        def take() -> None:
            try:
                self.line.take()
            except TransportClosed as exc:
                failures.append(str(exc))

        taker = threading.Thread(target=take)
        taker.start()
        self.line.put(b"lost")
        self.line.cut()
        taker.join(_WAIT)
        self.assertEqual(failures, ["the link was cut"])


class SessionTest(ProxyTestCase):
    def open(self, behaviour: Behaviour, backend: Echo | Stream | Script) -> RawClient:
        self.vmi = self.api.add_vmi("ubuntu", backend=backend, behaviour=behaviour)
        client = RawClient.open(self.url(self.start_proxy(), "ubuntu"))
        self.addCleanup(client.close)
        return client

    def test_delay(self) -> None:
        """What is sent comes back after both directions' delay, in order."""
        client = self.open(Behaviour(delay=_DELAY), Echo())
        started = time.monotonic()
        for number in range(20):
            client.send_frame(2, bytes([number]))
        echoed = [client.recv_frame().payload for _ in range(20)]
        seconds = time.monotonic() - started
        self.assertEqual(echoed, [bytes([number]) for number in range(20)])
        self.assertGreaterEqual(seconds, 2 * _DELAY)

    def test_bandwidth(self) -> None:
        """The bandwidth decides when bytes arrive. The VM's end comes after the last of them."""
        for tls in (True, False):
            with self.subTest(tls=tls):
                started, size = time.monotonic(), 0
                client = self.open(Behaviour(bandwidth=200_000), Stream(chunk=4096, total=40_000))
                while (frame := client.recv_frame()).opcode == 2:
                    size += len(frame.payload)
                self.assertEqual(size, 40_000)
                self.assertGreaterEqual(time.monotonic() - started, 0.15)

    def test_last_bytes(self) -> None:
        """The last bytes of a VM are not lost, even if they take longer than a session lingers."""
        client = self.open(Behaviour(delay=1.2), Script(lambda console: console.send_message(b"bye")))
        self.assertEqual(client.recv_frame().payload, b"bye")

    def test_changed(self) -> None:
        """The link of an open session may be changed. A session without a delay or bandwidth has no link."""
        client = self.open(Behaviour(delay=_DELAY), Echo())
        link = self.vmi.wait_for_session().link
        assert link is not None
        link.delay = 0.0
        client.send_frame(2, b"fast")
        self.assertEqual(client.recv_frame().payload, b"fast")
        self.open(Behaviour(), Echo())
        self.assertIsNone(self.vmi.wait_for_session().link)

    def test_ends(self) -> None:
        """A session ends by every end as without a link, and leaves no thread."""
        ends: dict[str, Callable[[FakeConsole], None]] = {
            "Close": lambda console: console.send_close(1001, "bye"),
            "kill": lambda console: console.kill(),
            "drop": lambda console: console.drop(),
            "reset": lambda console: console.reset(),
            "close_notify": lambda console: console.send_close_notify(),
        }
        for name, end in ends.items():
            with self.subTest(name):
                plain = self.open(Behaviour(), Script(end)).recv_close()
                self.assertEqual(self.open(Behaviour(delay=0.01), Script(end)).recv_close(), plain)
        self.assertTrue(self.api.wait_until_idle())

    def test_stopped(self) -> None:
        """The simulated API stops, and its threads end, even if data in flight would take an hour."""
        self.open(Behaviour(delay=3600.0), Stream())
        console = self.vmi.wait_for_session()
        self.assertTrue(self.api.wait_for(lambda: console.bytes_sent > 0))
        self.api.stop()
        self.assertEqual(self.api.errors, [])

    def test_desktop(self) -> None:
        """A desktop is used over a slow link as over a fast one."""
        desktop = self.add_desktop("debian")
        self.assertIsInstance(desktop, Desktop)
        desktop.vmi.behaviour = Behaviour(delay=0.02, bandwidth=5_000_000)
        vm = self.open_console("debian")
        vm.type("slowly")
        desktop.assert_text("slowly")
