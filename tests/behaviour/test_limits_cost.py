"""Limits hold for what things cost, and for as long as they do: nothing is given back before it is gone."""

from __future__ import annotations

import threading
import unittest
from typing import Any
from unittest import mock

from tests.behaviour.test_limits_enforced import LimitsTestCase
from tests.support.proxy_process import wait_until
from wsproxy.net.transport import PlainTransport
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.values import Event, EventKind
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.rfb.raw_client import RawClient

_MOST = 2
_LONG = 20.0  # seconds; longer than any of these tests takes
_SHORT = 0.5  # seconds that a newcomer waits for an end that does not come


class LimitGivenBackBeforeItsCostIsGone(LimitsTestCase):
    """A client that does not let its sessions end has no more of them than twice the limit."""

    def setUp(self) -> None:
        super().setUp()
        self.over = threading.Event()
        self.addCleanup(self.over.set)
        for number in range(4 * _MOST):
            self.api.add_vmi(f"vm-{number}", self.namespace, backend=Script(self.never_answer))

    def never_answer(self, console: FakeConsole) -> None:
        console.wait(self.over, _LONG)

    def start_slow(self, **options: Any) -> None:
        self.start(close_timeout=_LONG, request_timeout=_SHORT, **options)

    @property
    def store(self) -> MemoryStore:
        store = self.gateway.participant.store
        assert isinstance(store, MemoryStore)
        return store

    def open_and_break(self, vmi: str, **claims: Any) -> RawClient:
        """Open a session, break the protocol, and stay without answering the Close."""
        client = self.open(vmi, **claims)
        self.assertEqual(client.status, 101)
        client.send_raw(b"\x82\x01x")  # not masked
        self.assertEqual(client.recv_close()[0], 1002)
        return client

    def test_user_that_breaks_the_protocol(self) -> None:
        """A user has as many ending sessions as may be open; with more of them no further one is let in.

        A session that ends counts until both of its legs are closed. Only the same console inherits its slot;
        whoever wants another one waits for its end, within the request's deadline.
        """
        self.start_slow(max_sessions_per_user=_MOST)
        for number in range(_MOST):
            self.open_and_break(f"vm-{number}")
        self.assert_refused(self.open(f"vm-{_MOST}"), 4429, "limit-user")
        for number in range(_MOST):
            self.open_and_break(f"vm-{number}")
        for number in range(2 * _MOST):
            self.assert_refused(self.open(f"vm-{number}"), 4429, "limit-user")
        self.assertEqual(self.gateway.participant.held, 2 * _MOST)  # of which KubeVirt has dropped half

    def test_console_of_many_users(self) -> None:
        """The same holds for one console: only its own users inherit the slots of their sessions."""
        self.start_slow(max_sessions_per_vmi=_MOST)
        self.api.add_vmi("vm", self.namespace, backend=Script(self.never_answer))
        for user in range(_MOST):
            self.open_and_break("vm", user=user)
        self.assert_refused(self.open("vm", user=_MOST), 4429, "limit-vmi")
        for user in range(_MOST):
            self.open_and_break("vm", user=user)
        for user in range(2 * _MOST):
            self.assert_refused(self.open("vm", user=user), 4429, "limit-vmi")
        self.assertEqual(self.gateway.participant.held, 2 * _MOST)  # of which KubeVirt has dropped half

    def test_room_again(self) -> None:
        """When one of them is over, whoever waits for that is let in; waiting costs no slot."""
        self.start(max_sessions_per_user=_MOST, close_timeout=_LONG, request_timeout=_LONG)
        clients = [self.open_and_break(f"vm-{number}") for number in range(_MOST)]
        newcomer = RawClient(self.proxy.address)
        self.addCleanup(newcomer.close)
        newcomer.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
        self.assertTrue(wait_until(lambda: self.store.sizes["waiters"] == 1))
        self.assertEqual(self.api.live, _MOST)
        clients[0].close()
        self.over.set()
        newcomer.read_head()
        self.assert_open(newcomer)
        self.assertEqual(self.store.sizes["waiters"], 0)

    def test_waiting_client_leaves(self) -> None:
        """A client that leaves while it waits for a slot holds nothing, and nobody waits for it."""
        self.start(max_sessions_per_user=1, close_timeout=_LONG, request_timeout=_LONG)
        self.open_and_break("vm-0")
        newcomer = RawClient(self.proxy.address)
        newcomer.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
        self.assertTrue(wait_until(lambda: self.store.sizes["waiters"] == 1))
        newcomer.close()
        self.assertTrue(wait_until(lambda: self.gateway.participant.held == 1))
        self.assertEqual(self.api.connections, 1)

    def test_both_legs_are_closed(self) -> None:
        """A slot is free when both connections have been closed, and not before."""
        closed: set[int] = set()  # descriptors, by the session's own thread
        at_release: list[int] = []
        close, report = PlainTransport.close, MemoryStore.report

        def note_close(transport: PlainTransport) -> None:
            if threading.current_thread().name.startswith("wsproxy-"):
                closed.add(transport.fileno())
            close(transport)

        def note_release(store: MemoryStore, member: str, events: tuple[Event, ...]) -> Any:
            if any(event.kind is EventKind.RELEASED for event in events):
                at_release.append(len(closed))
            return report(store, member, events)

        self.start(max_sessions_per_user=1)
        self.assert_open(client := self.open())
        with (
            mock.patch.object(PlainTransport, "close", note_close),
            mock.patch.object(MemoryStore, "report", note_release),
        ):
            client.send_close()
            self.wait_until_free()
            client.wait_for_end()
        self.assertEqual(at_release, [2])

    def test_refused_clients(self) -> None:
        """Clients that were refused after they had been let in, and stay, count as sessions that end.

        A refused opening leaves its slot to anybody, but no more of them do than the limit.
        """
        self.start(max_sessions_per_user=_MOST, request_timeout=_SHORT)
        for _ in range(2 * _MOST):
            self.assert_refused(self.open("missing"), 4404, "vmi-not-found")
        self.assert_refused(self.open("missing"), 4429, "limit-user")
        self.leave()
        self.assert_refused(self.open("missing"), 4404, "vmi-not-found")


if __name__ == "__main__":
    unittest.main()
