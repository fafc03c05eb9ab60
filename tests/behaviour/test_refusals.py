"""The table of refusals, end to end: who is told what, and that nobody is dialled for."""

from __future__ import annotations

import json
import socket
import threading
import time
import unittest
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

from tests.conformance.fronts import ConformanceTestCase, RunningProxy
from tests.support.proxy_process import wait_until
from tests.support.tokens import early
from wsproxy.exceptions import Busy, Draining, LimitExceeded, Refused
from wsproxy.net.transport import PlainTransport
from wsproxy.protocol.handshake import Upgrade
from wsproxy.protocol.request import HeadReader
from wsproxy.runtime.deadline import Deadline
from wsproxy.server import refusal
from wsproxy.server.refusal import Refuser
from wsproxy.testing.case import LeakTestCase
from wsproxy.testing.kubevirt.http import Answer, Behaviour, status_answer
from wsproxy.testing.rfb.client import RFBClient, RFBRefused
from wsproxy.testing.rfb.raw_client import RawClient

_ORIGIN = "Origin: http://console.example"
_IN_USE = "Can't connect to websocket (503): Active VNC connection. Request denied."
_WITHIN = 10.0  # seconds for what should be at once, or right after a second


class RefusalTestCase(ConformanceTestCase):
    """Talks to a proxy and looks at how it refuses."""

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)

    def ask(self, proxy: RunningProxy, target: str, *headers: str, request: bytes | None = None) -> RawClient:
        """Send an upgrade request for ``target`` (or ``request`` as it is) and read the answer's head."""
        client = RawClient(proxy.address)
        self.addCleanup(client.close)
        client.send_raw(request if request is not None else RawClient.request(target, headers))
        client.read_head()
        return client

    def assert_http(
        self, client: RawClient, status: int, slug: str, code: int | None, text: str | None = None
    ) -> dict[str, Any]:
        """Assert that an answer is a whole refusal by HTTP, and return its body."""
        self.assertEqual(client.status, status, client.head)
        raw = self.body(client)
        body: dict[str, Any] = json.loads(raw)
        self.assertEqual(set(body), {"status", "code", "reason", "message"})
        self.assertEqual((body["status"], body["reason"], body["code"]), (status, slug, code))
        self.assertIsInstance(body["message"], str)
        if text is not None:
            self.assertIn(text, body["message"])
        self.assertEqual(client.header("content-type"), "application/json")
        self.assertEqual(client.header("content-length"), str(len(raw)))
        self.assertEqual(client.header("connection"), "close")
        self.assertEqual(client.header("cache-control"), "no-store")
        return body

    def assert_close(self, client: RawClient, code: int, slug: str) -> str:
        """Assert that a client is let in and told by a Close frame alone, and return its reason."""
        self.assertEqual(client.status, 101)
        frame = client.recv_frame()
        self.assertEqual(frame.opcode, 8)
        self.assertEqual(int.from_bytes(frame.payload[:2], "big"), code)
        reason = frame.payload[2:].decode()
        self.assertTrue(reason.startswith(f"{slug}: "), reason)
        client.send_raw(b"\x88\x82mask" + bytes(a ^ b for a, b in zip(frame.payload[:2], b"ma", strict=True)))
        self.assertTrue(client.wait_for_end())
        return reason

    def assert_rfb(self, proxy: RunningProxy, target: str, code: int, slug: str) -> str:
        """Assert that a viewer is told by RFB and then by a Close frame, and return the reason in RFB."""
        host, port = proxy.address
        url, origin = f"{self.scheme}://{host}:{port}{target}", "http://console.example"
        with RFBClient.connect(url, origin=origin, tls=self.client_context) as viewer:
            with self.assertRaises(RFBRefused) as caught:
                viewer.handshake()
            end = viewer.wait_closed()
        self.assertEqual(end.code, code)
        self.assertTrue(end.reason.startswith(f"{slug}: "), end.reason)
        self.assertTrue(end.reason.startswith(f"{slug}: {caught.exception.reason[:50]}"), end.reason)
        return caught.exception.reason


@dataclass(frozen=True)
class Row:
    """One row of the table, for a client whose upgrade request is well-formed.

    :ivar target: makes the request target, given the subresource at its end ("" or "/console").
    :ivar before: prepares the stand-in.
    :ivar headers: what the answer by HTTP has in addition.
    """

    slug: str
    status: int
    code: int
    target: Callable[[RefusalTestCase, str], str]
    before: Callable[[RefusalTestCase], object] = lambda case: None
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    dialled: bool = False


def _vm(case: RefusalTestCase, end: str) -> str:
    return f"/{case.token('vm')}/vm{end}"


def _behave(behaviour: Behaviour) -> Callable[[RefusalTestCase], object]:
    return lambda case: case.api.add_vmi("vm", case.namespace, behaviour=behaviour)


_BEARER = (("WWW-Authenticate", "Bearer"),)
ROWS = (
    Row("bad-request", 400, 4400, lambda case, end: f"/{case.token('vm')}/VM{end}", text="DNS-1123"),
    Row("bad-token", 401, 4401, lambda case, end: f"/garbage/vm{end}", headers=_BEARER, text="not a JWT"),
    Row(
        "bad-token",
        401,
        4401,
        lambda case, end: f"/{case.token('vm', secret='x' * 32)}/vm{end}",
        headers=_BEARER,
        text="not valid",
    ),
    Row(
        "token-expired",
        401,
        4401,
        lambda case, end: f"/{case.token('vm', expires_in=-60)}/vm{end}",
        headers=_BEARER,
        text="expired",
    ),
    Row(
        "token-not-yet-valid",
        401,
        4401,
        lambda case, end: f"/{early(case.token('vm'))}/vm{end}",
        headers=_BEARER,
        text="not valid yet",
    ),
    Row("forbidden", 403, 4403, lambda case, end: f"/{case.token('other')}/vm{end}", text="does not allow"),
    Row(
        "vmi-not-found",
        404,
        4404,
        lambda case, end: f"/{case.token('none')}/none{end}",
        text='virtualmachineinstance.kubevirt.io "none" not found',
        dialled=True,
    ),
    Row(
        "console-busy",
        409,
        4409,
        _vm,
        _behave(Behaviour(answer=status_answer(500, "InternalError", _IN_USE))),
        text="Active VNC connection. Request denied.",
        dialled=True,
    ),
    Row(
        "vmi-not-running",
        409,
        4420,
        _vm,
        lambda case: case.api.add_vmi("vm", case.namespace, phase="Scheduled"),
        text="VMI is not running",
        dialled=True,
    ),
    Row(
        "vmi-no-console",
        409,
        4421,
        _vm,
        lambda case: case.api.add_vmi("vm", case.namespace, display=False, serial=False),
        text="are present",
        dialled=True,
    ),
    Row(
        "upstream-refused",
        502,
        4502,
        _vm,
        lambda case: setattr(case.api, "forbid", True),
        text="the Kubernetes API refused",
        dialled=True,
    ),
    Row(
        "upstream-refused",
        502,
        4502,
        _vm,
        lambda case: case.api.rotate_token(write_file=False),
        text="the Kubernetes API refused",
        dialled=True,
    ),
    Row(
        "upstream-refused",
        502,
        4502,
        _vm,
        _behave(Behaviour(accept="wrong")),
        text="did not answer as a WebSocket server",
        dialled=True,
    ),
    Row(
        "upstream-timeout",
        504,
        4504,
        _vm,
        _behave(Behaviour(hang=True)),
        text="did not answer in time",
        dialled=True,
    ),
)


class Table(RefusalTestCase):
    """Each row, told in each way."""

    def each(self, tell: Callable[[RunningProxy, Row], None], **options: Any) -> None:
        for number, row in enumerate(ROWS):
            with self.subTest(number=number, slug=row.slug):
                self.api.forbid = False
                self.api.rotate_token()
                self.api.add_vmi("vm", self.namespace)
                row.before(self)
                before = self.api.connections
                patience = 0.3 if row.slug == "upstream-timeout" else 10.0
                proxy = self.start_proxy(dial_timeout=patience, subresources=("console",), **options)
                with self.proxy_logs("wsproxy.connection") as logs:
                    tell(proxy, row)
                    proxy.stop_thread()
                self.assertIn(f": {row.status} {row.slug}: ", "\n".join(logs.output))
                self.assertEqual(self.api.connections > before, row.dialled)

    def tell_by_http(self, proxy: RunningProxy, row: Row, *headers: str) -> None:
        client = self.ask(proxy, row.target(self, ""), *headers)
        self.assert_http(client, row.status, row.slug, row.code, row.text)
        for name, value in row.headers:
            self.assertEqual(client.header(name), value)

    def test_no_origin(self) -> None:
        """A client without ``Origin`` gets a refusal by HTTP."""
        self.each(self.tell_by_http)

    def test_browser_on_a_vnc_route(self) -> None:
        """A browser on a ``vnc`` route gets RFB's failure message, and then a Close frame."""

        def tell(proxy: RunningProxy, row: Row) -> None:
            reason = self.assert_rfb(proxy, row.target(self, ""), row.code, row.slug)
            self.assertIn(row.text, reason)

        self.each(tell)

    def test_browser_on_a_console_route(self) -> None:
        """A browser on another route than ``vnc`` gets a Close frame alone."""

        def tell(proxy: RunningProxy, row: Row) -> None:
            client = self.ask(proxy, row.target(self, "/console"), _ORIGIN)
            self.assertIn(row.text, self.assert_close(client, row.code, row.slug))

        self.each(tell)

    def test_reject_http(self) -> None:
        """With ``reject="http"`` a browser is told by HTTP as well."""
        self.each(lambda proxy, row: self.tell_by_http(proxy, row, _ORIGIN), reject="http")

    def test_reject_close(self) -> None:
        """With ``reject="close"`` a client without Origin is told by a Close frame as well."""

        def tell(proxy: RunningProxy, row: Row) -> None:
            self.assert_close(self.ask(proxy, row.target(self, "/console")), row.code, row.slug)

        self.each(tell, reject="close")

    def test_not_found(self) -> None:
        """The proxy refuses an upgrade request to an unknown path, by HTTP, by a Close frame, or by RFB."""
        auto, http_only = self.start_proxy(host_path_prefix="p"), self.start_proxy(reject="http")
        token = self.token("vm")
        for target in (f"/{token}/vm", f"/q/{token}/vm", "/p", "/p/x", "/"):
            with self.subTest(target=target.replace(token, "TOKEN")):
                self.assert_http(self.ask(auto, target), 404, "not-found", 4404)
                self.assert_rfb(auto, target, 4404, "not-found")
        for target in (f"/p/{token}/vm/console", f"/p/-/{self.namespace}/vm/console"):  # which is not enabled
            with self.subTest(target=target.replace(token, "TOKEN")):
                self.assert_http(self.ask(auto, target), 404, "not-found", 4404)
                self.assert_close(self.ask(auto, target, _ORIGIN), 4404, "not-found")
        for target in (f"/{token}/vm/usbredir", f"/{token}/vm/vnc/x", "/healthz", "/-", "/-/a/b/c/d"):
            with self.subTest(target=target.replace(token, "TOKEN")):
                self.assert_http(self.ask(http_only, target, _ORIGIN), 404, "not-found", 4404)
        self.assertEqual(self.api.connections, 0)

    def test_101_and_then_nothing(self) -> None:
        """If the upstream ends right after its 101, the proxy refuses the client by a Close frame.

        On a vnc route a browser is told by RFB, too, unless refusals go by HTTP.
        """
        self.api.behaviour = Behaviour(eof=True)
        auto, by_http = self.start_proxy(subresources=("console",)), self.start_proxy(reject="http")
        asked = [(auto, "", ()), (auto, "/console", (_ORIGIN,)), (by_http, "", (_ORIGIN,))]
        for proxy, end, headers in asked:
            with self.subTest(end=end, headers=headers, auto=proxy is auto):
                client = self.ask(proxy, _vm(self, end), *headers)
                self.assert_close(client, 4502, "upstream-refused")
        self.assert_rfb(auto, _vm(self, ""), 4502, "upstream-refused")

    def test_texts_of_the_api(self) -> None:
        """If the API sends a long text with control characters, nobody gets that text unchanged."""
        text = "VMI is not running\r\n\x1b]0;x\x07 " + "ü" * 500
        self.api.behaviour = Behaviour(answer=status_answer(400, "BadRequest", text))
        proxy = self.start_proxy()
        body = self.assert_http(self.ask(proxy, _vm(self, "")), 409, "vmi-not-running", 4420)
        reason = self.assert_rfb(proxy, _vm(self, ""), 4420, "vmi-not-running")
        self.assertEqual(body["message"], reason)
        self.assertLessEqual(len(reason.encode()), 120)
        self.assertTrue(reason.isprintable(), reason)

    def test_texts_that_name_the_account(self) -> None:
        """The texts of 401, 403 and 5xx reach the log and not the client."""
        proxy = self.start_proxy()
        for status in (401, 403, 500, 503):
            with self.subTest(status=status):
                text = "User system:serviceaccount:wsproxy:wsproxy cannot"
                self.api.behaviour = Behaviour(answer=Answer(status, text.encode()))
                with self.proxy_logs("wsproxy.connection") as logs:
                    body = self.assert_http(self.ask(proxy, _vm(self, "")), 502, "upstream-refused", 4502)
                self.assertNotIn("serviceaccount", json.dumps(body))
                self.assertIn(text, "\n".join(logs.output))


class ByHTTPOnly(RefusalTestCase):
    """What a close code cannot say."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_proxy(request_timeout=1.0, reject="close")

    def test_version(self) -> None:
        """Another WebSocket version, or none, gets 426 with the version that the proxy supports."""
        for version in ("12", "14", "0", "x", "13, 12", ""):
            with self.subTest(version=version):
                line = f"Sec-WebSocket-Version: {version}"
                request = RawClient.request("/x/vm", [_ORIGIN]).replace(
                    b"Sec-WebSocket-Version: 13", line.encode()
                )
                client = self.ask(self.proxy, "", request=request)
                self.assert_http(client, 426, "upgrade-required", None)
                self.assertEqual(client.header("sec-websocket-version"), "13")
        request = RawClient.request("/x/vm").replace(b"Sec-WebSocket-Version: 13\r\n", b"")
        self.assert_http(self.ask(self.proxy, "", request=request), 426, "upgrade-required", None)

    def test_method(self) -> None:
        """Another method than GET gets 405 with the allowed methods, for an upgrade and for an endpoint."""
        for method in (b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT"):
            with self.subTest(method=method):
                request = RawClient.request("/x/vm", [_ORIGIN]).replace(b"GET", method)
                client = self.ask(self.proxy, "", request=request)
                self.assertEqual(client.status, 405)
                self.assertEqual(client.header("allow"), "GET")
        client = self.ask(self.proxy, "", request=b"POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assert_http(client, 405, "method-not-allowed", None)
        self.assertEqual(client.header("allow"), "GET, HEAD")

    def test_slow_head(self) -> None:
        """A head that is incomplete at the deadline gets 408, even if bytes keep coming."""
        started = time.monotonic()
        client = RawClient(self.proxy.address)
        self.addCleanup(client.close)
        stop = threading.Event()

        def drip() -> None:
            for byte in RawClient.request("/x/vm", [_ORIGIN, "X: " + "x" * 1000]):
                try:
                    client.send_raw(bytes([byte]))
                except OSError:
                    return
                if stop.wait(0.02):
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            client.read_head()
            self.assertLess(time.monotonic() - started, _WITHIN)
            self.assertGreaterEqual(time.monotonic() - started, 1.0)
        finally:
            stop.set()
            thread.join()
        self.assert_http(client, 408, "request-timeout", None)

    def test_silent_client(self) -> None:
        """A client that sends nothing at all gets 408 too."""
        self.assert_http(self.ask(self.proxy, "", request=b""), 408, "request-timeout", None)

    def test_large_head(self) -> None:
        """A head above 16 KiB gets 431, in one piece, in several, and without an end."""
        large = RawClient.request("/x/vm", ["X: " + "x" * 1000] * 17)
        self.assert_http(self.ask(self.proxy, "", request=large), 431, "head-too-large", 4431)
        self.assert_http(self.ask(self.proxy, "", request=large[:17000]), 431, "head-too-large", 4431)
        with RawClient(self.proxy.address) as client:
            for start in range(0, len(large), 3000):
                client.send_raw(large[start : start + 3000])
            client.read_head()
            self.assert_http(client, 431, "head-too-large", 4431)

    def test_head_of_the_largest_size(self) -> None:
        """The proxy accepts a head of exactly 16 KiB."""
        request = RawClient.request("/x/vm", ["X: "])
        request = request.replace(b"X: ", b"X: " + b"x" * (16384 - len(request)))
        self.assertEqual(len(request), 16384)
        self.assertEqual(self.ask(self.proxy, "", request=request).status, 101)
        request = request.replace(b"X: ", b"X: x")
        self.assertEqual(self.ask(self.proxy, "", request=request).status, 431)


class HostileHeads(RefusalTestCase):
    """What is not a well-formed request gets HTTP, browser or not, and nobody is dialled for it."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_proxy()
        self.token_ = self.token("vm")

    def edited(self, old: str, new: str) -> bytes:
        """Return the request of a browser that would be let in, with one thing changed."""
        request = RawClient.request(f"/{self.token_}/vm", [_ORIGIN])
        self.assertIn(old.encode("latin-1"), request)
        return request.replace(old.encode("latin-1"), new.encode("latin-1"), 1)

    def assert_bad(self, request: bytes, status: int = 400, slug: str = "bad-request") -> dict[str, Any]:
        code, dialled = {400: 4400, 404: 4404}.get(status), self.api.connections
        with self.proxy_logs("wsproxy.connection") as logs:
            client = self.ask(self.proxy, "", request=request)
            body = self.assert_http(client, status, slug, code)
        self.assertNotIn("Traceback", "\n".join(logs.output))
        self.assertNotIn(self.token_, "\n".join(logs.output) + json.dumps(body))
        self.assertEqual(self.api.connections, dialled)
        return body

    def test_key(self) -> None:
        """A key that is missing, repeated, or not 16 bytes in base64 is refused."""
        line = "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw=="
        for new in (
            f"{line}\r\n{line}",
            f"{line}\r\nsec-websocket-key: AAECAwQFBgcICQoLDA0ODg==",
            "X: y",
            "Sec-WebSocket-Key:",
            "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0O",
            "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODxA=",
            "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw",
            "Sec-WebSocket-Key: ####################==",
            "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==, x",
        ):
            with self.subTest(new=new):
                self.assert_bad(self.edited(line, new))

    def test_headers(self) -> None:
        """Doubled, contradicting, missing and malformed headers are refused."""
        host, version = "Host: proxy", "Sec-WebSocket-Version: 13"
        for old, new in (
            (host, "X: y"),
            (host, f"{host}\r\nHost: other"),
            (version, f"{version}\r\n{version}"),
            ("Upgrade: websocket", "Upgrade: websocket, h2c"),
            ("Upgrade: websocket", "Upgrade: h2c, websocket"),
            ("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: websocket"),
            ("Connection: Upgrade", "Connection: keep-alive"),
            ("Connection: Upgrade", "X: y"),
            (_ORIGIN, f"{_ORIGIN}\r\n{_ORIGIN}"),
            (_ORIGIN, f"{_ORIGIN}\r\nOrigin: null"),
            (_ORIGIN, "Sec-WebSocket-Protocol: bin\xe4ry"),
            (_ORIGIN, "Sec-WebSocket-Protocol: a b"),
            (_ORIGIN, "Sec-WebSocket-Protocol: a;b"),
            (host, "Host: pr\xf6xy"),
            (_ORIGIN, "X : y"),
            (_ORIGIN, " folded: y"),
            (_ORIGIN, "no colon"),
            (_ORIGIN, "X: a\x00b"),
            (_ORIGIN, "X: a\rb"),
            (_ORIGIN, "X: a\nY: b"),
            (_ORIGIN, "\xc4: y"),
        ):
            with self.subTest(new=new):
                self.assert_bad(self.edited(old, new))

    def test_extensions_that_are_malformed(self) -> None:
        """Extensions are ignored if they are well-formed, and never agreed to."""
        client = self.ask(
            self.proxy, f"/{self.token_}/vm", "Sec-WebSocket-Extensions: permessage-deflate; x=1, y"
        )
        self.assertEqual(client.status, 101)
        self.assertIsNone(client.header("sec-websocket-extensions"))

    def test_body(self) -> None:
        """The proxy refuses an upgrade request with a body, or with a header field that announces one."""
        for line in (
            "Content-Length: 5",
            "Content-Length: 0\r\nContent-Length: 5",
            "Content-Length: -1",
            "Content-Length: x",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
        ):
            with self.subTest(line=line):
                self.assert_bad(self.edited(_ORIGIN, f"{_ORIGIN}\r\n{line}"))

    def test_request_line(self) -> None:
        """HTTP/1.0, other versions, and targets that are no path are refused."""
        line = f"GET /{self.token_}/vm HTTP/1.1"
        for new in (
            line.replace("1.1", "1.0"),
            line.replace("HTTP/1.1", "HTTP/2.0"),
            line.replace(" HTTP/1.1", ""),
            line.replace("/vm", "/v m"),
            line.replace("/vm", "/v\xe4"),
            line.replace("/vm", "/vm%2e"),
            line.replace("/vm", "/../vm"),
            line.replace("/vm", "/vm#x"),
            line.replace("/vm", "/vm\x00"),
            line.replace(" /", " http://other/"),
            "GET * HTTP/1.1",
            "GET proxy:80 HTTP/1.1",
            "GET  / HTTP/1.1",
            "",
        ):
            with self.subTest(new=new.replace(self.token_, "TOKEN")):
                self.assert_bad_line(self.edited(line, new))

    def assert_bad_line(self, request: bytes) -> None:
        """Assert a refusal with 400; one that is well-formed HTTP but for its target, by RFB."""
        dialled = self.api.connections
        client = self.ask(self.proxy, "", request=request)
        if client.status == 101:
            self.assertEqual(client.recv_frame().payload, b"RFB 003.008\n")
            client.send_frame(2, b"RFB 003.008\n")
            self.assertEqual(client.recv_close()[0], 4400)
        else:
            self.assert_http(client, 400, "bad-request", 4400)
        self.assertEqual(self.api.connections, dialled)

    def test_other_protocols(self) -> None:
        """A TLS ClientHello, HTTP/2's preface and random bytes get 400. For TLS, the text names TLS."""
        for what, request in (
            ("TLS", bytes.fromhex("16030100c8010000c40303") + bytes(200)),
            ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            ("a byte", b"\x00"),
            ("nothing", b"\r\n\r\n"),
            ("RFB", b"RFB 003.008\n"),
            ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
        ):
            with self.subTest(what=what):
                message = self.assert_bad(request)["message"]
                if what == "TLS":
                    self.assertIn("https or wss", message)

    def test_upgrade_to_something_else(self) -> None:
        """An upgrade to h2c is ignored (RFC 9110). The path then leads to no page, so the client gets 404."""
        self.assert_bad(self.edited("Upgrade: websocket", "Upgrade: h2c"), 404, "not-found")
        self.assert_bad(self.edited("Upgrade: websocket", "X: y"), 404, "not-found")

    def test_post(self) -> None:
        """A POST that asks for an upgrade is 405."""
        self.assert_bad(self.edited("GET", "POST"), 405, "method-not-allowed")

    def test_client_that_leaves(self) -> None:
        """A client that leaves inside its head, or before it sends a byte, leaves nothing behind."""
        for part in (b"", b"GET /", self.edited("GET", "GET")[:-2]):
            with RawClient(self.proxy.address) as client:
                client.send_raw(part)
                client.drop()
                self.assertTrue(client.wait_for_end())
        with RawClient(self.proxy.address) as client:
            client.send_raw(b"GET /")
            client.reset()
        self.assertTrue(wait_until(lambda: self.api.connections == 0))

    def test_slow_but_in_time(self) -> None:
        """A good request is accepted however it is cut, and the bytes behind it are delivered."""
        request = RawClient.request(f"/{self.token_}/vm")
        with RawClient(self.proxy.address) as client:
            for start in range(0, len(request), 7):
                client.send_raw(request[start : start + 7])
            client.read_head()
            self.assertEqual(client.status, 101)
        client = RawClient.open(self.url(self.proxy, "vm"), early=b"\x82\x82\0\0\0\0hi")
        self.addCleanup(client.close)
        self.assertEqual(client.recv_frame().payload, b"hi")


class Routes(RefusalTestCase):
    """Which path leads where, and where the token comes from."""

    def assert_opens(self, proxy: RunningProxy, target: str, *headers: str, to: str = "vm/vnc") -> None:
        before = len(self.api.requests)
        client = self.ask(proxy, target, *headers)
        self.assertEqual(client.status, 101, client.head)
        request = self.api.wait_for_requests(before + 1)[before]
        base = f"/apis/subresources.kubevirt.io/v1/namespaces/{self.namespace}/virtualmachineinstances/"
        self.assertEqual(request.target, base + to)
        client.close()

    def test_query_and_slashes(self) -> None:
        """A query never goes upstream. Repeated slashes count as one, and a slash at the end is ignored."""
        proxy, token = self.start_proxy(), self.token("vm")
        for target in (
            f"/{token}/vm",
            f"/{token}/vm?x=1",
            f"/{token}/vm?preserveSession=true&a=/b?c",
            f"/{token}/vm?",
            f"//{token}/vm",
            f"///{token}////vm",
            f"/{token}/vm/",
            f"/{token}/vm//?x",
            f"/{token}/vm/vnc",
        ):
            with self.subTest(target=target.replace(token, "TOKEN")):
                self.assert_opens(proxy, target)

    def test_prefixes(self) -> None:
        """Every spelling of the prefix in the settings means the same, and each path must begin with it."""
        token = self.token("vm")
        for prefix, path in (
            (None, ""),
            ("", ""),
            ("/", ""),
            ("ws_proxy", "/ws_proxy"),
            ("/ws_proxy", "/ws_proxy"),
            ("ws_proxy/", "/ws_proxy"),
            ("/ws_proxy/", "/ws_proxy"),
            ("a/b", "/a/b"),
            ("//a//b//", "/a/b"),
        ):
            with self.subTest(prefix=prefix):
                proxy = self.start_proxy(host_path_prefix=prefix)
                self.assert_opens(proxy, f"{path}/{token}/vm")
                self.assert_opens(proxy, f"/{path}//{token}/vm/?x")
                connections = self.api.connections
                wrong = [f"/other{path}/{token}/vm", f"{path}/other/{token}/vm"]
                wrong += [f"/{token}/vm", f"{path}x/{token}/vm", f"/x{path[1:]}/{token}/vm"] if path else []
                for target in wrong:
                    self.assert_http(self.ask(proxy, target), 404, "not-found", 4404)
                self.assertEqual(self.api.connections, connections)

    def test_further_subresources(self) -> None:
        """A subresource may be named in the path once it is enabled."""
        proxy = self.start_proxy(subresources=("console",))
        self.assert_opens(proxy, f"/{self.token('vm')}/vm/console", to="vm/console")
        self.assert_opens(proxy, f"/{self.token('vm')}/vm/vnc")
        bearer = f"Authorization: Bearer {self.token('vm')}"
        self.assert_opens(proxy, f"/-/{self.namespace}/vm/console", bearer, to="vm/console")
        self.assert_opens(proxy, f"/-/{self.namespace}/vm/vnc", bearer)

    def test_api_path_of_another_subresource(self) -> None:
        """The API path's own subresource is the default. If it is not ``vnc``, the proxy sends no RFB."""
        base = self.proxy_options()["api_path"].rpartition("/")[0]
        proxy = self.start_proxy(api_path=f"{base}/console")
        self.assert_opens(proxy, f"/{self.token('vm')}/vm", to="vm/console")
        self.assert_close(self.ask(proxy, "/garbage/vm", _ORIGIN), 4401, "bad-token")
        self.assert_close(self.ask(proxy, "/garbage", _ORIGIN), 4404, "not-found")

    def test_token_in_a_header(self) -> None:
        """Under /-/ the token comes in the Authorization header."""
        proxy, bearer = self.start_proxy(), f"Authorization: Bearer {self.token('vm')}"
        self.assert_opens(proxy, "/-/vm", bearer)
        self.assert_opens(proxy, f"/-/{self.namespace}/vm", bearer)
        self.assert_opens(proxy, "/-/vm", bearer.replace("Bearer", "bearer"))

    def test_header_that_does_not_do(self) -> None:
        """Under /-/ a missing, foreign or wrong credential is refused as in the path."""
        proxy, bearer = self.start_proxy(), f"Authorization: Bearer {self.token('vm')}"
        for target, headers, status, slug in (
            ("/-/vm", [], 401, "bad-token"),
            ("/-/vm", ["Authorization: Basic dTpw"], 401, "bad-token"),
            ("/-/vm", ["Authorization: Bearer"], 401, "bad-token"),
            ("/-/vm", ["Authorization: Bearer x"], 401, "bad-token"),
            ("/-/other", [bearer], 403, "forbidden"),
            ("/-/lab-2/vm", [bearer], 403, "forbidden"),
            ("/-/vm", [bearer, bearer], 400, "bad-request"),
            ("/-/vm", [bearer, "Authorization: Basic dTpw"], 400, "bad-request"),
            (f"/{self.token('vm')}/vm", [bearer], 400, "bad-request"),
            (f"/{self.token('vm')}/vm", ["Authorization: Bearer x"], 400, "bad-request"),
            ("/-/LAB/vm", [bearer], 400, "bad-request"),
        ):
            with self.subTest(target=target[:12], headers=len(headers), slug=slug):
                client = self.ask(proxy, target, *headers)
                self.assert_http(client, status, slug, 4000 + status)
                if status == 401:
                    self.assertEqual(client.header("www-authenticate"), "Bearer")
        self.assertEqual(self.api.connections, 0)

    def test_foreign_credential_beside_the_path(self) -> None:
        """A password for a server in front of the proxy is no second token, and does not go upstream."""
        self.assert_opens(self.start_proxy(), f"/{self.token('vm')}/vm", "Authorization: Basic dTpw")
        self.assertEqual(self.api.requests[0].values("authorization"), [f"Bearer {self.api.token}"])


class Endpoints(RefusalTestCase):
    """Requests that ask for no upgrade."""

    def http(self, proxy: RunningProxy, method: str, target: str, *headers: str) -> RawClient:
        lines = [f"{method} {target} HTTP/1.1", "Host: proxy", *headers, "", ""]
        return self.ask(proxy, "", request="\r\n".join(lines).encode())

    def test_healthz(self) -> None:
        """healthz answers 200, with the prefix and without it, to GET and HEAD."""
        for prefix in (None, "ws_proxy", "a/b"):
            proxy = self.start_proxy(host_path_prefix=prefix)
            for target in ("/healthz", "//healthz/", "/healthz?x=1", f"/{prefix or ''}/healthz"):
                with self.subTest(prefix=prefix, target=target):
                    client = self.http(proxy, "GET", target)
                    self.assertEqual((client.status, self.body(client)), (200, b"ok\n"))
                    client = self.http(proxy, "HEAD", target)
                    self.assertEqual((client.status, self.body(client)), (200, b""))
                    self.assertEqual(client.header("content-length"), "3")
        self.assertEqual(self.api.connections, 0)

    def test_healthz_by_http_1_0(self) -> None:
        """An old health checker without a Host header is answered."""
        client = self.ask(self.start_proxy(), "", request=b"GET /healthz HTTP/1.0\r\n\r\n")
        self.assertEqual(client.status, 200)

    def test_end(self) -> None:
        """After the answer the connection ends in good order, with TLS too."""
        client = self.http(self.start_proxy(), "GET", "/healthz")
        self.assertTrue(client.wait_for_end())

    def test_other_methods(self) -> None:
        """Other methods are 405 with what is allowed."""
        proxy = self.start_proxy()
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            with self.subTest(method=method):
                client = self.http(proxy, method, "/healthz")
                self.assert_http(client, 405, "method-not-allowed", None)
                self.assertEqual(client.header("allow"), "GET, HEAD")

    def test_body(self) -> None:
        """A GET with a body is 400."""
        self.assert_http(
            self.http(self.start_proxy(), "GET", "/healthz", "Content-Length: 3"), 400, "bad-request", 4400
        )

    def test_other_pages(self) -> None:
        """Everything else is 404; a token in such a path is in no answer."""
        proxy, token = self.start_proxy(), self.token("vm")
        for target in ("/", "/index.html", f"/{token}/vm", "/healthz/x", "/-/vm", "/x/healthz"):
            with self.subTest(target=target.replace(token, "TOKEN")):
                body = self.assert_http(self.http(proxy, "GET", target), 404, "not-found", 4404)
                self.assertNotIn(token, json.dumps(body))
                client = self.http(proxy, "HEAD", target)
                self.assertEqual((client.status, self.body(client)), (404, b""))
        self.assertEqual(self.api.connections, 0)

    def test_upgrade_does_not_reach_an_endpoint(self) -> None:
        """An upgrade request for an endpoint is no session route."""
        client = self.ask(self.start_proxy(), "/healthz")
        self.assert_http(client, 404, "not-found", 4404)


class TableOverTLS(Table):
    """The same to clients that come by TLS."""

    client_tls = True


class ByHTTPOnlyOverTLS(ByHTTPOnly):
    client_tls = True


class HostileHeadsOverTLS(HostileHeads):
    client_tls = True


class EndpointsOverTLS(Endpoints):
    client_tls = True


class RefusersConversation(LeakTestCase):
    """The refuser itself: what a client does in the conversation, and what nothing raises yet."""

    def setUp(self) -> None:
        super().setUp()
        ours, theirs = socket.socketpair()
        self.transport, self.peer = PlainTransport(ours), theirs
        self.peer.settimeout(60)
        self.addCleanup(self.transport.close)
        self.addCleanup(self.peer.close)

    def upgrade(self, *headers: str) -> Upgrade:
        head = HeadReader().feed(RawClient.request("/x/vm", [_ORIGIN, *headers]))
        assert head is not None
        return Upgrade(head)

    def refuse(
        self,
        refused: Refused,
        sent: Sequence[bytes] = (),
        *,
        mode: str = "auto",
        upgrade: Upgrade | None = None,
        rfb_route: bool = False,
    ) -> bytes:
        """Let a client that sends ``sent`` and then ends be refused, and return what it got."""
        for part in sent:
            self.peer.sendall(part)
        self.peer.shutdown(socket.SHUT_WR)
        Refuser(mode).refuse(self.transport, refused, upgrade, Deadline(5), rfb_route=rfb_route)
        self.transport.close()
        got = b""
        while part := self.peer.recv(65536):
            got += part
        return got

    def test_limits_and_busy(self) -> None:
        """A limit, a full and a draining proxy carry their status, slug and Retry-After."""
        for refused, status, code, slug in (
            (LimitExceeded("sessions", "too many", retry_after=7), 429, 4429, "limit-sessions"),
            (Busy("full", retry_after=7), 503, 4503, "busy"),
            (Draining("stopping", retry_after=7), 503, 4503, "draining"),
        ):
            with self.subTest(slug=slug):
                head, _, body = self.refuse(refused).partition(b"\r\n\r\n")
                self.assertIn(b"\r\nRetry-After: 7\r\n", head + b"\r\n")
                self.assertEqual(head.split()[1], str(status).encode())
                told = json.loads(body)
                self.assertEqual((told["code"], told["reason"]), (code, slug))
                self.renew_sockets()

    def renew_sockets(self) -> None:
        ours, theirs = socket.socketpair()
        self.peer.close()
        self.transport, self.peer = PlainTransport(ours), theirs
        self.peer.settimeout(60)
        self.addCleanup(self.transport.close)
        self.addCleanup(self.peer.close)

    def test_binary_is_answered(self) -> None:
        """An old noVNC that insists on ``binary`` gets it, so that it can read the refusal."""
        upgrade = self.upgrade("Sec-WebSocket-Protocol: binary")
        got = self.refuse(Busy("full"), upgrade=upgrade)
        self.assertIn(b"sec-websocket-protocol: binary", got.lower())

    def test_version_in_pieces(self) -> None:
        """The viewer's version may come in pieces, with pings between."""
        pieces = [b"\x82\x85\0\0\0\0RFB 0", b"\x89\x82\0\0\0\0hi", b"\x82\x87\0\0\0\x0003.008\n"]
        got = self.refuse(Busy("full"), pieces, upgrade=self.upgrade(), rfb_route=True)
        _, _, frames = got.partition(b"\r\n\r\n")
        self.assertTrue(frames.startswith(b"\x82\x0cRFB 003.008\n"), frames)
        self.assertIn(b"\x8a\x02hi", frames)
        self.assertIn(b"\x82\x09\0\0\0\0\x04full", frames)
        self.assertTrue(frames.endswith(b"\x88\x0c" + (4503).to_bytes(2, "big") + b"busy: full"), frames)

    def test_flood_in_the_conversation(self) -> None:
        """The conversation ends when the client has sent 4 KiB; of the pings in one read one is answered."""
        ping = b"\x89\xfd\0\0\0\0" + bytes(125)
        got = self.refuse(Busy("full"), [ping * 100], upgrade=self.upgrade(), rfb_route=True)
        self.assertEqual(got.count(b"\x8a\x7d"), 1)
        self.assertNotIn(b"\x04full", got)
        self.assertTrue(got.endswith(b"busy: full"), got[-50:])

    def test_viewer_that_leaves(self) -> None:
        """A viewer that leaves, closes or breaks the protocol before its version ends the conversation."""
        for sent in ([], [b"\x88\x82\0\0\0\0\x03\xe8"], [b"\xff\xff\xff"], [b"\x82\x01x"]):
            with self.subTest(sent=sent):
                got = self.refuse(Busy("full"), sent, upgrade=self.upgrade(), rfb_route=True)
                self.assertIn(b" 101 ", got)
                self.assertNotIn(b"\x04full", got)
                self.renew_sockets()

    def test_silent_viewer(self) -> None:
        """A viewer that says nothing is given up after the conversation's time."""
        with mock.patch.object(refusal, "_CONVERSATION_SECONDS", 0.2):
            Refuser("auto").refuse(self.transport, Busy("full"), self.upgrade(), Deadline(5), rfb_route=True)

    def test_conversations_are_capped(self) -> None:
        """When too many conversations are held, the next browser is told by HTTP."""
        refuser = Refuser("close")
        refuser._conversations = threading.BoundedSemaphore(1)
        with refuser._conversations:
            self.peer.shutdown(socket.SHUT_WR)
            refuser.refuse(self.transport, Busy("full"), self.upgrade(), Deadline(5))
        self.assertTrue(self.peer.recv(65536).startswith(b"HTTP/1.1 503 "))
        self.assertTrue(refuser._conversations.acquire(blocking=False), "the slot was given back")

    def test_slot_is_given_back(self) -> None:
        """A conversation that fails gives its slot back."""
        refuser = Refuser("close")
        refuser._conversations = threading.BoundedSemaphore(1)
        failure = mock.patch.object(self.transport, "send", side_effect=TimeoutError("deadline passed"))
        with failure, self.assertRaises(TimeoutError):
            refuser.refuse(self.transport, Busy("full"), self.upgrade(), Deadline(5))
        self.assertTrue(refuser._conversations.acquire(blocking=False))


if __name__ == "__main__":
    unittest.main()
