"""Whether the proxy is ready. Tests of ``/readyz`` itself are in ``tests.web.test_endpoints``."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable
from typing import Any, cast
from unittest import mock

from wsproxy.exceptions import TransportClosed
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import LeakTestCase, ProxyTestCase
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.upstream.readiness import Readiness


class DiallerStub:
    """Answers probes as the test says."""

    def __init__(self) -> None:
        self.answer: int | Exception = 200
        self.probes = 0
        self.given = 0.0
        self.during: Callable[[], object] = int
        self.faults: list[str] = []

    def file_faults(self) -> list[str]:
        return self.faults

    def request(self, path: str, deadline: Deadline) -> tuple[int, bytes]:
        self.probes += 1
        self.given = deadline.remaining()
        self.during()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, b""


class ReadinessTestCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.dialler = DiallerStub()
        self.readiness = Readiness(cast(Any, self.dialler), lambda: self.now)

    def is_ready(self) -> bool:
        return self.readiness.is_ready(Deadline(10))


class ReadinessTest(ReadinessTestCase):
    def setUp(self) -> None:
        super().setUp()
        patcher = mock.patch("wsproxy.upstream.readiness.logger")  # what it says is tested below
        patcher.start()
        self.addCleanup(patcher.stop)

    def test_probe(self) -> None:
        """It probes the API, and again only after some time."""
        self.assertTrue(self.is_ready())
        self.assertTrue(self.is_ready())
        self.assertEqual(self.dialler.probes, 1)
        self.now += 10
        self.assertTrue(self.is_ready())
        self.assertEqual(self.dialler.probes, 2)

    def test_answers(self) -> None:
        """The proxy is ready if the API answers, and not if it rejects the token, is broken, or is gone."""
        cases: tuple[tuple[int | Exception, bool], ...] = (
            (200, True),
            (403, True),
            (404, True),
            (401, False),
            (500, False),
            (503, False),
            (TimeoutError(), False),
            (TransportClosed("gone"), False),
            (OSError("no CA"), False),
            (ValueError("no token"), False),
        )
        for answer, ready in cases:
            self.dialler.answer = answer
            self.now += 100
            with self.subTest(answer=answer):
                self.assertEqual(self.is_ready(), ready)

    def test_recovers_quickly(self) -> None:
        """A failed probe counts for two seconds, so that clients cannot cause more probes."""
        self.dialler.answer = 500
        self.assertFalse(self.is_ready())
        self.dialler.answer = 200
        self.now += 1.9
        self.assertFalse(self.is_ready())
        self.now += 0.2
        self.assertTrue(self.is_ready())

    def test_sessions_tell(self) -> None:
        """While sessions are opened no probe is needed."""
        self.readiness.answered()
        self.assertTrue(self.is_ready())
        self.now += 9
        self.readiness.answered()
        self.now += 9
        self.assertTrue(self.is_ready())
        self.assertEqual(self.dialler.probes, 0)

    def test_draining(self) -> None:
        """A proxy that drains is not ready, and sends no probe."""
        self.readiness.answered()
        self.readiness.drain()
        self.assertFalse(self.is_ready())
        self.now += 100
        self.assertFalse(self.is_ready())
        self.assertEqual(self.dialler.probes, 0)

    def test_one_probe_at_a_time(self) -> None:
        """While one thread probes, others get the last result, and do not wait."""
        found = []

        def ask() -> None:
            thread = threading.Thread(target=lambda: found.append(self.is_ready()))
            thread.start()
            thread.join()

        self.dialler.during = ask
        self.assertTrue(self.is_ready())
        self.assertEqual((found, self.dialler.probes), ([False], 1))

    def test_deadline(self) -> None:
        """If no time is left, no probe is sent, and the proxy is not ready."""
        self.assertFalse(self.readiness.is_ready(Deadline(-1)))
        self.assertEqual(self.dialler.probes, 0)

    def test_slow_asker(self) -> None:
        """A request with little time left does not make the API seem slow: the probe has its own timeout."""
        self.assertTrue(self.readiness.is_ready(Deadline(0.5)))
        self.assertGreater(self.dialler.given, 2.5)


class ReasonsTest(ReadinessTestCase):
    """What the log says about readiness."""

    def logged(self) -> list[str]:
        """Ask once, when a probe is due, and return what was logged."""
        self.now += 10
        with self.assertLogs("wsproxy.readiness", "INFO") as logs:
            self.is_ready()
            logging.getLogger("wsproxy.readiness").info("end")
        return [f"{record.levelname} {record.getMessage()}" for record in logs.records][:-1]

    def test_one_line_for_each_change(self) -> None:
        """A reason is logged once, as an error, and its end once."""
        self.assertEqual(self.logged(), [])
        self.dialler.answer = 401
        (line,) = self.logged()
        self.assertTrue(line.startswith("ERROR not ready: the Kubernetes API rejects"), line)
        self.assertEqual([self.logged(), self.logged()], [[], []])
        self.dialler.answer = 200
        self.assertEqual(self.logged(), ["INFO ready again"])
        self.assertEqual(self.logged(), [])

    def test_reasons(self) -> None:
        """Each reason is said in words."""
        for answer, words in (
            (401, "rejects the service-account token"),
            (503, "answers 503"),
            (TimeoutError(), "does not answer within 3 s"),
            (TransportClosed("it was reset"), "cannot be reached: it was reset"),
        ):
            self.dialler.answer = answer
            with self.subTest(answer=answer):
                (line,) = self.logged()
                self.assertIn(words, line)
            self.dialler.answer = 200
            self.logged()

    def test_reasons_that_change(self) -> None:
        """While the proxy is not ready, another reason is logged after a minute, to keep the log small."""
        told = []
        for number in range(12):
            self.dialler.answer = 500 + number % 2
            told += self.logged()
        self.assertEqual(len(told), 2)

    def test_files(self) -> None:
        """At the start, files that cannot be used are logged once; no probe is sent until they can be."""
        self.dialler.faults = ["the token cannot be used: no such file", "nor can the CA"]
        with self.assertLogs("wsproxy.readiness", "ERROR") as logs:
            self.readiness.check_files()
            self.assertFalse(self.is_ready())
        (line,) = logs.output
        self.assertIn("not ready: the token cannot be used: no such file; nor can the CA", line)
        self.assertEqual((self.logged(), self.dialler.probes), ([], 0))
        self.dialler.faults = []
        self.assertEqual(self.logged(), ["INFO ready again"])

    def test_files_in_order(self) -> None:
        """If all files can be used, nothing is logged."""
        with self.assertNoLogs("wsproxy.readiness", "INFO"):
            self.readiness.check_files()

    def test_workers(self) -> None:
        """A worker does not log again what the supervisor has logged, but it logs the end of it."""
        self.dialler.faults = ["no token"]
        with self.assertNoLogs("wsproxy.readiness", "INFO"):
            self.readiness.check_files(told=True)
            self.assertFalse(self.is_ready())
        self.dialler.faults = []
        self.assertEqual(self.logged(), ["INFO ready again"])


class EndToEnd(ProxyTestCase):
    def ask(self, address: tuple[str, int]) -> bytes:
        with RawClient(address) as client:
            client.send_raw(b"GET /readyz HTTP/1.1\r\nHost: proxy\r\n\r\n")
            return client.body()

    def test_real_api(self) -> None:
        """The proxy is ready if the API answers, and not if the API is down or rejects the token."""
        address = self.start_proxy().address
        self.assertTrue(self.ask(address).startswith(b"HTTP/1.1 200 OK\r\n"))
        self.api.down = True
        other = self.start_proxy(dial_timeout=1.0).address
        with self.assertLogs("wsproxy.readiness", "ERROR"):
            answer = self.ask(other)
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nnot ready\n"), answer)
        self.api.down = False

    def test_files_of_the_service_account(self) -> None:
        """A wrong file at the start is one error in the log and 503; a file that comes later is found."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "late")
            wrong: tuple[tuple[str, dict[str, Any], str], ...] = (
                ("WSPROXY_TOKEN_FILE", {"token_file": path}, self.api.token_file),
                ("WSPROXY_CA_FILE", {"sslopt": {"ca_certs": path}}, self.api.ca_file),
            )
            for setting, options, right in wrong:
                with (
                    self.subTest(setting),
                    mock.patch("wsproxy.upstream.readiness._BAD_SECONDS", 0.0),
                    self.assertLogs("wsproxy", "WARNING") as logs,
                ):
                    address = self.start_proxy(**options).address
                    for _ in range(3):
                        self.assertTrue(self.ask(address).startswith(b"HTTP/1.1 503 "))
                    os.symlink(right, path)
                    self.assertTrue(self.ask(address).startswith(b"HTTP/1.1 200 "))
                    os.unlink(path)
                    (line,) = logs.output
                    self.assertRegex(line, rf"^ERROR:wsproxy\.readiness:not ready: .*'{path}'; .*{setting}")

    def test_foreign_authority(self) -> None:
        """If the CA did not issue the API's certificate, the first probe finds that; the log has it once."""
        with tempfile.TemporaryDirectory() as directory:
            ca_file = CertificateAuthority(directory).ca_file
            with (
                mock.patch("wsproxy.upstream.readiness._BAD_SECONDS", 0.0),
                self.assertLogs("wsproxy", "WARNING") as logs,
            ):
                address = self.start_proxy(sslopt={"ca_certs": ca_file}).address
                for _ in range(3):
                    self.assertTrue(self.ask(address).startswith(b"HTTP/1.1 503 "))
        (line,) = logs.output
        self.assertRegex(line, "^ERROR:wsproxy.readiness:not ready: .*certificate verify failed")

    def test_refusals_of_the_api(self) -> None:
        """If the API refuses a console, it has answered."""
        proxy = self.start_proxy()
        with RawClient(proxy.address) as client:
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
            self.assertIn(b"vmi-not-found", client.body())
        before = len(self.api.requests)
        self.assertTrue(self.ask(proxy.address).startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual(len(self.api.requests), before)
