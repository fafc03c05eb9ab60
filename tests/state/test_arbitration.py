"""Which client keeps a contested console, and what the others are told."""

from __future__ import annotations

import math
import threading
import unittest
from unittest import mock

from wsproxy.access.sessions import SessionHandle
from wsproxy.exceptions import ConsoleBusy, TransportClosed
from wsproxy.protocol.closing import Ending
from wsproxy.runtime.deadline import Deadline
from wsproxy.state.arbitration import HOLD_OFF, Arbitration, Claim, Requester
from wsproxy.state.console_policies import ConsolePolicies
from wsproxy.state.values import Console
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.tokens.claims import Grant

CONSOLE = Console("lab-1", "ubuntu", "vnc")


def claimant(user: str, address: str = "198.51.100.7", may_take_over: bool = True) -> Requester:
    """Return a requester with its own token."""
    grant = Grant(user, "lab-1", ("ubuntu",), math.inf, f"token-{user}", may_take_over=may_take_over)
    return Requester(grant, address)


class Session:
    """What a session is told."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.expected: list[str | None] = []
        self.ended: list[tuple[int, str]] = []
        self.is_ending = False

    def expect_takeover(self, reason: str | None) -> None:
        self.expected.append(reason)

    def end(self, code: int, reason: str) -> None:
        self.ended.append((code, reason))


class ArbitrationTestCase(unittest.TestCase):
    policy = "takeover"
    show_user = False

    def setUp(self) -> None:
        self.now = 1000.0
        self.arbitration = Arbitration(ConsolePolicies([self.policy]), self.show_user, lambda: self.now)

    def claim(self, who: Requester, console: Console = CONSOLE) -> tuple[Claim, Session]:
        """Claim a console."""
        session = Session(f"of-{who.grant.user}")
        return self.arbitration.claim(console, who, session, Deadline(10)), session

    def get(self, who: Requester) -> tuple[Claim, Session]:
        """Claim the console, and win it."""
        claim, session = self.claim(who)
        claim.won()
        return claim, session

    def assert_busy(self, who: Requester, message: str = "the console is in use") -> None:
        with self.assertRaises(ConsoleBusy) as caught:
            self.claim(who)
        self.assertIn(message, caught.exception.message)
        self.assertNotIn(message + " by", caught.exception.message)


class Passthrough(ArbitrationTestCase):
    policy = "passthrough"

    def test_nobody_is_asked(self) -> None:
        """Every client may claim the console; the arbitration keeps nothing, and tells sessions nothing."""
        claims = [self.get(claimant(user)) for user in "abc"]
        self.assertEqual(len(self.arbitration), 0)
        for claim, session in claims:
            self.assertFalse(claim.preserves_session)
            claim.release()
            self.assertEqual((session.expected, session.ended), ([], []))


class Refuse(ArbitrationTestCase):
    policy = "refuse"

    def test_second_is_refused(self) -> None:
        """The first session keeps a console from the moment of its claim."""
        first, session = self.claim(claimant("a"))
        self.assertTrue(first.preserves_session)
        self.assert_busy(claimant("b"))
        first.won()
        self.assert_busy(claimant("b"))
        self.assert_busy(claimant("a"))
        self.assertEqual((session.expected, session.ended), ([], []))

    def test_free_again(self) -> None:
        """A console is free when its session releases it, whether the session had it or only claimed it."""
        for won in (True, False):
            with self.subTest(won=won):
                first, _ = self.claim(claimant("a"))
                if won:
                    first.won()
                first.release()
                self.assertEqual(len(self.arbitration), 0)
                second, _ = self.get(claimant("b"))
                first.release()
                self.assert_busy(claimant("c"))
                second.release()

    def test_other_consoles(self) -> None:
        """Another subresource, VMI or namespace is another console."""
        self.get(claimant("a"))
        for other in (
            Console("lab-1", "ubuntu", "console"),
            Console("lab-1", "debian", "vnc"),
            Console("lab-2", "ubuntu", "vnc"),
        ):
            self.claim(claimant("b"), other)


class Leaving(ArbitrationTestCase):
    """The session that has the console is ending, as when its page is reloaded."""

    policy = "refuse"

    def test_is_waited_for(self) -> None:
        """The newcomer waits for it, and then finds the console free."""
        for policy in ("refuse", "takeover"):
            with self.subTest(policy=policy):
                condition = _Watched()
                self.arbitration = Arbitration(ConsolePolicies([policy]), False)
                self.arbitration._changed = condition
                leaving, session = self.get(claimant("a"))
                session.is_ending = True
                got: list[Claim] = []

                def get(got: list[Claim] = got) -> None:
                    got.append(self.get(claimant("a"))[0])

                thread = threading.Thread(target=get)
                thread.start()
                self.assertTrue(condition.waited.wait(60))
                leaving.release()
                thread.join(60)
                self.assertEqual(len(got), 1)
                self.assertEqual(session.expected, [])
                got[0].release()
                self.assertEqual(len(self.arbitration), 0)

    def test_opening_that_is_given_up(self) -> None:
        """A newcomer also waits for a session that only claimed the console, and is ending."""
        condition = _Watched()
        self.arbitration._changed = condition
        leaving, session = self.claim(claimant("a"))
        session.is_ending = True
        got: list[Claim] = []
        thread = threading.Thread(target=lambda: got.append(self.claim(claimant("b"))[0]))
        thread.start()
        self.assertTrue(condition.waited.wait(60))
        leaving.release()
        thread.join(60)
        self.assertEqual(len(got), 1)

    def test_newcomer_is_given_up(self) -> None:
        """A claim stops waiting when its own session ends."""
        condition = _Watched()
        self.arbitration._changed = condition
        _, session = self.get(claimant("a"))
        session.is_ending = True
        newcomer, raised = Session("of-b"), threading.Event()

        def wait() -> None:
            with self.assertRaises(TransportClosed):
                self.arbitration.claim(CONSOLE, claimant("b"), newcomer, Deadline(20))
            raised.set()

        thread = threading.Thread(target=wait)
        thread.start()
        self.assertTrue(condition.waited.wait(60))
        newcomer.is_ending = True
        self.arbitration.look_again()
        self.assertTrue(raised.wait(60))
        thread.join(60)

    def test_not_for_ever(self) -> None:
        """If the holder has not ended by the deadline, the newcomer is refused."""
        _, session = self.get(claimant("a"))
        session.is_ending = True
        with self.assertRaises(ConsoleBusy):
            self.arbitration.claim(CONSOLE, claimant("b"), Session("of-b"), Deadline(0))


class _Watched(threading.Condition):
    """Tells when a claim waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.set()
        return super().wait(timeout)


class Takeover(ArbitrationTestCase):
    def test_takeover(self) -> None:
        """The newcomer gets the console; its holder expects that during the dial, and is told afterwards."""
        _, first = self.get(claimant("a"))
        claim, second = self.claim(claimant("b"))
        self.assertFalse(claim.preserves_session)
        self.assertEqual((first.expected, first.ended), (["taken-over"], []))
        with self.assertLogs("wsproxy.arbitration", "INFO") as logs:
            claim.won()
        self.assertEqual(first.ended, [(4410, "taken-over")])
        self.assertEqual((second.expected, second.ended), ([], []))
        self.assertIn("of-b took the vnc console of lab-1/ubuntu over from session of-a", logs.output[0])

    def test_failed_takeover(self) -> None:
        """If the newcomer cannot get the console, the holder keeps it, and expects no takeover any more."""
        _, first = self.get(claimant("a"))
        claim, _ = self.claim(claimant("b"))
        claim.release()
        claim.release()
        self.assertEqual((first.expected, first.ended), (["taken-over", None], []))
        self.get(claimant("c"))
        self.assertEqual(first.ended, [(4410, "taken-over")])

    def test_one_at_a_time(self) -> None:
        """While one session claims the console, no other can, whether or not a third one has it."""
        reaching, _ = self.claim(claimant("a"))
        self.assert_busy(claimant("b"))
        reaching.won()
        self.claim(claimant("b"))
        self.assert_busy(claimant("c"), "another client is taking this console over right now")

    def test_not_allowed(self) -> None:
        """A token that may not take over still opens a console that is free."""
        meek = claimant("b", may_take_over=False)
        first, session = self.get(claimant("a"))
        self.assert_busy(meek)
        self.assertEqual(session.expected, [])
        first.release()
        self.get(meek)

    def test_reconnecting_loser_is_held_off(self) -> None:
        """A client that lost the console and only reconnects is refused; each attempt restarts the wait."""
        first, _ = self.get(claimant("a"))
        _, second = self.get(claimant("b"))
        first.release()
        for _ in range(10):
            self.assert_busy(claimant("a"), "the console was taken over; to take it back, wait 30 seconds")
            self.now += HOLD_OFF - 1
        self.assertEqual(second.expected, [])
        self.now += 1
        self.get(claimant("a"))
        self.assertEqual(second.ended, [(4410, "taken-over")])
        self.assert_busy(claimant("b"), "the console was taken over")

    def test_only_the_loser(self) -> None:
        """Another token, or another address, is not held off."""
        self.get(claimant("a"))
        for who in (claimant("b"), claimant("a", "198.51.100.8"), claimant("c")):
            self.get(who)

    def test_free_for_the_loser(self) -> None:
        """When the winner leaves, the loser gets the console at once."""
        first, _ = self.get(claimant("a"))
        second, _ = self.get(claimant("b"))
        first.release()
        second.release()
        self.assertEqual(len(self.arbitration), 0)
        self.get(claimant("a"))

    def test_dropped_before_the_winner_is_in(self) -> None:
        """If KubeVirt drops the holder before the newcomer's dial is done, the holder is still the loser."""
        first, session = self.get(claimant("a"))
        claim, _ = self.claim(claimant("b"))
        first.release()
        self.assert_busy(claimant("a"))
        claim.won()
        self.assertEqual(session.expected, ["taken-over"])
        self.assert_busy(claimant("a"), "the console was taken over")

    def test_own_second_tab(self) -> None:
        """The same token from the same address takes over, too, and the first tab does not steal it back."""
        self.get(claimant("a"))
        _, second = self.get(claimant("a"))
        self.assert_busy(claimant("a"), "the console was taken over")
        self.assertEqual(second.ended, [])


class Asking(ArbitrationTestCase):
    """KubeVirt is asked first, and says that the console is in use."""

    def test_evict(self) -> None:
        """The holder is ended once; the console may be free soon until it has gone, and five seconds more."""
        first, session = self.get(claimant("a"))
        claim, _ = self.claim(claimant("b"))
        self.assertTrue(claim.asks_first)
        self.assertTrue(claim.evict())
        self.assertFalse(claim.evict())
        self.assertEqual(session.ended, [(4410, "taken-over")])
        self.now += 100
        self.assertTrue(claim.may_be_free_soon)
        first.release()
        self.now += 4.9
        self.assertTrue(claim.may_be_free_soon)
        self.now += 0.1
        self.assertFalse(claim.may_be_free_soon)
        claim.won()
        self.assertEqual(session.ended, [(4410, "taken-over")])

    def test_loser_is_held_off(self) -> None:
        """The client whose session was ended does not get the console back by reconnecting."""
        self.get(claimant("a"))[0].release()
        first, _ = self.get(claimant("a"))
        claim, _ = self.claim(claimant("b"))
        claim.evict()
        first.release()
        self.assert_busy(claimant("a"))
        claim.won()
        self.assert_busy(claimant("a"), "the console was taken over")

    def test_nobody_of_ours(self) -> None:
        """If a client outside the proxy has the console, no session is ended, and it is not free soon."""
        claim, _ = self.claim(claimant("a"))
        self.assertFalse(claim.evict())
        self.assertFalse(claim.may_be_free_soon)

    def test_given_up_meanwhile(self) -> None:
        """A claim that was released ends no session."""
        _, session = self.get(claimant("a"))
        claim, _ = self.claim(claimant("b"))
        claim.release()
        self.assertFalse(claim.evict())
        self.assertFalse(claim.may_be_free_soon)
        self.assertEqual(session.ended, [])

    def test_what_is_remembered(self) -> None:
        """The arbitration remembers for five seconds that a session has ended, and no longer."""
        for number in range(100):
            console = Console("lab-1", str(number), "vnc")
            claim, _ = self.claim(claimant("a"), console)
            claim.won()
            claim.release()
            self.now += 1
        self.assertLessEqual(len(self.arbitration._ended), 6)
        self.assertEqual(len(self.arbitration), 0)


class Marks(ArbitrationTestCase):
    """Marks of abandoned openings."""

    def test_holder(self) -> None:
        """The holder expects a takeover by the abandoned opening until the mark is removed."""
        _, session = self.get(claimant("a"))
        claim, _ = self.claim(claimant("b"))
        mark = claim.mark()
        assert mark
        claim.release()
        self.assertEqual(session.expected, ["taken-over"])
        mark.remove()
        mark.remove()
        self.assertEqual((session.expected, session.ended), (["taken-over", None], []))

    def test_keeps_nobody_out(self) -> None:
        """A mark keeps no client from the console; each new holder expects the same."""
        for policy in ("takeover", "refuse"):
            for user in "ab":
                with self.subTest(policy=policy, user=user):
                    self.arbitration = Arbitration(ConsolePolicies([policy]), False, lambda: self.now)
                    claim, _ = self.claim(claimant("a"))
                    mark = claim.mark()
                    assert mark
                    claim.release()
                    self.assertEqual(len(self.arbitration), 1)
                    holder, session = self.get(claimant(user))
                    self.assertEqual(session.expected, ["taken-over"])
                    self.assertEqual(session.ended, [])
                    mark.remove()
                    self.assertEqual(session.expected, ["taken-over", None])
                    holder.release()
                    self.assertEqual(len(self.arbitration), 0)

    def test_may_be_free_soon(self) -> None:
        """If KubeVirt reports a console in use, the cause may be an abandoned opening."""
        claim, _ = self.claim(claimant("a"))
        mark = claim.mark()
        assert mark
        claim.release()
        again, _ = self.claim(claimant("a"))
        self.assertTrue(again.may_be_free_soon)
        mark.remove()
        self.assertFalse(again.may_be_free_soon)

    def test_bounded(self) -> None:
        """If there are too many marks, the oldest go."""
        for _ in range(100):
            claim, _ = self.claim(claimant("a"))
            claim.mark()
            claim.release()
        self.assertEqual(len(self.arbitration._contests[CONSOLE].marks), 16)

    def test_passthrough(self) -> None:
        """With passthrough there are no marks."""
        self.arbitration = Arbitration(ConsolePolicies(()), False)
        self.assertIsNone(self.claim(claimant("a"))[0].mark())


class ShownUser(ArbitrationTestCase):
    show_user = True

    def test_names(self) -> None:
        """If users may see each other, the loser and a refused client are told who has the console."""
        _, first = self.get(claimant("alice"))
        self.get(claimant("bob"))
        self.assertEqual(first.ended, [(4410, "taken-over: by bob")])
        for who, message in (
            (claimant("alice"), "the console was taken over by bob; to take it back, wait 30 seconds"),
            (claimant("carol", may_take_over=False), "the console is in use by bob"),
        ):
            with self.assertRaises(ConsoleBusy) as caught:
                self.claim(who)
            self.assertIn(message, caught.exception.message)


class Contested(ProxyTestCase):
    """Two clients of one console in the simulated cluster, which like KubeVirt drops the first one."""

    def setUp(self) -> None:
        super().setUp()
        self.vmi = self.api.add_vmi("vm", self.namespace)

    def queries(self) -> list[str]:
        """Return the query of every request that the API got."""
        return [request.target.partition("?")[2] for request in self.api.requests]

    def test_takeover(self) -> None:
        """The first is told that its console was taken over, and by whom, never that something broke."""
        proxy = self.start_proxy(console="takeover", show_user=True)
        for _ in range(20):  # whether the dial or the loss comes first
            with RawClient.open(self.url(proxy, "vm", self.token("vm", user="alice"))) as first:
                self.vmi.wait_for_session()
                with RawClient.open(self.url(proxy, "vm", self.token("vm", user="bob"))) as second:
                    self.assertEqual((first.status, second.status), (101, 101))
                    self.assertEqual(first.recv_close(), (4410, "taken-over: by bob"))
                    second.send_frame(BINARY, b"still here")
                    self.assertEqual(second.recv_frame().payload, b"still here")
            self.vmi.wait_for_session()
            self.assertTrue(self.api.wait_until_idle())

    def test_takeover_without_kubevirts_help(self) -> None:
        """The proxy ends the first session even if the API would not have dropped it."""
        begin = self.vmi.begin

        def begin_beside(console: FakeConsole) -> list[FakeConsole]:
            begin(console)
            return []

        proxy = self.start_proxy(console="takeover")
        with (
            mock.patch.object(self.vmi, "begin", begin_beside),
            RawClient.open(self.url(proxy, "vm")) as first,
            RawClient.open(self.url(proxy, "vm", self.token("vm", user=2))) as second,
        ):
            self.assertEqual(second.status, 101)
            self.assertEqual(first.recv_close(), (4410, "taken-over"))

    def test_failed_takeover(self) -> None:
        """A newcomer that the API refuses leaves the first its console."""
        proxy = self.start_proxy(console="takeover")
        with RawClient.open(self.url(proxy, "vm")) as first:
            self.vmi.wait_for_session()
            self.vmi.phase = "Failed"
            with RawClient.open(self.url(proxy, "vm", self.token("vm", user=2))) as second:
                self.assertEqual(second.status, 409)
            first.send_frame(BINARY, b"still here")
            self.assertEqual(first.recv_frame().payload, b"still here")
            self.vmi.drop_sessions()
            self.assertEqual(first.recv_close()[0], 1011)  # a loss is a loss again

    def test_token_without_takeover(self) -> None:
        """A token whose claim denies it does not take over."""
        proxy = self.start_proxy(console="takeover", claim_takeover="/lab_instance/additional_data/takeover")
        with RawClient.open(self.url(proxy, "vm")) as first:
            self.assertEqual(first.status, 101)
            token = self.token("vm", user=2, additional_data={"takeover": False})
            with RawClient.open(self.url(proxy, "vm", token)) as second:
                self.assertEqual(second.status, 409)
                self.assertIn(b"the console is in use", second.body())

    def test_refuse(self) -> None:
        """The proxy refuses the second client, and asks KubeVirt not to drop one that bypasses the proxy."""
        proxy = self.start_proxy(console=["*/other=passthrough", "refuse"])
        with RawClient.open(self.url(proxy, "vm")) as first:
            self.vmi.wait_for_session()
            with RawClient.open(self.url(proxy, "vm", self.token("vm", user=2))) as second:
                self.assertEqual(second.status, 409)
                self.assertIn(b'"console-busy"', second.body())
            first.send_frame(BINARY, b"still here")
            self.assertEqual(first.recv_frame().payload, b"still here")
        self.assertTrue(self.api.wait_until_idle())
        self.assertEqual(self.queries(), ["preserveSession=true"])

    def test_refuse_and_free(self) -> None:
        """When the first client has left, the second one gets the console."""
        proxy = self.start_proxy(console="refuse")
        for _ in range(20):
            with RawClient.open(self.url(proxy, "vm")) as client:
                self.assertEqual(client.status, 101)
                client.send_close()
                client.recv_close()
                client.wait_for_end()

    def test_hook_that_takes_its_time(self) -> None:
        """A console is free when its session has ended, even while an ``on_close`` hook still runs."""
        told, go_on = threading.Event(), threading.Event()

        def on_close(session: SessionHandle, ending: Ending) -> None:
            told.set()
            go_on.wait(60)

        self.addCleanup(go_on.set)
        proxy = self.start_proxy(console="refuse", on_close=on_close)
        with RawClient.open(self.url(proxy, "vm")) as client:
            client.send_close()
            client.recv_close()
        self.assertTrue(told.wait(60))
        with RawClient.open(self.url(proxy, "vm")) as client:
            self.assertEqual(client.status, 101)
        go_on.set()

    def test_refuse_what_others_hold(self) -> None:
        """A console that a client outside the proxy holds is busy; the refused claim is released."""
        self.vmi.in_use = True
        proxy = self.start_proxy(console="refuse")
        for in_use, status in ((True, 409), (True, 409), (False, 101)):
            self.vmi.in_use = in_use
            with RawClient.open(self.url(proxy, "vm")) as client:
                self.assertEqual(client.status, status)

    def test_passthrough(self) -> None:
        """By default KubeVirt drops the first client, which is told what the upstream did."""
        proxy = self.start_proxy()
        with RawClient.open(self.url(proxy, "vm")) as first:
            self.vmi.wait_for_session()
            first.send_frame(BINARY, b"heard")
            first.recv_frame()
            with RawClient.open(self.url(proxy, "vm", self.token("vm", user=2))):
                self.assertEqual(first.recv_close()[0], 1011)
        self.assertEqual(self.queries(), ["", ""])

    def test_client_that_leaves_during_the_dial(self) -> None:
        """A newcomer that leaves during the dial releases its claim."""
        proxy = self.start_proxy(console="refuse")
        entered, go_on = threading.Event(), threading.Event()

        def wait(console: object) -> None:
            entered.set()
            go_on.wait(60)

        self.api.add_vmi("slow", self.namespace, backend=Script(wait))
        with RawClient.open(self.url(proxy, "slow")) as client:
            self.assertTrue(entered.wait(60))
            client.reset()
        go_on.set()
        self.assertTrue(self.api.wait_until_idle())


if __name__ == "__main__":
    unittest.main()
