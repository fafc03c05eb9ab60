"""What ``wsproxy check`` says of the store of one host."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from unittest import mock

from wsproxy.net.listeners import Listener
from wsproxy.state.stores.choice import check_store
from wsproxy.state.stores.findings import FAULT, OK, WARNING, StoreFinding
from wsproxy.state.stores.local.lock import StoreLock
from wsproxy.state.stores.local.process import listen_at
from wsproxy.state.stores.local.server import LocalServer
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.stores.places import LOCAL, StatePlace, StateRules
from wsproxy.testing import LeakTestCase


class LocalCheckTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        holder = tempfile.TemporaryDirectory(prefix="wsproxy-")
        self.addCleanup(holder.cleanup)
        self.directory = holder.name
        self.path = f"{self.directory}/store"

    def found(self, group: str | None = None) -> StoreFinding:
        (finding,) = self.all(group)
        return finding

    def all(self, group: str | None = None) -> list[StoreFinding]:
        return list(check_store(StateRules(StatePlace(LOCAL, path=self.path), group=group)))

    def listen(self) -> Listener:
        listener = listen_at(self.path, None)
        self.addCleanup(listener.close)
        return listener

    def serve(self) -> None:
        listener = self.listen()
        waker, woken = socket.socketpair()
        server = LocalServer(listener, MemoryStore())
        thread = threading.Thread(target=server.run, args=(woken,))
        thread.start()
        self.addCleanup(woken.close)
        self.addCleanup(waker.close)
        self.addCleanup(thread.join)
        self.addCleanup(waker.send, b"\x0f")

    def test_nobody_is_there(self) -> None:
        """The first process will start it; the check does not."""
        self.assertEqual(self.found(), (OK, "it does not run; the first process starts it"))
        self.assertEqual(os.listdir(self.directory), [])

    def test_directory(self) -> None:
        os.chmod(self.directory, 0o777)
        warning, _ = self.all()
        self.assertEqual(warning.level, WARNING)
        self.assertIn("chmod o-w", warning.text)
        self.path = f"{self.directory}/none/store"
        self.assertEqual(
            self.found(), (FAULT, f"{self.directory}/none: No such file or directory; make that directory")
        )

    def test_service_manager(self) -> None:
        """A store that somebody else has to start."""
        lock = StoreLock.take(self.path)
        assert lock
        with lock:
            lock.note(managed=True, members=False)
            self.assertEqual(self.found().level, WARNING)
        self.assertEqual(
            self.found(), (FAULT, f"it does not run; start wsproxy state --listen unix:{self.path}")
        )

    def test_runs(self) -> None:
        self.serve()
        self.assertEqual(self.found(), (OK, "it answers, its mode is 0600"))
        os.chmod(self.path, 0o666)
        self.assertEqual(self.found().level, WARNING)
        os.chmod(self.path, 0o600)
        self.assertIn("not to group", self.found(str(os.getgid())).text)

    def test_silent(self) -> None:
        self.listen()
        with mock.patch("wsproxy.state.stores.local.check._SECONDS", 0.05):
            finding = self.found()
        self.assertEqual(finding.level, FAULT)
        self.assertIn(f"it does not answer (timed out); {self.path}.log may say why", finding.text)

    def test_stranger(self) -> None:
        self.listen()
        with mock.patch("wsproxy.state.stores.local.connection.is_trusted", return_value=False):
            finding = self.found()
        self.assertEqual(finding.level, FAULT)
        self.assertIn("choose another path", finding.text)
