"""A Redis that is away, slow, full, restarted or forbids something; and what is left in it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.integration.redis_server import RedisCase, RedisServer
from tests.state.conformance.case import session
from wsproxy.exceptions import StoreUnavailable
from wsproxy.runtime.wall_clock import unix_time
from wsproxy.state.membership import Beat, Member, Publication, Pulse
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.stores.places import StatePlace, StateRules
from wsproxy.state.stores.redis.link import RedisLink
from wsproxy.state.stores.redis.store import RedisStore, redis_findings, redis_store
from wsproxy.state.values import Event, EventKind, Outcome, Request

__all__ = ["FaultsTest", "LeftoversTest", "OthersWriteTest", "RestartTest"]

_LOG = "wsproxy.state.redis"
_LEASE = 0.3
_GIVE_UP = 8.0


class StoreCase(RedisCase):
    """There is also a store, with the clock of Redis."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.connect()
        self.member = Member("m", "m", _LEASE)

    def connect(self, url: str = "", prefix: str = "wsproxy", **options: Any) -> RedisStore:
        store = RedisStore(RedisLink(StatePlace.parse(url or self.server.url), prefix, **options))
        self.addCleanup(store.close)
        return store

    def settle(self) -> Pulse:
        """Publish until the store admits somebody."""
        give_up = time.monotonic() + 10
        while True:
            pulse = self.store.publish(Publication(self.member))
            if pulse.settled:
                return pulse
            self.assertLess(time.monotonic(), give_up)
            threading.Event().wait(0.05)

    def refused(self, store: RedisStore | None = None) -> str:
        """Return the text of the error that an operation raises."""
        with self.assertLogs(_LOG, "ERROR") as logs, self.assertRaises(StoreUnavailable) as caught:
            (store or self.store).members()
        self.assertEqual(len(logs.output), 1)
        self.assertIsNone(logs.records[0].exc_info)
        self.assertIn(str(caught.exception), logs.output[0])
        return str(caught.exception)


class FaultsTest(StoreCase):
    def test_silent(self) -> None:
        """A stopped server is given one second; it is logged once, and once more when it is back."""
        self.store.members()
        self.server.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.server.process.send_signal, signal.SIGCONT)
        begin = time.monotonic()
        self.assertIn("not answered in time", self.refused())
        self.assertLess(time.monotonic() - begin, 1.5)
        with self.assertNoLogs(_LOG), self.assertRaises(StoreUnavailable):
            self.store.members()
        self.server.process.send_signal(signal.SIGCONT)
        with self.assertLogs(_LOG, "INFO") as logs:
            self.store.members()
        self.assertEqual(len(logs.output), 1)
        with self.assertNoLogs(_LOG):
            self.store.members()

    def test_byte_by_byte(self) -> None:
        """An answer that comes byte by byte takes no longer than one that never comes."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        gone = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(4096)
                connection.sendall(b"$13\r\nrun_id:abcd\r\n\r\n")
                connection.recv(4096)
                connection.sendall(b"$100000\r\n")
                for _ in range(int(_GIVE_UP / 0.1)):
                    if gone.wait(0.1):
                        return
                    connection.sendall(b"x")

        server = threading.Thread(target=serve)
        server.start()
        self.addCleanup(server.join)
        self.addCleanup(gone.set)
        begin = time.monotonic()
        store = self.connect(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        self.assertIn("has not answered in time", self.refused(store))
        self.assertLess(time.monotonic() - begin, _GIVE_UP - 1)

    def test_away(self) -> None:
        self.server.stop()
        self.assertIn(
            f"the Redis at redis+unix://{self.server.socket} is no help: it cannot be reached", self.refused()
        )
        self.server.start()
        self.store.members()

    def test_closed_meanwhile(self) -> None:
        """If the server has closed an idle connection, an operation does not notice."""
        self.store.members()
        self.client.client_kill_filter(_type="normal", skipme=True)
        with self.assertNoLogs(_LOG):
            self.store.members()

    def test_scripts_gone(self) -> None:
        self.store.members()
        self.client.script_flush()
        self.store.members()

    def test_password(self) -> None:
        """A password that is wrong is in no text."""
        self.client.config_set("requirepass", "right")
        store = self.connect(self.server.url.replace("://", "://somebody:wr0ng@"))
        text = self.refused(store)
        self.assertIn("refuses the user name or the password", text)
        self.assertNotIn("wr0ng", text)
        self.connect(self.server.url.replace("://", "://:right@")).members()

    def test_password_that_changes(self) -> None:
        """A new connection asks for the password anew."""
        self.client.config_set("requirepass", "one")
        password = ["one"]
        store = self.connect(password=lambda: password[0])
        store.members()
        self.client.config_set("requirepass", "two")
        self.client.client_kill_filter(_type="normal", skipme=True)
        self.assertIn("refuses the user name or the password", self.refused(store))
        password[0] = "two"
        store.members()

    def test_command_that_is_quoted(self) -> None:
        """A server without AUTH says what it does not know, and no error or log has the password in it."""
        server = RedisServer("--rename-command", "AUTH", "")
        self.addCleanup(server.close)
        place = StatePlace.parse(f"redis+unix://joe:hunter2@{server.socket}")
        rules = StateRules(place)
        store = redis_store(rules)
        self.addCleanup(store.close)
        with (
            self.assertRaisesRegex(StoreUnavailable, "unknown command .AUTH") as raised,
            self.assertLogs() as logs,
        ):
            store.members()
        said = [str(raised.exception), *logs.output, *(found.text for found in redis_findings(rules))]
        self.assertEqual(len(said), 3)
        for text in said:
            self.assertRegex(text, "unknown command .AUTH")
            self.assertNotRegex(text, "hunter2|joe")

    def test_policy(self) -> None:
        """A server that evicts is a fault."""
        self.assertEqual(self.store.faults(), ())
        self.client.config_set("maxmemory-policy", "allkeys-lru")
        [fault] = self.store.faults()
        self.assertIn("set it to noeviction", fault)

    def test_forbidden(self) -> None:
        """An ACL that forbids what is needed is named."""
        self.client.acl_setuser("meek", enabled=True, passwords="+p", keys="*", categories=["+@read"])
        self.assertIn(
            "its ACL forbids", self.refused(self.connect(self.server.url.replace("://", "://meek:p@")))
        )

    def test_no_memory(self) -> None:
        """Without memory nothing is done by halves."""
        self.settle()
        before = self.client.dump("{wsproxy}:1:meta"), self.client.dump("{wsproxy}:1:members")
        used = self.client.info("memory")["used_memory"]
        self.client.config_set("maxmemory", used // 2)
        with self.assertLogs(_LOG, "ERROR"), self.assertRaises(StoreUnavailable) as caught:
            self.store.admit("m", Request(session("s1")))
        self.assertIn("no memory left", str(caught.exception))
        after = self.client.dump("{wsproxy}:1:meta"), self.client.dump("{wsproxy}:1:members")
        self.assertEqual(before, after)
        self.assertEqual(self.client.keys("*sessions*"), [])

    def test_fork(self) -> None:
        """No connection before the first operation, and a child makes its own."""

        def names() -> set[str]:
            return {client["id"] for client in self.client.client_list()}

        before = names()
        self.assertEqual(len(before), 1)
        self.store.members()
        parents = names() - before
        self.assertEqual(len(parents), 1)
        child = os.fork()
        if not child:
            status = 1
            try:
                self.store.members()
                status = len(names() - before - parents) - 2  # with the test's own client
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.store.members()
        self.assertEqual(names() - before, parents)

    def test_closing_wakes_who_listens(self) -> None:
        self.settle()
        self.assertIn(self.store.listen("m", 0.01), (True, False))
        heard: list[bool] = []
        thread = threading.Thread(target=lambda: heard.append(self.store.listen("m", 20)))
        thread.start()
        self.store.close()
        thread.join(5)
        self.assertFalse(thread.is_alive())

    def test_listening_without_a_server(self) -> None:
        """It says that there may be news, and not more often than twice a second."""
        self.server.stop()
        begin = time.monotonic()
        self.assertTrue(self.store.listen("m", 5))
        self.assertGreater(time.monotonic() - begin, 0.4)


class OthersWriteTest(StoreCase):
    """Another client of the server has written to the keys."""

    def no_answer(self, ask: Callable[[], object]) -> None:
        with self.assertRaisesRegex(StoreUnavailable, "what this version does not understand") as raised:
            ask()
        self.assertNotIn("secret", str(raised.exception))

    def write_rule(self, match: str, until: str = '"inf"') -> None:
        rule = Rule("r", "k", 1.0, unix_time() + 60, Match(user="5"))
        self.client.flushall()
        self.assertTrue(self.store.revoke((rule,)).done)
        pack = "cmsgpack.pack({k = 'k', a = '1', u = ARGV[1], m = ARGV[2], n = '1'})"
        text = f"redis.call('HSET', KEYS[1], 'r', {pack})"
        self.client.eval(text, 1, "{wsproxy}:0:rules", until, match)

    def test_rules(self) -> None:
        """Rules that are none are no answer. So the process is out of step, and admits nobody."""
        for match in ('{"user":5}', "secret", "[" * 300, "NaN", '{"secret":' * 100_000 + "1" + "}" * 100_000):
            with self.subTest(match[:9]):
                self.write_rule(match)
                self.no_answer(lambda: self.store.rules(0))
        for until in ("1" + "0" * 400, "1" * 5000, "NaN", "Infinity"):
            with self.subTest(until[:9]):
                self.write_rule("null", until)
                self.no_answer(lambda: self.store.rules(0))

    def test_members(self) -> None:
        """The same holds for members."""
        self.settle()
        change = "local m = cmsgpack.unpack(redis.call('HGET', KEYS[1], 'm')); m.j = ARGV[1]"
        text = f"{change}; redis.call('HSET', KEYS[1], 'm', cmsgpack.pack(m))"
        self.client.eval(text, 1, "{wsproxy}:1:members", '{"id":"secret')
        self.no_answer(self.store.members)

    def test_tickets(self) -> None:
        """A ticket that is none lets nobody in."""
        self.settle()
        for ticket in ("secret", "{}", '{"grant":{}}', "[" * 300 + "]" * 300):
            with self.subTest(ticket[:9]):
                text = "redis.call('HSET', KEYS[1], 'd', cmsgpack.pack({u = '5', j = ARGV[1]}))"
                self.client.eval(text, 1, "{wsproxy}:1:tickets", ticket)
                self.no_answer(lambda: self.store.redeem("d"))


class RestartTest(StoreCase):
    def test_data(self) -> None:
        """A restart begins an epoch, with data or without; the rules stay where the data does."""
        rule = Rule("r", "k", unix_time(), float("inf"), Match(user="eve"))
        for data in (True, False):
            with self.subTest(data=data):
                pulse = self.settle()
                self.store.admit("m", Request(session("s1")))
                self.store.revoke((rule,))
                self.client.save()
                self.server.stop()
                if not data:
                    (self.server.directory / "dump.rdb").unlink()
                self.server.start()
                found = self.store.beat("m", Beat(1, pulse.epoch))
                self.assertNotEqual(found.epoch, pulse.epoch)
                self.assertEqual((found.known, found.settled), (False, False))
                self.assertEqual(self.store.rules(0).rules, (rule,) if data else ())
                admitted = self.store.admit("m", Request(session("s2")))
                self.assertIs(admitted.outcome, Outcome.UNSETTLED)


class LeftoversTest(StoreCase):
    def test_lifetimes(self) -> None:
        """Every key ends by itself but for a rule without an end; and one that has a lease holds nothing."""
        self.settle()
        self.store.admit("m", Request(session("s1")))
        self.store.admit("m", Request(session("s2")))
        mark = Event(EventKind.MARK, "s3", session("s3").console, "bob")
        self.store.report("m", (mark, Event(EventKind.RELEASED, "s2")))
        self.store.tell("m", "s1", 4499, "kicked")
        now = unix_time()
        self.store.revoke((Rule("r", "k", now, now + 60, Match(user="eve")),))
        self.assertEqual(
            {key: self.client.ttl(key) > 0 for key in self.keys()}, dict.fromkeys(self.keys(), True)
        )
        self.assertGreaterEqual(len(self.keys()), 12)
        self.store.revoke((Rule("r2", "k", now, float("inf"), Match(user="eve")),))
        endless = {key for key in self.keys() if self.client.ttl(key) < 0}
        self.assertEqual({key.rpartition(":")[2].partition("-")[0] for key in endless}, {"rule", "rules"})
        threading.Event().wait(_LEASE)
        self.assertEqual(self.store.members(), ())
        left = {key for key in self.keys() if "rule" not in key}
        self.assertLessEqual(left, {"{wsproxy}:0:schema", "{wsproxy}:1:meta", "{wsproxy}:1:ended"})

    def keys(self) -> list[str]:
        return sorted(key.decode() for key in self.client.keys("*"))

    def test_prefixes(self) -> None:
        """Two deployments share a server and know nothing of each other."""
        other = self.connect(prefix="other")
        self.settle()
        self.assertEqual(other.members(), ())
        self.assertEqual(self.store.members(), (self.member,))
