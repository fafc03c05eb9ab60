"""TLS; and a failover by a real Sentinel, after which no kick is forgotten."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from typing import Any
from unittest import mock

from redis import Redis
from redis.exceptions import RedisError

from tests.integration.redis_server import REDIS_SERVER, RedisServer, free_port_of_node
from tests.support.ports import free_port
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
_LONG_LEASE = 60.0


def connected(url: str, **more: Any) -> RedisStore:
    return RedisStore(RedisLink(StatePlace.parse(url), **more))


def wait_for(port: int) -> None:
    """Wait until somebody listens there."""
    give_up = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < give_up, "too late"
            threading.Event().wait(0.05)


class TLSTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        if REDIS_SERVER is None or shutil.which("openssl") is None:
            self.skipTest("no redis-server, or no openssl")
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.directory = holder.name
        self.certificate, self.key = self.certify("first")
        self.port = free_port_of_node()

    def certify(self, name: str) -> tuple[str, str]:
        """Return the files of a new certificate and its key."""
        certificate, key = f"{self.directory}/{name}.crt", f"{self.directory}/{name}.key"
        names = ("-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1")
        made = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate)
        subprocess.run(["openssl", *made, *names], check=True, capture_output=True)
        return certificate, key

    def options(self, port: int) -> dict[str, str]:
        files = {"tls-cert-file": self.certificate, "tls-key-file": self.key}
        where = {"tls-port": str(port), "bind": "127.0.0.1", "tls-auth-clients": "no"}
        return {**where, **files, "tls-ca-cert-file": self.certificate}

    def serve(self, *more: str) -> RedisServer:
        given = [word for name, value in self.options(self.port).items() for word in (f"--{name}", value)]
        try:
            server = RedisServer(*given, *more)
        except AssertionError as exc:
            if "TLS support" not in str(exc) and "tls-port" not in str(exc):
                raise
            self.skipTest("this redis-server has no TLS")
        self.addCleanup(server.close)
        return server

    def store(self, url: str, ca_file: str | None) -> RedisStore:
        store = connected(url, tls=ClientTLS({"ca_certs": ca_file}))
        self.addCleanup(store.close)
        return store

    def test_authority(self) -> None:
        """A server is trusted by the file of its CA, and else the error says so."""
        self.serve()
        url = f"rediss://127.0.0.1:{self.port}"
        self.assertEqual(self.store(url, self.certificate).members(), ())
        with self.assertRaisesRegex(StoreUnavailable, "name the file of its CA"):
            self.store(url, None).members()

    def test_authorities_of_the_system(self) -> None:
        """With a file, those of the system do not count."""
        self.serve()
        other, _ = self.certify("other")
        with mock.patch.dict(os.environ, SSL_CERT_FILE=self.certificate):
            url = f"rediss://127.0.0.1:{self.port}"
            self.assertEqual(self.store(url, None).members(), ())
            with self.assertRaisesRegex(StoreUnavailable, "name the file of its CA"):
                self.store(url, other).members()

    def test_name(self) -> None:
        """A certificate for another host is refused."""
        self.serve()
        with self.assertRaisesRegex(StoreUnavailable, "the host that it is for"):
            self.store(f"rediss://localhost:{self.port}", self.certificate).members()

    def test_new_authority(self) -> None:
        """The file is read again when it changes."""
        server = self.serve()
        trusted = f"{self.directory}/trusted"
        shutil.copy(self.certificate, trusted)
        store = self.store(f"rediss://127.0.0.1:{self.port}", trusted)
        store.members()
        certificate, key = self.certify("second")
        with server.client() as client:
            client.config_set("tls-key-file", key, "tls-cert-file", certificate)
            os.replace(shutil.copy(certificate, f"{trusted}.new"), trusted)
            client.client_kill_filter(_type="normal", skipme=True)
        with self.assertNoLogs(_LOG):
            store.members()

    def test_cluster(self) -> None:
        """The nodes of a Cluster are asked with TLS, and name their ports for it."""
        server = self.serve("--cluster-enabled", "yes", "--tls-cluster", "yes")
        client: Any = server.client()
        self.addCleanup(client.close)
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        give_up = time.monotonic() + 20
        while "cluster_state:ok" not in str(client.execute_command("CLUSTER", "INFO")):
            self.assertLess(time.monotonic(), give_up, "too late")
            threading.Event().wait(0.05)
        url = f"rediss+cluster://127.0.0.1:{self.port}"
        self.assertEqual(self.store(url, self.certificate).members(), ())
        with self.assertRaisesRegex(StoreUnavailable, "name the file of its CA"):
            self.store(url, None).members()

    def test_sentinel(self) -> None:
        """The Sentinels are asked with TLS, too."""
        primary = self.serve("--tls-replication", "yes")
        port = free_port()
        options = "".join(f"{name} {value}\n" for name, value in self.options(port).items())
        start_sentinel(self, primary, 0, self.port, f"{options}tls-replication yes\n")
        wait_for(port)
        url = f"rediss+sentinel://127.0.0.1:{port}/main"
        self.assertEqual(self.store(url, self.certificate).members(), ())
        with self.assertRaisesRegex(StoreUnavailable, "name the file of its CA"):
            self.store(url, None).members()


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
            wait_for(port)

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
            self.until(20, lambda: self.is_known(asked))
        store = connected(f"redis+sentinel://127.0.0.1:{self.ports[2]}/main")
        self.addCleanup(store.close)
        # If the answer to the first beat is lost, a later one must not find that a lease has passed.
        member = Member("m", "m", _LONG_LEASE)
        pulse = self.until(20, lambda: store.publish(Publication(member)))
        rule = Rule("r", "k", unix_time(), float("inf"), Match(user="eve"))
        self.assertTrue(store.revoke((rule,)).done)
        with Redis(port=self.ports[0], single_connection_client=True) as primary:
            # A slow replica may not have confirmed the rule in time. It has the rule before a later write.
            self.until(20, lambda: primary.set("later", "1") and primary.wait(1, 1000))
        self.primary.stop()
        found = self.until(30, lambda: store.beat("m", Beat(1, pulse.epoch)))
        self.assertNotEqual(found.epoch, pulse.epoch)
        self.assertEqual((found.known, found.settled), (False, False))
        self.assertEqual(store.rules(0).rules, (rule,))

    def is_known(self, sentinel: Redis) -> bool:
        """Whether a Sentinel may choose the replica."""
        found: Any = sentinel.sentinel_slaves("main")
        return any(one["flags"] == "slave" and one["master-link-status"] == "ok" for one in found)

    def test_replica_is_away(self) -> None:
        """A kick that no replica has confirmed is one warning, and a kick all the same."""
        store = connected(f"redis://127.0.0.1:{self.ports[0]}")
        self.addCleanup(store.close)
        self.replica.process.send_signal(19)  # SIGSTOP
        rule = Rule("r", "k", unix_time(), float("inf"), Match(user="eve"))
        with self.assertLogs(_LOG, "WARNING") as logs:
            self.assertTrue(store.revoke((rule,)).done)
        self.assertIn("no replica", logs.output[0])
