"""One GET: bounded in time and size, and sent nowhere else."""

from __future__ import annotations

import os
import socket
import threading
import time
from unittest import mock

from tests.support.issuer import Issuer, http_answer
from wsproxy.exceptions import TransportClosed
from wsproxy.net.connecting import Connector
from wsproxy.net.http_client import fetch
from wsproxy.net.resolver import Resolver
from wsproxy.net.sockets import wake
from wsproxy.net.tls_context import ClientTLS
from wsproxy.net.transport import Transport
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import LeakTestCase
from wsproxy.tokens.jwks import JWKSLocation

_MAX = 1000


class FetchCase(LeakTestCase):
    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.issuer = Issuer(tls=self.tls)
        self.addCleanup(self.issuer.stop)
        self.resolver = Resolver()
        self.addCleanup(self.resolver.stop)
        self.sockets: list[socket.socket] = []

    def fetch(self, url: str = "", seconds: float = 5, ca_file: str = "") -> bytes:
        found = JWKSLocation.parse(url or self.issuer.url).url
        assert found is not None
        tls = ClientTLS({"ca_certs": ca_file or self.issuer.ca_file})
        connector = Connector(found.host, found.port, self.resolver, tls if found.tls else None)
        return fetch(found, connector, _MAX, Deadline(seconds), self.sockets.append)


class PlainTest(FetchCase):
    def test_body(self) -> None:
        """The body of a 200 is returned, by whichever length it has."""
        for answer in (
            http_answer(b"body"),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x\r\ndy\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nbody",
            b"HTTP/1.1 100 Continue\r\n\r\n" + http_answer(b"body"),
        ):
            with self.subTest(answer=answer):
                self.issuer.answer = answer
                self.assertEqual(self.fetch(), b"body")

    def test_request(self) -> None:
        """The request names the host, and nothing that would tell who asks."""
        self.fetch()
        lines = self.issuer.requests[0].decode().split("\r\n")
        self.assertEqual(lines[0], "GET /keys?v=1 HTTP/1.1")
        self.assertIn(f"Host: {self.issuer.url.split('/')[2]}", lines)
        names = {line.partition(":")[0] for line in lines[1:] if line}
        self.assertEqual(names, {"Host", "Accept", "User-Agent", "Connection"})

    def test_by_name(self) -> None:
        """A name is resolved."""
        self.assertEqual(self.fetch(self.issuer.url.replace("127.0.0.1", "localhost")), b'{"keys": []}')

    def test_redirects(self) -> None:
        """A redirect is not followed, wherever it leads, and is no answer."""
        for status in ("301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
            location = f"Location: {self.issuer.url}"
            self.issuer.answer = http_answer(b'{"keys": []}', status, location)
            with self.subTest(status=status), self.assertRaisesRegex(ValueError, status[:3]):
                self.fetch()
        self.assertEqual(len(self.issuer.requests), 4)

    def test_other_answers(self) -> None:
        """Only a 200 is an answer."""
        for status in ("204 No Content", "206 Partial Content", "404 Not Found", "500 Oops"):
            self.issuer.answer = http_answer(b"body", status)
            with self.subTest(status=status), self.assertRaisesRegex(ValueError, status[:3]):
                self.fetch()

    def test_no_http(self) -> None:
        """What is no HTTP is no answer, nor is an end before one."""
        for answer in (
            b"",
            b"garbage\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ):
            self.issuer.answer = answer
            with self.subTest(answer=answer[:40]), self.assertRaises(TransportClosed):
                self.fetch()

    def test_size(self) -> None:
        """A body may have so many bytes and no more, and is not read further."""
        self.issuer.answer = http_answer(b"x" * _MAX)
        self.assertEqual(len(self.fetch()), _MAX)
        self.issuer.answer = http_answer(b"x" * (_MAX + 1))
        with self.assertRaisesRegex(ValueError, "more than 1000"):
            self.fetch()

        def endless(transport: Transport) -> None:
            transport.send(b"HTTP/1.1 200 OK\r\n\r\n", Deadline(5))
            while True:
                transport.send(b"x" * 10_000, Deadline(5))

        self.issuer.serve = endless
        with self.assertRaisesRegex(ValueError, "more than 1000"):
            self.fetch()

    def test_deadline(self) -> None:
        """The deadline is for all of it: a server that sends a byte now and then gains nothing."""
        done = threading.Event()
        self.addCleanup(done.set)

        def slow(transport: Transport) -> None:
            while not done.wait(0.02):
                transport.send(b"H", Deadline(5))

        def silent(transport: Transport) -> None:
            done.wait(60)

        for serve in (slow, silent):
            self.issuer.serve = serve
            started = time.monotonic()
            with self.assertRaises(TimeoutError):
                self.fetch(seconds=0.2)
            self.assertLess(time.monotonic() - started, 4)

    def test_proxies_of_the_environment(self) -> None:
        """No proxy is asked, whatever the environment says."""
        proxy = "http://127.0.0.1:9"
        with mock.patch.dict(os.environ, {"http_proxy": proxy, "https_proxy": proxy, "ALL_PROXY": proxy}):
            self.fetch()

    def test_unreachable(self) -> None:
        """A server that is not there cannot be reached."""
        with self.assertRaises(TransportClosed):
            self.fetch("http://127.0.0.1:9/")

    def test_woken(self) -> None:
        """Another thread can break it off."""
        self.issuer.serve = lambda transport: wake(self.sockets[0])
        with self.assertRaises(TransportClosed):
            self.fetch()


class TLSTest(FetchCase):
    tls = True

    def test_body(self) -> None:
        """The same over TLS."""
        self.issuer.answer = http_answer(b"body")
        self.assertEqual(self.fetch(), b"body")
        self.assertEqual(self.fetch(self.issuer.url.replace("127.0.0.1", "localhost")), b"body")

    def test_certificate(self) -> None:
        """A server whose certificate another authority signed, or that is another's, is told nothing."""
        with Issuer() as other, self.assertRaisesRegex(TransportClosed, "certificate"):
            self.fetch(ca_file=other.ca_file)
        self.resolver = Resolver(lambda host, port: ((socket.AF_INET, ("127.0.0.1", port)),))
        self.addCleanup(self.resolver.stop)
        with self.assertRaisesRegex(TransportClosed, "certificate"):
            self.fetch(self.issuer.url.replace("127.0.0.1", "other.example"))
        self.assertEqual(self.issuer.requests, [])
