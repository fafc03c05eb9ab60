"""Heads of requests: what nobody reads refuses nobody, and what is wrong with them reaches a person."""

from __future__ import annotations

import json
import unittest
from typing import Any, ClassVar

from tests.support.wsgi_host import Host
from wsproxy import Config, WebsocketProxy
from wsproxy.exceptions import HeadTooLarge
from wsproxy.protocol.handshake import upgrade_of
from wsproxy.protocol.request import HeadReader, RequestHead
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.wsgi.app import ConsoleApp

_ORIGIN = "Origin: http://proxy"
_VERSION = b"RFB 003.008\n"
# What proxies, logins and neighbours add, in the two encodings that there are.
_NOT_READ = (
    "X-Forwarded-User: J\xfcrgen",
    "X-Forwarded-Preferred-Username: J\xc3\xbcrgen",
    "CF-IPCity: M\xc3\xbcnchen",
    "Remote-Name: \xe4\xbd\xa0\xe5\xa5\xbd",
    "User-Agent: \xff",
    "Referer: http://proxy/\xe4",
    "Accept-Language: \xa0",
    "Cookie: name=J\xfcrgen",
    "Cookie: a=b; name=J\xc3\xbcrgen; \x80=\x81",
)


class HeadsCase(ProxyTestCase):
    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)

    def application(self, **options: Any) -> Host:
        app = ConsoleApp(Config(**self.proxy_options(**options)))
        self.addCleanup(app.close)
        host = Host(app)
        host.start()
        self.addCleanup(lambda: self.assertEqual(host.errors, []))
        self.addCleanup(host.stop)
        return host

    def ask(self, front: WebsocketProxy | Host, target: str, *headers: str) -> RawClient:
        client = RawClient(front.address)
        self.addCleanup(client.close)
        client.send_raw(RawClient.request(target, headers))
        client.read_head()
        return client

    def assert_told(self, client: RawClient, code: int, slug: str, text: str = "") -> None:
        """Assert that a browser is told in RFB, and by a Close."""
        self.assertEqual(client.status, 101, client.head)
        self.assertEqual(client.recv_frame().payload, _VERSION)
        client.send_frame(BINARY, _VERSION)
        failure = client.recv_frame().payload
        found, reason = client.recv_close()
        self.assertEqual((found, reason.partition(":")[0]), (code, slug))
        self.assertIn(text.encode(), failure)


class RefusingOverWhatNobodyReads(HeadsCase):
    """Names of single sign-on, cities, a neighbour's cookie: values that are not ASCII."""

    def test_opens(self) -> None:
        """A console opens whatever is in headers that are not read."""
        options: dict[str, Any] = {"credentials": ["path", "cookie"], "allow_origin": ["http://proxy"]}
        for front in (
            self.start_proxy(),
            self.start_proxy(**options),
            self.application(),
            self.application(**options),
        ):
            for header in _NOT_READ:
                with self.subTest(front=front, header=header):
                    client = self.ask(front, f"/{self.token('vm')}/vm", _ORIGIN, header)
                    self.assertEqual(client.status, 101)
                    client.send_frame(BINARY, b"x")
                    self.assertEqual(client.recv_frame().payload, b"x")
                    client.close()

    def test_own_cookie(self) -> None:
        """Of the cookies only the one that may hold the token matters."""
        options: dict[str, Any] = {"credentials": ["cookie"], "allow_origin": ["http://proxy"]}
        token = self.token("vm")
        for front in (self.start_proxy(**options), self.application(**options)):
            good = f"Cookie: name=J\xfcrgen; wsproxy_token={token}; \xe4=\xf6"
            self.assertEqual(self.ask(front, "/-/vm", good).status, 101)
            client = self.ask(front, "/-/vm", f"Cookie: wsproxy_token={token}\xe4")
            self.assertEqual(client.status, 401)
            self.assertEqual(json.loads(client.body())["message"], "the token is not a JWT")

    def test_several_lines(self) -> None:
        """Cookies may come in several lines, which a WSGI server joins as if they were a list."""
        options: dict[str, Any] = {"credentials": ["cookie"], "allow_origin": ["http://proxy"]}
        token = self.token("vm")
        for front in (self.start_proxy(**options), self.application(**options)):
            for lines in (
                ["Cookie: a=b", f"Cookie: wsproxy_token={token}", "Cookie: c=d; e=f"],
                [f"Cookie: wsproxy_token={token}; a=b", "Cookie: name=J\xfcrgen, M\xfcller"],
                ["Cookie: a=b, c", f"Cookie: d=e; wsproxy_token={token}"],
            ):
                with self.subTest(front=front, lines=len(lines)):
                    self.assertEqual(self.ask(front, "/-/vm", *lines).status, 101)
            twice = [f"Cookie: wsproxy_token={token}", f"Cookie: wsproxy_token={token}"]
            self.assertEqual(self.ask(front, "/-/vm", *twice).status, 400)

    def test_pages(self) -> None:
        """Pages and endpoints never minded."""
        front = self.start_proxy(console_page=True)
        for header in _NOT_READ:
            with RawClient(front.address) as client:
                request = f"GET /console/ HTTP/1.1\r\nHost: proxy\r\n{header}\r\n\r\n"
                client.send_raw(request.encode("latin-1"))
                client.read_head()
                self.assertEqual(client.status, 200)


class AbsoluteForm(HeadsCase):
    """Targets that name a host, as a client behind a forward proxy sends them (RFC 9112 section 3.2.2)."""

    def status(self, front: WebsocketProxy | Host, request: bytes) -> int:
        with RawClient(front.address) as client:
            client.send_raw(request)
            client.read_head()
            return client.status

    def test_own_host(self) -> None:
        """A console opens, and pages are found, by a target that names our own host, and no other."""
        for front in (self.start_proxy(), self.application()):
            for host, status in (("proxy", 101), ("PROXY:80", 101), ("other", 400), ("proxy:81", 400)):
                with self.subTest(front=front, host=host):
                    target = f"http://{host}/{self.token('vm')}/vm"
                    self.assertEqual(self.status(front, RawClient.request(target)), status)
                    request = f"GET http://{host}/healthz?x HTTP/1.1\r\nHost: proxy\r\n\r\n".encode()
                    self.assertEqual(self.status(front, request), 200 if status == 101 else 400)
            two = RawClient.request(f"http://proxy/{self.token('vm')}/vm", ["Host: other"])
            self.assertEqual(self.status(front, two), 400)


class RefusalsInWords(HeadsCase):
    """A page cannot see the status of a refused WebSocket, so a person would check the network for ever."""

    def test_bad_request(self) -> None:
        """A fault of the request that is none of its handshake is told as every other refusal."""
        proxy = self.start_proxy(trusted_proxies=["127.0.0.1"])
        target = f"/{self.token('vm')}/vm"
        self.assert_told(
            self.ask(proxy, target, _ORIGIN, 'Forwarded: for="'), 4400, "bad-request", "Forwarded header"
        )
        client = self.ask(proxy, target, 'Forwarded: for="')
        self.assertEqual(client.status, 400)
        client = self.ask(self.start_proxy(trusted_proxies=["127.0.0.1"], reject="http"), target, _ORIGIN)
        self.assertEqual(client.status, 101)

    def test_large_head(self) -> None:
        """Too many cookies, in one line or in many, wherever the browser puts them."""
        proxy, target = self.start_proxy(), f"/{self.token('vm')}/vm"
        for cookies in (
            ["Cookie: " + "a" * 20000],
            ["Cookie: " + "a=b; " * 8000],
            ["Cookie: " + "a" * 200_000],
            ["X: y"] * 101,
            ["X: " + "y" * 1000] * 30,
        ):
            with self.subTest(cookies=cookies[0][:20], number=len(cookies)):
                client = self.ask(proxy, target, _ORIGIN, *cookies, "Sec-WebSocket-Protocol: binary")
                self.assertEqual(client.header("Sec-WebSocket-Protocol"), "binary")
                self.assert_told(client, 4431, "head-too-large", "the request head ")
        client = self.ask(proxy, target, *["X: " + "y" * 1000] * 30)
        self.assertEqual((client.status, json.loads(client.body())["code"]), (431, 4431))
        self.assertEqual(self.api.connections, 0)

    def test_log(self) -> None:
        """Nothing of such a head is in the log."""
        with self.assertLogs("wsproxy", "DEBUG") as logs:
            proxy, token = self.start_proxy(), self.token("vm")
            client = self.ask(proxy, f"/{token}/vm", _ORIGIN, "Cookie: secret=" + "a" * 20000)
            self.assert_told(client, 4431, "head-too-large")
            proxy.stop_thread()
        lines = [line for line in logs.output if " refused: " in line]
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], r": 431 head-too-large: the request head is larger than 16384 bytes")
        self.assertNotIn("aaaa", "".join(logs.output))
        self.assertNotIn(token, "".join(logs.output))

    def test_head_that_does_not_end(self) -> None:
        """A head without an end is 431 by HTTP: at the deadline, or when it is far too large."""
        proxy = self.start_proxy(request_timeout=2.0)
        request = RawClient.request(f"/{self.token('vm')}/vm", [_ORIGIN, "Cookie: " + "a" * 300_000])
        for size in (17_000, 290_000):
            with self.subTest(size=size), RawClient(proxy.address) as client:
                client.send_raw(request[:size])
                client.read_head()
                self.assertEqual(client.status, 431)

    def test_setting(self) -> None:
        """How large a head may be is a setting."""
        for size in (16384, 65536, 131072):
            proxy, target = self.start_proxy(max_head_size=size), f"/{self.token('vm')}/vm"
            for more, status in ((0, 101), (1, 431)):
                request = RawClient.request(target, ["Cookie: "])
                request = RawClient.request(target, ["Cookie: " + "a" * (size - len(request) + more)])
                self.assertEqual(len(request), size + more)
                with self.subTest(size=size, more=more), RawClient(proxy.address) as client:
                    client.send_raw(request)
                    client.read_head()
                    self.assertEqual(client.status, status)


class Skimming(unittest.TestCase):
    """Of a head that is too large what a browser is told by is found, however it comes."""

    FIRST: ClassVar[str] = "Sec-WebSocket-Key"

    def request(self, *headers: str) -> bytes:
        return RawClient.request("/x/vm", headers)

    def fed(self, data: bytes, size: int) -> tuple[HeadReader, RequestHead | None]:
        reader, head = HeadReader(), None
        for start in range(0, len(data), size):
            head = reader.feed(data[start : start + size])
            if head is not None:
                break
        return reader, head

    def test_cuts(self) -> None:
        """Whole, byte by byte and in between it is the same."""
        data = self.request(
            _ORIGIN, "Sec-WebSocket-Protocol: a, b", "C: " + "c" * 17000, "X: \xe4", "Connection: x"
        )
        for size in (1, 2, 3, 7, 4096, len(data)):
            with self.subTest(size=size):
                _, head = self.fed(data, size)
                assert head is not None
                self.assertIsInstance(head.fault, HeadTooLarge)
                self.assertEqual(head.target, "/x/vm")
                self.assertEqual(head.values("connection"), ["Upgrade", "x"])
                self.assertEqual(head.values("c") + head.values("x"), [])
                upgrade = upgrade_of(head)
                assert upgrade is not None
                self.assertEqual(upgrade.subprotocols, ("a", "b"))
                self.assertEqual(upgrade.origin, "http://proxy")

    def test_bounded(self) -> None:
        """What is held is less than a head may have, and what is received less than 256 KiB and a piece."""
        for line in ("C: ", "Sec-WebSocket-Protocol: ", "c" * 50_000, "Origin: "):
            with self.subTest(line=line[:10]):
                reader, fed = HeadReader(), 0
                reader.feed(self.request(_ORIGIN)[:-2] + line.encode())
                with self.assertRaises(HeadTooLarge):
                    while fed < 1 << 20:
                        self.assertIsNone(reader.feed(b"c" * 4096))
                        fed += 4096
                        if skimmer := reader._skimmer:
                            self.assertEqual(len(reader._data), 0)
                            self.assertLess(len(skimmer._kept) + len(skimmer._line), 16384 + 4096)
                self.assertLessEqual(fed, 256 * 1024)

    def test_what_is_malformed(self) -> None:
        """A head that is no upgrade request of a browser's is one more that is too large."""
        for changed in (
            self.request("Cookie: " + "c" * 17000),
            self.request(_ORIGIN, "Cookie: " + "c" * 17000).replace(b"GET", b"POST"),
            self.request(_ORIGIN, _ORIGIN, "Cookie: " + "c" * 17000),
            self.request(_ORIGIN, "Content-Length: 5", "Cookie: " + "c" * 17000),
            self.request(_ORIGIN, "Cookie: " + "c" * 17000).replace(b"Sec-WebSocket-Key", b"X"),
        ):
            with self.subTest(changed=changed[:20]):
                try:
                    _, head = self.fed(changed, 4096)
                except HeadTooLarge:
                    continue
                assert head is not None and head.fault
                self.assertIsNone(upgrade_of(head))


if __name__ == "__main__":
    unittest.main()
