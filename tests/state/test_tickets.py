"""One-time tickets: once, for half a minute, for one page and one VMI, and not too many."""

from __future__ import annotations

import hashlib
import threading
import unittest
from dataclasses import replace
from unittest import mock

from wsproxy.exceptions import BadToken, Busy, Forbidden, LimitExceeded
from wsproxy.protocol.origin import Origin
from wsproxy.state.tickets import Ticket, Tickets
from wsproxy.testing.case import LeakTestCase
from wsproxy.tokens.claims import Grant

PAGE = "https://console.example"


class TicketCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.tickets = Tickets(lambda: self.now)
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
        self.assertEqual(len(self.tickets), 0)

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

    def test_lock(self) -> None:
        """Each change takes the lock once, and releases it, even if it raises."""
        lock = mock.MagicMock()
        lock.__exit__.return_value = None
        self.tickets._lock = lock
        text = self.issue()
        self.redeem(text)
        self.assertRaises(BadToken, self.redeem, text)
        for _ in range(16):
            self.issue()
        self.assertRaises(LimitExceeded, self.issue)
        self.assertEqual((lock.__enter__.call_count, lock.__exit__.call_count), (20, 20))


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
        text = self.issue()
        self.assertEqual(list(self.tickets._tickets), [hashlib.sha256(text.encode()).digest()])
        self.assertNotIn(text, repr(vars(self.tickets)))

    def test_errors_do_not_quote(self) -> None:
        """No refusal holds a ticket."""
        text = self.issue()
        for _ in range(2):
            with self.assertRaises((Forbidden, BadToken)) as caught:
                self.redeem(text, "console")
            self.assertNotIn(text, f"{caught.exception} {caught.exception.log_detail}")


class Time(TicketCase):
    def test_half_a_minute(self) -> None:
        """A ticket is good for 30 seconds, and not for one moment more."""
        for after, good in ((0.0, True), (29.999, True), (30.0, False), (1e9, False)):
            with self.subTest(after=after):
                text = self.issue()
                self.now += after
                if good:
                    self.redeem(text)
                else:
                    self.assertRaises(BadToken, self.redeem, text)
                self.assertEqual(len(self.tickets), 0)

    def test_seconds(self) -> None:
        """The number of seconds is 30, or what is left of the token."""
        self.assertEqual(self.tickets.issue(Ticket(self.grant, "vnc", None))[1], 30.0)
        with mock.patch.object(Grant, "seconds_left", return_value=5.0):
            self.assertEqual(self.tickets.issue(Ticket(self.grant, "vnc", None))[1], 5.0)

    def test_expired_ones_are_dropped(self) -> None:
        """Issuing a ticket drops the expired ones, and does not look at younger ones."""
        for user in range(100):
            self.issue(user)
        self.now += 10.0
        young = self.issue("young")
        self.now += 20.0
        last = self.issue("last")
        self.assertEqual(len(self.tickets), 2)
        self.assertEqual(set(self.tickets._per_user), {"young", "last"})
        self.redeem(young)
        self.redeem(last)
        self.assertEqual(self.tickets._per_user, {})


class Limits(TicketCase):
    def test_per_user(self) -> None:
        """A user has at most 16; used and expired ones do not count."""
        texts = [self.issue() for _ in range(16)]
        with self.assertRaises(LimitExceeded) as caught:
            self.issue()
        self.assertEqual((caught.exception.status, caught.exception.slug), (429, "limit-tickets"))
        self.assertIn(("Retry-After", "30"), caught.exception.headers)
        self.issue("5")  # another user than the number 5
        self.redeem(texts[7])
        self.issue()
        self.assertRaises(LimitExceeded, self.issue)
        self.now += 30
        self.issue()

    def test_in_all(self) -> None:
        """All users together have at most 10,000."""
        for user in range(10_000):
            self.issue(user)
        with self.assertRaises(Busy) as caught:
            self.issue("one more")
        self.assertEqual((caught.exception.status, caught.exception.slug), (503, "busy"))
        self.assertIn(("Retry-After", "30"), caught.exception.headers)
        self.assertEqual(len(self.tickets._per_user), 10_000)
        self.now += 30
        self.issue("one more")
        self.assertEqual(len(self.tickets), 1)

    def test_users_are_forgotten(self) -> None:
        """A user who is refused, or whose tickets are used, leaves nothing behind."""
        self.redeem(self.issue("one"))
        for user in range(10_000):
            self.issue(user)
        self.assertRaises(Busy, self.issue, "two")
        self.assertNotIn("one", self.tickets._per_user)
        self.assertNotIn("two", self.tickets._per_user)


if __name__ == "__main__":
    unittest.main()
