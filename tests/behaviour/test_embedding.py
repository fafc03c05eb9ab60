"""The proxy inside another program: it leaves nothing behind, changes nothing, is not alone."""

from __future__ import annotations

import ast
import asyncio
import atexit
import gc
import logging
import os
import queue
import signal
import socket
import threading
import unittest
from pathlib import Path

import wsproxy
from tests.support.processes import python
from wsproxy import SessionHandle, WebsocketProxy
from wsproxy.runtime import forks
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_TIMES = 100
_TIMEOUT = 60.0


class StartedAgainAndAgain(ProxyTestCase):
    """One process that starts and stops proxies, as a suite or an application's factory does."""

    tls = False

    def test_nothing_is_left(self) -> None:
        """A hundred proxies, each with a session, leave no thread, descriptor, handler or callback."""
        self.api.add_vmi("vm", self.namespace)
        self.use_one()  # the first use of anything makes what stays, such as loggers
        before = _left()
        for _ in range(_TIMES):
            self.use_one()
        self.assertEqual(_left(), before)

    def use_one(self) -> None:
        proxy = WebsocketProxy(**self.proxy_options())
        with (
            proxy.run_in_thread("127.0.0.1", 0),
            RawClient.open(proxy.console_url(self.token("vm"), "vm")) as client,
        ):
            client.send_frame(BINARY, b"x")
            self.assertEqual(client.recv_frame().payload, b"x")
            client.send_close(1000)
            client.recv_close()
            client.wait_for_end()
        self.assertTrue(self.api.wait_until_idle())

    def test_one_object(self) -> None:
        """One proxy is started and stopped a hundred times, and leaves as little."""
        proxy = WebsocketProxy(**self.proxy_options())
        with proxy.run_in_thread("127.0.0.1", 0):
            pass
        before = _left()
        for _ in range(_TIMES):
            proxy.run_in_thread("127.0.0.1", 0).stop_thread()
        self.assertEqual(_left(), before)


class InAnEventLoop(ProxyTestCase):
    """A proxy beside an ASGI application, whose lifespan starts and ends it."""

    async def lifespan(self) -> RawClient:
        self.api.add_vmi("vm", self.namespace)
        proxy = WebsocketProxy(**self.proxy_options()).run_in_thread("127.0.0.1", 0)
        try:
            return await asyncio.to_thread(RawClient.open, proxy.console_url(self.token("vm"), "vm"))
        finally:
            await asyncio.to_thread(proxy.stop_thread)

    def test_lifespan(self) -> None:
        """It serves while the loop runs; its end tells clients, and leaves nothing."""
        with asyncio.run(self.lifespan()) as client:
            self.assertEqual(client.recv_close(), (1012, "restarting"))


def _left() -> dict[str, object]:
    """Return whatever a proxy might leave behind."""
    gc.collect()
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    return {
        # The stand-in's threads for connections end a moment after these.
        "threads": sorted(thread.name for thread in threading.enumerate() if "wsproxy" in thread.name),
        "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None,
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "handlers": [list(logger.handlers) for logger in (logging.root, *loggers)],
        "at exit": atexit._ncallbacks(),
        "in forked children": [thing for thing in forks._actions if not _is_closed(thing)],
    }


def _is_closed(thing: object) -> bool:
    """Whether this is a socket that is closed: the stand-in keeps those that it had."""
    return isinstance(thing, socket.socket) and thing.fileno() == -1


class Several(ProxyTestCase):
    """Proxies with different secrets, prefixes, hooks and APIs, at once in one process."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.second = FakeKubeVirtAPI(tls=False)
        self.second.start()
        self.addCleanup(self.second.stop)
        self.opened: queue.SimpleQueue[tuple[str, SessionHandle]] = queue.SimpleQueue()
        self.secrets = {"a": SECRET, "b": SECRET[::-1]}
        apis = {"a": self.api, "b": self.second}
        self.proxies: dict[str, WebsocketProxy] = {}
        for name, api in apis.items():
            api.add_vmi("vm", self.namespace)
            self.proxies[name] = self.start_proxy(
                remote_url=api.url,
                secret_key=self.secrets[name],
                host_path_prefix=name,
                close_timeout=0.2,
                on_open=lambda session, name=name: self.opened.put((name, session)),
            )

    def client(self, proxy: str, secret: str, prefix: str) -> RawClient:
        token = self.token("vm", secret=self.secrets[secret])
        host, port = self.proxies[proxy].address
        client = RawClient.open(f"ws://{host}:{port}/{prefix}/{token}/vm")
        self.addCleanup(client.close)
        return client

    def test_no_crosstalk(self) -> None:
        """Each takes its own tokens at its own prefix only, and opens consoles at its own API only."""
        for proxy, other, api, other_api in (
            ("a", "b", self.api, self.second),
            ("b", "a", self.second, self.api),
        ):
            with self.subTest(proxy):
                self.assertEqual(self.client(proxy, other, proxy).status, 401)
                self.assertEqual(self.client(proxy, proxy, other).status, 404)
                before = len(api.consoles), len(other_api.consoles)
                client = self.client(proxy, proxy, proxy)
                self.assertEqual(client.status, 101)
                self.assertEqual((len(api.consoles), len(other_api.consoles)), (before[0] + 1, before[1]))
                self.assertEqual(self.opened.get(timeout=_TIMEOUT)[0], proxy)
                self.assertEqual(len(self.proxies[proxy].sessions()), 1)
        self.assertTrue(self.opened.empty())

    def test_ends_apart(self) -> None:
        """Stopping one leaves the others' sessions alone; even a hook of another may do it."""
        clients = {name: self.client(name, name, name) for name in self.proxies}
        sessions = dict(self.opened.get(timeout=_TIMEOUT) for _ in clients)
        self.proxies["a"].stop_thread()
        self.assertEqual(clients["a"].recv_close(), (1012, "restarting"))
        self.assertEqual((self.proxies["a"].sessions(), self.proxies["b"].sessions()), ([], [sessions["b"]]))
        clients["b"].send_frame(BINARY, b"still here")
        self.assertEqual(clients["b"].recv_frame().payload, b"still here")
        third = self.start_proxy(on_open=lambda session: self.proxies["b"].stop_thread())
        with RawClient.open(third.console_url(self.token("vm"), "vm")) as client:
            self.assertEqual(clients["b"].recv_close(), (1012, "restarting"))
            client.send_frame(BINARY, b"x")
            self.assertEqual(client.recv_frame().payload, b"x")


_STATE = """
import websocket  # which gives its own logger a handler that does nothing
import gc, locale, logging, os, resource, signal, socket, sys, threading, warnings

def state():
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    umask = os.umask(0)
    os.umask(umask)
    named = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "wakeup": wakeup,
        "handlers": list(logging.root.handlers),
        "level": logging.root.level,
        "named": [logger.name for logger in named if logger.handlers or logger.level or not logger.propagate],
        "raise": logging.raiseExceptions,
        "factory": (logging.getLoggerClass(), logging.getLogRecordFactory()),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.gettrace(), sys.getprofile()),
        "stack size": threading.stack_size(),
        "recursion": sys.getrecursionlimit(),
        "timeout": socket.getdefaulttimeout(),
        "switch": sys.getswitchinterval(),
        "gc": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "environment": dict(os.environ),
        "directory": (os.getcwd(), umask),
        "locale": locale.setlocale(locale.LC_ALL),
        "warnings": list(warnings.filters),
        "affinity": affinity,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
    }

before = state()
"""

_USE = f"""
import wsproxy.proxy, wsproxy.config, wsproxy.runtime.threads, wsproxy.tokens
from wsproxy import WebsocketProxy

imported = state()
ready = threading.Event()
proxy = WebsocketProxy("ws://127.0.0.1:9", "/{{namespace}}/{{vmi_name}}/vnc", True, {SECRET!r})
options = {{"on_ready": lambda proxy: ready.set()}}
thread = threading.Thread(target=proxy.run, args=("127.0.0.1", 0), kwargs=options)
thread.start()
ready.wait()
with WebsocketProxy.from_config(proxy.config).run_in_thread("127.0.0.1", 0) as second:
    token = wsproxy.tokens.make_token({SECRET!r}, namespace="lab-1", vmis=["vm"])
    for one in (proxy, second):  # a client that is let in, and then refused because there is no API
        with socket.create_connection(one.address) as client:
            client.sendall(
                b"GET /%s/vm HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                b"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\n\\r\\n"
                % token.encode()
            )
            print(client.recv(65536).split()[1].decode())
    with wsproxy.runtime.threads._lock:  # while a thread is being started, its stack size is the process's
        running = state()
proxy.stop_thread()
thread.join()
stopped = state()
for what, after in (("import", imported), ("running", running), ("stopped", stopped)):
    print(what, {{name: (before[name], after[name]) for name in before if before[name] != after[name]}})
"""


class NothingElseChanges(unittest.TestCase):
    """What belongs to the process is its program's."""

    def test_state_of_the_process(self) -> None:
        """Neither the import nor running proxies, one of them off the main thread, changes the process."""
        with python("-W", "error", "-c", _STATE + _USE, seconds=_TIMEOUT) as process:
            assert process.stdout
            lines = process.stdout.read().splitlines()
        self.assertEqual(lines, ["502", "502", "import {}", "running {}", "stopped {}"])

    def test_no_global_state(self) -> None:
        """No module but these assigns a global from within a function, and each says why."""
        found = set()
        for path in Path(wsproxy.__file__).parent.rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if any(isinstance(node, ast.Global) for node in ast.walk(tree)):
                found.add(path.stem)
        self.assertEqual(found, {"cpu_affinity"})  # which only the program uses

    def test_only_the_program_configures_logging(self) -> None:
        """Only programs call basicConfig, or give a logger a handler or a level; a store's process is one."""
        package = Path(wsproxy.__file__).parent
        programs = {"cli/program.py", "cli/demo.py", "cli/state.py", "state/stores/local/process.py"}
        for path in package.rglob("*.py"):
            if (name := path.relative_to(package).as_posix()) not in programs:
                with self.subTest(name):
                    tree = ast.parse(path.read_text(encoding="utf-8"))
                    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
                    self.assertEqual(names & {"basicConfig", "addHandler", "setLevel"}, set())


if __name__ == "__main__":
    unittest.main()
