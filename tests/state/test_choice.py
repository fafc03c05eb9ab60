"""The store that the settings choose: nothing is connected, and files and packages that miss are said."""

from __future__ import annotations

import os
import socket
import sys
from unittest import mock

from wsproxy.exceptions import ConfigError
from wsproxy.state.store import Store
from wsproxy.state.stores.choice import open_store, replica_name
from wsproxy.state.stores.local.store import LocalStore
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.stores.places import StatePlace, StateRules
from wsproxy.testing import LeakTestCase


class ChoiceTest(LeakTestCase):
    def opened(self, state: str, **more: str) -> Store:
        store = open_store(StateRules(StatePlace.parse(state), **more))  # type: ignore[arg-type]
        self.addCleanup(store.close)
        return store

    def fault(self, state: str, **more: str) -> str:
        with self.assertRaises(ConfigError) as caught:
            self.opened(state, **more)
        (fault,) = caught.exception.faults
        return fault

    def test_kinds(self) -> None:
        self.assertIsInstance(self.opened("memory"), MemoryStore)
        self.assertIsInstance(self.opened("local:/nope/x", group=str(os.getgid())), LocalStore)

    def test_group(self) -> None:
        """A group by name, and some that are none."""
        self.opened("local:/nope/x", group="root")
        for group in ("no-such", str(2**32 - 1), "9" * 50):
            self.assertEqual(
                self.fault("local:/nope/x", group=group),
                f"state_group is {group!r}; this system has no such group",
            )
        self.assertIn("this system has no such group", self.fault("local:/nope/x", group="a\0b"))

    def test_without_library(self) -> None:
        """Without redis-py the remedy is said."""
        hidden = {name: None for name in sys.modules if name == "redis" or name.startswith("redis.")}
        gone = [name for name in sys.modules if name.startswith("wsproxy.state.stores.redis.")]
        with mock.patch.dict(sys.modules, {"redis": None, **hidden}):
            for name in gone:
                del sys.modules[name]
            self.assertRegex(self.fault("redis://h"), r"pip install 'lab-orchestrator-ws-proxy-lib\[redis\]'")

    def test_name(self) -> None:
        self.assertEqual(replica_name(StateRules(replica="blue")), "blue")
        self.assertEqual(replica_name(StateRules()), socket.gethostname())
        with mock.patch.object(socket, "gethostname", return_value=f"a\n{'b' * 200}"):
            self.assertEqual(replica_name(StateRules()), f"a?{'b' * 98}")
