"""Whether the proxy is ready; what ``/readyz`` says of it is in ``test_http``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from wsproxy.exceptions import TransportClosed
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import LeakTestCase, ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.upstream.readiness import Readiness


class DiallerStub:
    """Answers probes as it is told."""

    def __init__(self) -> None:
        self.answer: int | Exception = 200
        self.probes = 0
        self.during: Callable[[], object] = int

    def request(self, path: str, deadline: Deadline) -> tuple[int, bytes]:
        self.probes += 1
        self.during()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, b""


class ReadinessTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.dialler = DiallerStub()
        self.readiness = Readiness(cast(Any, self.dialler), lambda: self.now)

    def is_ready(self) -> bool:
        return self.readiness.is_ready(Deadline(10))

    def test_probe(self) -> None:
        """It asks the API, and again only when that is some time ago."""
        self.assertTrue(self.is_ready())
        self.assertTrue(self.is_ready())
        self.assertEqual(self.dialler.probes, 1)
        self.now += 10
        self.assertTrue(self.is_ready())
        self.assertEqual(self.dialler.probes, 2)

    def test_answers(self) -> None:
        """An API that answers is what is asked for; one that does not take us, is broken or gone, is not."""
        cases: tuple[tuple[int | Exception, bool], ...] = (
            (200, True),
            (403, True),
            (404, True),
            (401, False),
            (500, False),
            (503, False),
            (TimeoutError(), False),
            (TransportClosed("gone"), False),
            (OSError("no CA"), False),
            (ValueError("no token"), False),
        )
        for answer, ready in cases:
            self.dialler.answer = answer
            self.now += 100
            with self.subTest(answer=answer):
                self.assertEqual(self.is_ready(), ready)

    def test_recovers_quickly(self) -> None:
        """A probe that failed counts for two seconds, so that strangers cannot ask more often."""
        self.dialler.answer = 500
        self.assertFalse(self.is_ready())
        self.dialler.answer = 200
        self.now += 1.9
        self.assertFalse(self.is_ready())
        self.now += 0.2
        self.assertTrue(self.is_ready())

    def test_sessions_tell(self) -> None:
        """While sessions are opened no probe is needed."""
        self.readiness.answered()
        self.assertTrue(self.is_ready())
        self.now += 9
        self.readiness.answered()
        self.now += 9
        self.assertTrue(self.is_ready())
        self.assertEqual(self.dialler.probes, 0)

    def test_draining(self) -> None:
        """A proxy that stops is not ready, and asks nobody."""
        self.readiness.answered()
        self.readiness.drain()
        self.assertFalse(self.is_ready())
        self.now += 100
        self.assertFalse(self.is_ready())
        self.assertEqual(self.dialler.probes, 0)

    def test_one_probe_at_a_time(self) -> None:
        """While one thread probes, others are told what was known, and do not wait."""
        found = []

        def ask() -> None:
            thread = threading.Thread(target=lambda: found.append(self.is_ready()))
            thread.start()
            thread.join()

        self.dialler.during = ask
        self.assertTrue(self.is_ready())
        self.assertEqual((found, self.dialler.probes), ([False], 1))

    def test_deadline(self) -> None:
        """Without time left there is no probe, and no answer of the API."""
        self.assertFalse(self.readiness.is_ready(Deadline(-1)))


class EndToEnd(ProxyTestCase):
    def ask(self, address: tuple[str, int]) -> bytes:
        with RawClient(address) as client:
            client.send_raw(b"GET /readyz HTTP/1.1\r\nHost: proxy\r\n\r\n")
            return client.body()

    def test_real_api(self) -> None:
        """The proxy is ready if the API answers it, and not if it is down or does not know it."""
        address = self.start_proxy().address
        self.assertTrue(self.ask(address).startswith(b"HTTP/1.1 200 OK\r\n"))
        self.api.down = True
        other = self.start_proxy(dial_timeout=1.0).address
        answer = self.ask(other)
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nnot ready\n"), answer)
        self.api.down = False

    def test_refusals_of_the_api(self) -> None:
        """An API that refuses a console has answered."""
        proxy = self.start_proxy()
        with RawClient(proxy.address) as client:
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
            self.assertIn(b"vmi-not-found", client.body())
        before = len(self.api.requests)
        self.assertTrue(self.ask(proxy.address).startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual(len(self.api.requests), before)
