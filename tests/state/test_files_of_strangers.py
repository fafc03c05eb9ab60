"""Files that another user has put where a process keeps its state, such as in /tmp."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from wsproxy.exceptions import ConfigError, StoreUnavailable
from wsproxy.state.stores.local.lock import StoreLock, opened_beside
from wsproxy.state.stores.local.store import LocalStore
from wsproxy.state.stores.rule_file import RuleFile, rules_in
from wsproxy.testing.case import LeakTestCase

_STRANGER = 54321
_SECONDS = 5.0
_EMPTY = '{"schema":1,"rules":[]}'


class StrangerCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "state")

    def write(self, path: str) -> None:
        with open(path, "w", encoding="ascii") as file:
            file.write(_EMPTY)

    @contextmanager
    def is_strangers(self, path: str) -> Iterator[None]:
        """Context manager: a file, or a link, belongs to somebody else. Only root can give one away."""
        if os.geteuid() == 0:
            os.lchown(path, _STRANGER, _STRANGER)
            yield
        else:
            with mock.patch("os.geteuid", lambda: _STRANGER):
                yield

    def fault_in_time(self, call: Callable[[], object]) -> BaseException:
        """Return what a call raises; fail if it hangs."""
        raised: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except Exception as exc:  # noqa: BLE001 - the test looks at it
                raised.append(exc)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(_SECONDS)
        self.assertFalse(thread.is_alive(), "it hangs")
        self.assertTrue(raised, "nothing was raised")
        return raised[0]


class OfTheStore(StrangerCase):
    """Files beside the socket of the local store."""

    def test_fifo(self) -> None:
        """A FIFO without a reader at PATH.log does not hold up the process that starts the store."""
        os.mkfifo(f"{self.path}.log")
        store = LocalStore(self.path)
        self.addCleanup(store.close)
        with self.assertLogs("wsproxy.state.local", "ERROR"):
            self.assertIsInstance(self.fault_in_time(store.members), StoreUnavailable)

    def test_fifo_with_a_reader(self) -> None:
        """Nobody reads at a FIFO what the store says."""
        os.mkfifo(f"{self.path}.log")
        reader = os.open(f"{self.path}.log", os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        with self.assertRaisesRegex(PermissionError, "no ordinary file"):
            opened_beside(f"{self.path}.log", os.O_WRONLY | os.O_APPEND, None)

    def test_another_name(self) -> None:
        """A file of this user that a stranger has given the name is left as it is."""
        self.write(f"{self.path}.mine")
        os.chmod(f"{self.path}.mine", 0o600)
        os.link(f"{self.path}.mine", f"{self.path}.lock")
        with self.assertRaisesRegex(PermissionError, "another name"):
            StoreLock.take(self.path, os.getegid())
        self.assertEqual(os.stat(f"{self.path}.mine").st_mode & 0o777, 0o600)


class OfTheRules(StrangerCase):
    """The file of WSPROXY_STATE_FILE: who can write it can accept revoked tokens again."""

    def refused(self, text: str) -> None:
        for call in (lambda: rules_in(self.path), lambda: RuleFile(self.path)):
            fault = self.fault_in_time(call)
            self.assertIsInstance(fault, ConfigError)
            self.assertRegex(str(fault), text)

    def test_fifo(self) -> None:
        """A FIFO does not hold up the start."""
        os.mkfifo(self.path)
        self.refused("no ordinary file")

    def test_file(self) -> None:
        """A stranger's file is not believed."""
        RuleFile(self.path).close(())  # the lock is this user's
        self.write(self.path)
        with self.is_strangers(self.path):
            self.assertRaisesRegex(ConfigError, f"{self.path} belongs to user", rules_in, self.path)

    def test_link(self) -> None:
        """A stranger's link does not say which file is read, or replaced."""
        self.write(f"{self.path}.target")
        os.symlink(f"{self.path}.target", self.path)
        with self.is_strangers(self.path):
            self.refused("it is a link of user")

    def test_next_file(self) -> None:
        """Who has opened PATH.new before cannot write to what becomes PATH."""
        file = RuleFile(self.path)
        self.addCleanup(file.close, ())
        with open(f"{self.path}.new", "wb", buffering=0) as theirs:
            self.assertEqual(file.save([]), "")
            theirs.write(b"other rules")
        self.assertEqual(rules_in(self.path), ())

    def test_next_fifo(self) -> None:
        """A FIFO at PATH.new does not hold up a kick."""
        file = RuleFile(self.path)
        self.addCleanup(file.close, ())
        os.mkfifo(f"{self.path}.new")
        thread = threading.Thread(target=file.save, args=([],), daemon=True)
        thread.start()
        thread.join(_SECONDS)
        self.assertFalse(thread.is_alive(), "it hangs")
        self.assertEqual(rules_in(self.path), ())
