"""One-time tickets: random, kept as hashes, for one page and one subresource, and worth nothing twice.

How long they last, and how many there may be, is the store's to know: see the conformance suite.
"""

from __future__ import annotations

import hashlib
import threading
import unittest
from dataclasses import replace
from unittest import mock

from wsproxy.exceptions import BadToken, Busy, Forbidden, LimitExceeded, StateUnavailable
from wsproxy.protocol.origin import Origin
from wsproxy.state.membership import Issued
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.tickets import Ticket, Tickets
from wsproxy.testing.case import LeakTestCase
from wsproxy.tokens.claims import Grant

PAGE = "https://console.example"


class TicketCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.store = MemoryStore(lambda: self.now)
        self.tickets = Tickets(self.store, lambda: 1e9)
        self.grant = Grant(5, "lab-1", ("vm",), 1e12, "id-5")

    def issue(self, user: str | int = 5, origin: str | None = PAGE) -> str:
        page = None if origin is None else Origin.parse(origin)
        return self.tickets.issue(Ticket(replace(self.grant, user=user), "vnc", page))[0]

    def redeem(self, text: str, subresource: str = "vnc", origin: str | None = PAGE) -> Grant:
        return self.tickets.redeem(text, subresource, origin)


class Once(TicketCase):
    def test_redeemed(self) -> None:
        """A ticket is worth the grant that it was issued for."""
        self.assertEqual(self.redeem(self.issue()), self.grant)

    def test_used_up(self) -> None:
        """A second redemption fails with the same text as that of an unknown ticket."""
        text, told = self.issue(), []
        self.redeem(text)
        for used in (text, text, "A" * 22, "", "ä"):
            with self.assertRaises(BadToken) as caught:
                self.redeem(used)
            told.append(caught.exception.message)
        self.assertEqual(len(set(told)), 1)

    def test_used_up_by_a_refusal(self) -> None:
        """A client that presents a ticket for the wrong page or subresource has used it up."""
        for subresource, origin in (
            ("console", PAGE),
            ("vnc", "https://evil.example"),
            ("vnc", "http://console.example"),
            ("vnc", "null"),
            ("vnc", None),
        ):
            with self.subTest(subresource=subresource, origin=origin):
                text = self.issue()
                with self.assertRaises(Forbidden):
                    self.redeem(text, subresource, origin)
                with self.assertRaises(BadToken):
                    self.redeem(text)
        self.assertEqual(self.store.sizes["tickets"], 0)

    def test_discarded(self) -> None:
        """A ticket that is discarded is used up; one that nobody knows is no fault."""
        text = self.issue()
        for discarded in (text, text, "ä"):
            self.tickets.discard(discarded)
        self.assertRaises(BadToken, self.redeem, text)

    def test_page(self) -> None:
        """Two spellings of an origin are one page; a ticket issued without an Origin is for no page."""
        self.redeem(self.issue(), origin="HTTPS://CONSOLE.EXAMPLE:443")
        self.redeem(self.issue(origin=None), origin=None)
        for origin in (PAGE, "null", ""):
            with self.subTest(origin), self.assertRaises(Forbidden):
                self.redeem(self.issue(origin=None), origin=origin)

    def test_race(self) -> None:
        """Of many redemptions at once exactly one wins."""
        for _ in range(20):
            self.assertEqual(sorted(self.race(self.issue(), 8)), ["BadToken"] * 7 + ["Grant"])

    def race(self, text: str, threads: int) -> list[str]:
        """Redeem a ticket in several threads at once, and return what each of them got."""
        start, got = threading.Barrier(threads), []

        def run() -> None:
            start.wait(60)
            try:
                got.append(type(self.redeem(text)).__name__)
            except BadToken as exc:
                got.append(type(exc).__name__)

        runners = [threading.Thread(target=run) for _ in range(threads)]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join(60)
        return got


class Secrecy(TicketCase):
    def test_random(self) -> None:
        """A ticket is 128 bits from the system's generator, in base64url."""
        with mock.patch("secrets.token_bytes", wraps=__import__("secrets").token_bytes) as made:
            text = self.issue()
        made.assert_called_once_with(16)
        self.assertRegex(text, r"\A[A-Za-z0-9_-]{22}\Z")
        self.assertEqual(len({self.issue(user) for user in range(100)}), 100)

    def test_only_the_hash_is_kept(self) -> None:
        """The store keeps a ticket's SHA-256, and not the ticket."""
        with mock.patch.object(self.store, "issue", wraps=self.store.issue) as issued:
            text = self.issue()
        [(digest, ticket)] = [call.args for call in issued.call_args_list]
        self.assertEqual(digest, hashlib.sha256(text.encode()).hexdigest())
        self.assertNotIn(text, repr(ticket))
        with mock.patch.object(self.store, "redeem", wraps=self.store.redeem) as redeemed:
            self.redeem(text)
        redeemed.assert_called_once_with(digest)

    def test_errors_do_not_quote(self) -> None:
        """No refusal holds a ticket."""
        text = self.issue()
        for _ in range(2):
            with self.assertRaises((Forbidden, BadToken)) as caught:
                self.redeem(text, "console")
            self.assertNotIn(text, f"{caught.exception} {caught.exception.log_detail}")


class Answers(TicketCase):
    def test_seconds(self) -> None:
        """The number of seconds is the store's, or what is left of the token."""
        self.assertEqual(self.tickets.issue(Ticket(self.grant, "vnc", None))[1], 30.0)
        short = replace(self.grant, expires_at=1e9 + 5)
        self.assertEqual(self.tickets.issue(Ticket(short, "vnc", None))[1], 5.0)

    def test_expired(self) -> None:
        """A ticket that the store has forgotten is refused as an unknown one."""
        text = self.issue()
        self.now += 30.0
        with self.assertRaises(BadToken) as caught:
            self.redeem(text)
        self.assertEqual(caught.exception.attempts, 0.1)

    def test_per_user(self) -> None:
        """A user who has too many is told so, and when to come again."""
        for _ in range(16):
            self.issue()
        with self.assertRaises(LimitExceeded) as caught:
            self.issue()
        self.assertEqual((caught.exception.status, caught.exception.slug), (429, "limit-tickets"))
        self.assertIn(("Retry-After", "30"), caught.exception.headers)
        self.issue("5")  # another user than the number 5

    def test_in_all(self) -> None:
        """If all users together have too many, the proxy is busy."""
        full = mock.patch.object(self.store, "issue", return_value=Issued("all"))
        with full, self.assertRaises(Busy) as caught:
            self.issue()
        self.assertEqual((caught.exception.status, caught.exception.slug), (503, "busy"))
        self.assertIn(("Retry-After", "30"), caught.exception.headers)

    def test_away(self) -> None:
        """What the keeper raises goes through, for an issue, a redemption and a discard."""
        with (
            mock.patch.object(self.store, "issue", side_effect=StateUnavailable()),
            mock.patch.object(self.store, "redeem", side_effect=StateUnavailable()),
        ):
            for ask in (self.issue, lambda: self.redeem("x"), lambda: self.tickets.discard("x")):
                self.assertRaises(StateUnavailable, ask)


if __name__ == "__main__":
    unittest.main()
