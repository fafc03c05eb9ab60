"""The store in a process of its own does what every store must, and survives what happens to processes."""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from wsproxy.exceptions import ConfigError, StoreUnavailable
from wsproxy.state.console_policies import Policy
from wsproxy.state.membership import Beat, Member, Publication, Pulse
from wsproxy.state.stores.local.connection import StoreConnection
from wsproxy.state.stores.local.lock import StoreLock
from wsproxy.state.stores.local.store import LocalStore
from wsproxy.state.values import NO_LIMITS, Held, Outcome, Request, Stage
from wsproxy.testing.case import LeakTestCase

from .conformance import conformance
from .conformance.case import session
from .local import Local

_LOGGER = "wsproxy.state.local"
_GROUP = 54321
_context = multiprocessing.get_context("forkserver")


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    return unittest.TestSuite([tests, conformance(loader, Local, without="test_bound")])


def publish(store: LocalStore, id: str, *held: Held, lease: float = 15.0) -> Pulse:
    return store.publish(Publication(Member(id, id, lease), sessions=held))


def hold_a_console(path: str, ready: Callable[[None], None]) -> None:
    """Be a member with a console until the end."""
    store = LocalStore(path, starts=False)
    publish(store, "other", Held(session("s1"), Stage.OPEN, Policy.REFUSE))
    ready(None)
    signal.pause()


class StoreProcessCase(LeakTestCase):
    """A directory for a store that is started on demand, and ends with the test."""

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix="wsproxy-")
        self.addCleanup(directory.cleanup)
        self.path = f"{directory.name}/store"
        self.addCleanup(self.end_store)

    def said(self) -> dict[str, object]:
        """Return what the lock's file says."""
        said: dict[str, object] = json.loads(Path(f"{self.path}.lock").read_text())
        return said

    def pid(self) -> int:
        pid = self.said()["pid"]
        assert isinstance(pid, int)
        return pid

    def log(self) -> str:
        return Path(f"{self.path}.log").read_text()

    def end_store(self) -> None:
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            self.kill()

    def kill(self) -> None:
        """Kill the store, and wait until it is gone."""
        os.kill(self.pid(), signal.SIGKILL)
        self.wait_for_its_end()

    def wait_for_its_end(self) -> None:
        with open(f"{self.path}.lock", "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)

    def new(self, *, timeout: float = 20.0, starts: bool = True) -> LocalStore:
        """Return one process's side. Its time is long, because a start may take long here."""
        store = LocalStore(self.path, timeout=timeout, starts=starts)
        self.addCleanup(store.close)
        return store


class StartTest(StoreProcessCase):
    def test_detached(self) -> None:
        """The store has nothing of who started it: no descriptor, no secret, no session."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.set_inheritable(True)
            os.environ["WSPROXY_TEST_SECRET"] = "hidden"
            self.addCleanup(os.environ.pop, "WSPROXY_TEST_SECRET")
            publish(self.new(), "a")
            inode = os.fstat(listener.fileno()).st_ino
        pid = self.pid()
        links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        self.assertNotIn(f"socket:[{inode}]", links)
        self.assertNotIn(b"hidden", Path(f"/proc/{pid}/environ").read_bytes())
        self.assertNotEqual(os.getsid(pid), os.getsid(0))
        self.assertNotIn(f"\nPPid:\t{os.getpid()}\n", Path(f"/proc/{pid}/status").read_text())
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_two_at_once(self) -> None:
        """Of many who need a store at once one starts it, and all have the same."""
        stores = [self.new() for _ in range(6)]
        epochs: list[str] = []
        begin = threading.Barrier(len(stores))

        def publish_at_once(store: LocalStore) -> None:
            begin.wait()
            epochs.append(publish(store, f"m{id(store)}").epoch)

        threads = [threading.Thread(target=publish_at_once, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((len(epochs), len(set(epochs))), (6, 1))
        self.assertEqual(self.log().count("the store answers"), 1)

    @unittest.skipUnless(os.geteuid() == 0, "needs root to be another user")
    def test_group(self) -> None:
        """Another user in the group shares the state; one who is not in it cannot."""
        os.chmod(os.path.dirname(self.path), 0o755)
        store = LocalStore(self.path, group=_GROUP, timeout=20)
        self.addCleanup(store.close)
        publish(store, "a")
        for name in ("", ".lock", ".log"):
            status = os.stat(self.path + name)
            self.assertEqual((status.st_mode & 0o777, status.st_gid), (0o660, _GROUP), name)
        for groups, status_of_child in (([_GROUP], 0), ([], 1)):
            child = os.fork()
            if child == 0:
                status_of_child = 1
                with suppress(BaseException):
                    os.setgroups(groups)
                    os.setgid(65534)
                    os.setuid(65534)
                    logging.disable()
                    status_of_child = 0 if publish(store, "child").known else 2
                os._exit(status_of_child)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), status_of_child)

    def test_stale_socket(self) -> None:
        """A socket that nobody listens at is replaced."""
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(self.path)
        self.assertTrue(publish(self.new(), "a").known)

    def test_no_socket(self) -> None:
        """A file that is no socket stays, and the error says so."""
        Path(self.path).write_text("precious")
        store = self.new(timeout=0.3)
        with self.assertLogs(_LOGGER, "ERROR"), self.assertRaises(StoreUnavailable):
            publish(store, "a")
        self.wait_for_its_end()
        self.assertEqual(Path(self.path).read_text(), "precious")
        self.assertIn("not a socket", self.log())

    def test_no_directory(self) -> None:
        """The error names what is missing; a second one logs nothing more."""
        store = LocalStore(f"{self.path}/missing/store")
        with self.assertLogs(_LOGGER, "ERROR") as logged:
            for _ in range(2):
                with self.assertRaisesRegex(StoreUnavailable, "its directory is missing; make it"):
                    store.members()
        self.assertEqual(len(logged.records), 1)

    def test_managed(self) -> None:
        """Where a service manager runs the store, nobody else starts it."""
        lock = StoreLock.take(self.path)
        assert lock
        with lock:
            lock.note(managed=True, members=False)
        with self.assertLogs(_LOGGER, "ERROR"), self.assertRaisesRegex(StoreUnavailable, "wsproxy state"):
            self.new().members()
        self.assertFalse(os.path.exists(self.path))
        os.remove(f"{self.path}.lock")

    def test_path(self) -> None:
        for path in ("", "a\0b", "x" * 101):
            with self.subTest(path), self.assertRaises(ConfigError):
                LocalStore(path)


class StoreLockTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="wsproxy-")
        self.addCleanup(directory.cleanup)
        self.path = f"{directory.name}/store"

    def lock(self) -> StoreLock:
        lock = StoreLock.take(self.path)
        assert lock
        self.addCleanup(lock.close)
        return lock

    def had_members(self, text: str) -> bool:
        Path(f"{self.path}.lock").write_text(text)
        with self.lock() as lock:
            return lock.had_members(first=True)

    def test_once(self) -> None:
        """One has it at a time; it is free when the last copy is closed."""
        lock = self.lock()
        self.assertIsNone(StoreLock.take(self.path))
        copy = os.dup(lock.descriptor)
        lock.close()
        self.assertIsNone(StoreLock.take(self.path))
        os.close(copy)
        self.lock()

    def test_first(self) -> None:
        """Whether a new file says that there was nobody is for the caller to say."""
        with self.lock() as lock:
            self.assertEqual([lock.had_members(first=first) for first in (True, False)], [False, True])

    def test_said(self) -> None:
        """What the last one wrote counts, unless the system has started anew since."""
        with self.lock() as lock:
            for members in (True, False):
                lock.note(managed=False, members=members)
                self.assertEqual(lock.had_members(first=False), members)
            self.assertFalse(lock.is_managed)
        self.assertFalse(self.had_members('{"members": true, "boot": "another"}'))

    def test_garbage(self) -> None:
        """What is cut off or means nothing says nothing: there may have been members."""
        for text in ('{"managed": fal', "[]", "{}", "\0", '{"boot": 5, "members"'):
            with self.subTest(text):
                self.assertTrue(self.had_members(text))

    def test_link(self) -> None:
        """A link in the file's place is not followed."""
        os.symlink("/dev/null", f"{self.path}.lock")
        with self.assertRaises(OSError):
            StoreLock.take(self.path)


class DeathTest(StoreProcessCase):
    def test_killed(self) -> None:
        """A store that is killed is started again, knows nobody, and admits nobody yet."""
        store = self.new()
        first = publish(store, "a")
        self.assertTrue(first.settled)
        self.kill()
        with self.assertNoLogs(_LOGGER, "ERROR"):
            pulse = store.beat("a", Beat(1, first.epoch))
        self.assertNotEqual(pulse.epoch, first.epoch)
        self.assertEqual((pulse.known, pulse.settled), (False, False))
        self.assertTrue(publish(store, "a").known)
        other = self.new()
        publish(other, "b")
        self.assertEqual([member.id for member in other.members()], ["a", "b"])
        other.listen("b", 0.0)
        store.close()
        other.listen("b", 5)  # the new store, too, sees the end of the process
        self.assertEqual([member.id for member in other.members()], ["b"])

    def test_killed_without_members(self) -> None:
        """One that ends in good order, with nobody there, leaves no doubt to the next."""
        store = self.new()
        publish(store, "a")
        self.assertTrue(self.said()["members"])
        os.kill(self.pid(), signal.SIGTERM)
        self.wait_for_its_end()
        self.assertFalse(os.path.exists(self.path))
        self.assertTrue(self.said()["members"])
        self.assertFalse(publish(store, "a").settled)

    def test_stopped(self) -> None:
        """While the store is stopped a call ends in time; afterwards its members are still known."""
        publish(self.new(), "other")
        store = self.new(timeout=0.3)
        epoch = publish(store, "a").epoch
        pid = self.pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            with self.assertLogs(_LOGGER, "ERROR") as gone:
                for _ in range(3):
                    begun = time.monotonic()
                    with self.assertRaisesRegex(StoreUnavailable, "no answer within 0.3 s"):
                        store.beat("a", Beat(1, epoch))
                    self.assertLess(time.monotonic() - begun, 2.0)
            self.assertEqual(len(gone.records), 1)
        finally:
            os.kill(pid, signal.SIGCONT)
        with self.assertLogs(_LOGGER, "INFO") as back:
            pulse = self.beat_until_answered(store, epoch)
        self.assertEqual((pulse.known, pulse.epoch), (True, epoch))
        self.assertIn("answers again", back.output[0])
        self.assertEqual(len(back.output), 1)

    def test_given_up_while_stopped(self) -> None:
        """What a process has given up does not happen when the store goes on."""
        store = self.new(timeout=0.3)
        epoch = publish(self.new(), "a").epoch
        pid = self.pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            with self.assertLogs(_LOGGER, "ERROR"), self.assertRaises(StoreUnavailable):
                store.admit("a", Request(session("s1"), Policy.REFUSE, NO_LIMITS, may_wait=False))
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertEqual(self.beat_until_answered(self.new(), epoch).held, 0)

    def test_stopped_for_a_lease(self) -> None:
        """A store that was stopped longer than a lease admits nobody before its members have published."""
        store, stopped = self.new(), self.new(timeout=0.3)
        for id in ("a", "b"):
            epoch = publish(store, id, lease=0.4).epoch
        pid = self.pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            with self.assertLogs(_LOGGER, "ERROR"):
                for _ in range(3):
                    with self.assertRaises(StoreUnavailable):
                        stopped.members()
        finally:
            os.kill(pid, signal.SIGCONT)
        pulse = publish(store, "a", lease=0.4)
        self.assertNotEqual(pulse.epoch, epoch)
        self.assertFalse(pulse.settled)

    def beat_until_answered(self, store: LocalStore, epoch: str) -> Pulse:
        """Beat; on a busy machine one beat may be too late again."""
        for _ in range(20):
            with suppress(StoreUnavailable):
                return store.beat("a", Beat(2, epoch))
        raise AssertionError("the store does not come back")

    def test_member_dies(self) -> None:
        """What a killed process held is free at once, and who waits for it is told."""
        store = self.new()
        epoch = publish(store, "a").epoch
        ours, theirs = _context.Pipe(duplex=False)
        other = _context.Process(target=hold_a_console, args=(self.path, theirs.send), daemon=True)
        other.start()
        theirs.close()
        with ours:
            ours.recv()
        request = Request(session("s2", "bob"), Policy.REFUSE, NO_LIMITS, may_wait=True)
        self.assertIs(store.admit("a", request).outcome, Outcome.WAIT)
        store.listen("a", 0.0)
        heard: list[bool] = []
        listener = threading.Thread(target=lambda: heard.append(store.listen("a", 10)))
        listener.start()
        other.kill()
        listener.join()
        other.join()
        other.close()
        self.assertEqual(heard, [True])
        self.assertIs(store.admit("a", request).outcome, Outcome.ADMITTED)
        self.assertEqual([member.id for member in store.members()], ["a"])
        self.assertTrue(store.beat("a", Beat(1, epoch)).known)

    def test_connections_come_and_go(self) -> None:
        """A process that loses a connection, but not its life, keeps what it holds."""
        store = self.new()
        epoch = publish(store, "a").epoch
        store._lines.drop_idle()
        self.assertTrue(store.beat("a", Beat(1, epoch)).known)

    def test_close(self) -> None:
        """When a process closes its side, its listening ends, its members are gone, and it gets no answer."""
        other = self.new()
        store = self.new()
        publish(store, "a")
        publish(other, "b")
        heard: list[bool] = []
        begun = threading.Event()
        ask = StoreConnection.ask

        def ask_later(*arguments: Any) -> dict[str, Any]:
            begun.set()
            return ask(*arguments)

        other.listen("b", 0.0)
        listener = threading.Thread(target=lambda: heard.append(store.listen("b", 15)))
        with mock.patch.object(StoreConnection, "ask", ask_later):
            listener.start()
            begun.wait()
        store.close()
        listener.join(5)
        self.assertEqual(heard, [False])
        store.close()
        with self.assertRaises(StoreUnavailable):
            store.members()
        other.listen("b", 5)  # the end of the others' connection is news, or has been seen
        self.assertEqual([member.id for member in other.members()], ["b"])

    def test_fork(self) -> None:
        """A child has a connection of its own, and its end takes nothing from its parent."""
        store = self.new()
        epoch = publish(store, "a").epoch
        before = set(os.listdir("/proc/self/fd"))
        copies = [*store._lines.idle, store._lines.lifeline]  # as a thread may have them
        self.assertEqual(len(copies), 2)
        lock = store._lines.lock
        lock.acquire()  # as a thread may that the child does not have
        child = os.fork()
        if child:
            lock.release()
        else:
            signal.alarm(20)
            status = 1
            with suppress(BaseException):
                sockets = [name for name in before if self.is_socket_to_store(int(name))]
                publish(store, "child")
                status = 2 if sockets else 0 if len(store.members()) == 2 else 3
            os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertTrue(store.beat("a", Beat(1, epoch)).known)
        while len(store.members()) > 1:  # the store may see the end of the child after this process does
            store.listen("a", 5)
        self.assertEqual([member.id for member in store.members()], ["a"])

    def is_socket_to_store(self, descriptor: int) -> bool:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
            return str(copy.getpeername()).startswith(self.path)
        return False
