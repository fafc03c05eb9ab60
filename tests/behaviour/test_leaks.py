"""Two hundred sessions, opened and closed in every way, leave nothing behind in the proxy's process."""

from __future__ import annotations

import itertools
import struct
import unittest
from collections.abc import Callable
from typing import Any

from tests.conformance.fronts import ConformanceTestCase
from tests.support.proxy_process import needs_proc, wait_until
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE, encode_frame
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.rfb.raw_client import RawClient

_SESSIONS = 100  # twice that many, after a warm-up
_EXPIRING = 8
_MEMORY = 2 << 20
_WITHIN = 10.0
_PART_OF_A_FRAME = struct.pack("!BBH", 0x82, 126, 1000) + b"x" * 10
_PART_OF_A_MASKED_FRAME = struct.pack("!BBH4s", 0x82, 0x80 | 126, 1000, b"mask") + b"x" * 10


def _answer(console: FakeConsole) -> None:
    """Echo what comes, and answer a Close."""
    while (frame := console.recv_frame(None)).opcode != CLOSE:
        console.send_frame(frame.opcode, frame.payload)
    console.send_close(1000)


def _close(console: FakeConsole) -> None:
    console.send_frame(BINARY, bytes(50000))
    console.send_close(3001, "upstream")
    console.recv_frame()


def _violate(console: FakeConsole) -> None:
    console.send_frame(BINARY, b"good")
    console.send_frame(3, b"bad")
    console.recv_frame()


@needs_proc
class Leaks(ConformanceTestCase):
    """Over a TLS upstream, the proxy in a process of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_apart(close_timeout=1.0, dial_timeout=5.0)

    def open(self, run: Callable[[FakeConsole], None], name: str = "vm", **claims: Any) -> RawClient:
        """Open a session with a function behind it."""
        vmi = self.api.add_vmi(name, self.namespace, backend=Script(run))
        client = RawClient.open(f"{self.proxy.url}/{self.token(name, **claims)}/{name}")
        self.addCleanup(client.close)
        self.assertEqual(client.status, 101)
        self.console = vmi.wait_for_session()
        return client

    def told(self, client: RawClient, code: int) -> None:
        """Receive up to the Close frame, answer it, and see the connection end."""
        self.assertEqual(client.recv_close()[0], code)
        client.send_close(code)
        client.wait_for_end()
        client.close()

    # Ways of a session

    def client_closes(self) -> None:
        client = self.open(_answer)
        client.send_frame(BINARY, bytes(30000))
        client.recv_frame()
        client.send_close(1000)
        self.told(client, 1000)

    def client_resets(self) -> None:
        self.open(_answer).reset()

    def client_drops(self) -> None:
        client = self.open(_answer)
        client.drop()
        client.wait_for_end()
        client.close()

    def client_drops_inside_a_frame(self) -> None:
        client = self.open(_answer)
        client.send_raw(_PART_OF_A_MASKED_FRAME)
        client.close()

    def client_violates(self) -> None:
        client = self.open(_answer)
        client.send_raw(encode_frame(BINARY, b"not masked"))
        self.assertEqual(client.recv_close()[0], 1002)
        client.close()  # what it would still send is not understood, so only its end is waited for

    def upstream_closes(self) -> None:
        self.told(self.open(_close), 3001)

    def upstream_drops(self) -> None:
        self.told(self.open(lambda console: console.send_frame(BINARY, b"data")), 1011)

    def upstream_drops_at_once(self) -> None:
        self.told(self.open(lambda console: None), 4502)

    def upstream_drops_inside_a_frame(self) -> None:
        client = self.open(lambda console: console.send_raw(_PART_OF_A_FRAME))
        client.wait_for_end()
        client.close()

    def upstream_resets(self) -> None:
        self.told(self.open(lambda console: console.reset()), 4502)

    def upstream_violates(self) -> None:
        self.told(self.open(_violate), 1011)

    # Ways of a refusal

    def is_refused(self) -> None:
        for request in (b"GET", b"POST"):
            self.refused(RawClient.request("/").replace(b"GET", request, 1))
        self.refused(RawClient.request(f"/{self.token('vm')}/other"))
        self.refused(RawClient.request(f"/{self.token('vm', secret='x' * 32)}/vm"))

    def is_refused_by_the_api(self) -> None:
        self.api.add_vmi("vm", self.namespace, display=False)
        self.refused(RawClient.request(f"/{self.token('vm')}/vm"))
        self.api.add_vmi("vm", self.namespace, behaviour=Behaviour(accept="wrong"))
        self.refused(RawClient.request(f"/{self.token('vm')}/vm"))
        self.api.remove_vmi("vm", self.namespace)

    def is_refused_as_a_browser(self) -> None:
        with RawClient(self.proxy.address) as client:
            client.send_raw(RawClient.request(f"/{self.token('vm')}/other", ["Origin: http://console"]))
            client.send_frame(BINARY, b"RFB 003.008\n")
            if self.front.own_tls:
                client.drop()
            else:  # that would be an error, and no more be said
                client.send_close(4403)
            self.assertIn(b"forbidden", self.body(client))

    def leaves_before_it_asks(self) -> None:
        for request in (b"", b"GET /"):
            with RawClient(self.proxy.address) as client:
                client.send_raw(request)

    def refused(self, request: bytes) -> None:
        with RawClient(self.proxy.address) as client:
            client.send_raw(request)
            self.assertRegex(self.body(client), rb"^HTTP/1\.1 [45]")

    # What is left

    @property
    def ways(self) -> list[Callable[[], None]]:
        return [
            self.client_closes,
            self.client_resets,
            self.client_drops,
            self.client_drops_inside_a_frame,
            self.client_violates,
            self.upstream_closes,
            self.upstream_drops,
            self.upstream_drops_at_once,
            self.upstream_drops_inside_a_frame,
            self.upstream_resets,
            self.upstream_violates,
            self.is_refused,
            self.is_refused_by_the_api,
            self.is_refused_as_a_browser,
            self.leaves_before_it_asks,
        ]

    def sessions(self, count: int) -> None:
        """Open and end so many sessions, some of which the proxy itself ends, and wait for all ends."""
        expiring = [self.open(_answer, f"vm-{number}", expires_in=1.5) for number in range(_EXPIRING)]
        for way in itertools.islice(itertools.cycle(self.ways), count - _EXPIRING):
            way()
        for client in expiring:
            self.told(client, 4411)
        self.assertTrue(self.api.wait_until_idle(_WITHIN))

    def test_nothing_is_left(self) -> None:
        """Descriptors, threads and memory are where they were before 200 sessions."""
        idle = self.proxy.descriptors(), self.proxy.threads()
        self.sessions(len(self.ways) + _EXPIRING)
        memory = []
        for _ in range(2):
            self.sessions(_SESSIONS)
            self.assert_as_before(idle)
            memory.append(self.proxy.memory())
        self.assertLess(memory[1] - memory[0], _MEMORY)

    def assert_as_before(self, idle: tuple[int, int]) -> None:
        """Assert that the proxy comes back to the descriptors and threads of before its first client."""
        wait_until(lambda: (self.proxy.descriptors(), self.proxy.threads()) == idle, _WITHIN)
        self.assertEqual((self.proxy.descriptors(), self.proxy.threads()), idle)


class BothTLSLeaks(Leaks):
    """The same with TLS on both legs."""

    client_tls = True


class PlainLeaks(Leaks):
    """The same without TLS, as behind kubectl proxy."""

    tls = False


if __name__ == "__main__":
    unittest.main()
