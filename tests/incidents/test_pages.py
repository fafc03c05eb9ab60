"""What a foreign page can do to its visitor, through the visitor's own browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from wsproxy import WebsocketProxy
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient

_PAGE, _EVIL = "https://console.example", "https://evil.example"
_MADE_UP = "A" * 22  # what a ticket looks like


class PagesCase(ProxyTestCase):
    """Sends what browsers send."""

    tls = False
    proxy_settings: ClassVar[Mapping[str, Any]] = {"reject": "http"}

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)

    def websocket(self, proxy: WebsocketProxy, target: str, *headers: str) -> int:
        """Open a WebSocket, and return the status of the answer."""
        client = RawClient.open(f"ws://127.0.0.1:{proxy.address[1]}{target}", headers=headers)
        self.addCleanup(client.close)
        return client.status

    def get(self, proxy: WebsocketProxy, target: str, *headers: str) -> int:
        with RawClient(proxy.address) as client:
            lines = [f"GET {target} HTTP/1.1", "Host: proxy", *headers, "", ""]
            client.send_raw("\r\n".join(lines).encode("latin-1"))
            client.read_head()
            return client.status


class ForeignPageLocksOut(PagesCase):
    """CWE-645: a page fails to authenticate again and again, and its visitor is locked out for it."""

    def start(self, **options: Any) -> WebsocketProxy:
        return self.start_proxy(max_failures=3, screenshots=True, tickets=True, **options)

    def assert_let_in(self, proxy: WebsocketProxy, *headers: str) -> None:
        self.assertEqual(self.websocket(proxy, f"/{self.token('vm')}/vm", *headers), 101)

    def test_pictures(self) -> None:
        """An image of a made-up address counts as a page's, whatever the browser says of that."""
        for site in (["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site"], []):
            with self.subTest(site=site):
                proxy = self.start()
                told = [self.get(proxy, "/garbage/vm/screenshot.png", *site) for _ in range(5)]
                self.assertEqual(told, [401] * 3 + [429] * 2)
                self.assert_let_in(proxy)

    def test_websockets(self) -> None:
        """So does a WebSocket: the proxy's own pages, listed ones, and programs are let in as before."""
        for origin in (_EVIL, "null", "http://proxy.evil.example"):
            with self.subTest(origin=origin):
                proxy = self.start()
                told = [self.websocket(proxy, "/garbage/vm", f"Origin: {origin}") for _ in range(5)]
                self.assertEqual(told, [401] * 3 + [429] * 2)
                self.assert_let_in(proxy)
                self.assert_let_in(proxy, "Origin: http://proxy")

    def test_listed_pages(self) -> None:
        """Where pages are listed, a foreign one is refused before anything of it is looked at."""
        proxy = self.start(allow_origin=[_PAGE])
        for target in ("/garbage/vm", f"/{_MADE_UP}/vm", "/-/vm"):
            for _ in range(5):
                self.assertEqual(self.websocket(proxy, target, f"Origin: {_EVIL}"), 403)
        self.assert_let_in(proxy, f"Origin: {_PAGE}")
        self.assert_let_in(proxy)

    def test_every_page(self) -> None:
        """Where every page is allowed, those that are not named fail for themselves."""
        proxy = self.start(allow_origin=["*", _PAGE])
        for _ in range(5):
            self.websocket(proxy, "/garbage/vm", f"Origin: {_EVIL}")
        self.assert_let_in(proxy, f"Origin: {_PAGE}")

    def test_made_up_tickets(self) -> None:
        """Nobody finds a ticket by guessing, so an unknown one counts a tenth of a token."""
        proxy = self.start()
        told = [self.websocket(proxy, f"/{_MADE_UP}/vm") for _ in range(31)]
        self.assertEqual(told, [401] * 21 + [429] * 10)
        self.assert_let_in(self.start())

    def test_own_page_that_guesses(self) -> None:
        """Whoever guesses is shut out as before: a page of our own, a listed one, and a program."""
        for headers in (["Origin: http://proxy"], [f"Origin: {_PAGE}"], []):
            with self.subTest(headers=headers):
                proxy = self.start(allow_origin=[_PAGE])
                told = [self.websocket(proxy, "/garbage/vm", *headers) for _ in range(3)]
                self.assertEqual(told, [401] * 3)
                self.assertEqual(self.websocket(proxy, f"/{self.token('vm')}/vm", *headers), 429)
        proxy = self.start()
        bearer = "Authorization: Bearer {}".format
        for _ in range(3):
            self.assertEqual(self.get(proxy, "/-/vm/screenshot.png", bearer("garbage")), 401)
        self.assertEqual(self.websocket(proxy, "/-/vm", bearer(self.token("vm"))), 429)

    def test_stolen_ticket(self) -> None:
        """A ticket that a foreign page got hold of is used up by its try, though the page is refused."""
        proxy = self.start(allow_origin=[_PAGE])
        body = json.dumps({"vmi": "vm", "origin": _PAGE}).encode()
        with RawClient(proxy.address) as client:
            lines = ["POST /ticket HTTP/1.1", "Host: proxy", f"Authorization: Bearer {self.token('vm')}"]
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
            client.send_raw("\r\n".join(lines).encode() + body)
            client.read_head()
            path = json.loads(client.body())["path"]
        self.assertEqual(self.websocket(proxy, path, f"Origin: {_EVIL}"), 403)
        self.assertEqual(self.websocket(proxy, path, f"Origin: {_PAGE}"), 401)


class CookieTossing(PagesCase):
    """A neighbouring host sets a cookie that a browser guards, by a name that is not quite the same."""

    def test_names_byte_by_byte(self) -> None:
        """No other space than HTTP's is taken off a name, so none of these is a __Host- cookie."""
        proxy = self.start_proxy(
            credentials=["cookie"], allow_origin=[_PAGE], cookie_name="__Host-token", screenshots=True
        )
        token = self.token("vm")
        self.assertEqual(self.websocket(proxy, "/-/vm", f"Cookie: a=b; __Host-token={token}"), 101)
        for space in ("\xa0", "\x85", "\x0b", "\x0c", "\x1c", "\x1f"):
            for cookie in (f"{space}__Host-token={token}", f"__Host-token{space}={token}"):
                with self.subTest(cookie=cookie[:14]):
                    told = self.websocket(proxy, "/-/vm", f"Cookie: a=b; {cookie}")
                    self.assertIn(told, (400, 401))
                    told = self.get(proxy, "/-/vm/screenshot.png", f"Cookie: a=b; {cookie}")
                    self.assertIn(told, (400, 401))


class RequiredOrigin(PagesCase):
    """A program says that it is a page of ours, in a header that browsers send with no WebSocket alone."""

    def test_fetch_site_is_no_origin(self) -> None:
        """Sec-Fetch-Site stands for the Origin of a page's GET, which has none, and of nothing else."""
        proxy = self.start_proxy(require_origin=True, console_page=True)
        target, bearer = f"/{self.token('vm')}/vm", f"Authorization: Bearer {self.token('vm')}"
        self.assertEqual(self.websocket(proxy, target, "Sec-Fetch-Site: same-origin"), 403)
        self.assertEqual(self.websocket(proxy, target, "Origin: http://proxy"), 101)
        self.assertEqual(self.get(proxy, "/console/grant", bearer), 403)
        self.assertEqual(self.get(proxy, "/console/grant", bearer, "Sec-Fetch-Site: same-origin"), 200)


class ListsThatCost(PagesCase):
    """CWE-407: a header with thousands of elements, which costs a hundred times what its bytes do."""

    def test_bounded(self) -> None:
        """Of a header that is read as a list more than a hundred elements are a bad request."""
        proxy = self.start_proxy(trusted_proxies=["127.0.0.1"], screenshots=True)
        target = f"/{self.token('vm')}/vm"
        for name in ("Sec-WebSocket-Protocol", "Connection", "Upgrade", "Forwarded"):
            element = "for=10.0.0.1" if name == "Forwarded" else "a"
            with self.subTest(name=name):
                value = ",".join([element] * 1000)
                self.assertEqual(self.websocket(proxy, target, f"{name}: {value}"), 400)
        names = ", ".join(f"name-{number}" for number in range(99))
        self.assertEqual(self.websocket(proxy, target, f"Sec-WebSocket-Protocol: {names}"), 101)
