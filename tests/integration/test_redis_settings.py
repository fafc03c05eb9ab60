"""The Redis that settings name: its files, and nothing that is connected before the first operation."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.integration.redis_server import RedisCase
from wsproxy.exceptions import ConfigError, StoreUnavailable
from wsproxy.state.store import Store
from wsproxy.state.stores.choice import open_store
from wsproxy.state.stores.places import StatePlace, StateRules
from wsproxy.testing import LeakTestCase

_LOG = "wsproxy.state.redis"


class SettingsCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = Path(holder.name, "file")

    def opened(self, state: str, **more: Any) -> Store:
        store = open_store(StateRules(StatePlace.parse(state), **more))
        self.addCleanup(store.close)
        return store

    def write(self, text: str) -> None:
        """Replace the file, as Kubernetes does."""
        other = self.path.with_suffix(".new")
        other.write_text(text, encoding="utf-8")
        os.replace(other, self.path)


class FilesTest(SettingsCase):
    def fault(self, state: str, **more: Any) -> str:
        with self.assertRaises(ConfigError) as caught:
            self.opened(state, **more)
        (fault,) = caught.exception.faults
        return fault.replace(str(self.path), "FILE")

    def test_password_file(self) -> None:
        read = self.fault("redis://h", password_file=str(self.path))
        self.assertEqual(
            read,
            "state_password_file names FILE, which cannot be read: No such file or directory; mount or make "
            "it there, or name another file",
        )
        for text, fault in (
            ("", "is empty"),
            ("\n", "is empty"),
            ("a\nb\n", "has more than one line of text"),
        ):
            self.write(text)
            self.assertEqual(
                self.fault("redis://h", password_file=str(self.path)),
                f"state_password_file names FILE, which {fault}; write nothing but the password into it",
            )

    def test_ca_file(self) -> None:
        read = self.fault("rediss://h", ca_file=str(self.path))
        self.assertRegex(read, "^state_ca_file names FILE, which cannot be read: No such file")
        self.write("nonsense")
        self.assertRegex(
            self.fault("rediss://h", ca_file=str(self.path)),
            r"^state_ca_file: .*FILE.*; name a file with certificates \(PEM\)$",
        )

    def test_lazy(self) -> None:
        """No server is there, and no thread and no descriptor is needed to make a store."""
        self.write("p\n")
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for state in (
            "redis://nowhere.invalid",
            "rediss://nowhere.invalid",
            "redis+unix:///nope/x",
            "redis+sentinel://nowhere.invalid/main",
            "rediss+cluster://nowhere.invalid",
        ):
            with self.subTest(state):
                self.opened(state, password_file=str(self.path))
        self.assertEqual(threading.active_count(), threads)
        self.assertEqual(len(os.listdir("/proc/self/fd")), descriptors)


class PasswordTest(RedisCase, SettingsCase):
    def drop(self) -> None:
        self.client.client_kill_filter(_type="normal", skipme=True)

    def test_rotation(self) -> None:
        """A new password counts from the next connection on; while both hold, nobody notices."""
        rights = ("on", "~*", "allchannels", "+@all")
        self.client.acl_setuser("lab", enabled=True, passwords=["+one"], categories=["+@all"], keys=["*"])
        self.client.execute_command("ACL", "SETUSER", "lab", *rights)
        self.write("one\n")
        store = self.opened(self.server.url.replace("://", "://lab@"), password_file=str(self.path))
        self.assertEqual(store.members(), ())
        self.client.execute_command("ACL", "SETUSER", "lab", ">two")
        self.write("two\n")
        self.client.execute_command("ACL", "SETUSER", "lab", "<one")
        self.drop()
        with self.assertNoLogs(_LOG):
            self.assertEqual(store.members(), ())

    def test_file_is_away(self) -> None:
        """If the file is gone, the last password stays in use; a wrong one is one error without it."""
        self.client.config_set("requirepass", "one")
        self.write("one")
        store = self.opened(self.server.url, password_file=str(self.path))
        self.path.unlink()
        with self.assertLogs("wsproxy.reloaded", "WARNING"):
            self.assertEqual(store.members(), ())
        self.write("wr0ng")
        self.drop()
        with self.assertLogs(_LOG, "ERROR") as logs, self.assertRaises(StoreUnavailable) as caught:
            store.members()
        self.assertIn("refuses the user name or the password", str(caught.exception))
        self.assertNotIn("wr0ng", str(caught.exception) + "".join(logs.output))
