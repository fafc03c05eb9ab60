"""The network between processes and a store that tests break: it breaks as it says."""

from __future__ import annotations

import socket
import time
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError
from redis.retry import Retry

from tests.integration.programs import needs
from tests.integration.redis_server import RedisServer
from tests.shared.forwarder import Forwarder
from tests.support.ports import free_port
from tests.support.proxy_process import wait_until
from wsproxy.testing.case import LeakTestCase

_SHORT = 0.3


@needs("redis-server", "redis-server")
class ForwarderTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        port = free_port()
        server = RedisServer("--port", str(port), "--bind", "127.0.0.1")
        self.addCleanup(server.close)
        self.forwarder = Forwarder(("127.0.0.1", port))
        self.addCleanup(self.forwarder.close)

    def client(self, timeout: float = 10.0) -> Any:
        host, port = self.forwarder.address
        retry = Retry(NoBackoff(), 0)
        client = Redis(host, port, socket_timeout=timeout, socket_connect_timeout=timeout, retry=retry)
        self.addCleanup(client.close)
        return client

    def test_forwards(self) -> None:
        """Much data passes both ways."""
        client = self.client()
        value = bytes(range(256)) * 8192
        client.set("key", value)
        self.assertEqual(client.get("key"), value)

    def test_cut(self) -> None:
        """While the link is cut nobody is answered; afterwards everybody is, new clients and old ones."""
        client, hasty = self.client(), self.client(_SHORT)
        client.ping()
        self.forwarder.cut()
        self.assertRaises(TimeoutError, hasty.ping)
        self.assertRaises(TimeoutError, self.client(_SHORT).ping)
        self.forwarder.mend()
        self.assertTrue(client.ping())
        self.assertTrue(self.client().ping())

    def test_latency(self) -> None:
        """A request and its answer are delayed; those that follow are not delayed more."""
        client = self.client()
        client.ping()
        self.forwarder.delay(_SHORT)
        begin = time.monotonic()
        pipeline = client.pipeline(transaction=False)
        for _ in range(100):
            pipeline.ping()
        pipeline.execute()
        took = time.monotonic() - begin
        self.assertGreaterEqual(took, 2 * _SHORT)
        self.assertLess(took, 10 * _SHORT)

    def test_lost_messages(self) -> None:
        """A subscriber hears nothing, and its connection stays; others are served."""
        with self.client().pubsub() as pubsub:
            pubsub.subscribe("news")
            self.assertIsNotNone(pubsub.get_message(timeout=10))
            self.forwarder.lose_messages()
            self.assertEqual(self.client().publish("news", "lost"), 1)
            self.assertIsNone(pubsub.get_message(timeout=_SHORT))
            self.forwarder.mend()
            self.client().publish("news", "heard")
            message = pubsub.get_message(timeout=10)
            assert message
            self.assertEqual(message["data"], b"heard")

    def test_dropped_subscribers(self) -> None:
        """Connections that have subscribed are closed, others are not."""
        client = self.client()
        client.ping()
        with self.client().pubsub() as pubsub:
            pubsub.subscribe("news")
            self.assertIsNotNone(pubsub.get_message(timeout=10))
            self.forwarder.drop_subscribers()
            with self.assertRaises(ConnectionError):
                pubsub.get_message(timeout=10)
        self.assertTrue(
            wait_until(lambda: client.client_list(_type="pubsub") == [])
        )  # the server hears it later
        self.assertTrue(client.ping())

    def test_dropped_connections(self) -> None:
        """All connections are closed; new ones are served."""
        with socket.create_connection(self.forwarder.address, 10) as sock:
            sock.sendall(b"PING\r\n")
            self.assertEqual(sock.recv(100), b"+PONG\r\n")
            self.forwarder.drop_all()
            self.assertEqual(sock.recv(100), b"")
        self.assertTrue(self.client().ping())
