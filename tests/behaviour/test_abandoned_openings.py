"""Clients that leave while their consoles are being opened, and what is left of them."""

from __future__ import annotations

import json
import threading
import time
import unittest
from dataclasses import replace
from typing import Any, ClassVar
from unittest import mock

from tests.support.proxy_process import wait_until
from wsproxy.access.hooks import AccessRequest
from wsproxy.access.sessions import SessionHandle
from wsproxy.protocol.closing import Ending
from wsproxy.proxy import WebsocketProxy
from wsproxy.relay.poller import Poller
from wsproxy.server.gateway import Gateway
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.tokens.claims import Grant

_HANG = Behaviour(hang=True)
_LONG = 60.0  # seconds; the timeouts of the proxy
_SOON = 20.0  # seconds; far less than any timeout of the proxy's


class AbandonedCase(ProxyTestCase):
    """Opens consoles that hang, and leaves. All timeouts of the proxy are long."""

    policy: ClassVar[str] = "refuse"

    def setUp(self) -> None:
        super().setUp()
        self.vmi = self.api.add_vmi("vm", self.namespace)
        self.started = time.monotonic()

    def start(self, **options: Any) -> None:
        given: dict[str, Any] = {"console": self.policy, "show_user": True}
        given |= {"dial_timeout": _LONG, "request_timeout": _LONG}
        self.proxy: WebsocketProxy = self.start_proxy(**(given | options))

    @property
    def gateway(self) -> Gateway:
        assert self.proxy._server is not None
        return self.proxy._server._gateway

    def ask(self, user: str = "bob", vmi: str = "vm", *headers: str) -> RawClient:
        """Ask for a console, and do not wait for the answer."""
        client = RawClient(self.proxy.address)
        self.addCleanup(client.close)
        client.send_raw(RawClient.request(f"/{self.token(vmi, user=user)}/{vmi}", headers))
        return client

    def open(self, user: str = "bob", vmi: str = "vm", *headers: str) -> RawClient:
        """Ask for a console, and return the client with the answer."""
        client = self.ask(user, vmi, *headers)
        client.read_head()
        return client

    def assert_open(self, client: RawClient) -> None:
        """Assert that a session is open, and relayed."""
        self.assertEqual(client.status, 101, client.head)
        client.send_frame(BINARY, b"still here")
        self.assertEqual(client.recv_frame().payload, b"still here")

    def assert_nothing_left(self) -> None:
        """Assert that soon no connection is being served, and nothing is held."""
        self.assertTrue(wait_until(lambda: not self.proxy.connections, _SOON))
        self.assertEqual(dict(self.gateway.limits._taken), {})
        self.assertEqual(self.proxy.sessions(), [])

    def hang(self, user: str = "bob") -> RawClient:
        """Ask for the console while the API hangs, and wait until it has the request."""
        self.vmi.behaviour = _HANG
        before = len(self.api.requests)
        client = self.ask(user)
        self.api.wait_for_requests(before + 1)
        return client

    def marks(self) -> int:
        return len(self.gateway.given_up)


class ClientThatLeavesWhileItsConsoleIsOpened(AbandonedCase):
    def test_loaded_anew(self) -> None:
        """Whoever loads the page anew gets the console, whatever has become of the first opening."""
        for leave in (RawClient.close, RawClient.reset):
            for policy in ("refuse", "takeover", "passthrough"):
                with self.subTest(policy=policy, leave=leave.__name__):
                    self.start(console=policy, max_sessions_per_user=1, max_sessions_per_vmi=1)
                    leave(self.hang())
                    self.vmi.behaviour = None
                    client = self.open()
                    self.assert_open(client)
                    client.close()
                    self.assert_nothing_left()
                    self.proxy.stop_thread()
                    self.assertTrue(self.api.wait_until_idle())

    def test_while_the_api_still_hangs(self) -> None:
        """One that comes again at once is in nobody's way either, and gets it when the API recovers."""
        self.start(max_sessions_per_user=1)
        for _ in range(3):
            self.hang().close()
        client = self.hang()
        self.vmi.behaviour = None
        client.read_head()
        self.assert_open(client)

    def test_others(self) -> None:
        """What was given up keeps nobody out."""
        self.start()
        self.hang("bob").close()
        self.assertTrue(wait_until(lambda: self.marks() == 1))
        self.vmi.behaviour = None
        self.assert_open(self.open("alice"))

    def test_many(self) -> None:
        """No console is opened for clients that have left, and none of their threads is held."""
        for number in range(40):
            self.api.add_vmi(f"vm-{number}", self.namespace)
        self.start(console="passthrough")
        self.api.behaviour = _HANG
        clients = [self.ask("bob", f"vm-{number}") for number in range(40)]
        self.api.wait_for_requests(40)
        for client in clients:
            client.close()
        self.assert_nothing_left()

    def test_log(self) -> None:
        """One line says who has left."""
        self.start()
        with self.assertLogs("wsproxy.connection", "INFO") as logs:
            self.hang().close()
            self.assert_nothing_left()
        self.assertEqual(len(logs.output), 1)
        self.assertRegex(
            logs.output[0],
            r"connection \w{8}: the client left while its console was being opened: client 127.* user 'bob' ",
        )

    def test_asking_the_hook(self) -> None:
        """While the hook is asked, too: afterwards nobody is dialled, and nobody loses a console."""
        asked, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def authorize(grant: Grant, request: AccessRequest) -> None:
            if grant.user == "bob":
                asked.set()
                go_on.wait(_LONG)

        self.start(console="takeover", authorize=authorize, max_pending_per_address=1)
        alice = self.open("alice")
        self.assert_open(alice)
        client = self.ask("bob")
        self.assertTrue(asked.wait(_SOON))
        [_, opening] = self.proxy.sessions()
        client.close()
        self.assertTrue(wait_until(lambda: opening.ending is not None, _SOON))
        self.assert_open(alice)
        carol = self.open("carol", "vm", "X-Nothing: 1")  # bob's connection is in nobody's way
        self.assertEqual(carol.status, 101)
        before = len(self.api.requests)
        go_on.set()
        self.assertTrue(wait_until(lambda: len(self.proxy.sessions()) == 1, _SOON))
        self.assertEqual(len(self.api.requests), before)
        self.assert_open(carol)

    def test_waiting_for_a_console(self) -> None:
        """A client that waits for a session that is just ending is watched, too."""
        over = threading.Event()
        self.addCleanup(over.set)

        def never_answer(console: FakeConsole) -> None:
            console.wait(over, _LONG)

        self.api.add_vmi("vm", self.namespace, backend=Script(never_answer))
        self.start(close_timeout=_LONG)
        ending = self.open("alice")
        ending.send_close()
        [session] = self.proxy.sessions()
        self.assertTrue(wait_until(lambda: session.ending is not None))
        client = self.ask("bob")
        self.assertTrue(wait_until(lambda: len(self.proxy.sessions()) == 2))
        client.close()
        self.assertTrue(wait_until(lambda: self.proxy.connections == 1, _SOON))
        self.assertEqual(self.proxy.sessions(), [session])
        self.assertEqual(len(self.api.requests), 1)
        over.set()

    def test_resolving(self) -> None:
        """A name that is not resolved holds nobody who has left."""
        release, asked = threading.Event(), threading.Event()
        self.addCleanup(release.set)

        def ask(host: str, port: int) -> tuple[Any, ...]:
            asked.set()
            release.wait(_LONG)
            return ()

        self.start(remote_url=self.api.url.replace("127.0.0.1", "api.example"))
        self.gateway.resolver._ask = ask
        client = self.ask()
        self.assertTrue(asked.wait(_SOON))
        client.close()
        self.assert_nothing_left()
        self.assertEqual(self.marks(), 0)
        release.set()

    def test_never_won(self) -> None:
        """A client that leaves when the API has just opened its console has not won it."""
        self.start(console="takeover")
        alice = self.open("alice")
        self.assert_open(alice)
        dial = self.gateway.dialler.dial

        def dial_and_leave(path: str, *arguments: Any) -> Any:
            upstream = dial(path.partition("?")[0], *arguments)  # as a KubeVirt that knows no preserveSession
            bob.close()
            return upstream

        with mock.patch.object(self.gateway.dialler, "dial", dial_and_leave):
            bob = self.ask("bob")
            self.assertEqual(alice.recv_close(), (4410, "taken-over: by bob"))  # KubeVirt has dropped her
            alice.send_close(4410)
            self.assert_nothing_left()
        self.assertTrue(self.api.wait_until_idle(5))
        self.assertEqual(len(self.api.consoles), 2)

    def test_answer_of_the_api(self) -> None:
        """What the API answers to somebody who has left is not held against it, or anybody."""
        self.start()
        failed = self.proxy._server.numbers().handshakes  # type: ignore[union-attr]
        self.hang().close()
        self.assert_nothing_left()
        self.assertEqual(self.proxy._server.numbers().handshakes, failed)  # type: ignore[union-attr]


class WithoutEpoll(AbandonedCase):
    """Where the kernel tells nobody, housekeeping looks; and who is in the way is looked at in any case."""

    def setUp(self) -> None:
        super().setUp()
        patcher = mock.patch.object(Poller, "available", False)
        patcher.start()
        self.addCleanup(patcher.stop)

    def test_loaded_anew(self) -> None:
        self.start(max_sessions_per_user=1)
        self.hang().close()
        self.vmi.behaviour = None
        self.assert_open(self.open())

    def test_left(self) -> None:
        self.start()
        self.hang().close()
        self.assert_nothing_left()

    def test_no_more_descriptors(self) -> None:
        """The same where the system lets the poller watch no more."""
        with mock.patch.object(Poller, "available", True):
            self.start()
        watch = Poller.watch

        def refuse(poller: Poller, watched: Any, *, end_only: bool = False) -> None:
            if end_only:
                raise OSError("no space left on device")
            watch(poller, watched)

        with mock.patch.object(Poller, "watch", refuse):
            self.hang().close()
            self.assert_nothing_left()


class OpeningThatWasGivenUp(AbandonedCase):
    """The API has the request, and carries it out when it recovers."""

    policy = "takeover"

    def alice(self) -> RawClient:
        client = self.open("alice")
        self.assert_open(client)
        return client

    def test_nobody_is_thrown_out(self) -> None:
        """bob's opening says that nobody is to be: when he has left, alice goes on, now and later."""
        self.start()
        alice = self.alice()
        self.hang("bob").close()
        self.assertTrue(wait_until(lambda: self.marks() == 1))
        self.assert_hangs_not(alice)
        self.vmi.behaviour = None
        self.assert_open(alice)
        self.assertEqual(len(self.api.consoles), 1)
        self.assertTrue(all("preserveSession=true" in request.target for request in self.api.requests))

    def assert_hangs_not(self, client: RawClient) -> None:
        client.send_frame(BINARY, b"x")
        client.recv_frame()

    def test_older_kubevirt(self) -> None:
        """Where KubeVirt does not know that, alice is told that bob took her console over."""
        self.api.kubevirt_version = "v1.6.2"
        self.start()
        alice = self.alice()
        self.hang("bob").close()
        self.assertTrue(wait_until(lambda: self.marks() == 1))
        self.vmi.behaviour = None
        self.assertEqual(alice.recv_close(), (4410, "taken-over: by bob"))

    def test_serial_console(self) -> None:
        """Nor does KubeVirt know it of serial consoles, whatever the rule is."""
        for policy in ("takeover", "refuse"):
            with self.subTest(policy=policy):
                self.start(console=policy, api_path=self.console_path())
                self.hang("bob").close()
                self.assertTrue(wait_until(lambda: self.marks() == 1))
                self.vmi._behaviour = None  # the hung one is not carried out yet
                alice = self.alice()
                self.vmi.behaviour = None
                self.assertEqual(alice.recv_close(), (4410, "taken-over: by bob"))
                self.proxy.stop_thread()

    def console_path(self) -> str:
        path: str = self.proxy_options()["api_path"]
        return path.replace("/vnc", "/console")

    def test_time_out(self) -> None:
        """An opening that timed out is one, too."""
        self.api.kubevirt_version = "v1.6.2"
        self.start(dial_timeout=1.5)
        alice = self.alice()
        bob = self.hang("bob")
        bob.read_head()
        self.assertEqual(bob.status, 504)
        self.vmi.behaviour = None
        self.assertEqual(alice.recv_close(), (4410, "taken-over: by bob"))

    def test_closed_by_the_api(self) -> None:
        """When the API has closed the connection, a loss is a loss again."""
        self.start()
        alice = self.alice()
        self.hang("bob").close()
        self.assertTrue(wait_until(lambda: self.marks() == 1))
        self.vmi.behaviour = None
        store = self.gateway.participant.store
        assert isinstance(store, MemoryStore)
        [place] = store._state._openings._places.values()
        self.assertTrue(wait_until(lambda: not place.marks, _SOON))
        self.vmi.drop_sessions()
        self.assertEqual(alice.recv_close()[0], 1011)

    def test_own_marks_do_not_keep_a_console(self) -> None:
        """A mark makes nobody wait, and the console of whoever comes is told of by it."""
        self.start(console="refuse")
        self.hang("bob").close()
        self.assertTrue(wait_until(lambda: self.marks() == 1))
        self.vmi._behaviour = None
        for user in ("bob", "alice"):
            client = self.open(user)
            self.assert_open(client)
            client.close()

    def test_stop(self) -> None:
        """A stop waits for none of them."""
        self.start()
        self.hang("bob").close()
        self.assertTrue(wait_until(lambda: self.marks() == 1))
        self.proxy.stop_thread()


class Takeover(AbandonedCase):
    """A newcomer gets a display without throwing out anybody but our own holder."""

    policy = "takeover"

    def alice(self) -> RawClient:
        client = self.open("alice")
        self.assert_open(client)
        return client

    def test_display(self) -> None:
        """KubeVirt is asked; it says that the display is in use; alice is told, and bob gets it."""
        for version in ("v1.6.2", "v1.6.3", "v1.7.1"):
            with self.subTest(version=version):
                self.api.kubevirt_version = version
                self.start()
                alice = self.alice()
                bob = self.open("bob")
                self.assertEqual(alice.recv_close(), (4410, "taken-over: by bob"))
                self.assert_open(bob)
                self.assertTrue(all("preserve" in request.target for request in self.api.requests))
                self.proxy.stop_thread()

    def test_client_that_does_not_go(self) -> None:
        """bob does not wait for alice's client to answer the Close."""
        self.start(close_timeout=_LONG)
        self.alice()
        self.assert_open(self.open("bob"))
        self.assertLess(time.monotonic() - self.started, _SOON)

    def test_somebody_elses(self) -> None:
        """A display that somebody has by another way is taken, as the rule is that newcomers get it."""
        self.vmi.in_use = True
        self.start()
        self.assert_open(self.open("bob"))
        self.assertEqual(
            [request.target.partition("?")[2] for request in self.api.requests], ["preserveSession=true", ""]
        )

    def test_refused(self) -> None:
        """Whatever else KubeVirt says, or does not say, alice keeps her console."""
        self.start(dial_timeout=1.5)
        alice = self.alice()
        for behaviour, phase, status in (
            (None, "Failed", 409),
            (_HANG, "Running", 504),
            (Behaviour(raw=b"nonsense"), "Running", 502),
        ):
            with self.subTest(status=status):
                self.vmi._behaviour, self.vmi.phase = behaviour, phase
                self.assertEqual(self.open("bob").status, status)
                self.vmi._behaviour = None
                self.assert_open(alice)


class EndedByTheProgram(AbandonedCase):
    """A logout, or a kick, finds the openings that are not finished."""

    def test_dialling(self) -> None:
        """One that is being dialled is in the list, and is refused as an open session would be ended."""
        self.start(reject="close")
        client = self.hang("bob")
        [session] = self.proxy.sessions()
        self.assertEqual((session.user, session.vmi, session.is_open), ("bob", "vm", False))
        self.assertEqual((session.bytes_up, session.bytes_down, session.ending), (0, 0, None))
        self.assertIn("being opened", repr(session))
        for each in self.proxy.sessions():
            each.close(4999, "logged out")
        client.read_head()
        client.recv_frame()
        client.send_frame(BINARY, b"RFB 003.008\n")
        self.assertEqual(client.recv_close(), (4999, "logged out"))
        client.close()
        self.assert_nothing_left()
        self.assertEqual(session.ending, Ending("proxy", 4999, "logged out"))

    def test_by_http(self) -> None:
        """A client that is no browser is told by HTTP."""
        self.start()
        client = self.hang("bob")
        self.assertEqual(self.proxy.end_sessions(user="bob"), 1)
        client.read_head()
        self.assertEqual(client.status, 403)
        answer = json.loads(client.body())
        self.assertEqual((answer["code"], answer["reason"]), (4499, "kicked"))
        self.assert_nothing_left()

    def test_asking_the_hook(self) -> None:
        """One that the hook is asked about is, too, and nobody is dialled for it."""
        asked, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def authorize(grant: Grant, request: AccessRequest) -> None:
            asked.set()
            go_on.wait(_LONG)

        self.start(authorize=authorize)
        client = self.ask("bob")
        self.assertTrue(asked.wait(_SOON))
        self.assertEqual(self.proxy.end_sessions(user="bob", vmi="vm", namespace=self.namespace), 1)
        go_on.set()
        client.read_head()
        self.assertEqual(client.status, 403)
        self.assertEqual(self.api.connections, 0)

    def test_waiting_for_a_console(self) -> None:
        """One that waits for a console waits no more."""
        over = threading.Event()
        self.addCleanup(over.set)
        self.api.add_vmi("vm", self.namespace, backend=Script(lambda console: console.wait(over, _LONG)))
        self.start(close_timeout=_LONG)
        self.open("alice").send_close()
        [alice] = self.proxy.sessions()
        self.assertTrue(wait_until(lambda: alice.ending is not None))
        client = self.ask("bob")
        self.assertTrue(wait_until(lambda: len(self.proxy.sessions()) == 2))
        self.assertEqual(self.proxy.end_sessions(user="bob"), 1)
        client.read_head()
        self.assertEqual(client.status, 403)
        over.set()

    def test_which(self) -> None:
        """Those that all of it is true of end, open or not; without a choice nobody does."""
        self.api.add_vmi("other", self.namespace)
        self.start(console="passthrough")
        alice, bob = self.open("alice", "other"), self.hang("bob")
        for wrong in ({}, {"user": None}, {"code": 4499}):
            with self.assertRaises(TypeError):
                self.proxy.end_sessions(**wrong)
        with self.assertRaises(ValueError):
            self.proxy.end_sessions(user="alice", code=1005)
        self.assertEqual(self.proxy.end_sessions(user="alice", vmi="vm"), 0)
        self.assertEqual(self.proxy.end_sessions(namespace="other"), 0)
        self.assert_open(alice)
        token_id = next(one for one in self.proxy.sessions() if one.user == "alice").grant.token_id
        self.assertEqual(self.proxy.end_sessions(token_id=token_id, code=4000, reason="bye"), 1)
        self.assertEqual(alice.recv_close(), (4000, "bye"))
        alice.send_close(4000)
        self.assertTrue(wait_until(lambda: len(self.proxy.sessions()) == 1))
        self.vmi.behaviour = None
        bob.read_head()
        self.assert_open(bob)
        self.assertEqual(self.proxy.end_sessions(namespace=self.namespace), 1)
        self.proxy.stop_thread()
        self.assertEqual(self.proxy.end_sessions(namespace=self.namespace), 0)

    def test_same_handle(self) -> None:
        """The handle of an opening is that of the session which comes of it."""
        opened: list[SessionHandle] = []
        self.start(on_open=opened.append)
        client = self.hang("bob")
        [session] = self.proxy.sessions()
        self.vmi.behaviour = None
        client.read_head()
        self.assert_open(client)
        self.assertEqual((self.proxy.sessions(), opened), ([session], [session]))
        self.assertTrue(session.is_open)
        self.assertGreater(session.bytes_up, 0)

    def test_narrowed_grant(self) -> None:
        """It has what the hook has left of the grant."""

        def authorize(grant: Grant, request: AccessRequest) -> Grant:
            return replace(grant, expires_at=grant.expires_at - 100)

        self.start(authorize=authorize)
        self.assert_open(self.open("bob"))
        [session] = self.proxy.sessions()
        assert session.grant.token_key
        self.assertAlmostEqual(session.grant.token_key.expires_at, session.grant.expires_at + 100)

    def test_stop(self) -> None:
        """A stop still says that the proxy is stopping."""
        self.start()
        client = self.hang("bob")
        self.proxy.stop_thread()
        client.read_head()
        self.assertEqual((client.status, json.loads(client.body())["reason"]), (503, "draining"))


if __name__ == "__main__":
    unittest.main()
