"""The keys of a URL: when they are fetched, who waits, and what stays when that fails."""

from __future__ import annotations

import json
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.support.issuer import SigningKey
from wsproxy.exceptions import Draining, TransportClosed
from wsproxy.runtime.deadline import Deadline
from wsproxy.runtime.threads import current_owner
from wsproxy.testing.case import LeakTestCase
from wsproxy.tokens.jwks_client import JWKSClient, OnSocket

_NEVER = 80_000.0
_TIMEOUT = 60.0
_SOON = 20.0  # seconds; less than any timeout that must not matter


class Script:
    """Answers fetches with what a test puts into ``answers``; the latest one stays."""

    def __init__(self) -> None:
        self.answers: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
        self.latest: bytes | Exception = b""
        self.fetches = 0
        self.owners: set[object] = set()
        self.entered: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.gate: threading.Event | None = None

    def keys(self, *names: str) -> None:
        """Answer with keys of these names from the next fetch on."""
        jwk = {name: value for name, value in _JWK.items() if name != "kid"}
        self.answers.put(json.dumps({"keys": [jwk | {"kid": name} for name in names]}).encode())

    def fetch(self, deadline: Deadline, on_socket: OnSocket) -> bytes:
        self.fetches += 1
        self.owners.add(current_owner())
        self.entered.put(self.fetches)
        if self.gate:
            assert self.gate.wait(_TIMEOUT)
        if not self.answers.empty():
            self.latest = self.answers.get()
        if isinstance(self.latest, Exception):
            raise self.latest
        return self.latest

    def wait(self, number: int) -> None:
        """Wait until so many fetches have begun in all."""
        while self.entered.get(timeout=_TIMEOUT) < number:
            pass


_JWK: dict[str, Any] = SigningKey("ES256").jwk


class JWKSSourceTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.script = Script()

    def source(self, interval: float = _NEVER, pause: float = 0.02, *, start: bool = True) -> JWKSClient:
        made = JWKSClient("https://a.example/", self.script.fetch, None, interval, pause)
        self.addCleanup(made.stop)
        if start:
            made.start(self)
        return made

    @staticmethod
    def names(source: JWKSClient) -> list[str | None]:
        return [key.kid for key in source.keys]

    def test_start(self) -> None:
        """Nothing is fetched before the start; then at once, by a thread with an owner and a name."""
        self.script.keys("a")
        source = self.source(start=False)
        self.assertEqual((self.names(source), self.script.fetches), ([], 0))
        source.start(self)
        self.assertIn("wsproxy-jwks", [thread.name for thread in threading.enumerate()])
        source.await_key("a", Deadline(_TIMEOUT))
        self.assertEqual((self.names(source), self.script.fetches), (["a"], 1))
        self.assertEqual(self.script.owners, {self})

    def test_refresh(self) -> None:
        """The set is fetched at once when asked for, in spite of interval and pause."""
        self.script.keys("a")
        source = self.source(pause=_NEVER)
        self.script.wait(1)
        source.await_key("a", Deadline(_TIMEOUT))
        for number, name in enumerate("bc", 2):
            self.script.keys(name)
            source.refresh()
            self.script.wait(number)
            source.await_key(name, Deadline(_TIMEOUT))
            self.assertEqual(self.names(source), [name])

    def test_interval(self) -> None:
        """The set is fetched again and again; as long as it is the same, the keys are the same objects."""
        self.script.keys("a")
        source = self.source(interval=0.01)
        self.script.wait(2)  # the first is taken then
        keys = source.keys
        self.script.wait(4)
        self.assertIs(source.keys, keys)
        self.script.keys("b")
        self.script.wait(7)
        self.assertEqual(self.names(source), ["b"])

    def test_unknown_key(self) -> None:
        """A key that is not known is fetched once for all who wait for it."""
        self.script.keys("a")
        source = self.source(pause=0.2)
        source.await_key("a", Deadline(_TIMEOUT))
        self.script.keys("a", "b")
        barrier = threading.Barrier(8)

        def wait() -> None:
            barrier.wait(_TIMEOUT)
            source.await_key("b", Deadline(_TIMEOUT))
            found.append(self.names(source))

        found: list[list[str | None]] = []
        threads = [threading.Thread(target=wait) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, [["a", "b"]] * 8)
        self.assertEqual(self.script.fetches, 2)

    def test_known_key(self) -> None:
        """For a key that is there by now nothing is fetched."""
        self.script.keys("a")
        source = self.source()
        source.await_key("a", Deadline(_TIMEOUT))
        for deadline in (Deadline(_TIMEOUT), None):
            source.await_key("a", deadline)
        self.assertEqual(self.script.fetches, 1)
        self.assertLessEqual(source._wanted_at, source._done_at)

    def test_key_that_does_not_exist(self) -> None:
        """If a fetch that begins after the call does not bring the key, the call returns."""
        self.script.keys("a")
        source = self.source()
        for number in range(2, 5):
            source.await_key("nonsense", Deadline(_TIMEOUT))
            self.assertLessEqual(self.script.fetches, number)
        self.assertEqual(self.names(source), ["a"])

    def test_pause(self) -> None:
        """Unknown names cause one fetch in a pause; no caller waits beyond its deadline."""
        self.script.keys("a")
        source = self.source(pause=_NEVER)
        source.await_key("a", Deadline(_TIMEOUT))
        started = time.monotonic()
        for number in range(100):
            source.await_key(f"nonsense-{number}", Deadline(_TIMEOUT))
        self.assertLess(time.monotonic() - started, _SOON)
        self.assertEqual(self.script.fetches, 1)

    def test_without_waiting(self) -> None:
        """Without a deadline the call starts a fetch and does not wait."""
        self.script.keys("a")
        source = self.source()
        self.script.wait(1)
        self.script.gate = threading.Event()
        source.await_key("b", None)
        self.script.wait(2)
        source.await_key("b", None)
        self.script.gate.set()

    def test_deadline(self) -> None:
        """During a long fetch no caller waits beyond its deadline, and known keys are there."""
        self.script.keys("a")
        source = self.source()
        source.await_key("a", Deadline(_TIMEOUT))
        self.script.gate = threading.Event()
        started = time.monotonic()
        source.await_key("b", Deadline(0.1))
        self.assertLess(time.monotonic() - started, _SOON)
        self.assertEqual(self.names(source), ["a"])
        self.script.gate.set()

    def test_no_name(self) -> None:
        """A token without a kid waits for the first set only."""
        self.script.gate = threading.Event()
        self.script.keys("a")
        source = self.source(pause=_NEVER)
        self.script.wait(1)
        source.await_key(None, Deadline(0.05))
        self.assertEqual(self.names(source), [])
        threading.Timer(0.05, self.script.gate.set).start()
        source.await_key(None, Deadline(_TIMEOUT))
        self.assertEqual(self.names(source), ["a"])
        source.await_key(None, Deadline(_TIMEOUT))
        self.assertEqual(self.script.fetches, 1)

    def test_failures(self) -> None:
        """While fetching fails, the last keys stay, with one warning; a success is logged once, too."""
        self.script.keys("a")
        with self.assertLogs("wsproxy.jwks_source", logging.INFO) as logs:
            source = self.source(interval=0.01)
            source.await_key("a", Deadline(_TIMEOUT))
            for failure in (
                OSError("x"),
                TimeoutError("x"),
                TransportClosed("x"),
                ValueError("x"),
                b"<html>",
                b"",
            ):
                self.script.answers.put(failure)
                self.script.wait(self.script.fetches + 2)
                self.assertEqual(self.names(source), ["a"])
            self.script.keys("b")
            source.await_key("b", Deadline(_TIMEOUT))
            source.stop()
        kinds = [record.levelname for record in logs.records]
        self.assertEqual(kinds, ["INFO", "WARNING", "INFO"])

    def test_recovery_with_the_same_keys(self) -> None:
        """After a failure the same set is as good as a new one."""
        self.script.keys("a")
        source = self.source(interval=0.01)
        source.await_key("a", Deadline(_TIMEOUT))
        keys = source.keys
        with self.assertLogs("wsproxy.jwks_source", logging.INFO) as logs:
            self.script.answers.put(OSError("x"))
            self.script.wait(self.script.fetches + 2)
            self.script.keys("a")
            self.script.wait(self.script.fetches + 2)
        self.assertIs(source.keys, keys)
        self.assertEqual([record.levelname for record in logs.records], ["WARNING", "INFO"])

    def test_removal(self) -> None:
        """An empty set replaces the last keys: an issuer may withdraw all of its keys."""
        self.script.keys("a")
        source = self.source()
        source.await_key("a", Deadline(_TIMEOUT))
        self.script.keys()
        source.await_key("b", Deadline(_TIMEOUT))
        self.assertEqual(source.keys, ())

    def test_retried_soon(self) -> None:
        """After a failure it is tried again long before the interval is over."""
        self.script.answers.put(OSError("x"))
        with self.assertLogs("wsproxy.jwks_source", logging.WARNING):
            self.source()
            self.script.wait(4)

    def test_bug(self) -> None:
        """A bug is logged with its traceback, and the thread continues to fetch."""
        self.script.answers.put(ZeroDivisionError("oops"))
        with self.assertLogs("wsproxy.jwks_source", logging.ERROR) as logs:
            source = self.source()
            self.script.wait(2)
            self.script.keys("a")
            source.await_key("a", Deadline(_TIMEOUT))
        self.assertIn("ZeroDivisionError", logs.output[0])

    def test_secrets_are_refused(self) -> None:
        """A secret in a set at a URL is not used, because it is published."""
        self.script.answers.put(
            b'{"keys": [{"kty": "oct", "kid": "a", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"}]}'
        )
        with self.assertLogs("wsproxy.jwks", logging.WARNING):
            source = self.source()
            source.await_key(None, Deadline(_TIMEOUT))
        self.assertEqual(source.keys, ())

    def test_load(self) -> None:
        """Without a thread the caller fetches the set, and gets the errors."""
        source = self.source(start=False)
        self.script.answers.put(OSError("gone"))
        self.assertRaisesRegex(OSError, "gone", source.load, Deadline(5))
        self.script.answers.put(b"<html>")
        self.assertRaisesRegex(ValueError, "JSON", source.load, Deadline(5))
        self.script.keys("a")
        source.load(Deadline(5))
        self.assertEqual(self.names(source), ["a"])


class StopTest(LeakTestCase):
    def started(self, fetch: Callable[[Deadline, OnSocket], bytes]) -> JWKSClient:
        source = JWKSClient("https://a.example/", fetch, None, _NEVER)
        self.addCleanup(source.stop)
        source.start(self)
        return source

    def test_never_started(self) -> None:
        """A client that was never started can be stopped, any number of times."""
        source = JWKSClient("https://a.example/", Script().fetch, None, _NEVER)
        source.stop()
        source.stop()

    def test_breaks_off_a_fetch(self) -> None:
        """A stop aborts a fetch under way, or about to begin, and no failure is logged."""
        ours, theirs = socket.socketpair()
        entered = threading.Event()

        def fetch(deadline: Deadline, on_socket: OnSocket) -> bytes:
            on_socket(ours)
            entered.set()
            ours.settimeout(_TIMEOUT)
            ours.recv(1)
            on_socket(ours)
            return b""

        with ours, theirs, self.assertNoLogs("wsproxy.jwks_source"):
            source = self.started(fetch)
            self.assertTrue(entered.wait(_TIMEOUT))
            started = time.monotonic()
            source.stop()
            source.stop()
            self.assertLess(time.monotonic() - started, _SOON)

    def test_nobody_waits(self) -> None:
        """Callers that wait for a key, and later callers, get the error that the proxy stops."""
        script = Script()
        script.gate = threading.Event()
        source = self.started(script.fetch)
        script.wait(1)
        refused: list[bool] = []

        def wait() -> None:
            with self.assertRaises(Draining):
                source.await_key("a", Deadline(_TIMEOUT))
            refused.append(True)

        thread = threading.Thread(target=wait)
        thread.start()
        source.stop_waiting()
        thread.join()
        wait()
        self.assertEqual(refused, [True, True])
        source.await_key("a", None)
        script.gate.set()
