"""Requests, hooks and grants that made other programs raise where nobody had expected it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any
from unittest import mock

from tests.support.wsgi_host import Host
from wsproxy import AccessRequest, Config, Forbidden, Grant, WebsocketProxy
from wsproxy.exceptions import LimitExceeded, Refused
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.wsgi.app import ConsoleApp

_ORIGIN = "Origin: http://proxy"
_BUG = "wsproxy.protocol.client.TrustedProxies.trusts"  # is asked about every request


class RequestsThatRaise(ProxyTestCase):
    """Every request gets an answer, and every unexpected exception is one bounded record and a count."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)

    def get(self, proxy: WebsocketProxy | Host, path: str, *headers: str) -> RawClient:
        client = RawClient(proxy.address)
        self.addCleanup(client.close)
        client.send_raw("\r\n".join([f"GET {path} HTTP/1.1", "Host: proxy", *headers, "", ""]).encode())
        client.read_head()
        return client

    def upgrade(self, proxy: WebsocketProxy, *headers: str) -> RawClient:
        client = RawClient.open(self.url(proxy, "vm"), headers=headers)
        self.addCleanup(client.close)
        return client

    def application(self, **options: Any) -> Host:
        app = ConsoleApp(Config(**self.proxy_options(**options)))
        self.addCleanup(app.close)
        host = Host(app)
        host.__enter__()
        self.addCleanup(lambda: self.assertEqual(host.errors, []))
        self.addCleanup(host.stop)
        return host

    def test_addresses_that_are_none(self) -> None:
        """Whatever a trusted proxy hands on as an address is answered, without a word in the log."""
        for front in (
            self.start_proxy(trusted_proxies=["127.0.0.1"]),
            self.application(trusted_proxies=["127.0.0.1"]),
        ):
            for address in ("[]", "[]:1", "[", "]", "[%]", "%", ":", "::::", "\t", "[::1", "1.2.3.4:x"):
                with self.subTest(address=address), self.assertNoLogs("wsproxy", "WARNING"):
                    client = self.get(front, "/healthz", f"X-Forwarded-For: {address}")
                    self.assertEqual(client.status, 200)
                    client = self.get(front, "/healthz", f'Forwarded: for="{address}"')
                    self.assertEqual(client.status, 200)

    def test_bug_by_http(self) -> None:
        """A bug of ours is told as 500, where somebody asks for a page or opens a console."""
        for front in (self.start_proxy(), self.application()):
            for path, headers in (("/healthz", ()), ("/a/vm", ("Upgrade: websocket",))):
                with (
                    self.subTest(front=front, path=path),
                    mock.patch(_BUG, side_effect=ZeroDivisionError("a bug of ours")),
                    self.assertLogs("wsproxy", "INFO") as logs,
                ):
                    client = self.get(front, path, *headers)
                    self.assertEqual(client.status, 500)
                    body = json.loads(client.body())
                self.assertEqual((body["code"], body["reason"]), (4500, "internal-error"))
                self.assertNotIn("ZeroDivisionError", body["message"])
                self.assertEqual(len(logs.records), 1)
                self.assertIn("ZeroDivisionError: a bug of ours", logs.output[0])

    def test_bug_by_close(self) -> None:
        """A browser is told by a Close, which its page can read."""
        proxy = self.start_proxy(api_path="/apis/{namespace}/{vmi_name}/console")
        with (
            mock.patch("wsproxy.server.opening.Console", side_effect=ZeroDivisionError),
            self.assertLogs("wsproxy", "ERROR"),
        ):
            client = self.upgrade(proxy, _ORIGIN)
            self.assertEqual(client.status, 101)
            code, reason = client.recv_close()
        self.assertEqual((code, reason.partition(":")[0]), (4500, "internal-error"))

    def test_flood(self) -> None:
        """A request that raises is answered and counted as often as it comes, and logged seldom."""
        proxy = self.start_proxy()
        server = proxy._server
        assert server is not None
        text = "x" * 100_000 + "\n2026-01-01 00:00:00,000 INFO wsproxy: forged"
        with (
            mock.patch(_BUG, side_effect=RuntimeError(text)),
            mock.patch.object(server._gateway.failures, "_clock", lambda: 0.0),
            self.assertLogs("wsproxy", "INFO") as logs,
        ):
            for _ in range(50):
                self.assertEqual(self.get(proxy, "/healthz").status, 500)
        self.assertEqual(server.numbers().failures, 50)
        self.assertEqual(server.numbers().refused.counts, {"internal-error": 50})
        self.assertLessEqual(len(logs.records), 5)
        for line in logs.output:
            self.assertLess(len(line), 8000)
            self.assertNotIn("\n2026", line)

    def test_hooks(self) -> None:
        """Whatever a hook raises or returns, the client is refused in a well-formed way."""

        class Odd(Refused):
            status: int = 4711

        class Coded(Forbidden):
            close_code = 1005

        class Unregistered(Forbidden):
            status = 499

        def raising(exception: BaseException | type[BaseException]) -> Any:
            def hook(grant: Grant, request: AccessRequest) -> None:
                raise exception

            return hook

        def returning(**changes: Any) -> Any:
            return lambda grant, request: replace(grant, **changes)

        for hook, status, told in (
            (raising(KeyboardInterrupt), 403, "the authorize hook failed"),
            (raising(GeneratorExit), 403, "the authorize hook failed"),
            (raising(BaseException("x")), 403, "the authorize hook failed"),
            (raising(Forbidden), 403, "this is not allowed"),
            (raising(Forbidden()), 403, "this is not allowed"),
            (raising(LimitExceeded("hour")), 429, "a limit is reached"),
            (raising(Forbidden("one\r\n2026 INFO forged\x1b[2J")), 403, "one  2026 INFO forged [2J"),
            (
                raising(Forbidden("x", headers=[("X", "a\r\nSet-Cookie: b")])),
                403,
                "the authorize hook failed",
            ),
            (raising(Forbidden("x", headers=[("X", "J\xfcrgen")])), 403, "the authorize hook failed"),
            (raising(Odd("x")), 403, "the authorize hook failed"),
            (raising(Coded("x")), 403, "the authorize hook failed"),
            (raising(Unregistered("x")), 499, "x"),
            (returning(expires_at="soon"), 403, "the authorize hook failed"),
            (returning(expires_at=None), 403, "the authorize hook failed"),
            (returning(expires_at=datetime.now(timezone.utc)), 403, "the authorize hook failed"),
            (returning(expires_at=math.nan), 403, "the authorize hook failed"),
            (returning(vmis=(5,)), 403, "the authorize hook failed"),
        ):
            with self.subTest(hook=told, status=status):
                proxy = self.start_proxy(authorize=hook)
                with self.assertLogs("wsproxy", "INFO") as logs:
                    client = self.upgrade(proxy)
                    body = json.loads(client.body())
                self.assertEqual((client.status, body["message"]), (status, told))
                self.assertIsNone(client.header("Set-Cookie"))
                self.assertEqual(len(logs.records), 2 if "hook failed" in told else 1)
                self.assertNotIn("\n2026", "".join(logs.output))
                proxy.stop_thread()

    def test_hooks_by_close(self) -> None:
        """What a hook says is one line in a Close, too, and in RFB's own message."""

        def hook(grant: Grant, request: AccessRequest) -> None:
            raise Forbidden("one\ntwo\u2028" + "\xfc" * 500)

        client = self.upgrade(self.start_proxy(authorize=hook), _ORIGIN)
        client.send_frame(BINARY, b"RFB 003.008\n")
        code, reason = client.recv_close()
        self.assertEqual(code, 4403)
        self.assertTrue(reason.startswith("forbidden: one two \xfc"), reason)

    def test_grants_of_an_application(self) -> None:
        """An application that hands over a grant of a wrong form is told which field is wrong."""
        app = ConsoleApp(Config(**self.proxy_options()))
        self.addCleanup(app.close)
        grant = Grant(5, self.namespace, ("vm",), math.inf, "login")
        for name, value in (
            ("user", None),
            ("user", True),
            ("namespace", None),
            ("vmis", "vm"),
            ("vmis", ("vm", 5)),
            ("expires_at", datetime.now(timezone.utc)),
            ("expires_at", "1700000000"),
            ("expires_at", None),
            ("expires_at", True),
            ("expires_at", math.nan),
            ("token_id", None),
            ("patterns", "no"),
            ("may_take_over", 0),
        ):
            with self.subTest(name=name, value=value), self.assertRaisesRegex(TypeError, name):
                app.connect({}, lambda *args: None, replace(grant, **{name: value}), "vm")  # type: ignore[arg-type]
