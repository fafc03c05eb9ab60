"""Who may come in, end to end: where the token stands, which page asks, tickets, and the embedder's hook."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import socket
import sys
import threading
import unittest
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from queue import SimpleQueue
from typing import Any
from unittest import mock

from wsproxy import AccessRequest, Forbidden, Grant, WebsocketProxy
from wsproxy.config import Config
from wsproxy.exceptions import Refused
from wsproxy.net.transport import PlainTransport
from wsproxy.protocol.client import Client, Peer
from wsproxy.protocol.handshake import Upgrade
from wsproxy.protocol.request import HeadReader, RequestHead
from wsproxy.runtime.deadline import Deadline
from wsproxy.runtime.wall_clock import unix_time
from wsproxy.server.gateway import Gateway
from wsproxy.server.session import Session
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.tickets import Ticket
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

PAGE = "https://console.example"
FOREIGN = "https://evil.example"
BEARER = "base64url.bearer.authorization.k8s.io."
_WITHIN = 60.0


def base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


class AccessCase(ProxyTestCase):
    """Talks to a proxy, and looks at whether it is let in."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.vmi = self.api.add_vmi("vm", self.namespace)

    def ask(self, proxy: WebsocketProxy, target: str, *headers: str) -> RawClient:
        """Send an upgrade request and read the answer's head."""
        return self.send(proxy, RawClient.request(target, headers))

    def send(self, proxy: WebsocketProxy, request: bytes) -> RawClient:
        client = RawClient(proxy.address)
        self.addCleanup(client.close)
        client.send_raw(request)
        client.read_head()
        return client

    def assert_opens(self, proxy: WebsocketProxy, target: str, *headers: str) -> RawClient:
        """Assert that a session opens, close it, and return its client."""
        client = self.ask(proxy, target, *headers)
        self.assertEqual(client.status, 101, client.head)
        client.send_close(1000)
        self.assertEqual(client.recv_close()[0], 1000)  # an echo: this is a session, and no refusal
        self.assertTrue(client.wait_for_end())
        return client

    def assert_refused(
        self, proxy: WebsocketProxy, status: int, slug: str, target: str, *headers: str
    ) -> str:
        """Assert that a request is refused before anybody is dialled, and return what is said."""
        before = self.api.connections
        client = self.ask(proxy, target, *headers)
        if client.status == 101:  # a page, which cannot see a status
            code, said = self.refusal(client)
            self.assertEqual(code, 4000 + status, said)
            self.assertTrue(said.startswith(f"{slug}: "), said)
            client.close()
        else:
            body = json.loads(client.body())
            self.assertEqual((client.status, body["reason"]), (status, slug), body)
            said = body["message"]
        self.assertEqual(self.api.connections, before)
        return str(said)

    def refusal(self, client: RawClient) -> tuple[int, str]:
        """Return the code and reason that a page is refused with; it speaks RFB, or would be waited for."""
        client.send_frame(BINARY, b"RFB 003.008\n")
        return client.recv_close()

    def post(
        self, proxy: WebsocketProxy, *headers: str, token: str | None = None, **members: Any
    ) -> tuple[int, Any]:
        """Ask for a ticket for vm, and return status and body."""
        body = json.dumps({"vmi": "vm"} | members).encode()
        lines = ["POST /ticket HTTP/1.1", "Host: proxy", f"Authorization: Bearer {token or self.token('vm')}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", ""]
        client = self.send(proxy, "\r\n".join(lines).encode() + body)
        return client.status, json.loads(client.body())

    def ticket(self, proxy: WebsocketProxy, *headers: str, **members: Any) -> str:
        """Get a ticket for vm, and return its path."""
        status, found = self.post(proxy, *headers, **members)
        self.assertEqual(status, 201, found)
        path: str = found["path"]
        return path


class Places(AccessCase):
    """Where a token may stand."""

    def carriers(self) -> dict[str, tuple[str, list[str]]]:
        token = self.token("vm")
        return {
            "path": (f"/{token}/vm", []),
            "header": ("/-/vm", [f"Authorization: Bearer {token}"]),
            "subprotocol": ("/-/vm", [f"Sec-WebSocket-Protocol: {BEARER}{base64url(token)}, binary"]),
            "query": (f"/-/vm?token={token}", []),
            "cookie": ("/-/vm", [f"Cookie: wsproxy_token={token}"]),
        }

    def test_default(self) -> None:
        """By default three places do, under /-/NAMESPACE/VMI as well, and two do not."""
        proxy = self.start_proxy()
        for kind, (target, headers) in self.carriers().items():
            with self.subTest(kind):
                if kind in ("query", "cookie"):
                    self.assert_refused(proxy, 401, "bad-token", target, *headers)
                    continue
                self.assert_opens(proxy, target, *headers)
                if kind != "path":
                    self.assert_opens(proxy, target.replace("/-/", f"/-/{self.namespace}/"), *headers)
                    self.assert_refused(proxy, 403, "forbidden", target.replace("/-/", "/-/lab-2/"), *headers)

    def test_one_each(self) -> None:
        """What is switched on lets in, and nothing else does."""
        carriers = self.carriers()
        for on in carriers:
            proxy = self.start_proxy(credentials=[on], allow_origin=[PAGE])
            for kind, (target, headers) in carriers.items():
                with self.subTest(on=on, kind=kind):
                    if kind == on:
                        self.assert_opens(proxy, target, *headers)
                    else:
                        self.assert_refused(proxy, 401, "bad-token", target, *headers)

    def test_cookie_name(self) -> None:
        """The cookie has the name that it was given."""
        proxy = self.start_proxy(credentials=["cookie"], allow_origin=[PAGE], cookie_name="__Host-jwt")
        token = self.token("vm")
        self.assert_opens(proxy, "/-/vm", f"Cookie: __Host-jwt={token}", f"Origin: {PAGE}")
        self.assert_refused(proxy, 401, "bad-token", "/-/vm", f"Cookie: wsproxy_token={token}")

    def test_two(self) -> None:
        """Two credentials are refused, be they good, bad, or the same twice."""
        proxy = self.start_proxy(
            credentials=["path", "header", "subprotocol", "query", "cookie"], allow_origin=[PAGE]
        )
        carriers = self.carriers()
        for one, (target, headers) in carriers.items():
            for other in ("header", "subprotocol", "cookie"):
                with self.subTest(one=one, other=other):
                    self.assert_refused(proxy, 400, "bad-request", target, *headers, *carriers[other][1])
        self.assert_refused(proxy, 400, "bad-request", f"{carriers['path'][0]}?token=x")
        self.assert_refused(proxy, 400, "bad-request", f"{carriers['query'][0]}&token=")

    def test_malformed(self) -> None:
        """A token that is not encoded as it has to be is refused, not guessed at."""
        proxy, token = self.start_proxy(credentials=["subprotocol", "query"]), self.token("vm")
        for value in (token, f"{base64url(token)}.", base64url(f"{token}\xe4")):
            self.assert_refused(
                proxy, 400, "bad-request", "/-/vm", f"Sec-WebSocket-Protocol: {BEARER}{value}"
            )
        self.assert_refused(proxy, 400, "bad-request", f"/-/vm?token={token}%")
        self.assert_opens(proxy, f"/-/vm?token={token.replace('.', '%2e')}")

    def test_subprotocol_stays_here(self) -> None:
        """A token in a subprotocol goes neither upstream nor back, whatever stands beside it."""
        proxy, encoded = self.start_proxy(), base64url(self.token("vm"))
        for spelling in (BEARER, BEARER.upper()):
            for others, passed, answered in (
                ([], ["plain.kubevirt.io"], None),
                (["binary"], ["binary", "plain.kubevirt.io"], "binary"),
                (["plain.kubevirt.io"], ["plain.kubevirt.io"], "plain.kubevirt.io"),
            ):
                for names in ([f"{spelling}{encoded}", *others], [*others, f"{spelling}{encoded}"]):
                    with self.subTest(spelling=spelling, others=others):
                        before = len(self.api.requests)
                        client = self.assert_opens(
                            proxy, "/-/vm", f"Sec-WebSocket-Protocol: {', '.join(names)}"
                        )
                        request = self.api.requests[before]
                        self.assertEqual(request.tokens("sec-websocket-protocol"), passed)
                        self.assertEqual(client.header("sec-websocket-protocol"), answered)
                        self.assertNotIn(encoded, f"{request.target} {request.headers} {client.head!r}")

    def test_subprotocol_in_refusals(self) -> None:
        """A browser that is refused gets one of the others that it offered, or it could not see why."""
        proxy, encoded = self.start_proxy(), base64url(self.token("other"))
        for others, answered in (
            (["binary"], "binary"),
            (["plain.kubevirt.io"], "plain.kubevirt.io"),
            ([], None),
        ):
            names = ", ".join([f"{BEARER}{encoded}", *others])
            client = self.ask(proxy, "/-/vm", f"Sec-WebSocket-Protocol: {names}", f"Origin: {PAGE}")
            with self.subTest(others):
                self.assertEqual(client.status, 101)
                self.assertEqual(client.header("sec-websocket-protocol"), answered)
                code, reason = self.refusal(client)
                self.assertEqual(code, 4403)
                self.assertNotIn(encoded, f"{client.head!r} {reason}")
            client.close()

    def test_nothing_else_goes_upstream(self) -> None:
        """Neither cookie nor query nor header of the client is seen by the API."""
        proxy = self.start_proxy(credentials=["query", "cookie", "header"], allow_origin=[PAGE])
        for kind in ("query", "cookie", "header"):
            target, headers = self.carriers()[kind]
            before = len(self.api.requests)
            self.assert_opens(proxy, target, *headers, f"Origin: {PAGE}", "X-Forwarded-For: 1.2.3.4")
            request = self.api.requests[before]
            self.assertNotIn("?", request.target)
            for name in ("cookie", "authorization", "origin", "x-forwarded-for"):
                self.assertEqual(request.values(name), [], name)


class CrossSiteWebSocketHijacking(AccessCase):
    """CWE-1385, CVE-2015-0259: a page that the user visits uses what the user's browser sends by itself."""

    def cookie(self, token: str | None = None) -> str:
        return f"Cookie: wsproxy_token={token or self.token('vm')}"

    def proxy(self, **options: Any) -> WebsocketProxy:
        return self.start_proxy(**{"credentials": ["cookie", "header"], "allow_origin": [PAGE]} | options)

    def test_foreign_page_with_a_cookie(self) -> None:
        """A foreign page is refused however it is spelt, before anything is dialled, in every mode."""
        for mode in ("auto", "http", "close"):
            proxy = self.proxy(reject=mode)
            for origin in (
                FOREIGN,
                "null",
                "",
                "http://console.example",
                f"{PAGE}:8443",
                f"{PAGE}.evil.example",
                f"{PAGE}/",
                f"{PAGE} {FOREIGN}",
                "https://evil.example#console.example",
                "https://console.example@evil.example",
            ):
                with self.subTest(mode=mode, origin=origin):
                    self.assert_refused(proxy, 403, "forbidden", "/-/vm", self.cookie(), f"Origin: {origin}")
        self.assertEqual(self.api.connections, 0)

    def test_two_origins(self) -> None:
        """An allowed page does not lend its name to a second Origin header."""
        headers = [f"Origin: {PAGE}", f"Origin: {FOREIGN}"]
        self.assert_refused(self.proxy(), 400, "bad-request", "/-/vm", self.cookie(), *headers)

    def test_own_pages(self) -> None:
        """An allowed page gets in, as does one of the proxy's own host, and a client that is no browser."""
        proxy = self.proxy()
        for origin in (PAGE, "HTTPS://console.example:443", "http://proxy"):
            self.assert_opens(proxy, "/-/vm", self.cookie(), f"Origin: {origin}")
        self.assert_opens(proxy, "/-/vm", self.cookie())

    def test_foreign_page_learns_nothing(self) -> None:
        """A foreign page is told the same whether its visitor is logged in or not."""
        proxy, told = self.proxy(), set()
        for token in (self.token("vm"), self.token("other"), self.token("vm", expires_in=-9), "garbage"):
            told.add(
                self.assert_refused(
                    proxy, 403, "forbidden", "/-/vm", self.cookie(token), f"Origin: {FOREIGN}"
                )
            )
        self.assertEqual(len(told), 1)

    def test_cookie_needs_a_list(self) -> None:
        """A proxy that takes cookies without a list of pages does not start."""
        for allowed in ([], ["*"], [PAGE, "*"]):
            with self.subTest(allowed), self.assertRaisesRegex(ValueError, "allow_origin"):
                self.proxy(allow_origin=allowed)

    def test_requests_do_not_alter_the_list(self) -> None:
        """The Host of a request never joins the list, as it once did in nova."""
        proxy = self.proxy()
        request = RawClient.request("/-/vm", [self.cookie(), f"Origin: http://{FOREIGN[8:]}"])
        for _ in range(2):
            own = self.send(proxy, request.replace(b"Host: proxy", b"Host: evil.example"))
            self.assertEqual(own.status, 101)  # a page of that very host
            own.close()
            self.assert_refused(
                proxy, 403, "forbidden", "/-/vm", self.cookie(), f"Origin: http://{FOREIGN[8:]}"
            )


def parsed(target: str, *headers: str) -> RequestHead:
    head = HeadReader().feed(RawClient.request(target, headers))
    assert head is not None
    return head


class Origins(AccessCase):
    """Which pages may use a token that they have to know."""

    def test_any_page(self) -> None:
        """Without a list a token in path, header or subprotocol, or a ticket, may come from any page."""
        proxy, token = self.start_proxy(tickets=True), self.token("vm")
        for origin in (FOREIGN, "null"):
            self.assert_opens(proxy, f"/{token}/vm", f"Origin: {origin}")
            self.assert_opens(proxy, "/-/vm", f"Authorization: Bearer {token}", f"Origin: {origin}")
            protocol = f"Sec-WebSocket-Protocol: {BEARER}{base64url(token)}"
            self.assert_opens(proxy, "/-/vm", protocol, f"Origin: {origin}")
        self.assert_opens(proxy, self.ticket(proxy, origin=FOREIGN), f"Origin: {FOREIGN}")

    def test_listed_pages(self) -> None:
        """With a list it counts for all of them."""
        proxy, token = self.start_proxy(allow_origin=[PAGE], tickets=True), self.token("vm")
        for origin, status in ((PAGE, 101), ("http://proxy", 101), (FOREIGN, 403), ("null", 403)):
            for target, headers in (
                (f"/{token}/vm", []),
                ("/-/vm", [f"Authorization: Bearer {token}"]),
                ("/-/vm", [f"Sec-WebSocket-Protocol: {BEARER}{base64url(token)}"]),
            ):
                with self.subTest(origin):
                    if status == 101:
                        self.assert_opens(proxy, target, *headers, f"Origin: {origin}")
                    else:
                        self.assert_refused(proxy, status, "forbidden", target, *headers, f"Origin: {origin}")
        self.assert_opens(proxy, self.ticket(proxy, f"Origin: {PAGE}"), f"Origin: {PAGE}")
        self.assert_opens(proxy, f"/{token}/vm")

    def test_ticket_for_a_page_that_is_not_listed(self) -> None:
        """A ticket that names a foreign page is of no use to it."""
        proxy = self.start_proxy(allow_origin=[PAGE], tickets=True)
        path = self.ticket(proxy, origin=FOREIGN)
        self.assert_refused(proxy, 403, "forbidden", path, f"Origin: {FOREIGN}")
        self.assert_refused(proxy, 403, "forbidden", path, f"Origin: {FOREIGN}")
        self.assert_refused(proxy, 401, "bad-token", path)  # it is used up

    def test_required(self) -> None:
        """Where an Origin is required, a client without one is refused; probes are not asked."""
        proxy, target = self.start_proxy(require_origin=True, tickets=True), f"/{self.token('vm')}/vm"
        self.assert_refused(proxy, 403, "forbidden", target)
        self.assert_opens(proxy, target, f"Origin: {FOREIGN}")
        self.assertEqual(self.post(proxy)[0], 403)
        probe = self.send(proxy, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(probe.status, 200)

    def test_unauthenticated_page(self) -> None:
        """An allowed page still needs a token."""
        proxy = self.start_proxy(allow_origin=["*"])
        self.assert_refused(proxy, 401, "bad-token", "/-/vm", f"Origin: {PAGE}")
        self.assert_refused(proxy, 401, "bad-token", "/garbage/vm", f"Origin: {PAGE}")


class HeaderSpoofing(AccessCase):
    """CVE-2025-64484, GHSA-7x63-xv5r-3p2x: headers that only a proxy should set, sent by a client."""

    SPOOFED = (
        "X-Forwarded-For: 198.51.100.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: console.example",
    )

    def opened_by(self, proxy: WebsocketProxy, *headers: str) -> str:
        """Open a session and return how the log names its client."""
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            self.assert_opens(proxy, f"/{self.token('vm')}/vm", *headers)
            proxy.stop_thread()
        return logs.output[0].partition("client ")[2].partition(" user")[0]

    def test_from_anybody(self) -> None:
        """Nobody is believed by default: neither the log nor the page's own host changes."""
        self.assertRegex(self.opened_by(self.start_proxy(), *self.SPOOFED), r"\A127\.0\.0\.1:\d+\Z")
        proxy = self.start_proxy(credentials=["cookie"], allow_origin=["https://other.example"])
        cookie = f"Cookie: wsproxy_token={self.token('vm')}"
        self.assert_refused(proxy, 403, "forbidden", "/-/vm", cookie, *self.SPOOFED, f"Origin: {PAGE}")

    def test_from_a_trusted_proxy(self) -> None:
        """A trusted proxy's word is taken for the client's address, and for the host that it asked for."""
        trusting: dict[str, Any] = {"trusted_proxies": ["10.0.0.0/8", "127.0.0.1"]}
        named = self.opened_by(self.start_proxy(**trusting), *self.SPOOFED)
        self.assertRegex(named, r"\A198\.51\.100\.7 via 127\.0\.0\.1:\d+\Z")
        proxy = self.start_proxy(credentials=["cookie"], allow_origin=["https://other.example"], **trusting)
        cookie = f"Cookie: wsproxy_token={self.token('vm')}"
        self.assert_opens(proxy, "/-/vm", cookie, *self.SPOOFED, f"Origin: {PAGE}")
        self.assert_opens(
            proxy, "/-/vm", cookie, "Forwarded: proto=https;host=console.example", f"Origin: {PAGE}"
        )
        self.assert_refused(proxy, 403, "forbidden", "/-/vm", cookie, f"Origin: {PAGE}")
        self.assert_refused(
            proxy, 403, "forbidden", "/-/vm", cookie, *self.SPOOFED, "Origin: http://console.example"
        )

    def test_through_a_trusted_proxy(self) -> None:
        """What a client wrote itself, before the proxy added its word, does not count."""
        proxy = self.start_proxy(trusted_proxies=["127.0.0.1"])
        named = self.opened_by(proxy, "X-Forwarded-For: 1.1.1.1, 198.51.100.7")
        self.assertRegex(named, r"\A198\.51\.100\.7 via ")

    def test_contradictions(self) -> None:
        """Both kinds of headers, or one that cannot be read, are refused as the bad requests they are."""
        proxy, target = self.start_proxy(trusted_proxies=["127.0.0.1"]), f"/{self.token('vm')}/vm"
        with self.assertLogs("wsproxy.connection", "INFO") as logs:
            self.assert_refused(
                proxy, 400, "bad-request", target, "Forwarded: for=198.51.100.7", *self.SPOOFED
            )
            self.assert_refused(proxy, 400, "bad-request", target, 'Forwarded: for="198')
        self.assertNotIn("198", "".join(logs.output))

    def test_refusals_name_the_client(self) -> None:
        """A refusal in the log names the client, not the proxy in front."""
        proxy = self.start_proxy(trusted_proxies=["127.0.0.1"])
        with self.assertLogs("wsproxy.connection", "INFO") as logs:
            self.assert_refused(proxy, 401, "bad-token", "/garbage/vm", *self.SPOOFED)
        self.assertRegex(logs.output[0], r"refused: client 198\.51\.100\.7 via 127\.0\.0\.1:\d+: 401 ")


class OneTimeTickets(AccessCase):
    """A ticket instead of a token in the URL."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_proxy(tickets=True, subresources=["console"], host_path_prefix="a/b")

    def test_redeemed(self) -> None:
        """A ticket opens its VMI's console, once, by the path that came with it."""
        path = self.ticket(self.proxy)
        self.assertRegex(path, r"\A/a/b/[A-Za-z0-9_-]{22}/vm\Z")
        self.assert_opens(self.proxy, path)
        self.assertIn("/virtualmachineinstances/vm/vnc", self.api.requests[-1].target)
        self.assert_refused(self.proxy, 401, "bad-token", path)

    def test_subresource(self) -> None:
        """A ticket for another subresource opens that one, and is used up where another is asked for."""
        self.assert_opens(self.proxy, self.ticket(self.proxy, subresource="console"))
        self.assertTrue(self.api.requests[-1].target.endswith("/vm/console"))
        self.assert_opens(self.proxy, f"{self.ticket(self.proxy)}/vnc")
        for path in (
            self.ticket(self.proxy, subresource="console").removesuffix("/console"),
            f"{self.ticket(self.proxy)}/console",
        ):
            self.assert_refused(self.proxy, 403, "forbidden", path)
            self.assert_refused(self.proxy, 401, "bad-token", path)

    def test_bound(self) -> None:
        """A ticket is for one VMI and one page; a request that is wrong in that uses it up."""
        self.api.add_vmi("other", self.namespace)
        token = self.token("vm", "other")
        for change, headers, made in (
            ("other", [], []),
            ("vm", [f"Origin: {PAGE}"], []),
            ("vm", [f"Origin: {FOREIGN}"], [f"Origin: {PAGE}"]),
            ("vm", ["Origin: null"], [f"Origin: {PAGE}"]),
            ("vm", [], [f"Origin: {PAGE}"]),
        ):
            with self.subTest(change=change, headers=headers, made=made):
                path = self.ticket(self.proxy, *made, token=token)
                wrong = path.removesuffix("vm") + change
                self.assert_refused(self.proxy, 403, "forbidden", wrong, *headers)
                self.assert_refused(self.proxy, 401, "bad-token", path, *made)

    def test_race(self) -> None:
        """Of two clients with one ticket exactly one gets in, and one console is opened."""
        for _ in range(10):
            request, before = RawClient.request(self.ticket(self.proxy)), len(self.api.requests)
            clients = [RawClient(self.proxy.address) for _ in range(2)]
            start = threading.Barrier(2)

            def run(client: RawClient, request: bytes = request, start: threading.Barrier = start) -> None:
                start.wait(_WITHIN)
                client.send_raw(request)
                client.read_head()

            threads = [threading.Thread(target=run, args=(client,)) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(_WITHIN)
            self.assertEqual(sorted(client.status for client in clients), [101, 401])
            self.assertEqual(len(self.api.requests) - before, 1)
            for client in clients:
                client.close()

    def test_used_up_by_a_dial_that_fails(self) -> None:
        """A ticket whose session cannot be opened is used up, too."""
        path = self.ticket(self.proxy)
        self.api.remove_vmi("vm", self.namespace)
        self.assertEqual(self.ask(self.proxy, path).status, 404)
        self.api.add_vmi("vm", self.namespace)
        self.assert_refused(self.proxy, 401, "bad-token", path)

    def test_ambiguous(self) -> None:
        """A ticket next to a token is two credentials."""
        for header in (f"Authorization: Bearer {self.token('vm')}", f"Sec-WebSocket-Protocol: {BEARER}eA"):
            self.assert_refused(self.proxy, 400, "bad-request", self.ticket(self.proxy), header)

    def test_expired(self) -> None:
        """After half a minute a ticket is worth nothing."""
        store = self.proxy._server._gateway.participant.store if self.proxy._server else None
        assert isinstance(store, MemoryStore)
        path, clock = self.ticket(self.proxy), store._clock
        with mock.patch.object(store, "_clock", lambda: clock() + 30):
            self.assert_refused(self.proxy, 401, "bad-token", path)

    def test_session_ends_with_the_token(self) -> None:
        """A session by ticket ends when its token expires."""

        def wait(console: Any) -> None:
            while True:
                console.recv_frame()

        self.api.add_vmi("vm", self.namespace, backend=Script(wait))
        path = self.ticket(self.proxy, token=self.token("vm", expires_in=1.5))
        client = self.ask(self.proxy, path)
        self.assertEqual(client.status, 101)
        self.assertEqual(client.recv_close()[0], 4411)

    def test_token_expired_meanwhile(self) -> None:
        """A ticket does not outlive its token."""
        path = self.ticket(self.proxy)
        with mock.patch.object(Grant, "seconds_left", return_value=-0.1):
            self.assert_refused(self.proxy, 401, "token-expired", path)

    def test_namespace_of_another_process(self) -> None:
        """A ticket in the store opens no namespace that is not served here, and no other path."""
        proxy = self.start_proxy(tickets=True, namespaces=["served"])
        store = proxy._server._gateway.participant.store if proxy._server else None
        assert isinstance(store, MemoryStore)
        for namespace, status, slug in (
            (self.namespace, 403, "forbidden"),
            ("served/../../secrets", 400, "bad-request"),
            ("..", 400, "bad-request"),
        ):
            text = secrets.token_urlsafe(16)
            grant = Grant(5, namespace, ("vm",), unix_time() + 60, "id")
            issued = store.issue(hashlib.sha256(text.encode()).hexdigest(), Ticket(grant, "vnc", None))
            self.assertEqual(issued.limit, "")
            self.assert_refused(proxy, status, slug, f"/{text}/vm")

    def test_token_in_the_path_still_does(self) -> None:
        """Where there are tickets, a token in the path lets in as before."""
        self.assert_opens(self.proxy, f"/a/b/{self.token('vm')}/vm")

    def test_instead_of_tokens_in_paths(self) -> None:
        """Tickets let in where tokens in paths are switched off."""
        proxy = self.start_proxy(tickets=True, credentials=["header"])
        self.assert_opens(proxy, self.ticket(proxy))
        self.assert_refused(proxy, 401, "bad-token", f"/{self.token('vm')}/vm")

    def test_switched_off(self) -> None:
        """Without the setting there is no endpoint, and what looks like a ticket is no valid token."""
        proxy = self.start_proxy()
        self.assertEqual(self.post(proxy)[0], 404)
        self.assert_refused(proxy, 401, "bad-token", f"/{'A' * 22}/vm")

    def test_no_way_in_without_a_token(self) -> None:
        """Nothing but a valid token gets a ticket, and nothing of it reaches the API."""
        for token, status in (
            ("x", 401),
            (self.token("vm", secret="w" * 32), 401),
            (self.token("vm", expires_in=-9), 401),
            (self.token("other"), 403),
        ):
            self.assertEqual(self.post(self.proxy, token=token)[0], status)
        self.assertEqual(self.api.connections, 0)

    def test_body_in_pieces(self) -> None:
        """A body is put together from its pieces, and asked for if the client waits for that."""
        body = b'{"vmi": "vm"}'
        lines = ["POST /ticket HTTP/1.1", "Host: proxy", f"Authorization: Bearer {self.token('vm')}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "Expect: 100-continue"]
        client = self.send(self.proxy, "\r\n".join([*lines, "", ""]).encode())
        self.assertEqual(client.status, 100)
        for byte in body:
            client.send_raw(bytes([byte]))
        client.read_head()
        self.assertEqual(client.status, 201)

    def test_body_that_does_not_come(self) -> None:
        """A body that does not come in time is a request that does not, and one cut short is dropped."""
        proxy = self.start_proxy(tickets=True, request_timeout=2.0)
        lines = ["POST /ticket HTTP/1.1", "Host: proxy", f"Authorization: Bearer {self.token('vm')}"]
        lines += ["Content-Type: application/json", "Content-Length: 13", "", '{"vmi"']
        request = "\r\n".join(lines).encode()
        self.assertEqual(self.send(proxy, request).status, 408)
        with RawClient(proxy.address) as client:
            client.send_raw(request)
            client.drop()
            self.assertEqual(client.body(), b"")

    def test_secrets(self) -> None:
        """Neither ticket nor token is in the log, be it issued, redeemed, or refused."""
        token = self.token("vm")
        with self.assertLogs("wsproxy", "DEBUG") as logs:
            paths = [self.ticket(self.proxy, token=token) for _ in range(2)]
            self.assert_opens(self.proxy, paths[0])
            self.assert_refused(self.proxy, 401, "bad-token", paths[0])
            self.assert_refused(self.proxy, 403, "forbidden", paths[1], f"Origin: {FOREIGN}")
            self.proxy.stop_thread()
        output = "\n".join(logs.output)
        self.assertIn("ticket issued: client 127.0.0.1:", output)
        for path in paths:
            self.assertNotIn(path.split("/")[3][:10], output)
        self.assertNotIn(token[-20:], output)


class Hook(AccessCase):
    """What an embedding program may decide."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[tuple[Grant, AccessRequest]] = []

    def hooked(self, answer: Any = None, **options: Any) -> WebsocketProxy:
        """Start a proxy whose hook notes what it is asked and returns ``answer`` of the grant."""

        def authorize(grant: Grant, request: AccessRequest) -> Any:
            self.asked.append((grant, request))
            return answer(grant) if answer else None

        return self.start_proxy(authorize=authorize, **options)

    def test_asked(self) -> None:
        """The hook is told who asks for what, and nothing that would let anybody in."""
        proxy, token = self.hooked(subresources=["console"]), self.token("vm", user="eve")
        self.assert_opens(proxy, f"/{token}/vm/console", f"Origin: {PAGE}", "User-Agent: noVNC")
        ((grant, request),) = self.asked
        self.assertEqual((grant.user, grant.namespace, grant.vmis), ("eve", self.namespace, ("vm",)))
        self.assertEqual(
            request,
            AccessRequest(
                namespace=self.namespace,
                vmi="vm",
                subresource="console",
                client="127.0.0.1",
                origin=PAGE,
                credential="path",
                user_agent="noVNC",
            ),
        )
        self.assertNotIn(token[-20:], f"{grant} {request}")

    def test_asked_once_for_each_session(self) -> None:
        """It is asked for sessions with a valid token only, for those by ticket when that is redeemed."""
        proxy = self.hooked(tickets=True)
        for target in ("/garbage/vm", f"/{self.token('other')}/vm", "/-/vm", "/x"):
            self.ask(proxy, target).close()
        token = self.token("vm", "other", user="eve")
        path = self.ticket(proxy, token=token)
        self.assertEqual(self.asked, [])
        self.assert_opens(proxy, path)
        self.assert_opens(proxy, f"/{token}/vm")
        (by_ticket, request), (by_token, _) = self.asked
        self.assertEqual(request.credential, "ticket")
        self.assertEqual(by_ticket, replace(by_token, vmis=("vm",)))
        self.assertTrue(by_ticket.token_id)

    def test_refuses(self) -> None:
        """Its refusal is what the client is told, and nobody is dialled."""

        def refuse(grant: Grant) -> None:
            raise Forbidden("not after midnight")

        proxy = self.hooked(refuse)
        said = self.assert_refused(proxy, 403, "forbidden", f"/{self.token('vm')}/vm")
        self.assertEqual(said, "not after midnight")
        said = self.assert_refused(proxy, 403, "forbidden", f"/{self.token('vm')}/vm", f"Origin: {PAGE}")
        self.assertEqual(said, "forbidden: not after midnight")

    def test_narrows(self) -> None:
        """What it leaves of a grant is what counts: for the VMI, and for the end of the session."""
        proxy = self.hooked(lambda grant: replace(grant, vmis=()))
        self.assert_refused(proxy, 403, "forbidden", f"/{self.token('vm')}/vm")
        proxy = self.hooked(lambda grant: replace(grant, expires_at=grant.expires_at - 599))
        client = self.ask(proxy, f"/{self.token('vm')}/vm")
        self.assertEqual(client.status, 101)
        self.assertEqual(client.recv_close()[0], 4411)
        proxy = self.hooked(lambda grant: replace(grant, expires_at=0.0))
        self.assert_refused(proxy, 401, "token-expired", f"/{self.token('vm')}/vm")

    def test_fails_closed(self) -> None:
        """A hook that fails, widens, answers nonsense, or stops thread or proxy lets nobody in."""
        self.api.add_vmi("other", self.namespace)
        proxies: list[WebsocketProxy] = []
        for answer in (
            lambda grant: 1 / 0,
            lambda grant: sys.exit(),
            lambda grant: replace(grant, vmis=(*grant.vmis, "other")),
            lambda grant: True,
            lambda grant: False,
            lambda grant: proxies[-1].stop_thread(),
        ):
            proxies.append(self.hooked(answer))
            with self.assertLogs("wsproxy.authorization", "ERROR") as logs:
                said = self.assert_refused(proxies[-1], 403, "forbidden", f"/{self.token('vm')}/vm")
            self.assertEqual(said, "the authorize hook failed")
            self.assertEqual(len(logs.output), 1)
        self.assertIn("a session cannot stop the proxy", logs.output[0])

    def test_from_config(self) -> None:
        """A proxy made of ready settings takes a hook, too, and keeps it when it is started again."""
        config = Config(**self.proxy_options())

        def refuse(grant: Grant, request: AccessRequest) -> None:
            raise Forbidden("no")

        proxy = WebsocketProxy.from_config(config, authorize=refuse)
        for _ in range(2):
            with proxy.run_in_thread("127.0.0.1", 0):
                self.assert_refused(proxy, 403, "forbidden", f"/{self.token('vm')}/vm")


class NamedSubresource(AccessCase):
    """A subresource is the same one whichever path names it."""

    def test_one_console(self) -> None:
        """Hook, session and upstream agree on what is open, and who comes second finds it in use."""
        asked: list[str] = []

        def authorize(grant: Grant, request: AccessRequest) -> None:
            asked.append(request.subresource)

        token = self.token("vm")
        ended: SimpleQueue[str] = SimpleQueue()
        proxy = self.start_proxy(
            subresources=["console"],
            console="refuse",
            authorize=authorize,
            on_close=lambda session, ending: ended.put(session.subresource),
        )
        bearer = f"Authorization: Bearer {token}"
        ways = ((f"/{token}/vm/console",), (f"/-/{self.namespace}/vm/console", bearer))
        for first in ways:
            with self.subTest(first=ways.index(first)):
                client = self.ask(proxy, *first)
                self.assertEqual(client.status, 101)
                client.send_frame(BINARY, b"x")
                self.assertEqual(client.recv_frame().payload, b"x")
                self.assertEqual(self.vmi.wait_for_session(_WITHIN).subresource, "console")
                self.assertEqual([session.subresource for session in proxy.sessions()], ["console"])
                for second in ways:
                    self.assert_refused(proxy, 409, "console-busy", *second)
                self.assert_opens(proxy, f"/-/{self.namespace}/vm/vnc", bearer)
                self.assertEqual(self.vmi.wait_for_session(_WITHIN).subresource, "vnc")
                self.assertEqual(asked, ["console"] * 3 + ["vnc"])
                self.assertEqual(ended.get(timeout=_WITHIN), "vnc")
                asked.clear()
                client.send_close(1000)
                self.assertEqual(ended.get(timeout=_WITHIN), "console")


class EveryWayIn(AccessCase):
    """CVE-2024-28179: a WebSocket path that forgets to authenticate."""

    def test_nothing_but_a_valid_credential_dials(self) -> None:
        """Whatever is switched on: without a valid credential no byte reaches the API."""
        everything: dict[str, Any] = {
            "credentials": ["path", "header", "subprotocol", "query", "cookie"],
            "allow_origin": [PAGE],
            "tickets": True,
            "trusted_proxies": ["127.0.0.1"],
            "subresources": ["console"],
            "authorize": lambda grant, request: None,
        }
        proxy, bad = self.start_proxy(**everything), self.token("vm", secret="w" * 32)
        requests: Sequence[tuple[str, list[str]]] = (
            ("/-/vm", []),
            ("/-/lab-1/vm", []),
            ("/-/lab-1/vm/console", []),
            ("/vm", []),
            ("//vm", []),
            ("/-//vm", []),
            ("/ticket", []),
            ("/healthz", []),
            (f"/{bad}/vm", []),
            (f"/{'A' * 22}/vm", []),
            (f"/-/vm?token={bad}", []),
            ("/-/vm", [f"Authorization: Bearer {bad}"]),
            ("/-/vm", [f"Sec-WebSocket-Protocol: {BEARER}{base64url(bad)}"]),
            ("/-/vm", [f"Cookie: wsproxy_token={bad}"]),
            ("/-/vm", ["X-Remote-User: admin", "Impersonate-User: admin", "X-Forwarded-User: admin"]),
            ("/-/vm", ["Authorization: Basic YWRtaW46YWRtaW4="]),
        )
        for target, headers in requests:
            for origin in ([], [f"Origin: {PAGE}"]):
                with self.subTest(target=target[:10], headers=headers, origin=origin):
                    client = self.ask(proxy, target, *headers, *origin)
                    if client.status == 101:
                        self.assertGreaterEqual(self.refusal(client)[0], 4400)
                    else:
                        self.assertGreaterEqual(client.status, 400)
                    client.close()
        self.assertEqual((self.api.connections, self.api.requests), (0, []))

    def test_session_is_the_only_user_of_the_dialler(self) -> None:
        """A session dials after the access control let it in, and not without it."""
        gateway = Gateway(Config(**self.proxy_options()))
        self.addCleanup(gateway.stop_resolving)
        head = parsed(f"/{self.token('vm')}/vm")
        session = Session(gateway, Peer.at("192.0.2.1", 1))
        client = Client(Peer.at("192.0.2.1", 1))
        near, far = socket.socketpair()
        with (
            far,
            closing(PlainTransport(near)) as transport,
            mock.patch.object(type(gateway.access), "admit", side_effect=Forbidden("no")),
            self.assertRaises(Refused),
        ):
            session.open(head, Upgrade(head), client, Deadline(10), lambda: None, None, transport)
        self.assertEqual(self.api.connections, 0)


if __name__ == "__main__":
    unittest.main()
