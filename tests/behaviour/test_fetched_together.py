"""What the workers of one program fetch for each other: a JWK Set, and screenshots."""

from __future__ import annotations

import os
import re
import signal
import threading
from typing import Any, ClassVar
from unittest import mock

from tests.support.issuer import Issuer, SigningKey
from tests.support.proxy_process import ProxyProcess, needs_proc, wait_until
from tests.web.test_screenshots import ScreenshotCase
from wsproxy.net.transport import Transport
from wsproxy.testing.case import ProxyTestCase

_WORKERS = 4
_TIMEOUT = 30.0
_BEFORE_A_TURN_ENDS = 8.0
_LEARNT = re.compile(rb"(\d+) keys fetched")


class JWKSCase(ProxyTestCase):
    tls = False
    settings: ClassVar[dict[str, str]] = {}

    def setUp(self) -> None:
        super().setUp()
        self.issuer = Issuer()
        self.addCleanup(self.issuer.stop)
        self.first, self.second = SigningKey("ES256", "a"), SigningKey("ES256", "b")
        self.issuer.publish(self.first.jwk)

    def start(self, **settings: str) -> ProxyProcess:
        given = {"SECRET_KEY": "", "WSPROXY_JWKS": self.issuer.url, "WSPROXY_WORKERS": str(_WORKERS)}
        program = ProxyProcess(self.api, **given | settings)
        self.addCleanup(program.close)
        return program

    def assert_learnt(self, program: ProxyProcess, keys: int, times: int, seconds: float = _TIMEOUT) -> None:
        """Wait until workers have said so many times that they have so many keys."""

        def said() -> int:
            return sum(int(number) == keys for number in _LEARNT.findall(program.output))

        self.assertTrue(wait_until(lambda: said() >= times, seconds), program.output)


class WorkersTest(JWKSCase):
    """Workers that share nothing else."""

    def test_start(self) -> None:
        """Of workers that start together one fetches the set."""
        program = self.start()
        self.assert_learnt(program, 1, _WORKERS)
        self.assertEqual(len(self.issuer.requests), 1)

    def test_rotation(self) -> None:
        """In each interval one worker fetches the set, and new keys reach all."""
        program = self.start(WSPROXY_JWKS_INTERVAL="2")
        self.assert_learnt(program, 1, _WORKERS)
        self.issuer.publish(self.first.jwk, self.second.jwk)
        before = len(self.issuer.requests)
        self.assert_learnt(program, 2, _WORKERS)
        # All learn within a moment of the fetch that brings the key, or the one before it was under way.
        self.assertLessEqual(len(self.issuer.requests) - before, 2)
        self.assertLessEqual(before, 2)

    @needs_proc
    def test_death_in_turn(self) -> None:
        """A worker that dies while it fetches does not keep the others from it."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        begun = threading.Event()

        def serve(transport: Transport) -> None:
            self.issuer.serve = None  # the next one gets an answer
            begun.set()
            gate.wait(_TIMEOUT)

        self.issuer.serve = serve
        program = self.start()
        self.assertTrue(begun.wait(_TIMEOUT))
        port = int(re.search(r":(\d+)/", self.issuer.url)[1])  # type: ignore[index]
        [worker] = [pid for pid in children_of(program.pid) if port in remote_ports(pid)]
        os.kill(worker, signal.SIGKILL)
        self.assert_learnt(program, 1, _WORKERS, _BEFORE_A_TURN_ENDS)


class SharedStateTest(WorkersTest):
    """Workers that share limits, too."""

    def start(self, **settings: str) -> ProxyProcess:
        return super().start(WSPROXY_MAX_SESSIONS="100", **settings)


class PicturesTest(ScreenshotCase):
    fresh = False

    def test_workers(self) -> None:
        """A screenshot is taken once for all workers, and each of them checks the token."""
        program = ProxyProcess(self.api, WSPROXY_SCREENSHOTS="true", WSPROXY_WORKERS=str(_WORKERS))
        self.addCleanup(program.close)
        other = self.bearer("other")
        with mock.patch.object(type(self), "address", program.address):
            for _ in range(40):
                self.assert_picture("/-/vm/screenshot.png", self.bearer())
                self.assert_refused(403, "forbidden", "/-/vm/screenshot.png", other)
        self.assertEqual(len(self.asked), 1)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def remote_ports(pid: int) -> set[int]:
    """Return the ports to which a process has TCP connections, by IPv4."""
    sockets = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            sockets.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue
    with open(f"/proc/{pid}/net/tcp", encoding="ascii") as file:
        rows: list[Any] = [line.split() for line in file.readlines()[1:]]
    return {int(row[2].partition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in sockets}
