"""``WebsocketProxy`` as a program and a library use it."""

from __future__ import annotations

import errno
import inspect
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from tests.support.processes import python
from wsproxy import Config, ConfigError, WebsocketProxy
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import SECRET, LeakTestCase, ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.upstream.location import DEFAULT_API_PATH

_TIMEOUT = 60.0
_HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
_DEV = ("ws://127.0.0.1:9", DEFAULT_API_PATH, True, SECRET)


def dev_proxy(**options: Any) -> WebsocketProxy:
    """Return a proxy in front of nothing."""
    return WebsocketProxy(*_DEV, **{"close_timeout": 0.5, **options})


def answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=_TIMEOUT) as sock:
            sock.sendall(_HEALTHZ)
            return sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    except ConnectionError:
        return False


class Settings(LeakTestCase):
    """The constructor."""

    def test_signature(self) -> None:
        """The first five parameters are the original's, in its order; all others are keyword-only."""
        parameters = list(inspect.signature(WebsocketProxy).parameters.values())
        names = ["remote_url", "api_path", "local_dev_mode", "secret_key", "host_path_prefix"]
        self.assertEqual([parameter.name for parameter in parameters[:5]], names)
        kinds = {parameter.kind for parameter in parameters[:5]}
        self.assertEqual(kinds, {inspect.Parameter.POSITIONAL_OR_KEYWORD})
        self.assertEqual({parameter.kind for parameter in parameters[5:]}, {inspect.Parameter.KEYWORD_ONLY})
        self.assertIsNone(parameters[4].default)
        self.assertEqual({parameter.default for parameter in parameters[:4]}, {inspect.Parameter.empty})

    def test_attributes(self) -> None:
        """The original's attributes say what was given."""
        proxy = WebsocketProxy(*_DEV, "ws_proxy")
        self.assertEqual(proxy.remote_url, "ws://127.0.0.1:9")
        self.assertEqual(proxy.api_path, DEFAULT_API_PATH)
        self.assertIs(proxy.local_dev_mode, True)
        self.assertEqual(proxy.secret_key, SECRET)
        self.assertEqual(proxy.host_path_prefix, "ws_proxy")

    def test_by_keyword(self) -> None:
        """The original's parameters may be given by name."""
        proxy = WebsocketProxy(
            remote_url=_DEV[0],
            api_path=_DEV[1],
            local_dev_mode=True,
            secret_key=SECRET,
            host_path_prefix=None,
        )
        self.assertIsNone(proxy.host_path_prefix)

    def test_from_config(self) -> None:
        """A proxy can be made of ready settings."""
        config = Config(remote_url=_DEV[0], secret_key=SECRET, local_dev_mode=True)
        proxy = WebsocketProxy.from_config(config)
        self.assertIs(proxy.config, config)
        with proxy.run_in_thread("127.0.0.1", 0):
            self.assertTrue(answers(proxy.address))

    def test_defaults_are_a_pods(self) -> None:
        """Without further options the service account's files are used, which need not be there yet."""
        proxy = WebsocketProxy("wss://10.96.0.1:443", DEFAULT_API_PATH, False, SECRET)
        account = "/var/run/secrets/kubernetes.io/serviceaccount"
        self.assertEqual(dict(proxy.config.sslopt), {"ca_certs": f"{account}/ca.crt"})
        self.assertEqual(proxy.config.token_file, f"{account}/token")

    def test_repr_has_no_secret(self) -> None:
        """What a proxy prints of itself holds no secret."""
        proxy = dev_proxy()
        self.assertEqual(repr(proxy), "<WebsocketProxy not running, 0 connections>")
        self.assertNotIn(SECRET, repr(proxy.config))
        with proxy.run_in_thread("127.0.0.1", 0):
            self.assertIn(f"on 127.0.0.1:{proxy.address[1]}", repr(proxy))

    def test_all_faults_at_once(self) -> None:
        """A ConfigError is a ValueError and lists every fault."""
        with self.assertRaises(ValueError) as caught:
            WebsocketProxy(
                "http://x",
                "/no/placeholders",
                False,
                "",
                "a b",
                reject="maybe",
                dial_timeout=0,
                subresources=["V"],
            )
        error = caught.exception
        assert isinstance(error, ConfigError)
        for word in (
            "remote_url",
            "api_path",
            "SECRET_KEY",
            "HOST_PATH_PREFIX",
            "reject",
            "dial_timeout",
            "subresources",
        ):
            self.assertEqual(sum(word in fault for fault in error.faults), 1, error.faults)

    def test_types(self) -> None:
        """Settings of the wrong type are faults that name them, as for Config."""
        settings: tuple[dict[str, Any], ...] = (
            {"namespaces": []},
            {"issuer": ()},
            {"audience": iter([])},
            {"allow_origin": b"https://lab.example"},
            {"allow_eternal_tokens": "false"},
            {"tickets": 1},
            {"token_file": None},
            {"max_sessions": "5"},
            {"sslopt": "ca_certs"},
            {"credentials": {"path": True}},
        )
        for wrong in settings:
            with self.subTest(wrong=wrong), self.assertRaisesRegex(ConfigError, f"^{next(iter(wrong))} "):
                dev_proxy(**wrong)
        for hook in ("authorize", "on_open", "on_close"):
            for nothing in (False, "", "print"):
                with self.assertRaisesRegex(ConfigError, f"^{hook} must be a function$"):
                    dev_proxy(**{hook: nothing})

    def test_single_text(self) -> None:
        """One text where a list is meant is a list of that one."""
        config = dev_proxy(namespaces="lab", audience="wsproxy-prod", subresources="console").config
        self.assertEqual((config.namespaces, config.audience), (("lab",), ("wsproxy-prod",)))
        self.assertEqual(config.routes.enabled, {"vnc", "console"})

    def test_iterators(self) -> None:
        """What can be read once only is read once."""
        config = dev_proxy(namespaces=(name for name in ("a", "b")), issuer={"y", "x"}).config
        self.assertEqual((config.namespaces, config.issuer), (("a", "b"), ("x", "y")))
        self.assertEqual(config.access_rules.namespaces, ("a", "b"))

    def test_mode_of_the_original(self) -> None:
        """What strtobool returns is a mode, as in the original; text is none."""
        modes: tuple[Any, ...] = (0, 1)
        for mode in modes:
            url = "ws://localhost:8001" if mode else "wss://localhost:8001"
            self.assertIs(WebsocketProxy(url, DEFAULT_API_PATH, mode, SECRET).local_dev_mode, bool(mode))
        wrong: tuple[Any, ...] = ("false", "", None, 2, -1, 1.0, 0.0)
        for mode in wrong:
            with self.subTest(mode=mode), self.assertRaisesRegex(ConfigError, "^local_dev_mode must be"):
                WebsocketProxy("ws://localhost:8001", DEFAULT_API_PATH, mode, SECRET)

    def test_no_silent_downgrade(self) -> None:
        """In-cluster with ``ws://`` is a fault, and so is dev mode with ``wss://``."""
        for url, dev in (("ws://10.96.0.1:443", False), ("wss://10.96.0.1:443", True)):
            with self.subTest(url=url), self.assertRaisesRegex(ConfigError, "local_dev_mode is o"):
                WebsocketProxy(url, DEFAULT_API_PATH, dev, SECRET)

    def test_empty_secret(self) -> None:
        """A proxy without a secret is refused."""
        for secret in ("", " ", b"", "\n"):
            with self.subTest(secret=secret), self.assertRaisesRegex(ConfigError, "SECRET_KEY is empty"):
                WebsocketProxy(_DEV[0], DEFAULT_API_PATH, True, secret)

    def test_short_secret(self) -> None:
        """A short secret is taken, with one warning, however often the proxy is started."""
        with self.assertLogs("wsproxy", "WARNING") as logs:
            proxy = WebsocketProxy(_DEV[0], DEFAULT_API_PATH, True, "secret_key_for_testing")
            for _ in range(2):
                with proxy.run_in_thread("127.0.0.1", 0):
                    pass
        self.assertEqual(len(logs.output), 1, logs.output)
        self.assertIn("SECRET_KEY has 22 bytes", logs.output[0])
        self.assertNotIn("secret_key_for_testing", logs.output[0])

    def test_unknown_sslopt(self) -> None:
        """A misspelt TLS option is a fault, not ignored."""
        with self.assertRaisesRegex(ConfigError, "ca_cert"):
            WebsocketProxy("wss://x:1", DEFAULT_API_PATH, False, SECRET, sslopt={"ca_cert": "x"})


class Life(LeakTestCase):
    """Start and stop in this process."""

    def test_run_in_thread(self) -> None:
        """``run_in_thread`` returns the proxy, which listens already on a port that it tells."""
        proxy = dev_proxy()
        self.assertIs(proxy.run_in_thread("127.0.0.1", 0), proxy)
        self.addCleanup(proxy.stop_thread)
        host, port = proxy.address
        self.assertEqual(host, "127.0.0.1")
        self.assertGreater(port, 0)
        self.assertTrue(answers((host, port)))

    def test_context_manager(self) -> None:
        """A ``with`` stops the proxy, and does not hide an exception."""
        with self.assertRaises(ZeroDivisionError), dev_proxy().run_in_thread("127.0.0.1", 0) as proxy:
            address = proxy.address
            self.assertTrue(answers(address))
            raise ZeroDivisionError
        self.assertFalse(answers(address))

    def test_bind_error(self) -> None:
        """A port that is taken is an OSError in the caller, and the proxy can be started elsewhere."""
        with dev_proxy().run_in_thread("127.0.0.1", 0) as first:
            proxy = dev_proxy()
            for start in (proxy.run_in_thread, proxy.run):
                with self.assertRaises(OSError) as caught:
                    start(*first.address)
                self.assertEqual(caught.exception.errno, errno.EADDRINUSE)
            with proxy.run_in_thread("127.0.0.1", 0):
                self.assertTrue(answers(proxy.address))

    def test_bind_error_names_the_address(self) -> None:
        """The error says which address is taken, and is the system's otherwise."""
        with dev_proxy().run_in_thread("127.0.0.1", 0) as first:
            host, port = first.address
            with self.assertRaises(OSError) as caught:
                dev_proxy().run_in_thread(host, port)
        text = f"cannot listen on {host}:{port}: {os.strerror(errno.EADDRINUSE)}"
        self.assertEqual(str(caught.exception), f"[Errno {errno.EADDRINUSE}] {text}")

    def test_no_such_address(self) -> None:
        """What is no host, no port or no flag is a fault; a port that is too large is no smaller one."""
        proxy = dev_proxy()
        wrong: tuple[tuple[str, Any], ...] = (
            *(("port", port) for port in (70000, 65536, -1, True, None, 5.0, "x", "-1", "70000", b"5")),
            *(("host", host) for host in (5, b"127.0.0.1", True, ["127.0.0.1"], "fd:x")),
            *(("reuse_port", flag) for flag in ("false", 0, None)),
        )
        for name, value in wrong:
            given: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "reuse_port": False, name: value}
            for start in (proxy.run_in_thread, proxy.run):
                with self.subTest(name=name, value=value), self.assertRaisesRegex(ConfigError, f"^{name} "):
                    start(**given)
        with self.assertRaises(ConfigError) as caught:
            proxy.run_in_thread(5, 70000)  # type: ignore[arg-type]
        self.assertEqual(len(caught.exception.faults), 2)

    def test_port_as_text(self) -> None:
        """Digits are a port, as in the original."""
        port: Any = "0"
        with dev_proxy().run_in_thread("127.0.0.1", port) as proxy:
            self.assertTrue(answers(proxy.address))

    def test_not_running(self) -> None:
        """Before a start and after a stop there is no address, and stopping does nothing."""
        proxy = dev_proxy()
        proxy.stop_thread()
        for _ in range(2):
            with self.assertRaisesRegex(RuntimeError, "does not run"):
                _ = proxy.address
            self.assertEqual(proxy.connections, 0)
            proxy.run_in_thread("127.0.0.1", 0)
            proxy.stop_thread()
            proxy.stop_thread()

    def test_restart(self) -> None:
        """A proxy that was stopped can be started again, on the same port too."""
        proxy = dev_proxy()
        address = ("127.0.0.1", 0)
        for _ in range(3):
            proxy.run_in_thread(*address)
            address = proxy.address
            self.assertTrue(answers(address))
            proxy.stop_thread()
            self.assertFalse(answers(address))

    def test_running_already(self) -> None:
        """A second start is refused and does not disturb the first."""
        with dev_proxy().run_in_thread("127.0.0.1", 0) as proxy:
            for start in (proxy.run_in_thread, proxy.run):
                with self.assertRaisesRegex(RuntimeError, "runs already"):
                    start("127.0.0.1", 0)
            self.assertTrue(answers(proxy.address))

    def test_several_proxies(self) -> None:
        """Several proxies in one process do not know of each other."""
        with (
            dev_proxy().run_in_thread("127.0.0.1", 0) as first,
            dev_proxy(host_path_prefix="x").run_in_thread("127.0.0.1", 0) as second,
        ):
            self.assertNotEqual(first.address, second.address)
            first.stop_thread()
            self.assertTrue(answers(second.address))

    def test_stop_from_several_threads(self) -> None:
        """Any number of threads may stop the proxy at once; each returns when it is stopped."""
        proxy = dev_proxy().run_in_thread("127.0.0.1", 0)
        address = proxy.address
        stopped: list[bool] = []

        def stop() -> None:
            proxy.stop_thread()
            stopped.append(not answers(address))

        threads = [threading.Thread(target=stop) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(stopped, [True] * 5)

    def test_stopped_at_once(self) -> None:
        """A proxy that another thread stops before its start has returned is started and stopped, no more."""
        proxy = dev_proxy()
        lock = threading.Lock()

        class StoppingLock:
            """What guards the start, and has the proxy stopped as soon as that is over."""

            def __enter__(self) -> None:
                lock.acquire()

            def __exit__(self, *failure: object) -> None:
                lock.release()
                proxy._lock = lock
                proxy.stop_thread()

        proxy._lock = StoppingLock()  # type: ignore[assignment]
        self.assertIs(proxy.run_in_thread("127.0.0.1", 0), proxy)
        self.assertEqual(repr(proxy), "<WebsocketProxy not running, 0 connections>")

    def test_asked_while_it_stops(self) -> None:
        """What a proxy tells of itself is known to whoever asks while another thread has just stopped it."""
        proxy = dev_proxy().run_in_thread("127.0.0.1", 0)
        server, address = proxy._server, proxy.address
        proxy.stop_thread()
        assert server
        with mock.patch.object(proxy, "_server", server):  # as found a moment before
            self.assertEqual(proxy.address, address)
            self.assertIn(str(address[1]), repr(proxy))
            self.assertEqual((proxy.connections, proxy.sessions()), (0, []))
            proxy.reload()

    def test_stop_from_a_session_thread(self) -> None:
        """A session's own thread cannot stop its proxy, but may stop another one."""
        raised: list[BaseException] = []
        proxy = dev_proxy().run_in_thread("127.0.0.1", 0)
        other = dev_proxy().run_in_thread("127.0.0.1", 0)
        self.addCleanup(proxy.stop_thread)
        self.addCleanup(other.stop_thread)

        def answer(*arguments: object) -> bytes:
            try:
                proxy.stop_thread()
            except RuntimeError as exc:
                raised.append(exc)
            other.stop_thread()
            return b"HTTP/1.1 200 OK\r\n\r\n"

        with mock.patch("wsproxy.web.endpoints.answer", answer):
            self.assertTrue(answers(proxy.address))
        self.assertRegex(str(raised[0]), "a session cannot stop the proxy")
        self.assertTrue(answers(proxy.address))
        with self.assertRaises(RuntimeError):
            _ = other.address

    def test_start_that_fails_late(self) -> None:
        """When the proxy's own threads cannot start, nothing is left listening."""
        proxy = dev_proxy()
        failure = mock.patch(
            "wsproxy.server.acceptor.start_thread", side_effect=RuntimeError("can't start new thread")
        )
        with failure, self.assertRaisesRegex(RuntimeError, "can't start"):
            proxy.run_in_thread("127.0.0.1", 0)
        with proxy.run_in_thread("127.0.0.1", 0):
            self.assertTrue(answers(proxy.address))


class Foreground(LeakTestCase):
    """``run`` in this process."""

    def run_elsewhere(self, proxy: WebsocketProxy) -> tuple[threading.Thread, tuple[str, int]]:
        ready: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()

        def on_ready(running: WebsocketProxy) -> None:
            ready.put(running.address)

        thread = threading.Thread(target=proxy.run, args=("127.0.0.1", 0), kwargs={"on_ready": on_ready})
        thread.start()
        self.addCleanup(proxy.stop_thread)
        return thread, ready.get(timeout=_TIMEOUT)

    def test_off_the_main_thread(self) -> None:
        """Off the main thread ``run`` blocks until ``stop_thread``, and touches no signal handler."""
        before = signal.getsignal(signal.SIGTERM)
        proxy = dev_proxy()
        for _ in range(2):
            thread, address = self.run_elsewhere(proxy)
            self.assertTrue(answers(address))
            self.assertIs(signal.getsignal(signal.SIGTERM), before)
            proxy.stop_thread()
            thread.join(_TIMEOUT)
            self.assertFalse(thread.is_alive())

    def test_second_run_does_not_disturb_the_first(self) -> None:
        """A ``run`` that is refused leaves the one that runs stoppable."""
        proxy = dev_proxy()
        thread, _ = self.run_elsewhere(proxy)
        with self.assertRaises(RuntimeError):
            proxy.run("127.0.0.1", 0)
        proxy.stop_thread()
        thread.join(_TIMEOUT)
        alive = thread.is_alive()
        self.addCleanup(thread.join, 1)
        self.assertFalse(alive)

    def on_main_thread(self, act: Callable[[WebsocketProxy], None]) -> None:
        """Run a proxy here, and let another thread act as soon as it runs; handlers must be as before."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        threads: list[threading.Thread] = []

        def on_ready(proxy: WebsocketProxy) -> None:
            threads.append(threading.Thread(target=act, args=(proxy,)))
            threads[0].start()

        dev_proxy().run("127.0.0.1", 0, on_ready=on_ready)
        threads[0].join()
        after = {number: signal.getsignal(number) for number in before}
        self.assertEqual(after, before)

    def test_signals(self) -> None:
        """In the main thread SIGINT and SIGTERM end ``run``; the handlers of before come back."""
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number=number):
                self.on_main_thread(lambda proxy, number=number: os.kill(os.getpid(), number))  # type: ignore[misc]

    def test_signal_that_another_thread_gets(self) -> None:
        """The kernel may give a signal to any thread: it ends ``run`` all the same."""
        self.on_main_thread(lambda proxy: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))

    def test_other_signals(self) -> None:
        """A signal that the program handles itself does not end ``run``; its wakeup descriptor comes back."""
        handled: list[int] = []
        before = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        ours.setblocking(False)
        self.addCleanup(signal.set_wakeup_fd, signal.set_wakeup_fd(ours.fileno()))

        def act(proxy: WebsocketProxy) -> None:
            address = proxy.address
            os.kill(os.getpid(), signal.SIGUSR1)
            self.assertTrue(answers(address))
            proxy.stop_thread()

        self.on_main_thread(act)
        self.assertEqual(handled, [signal.SIGUSR1])
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(theirs.recv(1), bytes([signal.SIGUSR1]))

    def test_stop_thread(self) -> None:
        """In the main thread ``stop_thread`` ends ``run``, too."""
        self.on_main_thread(WebsocketProxy.stop_thread)

    def test_handlers_come_back_after_a_bind_error(self) -> None:
        """A ``run`` that cannot listen leaves the handlers as they were."""
        before = signal.getsignal(signal.SIGTERM)
        with dev_proxy().run_in_thread("127.0.0.1", 0) as first, self.assertRaises(OSError):
            dev_proxy().run(*first.address)
        self.assertIs(signal.getsignal(signal.SIGTERM), before)

    def test_hook_that_fails(self) -> None:
        """An ``on_ready`` that raises stops the proxy, and its exception is raised."""
        seen: list[tuple[str, int]] = []

        def on_ready(proxy: WebsocketProxy) -> None:
            seen.append(proxy.address)
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            dev_proxy().run("127.0.0.1", 0, on_ready=on_ready)
        self.assertFalse(answers(seen[0]))


_FOREGROUND = f"""
import signal, sys
from wsproxy import WebsocketProxy
before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
proxy = WebsocketProxy({_DEV[0]!r}, {_DEV[1]!r}, True, {SECRET!r}, close_timeout=0.5)
proxy.run("127.0.0.1", 0, on_ready=lambda proxy: print(proxy.address[1], flush=True))
print("restored", before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)], flush=True)
"""

_FORKING = f"""
import os, sys, traceback, warnings
warnings.simplefilter("ignore")
from wsproxy import WebsocketProxy

def make():
    return WebsocketProxy({_DEV[0]!r}, {_DEV[1]!r}, True, {SECRET!r}, close_timeout=0.5)

def refused(use):
    try:
        use()
    except RuntimeError as exc:
        return "before a fork" in str(exc)
    return False

running, fresh = make(), make()
running.run_in_thread("127.0.0.1", 0)
child = os.fork()
if child == 0:
    status = 1
    try:
        uses = (lambda: running.address, running.stop_thread, lambda: running.run_in_thread("127.0.0.1", 0),
                lambda: running.run("127.0.0.1", 0))
        print([refused(use) for use in uses], flush=True)
        with fresh.run_in_thread("127.0.0.1", 0):
            import socket
            with socket.create_connection(fresh.address, timeout=60) as sock:
                sock.sendall({_HEALTHZ!r})
                print(sock.recv(4096).split()[1], flush=True)
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    os._exit(status)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
import socket
with socket.create_connection(running.address, timeout=60) as sock:
    sock.sendall({_HEALTHZ!r})
    print("parent", sock.recv(4096).split()[1], flush=True)
running.stop_thread()
"""

_FORKING_IN_RUN = f"""
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
from wsproxy import WebsocketProxy

def fork():
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os.write(tell, b"x")
        while True:
            signal.pause()
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

def act(proxy):
    fork()
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    print(proxy.address[0], flush=True)

proxy = WebsocketProxy({_DEV[0]!r}, {_DEV[1]!r}, True, {SECRET!r}, close_timeout=0.5)
proxy.run("127.0.0.1", 0, on_ready=act)
print("over", flush=True)
"""


class SharedPort(LeakTestCase):
    """SO_REUSEPORT, for the workers of a WSGI server."""

    def test_shared(self) -> None:
        """Proxies that all say so listen at one address; when one stops the others go on."""
        with dev_proxy().run_in_thread("127.0.0.1", 0, reuse_port=True) as first:
            address = first.address
            with dev_proxy().run_in_thread(*address, reuse_port=True) as second:
                self.assertEqual(second.address, address)
                first.stop_thread()
                for _ in range(8):
                    self.assertTrue(answers(address))

    def test_not_shared(self) -> None:
        """An address is nobody else's unless both say so."""
        for ours, theirs in ((True, False), (False, True), (False, False)):
            with (
                self.subTest(ours=ours, theirs=theirs),
                dev_proxy().run_in_thread("127.0.0.1", 0, reuse_port=theirs) as other,
                self.assertRaises(OSError),
            ):
                dev_proxy().run_in_thread(*other.address, reuse_port=ours)

    def test_foreground(self) -> None:
        """``run`` shares an address as well."""
        with dev_proxy().run_in_thread("127.0.0.1", 0, reuse_port=True) as other:
            seen: list[tuple[str, int]] = []

            def on_ready(proxy: WebsocketProxy) -> None:
                seen.append(proxy.address)
                threading.Thread(target=proxy.stop_thread).start()

            dev_proxy().run(*other.address, on_ready=on_ready, reuse_port=True)
            self.assertEqual(seen, [other.address])


class GreenThreads(LeakTestCase):
    """gevent and eventlet."""

    def test_refused(self) -> None:
        """Where a library has replaced Python's threads, a start says so, and starts nothing."""
        for library, module, asked in (
            ("gevent", "gevent.monkey", "is_module_patched"),
            ("eventlet", "eventlet.patcher", "is_monkey_patched"),
        ):
            for patched in (True, False):
                fake = mock.Mock(**{f"{asked}.return_value": patched})
                with self.subTest(library, patched=patched), mock.patch.dict(sys.modules, {module: fake}):
                    proxy = dev_proxy()
                    if patched:
                        with self.assertRaisesRegex(RuntimeError, f"{library} has replaced Python's threads"):
                            proxy.run_in_thread("127.0.0.1", 0)
                    else:
                        proxy.run_in_thread("127.0.0.1", 0).stop_thread()


class Processes(LeakTestCase):
    """What needs a process of its own."""

    def test_signals(self) -> None:
        """SIGTERM and SIGINT end a process whose main thread runs a proxy, in good order and soon."""
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number=number), python("-c", _FOREGROUND) as process:
                assert process.stdout
                address = ("127.0.0.1", int(process.stdout.readline()))
                with RawClient(address) as client:
                    client.send_raw(b"GET /")
                    started = time.monotonic()
                    process.send_signal(number)
                    self.assertEqual(process.stdout.read(), "restored True\n")
                    self.assertEqual(process.wait(_TIMEOUT), 0)
                    self.assertLess(time.monotonic() - started, _TIMEOUT)
                    client.wait_for_end()

    def test_fork(self) -> None:
        """A running proxy refuses use in a forked child; one that was only made can be started there."""
        with python("-c", _FORKING) as process:
            output, _ = process.communicate(timeout=_TIMEOUT)
        self.assertEqual(
            output.splitlines(), ["[True, True, True, True]", "b'200'", "child 0", "parent b'200'"]
        )

    def test_signal_for_a_forked_child(self) -> None:
        """A child forked during ``run`` has the signal handling of before, and its signals are its own."""
        with python("-c", _FORKING_IN_RUN) as process:
            assert process.stdout
            seen = [process.stdout.readline().strip() for _ in range(3)]
            self.assertEqual(seen, ["-15", "-15", "127.0.0.1"])
            with self.assertRaises(subprocess.TimeoutExpired):
                process.wait(0.3)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.communicate(timeout=_TIMEOUT)[0], "over\n")

    def test_program_that_forgets_to_stop(self) -> None:
        """A program that ends without stopping its proxy, a daemon, ends all the same."""
        start = 'proxy.run_in_thread("127.0.0.1", 0, daemon=True)\n'
        script = _FOREGROUND.partition("proxy.run(")[0] + start
        with python("-c", script) as process:
            self.assertEqual(process.communicate(timeout=_TIMEOUT), ("", None))
            self.assertEqual(process.returncode, 0)


class Sessions(ProxyTestCase):
    """A proxy that has sessions."""

    tls = False

    def test_connections(self) -> None:
        """Sessions are counted, and end when the proxy is stopped; it can be started again."""
        self.api.add_vmi("vm", self.namespace)
        proxy = self.start_proxy()
        for _ in range(2):
            client = RawClient.open(self.url(proxy, "vm"))
            self.addCleanup(client.close)
            self.assertEqual((client.status, proxy.connections), (101, 1))
            address, deadline = proxy.address, Deadline(_TIMEOUT)
            proxy.stop_thread()
            self.assertFalse(deadline.passed)
            self.assertEqual(client.recv_close(), (1012, "restarting"))
            self.assertEqual(proxy.connections, 0)
            proxy.run_in_thread(*address)


if __name__ == "__main__":
    unittest.main()
