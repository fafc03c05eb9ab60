"""Lifetimes and limits of the program, in real seconds: what clients are told, and that nothing is left."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any

from tests.support.proxy_process import ProxyProcess, needs_proc, wait_until
from wsproxy.exceptions import TransportClosed
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE, PING, PONG, parse_close
from wsproxy.testing.rfb.raw_client import RawClient

_LATE = 20.0  # seconds that a busy machine may need


class Viewer:
    """A client in a thread of its own, which does all that a living one does until it is told the end.

    :param started: when the client began.
    :param types: whether it sends data.
    :ivar seconds: how long it lasted, with its opening.
    :ivar close: code and reason of the end.
    :ivar updates: frames of data that came.
    """

    def __init__(self, client: RawClient, started: float, *, types: bool) -> None:
        self._client = client
        self._types = types
        self._started = started
        self.seconds = 0.0
        self.close: tuple[int, str] | None = None
        self.updates = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while (frame := self._client.recv_frame(60)).opcode != CLOSE:
            if frame.opcode == PING:
                self._client.send_frame(PONG, frame.payload)
            else:
                self.updates += 1
                if self._types:
                    self._client.send_frame(BINARY, b"key")
        self.seconds = time.monotonic() - self._started
        self.close = parse_close(frame.payload)
        self._client.send_frame(CLOSE, frame.payload[:2])
        self._client.wait_for_end()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()


@needs_proc
class RealSeconds(ProxyTestCase):
    """In the in-cluster configuration."""

    def start(self, **settings: str) -> ProxyProcess:
        self.program = ProxyProcess(self.api, WSPROXY_CLOSE_TIMEOUT="1", **settings)
        self.addCleanup(self.program.close)
        self.threads, self.descriptors = self.program.threads(), self.program.descriptors()
        return self.program

    def open(self, vmi: str, token: str | None = None, **claims: Any) -> RawClient:
        token = token or self.token(vmi, **claims)
        client = RawClient.open(f"{self.program.url}/{token}/{vmi}")
        self.addCleanup(client.close)
        return client

    def view(self, vmi: str, *, types: bool, **claims: Any) -> Viewer:
        started = time.monotonic()
        return Viewer(self.open(vmi, **claims), started, types=types)

    def update(self, console: FakeConsole) -> None:
        """Be a screen that changes all the time."""

        def change() -> None:
            with contextlib.suppress(TransportClosed):  # at the end
                while not console.ended.wait(0.1):
                    console.send_frame(BINARY, b"update")

        changing = threading.Thread(target=change)
        changing.start()
        try:
            while (frame := console.recv_frame()).opcode != CLOSE:
                if frame.opcode == PING:
                    console.send_frame(PONG, frame.payload)
            console.send_close(1000)
        finally:
            console.kill()
            changing.join()

    def assert_nothing_left(self) -> None:
        """Assert that the program is as it was at its start, and stops in good order."""

        def is_as_before() -> bool:
            return (self.program.threads(), self.program.descriptors()) == (self.threads, self.descriptors)

        self.assertTrue(self.api.wait_until_idle())
        self.assertTrue(wait_until(is_as_before, 30), self.program.output)
        self.assertEqual(self.program.stop(signal.SIGTERM), 0)

    def test_lifetimes(self) -> None:
        """Of three sessions one outlives its token by the grace, one is idle, and one grows too old."""
        for vmi in ("expiring", "idle", "old"):
            self.api.add_vmi(vmi, self.namespace, backend=Script(self.update))
        self.start(
            WSPROXY_GRACE="1", WSPROXY_IDLE_TIMEOUT="4", WSPROXY_MAX_AGE="8", WSPROXY_PING_INTERVAL="1.5"
        )
        viewers = {
            "expiring": self.view("expiring", types=True, expires_in=3),
            "idle": self.view("idle", types=False),
            "old": self.view("old", types=True),
        }
        for vmi, least, most, close in (
            ("expiring", 3.5, 4, (4411, "expired: the token's time is over, and 1 s of grace")),
            ("idle", 4, 4.4, (4408, "idle: the client sent no data for 4 s")),
            ("old", 8, 8, (4412, "max-age: a session lasts 8 s at most")),
        ):
            with self.subTest(vmi=vmi):
                viewer = viewers[vmi]
                viewer.join()
                self.assertEqual(viewer.close, close)
                self.assertGreater(viewer.seconds, least)
                self.assertLess(viewer.seconds, most + _LATE)
                self.assertGreater(viewer.updates, 0)
        self.assert_nothing_left()
        for viewer in viewers.values():
            assert viewer.close
            self.assertIn("ended: by proxy code {} {!r} ".format(*viewer.close), self.program.output.decode())

    def test_limits(self) -> None:
        """Each limit refuses who is too much; when there is room, or time has passed, the next is let in."""
        for vmi in ("a", "b", "c", "d"):
            self.api.add_vmi(vmi, self.namespace)
        self.start(
            WSPROXY_MAX_SESSIONS="3",
            WSPROXY_MAX_SESSIONS_PER_USER="2",
            WSPROXY_MAX_SESSIONS_PER_VMI="1",
            WSPROXY_MAX_PENDING_PER_ADDRESS="4",
            WSPROXY_MAX_FAILURES="20",
        )
        first, second = self.open("a", user=1), self.open("b", user=1)
        self.assert_refused(lambda: self.open("c", user=1), 429, "limit-user", "5")
        self.assert_refused(lambda: self.open("a", user=2), 429, "limit-vmi", "5")
        third = self.open("c", user=2)
        self.assert_refused(lambda: self.open("d", user=3), 503, "busy", "5")
        silent = [RawClient(self.program.address) for _ in range(5)]
        for client in silent:
            self.addCleanup(client.close)
        self.assert_refused(lambda: self.open("d", user=3), 429, "limit-address", "5")
        for client in [*silent, first, second, third]:
            client.close()
        self.assertTrue(self.api.wait_until_idle())
        self.let_in(lambda: self.open("d", user=3), 30).close()
        failed, reason = 0, ""
        while reason != "limit-failures":  # those that come before others have gone are too many, too
            with self.open("a", token="bad") as client:
                reason = json.loads(client.body())["reason"]
                failed += reason == "bad-token"
        self.assertGreaterEqual(failed, 20)
        self.assert_refused(lambda: self.open("a"), 429, "limit-failures", None)
        self.let_in(lambda: self.open("a"), 30).close()
        self.assert_nothing_left()
        for slug in ("limit-user", "limit-vmi", "busy", "limit-address", "limit-failures"):
            self.assertIn(f" {slug}: ", self.program.output.decode())

    def assert_refused(
        self, come: Callable[[], RawClient], status: int, slug: str, retry_after: str | None
    ) -> None:
        """Assert that a client is refused, as soon as the proxy has noticed all that came before."""
        client = come()
        for _ in range(1000):
            if client.status != 101:
                break
            client.close()  # a connection that came before is not counted yet
            self.assertTrue(self.api.wait_until_idle())
            client = come()
        self.assertEqual(client.status, status)
        self.assertEqual(json.loads(client.body())["reason"], slug)
        found = client.header("retry-after")
        assert found is not None
        self.assertEqual(found, retry_after or str(int(found)))

    def let_in(self, come: Callable[[], RawClient], seconds: float) -> RawClient:
        """Try until a client is let in, as often as its refusals say, and return it."""
        clients = [come()]

        def is_in() -> bool:
            if clients[-1].status != 101:
                clients[-1].close()
                clients.append(come())
            return clients[-1].status == 101

        self.assertTrue(wait_until(is_in, seconds))
        return clients[-1]


if __name__ == "__main__":
    unittest.main()
