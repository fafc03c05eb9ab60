"""TLS; and a failover by a real Sentinel, after which no kick is forgotten."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.integration.redis_server import REDIS_SERVER, RedisServer, free_port
from wsproxy.exceptions import StoreUnavailable
from wsproxy.net.tls_context import ClientTLS
from wsproxy.runtime.wall_clock import unix_time
from wsproxy.state.membership import Beat, Member, Publication
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.stores.places import StatePlace
from wsproxy.state.stores.redis.link import RedisLink
from wsproxy.state.stores.redis.store import RedisStore
from wsproxy.testing import LeakTestCase

__all__ = ["SentinelAccountTest", "SentinelTest", "TLSTest"]

_LOG = "wsproxy.state.redis"


def connected(url: str, **more: Any) -> RedisStore:
    return RedisStore(RedisLink(StatePlace.parse(url), **more))


class TLSTest(LeakTestCase):
    def test_authority(self) -> None:
        """A server is trusted by the file of its CA, and else the error says so."""
        openssl = shutil.which("openssl")
        if REDIS_SERVER is None or openssl is None:
            self.skipTest("no redis-server, or no openssl")
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        directory = holder.name
        certificate, key = f"{directory}/certificate", f"{directory}/key"
        names = ("-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1")
        made = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate)
        subprocess.run([openssl, *made, *names], check=True, capture_output=True)
        port = free_port()
        files = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate)
        where = ("--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no")
        try:
            server = RedisServer(*where, *files)
        except AssertionError as exc:
            if "TLS support" not in str(exc) and "tls-port" not in str(exc):
                raise
            self.skipTest("this redis-server has no TLS")
        self.addCleanup(server.close)
        url = f"rediss://127.0.0.1:{port}"
        store = connected(url, tls=ClientTLS({"ca_certs": certificate}))
        self.addCleanup(store.close)
        self.assertEqual(store.members(), ())
        other = connected(url, tls=ClientTLS({}))
        self.addCleanup(other.close)
        with self.assertRaisesRegex(StoreUnavailable, "name the file of its CA"):
            other.members()


def start_sentinel(case: LeakTestCase, primary: RedisServer, port: int, watched: int, more: str) -> None:
    """Start a Sentinel of the service main, without waiting for it."""
    text = f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {watched} 1\n{more}"
    file = primary.directory / f"sentinel-{port}.conf"
    file.write_text(text, encoding="utf-8")
    process = subprocess.Popen([str(REDIS_SERVER), str(file), "--sentinel"], stdout=subprocess.DEVNULL)
    case.addCleanup(process.wait, 10)
    case.addCleanup(process.kill)


class SentinelAccountTest(LeakTestCase):
    """Sentinels with and without the password of the Redis that they watch."""

    def setUp(self) -> None:
        super().setUp()
        if REDIS_SERVER is None:
            self.skipTest("no redis-server")
        self.watched, self.open, self.closed, self.nobody = (free_port() for _ in range(4))
        primary = RedisServer("--port", str(self.watched), "--bind", "127.0.0.1", "--requirepass", "p")
        self.addCleanup(primary.close)
        account = "sentinel auth-pass main p\n"
        start_sentinel(self, primary, self.open, self.watched, account)
        start_sentinel(self, primary, self.closed, self.watched, f"{account}requirepass p\n")
        for port in (self.open, self.closed):
            self.wait_for(port)

    def wait_for(self, port: int) -> None:
        give_up = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except ConnectionRefusedError:
                self.assertLess(time.monotonic(), give_up, "too late")
                threading.Event().wait(0.05)

    def store(self, *ports: int, service: str = "main", password: str = "p") -> RedisStore:
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        store = connected(f"redis+sentinel://:{password}@{hosts}/{service}")
        self.addCleanup(store.close)
        return store

    def test_password(self) -> None:
        """A Sentinel gets the password if it wants one, and no other."""
        self.assertEqual(self.store(self.open).members(), ())
        self.assertEqual(self.store(self.closed).members(), ())
        with self.assertLogs(_LOG, "ERROR"), self.assertRaisesRegex(StoreUnavailable, "the password"):
            self.store(self.closed, password="wrong").members()

    def test_one_is_away(self) -> None:
        """Any of them may be away, or not know the service."""
        self.assertEqual(self.store(self.nobody, self.closed).members(), ())
        with (
            self.assertLogs(_LOG, "ERROR"),
            self.assertRaisesRegex(StoreUnavailable, "no Sentinel says where"),
        ):
            self.store(self.nobody).members()
        with self.assertLogs(_LOG, "ERROR"), self.assertRaisesRegex(StoreUnavailable, "where other is"):
            self.store(self.open, service="other").members()


class SentinelTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        if REDIS_SERVER is None:
            self.skipTest("no redis-server")
        self.ports = [free_port() for _ in range(3)]
        self.primary = self.server(self.ports[0])
        self.replica = self.server(self.ports[1], "--replicaof", "127.0.0.1", str(self.ports[0]))
        client: Any = self.primary.client()
        self.addCleanup(client.close)
        # A replica that is online gets the first write with its first ACK, which may take a second.
        self.until(20, lambda: client.set("test", 1) and client.wait(1, 5000))
        self.sentinel()

    def server(self, port: int, *options: str) -> RedisServer:
        server = RedisServer(
            "--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", *options
        )
        self.addCleanup(server.close)
        return server

    def sentinel(self) -> None:
        more = "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n"
        start_sentinel(self, self.primary, self.ports[2], self.ports[0], more)

    def until(self, seconds: float, call: Any) -> Any:
        """Return what a call returns once that is true and it raises nothing."""
        give_up = time.monotonic() + seconds
        while True:
            try:
                if found := call():
                    return found
            except (StoreUnavailable, RedisError):
                pass
            self.assertLess(time.monotonic(), give_up, "too late")
            threading.Event().wait(0.1)

    def test_failover(self) -> None:
        with Redis(port=self.ports[2]) as asked:
            self.until(20, lambda: asked.execute_command("SENTINEL", "REPLICAS", "main"))
        store = connected(f"redis+sentinel://127.0.0.1:{self.ports[2]}/main")
        self.addCleanup(store.close)
        member = Member("m", "m", 1.0)
        pulse = self.until(20, lambda: store.publish(Publication(member)))
        rule = Rule("r", "k", unix_time(), float("inf"), Match(user="eve"))
        self.assertTrue(store.revoke((rule,)).done)
        self.primary.stop()
        found = self.until(30, lambda: store.beat("m", Beat(1, pulse.epoch)))
        self.assertNotEqual(found.epoch, pulse.epoch)
        self.assertEqual((found.known, found.settled), (False, False))
        self.assertEqual(store.rules(0).rules, (rule,))

    def test_replica_is_away(self) -> None:
        """A kick that no replica has confirmed is one warning, and a kick all the same."""
        store = connected(f"redis://127.0.0.1:{self.ports[0]}")
        self.addCleanup(store.close)
        self.replica.process.send_signal(19)  # SIGSTOP
        rule = Rule("r", "k", unix_time(), float("inf"), Match(user="eve"))
        with self.assertLogs(_LOG, "WARNING") as logs:
            self.assertTrue(store.revoke((rule,)).done)
        self.assertIn("no replica", logs.output[0])
