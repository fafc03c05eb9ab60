"""What ``wsproxy check`` says of a store: each fault and each warning, with its remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest import mock

from tests.integration.redis_server import RedisCase, RedisServer
from tests.support.ports import free_port
from wsproxy.runtime.wall_clock import unix_time
from wsproxy.state.stores.choice import check_store, open_store, store_faults
from wsproxy.state.stores.findings import FAULT, OK, WARNING, StoreFinding
from wsproxy.state.stores.places import StatePlace, StateRules
from wsproxy.state.stores.redis.check import probes
from wsproxy.testing import LeakTestCase

_LUA = Path(__file__).parents[2] / "wsproxy" / "state" / "stores" / "redis" / "lua"
_OPTIONS = {"LIMIT", "WITHSCORES"}


def check(state: str, **more: Any) -> list[StoreFinding]:
    return list(check_store(StateRules(StatePlace.parse(state), **more)))


class ProbesTest(LeakTestCase):
    def test_all_commands(self) -> None:
        """The check tries every command that a script uses, and no other."""
        text = "".join(file.read_text(encoding="utf-8") for file in _LUA.rglob("*.lua"))
        used = set(re.findall("'([A-Z]{3,})'", text)) - _OPTIONS
        self.assertEqual({str(command[0]) for command in probes("")}, used)


class RedisCheckTest(RedisCase):
    def found(self, level: str, word: str, state: str = "") -> str:
        """Return what one finding says."""
        texts = [
            one.text for one in check(state or self.server.url) if one.level == level and word in one.text
        ]
        self.assertEqual(len(texts), 1, check(state or self.server.url))
        return texts[0]

    def test_all_is_well(self) -> None:
        """One line for each check, no key is left, and the log has nothing."""
        self.client.config_set("appendonly", "yes")
        with self.assertNoLogs():
            findings = check(self.server.url)
        self.assertEqual({one.level for one in findings}, {OK}, findings)
        words = ("it answers, and is ", "noeviction", "clock", "AOF", "no replica", "every command")
        for word, one in zip(words, findings, strict=True):
            self.assertIn(word, one.text)
        self.assertEqual(self.client.dbsize(), 0)

    def test_persistence(self) -> None:
        self.assertIn("set appendonly to yes", self.found(WARNING, "nothing to its disk"))
        self.client.config_set("save", "3600 1")
        self.found(OK, "RDB")
        self.client.execute_command(
            "ACL", "SETUSER", "lab", "on", ">p", "~*", "allchannels", "+@all", "-config"
        )
        self.found(WARNING, "its snapshots cannot be read", self.server.url.replace("://", "://lab:p@"))

    def test_rights(self) -> None:
        """Every command that is missing is named, with the rights to give."""
        rights = (
            "on",
            ">p",
            "~{wsproxy}:*",
            "resetchannels",
            "&{wsproxy}:*",
            "+@all",
            "-hset",
            "-zadd",
            "-subscribe",
        )
        self.client.execute_command("ACL", "SETUSER", "lab", *rights)
        text = self.found(FAULT, "its ACL", self.server.url.replace("://", "://lab:p@"))
        self.assertEqual(
            text,
            "its ACL forbids commands; allow the user +hset +zadd +subscribe ~{wsproxy}:* &{wsproxy}:*",
        )

    def test_rights_that_suffice(self) -> None:
        """These and no others are needed."""
        used = sorted({str(command[0]) for command in probes("")})
        needed = [
            f"+{name.lower()}" for name in (*used, "eval", "evalsha", "info", "wait", "ping", "subscribe")
        ]
        rights = ("on", ">p", "~{wsproxy}:*", "resetchannels", "&{wsproxy}:*", "-@all", *needed)
        self.client.execute_command("ACL", "SETUSER", "lab", *rights)
        state = self.server.url.replace("://", "://lab:p@")
        self.assertEqual([one for one in check(state) if one.level == FAULT], [])
        store = open_store(StateRules(StatePlace.parse(state)))
        self.addCleanup(store.close)
        self.assertEqual(store.members(), ())
        store.listen("m", 0)
        self.assertFalse(store.listen("m", 0), "it is not subscribed")

    def test_rights_of_keys(self) -> None:
        """Another prefix than the one that the user may have."""
        self.client.execute_command(
            "ACL", "SETUSER", "lab", "on", ">p", "~{other}:*", "resetchannels", "&{other}:*", "+@all"
        )
        text = self.found(FAULT, "its ACL", self.server.url.replace("://", "://lab:p@"))
        self.assertIn("~{wsproxy}:* &{wsproxy}:*", text)

    def test_policy(self) -> None:
        """A policy that evicts is a fault, also at the start of a process."""
        store = open_store(StateRules(StatePlace.parse(self.server.url)))
        self.addCleanup(store.close)
        self.assertEqual(store_faults(store), ())
        self.client.config_set("maxmemory-policy", "volatile-ttl")
        self.assertIn("volatile-ttl; set it to noeviction", self.found(FAULT, "maxmemory-policy"))
        (fault,) = store_faults(store)
        self.assertIn("volatile-ttl; set it to noeviction", fault)

    def test_memory(self) -> None:
        """A server without memory refuses what writes."""
        self.client.config_set("maxmemory", "100kb")
        self.assertIn("OOM", self.found(FAULT, "it refuses"))

    def test_clock(self) -> None:
        for seconds, text in ((42.0, "its clock is 42 s behind"), (-6.0, "its clock is 6 s ahead of")):
            now = unix_time() + seconds
            with mock.patch("wsproxy.state.stores.redis.check.unix_time", return_value=now):
                self.assertIn("set both by NTP", self.found(WARNING, text))

    def test_replicas(self) -> None:
        port = free_port()
        primary = RedisServer("--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
        self.addCleanup(primary.close)
        replica = RedisServer("--replicaof", "127.0.0.1", str(port))
        self.addCleanup(replica.close)
        with primary.client() as client:
            while not client.wait(1, 100):
                pass
        self.found(OK, "it has 1 replica, and a kick waits for one", primary.url)
        self.found(FAULT, "it is a replica; name the primary", replica.url)

    def test_version(self) -> None:
        """A server that is too old is a fault."""
        said = {"redis_version": "6.0.16"}
        with mock.patch("wsproxy.state.stores.redis.check._info", return_value=said):
            self.assertIn("it is Redis 6.0.16; wsproxy needs", self.found(FAULT, "wsproxy needs"))
            self.found(WARNING, "its maxmemory-policy cannot be read")

    def test_away(self) -> None:
        """Nothing is logged: the finding says it."""
        self.server.stop()
        with self.assertNoLogs():
            (finding,) = check(self.server.url)
        self.assertEqual(finding.level, FAULT)
        self.assertIn("it cannot be reached", finding.text)

    def test_password(self) -> None:
        self.client.config_set("requirepass", "right")
        (finding,) = check(self.server.url.replace("://", "://:wr0ng@"))
        self.assertIn("refuses the user name or the password", finding.text)
        self.assertNotIn("wr0ng", finding.text)
