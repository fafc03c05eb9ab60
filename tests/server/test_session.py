"""A session: what it offers and answers, what it logs, and when it ends by itself."""

from __future__ import annotations

import gc
import math
import socket
import threading
import time
import unittest
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

from websocket import WebSocket

from tests.support.jws import signed_token
from tests.support.proxy_process import wait_until
from wsproxy.config import Config
from wsproxy.exceptions import Draining, Refused, TransportClosed
from wsproxy.net.transport import PlainTransport
from wsproxy.protocol.client import Client, Peer
from wsproxy.protocol.handshake import Upgrade
from wsproxy.protocol.request import HeadReader, RequestHead
from wsproxy.protocol.routing import subresource_of
from wsproxy.relay.relay import Relay
from wsproxy.runtime.deadline import Deadline
from wsproxy.runtime.timers import Housekeeping
from wsproxy.server.gateway import Gateway
from wsproxy.server.opening import Opened
from wsproxy.server.session import OpenSession, Session
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, PING, PONG, encode_frame
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.rfb.raw_client import RawClient


def _read_to_the_end(console: FakeConsole) -> None:
    while True:
        console.recv_frame()


def parsed(target: str, *headers: str) -> RequestHead:
    head = HeadReader().feed(RawClient.request(target, headers))
    assert head is not None
    return head


PEER = Peer.at("192.0.2.1", 1)


class Subprotocols(ProxyTestCase):
    """What is offered upstream and answered to the client."""

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace, backend=Script(_read_to_the_end))
        self.proxy = self.start_proxy()

    def test_table(self) -> None:
        """The client's are offered, less any that carries a token; the answer is one that it offered."""
        plain, bearer = "plain.kubevirt.io", "base64url.bearer.example.c2VjcmV0"
        for offered, choice, passed, answered in (
            ("", None, [plain], None),
            ("binary", None, ["binary", plain], "binary"),
            ("BINARY", None, ["BINARY", plain], "BINARY"),
            (plain, None, [plain], plain),
            (f"binary, {plain}", None, ["binary", plain], plain),
            (f"{bearer}, {plain}", None, [plain], plain),
            (f"{bearer}, binary", None, ["binary", plain], "binary"),
            ("chat", None, ["chat", plain], None),
            ("chat, binary", "chat", ["chat", "binary", plain], "chat"),
            ("Chat", "chat", ["Chat", plain], "Chat"),
        ):
            with self.subTest(offered=offered, choice=choice):
                self.api.behaviour = Behaviour(subprotocol=choice)
                headers = [f"Sec-WebSocket-Protocol: {offered}"] if offered else []
                before = len(self.api.requests)
                client = RawClient.open(self.url(self.proxy, "vm"), headers=headers)
                self.addCleanup(client.close)
                self.assertEqual(client.status, 101)
                self.assertEqual(client.header("sec-websocket-protocol"), answered)
                self.assertEqual(self.api.requests[before].tokens("sec-websocket-protocol"), passed)
                client.close()

    def test_several_headers(self) -> None:
        """Subprotocols in several header lines are one list."""
        headers = ["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: binary"]
        client = RawClient.open(self.url(self.proxy, "vm"), headers=headers)
        self.addCleanup(client.close)
        self.assertEqual(client.header("sec-websocket-protocol"), "binary")

    def test_bytes_with_either_handshake(self) -> None:
        """Bytes in the same segment as either handshake are delivered."""
        greeting = encode_frame(BINARY, b"RFB 003.008\n")
        self.api.behaviour = Behaviour(early=greeting)
        early = encode_frame(BINARY, b"early", mask=b"mask")
        client = RawClient.open(self.url(self.proxy, "vm"), early=early)
        self.addCleanup(client.close)
        self.assertEqual(client.recv_frame().raw, greeting)
        console = self.api.consoles[-1]
        deadline = Deadline(10)
        while console.bytes_received < len(early):
            console.ended.wait(min(0.005, deadline.remaining()))
        self.assertEqual(console.bytes_received, len(early))


class Log(ProxyTestCase):
    """One line at the open, one at the end."""

    tls = False

    def test_two_lines(self) -> None:
        """A session is logged when it opens and when it ends, with who, what, why and how much."""
        self.api.add_vmi("vm", self.namespace)
        proxy, token = self.start_proxy(), self.token("vm", user="eve")
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            client = RawClient.open(self.url(proxy, "vm", token))
            self.addCleanup(client.close)
            sent = client.send_frame(BINARY, b"hello")
            client.recv_frame()
            client.send_close(3001, "good bye")
            client.recv_close()
            client.wait_for_end()
            proxy.stop_thread()
        opened, ended = logs.output
        self.assertRegex(
            opened, r"session [0-9a-f]{8} opened: client 127\.0\.0\.1:\d+ user 'eve' vmi lab-1/vm\Z"
        )
        self.assertRegex(
            ended, r"session [0-9a-f]{8} ended: by client code 3001 'good bye' after \d+\.\d s, "
        )
        up = len(sent) + 2 + 4 + 2 + len("good bye")
        self.assertIn(f"{up} bytes up", ended)
        self.assertNotIn(token, "".join(logs.output))

    def test_reason_of_a_peer_is_quoted(self) -> None:
        """A peer's reason cannot forge a line of the log."""
        self.api.add_vmi("vm", self.namespace)
        proxy = self.start_proxy()
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            client = RawClient.open(self.url(proxy, "vm"))
            self.addCleanup(client.close)
            client.send_close(3001, "x\nINFO forged\x1b[2J")
            client.recv_close()
            client.wait_for_end()
            proxy.stop_thread()
        self.assertNotIn("\n", logs.output[-1])
        self.assertNotIn("\x1b", logs.output[-1])

    def test_user_is_quoted(self) -> None:
        """A user's name from a token cannot either."""
        self.api.add_vmi("vm", self.namespace)
        proxy = self.start_proxy()
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            RawClient.open(self.url(proxy, "vm", self.token("vm", user="x' vmi lab-1/forged"))).close()
            proxy.stop_thread()
        self.assertIn('user "x\' vmi lab-1/forged" vmi lab-1/vm', logs.output[0])


class Claims(ProxyTestCase):
    """What the settings make of a token's claims."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        for name in ("web-1", "db-1"):
            self.api.add_vmi(name, self.namespace)

    def status(self, vmi: str, claims: dict[str, Any], **options: Any) -> int:
        """Return the HTTP status that a client with these claims gets from a proxy with these options."""
        proxy = self.start_proxy(**options)
        with RawClient.open(self.url(proxy, vmi, signed_token(claims, SECRET))) as client:
            return client.status

    def claims(self, *vmis: str) -> dict[str, Any]:
        return {"id": 5, "lab_instance": {"namespace_name": self.namespace, "allowed_vmi_names": vmis}}

    def test_eternal(self) -> None:
        """A token without exp opens a session where the operator allows it, and nowhere else."""
        self.assertEqual(self.status("web-1", self.claims("web-1")), 401)
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            proxy = self.start_proxy(allow_eternal_tokens=True, ping_interval=2.0)
            token = signed_token(self.claims("web-1"), SECRET)
            with RawClient.open(self.url(proxy, "web-1", token)) as client:
                self.assertEqual(client.status, 101)
                self.assertEqual(client.recv_frame().opcode, PING)  # the housekeeping has come by
                client.send_close(3001)
                client.recv_close()
                client.wait_for_end()
            proxy.stop_thread()
        self.assertIn("code 3001", logs.output[-1])

    def test_patterns(self) -> None:
        """A star opens VMs where the operator allows it, and nowhere else."""
        claims = self.claims("web-*") | {"exp": 4102444800}
        self.assertEqual(self.status("web-1", claims), 403)
        self.assertEqual(self.status("web-1", claims, allow_vmi_patterns=True), 101)
        self.assertEqual(self.status("db-1", claims, allow_vmi_patterns=True), 403)

    def test_namespaces(self) -> None:
        """A namespace that is not served is forbidden, whatever the token says."""
        claims = self.claims("web-1") | {"exp": 4102444800}
        self.assertEqual(self.status("web-1", claims, namespaces=["lab-2"]), 403)
        self.assertEqual(self.status("web-1", claims, namespaces=["lab-2", self.namespace]), 101)

    def test_mapping(self) -> None:
        """Tokens of another issuer open VMs where they say so."""
        options = {
            "issuer": "https://a.example",
            "audience": ["consoles"],
            "claim_namespace": "/kubernetes.io/namespace",
            "claim_vmis": "/vmis",
        }
        claims = {
            "iss": "https://a.example",
            "aud": "consoles",
            "sub": "eve",
            "exp": 4102444800,
            "kubernetes.io": {"namespace": self.namespace},
            "vmis": ["web-1"],
        }
        self.assertEqual(self.status("web-1", claims, **options), 101)
        self.assertEqual(self.status("db-1", claims, **options), 403)
        self.assertEqual(self.status("web-1", claims | {"aud": "others"}, **options), 401)
        self.assertEqual(self.status("web-1", claims), 401)


class Alone(ProxyTestCase):
    """A session without a server around it."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace, backend=Script(_read_to_the_end))
        options = self.proxy_options(dial_timeout=1.5)
        self.config = Config(**options)
        self.gateway = Gateway(self.config)
        self.addCleanup(self.gateway.stop_resolving)
        self.session = Session(self.gateway, PEER)
        self.addCleanup(self.session.close)
        near, far = socket.socketpair()
        self.transport = PlainTransport(near)
        self.addCleanup(far.close)
        self.addCleanup(self.transport.close)

    def open(
        self, head: RequestHead | None = None, on_authorised: Callable[[], None] = lambda: None
    ) -> Opened:
        head = head or parsed(f"/{self.token('vm')}/vm", "Sec-WebSocket-Protocol: binary")
        return self.session.open(
            head, Upgrade(head), Client(PEER), Deadline(5), on_authorised, None, self.transport
        )

    def test_open(self) -> None:
        """What has been opened says what to answer."""
        self.assertEqual(self.open().subprotocol, "binary")
        self.session.close()
        self.session.close()
        self.assertTrue(self.api.wait_until_idle())

    def test_end_before_open(self) -> None:
        """A session that was told to stop before it dials is refused as draining, and dials nobody."""
        self.session.stop()
        with self.assertRaises(Draining):
            self.open()
        self.assertEqual(self.api.connections, 0)

    def test_refusal_before_the_dial(self) -> None:
        """Whatever is wrong with the request is told before anybody is dialled."""
        for target in ("/x", "/garbage/vm", f"/{self.token('other')}/vm", f"/{self.token('vm')}/VM", "/-/vm"):
            head = parsed(target)
            with self.subTest(target=target[:10]), self.assertRaises(Refused):
                self.open(head)
        self.assertEqual(self.api.connections, 0)

    def test_order(self) -> None:
        """Authorised comes before the dial: what is raised then ends the opening, and nothing was dialled."""
        head = parsed(f"/{self.token('vm')}/vm")
        on_authorised = mock.Mock(side_effect=TransportClosed("shut down"))
        with self.assertRaises(TransportClosed):
            self.open(head, on_authorised)
        on_authorised.assert_called_once_with()
        self.assertEqual(self.api.connections, 0)

    def test_ids_differ(self) -> None:
        """Every session has an id of its own, from the start."""
        self.assertEqual(len({Session(self.gateway, PEER).id for _ in range(100)}), 100)

    def test_rfb_expected(self) -> None:
        """A vnc route speaks RFB, another one does not, and an unknown one is taken for the default."""
        base = self.config.api_path.rpartition("/")[0]
        options = self.proxy_options(subresources=("vnc", "console"))
        for api_path, target, expected in (
            (f"{base}/vnc", "/t/vm", True),
            (f"{base}/vnc", "/t/vm/vnc", True),
            (f"{base}/vnc", "/t/vm/console", False),
            (f"{base}/vnc", "/-/lab-1/vm/console", False),
            (f"{base}/vnc", "/-/lab-1/console", True),
            (f"{base}/vnc", "/t/vm/usbredir", False),
            (f"{base}/vnc", "/nonsense", True),
            (f"{base}/console", "/t/vm", False),
            (f"{base}/console", "/t/vm/vnc", True),
            (f"{base}/console", "/-/lab-1/vm/vnc", True),
            (f"{base}/console", "/nonsense", False),
        ):
            with self.subTest(api_path=api_path[-8:], target=target):
                config = Config(**{**options, "api_path": api_path})
                self.assertIs(subresource_of(target, config.routes) == "vnc", expected)


class Memory(ProxyTestCase):
    """What is left of a session."""

    def test_freed_without_the_collector(self) -> None:
        """What a session leaves goes at once: collecting it would take a tenth of the time of an opening."""
        made: list[weakref.ref[object]] = []

        def noted(kind: type) -> mock._patch[object]:
            init = kind.__init__  # type: ignore[misc]

            def note(thing: object, *args: Any, **options: Any) -> None:
                made.append(weakref.ref(thing))
                init(thing, *args, **options)

            return mock.patch.object(kind, "__init__", note)

        self.api.add_vmi("vm", self.namespace)
        proxy = self.start_proxy()
        gc.disable()
        self.addCleanup(gc.enable)
        with noted(Session), noted(OpenSession), noted(Relay), noted(WebSocket):
            for _ in range(3):
                client = RawClient.open(self.url(proxy, "vm", self.token("vm")))
                self.addCleanup(client.close)
                client.send_frame(BINARY, b"echo")
                client.recv_frame()
                client.send_close(1000)
                client.wait_for_end()
        self.assertEqual(len(made), 12)
        self.assertTrue(wait_until(lambda: not any(one() for one in made)), [one() for one in made])


class Lifetimes(ProxyTestCase):
    """Each lifetime of a session, with a clock that the test moves; the client is told code and reason."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.api.add_vmi("vm", self.namespace)
        patcher = mock.patch("wsproxy.proxy.Gateway", partial(Gateway, clock=lambda: self.now))
        patcher.start()
        self.addCleanup(patcher.stop)

    def open(self, **options: Any) -> RawClient:
        self.proxy = self.start_proxy(ping_interval=86399, **options)
        client = RawClient.open(self.url(self.proxy, "vm", self.token("vm", expires_in=5000)))
        self.addCleanup(client.close)
        self.assertEqual(client.status, 101)
        self.exchange(client)
        return client

    def exchange(self, client: RawClient, opcode: int = BINARY) -> None:
        """Let a frame go up and come back: the relay has begun, and both have been counted."""
        client.send_frame(opcode, b"x")
        self.assertEqual(client.recv_frame().opcode, PONG if opcode == PING else opcode)

    def pass_time(self, seconds: float) -> None:
        """Let time pass and the housekeeping do all that is due."""
        self.now += seconds
        done = threading.Event()
        assert self.proxy._server is not None
        housekeeping = self.proxy._server._gateway.housekeeping
        last = _Last(housekeeping, done)
        housekeeping.add(last, 1.0)
        housekeeping.wake(last)  # unlike add it wakes the thread, whatever else is due
        self.assertTrue(done.wait(60))

    def assert_ends(self, client: RawClient, code: int, reason: str) -> None:
        """Assert that a session was ended with that, is logged so, and that nothing of it is left."""
        self.assertEqual(client.recv_close(), (code, reason))
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            client.send_close(code)
            self.assertTrue(client.wait_for_end())
            self.assertTrue(self.api.wait_until_idle())
            self.proxy.stop_thread()
        self.assertIn(f"ended: by proxy code {code} {reason!r} ", logs.output[0])
        self.assertEqual(self.api.consoles[-1].close_received, (1000, ""))
        self.assertEqual(self.proxy.connections, 0)

    def test_expired(self) -> None:
        """A session ends when its token expires, not before."""
        client = self.open()
        self.pass_time(4990)
        self.exchange(client)
        self.pass_time(10)
        self.assert_ends(client, 4411, "expired: the token's time is over")

    def test_grace(self) -> None:
        """With grace it goes on for so long, and the reason says so."""
        client = self.open(grace=60)
        self.pass_time(5050)
        self.exchange(client)
        self.pass_time(10)
        self.assert_ends(client, 4411, "expired: the token's time is over, and 60 s of grace")

    def test_endless_grace(self) -> None:
        """With endless grace it goes on for ever."""
        client = self.open(grace=math.inf)
        self.pass_time(80_000)
        self.exchange(client)
        client.close()

    def test_max_age(self) -> None:
        """A session ends at its maximum age, however busy it is."""
        client = self.open(max_age=600)
        for _ in range(6):
            self.pass_time(99)
            self.exchange(client)
        self.pass_time(6)
        self.assert_ends(client, 4412, "max-age: a session lasts 600 s at most")

    def test_idle(self) -> None:
        """A session ends when its client has sent no data for long enough; data keeps it open."""
        client = self.open(idle_timeout=60)
        for _ in range(5):
            self.pass_time(50)
            self.exchange(client)
        self.pass_time(50)  # the last data is noticed
        self.pass_time(59)
        self.exchange(client)
        self.pass_time(59)
        self.pass_time(60)
        self.assert_ends(client, 4408, "idle: the client sent no data for 60 s")

    def test_what_is_no_data(self) -> None:
        """Pings of the client, its pongs, and all that the console sends are no data of the client's."""
        client = self.open(idle_timeout=60)
        console = self.api.consoles[-1]
        self.pass_time(6)  # what has been sent already is noticed
        for _ in range(5):
            self.pass_time(10)
            self.exchange(client, PING)
            client.send_frame(PONG, b"x")
            console.send_frame(BINARY, bytes(5000))
            self.assertEqual(client.recv_frame().opcode, BINARY)
            self.exchange(client, PING)  # the pong has been read
        self.pass_time(10)
        self.assert_ends(client, 4408, "idle: the client sent no data for 60 s")

    def test_parts_of_a_frame_are_data(self) -> None:
        """A client that is still sending a frame sends data."""
        client = self.open(idle_timeout=60)
        frame = encode_frame(BINARY, bytes(100), mask=b"mask")
        before = self.api.consoles[-1].bytes_received
        for at in range(0, 100, 20):
            self.pass_time(50)
            client.send_raw(frame[at : at + 20])
            deadline = Deadline(10)
            while self.api.consoles[-1].bytes_received < before + at + 20:
                self.api.consoles[-1].ended.wait(min(0.005, deadline.remaining()))
        self.pass_time(50)
        client.send_raw(frame[100:])
        self.assertEqual(client.recv_frame().opcode, BINARY)
        client.close()


class _Last:
    """Tells when the housekeeping has done all that was due before it."""

    def __init__(self, housekeeping: Housekeeping, done: threading.Event) -> None:
        self._housekeeping = housekeeping
        self._done = done

    def tick(self, now: float) -> float:
        self._housekeeping.remove(self)
        self._done.set()
        return now


class Expiry(ProxyTestCase):
    """Tokens whose time is odd."""

    tls = False

    def test_long_lived_token(self) -> None:
        """A token that is good for very long does not disturb the housekeeping."""
        self.api.add_vmi("vm", self.namespace)
        proxy = self.start_proxy(ping_interval=1.0)
        for seconds in (1e9, 1e15, 1e300):
            with self.subTest(seconds=seconds):
                token = self.token("vm", expires_in=seconds)
                client = RawClient.open(self.url(proxy, "vm", token))
                self.addCleanup(client.close)
                if client.status == 101:
                    self.assertEqual(client.recv_frame().opcode, 9)
                else:
                    self.assertEqual(client.status, 401)
                client.close()

    def test_token_expires_during_the_dial(self) -> None:
        """A token that expires while the console is opened ends the session right away."""
        self.api.add_vmi("vm", self.namespace, behaviour=Behaviour(drip=0.012))
        proxy = self.start_proxy()
        started = time.monotonic()
        client = RawClient.open(self.url(proxy, "vm", self.token("vm", expires_in=1.2)))
        self.addCleanup(client.close)
        if client.status == 101:
            self.assertEqual(client.recv_close(20)[0], 4411)
        self.assertLess(time.monotonic() - started, 20)


if __name__ == "__main__":
    unittest.main()
