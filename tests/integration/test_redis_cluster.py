"""A Cluster of three real servers: the keys are found, MOVED is followed, and a move splits nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from redis import Redis
from redis.crc import key_slot

from tests.integration.redis_server import REDIS_SERVER, RedisServer, free_port_of_node
from wsproxy.exceptions import StoreUnavailable
from wsproxy.runtime.wall_clock import unix_time
from wsproxy.state.membership import Beat, Member, Publication
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.stores.choice import check_store
from wsproxy.state.stores.findings import FAULT, OK, WARNING
from wsproxy.state.stores.places import StatePlace, StateRules
from wsproxy.state.stores.redis.link import RedisLink
from wsproxy.state.stores.redis.store import RedisStore
from wsproxy.testing import LeakTestCase

_SLOTS = 16384
_LOG = "wsproxy.state.redis"
_SLOT = key_slot(b"wsproxy")
_PASSWORD = "s3cret"


class Node(RedisServer):
    """One node, with its name in the Cluster."""

    def __init__(self) -> None:
        self.port = free_port_of_node()
        fixed = ("--port", str(self.port), "--bind", "127.0.0.1", "--cluster-enabled", "yes")
        account = ("--requirepass", _PASSWORD, "--masterauth", _PASSWORD)
        super().__init__(*fixed, "--cluster-node-timeout", "1000", *account)
        self.connection: Any = Redis(port=self.port, password=_PASSWORD, decode_responses=True)
        self.id: str = self.ask("MYID")

    def ask(self, *command: object) -> Any:
        return self.connection.execute_command("CLUSTER", *command)

    def is_ready(self, nodes: int = 3) -> bool:
        said = self.ask("INFO")
        return "cluster_state:ok" in said and f"cluster_known_nodes:{nodes}" in said

    def close(self) -> None:
        self.connection.close()
        super().close()


def until(seconds: float, call: Callable[[], Any]) -> Any:
    """Return what a call returns once that is true and it finds the store."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            if found := call():
                return found
        except StoreUnavailable:
            pass
        assert time.monotonic() < give_up, "too late"
        threading.Event().wait(0.05)


class ClusterTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        if REDIS_SERVER is None:
            self.skipTest("no redis-server")
        self.nodes = [Node() for _ in range(3)]
        for node in self.nodes:
            self.addCleanup(node.close)
        first, *others = self.nodes
        share = _SLOTS // 3 + 1
        for number, node in enumerate(self.nodes):
            node.ask("ADDSLOTS", *range(number * share, min((number + 1) * share, _SLOTS)))
            node.ask("SET-CONFIG-EPOCH", number + 1)
        for node in others:
            first.ask("MEET", "127.0.0.1", node.port)
        for node in self.nodes:
            until(30, node.is_ready)
        self.owner = self.nodes[_SLOT // share]
        self.others = [node for node in self.nodes if node is not self.owner]

    def store(self, *nodes: Node) -> RedisStore:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        store = RedisStore(RedisLink(StatePlace.parse(f"redis+cluster://:{_PASSWORD}@{hosts}")))
        self.addCleanup(store.close)
        return store

    def move(self, to: Node) -> None:
        """Move the slot with all of its keys, as redis-cli does."""
        while keys := self.owner.ask("GETKEYSINSLOT", _SLOT, 100):
            target = ("127.0.0.1", to.port, "", 0, 5000, "AUTH", _PASSWORD, "KEYS", *keys)
            self.owner.connection.execute_command("MIGRATE", *target)
        for node in (to, self.owner, *self.nodes):
            node.ask("SETSLOT", _SLOT, "NODE", to.id)

    def test_any_node_knows(self) -> None:
        """Any node may be named, and one of those that are may be away."""
        for node in self.nodes:
            self.assertEqual(self.store(node).members(), ())
        gone = self.others[0]
        gone.stop()
        with (
            self.assertLogs(_LOG, "ERROR"),
            self.assertRaisesRegex(StoreUnavailable, "no node of the Cluster"),
        ):
            self.store(gone).members()
        self.store(gone, self.others[1]).members()

    def test_check(self) -> None:
        """The check finds the node with the keys, and says so if the user may not ask for it."""
        state = f"redis+cluster://127.0.0.1:{self.nodes[0].port}"
        for user, rights in (("lab", "+@all"), ("meek", "-cluster")):
            for node in self.nodes:
                account = ("on", ">p", "~*", "allchannels", "+@all", rights)
                node.connection.execute_command("ACL", "SETUSER", user, *account)
        levels = {
            user: {
                one.level
                for one in check_store(StateRules(StatePlace.parse(state.replace("//", f"//{user}:p@"))))
            }
            for user in ("lab", "meek")
        }
        self.assertEqual(levels, {"lab": {OK, WARNING}, "meek": {FAULT}})
        store = RedisStore(RedisLink(StatePlace.parse(state.replace("//", "//meek:p@"))))
        self.addCleanup(store.close)
        with self.assertLogs(_LOG, "ERROR"), self.assertRaisesRegex(StoreUnavailable, "its ACL forbids"):
            store.members()

    def test_news(self) -> None:
        """Notifications arrive."""
        store = self.store(self.nodes[0])
        until(20, lambda: store.publish(Publication(Member("m", "m", 0.3))).settled)
        heard = threading.Event()

        def listen() -> None:
            while not store.listen("m", 10):
                pass
            heard.set()

        store.listen("m", 0)  # subscribes
        thread = threading.Thread(target=listen)
        thread.start()
        self.addCleanup(thread.join, 20)
        store.revoke((Rule("r", "k", unix_time(), float("inf"), Match(user="eve")),))
        self.assertTrue(heard.wait(10))

    def test_move(self) -> None:
        """While the keys are moved to another node nobody decides; then all is there, in a new epoch."""
        store = self.store(*self.nodes)
        member = Member("m", "m", 15.0)
        pulse = store.publish(Publication(member))
        rule = Rule("r", "k", unix_time(), float("inf"), Match(user="eve"))
        self.assertTrue(store.revoke((rule,)).done)
        target = self.others[0]
        target.ask("SETSLOT", _SLOT, "IMPORTING", self.owner.id)
        self.owner.ask("SETSLOT", _SLOT, "MIGRATING", target.id)
        with self.assertLogs(_LOG, "ERROR"), self.assertRaisesRegex(StoreUnavailable, "moves the keys"):
            store.members()
        self.assertEqual(target.connection.dbsize(), 0)
        self.move(target)
        found = until(10, lambda: store.beat("m", Beat(1, pulse.epoch)))
        self.assertNotEqual(found.epoch, pulse.epoch)
        self.assertEqual(store.rules(0).rules, (rule,))
        self.assertEqual(self.owner.connection.dbsize(), 0)

    def test_failover(self) -> None:
        """A replica takes over from a node that dies, and is found."""
        replica = Node()
        self.addCleanup(replica.close)
        self.owner.ask("MEET", "127.0.0.1", replica.port)
        for node in (replica, *self.nodes):
            until(30, partial(node.is_ready, 4))
        replica.ask("REPLICATE", self.owner.id)
        until(
            30, lambda: self.owner.connection.set("{wsproxy}test", 1) and self.owner.connection.wait(1, 100)
        )
        store = self.store(self.others[0])
        pulse = store.publish(Publication(Member("m", "m", 15.0)))
        rule = Rule("r", "k", unix_time(), float("inf"), Match(user="eve"))
        self.assertTrue(store.revoke((rule,)).done)
        self.owner.stop()
        found = until(30, lambda: store.beat("m", Beat(1, pulse.epoch)))
        self.assertNotEqual(found.epoch, pulse.epoch)
        self.assertEqual(store.rules(0).rules, (rule,))
