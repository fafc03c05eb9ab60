"""Incidents of servers that hand out files, through a whole proxy and through the WSGI application.

Around the directory that is served there is what must never be: see :meth:`Files.setUp`.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from tests.support.novnc import stand_in_novnc
from tests.support.proxy_process import wait_until
from tests.support.wsgi_host import Host
from wsproxy import Config
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.wsgi.app import ConsoleApp

_SECRET = b"root:x:0:0:"
_METHODS = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "MOVE", "get")
_FORGED = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9."


class Answer:
    """What came back, to the end of the connection."""

    def __init__(self, client: RawClient) -> None:
        client.read_head()
        self.status = client.status
        self.head = client.head.decode("latin-1")
        self.location = client.header("Location")
        self.allow = client.header("Allow")
        self.etag = client.header("ETag")
        self.body = client.body()


class Files(ProxyTestCase):
    """A directory with a few files, with a secret beside it to which everything that can be a link leads."""

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        base = Path(directory.name)
        self.web = base / "web"
        for name in (
            "web/app/ui.js",
            "web/vnc.html",
            "web/.env",
            "web/.git/config",
            "web-other/x.txt",
            "x.txt",
        ):
            path = base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_SECRET)
        (self.web / "vnc.html").write_bytes(b"<title>noVNC</title>")
        (self.web / "app" / "ui.js").write_bytes(b"connect();")
        (self.web / "link.txt").symlink_to("../x.txt")
        (self.web / "above").symlink_to("..")
        (self.web / "root").symlink_to("/")
        self.address = self.serve()

    def serve(self) -> tuple[str, int]:
        """Serve the files until the end of the test."""
        return self.start_proxy(**self.files(), request_timeout=5.0).address

    def files(self) -> dict[str, Any]:
        """Return the settings that serve the files."""
        return {"web": str(self.web), "console_page": True, "novnc": stand_in_novnc(self)}

    def send(self, request: bytes) -> Answer:
        with RawClient(self.address) as client:
            client.send_raw(request)
            return Answer(client)

    def ask(self, target: str, *lines: str, method: str = "GET") -> Answer:
        text = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: proxy", *lines, "", ""])
        return self.send(text.encode("latin-1"))

    def assert_refused(self, answer: Answer, *statuses: int) -> None:
        """Assert that an answer is a refusal that leads nowhere and gives nothing away."""
        self.assertIn(answer.status, statuses, answer.head)
        self.assertIsNone(answer.location)
        self.assertNotIn(_SECRET, answer.body)
        self.assertNotIn(b"noVNC", answer.body)

    def assert_ours(self, answer: Answer) -> None:
        """Assert that an answer is the proxy's own refusal, as JSON."""
        self.assertEqual(json.loads(answer.body)["status"], answer.status)

    def test_files_are_there(self) -> None:
        """What is refused below is not refused because there is nothing."""
        self.assertEqual(self.ask("/vnc.html").body, b"<title>noVNC</title>")
        self.assertEqual(self.ask("/app/ui.js?v=1.3").body, b"connect();")
        self.assertEqual(self.ask("/console/").status, 200)

    def test_traversal(self) -> None:
        """websockify#453: no spelling of a way up, nor of an absolute path, leads out of the directory."""
        for target in (
            "/../x.txt",
            "/app/../../x.txt",
            "/./vnc.html",
            "/app/./ui.js",
            "/..",
            "/.",
            "/%2e%2e/x.txt",
            "/%2E%2E%2Fx.txt",
            "/..%2fx.txt",
            "/app/..%2f..%2fx.txt",
            "/%252e%252e/x.txt",
            "/%c0%ae%c0%ae/x.txt",
            "/vnc%2ehtml",
            "/vnc.html%00",
            "/vnc.html%00.js",
            "/../web-other/x.txt",
        ):
            with self.subTest(target):
                answer = self.ask(target)
                self.assert_refused(answer, 400)
                self.assert_ours(answer)

    def test_other_spellings(self) -> None:
        """A path is exactly one file's path, or it is nothing."""
        for target in (
            "/..\\x.txt",
            "\\..\\x.txt",
            "/app\\ui.js",
            "/...",
            "/..;/x.txt",
            "/app;/ui.js",
            "/etc/passwd",
            "/vnc.html/",
            "/vnc.html/etc/passwd",
            "/VNC.HTML",
            "/vnc.html.",
            "/vnc",
            "/app//ui.js",
            "/-other/x.txt",
            "/web-other/x.txt",
            "/vnc.html;x",
            "/~root/x.txt",
            "/console/../x.txt",
            "/console//index.html",
            "/console/novnc/../../x.txt",
            f"/{'a' * 8000}",
            f"/{'a/' * 4000}",
        ):
            with self.subTest(target[:40]):
                self.assert_refused(self.ask(target), 400, 404)

    def test_malformed_targets(self) -> None:
        """What is no path of printable characters is no request."""
        for target in (
            "/vnc.html\x00",
            "/vnc.html\x00.js",
            "/vnc.html\t",
            "/vnc.html\x7f",
            "/\xff",
            "vnc.html",
            "*",
        ):
            with self.subTest(target):
                self.assert_refused(self.ask(target), 400, 404)
        self.assert_refused(self.ask(f"/{'a' * 20000}"), 404, 431)

    def test_listing(self) -> None:
        """noVNC#1475: a directory is nothing, with a slash or without."""
        for target in (
            "/",
            "/app",
            "/app/",
            "/console/novnc/",
            "/console/novnc",
            "/console/novnc/core/",
            "/?C=N;O=D",
        ):
            with self.subTest(target):
                answer = self.ask(target)
                self.assert_refused(answer, 404)
                self.assertNotIn(b"ui.js", answer.body)

    def test_hidden_and_linked(self) -> None:
        """Dot files, and links that lead out of the directory, are not there."""
        for target in (
            "/.env",
            "/.git/config",
            "/.git",
            "/link.txt",
            "/above/x.txt",
            "/above",
            "/root/etc/passwd",
        ):
            with self.subTest(target):
                self.assert_refused(self.ask(target), 404)

    def test_open_redirect(self) -> None:
        """CVE-2021-3654, bpo-32084: two slashes are no host, and no redirect has anything of a request."""
        for target in (
            "//evil.example/..",
            "//evil.example/%2f..",
            "//evil.example/app",
            "///evil.example/app/..",
            "//evil.example",
            "//vnc.html",
            "//console",
            "///console/",
            "/\\evil.example/console",
            "/console//evil.example",
            "http://evil.example/console",
        ):
            with self.subTest(target):
                self.assert_refused(self.ask(target, "X-Forwarded-Host: evil.example"), 400, 404)
        for target in ("/console", "/console?//evil.example", "/console?x=%0d%0aLocation:%20//evil.example"):
            answer = self.ask(target, "X-Forwarded-Host: evil.example", "X-Forwarded-Prefix: //evil.example")
            self.assertEqual((answer.status, answer.location, answer.body), (307, "console/", b""))
            self.assertNotIn("evil", answer.head)

    def test_methods(self) -> None:
        """Files can be read, and nothing else; whatever else is said of them, nothing changes."""
        for method in _METHODS:
            for target in ("/vnc.html", "/console/", "/console"):
                with self.subTest(method=method, target=target):
                    answer = self.ask(target, method=method)
                    self.assert_refused(answer, 405)
                    self.assertEqual(answer.allow, "GET, HEAD")
            self.assert_refused(self.ask("/new.html", method=method), 404)
        self.assert_refused(self.ask("evil.example:443", method="CONNECT"), 400, 404)
        self.assertEqual((self.web / "vnc.html").read_bytes(), b"<title>noVNC</title>")
        self.assertFalse((self.web / "new.html").exists())

    def test_head(self) -> None:
        """HEAD says of a file what GET does, and of what is refused nothing more."""
        whole, head = self.ask("/vnc.html"), self.ask("/vnc.html", method="HEAD")
        self.assertEqual((head.status, head.body, head.etag), (200, b"", whole.etag))
        self.assertEqual(self.ask("/.env", method="HEAD").status, 404)

    def test_bodies(self) -> None:
        """A request with a body is refused: nobody has to agree on where it ends."""
        for lines, body in (
            (["Content-Length: 5"], b"hello"),
            (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
            (["Content-Length: 5", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
        ):
            head = "\r\n".join(["GET /vnc.html HTTP/1.1", "Host: proxy", *lines, "", ""]).encode()
            self.assert_refused(self.send(head + body), 400, 501)

    def test_pipelining(self) -> None:
        """There is one answer, whatever follows the request: the connection ends with it."""
        one = b"GET /vnc.html HTTP/1.1\r\nHost: proxy\r\nConnection: keep-alive\r\n\r\n"
        answer = self.send(one + one.replace(b"/vnc.html", b"/app/ui.js"))
        self.assertEqual((answer.status, answer.body), (200, b"<title>noVNC</title>"))

    def test_ranges(self) -> None:
        """CVE-2011-3192: however many ranges are asked for, the file is sent once, and whole."""
        for value in (
            "bytes=0-0",
            "bytes=" + ",".join(f"{n}-" for n in range(1000)),
            "bytes=-1",
            "lines=1-2",
        ):
            answer = self.ask("/vnc.html", f"Range: {value}")
            self.assertEqual((answer.status, answer.body), (200, b"<title>noVNC</title>"))

    def test_conditional(self) -> None:
        """Who has a file already is told so, also by a proxy in between that changed nothing."""
        etag = self.ask("/vnc.html").etag
        answer = self.ask("/vnc.html", f"If-None-Match: {etag}")
        self.assertEqual((answer.status, answer.body, answer.etag), (304, b"", etag))

    def test_upgrades(self) -> None:
        """A file's path is no console, and no other protocol is begun there."""
        for target in ("/vnc.html", "/app/ui.js", "/console/", "/console/index.html", "/console"):
            with self.subTest(target), RawClient(self.address) as client:
                client.send_raw(RawClient.request(target))
                self.assert_refused(Answer(client), 401, 404)
        h2c = ["Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"]
        for protocol in ("h2c", "TLS/1.2", "other"):
            answer = self.ask("/vnc.html", f"Upgrade: {protocol}", *h2c)
            self.assertEqual((answer.status, answer.body), (200, b"<title>noVNC</title>"))
        self.assertEqual(self.api.connections, 0)

    def test_tokens(self) -> None:
        """A token in front of a file's name opens nothing, and is in no answer and no log."""
        token = self.token("vm")
        with self.assertLogs(level=logging.DEBUG) as logs:
            for credential in (token, _FORGED):
                for target in (
                    f"/{credential}/vnc.html",
                    f"/{credential}/app/ui.js",
                    f"/console/{credential}/vm",
                ):
                    answer = self.ask(target)
                    self.assert_refused(answer, 404)
                    self.assertNotIn(credential, answer.head + answer.body.decode())
                self.ask(f"/vnc.html?path={credential}/vm")
        self.assertNotIn(token.rpartition(".")[2], "\n".join(logs.output))


class FilesByTLS(Files):
    """The same by TLS."""

    client_tls = True


class SlowReaders(ProxyTestCase):
    """OSSN-0008: whoever takes an answer slowly holds a connection for no longer than a request may."""

    def test_a_client_that_does_not_read(self) -> None:
        """A file that is larger than all buffers is sent until the deadline, which ends the connection."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        Path(directory.name, "large.js").write_bytes(bytes(8 * 1024 * 1024))
        proxy = self.start_proxy(web=directory.name, request_timeout=3.0)
        with RawClient(proxy.address, receive_buffer=4096) as client:
            client.send_raw(b"GET /large.js HTTP/1.1\r\nHost: proxy\r\n\r\n")
            client.read_head()
            self.assertEqual(client.status, 200)
            wait_until(lambda: proxy.connections == 0)
            with RawClient(proxy.address) as another:
                another.send_raw(b"GET /large.js HTTP/1.1\r\nHost: proxy\r\n\r\n")
                another.read_head()
                self.assertEqual(len(another.body()), 8 * 1024 * 1024)


class FilesOfAnApplication(Files):
    """The same through the WSGI application, which is mounted somewhere."""

    def serve(self) -> tuple[str, int]:
        config = Config(**self.proxy_options(**self.files()))
        app = ConsoleApp(config)
        self.addCleanup(app.close)
        host = Host(app)
        host.start()
        self.addCleanup(lambda: self.assertEqual(host.errors, []))
        self.addCleanup(host.stop)
        return host.address
