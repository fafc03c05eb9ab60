"""The operator's address, which one process of several gets."""

from __future__ import annotations

import os
import socket
import tempfile
from unittest import mock

from tests.support.ports import free_port
from tests.support.proxy_process import wait_until
from wsproxy.admin.operator import Candidate
from wsproxy.admin.server import AdminServer
from wsproxy.admin.thread import AdminThread
from wsproxy.net.addresses import ListenAddress
from wsproxy.net.listeners import Listener, listen, listen_for_operator
from wsproxy.testing.case import LeakTestCase

_TIMEOUT = 20.0


class OperatorTestCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "admin")
        self.address = ListenAddress(path=self.path)

    def candidate(self, address: ListenAddress | None = None, *, is_shared: bool = True) -> Candidate:
        made = Candidate(address or self.address, is_shared=is_shared)
        self.addCleanup(made.release)
        return made

    def taken(self, candidate: Candidate) -> Listener:
        """Have a candidate take its address, which must be free."""
        listener = candidate.take()
        assert listener
        self.addCleanup(listener.close)
        return listener

    def check_one_of_two(self, address: ListenAddress) -> None:
        """Check that the second of two gets an address when the first has let it go."""
        first, second = self.candidate(address), self.candidate(address)
        listener = self.taken(first)
        self.assertIsNone(second.take())
        listener.close()
        first.release()
        self.taken(second)
        self.assertIsNone(first.take())


class CandidateTest(OperatorTestCase):
    def test_path(self) -> None:
        """One gets a path; when that ends, another one does."""
        self.check_one_of_two(self.address)

    def test_port(self) -> None:
        """The same for a port."""
        self.check_one_of_two(ListenAddress("127.0.0.1", free_port()))

    def test_crash(self) -> None:
        """Of a process that was killed, the kernel frees the lock, and the path is replaced."""
        first, second = self.candidate(), self.candidate()
        listener = self.taken(first)
        socket.socket.close(listener)
        first.release()
        self.assertTrue(os.path.exists(self.path))
        self.taken(second)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)

    def test_only_the_owner(self) -> None:
        """Nobody else may use the path or its lock."""
        self.taken(self.candidate())
        for path in (self.path, f"{self.path}.lock"):
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)

    def test_another_program(self) -> None:
        """A program that takes no lock keeps its path; and the lock is free meanwhile."""
        other = listen_for_operator(self.address)
        candidate = self.candidate()
        self.assertIsNone(candidate.take())
        other.close()
        first = self.taken(candidate)
        first.close()
        candidate.release()
        self.taken(self.candidate())

    def test_says_once(self) -> None:
        """One line, however often it tries; and one when it gets the address."""
        first, second = self.candidate(), self.candidate()
        listener = self.taken(first)
        with self.assertLogs("wsproxy.admin", "INFO") as logs:
            for _ in range(3):
                self.assertIsNone(second.try_to_take())
            listener.close()
            first.release()
            self.taken(second)
        lines = [(record.levelname, record.getMessage()) for record in logs.records]
        waits = (
            f"another process has the operator's listener at unix:{self.path}; this one gets it when that one"
        )
        self.assertEqual(
            lines, [("INFO", f"{waits} ends"), ("INFO", f"the operator's listener is at unix:{self.path}")]
        )

    def test_nothing_shared(self) -> None:
        """Where the other process does not know the sessions of this one, that is a warning."""
        self.taken(self.candidate())
        with self.assertLogs("wsproxy.admin", "WARNING") as logs:
            self.assertIsNone(self.candidate(is_shared=False).take())
        self.assertIn("nobody can list or end the sessions of this one", logs.output[0])

    def test_wrong_address(self) -> None:
        """Any other fault is one; whoever goes on trying logs it once."""
        address = ListenAddress(path=os.path.join(self.path, "nowhere"))
        with self.assertRaisesRegex(OSError, "nowhere"):
            self.candidate(address).take()
        candidate = self.candidate(address)
        with self.assertLogs("wsproxy.admin", "ERROR") as logs:
            for _ in range(3):
                self.assertIsNone(candidate.try_to_take())
        self.assertEqual(len(logs.output), 1)
        self.assertIn(f"the operator's listener {address}: No such file or directory", logs.output[0])
        self.assertIn("until then nobody can list or end sessions", logs.output[0])

    def test_forked_child(self) -> None:
        """A child of a fork keeps neither the lock nor the listener."""
        self.check_forked_child(self.address)
        self.check_forked_child(ListenAddress("127.0.0.1", free_port()))

    def check_forked_child(self, address: ListenAddress) -> None:
        """Check that somebody else gets an address although a child lives that was forked before."""
        candidate = self.candidate(address)
        server = AdminServer(self.taken(candidate), {})
        self.addCleanup(server.close)
        told, tell = os.pipe()
        wait, release = os.pipe()
        child = os.fork()
        if not child:
            os.write(tell, b"x")
            os.close(release)
            os.read(wait, 1)
            os._exit(0)
        try:
            os.read(told, 1)
            server.close()
            candidate.release()
            self.taken(self.candidate(address))
        finally:
            for descriptor in (told, tell, wait, release):
                os.close(descriptor)
            os.waitpid(child, 0)


class ThreadTest(OperatorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.owners: list[int] = []
        patcher = mock.patch("wsproxy.admin.thread._TAKE_SECONDS", 0.01)
        patcher.start()
        self.addCleanup(patcher.stop)

    def thread(self, number: int) -> AdminThread:
        """Start a thread that notes its number when it gets the address."""
        candidate = self.candidate()

        def take() -> AdminServer | None:
            listener = candidate.take()
            if listener is None:
                return None
            self.owners.append(number)
            return AdminServer(listener, {})

        thread = AdminThread(take(), candidate.release, take, candidate.release)
        self.addCleanup(thread.stop)
        thread.start(self)
        return thread

    def test_takes_over(self) -> None:
        """A thread without a server makes one as soon as it can, and serves; meanwhile it is healthy."""
        answers: list[Listener | None] = [listen("127.0.0.1", 0), None, None]
        assert answers[0]
        address = answers[0].address

        def take() -> AdminServer | None:
            listener = answers.pop()
            return AdminServer(listener, {}) if listener else None

        thread = AdminThread(None, take=take)
        self.addCleanup(thread.stop)
        thread.start(self)
        self.assertTrue(thread.is_healthy)
        with socket.create_connection(address, _TIMEOUT) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertIn(b"404", client.recv(100))
        thread.stop()
        self.assertEqual(answers, [])

    def test_steps_aside(self) -> None:
        """A thread lets another one have the address, after it has answered those who are connected."""
        patcher = mock.patch("wsproxy.admin.thread._ASIDE_SECONDS", 0.05)
        patcher.start()
        self.addCleanup(patcher.stop)
        first, second = self.thread(1), self.thread(2)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_TIMEOUT)
            client.connect(self.path)
            client.sendall(b"GET / HTTP/1.1\r\n")
            first.step_aside()
            self.assertTrue(wait_until(lambda: self.owners == [1, 2]))
            client.sendall(b"Host: localhost\r\n\r\n")
            self.assertIn(b"404", client.recv(100))
        second.stop()
        self.assertTrue(wait_until(lambda: self.owners == [1, 2, 1]), "nobody else wants it")

    def test_nobody_else(self) -> None:
        """A thread whose address nobody else may have keeps it."""
        listener = listen("127.0.0.1", 0)
        thread = AdminThread(AdminServer(listener, {}))
        self.addCleanup(thread.stop)
        thread.start(self)
        thread.step_aside()
        socket.create_connection(listener.address, _TIMEOUT).close()

    def test_never_gets_it(self) -> None:
        """A thread that waits for its turn ends when it has to."""
        ended: list[str] = []
        thread = AdminThread(None, lambda: ended.append("end"))
        thread.start(self)
        thread.stop()
        self.assertEqual(ended, ["end"])
