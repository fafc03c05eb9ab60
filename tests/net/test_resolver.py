"""Names to addresses: literals, the cache, late answers, and the stop."""

from __future__ import annotations

import queue
import socket
import threading
from unittest import mock

from wsproxy.exceptions import TransportClosed
from wsproxy.net.resolver import Resolver
from wsproxy.net.sockets import Address
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import LeakTestCase

WAIT = 60.0
ONE: tuple[Address, ...] = ((socket.AF_INET, ("192.0.2.1", 443)),)
TWO: tuple[Address, ...] = (
    (socket.AF_INET6, ("2001:db8::2", 443, 0, 0)),
    (socket.AF_INET, ("192.0.2.2", 443)),
)


class ResolverTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 100.0
        self.asked: list[tuple[str, int]] = []
        self.answers: queue.SimpleQueue[tuple[Address, ...] | Exception] = queue.SimpleQueue()
        self.asking = threading.Event()
        self.resolver = Resolver(self.ask, lambda: self.now)
        self.addCleanup(self.resolver.stop)
        self.addCleanup(self.answers.put, OSError("the test is over"))  # first, so that the thread can end

    def ask(self, host: str, port: int) -> tuple[Address, ...]:
        """What the thread asks: waits for the test to answer."""
        self.asked.append((host, port))
        self.asking.set()
        answer = self.answers.get(timeout=WAIT)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def resolve(self, host: str = "api", port: int = 443) -> list[Address]:
        return list(self.resolver.resolve(host, port, Deadline(WAIT)))

    def threads(self) -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "wsproxy-resolver"]

    def test_errors_of_every_kind(self) -> None:
        """Whatever goes wrong with one name is told to who asked; the next is resolved."""
        for number, exc in enumerate((ValueError("a bug"), UnicodeError("label too long"), MemoryError())):
            self.answers.put(exc)
            with self.assertRaises(TransportClosed):
                self.resolve(f"api-{number}")
        self.answers.put(ONE)
        self.assertEqual(self.resolve(), list(ONE))

    def test_literals(self) -> None:
        """A literal address needs no question and no thread, and works even after the stop."""
        for _ in range(2):
            for host, address in (
                ("192.0.2.1", (socket.AF_INET, ("192.0.2.1", 443))),
                ("2001:db8::1", (socket.AF_INET6, ("2001:db8::1", 443, 0, 0))),
                ("::1", (socket.AF_INET6, ("::1", 443, 0, 0))),
            ):
                with self.subTest(host=host):
                    self.assertEqual(self.resolve(host), [address])
            self.assertEqual((self.asked, self.threads()), ([], []))
            self.resolver.stop()

    def test_scope(self) -> None:
        """A link-local address brings its interface along."""
        with mock.patch("socket.if_nametoindex", return_value=7):
            self.assertEqual(self.resolve("fe80::1%eth0"), [(socket.AF_INET6, ("fe80::1", 443, 0, 7))])

    def test_scope_of_no_interface(self) -> None:
        """A link-local address on an interface that is not there cannot be resolved."""
        with mock.patch("socket.if_nametoindex", side_effect=OSError("no interface with this name")):
            self.assertRaises(TransportClosed, self.resolve, "fe80::1%eth9")

    def test_name(self) -> None:
        """A name is asked for with its port, and all its addresses are returned in order."""
        self.answers.put(TWO)
        self.assertEqual(self.resolve("api", 6443), list(TWO))
        self.assertEqual(self.asked, [("api", 6443)])

    def test_cache(self) -> None:
        """An answer is kept for 30 seconds, then the name is asked for again."""
        self.answers.put(ONE)
        self.resolve()
        self.now += 30
        self.assertEqual(self.resolve(), list(ONE))
        self.assertEqual(len(self.asked), 1)
        self.now += 0.1
        self.answers.put(TWO)
        self.assertEqual(self.resolve(), list(TWO))
        self.assertEqual(len(self.asked), 2)
        self.assertEqual(len(self.threads()), 1)

    def test_one_question_for_each_name(self) -> None:
        """Another name, or another port, is another question."""
        for host, port in (("a", 1), ("a", 2), ("b", 1)):
            self.answers.put(ONE)
            self.resolve(host, port)
        self.assertEqual(self.asked, [("a", 1), ("a", 2), ("b", 1)])

    def test_one_question_for_many_askers(self) -> None:
        """Sessions that wait for the same name share one question."""
        found: list[list[Address]] = []
        threads = [threading.Thread(target=lambda: found.append(self.resolve())) for _ in range(5)]
        for thread in threads:
            thread.start()
        self.assertTrue(self.asking.wait(WAIT))
        self.answers.put(ONE)
        for thread in threads:
            thread.join()
        self.assertEqual(found, [list(ONE)] * 5)
        self.assertEqual(len(self.asked), 1)

    def test_failure(self) -> None:
        """A name that cannot be resolved is an error that names it, and is asked for again next time."""
        self.answers.put(socket.gaierror(-2, "Name or service not known"))
        with self.assertRaises(TransportClosed) as caught:
            self.resolve()
        self.assertIn("api", str(caught.exception))
        self.answers.put(ONE)
        self.assertEqual(self.resolve(), list(ONE))

    def test_name_that_idna_cannot_encode(self) -> None:
        """A label that IDNA cannot encode is such an error too, and the thread lives on."""
        self.answers.put(UnicodeError("label too long"))
        self.assertRaises(TransportClosed, self.resolve)
        self.answers.put(ONE)
        self.assertEqual(self.resolve(), list(ONE))

    def test_deadline(self) -> None:
        """A caller waits until its deadline; a late answer is kept for the next one."""
        with self.assertRaises(TimeoutError) as caught:
            self.resolver.resolve("api", 443, Deadline(0.01))
        self.assertIn("api", str(caught.exception))
        self.answers.put(ONE)
        self.assertEqual(self.resolve(), list(ONE))
        self.assertEqual(len(self.asked), 1)

    def test_deadline_that_has_passed(self) -> None:
        """A deadline that has passed is a timeout."""
        self.assertRaises(TimeoutError, self.resolver.resolve, "api", 443, Deadline(0))
        self.answers.put(ONE)

    def test_stop_fails_what_is_pending(self) -> None:
        """The stop fails every question under way, without waiting for getaddrinfo to return."""
        errors: list[Exception] = []

        def ask() -> None:
            try:
                self.resolve()
            except TransportClosed as exc:
                errors.append(exc)
                self.answers.put(ONE)  # the late answer, which nobody waits for

        thread = threading.Thread(target=ask)
        thread.start()
        self.assertTrue(self.asking.wait(WAIT))
        self.resolver.stop()
        thread.join()
        self.assertEqual([type(exc) for exc in errors], [TransportClosed])
        self.assertEqual(self.threads(), [])

    def test_stop(self) -> None:
        """After the stop a name cannot be resolved, cached or not, and the thread is gone."""
        self.answers.put(ONE)
        self.resolve()
        self.resolver.stop()
        self.resolver.stop()
        self.assertEqual(self.threads(), [])
        self.assertRaises(TransportClosed, self.resolve)
        self.assertRaises(TransportClosed, self.resolve, "other")
        self.assertEqual(len(self.asked), 1)

    def test_getaddrinfo(self) -> None:
        """Without a stand-in the system is asked, for stream sockets."""
        resolver = Resolver()
        self.addCleanup(resolver.stop)
        found = resolver.resolve("localhost", 80, Deadline(WAIT))
        self.assertLessEqual(
            set(found), {(socket.AF_INET, ("127.0.0.1", 80)), (socket.AF_INET6, ("::1", 80, 0, 0))}
        )
        self.assertEqual(len(found), len(set(found)))
        self.assertTrue(found)
