"""What Prometheus gets to see: its own linter, and a real server that scrapes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import unittest
import urllib.parse
import urllib.request
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from tests.support.ports import free_port
from tests.support.proxy_process import ProxyProcess, wait_until
from tests.telemetry.test_counters import filled
from tests.wsgi.test_several_processes import OperatorCase
from wsproxy.telemetry.counters import Snapshot
from wsproxy.telemetry.metrics import METRICS, exposition, registry
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY, PING, PONG
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 60.0
_LINTER = ("promtool", "check", "metrics")
_OPENMETRICS = "application/openmetrics-text;version=1.0.0"
_LISTENER = re.compile(rb"the operator's listener is at (\S+)")


def values(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Exposition(ProxyTestCase):
    tls = False

    def test_linter(self) -> None:
        """promtool finds nothing to say, neither when all has happened nor when nothing has."""
        for numbers in (Snapshot(), filled()):
            content_type, body = exposition(numbers, "")
            self.assertTrue(content_type.startswith("text/plain"), content_type)
            done = subprocess.run(
                ["promtool", "check", "metrics"], input=body, capture_output=True, timeout=_TIMEOUT
            )
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))

    def test_formats(self) -> None:
        """Whoever asks for OpenMetrics gets that, with the same names."""
        content_type, body = exposition(filled(), _OPENMETRICS)
        self.assertTrue(content_type.startswith("application/openmetrics-text"), content_type)
        self.assertTrue(body.endswith(b"# EOF\n"))
        names = {metric.name for metric in METRICS}
        self.assertLessEqual(
            names, {name.removesuffix("_bucket") for name in re.findall(r"^(\w+)", body.decode(), re.M)}
        )

    def test_registries(self) -> None:
        """Each proxy has a registry of its own, of the moment of the scrape; the global one is left alone."""
        before = set(REGISTRY._names_to_collectors)
        first, second = self.start_proxy(), self.start_proxy()
        registries = [proxy.metrics_registry() for proxy in (first, second)]

        def opened(found: CollectorRegistry) -> float | None:
            return found.get_sample_value("wsproxy_sessions_opened_total")

        self.assertEqual([opened(found) for found in registries], [0, 0])
        self.api.add_vmi("vm", self.namespace)
        with RawClient.open(self.url(first, "vm")) as client:
            client.send_frame(BINARY, b"hello")
            client.recv_frame()
            self.assertEqual([opened(found) for found in registries], [1, 0])
            self.assertEqual(registries[0].get_sample_value("wsproxy_sessions"), 1)
            self.assertEqual(registries[0].get_sample_value("wsproxy_first_byte_seconds_count"), 1)
        self.assertEqual(set(REGISTRY._names_to_collectors), before)
        self.assertEqual(registry(Snapshot).get_sample_value("wsproxy_sessions"), 0)


class Scraped(ProxyTestCase):
    """The program, scraped."""

    tls = False

    def program(self, **settings: str) -> ProxyProcess:
        proxy = ProxyProcess(self.api, WSPROXY_ADMIN="127.0.0.1:0", **settings)
        self.addCleanup(proxy.close)
        match = _LISTENER.search(proxy.output)
        assert match, proxy.output
        self.target = match[1].decode()
        return proxy

    def scrape(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        with urllib.request.urlopen(f"http://{self.target}/metrics", timeout=_TIMEOUT) as answer:
            return values(answer.read().decode())

    def value(self, name: str, **labels: str) -> float:
        return self.scrape().get((name, frozenset(labels.items())), 0.0)

    def assert_comes(self, expected: float, name: str, **labels: str) -> None:
        """Assert that a sample gets a value; sessions end after their clients have seen it."""
        self.assertTrue(wait_until(lambda: self.value(name, **labels) == expected, _TIMEOUT), self.scrape())

    def exchange(self, proxy: ProxyProcess) -> RawClient:
        self.api.add_vmi("vm", self.namespace)
        client = RawClient.open(f"{proxy.url}/{self.token('vm')}/vm")
        self.addCleanup(client.close)
        client.send_frame(BINARY, b"hello")
        self.assertEqual(client.recv_frame().payload, b"hello")
        return client

    def be_refused(self, proxy: ProxyProcess) -> None:
        with RawClient(proxy.address) as client:
            client.send_raw(RawClient.request("/-/vm"))
            self.assertIn(b"bad-token", client.body())

    def test_what_happens_is_counted(self) -> None:
        """One worker and several: all that happens to clients is in what is scraped, in sum."""
        for workers in ("1", "2"):
            with self.subTest(workers=workers):
                proxy = self.program(WSPROXY_WORKERS=workers)
                clients = [self.exchange(proxy) for _ in range(4)]
                self.be_refused(proxy)
                self.assert_comes(4, "wsproxy_sessions")
                self.assert_comes(1, "wsproxy_refused_total", reason="bad-token")
                for client in clients:
                    client.send_close(1000)
                    client.recv_close()
                    client.wait_for_end()
                self.assert_comes(0, "wsproxy_sessions")
                self.assert_comes(4, "wsproxy_sessions_ended_total", by="client", cause="close-1000")
                self.assert_comes(4, "wsproxy_session_duration_seconds_count")
                self.assert_comes(4, "wsproxy_dial_duration_seconds_count")
                self.assert_comes(4, "wsproxy_first_byte_seconds_count")
                self.assertGreaterEqual(self.value("wsproxy_received_bytes_total", direction="up"), 4 * 11)
                if workers == "2":
                    self.assert_survives_a_worker(proxy)
                self.assertEqual(proxy.stop(signal.SIGTERM), 0)

    def assert_survives_a_worker(self, proxy: ProxyProcess) -> None:
        """A worker that dies takes nothing out of the counters."""
        pid = proxy.wait_for(rb"worker 1 \(pid (\d+)\) started")
        os.kill(int(pid[1]), signal.SIGKILL)
        proxy.wait_for(b"was killed by SIGKILL")
        self.assert_comes(4, "wsproxy_sessions_opened_total")
        self.assert_comes(4, "wsproxy_session_duration_seconds_count")

    def test_pings(self) -> None:
        """A peer that answers our pings is in the histogram, by its leg."""
        client = self.exchange(self.program(WSPROXY_PING_INTERVAL="3"))
        ping = client.recv_frame(_TIMEOUT)
        self.assertEqual(ping.opcode, PING)
        client.send_frame(PONG, ping.payload)
        self.assert_comes(1, "wsproxy_ping_round_trip_seconds_count", leg="client")

    def test_prometheus(self) -> None:
        """A real Prometheus finds the target up, and answers queries about it."""
        proxy = self.program()
        client = self.exchange(proxy)
        port = free_port()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        config = os.path.join(directory.name, "prometheus.yml")
        job = {"job_name": "wsproxy", "static_configs": [{"targets": [self.target]}]}
        with open(config, "w", encoding="ascii") as file:
            json.dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}, file)
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the clean-up
        self.addCleanup(log.close)
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={directory.name}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)

        def query(expression: str) -> Any:
            url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
            try:
                with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
                    found = json.load(answer)["data"]["result"]
            except OSError:  # it starts
                return None
            return found[0]["value"][1] if found else None

        self.assertTrue(wait_until(lambda: query('up{job="wsproxy"}') == "1", _TIMEOUT))
        self.assertTrue(wait_until(lambda: query("wsproxy_sessions") == "1", _TIMEOUT))
        client.close()
        self.assertTrue(wait_until(lambda: query("wsproxy_sessions") == "0", _TIMEOUT))
        self.assertEqual(query("sum(wsproxy_sessions_ended_total)"), "1")


class InApplication(OperatorCase):
    def test_metrics(self) -> None:
        """In a WSGI application the metrics are those of the process that has the operator's listener."""
        self.start()
        status, body = self.ask_operator("GET", "/metrics")
        self.assertEqual(status, 200, body)
        self.assertIn(b"\nwsproxy_sessions 1", body)


class AcceptHeaders(unittest.TestCase):
    def test_odd_versions(self) -> None:
        """Whatever a scraper accepts, it gets metrics, and nothing odd of its own in a header."""
        for accept in (
            "application/openmetrics-text; version=abc",
            "application/openmetrics-text; version=1..0",
            "application/openmetrics-text; version=\xb9",
            "application/openmetrics-text; version=1.\xa00.0",
            "application/openmetrics-text; version=1.0.0\xe4",
            "application/openmetrics-text; version=-1",
            "application/openmetrics-text; version = abc",
            "text/plain; version=abc",
            "text/plain; version=1e9; escaping=\xe4",
            ";;=,,;version",
        ):
            with self.subTest(accept=accept):
                content_type, body = exposition(Snapshot(), accept)
                self.assertTrue(content_type.isascii() and content_type.isprintable(), content_type)
                self.assertRegex(content_type, r"^text/plain; version=[01]\.0\.[04];")
                self.assertIn(b"wsproxy_sessions 0.0", body)

    def test_prometheus(self) -> None:
        """What Prometheus says is understood, also where an element before it is not."""
        for accept in (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=abc, application/openmetrics-text;version=1.0.0",
            "application/openmetrics-text",
        ):
            with self.subTest(accept=accept):
                content_type, body = exposition(Snapshot(), accept)
                self.assertTrue(content_type.startswith("application/openmetrics-text; version=1.0.0;"))
                self.assertTrue(body.endswith(b"# EOF\n"))
