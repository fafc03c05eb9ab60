"""The operator's listener, and what it answers."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import tempfile
from unittest import mock

from wsproxy.admin.endpoints import admin_endpoints
from wsproxy.admin.routes import AdminEndpoint, AdminRequest, Reply
from wsproxy.admin.server import AdminServer
from wsproxy.admin.thread import AdminThread
from wsproxy.exceptions import BadToken, Busy, ConfigError
from wsproxy.net.addresses import ListenAddress
from wsproxy.net.listeners import listen, listen_for_operator
from wsproxy.protocol.request import HeadReader, RequestHead
from wsproxy.protocol.response import http_response
from wsproxy.telemetry.counters import Snapshot
from wsproxy.testing.case import LeakTestCase, ProxyTestCase

_TIMEOUT = 60.0
_BIG = b"x" * 10**7  # more than the kernel takes at once
_GOOD = b"GET /good HTTP/1.1\r\nHost: localhost\r\n\r\n"
_POST = (
    b"POST /post HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nContent-Length: 5\r\n\r\n"
)


class AdminTestCase(LeakTestCase):
    """A server that the test drives step by step, with a clock that the test sets."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.replies: list[Reply] = []
        endpoints = {
            "/good": AdminEndpoint("GET", lambda request, reply: reply(lambda: http_response(200, b"good"))),
            "/later": AdminEndpoint("GET", lambda request, reply: self.replies.append(reply)),
            "/big": AdminEndpoint(
                "GET", lambda request, reply: reply(lambda: http_response(200, b"x" * 10**7))
            ),
            "/busy": AdminEndpoint("GET", self.be_busy),
            "/bug": AdminEndpoint("GET", lambda request, reply: reply(self.fail_to_answer)),
            "/post": AdminEndpoint("POST", self.give_back),
            "/named/": AdminEndpoint("DELETE", self.give_back),
            "/guarded": AdminEndpoint("POST", self.give_back, self.refuse),
            "/trusted": AdminEndpoint("POST", self.give_much, lambda head: None),
        }
        listener = listen("127.0.0.1", 0)
        self.address = listener.getsockname()
        self.server = AdminServer(listener, endpoints, ["Admin.example"], lambda: self.now)
        self.addCleanup(self.server.close)

    def be_busy(self, request: AdminRequest, reply: Reply) -> None:
        raise Busy("not now")

    def give_back(self, request: AdminRequest, reply: Reply) -> None:
        reply(lambda: http_response(200, f"{request.name}:".encode() + request.body))

    def give_much(self, request: AdminRequest, reply: Reply) -> None:
        reply(lambda: http_response(200, _BIG))

    def refuse(self, head: RequestHead) -> None:
        raise BadToken("not you")

    def fail_to_answer(self) -> bytes:
        raise RuntimeError("a bug")

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.address, _TIMEOUT)
        self.addCleanup(sock.close)
        self.serve()
        return sock

    def serve(self) -> None:
        """Serve what has come; loopback delivers before a send returns."""
        self.server.serve()

    def read(self, sock: socket.socket) -> bytes:
        """Receive a whole response, up to the end of the stream."""
        sock.setblocking(False)
        received = b""
        while True:
            self.serve()
            try:
                part = sock.recv(65536)
            except BlockingIOError:
                continue
            if not part:
                return received
            received += part

    def ask(self, request: bytes) -> bytes:
        sock = self.connect()
        sock.sendall(request)
        answer = self.read(sock)
        sock.close()
        return answer

    def status(self, line: str, *headers: str) -> int:
        answer = self.ask("\r\n".join([f"{line} HTTP/1.1", *headers, "", ""]).encode())
        return int(answer.split(b" ")[1])


class Requests(AdminTestCase):
    def test_answers(self) -> None:
        """A request is answered, and the connection closed."""
        answer = self.ask(_GOOD)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\ngood"), answer)
        self.assertEqual(self.status("GET /good?name=x", "Host: localhost"), 200)

    def test_in_pieces(self) -> None:
        """A request may come byte by byte, and an answer be larger than the kernel takes."""
        sock = self.connect()
        for byte in _GOOD.replace(b"good", b"big"):
            sock.sendall(bytes([byte]))
            self.serve()
        self.assertEqual(len(self.read(sock).partition(b"\r\n\r\n")[2]), len(_BIG))

    def test_hosts(self) -> None:
        """The Host header must be an IP address, localhost or a listed name, so no page's own host works."""
        for host in ("127.0.0.1", "10.1.2.3:9100", "[::1]:9100", "LOCALHOST:1", "admin.example"):
            with self.subTest(host=host):
                self.assertEqual(self.status("GET /good", f"Host: {host}"), 200)
        for host in ("evil.example", "", "localhost.evil.example", "127.0.0.1.evil.example", "[x]"):
            with self.subTest(host=host):
                self.assertEqual(self.status("GET /good", f"Host: {host}"), 403)
        self.assertEqual(self.status("GET /good", "Host: localhost", "Host: localhost"), 400)

    def test_refusals(self) -> None:
        """Pages, other methods, other paths, and bodies are refused."""
        host = "Host: localhost"
        self.assertEqual(self.status("GET /good", host, "Origin: http://localhost"), 403)
        self.assertEqual(self.status("POST /good", host), 405)
        self.assertEqual(self.status("GET /", host), 404)
        self.assertEqual(self.status("GET /healthz", host), 404)
        self.assertEqual(self.status("GET /good", host, "Content-Length: 1"), 400)
        self.assertEqual(self.status("GET /busy", host), 503)
        self.assertIn(b" 400 ", self.ask(b"\x16\x03\x01"))
        self.assertIn(b" 431 ", self.ask(b"GET /good HTTP/1.1\r\n" + b"x: " + b"y" * 17000 + b"\r\n\r\n"))

    def test_named(self) -> None:
        """One element of the path may be a name."""
        answer = self.ask(b"DELETE /named/a%20b HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertTrue(answer.endswith(b"\r\n\r\na%20b:"), answer)
        for path in ("/named", "/named/", "/named/a/b", "/named//", "/named/a/", "/good/"):
            with self.subTest(path):
                self.assertEqual(self.status(f"DELETE {path}", "Host: localhost"), 404)

    def test_body(self) -> None:
        """A POST has a body of JSON, in whatever pieces it comes; what is behind it is dropped."""
        sock = self.connect()
        for byte in _POST + b"hello":
            sock.sendall(bytes([byte]))
            self.serve()
        self.assertTrue(self.read(sock).endswith(b"\r\n\r\n:hello"))
        self.assertTrue(self.ask(_POST + b"hello, world").endswith(b":hello"))
        for status, lines in (
            (415, ["Content-Length: 5"]),
            (415, ["Content-Type: text/plain", "Content-Length: 5"]),
            (415, ["Content-Type: application/json", "Content-Type: application/json", "Content-Length: 5"]),
            (411, ["Content-Type: application/json"]),
            (413, ["Content-Type: application/json", "Content-Length: 16385"]),
            (400, ["Content-Type: application/json", "Content-Length: 0"]),
            (400, ["Content-Type: application/json", "Content-Length: 5", "Transfer-Encoding: chunked"]),
        ):
            with self.subTest(lines):
                self.assertEqual(self.status("POST /post", "Host: localhost", *lines), status)

    def test_guard(self) -> None:
        """The guard refuses a client before the method and the body, and without waiting for the body."""
        self.assertEqual(self.status("GET /guarded", "Host: localhost"), 401)
        self.assertEqual(self.status("POST /guarded", "Host: localhost", "Content-Length: 99999"), 401)
        self.assertIn(b" 401 ", self.ask(_POST.replace(b"/post", b"/guarded")))

    def test_bug(self) -> None:
        """A bug in making an answer is logged, and does nothing else."""
        with self.assertLogs("wsproxy.admin", "ERROR"):
            self.assertEqual(self.status("GET /bug", "Host: localhost"), 500)
        self.assertEqual(self.status("GET /good", "Host: localhost"), 200)


class Times(AdminTestCase):
    def test_slow_request(self) -> None:
        """A request has five seconds, however it comes."""
        sock = self.connect()
        sock.sendall(b"GET /go")
        self.now = 4.9
        self.serve()
        self.assertAlmostEqual(self.server.next_due() or 0, 0.1)
        self.now = 5.0
        self.assertIn(b" 408 ", self.read(sock))

    def test_slow_body(self) -> None:
        """The body belongs to the request."""
        sock = self.connect()
        sock.sendall(_POST + b"hell")
        self.now = 4.9
        self.serve()
        self.now = 5.0
        self.assertIn(b" 408 ", self.read(sock))

    def test_late_answer(self) -> None:
        """An answer has five seconds to come; one that comes later is dropped, as is a second one."""
        sock = self.connect()
        sock.sendall(_GOOD.replace(b"good", b"later"))
        self.serve()
        self.now = 5.0
        self.assertIn(b" 504 ", self.read(sock))
        (reply,) = self.replies
        reply(self.fail_to_answer)

    def test_answer_in_time(self) -> None:
        """What is answered later is sent then."""
        sock = self.connect()
        sock.sendall(_GOOD.replace(b"good", b"later"))
        self.serve()
        self.now = 4.0
        self.replies[0](lambda: http_response(200, b"at last"))
        self.assertIn(b"at last", self.read(sock))

    def test_client_that_left(self) -> None:
        """If the client has left, its answer is not made."""
        sock = self.connect()
        sock.sendall(_GOOD.replace(b"good", b"later"))
        self.serve()
        sock.close()
        self.serve()
        self.replies[0](self.fail_to_answer)
        self.assertIsNone(self.server.next_due())

    def test_client_that_reads_nothing(self) -> None:
        """If the client does not read its answer, the connection is dropped."""
        sock = self.connect()
        sock.sendall(_GOOD.replace(b"good", b"big"))
        self.serve()
        self.now = 5.0
        self.serve()
        self.assertIsNone(self.server.next_due())

    def test_client_that_stays(self) -> None:
        """A client that does not end its side is waited for no longer than a second."""
        sock = self.connect()
        sock.sendall(_GOOD)
        self.assertTrue(self.read(sock))
        self.assertIsNotNone(self.server.next_due())
        self.now = 1.0
        self.serve()
        self.assertIsNone(self.server.next_due())

    def test_many(self) -> None:
        """Of many silent clients the oldest go, and others are served."""
        clients = [self.connect() for _ in range(40)]
        self.assertEqual(len(self.server._exchanges), 16)
        self.assertEqual(self.status("GET /good", "Host: localhost"), 200)
        self.assertEqual(clients[0].recv(1), b"")


class Places(AdminTestCase):
    """Clients that take all places cannot keep others from an answer."""

    def come(self, request: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        """Connect from an address, and send something."""
        sock = socket.create_connection(self.address, _TIMEOUT, (source, 0))
        self.addCleanup(sock.close)
        sock.sendall(request)
        self.serve()
        self.serve()
        return sock

    def fill(self, request: bytes = b"", source: str = "127.0.0.1") -> list[socket.socket]:
        """Take every place."""
        return [self.come(request, source) for _ in range(16)]

    def assert_answered(self, sock: socket.socket) -> None:
        self.assertIn(b" 200 OK\r\n", self.read(sock))

    def assert_closed(self, sock: socket.socket) -> None:
        self.assertEqual(sock.recv(1), b"")

    def test_silent_clients(self) -> None:
        """Silent clients lose their places, the oldest first; a client that waits for an answer does not."""
        waiting = self.come(_GOOD.replace(b"good", b"later"))
        silent = self.fill()
        self.fill(b"GET /good")
        self.assert_closed(silent[0])
        self.replies[0](lambda: http_response(200, b"at last"))
        self.assert_answered(waiting)

    def test_clients_that_read_nothing(self) -> None:
        """Clients that do not read their answers lose their places after the silent ones."""
        slow = self.fill(_GOOD.replace(b"good", b"big"))[0]
        self.assert_answered(self.come(_GOOD))
        with self.assertRaises(OSError):
            while slow.recv(65536):
                pass
            raise ConnectionResetError("closed before the whole answer was there")

    def test_shown_token(self) -> None:
        """A client that has shown a token keeps its place, even if it reads its answer slowly."""
        trusted = self.come(_POST.replace(b"/post", b"/trusted") + b"hello")
        for _ in range(3):
            self.fill(_GOOD.replace(b"good", b"big"))
            self.fill()
        self.assertEqual(len(self.read(trusted).partition(b"\r\n\r\n")[2]), len(_BIG))

    def test_from_one_address(self) -> None:
        """If all clients wait for answers, a newcomer from another address replaces the newest of them."""
        crowd = self.fill(_GOOD.replace(b"good", b"later"))
        self.assertRaises(ConnectionResetError, self.come(_GOOD).recv, 1)
        other = self.come(_GOOD, "127.0.0.2")
        self.assert_answered(other)
        self.assert_closed(crowd[-1])
        self.replies[0](lambda: http_response(200, b"at last"))
        self.assert_answered(crowd[0])


class Errors(AdminTestCase):
    """Errors that no client causes."""

    def test_out_of_descriptors(self) -> None:
        """Without descriptors the server pauses instead of spinning, and logs one line."""
        listener = self.server._listener
        full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        client = socket.create_connection(self.address, _TIMEOUT)
        self.addCleanup(client.close)
        with self.assertLogs("wsproxy.admin", "ERROR") as logs:
            for _ in range(3):
                with mock.patch.object(type(listener), "accept", side_effect=full) as accept:
                    self.serve()
                    self.serve()
                accept.assert_called_once()
                self.assertEqual(self.server.next_due(), 0.5)
                readable, _, _ = select.select([self.server], [], [], 0)
                self.assertEqual(readable, [])
                self.now += 0.5
                self.serve()  # it accepts again
        self.assertEqual(len(logs.output), 1)
        client.sendall(_GOOD)
        self.assertTrue(self.read(client).endswith(b"good"))

    def test_listener_without_use(self) -> None:
        """A listener that accepts nobody any more, as an inherited one that was shut down, costs no more."""
        broken = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.connect()
        with (
            self.assertLogs("wsproxy.admin", "ERROR") as logs,
            mock.patch.object(type(self.server._listener), "accept", side_effect=broken) as accept,
            socket.create_connection(self.address, _TIMEOUT),
        ):
            self.serve()
            self.serve()
        accept.assert_called_once()
        self.assertEqual(len(logs.output), 1)
        self.assertNotIn("open files", logs.output[0])

    def test_cannot_resume(self) -> None:
        """If the system watches no more descriptors when a pause is over, that is tried again."""
        full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        client = socket.create_connection(self.address, _TIMEOUT)
        self.addCleanup(client.close)
        with (
            self.assertLogs("wsproxy.admin", "ERROR"),
            mock.patch.object(type(self.server._listener), "accept", side_effect=full),
        ):
            self.serve()
        self.now += 0.5
        no_watches = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with (
            mock.patch.object(self.server._selector, "register", side_effect=no_watches),
            self.assertRaises(OSError),
        ):
            self.server.serve()
        self.serve()  # it accepts again
        self.serve()
        self.assertTrue(self.server._exchanges, "it accepts nobody any more")
        client.sendall(_GOOD)
        self.assertTrue(self.read(client).endswith(b"good"))

    def test_bug_of_any_kind(self) -> None:
        """An error while a request is read, or a client accepted, ends that connection alone."""
        before = self.connect()
        with self.assertLogs("wsproxy.admin", "ERROR") as logs:
            with mock.patch("wsproxy.admin.server._Exchange", side_effect=ZeroDivisionError):
                self.assertEqual(self.connect().recv(1), b"")
            with mock.patch.object(HeadReader, "feed", side_effect=KeyError):
                sock = self.connect()
                sock.sendall(_GOOD)
                self.serve()
                self.assertEqual(sock.recv(1), b"")
        self.assertEqual(len(logs.output), 1)
        before.sendall(_GOOD)
        self.assertTrue(self.read(before).endswith(b"good"))


class Thread(AdminTestCase):
    def test_goes_on(self) -> None:
        """An error while it waits does not end the thread."""
        thread = AdminThread(self.server)
        failures = iter([OSError(errno.ENOMEM, "no memory"), SystemExit()])
        next_due = self.server.next_due

        def failing_next_due() -> float | None:
            for failure in failures:
                raise failure
            return next_due()

        with (
            mock.patch.object(self.server, "next_due", failing_next_due),
            self.assertLogs("wsproxy.threads", "ERROR"),
        ):
            thread.start(self)
            self.addCleanup(thread.stop)
            with socket.create_connection(self.address, _TIMEOUT) as sock:
                sock.sendall(_GOOD)
                self.assertTrue(sock.recv(65536).startswith(b"HTTP/1.1 200 "))
            self.assertTrue(thread.is_healthy)
            thread.stop()

    def test_serves_by_itself(self) -> None:
        """A thread serves, also what takes time, until it is stopped."""
        thread = AdminThread(self.server)
        self.now = 0.0
        thread.start(self)
        self.addCleanup(thread.stop)
        for _ in range(3):
            with socket.create_connection(self.address, _TIMEOUT) as sock:
                sock.sendall(_GOOD)
                answer = b""
                while part := sock.recv(65536):
                    answer += part
            self.assertTrue(answer.endswith(b"good"))
        thread.stop()
        thread.stop()


class Addresses(LeakTestCase):
    GOOD = (
        ("127.0.0.1:9100", ListenAddress("127.0.0.1", 9100)),
        ("[::1]:0", ListenAddress("::1", 0)),
        ("admin.example:1", ListenAddress("admin.example", 1)),
        ("unix:/run/x", ListenAddress(path="/run/x")),
        ("unix:9100", ListenAddress(path="9100")),
    )

    BAD = ("", "9100", ":9100", "localhost", "localhost:", "localhost:99999", "::1:9100", "unix:", "a b:1")

    def test_parse(self) -> None:
        """Addresses are read, and written as they were."""
        for text, address in self.GOOD:
            self.assertEqual(ListenAddress.parse(text), address)
            self.assertEqual(str(address), text)
        for text in (
            "",
            "9100",
            ":9100",
            "localhost",
            "localhost:",
            "localhost:99999",
            "::1:9100",
            "unix:",
            "a b:1",
        ):
            with self.subTest(text=text), self.assertRaises(ValueError):
                ListenAddress.parse(text)

    def test_errors_say_what_for(self) -> None:
        """An address that cannot be bound is named."""
        with listen("127.0.0.1", 0) as taken, self.assertRaises(OSError) as caught:
            listen_for_operator(ListenAddress("127.0.0.1", taken.getsockname()[1])).close()
        self.assertIn("the operator's listener 127.0.0.1:", str(caught.exception))
        with self.assertRaises(OSError) as caught:
            listen_for_operator(ListenAddress(path="/nowhere/at/all"))
        self.assertIn("the operator's listener unix:/nowhere", str(caught.exception))


class WithoutPrometheus(LeakTestCase):
    """What is answered without prometheus-client."""

    def test_says_what_to_install(self) -> None:
        """The log says it at the start, and the answer to a scrape."""
        answers: list[bytes] = []
        with mock.patch.dict(sys.modules, {"prometheus_client": None}):
            with self.assertLogs("wsproxy.admin", "WARNING") as logged:
                endpoint = admin_endpoints(lambda then: then(Snapshot()))["/metrics"]
            head = HeadReader().feed(_GOOD)
            assert head
            endpoint.handle(AdminRequest(head, "/metrics"), lambda make: answers.append(make()))
        self.assertIn("lab-orchestrator-ws-proxy-lib[metrics]", logged.output[0])
        self.assertTrue(answers[0].startswith(b"HTTP/1.1 501 "), answers)
        self.assertIn(b"[metrics]", answers[0])


class InAProxy(ProxyTestCase):
    """The listener of a proxy."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        patcher = mock.patch(
            "wsproxy.admin.endpoints.check_metrics"
        )  # else it would warn where that is missing
        patcher.start()
        self.addCleanup(patcher.stop)

    def ask(self, path: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT)
            sock.connect(path)
            sock.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while part := sock.recv(65536):
                answer += part
        return answer

    def test_own_listener(self) -> None:
        """It is there while the proxy runs, also after a restart, and never on the clients' port."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "admin")
            proxy = self.start_proxy(admin=f"unix:{path}")
            self.assertIn(b" 404 ", self.ask(path))
            host, port = proxy.address
            proxy.stop_thread()
            self.assertEqual(os.listdir(directory), [])
            proxy.run_in_thread(host, port)
            self.assertIn(b" 404 ", self.ask(path))
            with socket.create_connection(proxy.address, _TIMEOUT) as sock:
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertIn(b" 404 ", sock.recv(65536))
            proxy.stop_thread()

    def test_cannot_listen(self) -> None:
        """If the operator's listener cannot be bound, the proxy does not start, and leaves nothing behind."""
        with self.assertRaisesRegex(OSError, "operator's listener"):
            self.start_proxy(admin="unix:/nowhere/at/all")

    def test_faults(self) -> None:
        """A malformed address is a fault of the settings."""
        with self.assertRaisesRegex(ConfigError, "admin is '9100'; it must be HOST:PORT"):
            self.start_proxy(admin="9100")
