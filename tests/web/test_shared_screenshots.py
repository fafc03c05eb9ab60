"""Processes of one host take screenshots for each other."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from unittest import mock

from tests.support.gate import Gate
from tests.support.transports import in_thread
from wsproxy.exceptions import Draining, UpstreamTimeout, VMINotRunning
from wsproxy.protocol.routing import Route
from wsproxy.runtime.deadline import Deadline
from wsproxy.state.participant.copies import Copies
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.telemetry.counters import Counters
from wsproxy.testing.case import LeakTestCase
from wsproxy.testing.screen.png import encode_png
from wsproxy.tokens.claims import Grant
from wsproxy.upstream.location import ApiPath
from wsproxy.web.screenshot_cache import Screenshots
from wsproxy.web.screenshots import PictureRules, ScreenshotSource

_PATH = "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{vmi_name}/vnc"
_WAIT = 10.0
_PICTURE, _OTHER = encode_png(2, 1, b"\1\2\3\4\5\6"), encode_png(2, 1, b"\6\5\4\3\2\1")


class FakeAccess:
    """Lets everybody in, with a namespace that the test chooses."""

    namespace = "lab-1"

    def admit_screenshot(self, head: Any, client: Any, deadline: Deadline) -> tuple[Route, Grant]:
        return Route(None, None, "vm", "vnc/screenshot"), Grant("alice", self.namespace, ("vm",), 2e9, "t")


class FakeDialler:
    """Answers requests to the API.

    :ivar picture: what takes a screenshot.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.picture: Callable[[], bytes] = lambda: _PICTURE

    def get(self, path: str, max_size: int, deadline: Deadline, on_socket: Any) -> bytes:
        if path.endswith("/version"):
            return b'{"gitVersion": "v1.8.0"}'
        self.asked.append(path)
        return self.picture()


class SharedScreenshotsTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.store = MemoryStore(lambda: self.now)
        self.dialler, self.access = FakeDialler(), FakeAccess()
        self.members = 0

    def process(self, way: str = "api", timeout: float = _WAIT) -> ScreenshotSource:
        """Return the source of another process."""
        self.members += 1
        copies = Copies(self.store, f"m{self.members}", clock=self.clock)
        access: Any = self.access
        dialler: Any = self.dialler
        rules = PictureRules(ApiPath(_PATH), timeout, way)
        screenshots = Screenshots(self.clock)
        return ScreenshotSource(rules, access, dialler, screenshots, Counters(), self.clock, copies.copy_of)

    def clock(self) -> float:
        return self.now

    def picture(self, source: ScreenshotSource) -> bytes:
        """Return the body of the answer."""
        head: Any = mock.sentinel.head
        client: Any = mock.sentinel.client
        response = source.picture(head, client, Deadline(_WAIT), lambda admitted: None)
        return response.partition(b"\r\n\r\n")[2]

    def plant(self, source: ScreenshotSource, data: bytes) -> None:
        """Put something into the store in place of a screenshot."""
        name = source._name(source._rules.api_path.path("lab-1", "vm", "vnc/screenshot"))
        self.store.borrow("liar", name, 0.0, 60.0)
        self.store.keep("liar", name, base64.b64encode(data).decode(), 60.0, 0.0)

    def test_once(self) -> None:
        """For five seconds a screenshot serves all processes, and not longer where it came later."""
        first, second = self.process(), self.process()
        self.assertEqual(self.picture(first), _PICTURE)
        self.dialler.picture = lambda: _OTHER
        self.now += 3.0
        self.assertEqual(self.picture(second), _PICTURE)
        self.assertEqual(len(self.dialler.asked), 1)
        self.now += 2.1
        self.assertEqual(self.picture(second), _OTHER)
        self.assertEqual(self.picture(first), _OTHER)
        self.assertEqual(len(self.dialler.asked), 2)

    def test_others(self) -> None:
        """A VM of another namespace, or of another API, has another screenshot."""
        self.picture(self.process())
        self.dialler.picture = lambda: _OTHER
        self.assertEqual(self.picture(self.process("another api")), _OTHER)
        self.access.namespace = "lab-2"
        self.assertEqual(self.picture(self.process()), _OTHER)

    def test_access_first(self) -> None:
        """Who may not see a screen gets no screenshot of another process."""
        self.picture(self.process())
        refused = mock.Mock(side_effect=VMINotRunning("it is not yours"))
        with mock.patch.object(self.access, "admit_screenshot", refused), self.assertRaises(VMINotRunning):
            self.picture(self.process())

    def test_waits(self) -> None:
        """While one process takes a screenshot, another one waits for it."""
        gate = Gate(self, _WAIT)

        def take() -> bytes:
            gate.stop()
            return _PICTURE

        self.dialler.picture = take
        first, second = self.process(), self.process()
        joins = [in_thread(lambda: self.picture(first))]
        gate.wait()
        joins.append(in_thread(lambda: self.picture(second)))
        gate.open()
        self.assertEqual([join() for join in joins], [_PICTURE] * 2)
        self.assertEqual(len(self.dialler.asked), 1)

    def test_failure(self) -> None:
        """If one process cannot take it, the next one tries at once; a refusal is each process's own."""
        self.dialler.picture = mock.Mock(side_effect=VMINotRunning("it does not run"))
        for source in (self.process(), self.process()):
            self.assertRaises(VMINotRunning, self.picture, source)
        self.assertEqual(len(self.dialler.asked), 2)

    def test_bug(self) -> None:
        self.dialler.picture = mock.Mock(side_effect=ZeroDivisionError)
        self.assertRaises(ZeroDivisionError, self.picture, self.process())
        self.dialler.picture = lambda: _PICTURE
        self.assertEqual(self.picture(self.process()), _PICTURE)

    def test_death(self) -> None:
        """A process that dies while it takes one blocks nobody."""
        source = self.process()
        name = source._name(source._rules.api_path.path("lab-1", "vm", "vnc/screenshot"))
        self.store.borrow("dead", name, 0.0, 60.0)
        asking = in_thread(lambda: self.picture(source))
        self.store.leave("dead")
        self.assertEqual(asking(), _PICTURE)

    def test_deadline(self) -> None:
        """Nobody waits longer for another process than for KubeVirt."""
        source = self.process(timeout=0.1)
        name = source._name(source._rules.api_path.path("lab-1", "vm", "vnc/screenshot"))
        self.store.borrow("slow", name, 0.0, 60.0)
        self.assertRaises(UpstreamTimeout, self.picture, source)

    def test_stop(self) -> None:
        """A stop ends the wait for another process."""
        source = self.process()
        name = source._name(source._rules.api_path.path("lab-1", "vm", "vnc/screenshot"))
        self.store.borrow("slow", name, 0.0, 60.0)
        refused: list[bool] = []

        def ask() -> None:
            with self.assertRaises(Draining):
                self.picture(source)
            refused.append(True)

        asking = in_thread(ask)
        source.stop()
        asking()
        self.assertEqual(refused, [True])

    def test_nonsense(self) -> None:
        """What is in the store is checked as if KubeVirt had sent it."""
        for data in (b"<html>", _OTHER[:-1]):
            source = self.process(data.hex())
            self.plant(source, data)
            self.assertEqual(self.picture(source), _PICTURE)

    def test_large(self) -> None:
        """A screenshot that is too large for the store is each process's own."""
        large = _PICTURE[:-12] + bytes(4 << 20) + _PICTURE[-12:]
        self.dialler.picture = lambda: large
        for source in (self.process(), self.process()):
            self.assertEqual(self.picture(source), large)
        self.assertEqual(len(self.dialler.asked), 2)
