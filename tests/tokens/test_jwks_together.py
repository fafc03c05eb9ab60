"""Processes that share a store fetch a JWK Set for each other: one of them in each interval."""

from __future__ import annotations

import base64
import json
import logging
import os
import tempfile
import threading

from tests.tokens.test_jwks_client import Script
from wsproxy.exceptions import StoreUnavailable
from wsproxy.net.shared_copy import SharedCopy
from wsproxy.runtime.deadline import Deadline
from wsproxy.state.membership import Copy
from wsproxy.state.participant.copies import Copies
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.testing.case import LeakTestCase
from wsproxy.tokens.jwks import JWKSLocation
from wsproxy.tokens.jwks_client import JWKSClient, set_name

_LONG = 80_000.0
_WAIT = 10.0


class AwayStore(MemoryStore):
    """Nobody answers, from the start or later."""

    away = True

    def borrow(self, member: str, name: str, max_age: float, turn_seconds: float) -> Copy:
        if self.away:
            raise StoreUnavailable("away")
        return super().borrow(member, name, max_age, turn_seconds)


class TogetherCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.script = Script()  # the one URL
        self.store = MemoryStore()
        self.members = 0

    def process(
        self, interval: float = _LONG, pause: float = 0.02, store: MemoryStore | None = None
    ) -> JWKSClient:
        """Return the client of another process, which has begun to fetch."""
        self.members += 1
        copies = Copies(store or self.store, f"m{self.members}")
        client = JWKSClient("https://a.example/", self.script.fetch, None, interval, pause)
        self.addCleanup(client.stop)
        client.start(self, lambda: self.copy(copies, interval))
        return client

    def copy(self, copies: Copies, interval: float) -> SharedCopy:
        return copies.copy_of("jwks:x", 11.0, interval)

    def assert_key(self, name: str, *clients: JWKSClient) -> None:
        for client in clients:
            client.await_key(name, Deadline(_WAIT))
            self.assertIn(name, [key.kid for key in client.keys])


class FetchTest(TogetherCase):
    def test_start(self) -> None:
        """Of processes that start together one fetches; the others wait for it."""
        self.script.keys("a")
        self.script.gate = threading.Event()
        clients = [self.process(pause=_LONG) for _ in range(4)]
        self.script.wait(1)
        self.script.gate.set()
        self.assert_key("a", *clients)
        self.assertEqual(self.script.fetches, 1)

    def test_later_start(self) -> None:
        """A process that starts later than the pause fetches the set: it may be a restart."""
        self.script.keys("a")
        first = self.process()
        self.assert_key("a", first)
        self.script.keys("b")
        threading.Event().wait(0.05)  # longer than the pause
        self.assert_key("b", self.process())
        self.assertEqual(self.script.fetches, 2)

    def test_interval(self) -> None:
        """In each interval one process fetches, and all learn the new keys."""
        self.script.keys("a")
        clients = [self.process(interval=0.4) for _ in range(4)]
        self.assert_key("a", *clients)
        self.script.keys("b")
        fetches = self.script.fetches
        self.script.wait(fetches + 1)
        deadline = Deadline(_WAIT)
        while any([key.kid for key in client.keys] != ["b"] for client in clients):
            deadline.remaining()
        self.assertEqual(self.script.fetches, fetches + 1)

    def test_unknown_key(self) -> None:
        """A key that one process has fetched is no unknown one elsewhere; and one fetch is enough for all."""
        self.script.keys("a")
        clients = [self.process(pause=0.3) for _ in range(3)]
        self.assert_key("a", *clients)
        self.script.keys("a", "b")
        self.assert_key("b", *clients)
        self.assertEqual(self.script.fetches, 2)

    def test_older_copy(self) -> None:
        """A copy from before a key was asked for does not end the wait: the next fetch does."""
        self.script.keys("a")
        first = self.process(pause=0.2)
        self.assert_key("a", first)
        second = self.process(pause=0.2)
        self.assert_key("a", second)
        self.script.keys("a", "b")
        second.await_key("b", Deadline(_WAIT))
        self.assertEqual([key.kid for key in second.keys], ["a", "b"])
        self.assertEqual(self.script.fetches, 2)

    def test_refresh(self) -> None:
        """Who is told to fetch takes nothing from before, whoever has fetched it."""
        self.script.keys("a")
        clients = [self.process(pause=_LONG) for _ in range(3)]
        self.assert_key("a", *clients)
        self.script.keys("b")
        for client in clients:
            client.refresh()
        self.assert_key("b", *clients)
        self.assertLessEqual(self.script.fetches, 4)


class FaultTest(TogetherCase):
    def test_failure(self) -> None:
        """If one cannot fetch it, another tries."""
        self.script.answers.put(OSError("gone"))
        self.script.keys("a")
        with self.assertLogs("wsproxy.jwks_source", logging.WARNING):
            clients = [self.process(pause=_LONG) for _ in range(2)]
            self.script.wait(2)
            deadline = Deadline(_WAIT)
            while not any(client.keys for client in clients):
                deadline.remaining()

    def test_death_in_turn(self) -> None:
        """A process that dies in its turn blocks nobody: another one gets the turn at once."""
        self.assertTrue(self.store.borrow("dead", "jwks:x", 0.0, 60.0).is_turn)
        self.script.keys("a")
        client = self.process()
        client.await_key("a", Deadline(0.2))
        self.assertEqual((client.keys, self.script.fetches), ((), 0))
        self.store.leave("dead")
        self.assert_key("a", client)

    def test_stop_while_another_fetches(self) -> None:
        """A stop does not wait for another process's turn, and is no failure."""
        self.store.borrow("other", "jwks:x", 0.0, 60.0)
        with self.assertNoLogs("wsproxy.jwks_source", logging.WARNING):
            client = self.process()
            client.await_key("a", Deadline(0.1))
            client.stop()
        self.assertEqual(self.script.fetches, 0)

    def test_store_away(self) -> None:
        """Without the store each process fetches for itself, and asks the store again later only."""
        self.script.keys("a")
        store = AwayStore()
        self.assert_key("a", *(self.process(store=store, pause=_LONG) for _ in range(3)))
        self.assertEqual(self.script.fetches, 3)

    def test_nonsense(self) -> None:
        """What is in the store is checked as if it came from the URL. Of nonsense nothing is used."""
        for text in ("%%%", "PGh0bWw+", "e30=", "A" * 400_000):
            with self.subTest(text[:10]), self.assertLogs("wsproxy.jwks_source", logging.INFO):
                self.store = MemoryStore()
                self.store.borrow("liar", "jwks:x", 0.0, 60.0)
                self.store.keep("liar", "jwks:x", text, 60.0, 0.0)
                self.script.keys("a")
                self.assert_key("a", self.process(pause=_LONG))

    def test_secret(self) -> None:
        """A secret in the store is not used, no more than one at the URL."""
        secret = {"kty": "oct", "kid": "a", "k": "eHh4" * 11}
        text = base64.b64encode(json.dumps({"keys": [secret]}).encode()).decode()
        self.store.borrow("liar", "jwks:x", 0.0, 60.0)
        self.store.keep("liar", "jwks:x", text, 60.0, 0.0)
        with self.assertLogs("wsproxy.jwks", logging.WARNING):
            client = self.process(pause=_LONG)
            client.await_key(None, Deadline(_WAIT))
        self.assertEqual((client.keys, self.script.fetches), ((), 0))


class NameTest(LeakTestCase):
    def test_name(self) -> None:
        """The name says the URL and the authorities, and shows neither."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "ca")
            names = []
            for content in (b"one", b"two"):
                with open(path, "wb") as file:
                    file.write(content)
                names.append(set_name(JWKSLocation.parse("https://a.example/x?key=hidden"), path))
        for url in (
            "https://a.example/x?key=hidden",
            "https://a.example/x?key=other",
            "https://b.example/x?key=hidden",
        ):
            names.append(set_name(JWKSLocation.parse(url), None))
        self.assertEqual(len({*names}), 5)
        for name in names:
            self.assertRegex(name, "^jwks:[0-9a-f]{64}$")
