"""Stopping without haste: who is still let in, which sessions go on, and what ends them."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import tempfile
import threading
from typing import Any

from tests.server.test_acceptor import ServerTestCase
from tests.support.proxy_process import ProxyProcess, wait_until
from wsproxy import WebsocketProxy
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_LONG = 600.0
_TIMEOUT = 60.0
_RESTARTING = (1012, "restarting")
_HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class DrainTestCase(ProxyTestCase):
    """Opens sessions of VMs that echo."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.numbers = itertools.count()

    def session(self, address: tuple[str, int], *headers: str, secret: str = SECRET) -> RawClient:
        """Ask for a session, and return the client, whatever the answer is."""
        client = self.connect(address)
        self.ask(client, *headers, secret=secret)
        return client

    def connect(self, address: tuple[str, int]) -> RawClient:
        client = RawClient(address)
        self.addCleanup(client.close)
        return client

    def ask(self, client: RawClient, *headers: str, secret: str = SECRET) -> None:
        vmi = f"vm{next(self.numbers)}"  # a console has room for one
        self.api.add_vmi(vmi, self.namespace)
        client.send_raw(RawClient.request(f"/{self.token(vmi, secret=secret)}/{vmi}", headers))
        client.read_head()

    def opened(self, address: tuple[str, int]) -> RawClient:
        client = self.session(address)
        self.assertEqual(client.status, 101)
        return client

    def assert_goes_on(self, client: RawClient) -> None:
        client.send_frame(BINARY, b"console")
        self.assertEqual(client.recv_frame().payload, b"console")

    def assert_restarts(self, client: RawClient) -> None:
        self.assertEqual(client.recv_close(), _RESTARTING)
        client.send_close(1012)
        client.close()

    def assert_listens_no_more(self, address: tuple[str, int]) -> None:
        def refused() -> bool:
            try:
                socket.create_connection(address).close()
            except OSError:
                return True
            return False

        self.assertTrue(wait_until(refused, _TIMEOUT))


class Library(DrainTestCase):
    """``stop_thread(drain=..., grace=...)``."""

    def stopping(self, proxy: WebsocketProxy, **seconds: float) -> threading.Thread:
        """Stop the proxy in a thread, and return that once the proxy drains."""
        thread = threading.Thread(target=proxy.stop_thread, kwargs=seconds)
        server = proxy._server
        assert server
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(proxy.stop_thread)
        self.assertTrue(wait_until(lambda: server._gateway.readiness._draining, _TIMEOUT))
        return thread

    def test_sessions_go_on(self) -> None:
        """Nobody new comes in; a session goes on, its end by the client is a normal one, and the last."""
        proxy = self.start_proxy()
        address, client = proxy.address, self.opened(proxy.address)
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            thread = self.stopping(proxy, drain=_LONG)
            self.assert_listens_no_more(address)
            self.assert_goes_on(client)
            client.send_close(1000, "bye")
            self.assertEqual(client.recv_close()[0], 1000)
            client.close()
            thread.join(_TIMEOUT)
            self.assertFalse(thread.is_alive())
        self.assertIn("by client code 1000 'bye'", logs.output[-1])

    def test_time_is_over(self) -> None:
        """Who has not left when the time is over gets the Close of a restart."""
        proxy = self.start_proxy()
        client = self.opened(proxy.address)
        thread = self.stopping(proxy, drain=0.05)
        self.assert_restarts(client)
        thread.join(_TIMEOUT)
        self.assertFalse(thread.is_alive())

    def test_second_call(self) -> None:
        """A further call without time ends the wait of the first, in either phase."""
        for seconds in ({"drain": _LONG}, {"grace": _LONG}, {"grace": _LONG, "drain": _LONG}):
            with self.subTest(seconds=seconds):
                proxy = self.start_proxy()
                client = self.opened(proxy.address)
                thread = self.stopping(proxy, **seconds)
                stopper = threading.Thread(target=proxy.stop_thread)
                stopper.start()
                self.assert_restarts(client)
                for each in (thread, stopper):
                    each.join(_TIMEOUT)
                    self.assertFalse(each.is_alive())
                self.assertEqual(proxy.connections, 0)

    def test_grace(self) -> None:
        """In the time of grace clients are let in as before."""
        proxy = self.start_proxy()
        first = self.opened(proxy.address)
        self.stopping(proxy, grace=_LONG)
        second = self.opened(proxy.address)
        for client in (first, second):
            self.assert_goes_on(client)
            client.close()

    def test_not_yet_authorised(self) -> None:
        """Who was connected before, and asks afterwards, is told to come again; pages by a Close."""
        proxy = self.start_proxy()
        address, client = proxy.address, self.opened(proxy.address)
        script, browser, prober = (self.connect(address) for _ in range(3))
        self.assertTrue(wait_until(lambda: proxy.connections == 4, _TIMEOUT))
        self.stopping(proxy, drain=_LONG)
        self.assert_listens_no_more(address)
        server = proxy._server
        assert server
        self.assertTrue(wait_until(lambda: not server._gateway.admits, _TIMEOUT))
        self.ask(script)
        self.assertEqual((script.status, script.header("Retry-After")), (503, "5"))
        self.assertIn(b'"reason": "draining"', script.body())
        self.ask(browser, "Origin: http://page")
        self.assertEqual(browser.status, 101)
        browser.recv_frame()
        browser.send_frame(BINARY, b"RFB 003.008\n")
        browser.recv_frame()
        self.assertEqual(browser.recv_close()[0], 4503)
        prober.send_raw(_HEALTHZ)
        prober.read_head()
        self.assertEqual(prober.status, 200)
        self.assert_goes_on(client)

    def test_stop_before_the_start(self) -> None:
        """To stop a proxy that does not run takes no time, however long sessions may take."""
        WebsocketProxy(**self.proxy_options()).stop_thread(drain=_LONG, grace=_LONG)


class Queue(ServerTestCase):
    """Clients that the kernel has queued when the listener is about to be closed."""

    def test_queued(self) -> None:
        """All of them are accepted and answered, whatever the accept thread was at."""
        server = self.server()
        clients = [RawClient(server.address) for _ in range(20)]
        for client in clients:
            self.addCleanup(client.close)
            client.send_raw(_HEALTHZ)
        server.shutdown()  # before the accept thread looks at the first of them
        server.start()
        server.stop()
        for client in clients:
            client.read_head()
            self.assertEqual(client.status, 200)

    def test_out_of_descriptors(self) -> None:
        """If they cannot be accepted, that does not hold the stop up."""
        server = self.server()
        client = RawClient(server.address)
        self.addCleanup(client.close)
        server._complained = True
        server.shutdown()
        server.start()
        server.stop()
        self.assertEqual(server.connections, 0)


class Program(DrainTestCase):
    """Signals to the program, with and without workers."""

    def programs(self, **settings: Any) -> list[ProxyProcess]:
        """Start the program as one process, and with two workers."""
        proxies = []
        for workers in ("1", "2"):
            proxies.append(ProxyProcess(self.api, WSPROXY_WORKERS=workers, **settings))
            self.addCleanup(proxies[-1].close)
        return proxies

    def assert_ended(self, proxy: ProxyProcess) -> None:
        """Assert that the program ends by itself, in good order."""
        self.assertEqual(proxy.process.wait(_TIMEOUT), 0)
        proxy.stop()
        self.assertNotRegex(proxy.output, rb"ERROR|WARNING")

    def test_last_session_ends(self) -> None:
        """After SIGTERM a session goes on; when the last has ended, so has the program."""
        for proxy in self.programs(WSPROXY_DRAIN_TIMEOUT=str(_LONG)):
            client = self.opened(proxy.address)
            proxy.process.send_signal(signal.SIGTERM)
            self.assert_listens_no_more(proxy.address)
            self.assert_goes_on(client)
            client.send_close(1000)
            self.assertEqual(client.recv_close()[0], 1000)
            client.close()
            self.assert_ended(proxy)
            self.assertNotIn(b"stopping now", proxy.output)

    def test_time_is_over(self) -> None:
        """When the time is over the sessions that are left are closed, and the program ends."""
        for proxy in self.programs(WSPROXY_DRAIN_GRACE="0.05", WSPROXY_DRAIN_TIMEOUT="0.05"):
            client = self.opened(proxy.address)
            proxy.process.send_signal(signal.SIGTERM)
            self.assert_restarts(client)
            self.assert_ended(proxy)

    def test_second_signal(self) -> None:
        """A second signal ends the sessions at once, in good order."""
        for setting in ("WSPROXY_DRAIN_TIMEOUT", "WSPROXY_DRAIN_GRACE"):
            for proxy in self.programs(**{setting: str(_LONG)}):
                client = self.opened(proxy.address)
                proxy.process.send_signal(signal.SIGTERM)
                proxy.wait_for(rb"SIGTERM: stopping\n")
                self.assert_goes_on(client)
                proxy.process.send_signal(signal.SIGINT)
                self.assert_restarts(client)
                self.assert_ended(proxy)
                self.assertIn(b": stopping now", proxy.output)

    def test_second_signal_overtakes(self) -> None:
        """A worker that does not run at the first signal does not take it and the second for one."""
        proxy = ProxyProcess(self.api, WSPROXY_WORKERS="2", WSPROXY_DRAIN_GRACE=str(_LONG))
        self.addCleanup(proxy.close)
        started = proxy.wait_for(rb"worker 1 \(pid (\d+)\) started\n")
        os.kill(int(started[1]), signal.SIGSTOP)
        proxy.process.send_signal(signal.SIGTERM)
        proxy.wait_for(rb"wsproxy\.worker: SIGTERM: stopping\n")
        proxy.process.send_signal(signal.SIGINT)
        proxy.wait_for(rb": stopping now\n")  # the second worker, which is signalled after the first
        os.kill(int(started[1]), signal.SIGCONT)
        self.assert_ended(proxy)

    def test_supervisor_is_killed_meanwhile(self) -> None:
        """Workers whose supervisor is gone wait for no session."""
        _, proxy = self.programs(WSPROXY_DRAIN_TIMEOUT=str(_LONG))
        client = self.opened(proxy.address)
        proxy.process.send_signal(signal.SIGTERM)
        proxy.wait_for(rb"wsproxy\.worker: SIGTERM: stopping\n", 2)
        proxy.process.kill()
        self.assert_restarts(client)
        proxy.wait_for(rb"wsproxy\.worker: stopped\n", 2)

    def test_reload(self) -> None:
        """SIGHUP reads keys again at once; sessions go on; a broken file leaves its keys, with one error."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path, other = os.path.join(directory.name, "key"), "another secret of more than 32 bytes"
        broken = rb"ERROR wsproxy\.reloaded: the key file \S+ cannot be read again, the last one stays in use"
        for workers in (1, 2):
            _write(path, SECRET)
            settings = {"SECRET_KEY": "", "SECRET_KEY_FILE": path, "WSPROXY_WORKERS": str(workers)}
            with ProxyProcess(self.api, **settings) as proxy:
                client = self.opened(proxy.address)
                _write(path, "")
                proxy.process.send_signal(signal.SIGHUP)
                proxy.wait_for(broken, workers)
                self.opened(proxy.address).close()
                self.assertEqual(proxy.output.count(b"cannot be read again"), workers)
                _write(path, other)
                proxy.process.send_signal(signal.SIGHUP)
                proxy.wait_for(rb"SIGHUP: keys and certificates read again", 2 * workers)
                new = self.session(proxy.address, secret=other)
                self.assertEqual(new.status, 101)
                new.close()
                self.assertEqual(self.session(proxy.address).status, 401)
                self.assert_goes_on(client)
                client.close()
                self.assertEqual(proxy.stop(), 0)
                self.assertEqual(proxy.output.count(b"ERROR"), workers)


def _write(path: str, text: str) -> None:
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(text)
    os.replace(path + ".new", path)
