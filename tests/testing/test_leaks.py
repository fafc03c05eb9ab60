"""The leak check, and the test cases that use it."""

from __future__ import annotations

import asyncio
import socket
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from unittest import mock

from wsproxy import ConfigError, WebsocketProxy
from wsproxy.runtime import threads
from wsproxy.testing import (
    SECRET,
    ConsoleClosed,
    FakeKubeVirtAPI,
    LeakCheck,
    LeakTestCase,
    ProxyTestCase,
    RawClient,
    Script,
    leaks,
    make_token,
    proxy_options,
)


class LeakCheckTest(unittest.TestCase):
    def setUp(self) -> None:
        self.hooks = threading.excepthook
        self.check = LeakCheck()
        self.addCleanup(self.check.stop)

    def test_nothing(self) -> None:
        """Ended threads and closed sockets are no leaks. The check waits for threads that are ending."""
        socket.socket().close()
        release = threading.Event()
        thread = threading.Thread(target=release.wait)
        thread.start()
        threading.Thread(target=release.set).start()
        self.assertEqual(self.check.faults(), [])

    def test_socket(self) -> None:
        """An open socket is a leak, until it is closed."""
        with socket.create_server(("127.0.0.1", 0)) as left:
            address = left.getsockname()
            self.assertEqual(self.check.faults(), [f"socket left: {address}"])
            with socket.create_connection(address) as client, left.accept()[0]:
                ends = f"socket left: {client.getsockname()} to {address}"
                self.assertIn(ends, self.check.faults())
        self.assertEqual(self.check.faults(), [])

    def test_exception(self) -> None:
        """Uncaught exceptions in a thread and in a finalizer are faults."""

        def fail() -> None:
            raise ZeroDivisionError("oh")

        class Bad:
            def __del__(self) -> None:
                fail()

        thread = threading.Thread(target=fail, name="unlucky")
        thread.start()
        thread.join()
        Bad()
        one, two = self.check.faults()
        self.assertEqual(one, "exception in a thread: unlucky: ZeroDivisionError('oh')")
        self.assertIn("Bad.__del__", two)

    def test_stop(self) -> None:
        """stop() restores the hooks."""
        self.assertNotEqual(threading.excepthook, self.hooks)
        self.check.stop()
        self.assertEqual(threading.excepthook, self.hooks)


class SharedProxyTest(unittest.TestCase):
    def test_idle_threads(self) -> None:
        """The idle threads of an older proxy are no leak, and the check does not wait for them."""
        with (
            mock.patch.object(threads, "_IDLE_SECONDS", 60.0),
            FakeKubeVirtAPI() as api,
            WebsocketProxy(**proxy_options(api, SECRET)).run_in_thread("127.0.0.1", 0) as proxy,
        ):
            api.add_vmi("ubuntu", "lab-1")
            url = proxy.console_url(make_token(SECRET, namespace="lab-1", vmis=["ubuntu"]), "ubuntu")
            check = LeakCheck()
            self.addCleanup(check.stop)
            with RawClient.open(url) as client:
                client.send_close(1000)
                client.recv_close()
            self.assertEqual(check.faults(), [])
            self.assertTrue(any(thread.name == "wsproxy-idle" for thread in threading.enumerate()))
        self.assertEqual(check.faults(), [])

    def test_other_idle_threads(self) -> None:
        """An idle thread is a leak if its pool is the test's own, or if it outlives the pool."""
        own, older = LeakCheck(), threads.ThreadPool(self)
        self.addCleanup(own.stop)
        other = LeakCheck()
        self.addCleanup(other.stop)
        done = threading.Event()
        older.run("job", done.set)
        self.assertTrue(done.wait(60))
        with mock.patch.object(leaks, "_SETTLE_SECONDS", 0.3):
            self.assertEqual(own.faults(), ["thread left: wsproxy-idle"])
            self.assertEqual(other.faults(), [])
            with mock.patch.object(older, "_stopping", True):
                self.assertEqual(other.faults(), ["thread left: wsproxy-idle"])
        older.stop(10)
        self.assertEqual(own.faults(), [])


class AllowedTest(unittest.TestCase):
    def setUp(self) -> None:
        patcher = mock.patch.object(
            leaks, "_SETTLE_SECONDS", 0.1
        )  # what is left does not end before it is told
        patcher.start()
        self.addCleanup(patcher.stop)

    def check(self, *allowed: str) -> LeakCheck:
        check = LeakCheck(allowed)
        self.addCleanup(check.stop)
        return check

    def message(self, check: LeakCheck) -> str:
        with self.assertRaises(AssertionError) as failure:
            check.check("allowed_leaks = {}")
        return str(failure.exception)

    def test_thread_pool(self) -> None:
        """Threads of a pool are a leak. The message says how to allow them."""
        strict, lenient = self.check(), self.check("ThreadPoolExecutor-*")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int).result()
            text = self.message(strict)
            self.assertRegex(text, "thread left: ThreadPoolExecutor-[0-9]+_0\n")
            self.assertIn("""allowed_leaks = ('ThreadPoolExecutor-*_*',)""", text)
            self.check("ThreadPoolExecutor-*_*").check()
            lenient.check()
        strict.check()

    def test_asyncio(self) -> None:
        """An open event loop and its executor are leaks. The pattern for both begins with asyncio."""
        strict, lenient = self.check(), self.check("asyncio*")
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(loop.run_in_executor(None, int))
            self.assertEqual(
                strict.faults(),
                [
                    "socket left: asyncio event loop",
                    "socket left: asyncio event loop",
                    "thread left: asyncio_0",
                ],
            )
            self.assertIn("allowed_leaks = ('asyncio event loop', 'asyncio_*')", self.message(strict))
            lenient.check()
            with socket.create_server(("127.0.0.1", 0)):  # something else is not allowed by that
                self.assertIn("socket left: ('127.0.0.1', ", self.message(lenient))
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
        strict.check()

    def test_connection(self) -> None:
        """A pattern for a connection is the peer's address, as in the message."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            check = self.check()
            with socket.create_connection(server.getsockname()) as client:
                pattern = f"* to {server.getsockname()}"
                self.assertIn(f"allowed_leaks = {(pattern,)}", self.message(check))
                check._allowed = (pattern,)
                check.check()
                self.assertGreater(client.fileno(), 0)

    def test_exception(self) -> None:
        """An exception in a thread cannot be allowed, and the message offers no pattern for it."""
        check = self.check("*")
        thread = threading.Thread(target=lambda: 1 / 0, name="unlucky")
        thread.start()
        thread.join()
        text = self.message(check)
        self.assertIn("exception in a thread: unlucky", text)
        self.assertNotIn("allowed_leaks", text)


def run(case: unittest.TestCase) -> unittest.TestResult:
    """Run one test of another class and return what came of it."""
    result = unittest.TestResult()
    case.run(result)
    return result


class Leaving(LeakTestCase):
    """A test that leaves a thread until it is told otherwise."""

    def __init__(self) -> None:
        super().__init__("leave")
        self.release = threading.Event()

    def leave(self) -> None:
        self.thread = threading.Thread(target=self.release.wait, name="forgotten")
        self.thread.start()

    def end(self) -> None:
        self.release.set()
        self.thread.join()


class AllowedToLeave(Leaving):
    check_leaks = False


class Suite(ProxyTestCase):
    """Tests of a platform, run by the tests below."""

    proxy_settings = MappingProxyType({"host_path_prefix": "labs", "close_timeout": 2.0})

    def make_api(self) -> FakeKubeVirtAPI:
        return FakeKubeVirtAPI(names=("kubernetes.default.svc",))

    def settings(self) -> None:
        self.assertIs(self.console_proxy, self.console_proxy)
        self.assertEqual(self.console_proxy.host_path_prefix, "labs")
        other = self.start_proxy(host_path_prefix=None)
        self.assertEqual((other.host_path_prefix, other.config.close_timeout), (None, 2.0))

    def console(self) -> None:
        desktop = self.add_desktop("ubuntu", facts={"lab": "1"}, size=(800, 600))
        self.add_desktop("router", "lab-2")
        vm = self.open_console("ubuntu")
        vm.type("hello")
        self.assertTrue(desktop.wait_for_text("hello", 10))
        self.assertEqual(vm.size, (800, 600))
        self.open_console("router", token=self.token("router", namespace="lab-2"), proxy=self.console_proxy)

    def faulty_settings(self) -> None:
        self.start_proxy(close_timeout=-1, reject="maybe")

    def faulty_backend(self) -> None:
        vmi = self.api.add_vmi("ubuntu", self.namespace, backend=Script(lambda console: self.fail("a bug")))
        with self.assertRaises(ConsoleClosed):
            self.open_console("ubuntu")
        self.assertTrue(vmi.wait_for_session().ended.wait(60))


class TestCasesTest(unittest.TestCase):
    def test_leak(self) -> None:
        """A test that leaves a thread fails, after all its clean-ups; unless its class allows it."""
        for kind, failures in ((Leaving, 1), (AllowedToLeave, 0)):
            with self.subTest(kind.__name__):
                case = kind()
                with mock.patch.object(leaks, "_SETTLE_SECONDS", 0.1):  # it does not end before it is told to
                    result = run(case)
                self.assertEqual((len(result.failures), result.errors), (failures, []))
                self.assertIs("thread left: forgotten" in str(result.failures), bool(failures))
                case.end()

    def test_suite(self) -> None:
        """Settings of a class and of a proxy, desktops and consoles are what a suite says; all of it ends."""
        for name in ("settings", "console"):
            with self.subTest(name):
                result = run(Suite(name))
                self.assertEqual((result.failures, result.errors), ([], []))

    def test_faulty_settings(self) -> None:
        """A faulty setting fails the test with all faults."""
        [(_, text)] = run(Suite("faulty_settings")).errors
        self.assertIn(ConfigError.__name__, text)
        self.assertIn("close_timeout", text)
        self.assertIn("reject", text)

    def test_faulty_backend(self) -> None:
        """A bug in a backend of the suite fails the test, though its client only saw an end."""
        [(_, text)] = run(Suite("faulty_backend")).failures
        self.assertIn("a bug", text)
