"""The named HTTP endpoints, without I/O; end to end they are in ``test_refusals`` and ``test_access``."""

from __future__ import annotations

import json
import math
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support.jws import signed_token
from wsproxy.config import Config
from wsproxy.exceptions import (
    BadRequest,
    BadToken,
    ContentTooLarge,
    Forbidden,
    LengthRequired,
    LimitExceeded,
    MethodNotAllowed,
    NotFound,
    Refused,
    TokenExpired,
    UnsupportedMediaType,
)
from wsproxy.protocol.client import Client, Peer
from wsproxy.protocol.request import HeadReader, RequestHead
from wsproxy.runtime.deadline import Deadline
from wsproxy.server.gateway import Gateway
from wsproxy.state.limits import AddressSlot
from wsproxy.telemetry.record import SessionRecord
from wsproxy.testing.case import SECRET
from wsproxy.tokens.issue import make_token
from wsproxy.web.endpoints import HTTPRequest, answer

PAGE = "https://console.example"
OWN = "http://proxy"

RECORD = SessionRecord("0", "192.0.2.1:1")


def parsed(line: str, *headers: str) -> RequestHead:
    head = HeadReader().feed("\r\n".join([f"{line} HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1"))
    assert head is not None
    return head


def made_gateway(**options: Any) -> Gateway:
    return Gateway(Config(remote_url="ws://127.0.0.1:9", local_dev_mode=True, secret_key=SECRET, **options))


def unread(most: int) -> bytes:
    raise AssertionError("the body is read")


def made_request(
    gateway: Gateway, head: RequestHead, read_body: Callable[[int], bytes] = unread, asked: str = ""
) -> HTTPRequest:
    client = Client(Peer.at("192.0.2.1", 1), asked=asked)
    slot = AddressSlot(gateway.limits, client.network)
    return HTTPRequest(head, client, Deadline(10), read_body, RECORD, slot, gateway.in_flight, [])


class ReadyStub:
    """Is ready, or not, and remembers being asked."""

    def __init__(self, is_ready: bool = True) -> None:
        self.answer = is_ready
        self.asked = 0

    def is_ready(self, deadline: Deadline) -> bool:
        self.asked += 1
        return self.answer


def ask(
    line: str,
    *headers: str,
    prefix: tuple[str, ...] = (),
    gateway: Gateway | None = None,
    ready: ReadyStub | None = None,
) -> bytes:
    """Ask an endpoint that needs no body."""
    gateway = gateway or made_gateway(host_path_prefix="/".join(prefix))
    request = made_request(gateway, parsed(line, *headers))
    return answer(
        request,
        gateway.config.endpoint_rules,
        gateway.access,
        ready or ReadyStub(),
        gateway.files,
        gateway.pictures,
    )


def split(response: bytes) -> tuple[str, list[str], bytes]:
    """Return status line, header lines and body."""
    lines, _, body = response.partition(b"\r\n\r\n")
    first, *headers = lines.decode().split("\r\n")
    return first, headers, body


class Readyz(unittest.TestCase):
    def test_says_only_ok_or_not(self) -> None:
        """A proxy that is ready says ok, another one that it is not, with 503; nothing else is said."""
        for is_ready, status, said in (
            (True, "200 OK", b"ok\n"),
            (False, "503 Service Unavailable", b"not ready\n"),
        ):
            first, _, body = split(ask("GET /readyz", ready=ReadyStub(is_ready)))
            self.assertEqual((first, body), (f"HTTP/1.1 {status}", said))

    def test_asks_only_for_a_request_that_is_in_order(self) -> None:
        """Finding out may cost a request to the API: a wrong method is refused before, healthz never asks."""
        ready = ReadyStub(False)
        with self.assertRaises(MethodNotAllowed):
            ask("POST /readyz", ready=ready)
        self.assertTrue(ask("GET /a/healthz", prefix=("a",), ready=ready).startswith(b"HTTP/1.1 200 "))
        self.assertEqual(ready.asked, 0)
        ask("HEAD /readyz", ready=ready)
        self.assertEqual(ready.asked, 1)


class Healthz(unittest.TestCase):
    def test_get(self) -> None:
        """GET gets a whole response that closes the connection and may not be kept."""
        first, headers, body = split(ask("GET /healthz"))
        self.assertEqual((first, body), ("HTTP/1.1 200 OK", b"ok\n"))
        for header in ("Content-Length: 3", "Connection: close", "Cache-Control: no-store"):
            self.assertIn(header, headers)

    def test_head(self) -> None:
        """HEAD gets the headers of GET and no body."""
        get, bare = (ask(f"{method} /healthz") for method in ("GET", "HEAD"))
        self.assertEqual(bare + b"ok\n", get)

    def test_with_and_without_prefix(self) -> None:
        """An endpoint answers under the prefix and without it, for probes that know none."""
        for target in ("/healthz", "/a/b/healthz", "//a/b//healthz/?x=1"):
            self.assertTrue(ask(f"GET {target}", prefix=("a", "b")).startswith(b"HTTP/1.1 200 "))
        for target in ("/b/healthz", "/a/healthz", "/a/b", "/"):
            with self.subTest(target=target), self.assertRaises(NotFound):
                ask(f"GET {target}", prefix=("a", "b"))

    def test_path_comes_before_method_and_body(self) -> None:
        """What does not exist is 404 for every method; what exists is 405, and only then 400."""
        with self.assertRaises(NotFound):
            ask("POST /x", "Content-Length: 1")
        with self.assertRaises(MethodNotAllowed):
            ask("POST /healthz", "Content-Length: 1")
        with self.assertRaises(BadRequest):
            ask("GET /healthz", "Content-Length: 1")
        ask("GET /healthz", "Content-Length: 0")

    def test_malformed_target(self) -> None:
        """A target that is no path is 400."""
        for target in ("*", "http://elsewhere/healthz", "/%68ealthz", "/../healthz"):
            with self.subTest(target=target), self.assertRaises(BadRequest):
                ask(f"GET {target}")

    def test_no_tickets(self) -> None:
        """Where tickets are switched off, there is no such endpoint."""
        for method in ("POST", "OPTIONS", "GET"):
            with self.assertRaises(NotFound):
                ask(f"{method} /ticket")


class Grant(unittest.TestCase):
    """What the console page is told of its token."""

    def setUp(self) -> None:
        self.options: dict[str, Any] = {"console_page": True, "host_path_prefix": "a/b"}

    def grant(
        self,
        *headers: str,
        method: str = "GET",
        target: str = "/a/b/console/grant",
        token: str | None = None,
        **claims: Any,
    ) -> bytes:
        """Ask with a token, by default a good one."""
        claims = {"namespace": "lab-1", "vmis": ("vm", "two"), "expires_in": 60, **claims}
        bearer = f"Authorization: Bearer {token or make_token(SECRET, **claims)}"
        return ask(f"{method} {target}", bearer, *headers, gateway=made_gateway(**self.options))

    def test_grant(self) -> None:
        """It says who it is, what may be opened, how long; nobody may keep it, no other page read it."""
        first, headers, body = split(self.grant(user="ada"))
        self.assertEqual(first, "HTTP/1.1 200 OK")
        self.assertIn("Content-Type: application/json", headers)
        self.assertIn("Cache-Control: no-store", headers)
        self.assertNotIn("Access-Control", "".join(headers))
        found = json.loads(body)
        self.assertTrue(50 < found.pop("expires_in") <= 60)
        self.assertEqual(
            found,
            {
                "user": "ada",
                "namespace": "lab-1",
                "vmis": ["vm", "two"],
                "grace": 0,
                "subresources": ["vnc"],
                "screenshots": False,
            },
        )

    def test_without_end(self) -> None:
        """A token that does not expire, and sessions that outlive it for ever, have no number of seconds."""
        self.options |= {"allow_eternal_tokens": True, "grace": math.inf}
        claims = {"id": 1, "lab_instance": {"namespace_name": "lab-1", "allowed_vmi_names": ["vm"]}}
        found = json.loads(split(self.grant(token=signed_token(claims, SECRET)))[2])
        self.assertEqual((found["expires_in"], found["grace"]), (None, None))
        self.options["grace"] = 30.0
        self.assertEqual(json.loads(split(self.grant())[2])["grace"], 30)

    def test_subresources(self) -> None:
        """The subresource that is opened by default comes first."""
        self.options["subresources"] = ("console", "usbredir", "vnc", "a")
        found = json.loads(split(self.grant())[2])
        self.assertEqual(found["subresources"], ["vnc", "a", "console", "usbredir"])

    def test_refused(self) -> None:
        """Without a valid token in the header nothing is said, wherever else one stands."""
        gateway, token = made_gateway(**self.options), make_token(SECRET, namespace="lab-1", vmis=("vm",))
        for headers in (
            [],
            ["Authorization: Bearer x"],
            [f"Authorization: Bearer {token[:-4]}AAAA"],
            [f"Cookie: wsproxy_token={token}"],
            [f"Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{token}"],
        ):
            with self.subTest(headers=headers), self.assertRaises(BadToken):
                ask(f"GET /a/b/console/grant?token={token}", *headers, gateway=gateway)
        with self.assertRaises(TokenExpired):
            self.grant(expires_in=-5)

    def test_pages(self) -> None:
        """Where the pages are limited, another page is refused before its token is looked at."""
        self.options["allow_origin"] = (PAGE,)
        self.grant(f"Origin: {PAGE}")
        with self.assertRaises(Forbidden):
            self.grant("Origin: https://evil.example", expires_in=-5)

    def test_methods(self) -> None:
        """It is read and nothing else; HEAD gets no body."""
        whole, head = split(self.grant()), split(self.grant(method="HEAD"))
        self.assertEqual((head[0], head[2]), (whole[0], b""))
        for method in ("POST", "PUT", "OPTIONS"):
            with self.assertRaises(MethodNotAllowed) as caught:
                self.grant(method=method)
            self.assertIn(("Allow", "GET, HEAD"), caught.exception.headers)
        with self.assertRaises(BadRequest):
            self.grant("Content-Length: 1")

    def test_off(self) -> None:
        """Without the page there is no such endpoint."""
        self.options = {"tickets": True}
        with self.assertRaises(NotFound):
            self.grant(target="/console/grant")


class Files(unittest.TestCase):
    """Files beside the endpoints; which there are is in ``test_web_files``."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        for name in ("index.html", "healthz", "vnc.html", "ticket"):
            Path(directory.name, name).write_text(name, encoding="ascii")
        self.options = {"web": directory.name, "console_page": True}

    def body(self, line: str, **options: Any) -> bytes:
        return split(ask(line, gateway=made_gateway(**self.options, **options)))[2]

    def test_endpoints_come_first(self) -> None:
        """A file that is called as an endpoint is not seen, unless that is switched off."""
        self.assertEqual(self.body("GET /healthz"), b"ok\n")
        self.assertEqual(self.body("GET /ticket"), b"ticket")
        with self.assertRaises(MethodNotAllowed):
            self.body("GET /ticket", tickets=True)

    def test_below_the_prefix_only(self) -> None:
        """Files are below the prefix; endpoints answer without it, too."""
        self.assertEqual(self.body("GET /a/b/vnc.html", host_path_prefix="a/b"), b"vnc.html")
        self.assertEqual(self.body("GET /a/b/", host_path_prefix="a/b"), b"index.html")
        redirect = ask("GET /a/b", gateway=made_gateway(**self.options, host_path_prefix="a/b"))
        self.assertIn(b"\r\nLocation: b/\r\n", redirect)
        for target in ("/vnc.html", "/", "/a/vnc.html", "//a/b/vnc.html", "/console/", "/a/b/a/b/vnc.html"):
            with self.subTest(target), self.assertRaises(NotFound):
                self.body(f"GET {target}", host_path_prefix="a/b")

    def test_nothing_there(self) -> None:
        """What is not there is 404 for every method, and says what a console's path is; it is not quoted."""
        for method in ("GET", "POST", "PUT"):
            with self.assertRaises(NotFound) as caught:
                self.body(f"{method} /no-such-file")
            self.assertIn("/TOKEN/VMI", str(caught.exception))
            self.assertNotIn("no-such-file", str(caught.exception))


class TicketCase(unittest.TestCase):
    def setUp(self) -> None:
        self.options: dict[str, Any] = {"tickets": True, "subresources": ("console",)}
        self.gateway: Gateway | None = None

    def token(self, *vmis: str, **claims: Any) -> str:
        return make_token(SECRET, namespace="lab-1", vmis=vmis or ("vm",), **claims)

    def post(
        self,
        body: bytes | object,
        *headers: str,
        token: str | None = None,
        content_type: str = "application/json",
        length: str | None = None,
        read: Callable[[RequestHead, bytes, int], bytes] | None = None,
    ) -> bytes:
        """Post a body, JSON of whatever is no bytes, and return the response."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        fixed = [f"Authorization: Bearer {token or self.token()}", f"Content-Type: {content_type}"]
        head = parsed("POST /ticket", *fixed, length or f"Content-Length: {len(raw)}", *headers)

        def read_body(most: int) -> bytes:
            self.assertLessEqual(head.body_size(most), 4096)
            return raw

        self.gateway = self.gateway or made_gateway(**self.options)
        request = made_request(self.gateway, head, read_body, OWN)
        return answer(
            request,
            self.gateway.config.endpoint_rules,
            self.gateway.access,
            ReadyStub(),
            self.gateway.files,
            self.gateway.pictures,
        )

    def refused(self, body: bytes | object, *headers: str, **options: Any) -> Refused:
        with self.assertRaises(Refused) as caught:
            self.post(body, *headers, **options)
        return caught.exception


class Ticket(TicketCase):
    def test_created(self) -> None:
        """A good token gets a ticket, the path to open, and how long it is good for; nobody may keep it."""
        self.options["host_path_prefix"] = "a/b"
        first, headers, body = split(self.post({"vmi": "vm"}))
        self.assertEqual(first, "HTTP/1.1 201 Created")
        found = json.loads(body)
        self.assertRegex(found["ticket"], r"\A[A-Za-z0-9_-]{22}\Z")
        self.assertEqual(
            found, {"ticket": found["ticket"], "path": f"/a/b/{found['ticket']}/vm", "expires_in": 30}
        )
        for header in ("Content-Type: application/json", "Cache-Control: no-store", "Vary: Origin"):
            self.assertIn(header, headers)
        self.assertNotIn("Access-Control", "".join(headers))

    def test_path_with_subresource(self) -> None:
        """A ticket for another subresource opens the path that names it."""
        found = json.loads(split(self.post({"vmi": "vm", "subresource": "console"}))[2])
        self.assertEqual(found["path"], f"/{found['ticket']}/vm/console")

    def test_short_lived_token(self) -> None:
        """A ticket is never good for longer than its token."""
        found = json.loads(split(self.post({"vmi": "vm"}, token=self.token(expires_in=5)))[2])
        self.assertIn(found["expires_in"], (4, 5))

    def test_methods(self) -> None:
        """Everything but POST and OPTIONS is 405."""
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            with self.subTest(method), self.assertRaises(MethodNotAllowed) as caught:
                ask(f"{method} /ticket", gateway=made_gateway(tickets=True))
            self.assertIn(("Allow", "POST, OPTIONS"), caught.exception.headers)

    def test_token_comes_first(self) -> None:
        """Without a valid token nothing of the body is read."""
        gateway = made_gateway(tickets=True)
        for headers in ([], ["Authorization: Basic dTpw"], ["Authorization: Bearer x"]):
            with self.subTest(headers=headers), self.assertRaises(BadToken) as caught:
                ask("POST /ticket", *headers, "Content-Length: 9999999", gateway=gateway)
            self.assertIn(("WWW-Authenticate", "Bearer"), caught.exception.headers)
        two = ["Authorization: Bearer x"] * 2
        with self.assertRaises(BadRequest):
            ask("POST /ticket", *two, gateway=gateway)

    def test_no_other_credential_counts(self) -> None:
        """A cookie, which any page could make a browser send, gets no ticket, whatever is switched on."""
        gateway = made_gateway(
            tickets=True, credentials=("cookie", "query", "subprotocol"), allow_origin=(PAGE,)
        )
        with self.assertRaises(BadToken):
            ask(
                f"POST /ticket?token={self.token()}", f"Cookie: wsproxy_token={self.token()}", gateway=gateway
            )

    def test_media_type(self) -> None:
        """The body is JSON and says so; a browser asks before it sends that to another host."""
        self.post({"vmi": "vm"}, content_type="Application/JSON; charset=utf-8")
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "", "application/json-seq"):
            with self.subTest(content_type):
                self.assertIsInstance(
                    self.refused({"vmi": "vm"}, content_type=content_type), UnsupportedMediaType
                )
        twice = self.refused({"vmi": "vm"}, "Content-Type: text/plain")
        self.assertEqual((twice.status, twice.slug), (415, "unsupported-media-type"))

    def test_length(self) -> None:
        """The body's length is said once, in digits, and is at most 4 KiB."""
        self.post(b'{"vmi": "vm"}' + b" " * (4096 - 13))
        for length, error in (
            ("X: y", LengthRequired),
            ("Transfer-Encoding: chunked", LengthRequired),
            ("Content-Length: 0", BadRequest),
            ("Content-Length: 4097", ContentTooLarge),
            (f"Content-Length: {'9' * 19}", ContentTooLarge),
            ("Content-Length: 13\r\nTransfer-Encoding: chunked", BadRequest),
        ):
            with self.subTest(length):
                self.assertIs(type(self.refused(b'{"vmi": "vm"}', length=length)), error)

    def test_body(self) -> None:
        """What is no JSON object of the known members, each of them once, is 400."""
        for body in (
            b"",
            b"{",
            b'{"vmi": "vm"}}',
            b"[]",
            b'["vm"]',
            b'"vmi"',
            b"5",
            b"NaN",
            b"null",
            b"\xff\xfe{\x00}\x00",
            b'\xef\xbb\xbf{"vmi": "vm"}',
            b'{"vmi": "v\xffm"}',
            b"{}",
            b'{"vmi": "vm", "vmi": "vm"}',
            b'{"vmi": "vm", "admin": "true"}',
            b'{"vmi": null}',
            b'{"vmi": ["vm"]}',
            b'{"vmi": {"vmi": "vm"}}',
            b'{"vmi": "vm", "namespace": null}',
            b'{"vmi": "vm", "namespace": "Lab_1"}',
            b'{"vmi": "../vm"}',
            b'{"vmi": ""}',
            b'{"vmi": "vm/vnc"}',
            b'{"a":' * 600 + b"1" + b"}" * 600,
            b"[" * 4000,
            b'{"vmi": ' + b"9" * 4000 + b"}",
        ):
            with self.subTest(body[:40]):
                self.assertIs(type(self.refused(body)), BadRequest)

    def test_nesting(self) -> None:
        """What nests deep is refused before it is parsed: the parser recurses."""
        with mock.patch("wsproxy.web.endpoints.json") as parser:
            for body in (b"[" * 4000, b'{"vmi":' * 9):
                self.assertIs(type(self.refused(body)), BadRequest)
        parser.loads.assert_not_called()

    def test_what_the_token_does_not_allow(self) -> None:
        """Another VMI or namespace is 403, a subresource that is not enabled 404."""
        self.assertIsInstance(self.refused({"vmi": "other"}), Forbidden)
        self.assertIsInstance(self.refused({"vmi": "vm", "namespace": "lab-2"}), Forbidden)
        self.assertIsInstance(self.refused({"vmi": "vm", "subresource": "usbredir"}), NotFound)
        self.post({"vmi": "vm", "namespace": "lab-1", "subresource": "vnc"})

    def test_origin(self) -> None:
        """A page is bound by its Origin header; who sends none may name the page, who sends one may not."""
        self.post({"vmi": "vm", "origin": PAGE})
        self.post({"vmi": "vm", "origin": "http://[::1]:8080"})
        self.post({"vmi": "vm", "origin": PAGE}, f"Origin: {PAGE}")
        other = self.refused({"vmi": "vm", "origin": "https://evil.example"}, f"Origin: {PAGE}")
        self.assertIsInstance(other, BadRequest)
        for origin in ("null", "console.example", "*"):
            self.assertIsInstance(self.refused({"vmi": "vm", "origin": origin}), Forbidden)
            self.assertIsInstance(self.refused({"vmi": "vm"}, f"Origin: {origin}"), Forbidden)
        self.assertIsInstance(self.refused({"vmi": "vm"}, f"Origin: {PAGE}", f"Origin: {PAGE}"), BadRequest)

    def test_limit(self) -> None:
        """A user with too many tickets is told when to come again."""
        for _ in range(16):
            self.post({"vmi": "vm"})
        refused = self.refused({"vmi": "vm"})
        self.assertIsInstance(refused, LimitExceeded)
        self.assertEqual((refused.status, refused.slug), (429, "limit-tickets"))
        self.assertIn(("Retry-After", "30"), refused.headers)
        self.post({"vmi": "vm"}, token=self.token(user="somebody else"))

    def test_nothing_of_the_token_is_told(self) -> None:
        """Neither the log line nor a refusal holds the token or the ticket."""
        token = self.token()
        with self.assertLogs("wsproxy", "DEBUG") as logs:
            ticket = json.loads(split(self.post({"vmi": "vm"}, token=token))[2])["ticket"]
        (line,) = logs.output
        self.assertRegex(line, r"ticket issued: client 192\.0\.2\.1:1 user 0 vmi lab-1/vm vnc\Z")
        self.assertNotIn(ticket, line)
        self.assertNotIn(token[-20:], line)


class CORS(TicketCase):
    """What a script of a page may do with the endpoint (Fetch standard, section 3.2)."""

    def setUp(self) -> None:
        super().setUp()
        self.options["allow_origin"] = (PAGE,)

    def preflight(self, *headers: str) -> list[str]:
        head = parsed("OPTIONS /ticket", *headers)
        gateway = made_gateway(**self.options)
        request = made_request(gateway, head, asked=OWN)
        first, lines, body = split(
            answer(
                request,
                gateway.config.endpoint_rules,
                gateway.access,
                ReadyStub(),
                gateway.files,
                gateway.pictures,
            )
        )
        self.assertEqual((first, body), ("HTTP/1.1 200 OK", b""))
        self.assertIn("Vary: Origin", lines)
        self.assertIn("Allow: POST, OPTIONS", lines)
        return [line for line in lines if line.startswith("Access-Control")]

    def test_preflight(self) -> None:
        """A preflight of an allowed page is answered with its origin, as it was sent."""
        for origin in (PAGE, "HTTPS://Console.example:443", "http://proxy"):
            self.assertEqual(
                self.preflight(f"Origin: {origin}", "Access-Control-Request-Method: POST"),
                [
                    f"Access-Control-Allow-Origin: {origin}",
                    "Access-Control-Allow-Methods: POST",
                    "Access-Control-Allow-Headers: Authorization, Content-Type",
                    "Access-Control-Max-Age: 600",
                ],
            )

    def test_preflight_of_others(self) -> None:
        """That of any other page is refused, and one of no page answered without a word on pages."""
        for origin in ("https://evil.example", "null", "http://console.example", f"{PAGE}.evil.example"):
            with self.subTest(origin), self.assertRaises(Forbidden) as caught:
                self.preflight(f"Origin: {origin}")
            self.assertEqual(caught.exception.headers, (("Vary", "Origin"),))
        self.assertEqual(self.preflight(), [])

    def test_no_list(self) -> None:
        """Without a list only pages of the proxy's own host may read the answer."""
        self.options["allow_origin"] = None
        self.assertEqual(len(self.preflight("Origin: http://proxy")), 4)
        with self.assertRaises(Forbidden):
            self.preflight(f"Origin: {PAGE}")
        self.assertNotIn(b"Access-Control", self.post({"vmi": "vm"}, f"Origin: {PAGE}"))

    def test_post(self) -> None:
        """The answer to an allowed page names it, without credentials; another page is refused unread."""
        _, headers, _ = split(self.post({"vmi": "vm"}, f"Origin: {PAGE}"))
        self.assertIn(f"Access-Control-Allow-Origin: {PAGE}", headers)
        self.assertNotIn("Access-Control-Allow-Credentials", "".join(headers))
        refused = self.refused({"vmi": "vm"}, "Origin: https://evil.example")
        self.assertIsInstance(refused, Forbidden)
        self.assertEqual(refused.headers, (("Vary", "Origin"),))

    def test_refusals_can_be_read(self) -> None:
        """An allowed page may read why it is refused."""
        for refused in (
            self.refused({"vmi": "other"}, f"Origin: {PAGE}"),
            self.refused({"vmi": "vm"}, f"Origin: {PAGE}", token="x"),
            self.refused(b"", f"Origin: {PAGE}"),
        ):
            self.assertIn(("Access-Control-Allow-Origin", PAGE), refused.headers)
            self.assertIn(("Vary", "Origin"), refused.headers)


if __name__ == "__main__":
    unittest.main()
