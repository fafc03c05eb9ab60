"""Slow readers, and what they keep in memory or keep others from."""

from __future__ import annotations

import contextlib
import json
import os
import tracemalloc
from collections.abc import Callable
from typing import Any, ClassVar
from unittest import mock

from tests.support.gate import Gate
from tests.support.proxy_process import wait_until
from tests.support.wsgi_host import Host
from wsproxy import Config, WebsocketProxy
from wsproxy.net.transport import PlainTransport
from wsproxy.server.gateway import Gateway
from wsproxy.state.participant.holding import Holding
from wsproxy.state.values import BusyReason, Decision, Outcome
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.testing.screen.png import encode_png
from wsproxy.wsgi.app import ConsoleApp

_MIB = 1024 * 1024
_WAIT = 20.0
# As large as pictures may be, of noise, which nothing makes smaller.
_PICTURE = encode_png(1600, 1600, os.urandom(1600 * 1600 * 3))
_SMALL = encode_png(2, 1, b"\1\2\3\4\5\6")


class MemoryCase(ProxyTestCase):
    tls = False
    proxy_settings: ClassVar[dict[str, Any]] = {"screenshots": True}

    def setUp(self) -> None:
        super().setUp()
        self.vmi = self.api.add_vmi("vm", self.namespace, screen=lambda: _PICTURE)
        patcher = mock.patch("wsproxy.web.screenshot_cache.GOOD_SECONDS", 1000.0)
        patcher.start()
        self.addCleanup(patcher.stop)

    def gateway(self, proxy: WebsocketProxy) -> Gateway:
        assert proxy._server is not None
        return proxy._server._gateway

    def ask(
        self, front: WebsocketProxy | Host, user: str = "alice", *, receive_buffer: int | None = 4096
    ) -> RawClient:
        """Ask for a picture, and read nothing."""
        client = RawClient(front.address, receive_buffer=receive_buffer)
        self.addCleanup(client.close)
        bearer = f"Authorization: Bearer {self.token('vm', user=user)}"
        client.send_raw(f"GET /-/vm/screenshot.png HTTP/1.1\r\nHost: proxy\r\n{bearer}\r\n\r\n".encode())
        return client

    def read(self, front: WebsocketProxy | Host, user: str) -> bool:
        """Return whether a user gets the picture, and reads it at once."""
        client = self.ask(front, user, receive_buffer=None)
        whole = client.body().endswith(_PICTURE)
        client.close()
        return whole

    def status(self, client: RawClient) -> int:
        client.read_head()
        return client.status


class PicturesInMemory(MemoryCase):
    """CWE-770: many read one picture slowly, and each has a copy of it."""

    def setUp(self) -> None:
        super().setUp()
        self.assertGreater(len(_PICTURE), 7 * _MIB)
        self.assertLess(len(_PICTURE), 8 * _MIB)

    def grown(self, read: Callable[[], None]) -> float:
        """Return by how many MiB what Python holds grows at most."""
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            read()
            return (tracemalloc.get_traced_memory()[1] - before) / _MIB
        finally:
            tracemalloc.stop()

    def test_one_body(self) -> None:
        """All who read the same picture are sent the same bytes, whoever they are."""
        sent: list[bytes] = []
        send = PlainTransport.send

        def noted(transport: PlainTransport, data: bytes, deadline: Any) -> None:
            sent.append(data)
            send(transport, data, deadline)

        proxy = self.start_proxy()
        with mock.patch.object(PlainTransport, "send", noted):
            for user in ("alice", "bob", "carol"):
                self.assertTrue(self.read(proxy, user))
        self.assertEqual({id(data) for data in sent if len(data) > _MIB}, {id(sent[-1])})

    def test_slow_readers(self) -> None:
        """Many slow readers of one user hold its places, and one picture; the others are told so at once."""
        proxy = self.start_proxy()
        in_flight = self.gateway(proxy).in_flight
        self.assertTrue(self.read(proxy, "bob"))

        def read() -> None:
            clients = [self.ask(proxy) for _ in range(40)]
            told = [self.status(client) for client in clients]
            # Each counts with all of its bytes: four have half of what there is.
            self.assertEqual((told.count(200), told.count(429)), (4, 36))

        self.assertLess(self.grown(read), 20.0)
        self.assertTrue(wait_until(lambda: in_flight._requests["alice"] == 4))
        self.assertEqual(self.status(self.ask(proxy, "bob")), 200)

    def test_many_users(self) -> None:
        """No number of users has more than what there is, and each place is given back."""
        proxy = self.start_proxy()
        in_flight = self.gateway(proxy).in_flight
        self.assertTrue(self.read(proxy, "first"))
        self.assertTrue(wait_until(lambda: not in_flight._requests))

        def read() -> None:
            clients = [self.ask(proxy, f"user-{number}") for number in range(12)]
            told = [self.status(client) for client in clients]
            self.assertEqual((told.count(200), told.count(429)), (8, 4))
            for client in clients:
                client.close()

        self.assertLess(self.grown(read), 20.0)
        self.assertTrue(wait_until(lambda: not in_flight._requests))
        self.assertEqual(self.status(self.ask(proxy, "user-0")), 200)

    def test_wsgi(self) -> None:
        """Under a WSGI server nobody gets a copy of it either, and places are given back."""
        app = ConsoleApp(Config(**self.proxy_options()))
        self.addCleanup(app.close)
        with Host(app) as host:
            self.assertTrue(self.read(host, "bob"))

            def read() -> None:
                clients = [self.ask(host) for _ in range(6)]
                told = [self.status(client) for client in clients]
                self.assertEqual((told.count(200), told.count(429)), (4, 2))
                for client in clients:
                    client.close()

            self.assertLess(self.grown(read), 20.0)
            assert app._process is not None
            in_flight = app._process.gateway.in_flight
            self.assertTrue(wait_until(lambda: not in_flight._requests))
            self.assertFalse(in_flight._bytes._held)

    def test_kernel(self) -> None:
        """For whoever reads nothing the kernel takes little of a picture or a file, and no megabytes."""
        proxy = self.start_proxy()
        transports: list[PlainTransport] = []
        bound = PlainTransport.bound_unsent

        def noted(transport: PlainTransport) -> None:
            transports.append(transport)
            bound(transport)

        with mock.patch.object(PlainTransport, "bound_unsent", noted):
            self.assertEqual(self.status(self.ask(proxy)), 200)
        (transport,) = transports
        self.assertTrue(wait_until(lambda: transport.bytes_waiting() > 64 * 1024))
        self.assertFalse(wait_until(lambda: transport.bytes_waiting() > _MIB, 1.0))


class StrangersAndThoseWhoWait(MemoryCase):
    """CWE-410: strangers that say nothing have others shut down who have authenticated, and wait."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_proxy(max_pending=8, tickets=True, console="refuse")

    def crowd(self) -> None:
        """Have more strangers come than may be pending, each of which could take the place of any other."""
        gateway, most, coming = self.gateway(self.proxy), 8, 40
        admission, before = gateway.admission, gateway.counters.numbers(0).turned_away
        with mock.patch.object(admission._pending, "_clock", lambda: 1e9):  # each has been there for long
            for _ in range(coming):
                with contextlib.suppress(ConnectionError):  # the newcomer itself may have to go
                    self.addCleanup(RawClient(self.proxy.address).close)
            self.assertTrue(
                wait_until(lambda: gateway.counters.numbers(0).turned_away >= before + coming - most)
            )

    def test_pictures(self) -> None:
        """A picture that is being taken comes, and one that is read slowly is not cut off."""
        gate = Gate(self, _WAIT)

        def screen() -> bytes:
            gate.stop()
            return _PICTURE

        self.vmi.screen = screen
        taking = self.ask(self.proxy, receive_buffer=None)
        waiting = self.ask(self.proxy, "bob", receive_buffer=None)
        gate.wait()
        in_flight = self.gateway(self.proxy).in_flight
        self.assertTrue(wait_until(lambda: len(in_flight._requests) == 2))
        self.crowd()
        gate.open()
        for client in (taking, waiting):
            client.read_head()
            self.crowd()
            self.assertTrue(client.body().endswith(_PICTURE[-1000:]))

    def test_tickets(self) -> None:
        """A client whose token is good has time for its body."""
        body = json.dumps({"vmi": "vm"}).encode()
        lines = ["POST /ticket HTTP/1.1", "Host: proxy", f"Authorization: Bearer {self.token('vm')}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        client = RawClient(self.proxy.address)
        self.addCleanup(client.close)
        client.send_raw("\r\n".join(lines).encode())
        in_flight = self.gateway(self.proxy).in_flight
        self.assertTrue(wait_until(lambda: bool(in_flight._requests)))
        self.crowd()
        client.send_raw(body)
        self.assertEqual(self.status(client), 201)
        client.close()
        self.assertTrue(wait_until(lambda: not in_flight._requests))

    def test_consoles(self) -> None:
        """A client that waits for a console, which somebody is just leaving, gets it."""
        store = self.gateway(self.proxy).participant.store
        admit, gate = store.admit, Gate(self, _WAIT)
        answers = [Decision(Outcome.WAIT, busy=BusyReason.IN_USE, ending=True)]

        def busy_once(*arguments: Any) -> Decision:
            return answers.pop() if answers else admit(*arguments)

        def wait(*arguments: Any) -> bool:
            gate.stop()
            return True

        with mock.patch.object(store, "admit", busy_once), mock.patch.object(Holding, "_waits", wait):
            client = RawClient(self.proxy.address)
            self.addCleanup(client.close)
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
            gate.wait()
            self.crowd()
            gate.open()
            self.assertEqual(self.status(client), 101)
        client.send_frame(BINARY, b"x")
        self.assertEqual(client.recv_frame().payload, b"x")
