"""What a user of lab-orchestrator-ws-proxy-lib and lab-orchestrator-ws-proxy 1.0.0 wrote goes on working."""

from __future__ import annotations

import queue
import signal
import socket
import threading
import time

from lab_orchestrator_ws_proxy_lib.ws_proxy_lib import WebsocketProxy

import wsproxy
from tests.support.processes import python
from tests.support.proxy_process import ProxyProcess
from wsproxy.exceptions import ConfigError
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE
from wsproxy.testing.rfb.raw_client import RawClient

_API_PATH = "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{vmi_name}/vnc"
_CLOSE_TIMEOUT = 1.0
_SLACK = 20.0  # for an interpreter to end, on a busy machine
_RESTARTING = 1012


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class DropInTestCase(ProxyTestCase):
    """Has a stand-in without TLS, as behind ``kubectl proxy``, with one VMI that echoes."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("ubuntu", self.namespace)

    def open(self, address: tuple[str, int], prefix: str = "") -> RawClient:
        """Open a session and return its client."""
        client = RawClient.open(f"ws://{address[0]}:{address[1]}{prefix}/{self.token('ubuntu')}/ubuntu")
        self.addCleanup(client.close)
        return client

    def assert_echoes(self, address: tuple[str, int], prefix: str = "") -> RawClient:
        """Check that a session works, and return its client."""
        client = self.open(address, prefix)
        self.assertEqual(client.status, 101)
        client.send_frame(BINARY, b"console")
        self.assertEqual(client.recv_frame().payload, b"console")
        return client

    def assert_nobody_listens(self, address: tuple[str, int]) -> None:
        """Check that the port is closed."""
        with self.assertRaises(ConnectionRefusedError):
            RawClient(address)


class LibraryTest(DropInTestCase):
    """The library's interface."""

    def test_same_class(self) -> None:
        """Both import names give the same class."""
        self.assertIs(WebsocketProxy, wsproxy.WebsocketProxy)

    def test_run_in_thread(self) -> None:
        """The original's keyword arguments make a proxy that serves from run_in_thread to stop_thread."""
        for cls in (WebsocketProxy, wsproxy.WebsocketProxy):
            proxy = cls(
                remote_url=self.api.url,
                api_path=_API_PATH,
                local_dev_mode=True,
                secret_key=SECRET,
                host_path_prefix=None,
            )
            with self.subTest(module=cls.__module__):
                self.assertIs(proxy.run_in_thread("127.0.0.1", 0), proxy)
                self.addCleanup(proxy.stop_thread)
                address = proxy.address
                self.assert_echoes(address).close()
                proxy.stop_thread()
                self.assert_nobody_listens(address)

    def test_positions(self) -> None:
        """The five parameters keep their order."""
        proxy = WebsocketProxy(self.api.url, _API_PATH, True, SECRET, "ws_proxy")
        with proxy.run_in_thread("127.0.0.1", 0):
            self.assert_echoes(proxy.address, "/ws_proxy").close()
            self.assertEqual(self.open(proxy.address).status, 404)

    def test_stop_is_idempotent(self) -> None:
        """A stop before a start does nothing, a second one neither, and the proxy can be started again."""
        proxy = WebsocketProxy(self.api.url, _API_PATH, True, SECRET)
        proxy.stop_thread()
        for _ in range(2):
            proxy.run_in_thread("127.0.0.1", 0)
            self.assert_echoes(proxy.address).close()
            proxy.stop_thread()
            proxy.stop_thread()

    def test_thread(self) -> None:
        """``thread`` is None before a start, lives until the stop, and stays."""
        proxy = WebsocketProxy(self.api.url, _API_PATH, True, SECRET)
        self.assertIsNone(proxy.thread)
        proxy.run_in_thread("127.0.0.1", 0)
        self.addCleanup(proxy.stop_thread)
        thread = proxy.thread
        assert thread
        self.assertTrue(thread.is_alive())
        proxy.stop_thread()
        self.assertFalse(thread.is_alive())
        self.assertIs(proxy.thread, thread)

    def test_second_call(self) -> None:
        """A second call while the proxy runs is a RuntimeError, and changes nothing."""
        proxy = WebsocketProxy(self.api.url, _API_PATH, True, SECRET)
        with proxy.run_in_thread("127.0.0.1", 0):
            thread = proxy.thread
            with self.assertRaises(RuntimeError):
                proxy.run_in_thread("127.0.0.1", 0)
            self.assertIs(proxy.thread, thread)
            self.assert_echoes(proxy.address).close()

    def test_all_addresses(self) -> None:
        """``host=None`` is every address, of both families where there are two."""
        with WebsocketProxy(self.api.url, _API_PATH, True, SECRET).run_in_thread(None, 0) as proxy:
            port = proxy.address[1]
            self.assert_echoes(("127.0.0.1", port)).close()
            if _has_ipv6():
                RawClient(("::1", port)).close()

    def test_port(self) -> None:
        """A port may be text, as the environment has it; one that does not exist is a fault."""
        proxy = WebsocketProxy(self.api.url, _API_PATH, True, SECRET)
        with proxy.run_in_thread("127.0.0.1", "0"):  # type: ignore[arg-type]
            self.assert_echoes(proxy.address).close()
        for port in (70000, -1):
            with self.assertRaisesRegex(ConfigError, "0 to 65535"):
                proxy.run_in_thread("127.0.0.1", port)
        with self.assertRaisesRegex(ConfigError, "host"):
            proxy.run_in_thread(["127.0.0.1"], 0)  # type: ignore[arg-type]

    def test_run(self) -> None:
        """In a thread, run serves until another thread calls stop_thread, which ends the live session."""
        proxy = WebsocketProxy(self.api.url, _API_PATH, True, SECRET, close_timeout=_CLOSE_TIMEOUT)
        ready: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        thread = threading.Thread(
            target=proxy.run,
            args=("127.0.0.1", 0),
            kwargs={"on_ready": lambda running: ready.put(running.address)},
            name="run",
        )
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(proxy.stop_thread)
        client = self.assert_echoes(ready.get(timeout=60))
        stopper = threading.Thread(target=proxy.stop_thread, name="stop")
        stopper.start()
        self.addCleanup(stopper.join)
        self.assertEqual(client.recv_close()[0], _RESTARTING)
        client.send_close(_RESTARTING)
        thread.join(_CLOSE_TIMEOUT + _SLACK)
        self.assertFalse(thread.is_alive())

    def test_port_is_taken(self) -> None:
        """A port that is taken is an OSError in the caller of run_in_thread."""
        with WebsocketProxy(self.api.url, _API_PATH, True, SECRET).run_in_thread("127.0.0.1", 0) as proxy:
            other = WebsocketProxy(self.api.url, _API_PATH, True, SECRET)
            with self.assertRaises(OSError):
                other.run_in_thread(*proxy.address)
            self.assertRaises(RuntimeError, lambda: other.address)


class ProgramTest(DropInTestCase):
    """``python -m lab_orchestrator_ws_proxy`` with nothing but the original's environment."""

    def start(self, api: FakeKubeVirtAPI | None = None, **settings: str) -> ProxyProcess:
        """Start the program; SECRET_KEY, HOST and PORT, and what names the API, are set."""
        program = ProxyProcess(
            api or self.api, ("-m", "lab_orchestrator_ws_proxy"), LOGLEVEL="DEBUG", **settings
        )
        self.addCleanup(program.close)
        return program

    def test_version(self) -> None:
        """It takes what the program takes, such as --version."""
        with python("-m", "lab_orchestrator_ws_proxy", "--version") as process:
            assert process.stdout
            self.assertEqual(process.stdout.read(), f"wsproxy {wsproxy.__version__}\n")

    def test_dev_mode(self) -> None:
        """With LOCAL_DEV_MODE and WS_REMOTE_URL it serves sessions through the API at that URL."""
        program = self.start()
        self.assert_echoes(program.address)

    def test_prefix(self) -> None:
        """With HOST_PATH_PREFIX, paths with the prefix work and paths without it do not."""
        program = self.start(HOST_PATH_PREFIX="ws_proxy")
        self.assert_echoes(program.address, "/ws_proxy")
        self.assertEqual(self.open(program.address).status, 404)

    def test_in_cluster(self) -> None:
        """With KUBERNETES_SERVICE_HOST and _PORT it speaks TLS and shows the service account's token."""
        with FakeKubeVirtAPI() as api:
            api.add_vmi("ubuntu", self.namespace)
            program = self.start(api, LOCAL_DEV_MODE="false")
            self.assert_echoes(program.address)
            self.assertEqual(api.requests[-1].header("authorization"), f"Bearer {api.token}")
            program.close()
            self.assertEqual(api.errors, [])

    def assert_stops(self, number: signal.Signals, *, answer: bool) -> None:
        """Stop the program under a live session and check how both end."""
        program = self.start(WSPROXY_CLOSE_TIMEOUT=str(_CLOSE_TIMEOUT))
        client = self.assert_echoes(program.address)
        started = time.monotonic()
        program.process.send_signal(number)
        self.assertEqual(client.recv_close(_CLOSE_TIMEOUT + _SLACK)[0], _RESTARTING)
        if answer:
            client.send_frame(CLOSE, _RESTARTING.to_bytes(2, "big"))
        client.wait_for_end(_CLOSE_TIMEOUT + _SLACK)
        self.assertEqual(program.process.wait(_CLOSE_TIMEOUT + _SLACK), 0)
        self.assertLess(time.monotonic() - started, _CLOSE_TIMEOUT + _SLACK)
        self.assertTrue(self.api.wait_until_idle(_SLACK), "the upstream connection is left")
        self.assertNotIn(b"Traceback", program.output)

    def test_sigterm(self) -> None:
        """SIGTERM ends the live session with Close 1012 and the program with status 0."""
        self.assert_stops(signal.SIGTERM, answer=True)

    def test_sigint(self) -> None:
        """SIGINT ends the live session with Close 1012 and the program with status 0."""
        self.assert_stops(signal.SIGINT, answer=True)

    def test_client_does_not_answer(self) -> None:
        """A client that does not answer the Close holds the stop up for the close timeout, no longer."""
        self.assert_stops(signal.SIGTERM, answer=False)
