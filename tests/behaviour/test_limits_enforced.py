"""Limits end to end: what clients are told, what is logged and counted, and that everything is given back."""

from __future__ import annotations

import json
import threading
import unittest
from functools import partial
from typing import Any
from unittest import mock

from tests.support.proxy_process import wait_until
from wsproxy.access.hooks import AccessRequest
from wsproxy.exceptions import Forbidden
from wsproxy.proxy import WebsocketProxy
from wsproxy.server.gateway import Gateway
from wsproxy.telemetry.causes import LIMITS
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.testing.screen.png import encode_png
from wsproxy.tokens.claims import Grant
from wsproxy.upstream.location import DEFAULT_API_PATH

_BROWSER = "Origin: http://console.example"
_FROM = "X-Forwarded-For: {}".format
_CONSOLE = DEFAULT_API_PATH.replace("/vnc", "/console")
_SESSION_LIMITS = {"max_sessions": 1, "max_sessions_per_user": 1, "max_sessions_per_vmi": 1}


class LimitsTestCase(ProxyTestCase):
    """Has two VMs with serial consoles; every client is behind a trusted proxy, or may be."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.clients: list[RawClient] = []
        for name in ("vm", "other"):
            self.api.add_vmi(name, self.namespace)

    def start(self, **options: Any) -> WebsocketProxy:
        # No console of the vnc kind: refusals there begin with a conversation.
        given = {"reject": "close", "trusted_proxies": ["127.0.0.1"], "api_path": _CONSOLE}
        self.proxy = self.start_proxy(**(given | options))
        return self.proxy

    @property
    def gateway(self) -> Gateway:
        assert self.proxy._server is not None
        return self.proxy._server._gateway

    def open(self, vmi: str = "vm", *headers: str, token: str | None = None, **claims: Any) -> RawClient:
        """Open a session, or be refused."""
        token = token or self.token(vmi, **claims)
        client = RawClient.open(self.url(self.proxy, vmi, token), headers=headers)
        self.addCleanup(client.close)
        self.clients.append(client)
        return client

    def leave(self) -> None:
        """Let all clients leave, as they do once they have been told."""
        for client in self.clients:
            client.close()
        self.wait_until_free()

    def assert_open(self, client: RawClient) -> None:
        """Assert that a session is open, and relayed."""
        self.assertEqual(client.status, 101)
        client.send_frame(BINARY, b"x")
        self.assertEqual(client.recv_frame().opcode, BINARY)

    def assert_refused(self, client: RawClient, code: int, slug: str) -> None:
        """Assert that a client was refused by a Close."""
        self.assertEqual(client.status, 101)
        found, reason = client.recv_close()
        self.assertEqual((found, reason.partition(":")[0]), (code, slug))

    def assert_hits(self, **hits: int) -> None:
        self.assertEqual(self.gateway.limits.hits(), dict.fromkeys(LIMITS, 0) | hits)

    def wait_until_free(self) -> None:
        """Wait until no place is taken any more."""
        limits, participant = self.gateway.limits, self.gateway.participant
        free = wait_until(lambda: not limits._taken and not participant.held)
        self.assertTrue(free, f"still taken: {limits._taken}, {participant.held} sessions")


class Refusals(LimitsTestCase):
    """What a client that meets a limit is told."""

    def assert_limit(self, option: str, name: str, status: int, slug: str, vmi: str, user: int) -> None:
        """Assert that a second client is refused by that limit, in both ways, and a third is let in after."""
        options: dict[str, Any] = {option: 1}
        self.start(reject="auto", **options)
        first = self.open(user=1)
        self.assert_open(first)
        with self.assertLogs("wsproxy.connection", "INFO") as logs:
            by_http = self.open(vmi, user=user)
            by_close = self.open(vmi, _BROWSER, user=user)
            self.assert_refused(by_close, 4000 + status, slug)
        self.assertEqual(by_http.status, status)
        self.assertEqual(by_http.header("retry-after"), "5")
        body = json.loads(by_http.body())
        self.assertEqual((body["status"], body["code"], body["reason"]), (status, 4000 + status, slug))
        self.assertEqual(len([line for line in logs.output if f": {status} {slug}: " in line]), 2)
        self.assert_hits(**{name: 2})
        self.assert_open(first)
        first.close()
        self.wait_until_free()
        self.assert_open(self.open(vmi, user=user))
        self.assertEqual(self.api.connections, 2)  # nobody was dialled for who was refused

    def test_sessions(self) -> None:
        """The proxy has no room for another user's session with another VM: it is full."""
        self.assert_limit("max_sessions", "sessions", 503, "busy", "other", 2)

    def test_user(self) -> None:
        """A user has no room for a session with another VM."""
        self.assert_limit("max_sessions_per_user", "user", 429, "limit-user", "other", 1)

    def test_vmi(self) -> None:
        """A VM has no room for a session of another user."""
        self.assert_limit("max_sessions_per_vmi", "vmi", 429, "limit-vmi", "vm", 2)

    def test_others(self) -> None:
        """Another user, and another VM, have room of their own."""
        self.start(max_sessions_per_user=1, max_sessions_per_vmi=1)
        self.assert_open(self.open("vm", user=1))
        self.assert_open(self.open("other", user=2))

    def test_subresources(self) -> None:
        """The serial console of a VM is another one than its display."""
        self.start(max_sessions_per_vmi=1, subresources=["vnc"])
        self.assert_open(self.open("vm"))
        client = RawClient.open(self.url(self.proxy, "vm") + "/vnc")
        self.addCleanup(client.close)
        self.assert_open(client)

    def test_frame(self) -> None:
        """A frame that is too big ends its session with 1009, and is counted."""
        self.start(max_frame_size=65536)
        client = self.open()
        client.send_frame(BINARY, bytes(65537))
        code, reason = client.recv_close()
        self.assertEqual((code, reason.partition(":")[0]), (1009, "message-too-big"))
        client.close()
        self.assertTrue(wait_until(lambda: self.gateway.limits.hits()["frame"] == 1))


class GivenBack(LimitsTestCase):
    """A place is free again, whatever became of the session that had it."""

    def assert_free(self) -> None:
        """Assert that the only place there is is free, at once."""
        client = self.open()
        self.assert_open(client)
        client.close()
        self.wait_until_free()

    def test_page_loaded_anew(self) -> None:
        """A session that is ending is in nobody's way, but is one of all sessions until it has ended."""
        self.start(max_sessions=2, max_sessions_per_user=1, max_sessions_per_vmi=1, close_timeout=10.0)
        ending, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def answer_late(console: FakeConsole) -> None:
            console.recv_frame(None)
            ending.set()
            go_on.wait(20)

        self.api.add_vmi("vm", self.namespace, backend=Script(answer_late))
        self.open().send_close(1001)
        self.assertTrue(ending.wait(60))
        self.api.add_vmi("vm", self.namespace)
        self.assert_open(self.open())
        self.assert_refused(self.open("other", user=2), 4503, "busy")

    def test_dial_refused(self) -> None:
        """A refused dial has given its place back when the client learns of it."""
        self.start(**_SESSION_LIMITS)
        for _ in range(5):
            for _ in range(2):
                self.assert_refused(self.open("missing"), 4404, "vmi-not-found")
            self.leave()
        self.assert_free()

    def test_dial_timed_out(self) -> None:
        """So has one that came to nothing."""
        self.start(dial_timeout=1.5, **_SESSION_LIMITS)
        self.api.behaviour = Behaviour(hang=True)
        for _ in range(2):
            self.assert_refused(self.open(), 4504, "upstream-timeout")
        self.api.behaviour = Behaviour()
        self.leave()
        self.assert_free()

    def test_hook_refuses_or_fails(self) -> None:
        """What the embedding program raises leaves nothing taken, before the dial and after it."""
        errors: list[BaseException] = [Forbidden("no"), ValueError("a bug of the program")]

        def authorize(grant: Grant, request: AccessRequest) -> None:
            if errors:
                raise errors.pop()

        def on_open(session: object) -> None:
            raise ValueError("another bug of the program")

        self.start(authorize=authorize, on_open=on_open, **_SESSION_LIMITS)
        with self.assertLogs("wsproxy", "ERROR"):
            for _ in range(2):
                self.assertEqual(self.open().recv_close()[0], 4403)
            for _ in range(3):
                self.assert_free()

    def test_on_close_is_called_without_a_place(self) -> None:
        """A client may come again while the embedding program is still told of its last session's end."""
        called, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def on_close(session: object, ending: object) -> None:
            called.set()
            go_on.wait(60)

        self.start(on_close=on_close, **_SESSION_LIMITS)
        self.open().close()
        self.assertTrue(called.wait(60))
        self.assert_open(self.open())
        go_on.set()

    def test_client_is_shut_down_to_make_room(self) -> None:
        """A client that has to go right before its dial leaves nothing taken."""
        self.start(**_SESSION_LIMITS)
        with mock.patch.object(self.gateway.admission, "prove", return_value=False):
            client = RawClient(self.proxy.address)
            self.addCleanup(client.close)
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
            self.assertTrue(client.wait_for_end())
        self.wait_until_free()
        self.assert_free()

    def test_client_leaves(self) -> None:
        """A client that leaves before, in or after its 101 leaves nothing taken."""
        self.start(**_SESSION_LIMITS)
        self.open().reset()
        self.wait_until_free()
        accept = "wsproxy.protocol.handshake.Upgrade.accept"
        client = RawClient(self.proxy.address)
        self.addCleanup(client.close)

        def gone(upgrade: object, subprotocol: str | None) -> bytes:
            client.reset()
            return b"x" * 10_000_000

        with mock.patch(accept, gone):
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
            self.assertTrue(wait_until(lambda: self.api.connections == 2))
            self.wait_until_free()
        self.assert_free()

    def test_bug(self) -> None:
        """A bug of ours leaves nothing taken either, wherever it is."""
        self.start(**_SESSION_LIMITS)
        for place in (
            "wsproxy.telemetry.reports.Reports.opened",
            "wsproxy.server.session.Relay",
            "wsproxy.relay.relay.Relay.run",
        ):
            with (
                self.subTest(place=place),
                mock.patch(place, side_effect=ArithmeticError),
                self.assertLogs("wsproxy", "ERROR") as logs,
            ):
                client = RawClient(self.proxy.address)
                client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
                client.wait_for_end()
                client.close()
                self.wait_until_free()
                self.assertTrue(wait_until(lambda logs=logs: bool(logs.records)))  # type: ignore[misc]
        self.assert_free()

    def test_nobody_gets_more(self) -> None:
        """Of many clients at once as many are let in as there are places, and the others refused."""
        self.start(max_sessions=3)
        for number in range(12):
            self.api.add_vmi(f"vm-{number}", self.namespace)
        clients: list[RawClient] = []

        def come(number: int) -> None:
            clients.append(self.open(f"vm-{number}"))

        threads = [threading.Thread(target=come, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        let_in = 0
        for client in clients:
            client.send_frame(BINARY, b"x")
            let_in += client.recv_frame().opcode == BINARY
        self.assertEqual(let_in, 3)
        self.assert_hits(sessions=9)
        for client in clients:
            client.close()
        self.wait_until_free()


class PendingOfAnAddress(LimitsTestCase):
    """Connections of one address that have not authenticated."""

    def connect(self, count: int) -> list[RawClient]:
        """Connect clients that say nothing, and wait until they are counted."""
        clients = [RawClient(self.proxy.address) for _ in range(count)]
        for client in clients:
            self.addCleanup(client.close)
        self.clients += clients
        self.assertTrue(wait_until(lambda: self.taken("127.0.0.1") == count))
        return clients

    def taken(self, network: str) -> int:
        return self.gateway.limits._taken[network]

    def test_silent_clients(self) -> None:
        """With as many silent clients as there may be the next one is refused; then there is room again."""
        self.start(max_pending_per_address=3)
        silent = self.connect(3)
        self.assert_refused(self.open(), 4429, "limit-address")
        self.assert_hits(address=1)
        silent[0].close()
        self.assertTrue(wait_until(lambda: self.taken("127.0.0.1") == 2))
        self.assert_open(self.open())

    def test_sessions_are_not_pending(self) -> None:
        """Clients that have authenticated do not count."""
        self.start(max_pending_per_address=1)
        for _ in range(4):
            self.assert_open(self.open())
        self.assert_hits()

    def test_probes_are_answered(self) -> None:
        """A kubelet's probe is answered, whatever else comes from its address."""
        self.start(max_pending_per_address=1)
        self.connect(1)
        with RawClient(self.proxy.address) as probe:
            probe.send_raw(b"GET /healthz HTTP/1.1\r\nHost: proxy\r\n\r\n")
            probe.read_head()
            self.assertEqual(probe.status, 200)

    def test_no_upgrade(self) -> None:
        """A request for a page, a ticket or a picture counts and is refused as one for a console is."""
        self.start(max_pending_per_address=2, console_page=True, tickets=True, screenshots=True)
        self.connect(2)
        paths = ("/console/", "/nothing", "/console/grant", f"/{self.token('vm')}/vm/screenshot.png")
        for path in paths:
            with self.subTest(path=path[:9]), self.ask(path) as client:
                self.assertEqual(client.status, 429)
                self.assertEqual(json.loads(client.body())["reason"], "limit-address")
        self.assert_hits(address=len(paths))
        self.assertEqual(self.ask("/readyz").status, 200)
        self.assertEqual(self.ask("/nothing", _FROM("192.0.2.1")).status, 404)  # by its own address
        self.leave()
        self.assertEqual(self.ask("/nothing").status, 404)

    def test_unread_requests_that_are_no_upgrade(self) -> None:
        """Clients that take their time over such requests keep others out, as silent ones do."""
        self.start(max_pending_per_address=2, tickets=True)
        for _ in range(2):
            self.ask("/ticket", "Content-Length: 9", method="POST", answered=False)
        self.assertTrue(wait_until(lambda: self.taken("127.0.0.1") == 2))
        self.assert_refused(self.open(), 4429, "limit-address")

    def test_picture(self) -> None:
        """A client that waits for a picture has authenticated, and counts no more."""
        taking, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def screen() -> bytes:
            taking.set()
            go_on.wait(20)
            return encode_png(1, 1, bytes(3))

        self.api.add_vmi("vm", self.namespace, screen=screen)
        self.start(max_pending_per_address=1, screenshots=True)
        client = self.ask(f"/{self.token('vm')}/vm/screenshot.png", answered=False)
        self.assertTrue(taking.wait(60))
        self.assert_open(self.open("other"))
        go_on.set()
        client.read_head()
        self.assertEqual(client.status, 200)

    def ask(self, path: str, *headers: str, method: str = "GET", answered: bool = True) -> RawClient:
        """Send a request that is no upgrade."""
        client = RawClient(self.proxy.address)
        self.addCleanup(client.close)
        self.clients.append(client)
        lines = [f"{method} {path} HTTP/1.1", "Host: proxy", *headers]
        client.send_raw("\r\n".join([*lines, "", ""]).encode())
        if answered:
            client.read_head()
        return client

    def test_forwarded(self) -> None:
        """Behind a trusted proxy the address counts that it names, and not its own."""
        self.start(max_pending_per_address=1)
        self.connect(1)
        for number in range(3):
            self.assert_open(self.open("vm", _FROM(f"192.0.2.{number}")))
        self.assert_hits()
        self.assert_refused(self.open("vm", _FROM("127.0.0.1")), 4429, "limit-address")

    def test_no_thread(self) -> None:
        """A connection that no thread could be had for is counted no more."""
        self.start(max_pending_per_address=1)
        assert self.proxy._server is not None
        failure = RuntimeError("can't start new thread")
        with (
            mock.patch.object(self.proxy._server._pool, "run", side_effect=failure),
            self.assertLogs("wsproxy.server", "ERROR"),
        ):
            client = RawClient(self.proxy.address)
            self.addCleanup(client.close)
            self.assertTrue(client.wait_for_end())
            self.wait_until_free()

    def test_nothing_is_left(self) -> None:
        """Whoever was refused, let in, or left is counted no more."""
        self.start(max_pending_per_address=2)
        self.open("vm", token="x").close()
        self.open("vm", _FROM("192.0.2.1"), token="x").close()
        self.open("vm", _FROM("192.0.2.1")).close()
        self.connect(1)[0].close()
        self.wait_until_free()


class Failures(LimitsTestCase):
    """Failed attempts of one address."""

    def setUp(self) -> None:
        super().setUp()
        patcher = mock.patch("wsproxy.proxy.Gateway", partial(Gateway, clock=lambda: self.now))
        patcher.start()
        self.addCleanup(patcher.stop)

    def fail_twice(self, *headers: str) -> None:
        for _ in range(2):
            with self.open("vm", *headers, token="bad") as client:
                self.assert_refused(client, 4401, "bad-token")

    def test_good_token_does_not_help(self) -> None:
        """After too many failures nobody is let in from that address; after a while the next one is."""
        self.start(max_failures=2)
        self.fail_twice()
        for token in (None, "bad"):
            self.assert_refused(self.open("vm", token=token), 4429, "limit-failures")
        self.assert_hits(failures=2)
        self.now += 29
        self.assert_refused(self.open(), 4429, "limit-failures")
        self.now += 1
        self.assert_open(self.open())

    def test_retry_after(self) -> None:
        """The answer says when to come again."""
        self.start(max_failures=2, reject="http")
        for _ in range(2):
            self.assertEqual(self.open("vm", token="bad").status, 401)
        self.now += 10.5
        client = self.open()
        self.assertEqual((client.status, client.header("retry-after")), (429, "20"))

    def test_expired_and_missing_tokens(self) -> None:
        """A token that has expired, and none at all, are failures, too."""
        self.start(max_failures=2)
        self.assert_refused(self.open(expires_in=-5), 4401, "token-expired")
        client = RawClient.open(self.url(self.proxy, "vm", "-"))
        self.addCleanup(client.close)
        self.assert_refused(client, 4401, "bad-token")
        self.assert_refused(self.open(), 4429, "limit-failures")

    def test_what_is_no_failure(self) -> None:
        """A VM that the token does not name is none."""
        self.start(max_failures=1)
        for _ in range(3):
            self.assert_refused(self.open("vm", token=self.token("other")), 4403, "forbidden")
        self.assert_open(self.open())

    def test_each_address(self) -> None:
        """Each address has its own failures, an IPv6 client all of its /64."""
        self.start(max_failures=2)
        self.fail_twice(_FROM("192.0.2.1"))
        self.fail_twice(_FROM("2001:db8:0:1::1"))
        for address in ("192.0.2.1", "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "::ffff:192.0.2.1"):
            self.assert_refused(self.open("vm", _FROM(address)), 4429, "limit-failures")
        for address in ("192.0.2.2", "2001:db8:0:2::1"):
            self.assert_open(self.open("vm", _FROM(address)))

    def test_tickets(self) -> None:
        """Tokens for tickets count as all others do, and tickets themselves a tenth."""
        self.start(max_failures=2, tickets=True)
        self.assertEqual(self.ask_for_ticket("bad"), 401)
        self.assert_refused(self.open("vm", token="A" * 22), 4401, "bad-token")
        self.assertEqual(self.ask_for_ticket(self.token("vm")), 429)

    def ask_for_ticket(self, token: str) -> int:
        with RawClient(self.proxy.address) as client:
            client.send_raw(
                b"POST /ticket HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer " + token.encode() + b'\r\nContent-Length: 12\r\n\r\n{"vmi":"vm"}'
            )
            client.read_head()
            return client.status


if __name__ == "__main__":
    unittest.main()
