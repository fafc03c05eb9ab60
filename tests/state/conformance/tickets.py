"""One-time tickets, issued and redeemed at any member."""

from __future__ import annotations

from wsproxy.protocol.origin import Origin
from wsproxy.state.membership import Issued
from wsproxy.state.tickets import Ticket
from wsproxy.tokens.claims import Grant, TokenKey

from .case import StoreCase, at_once

__all__ = ["Tickets", "ticket"]


def ticket(user: str | int = "alice") -> Ticket:
    """Return a ticket with all that one may have."""
    key = TokenKey(bytes(range(32)), float("inf"))
    grant = Grant(
        user, "lab-1", ("ubuntu",), 2e9 + 0.5, "t", patterns=True, may_take_over=False, token_key=key
    )
    return Ticket(grant, "vnc", Origin("https", "lab.example", 443))


class Tickets(StoreCase):
    def test_once(self) -> None:
        """A ticket is redeemed once, and comes back as it was; the token's key, too."""
        for user in ("alice", 5):
            self.assertEqual(self.store.issue("11", ticket(user)), Issued("", 30.0))
            found = self.store.redeem("11")
            self.assertEqual(found, ticket(user))
            assert found
            self.assertEqual(found.grant.token_key, ticket().grant.token_key)
            self.assertIsNone(self.store.redeem("11"))

    def test_unknown(self) -> None:
        self.assertIsNone(self.store.redeem("12"))

    def test_lifetime(self) -> None:
        """It is valid for 30 s."""
        for digest in ("11", "12"):
            self.store.issue(digest, ticket())
        self.passes(29.5)
        self.assertIsNotNone(self.store.redeem("11"))
        self.passes(0.5)
        self.assertIsNone(self.store.redeem("12"))

    def test_issued_twice(self) -> None:
        """Who had no answer issues it again: it is the same ticket, and as old."""
        self.store.issue("11", ticket())
        self.passes(10)
        self.assertEqual(self.store.issue("11", ticket()), Issued("", 20.0))

    def test_per_user(self) -> None:
        """A user has 16 at most; what is redeemed, or too old, makes room."""
        for number in range(16):
            self.assertEqual(self.store.issue(f"{number:02x}", ticket()).limit, "")
        self.assertEqual(self.store.issue("ff", ticket()).limit, "user")
        self.assertEqual(self.store.issue("fe", ticket("bob")).limit, "")
        self.store.redeem("00")
        self.assertEqual(self.store.issue("ff", ticket()).limit, "")
        self.passes(30)
        for number in range(16):
            self.assertEqual(self.store.issue(f"{number:02x}", ticket()).limit, "")

    def test_in_all(self) -> None:
        """There are 10,000 at most."""
        for number in range(10_000):
            self.store.issue(f"{number:04x}", ticket(number // 16))
        self.assertEqual(self.store.issue("ffff", ticket("bob")).limit, "all")
        self.store.redeem("0000")
        self.assertEqual(self.store.issue("ffff", ticket("bob")).limit, "")

    def test_race(self) -> None:
        """Of many threads that redeem one ticket one gets it."""
        got: list[Ticket] = []

        def redeem(number: int) -> None:
            for digest in range(100):
                if found := self.store.redeem(f"{digest:02x}"):
                    got.append(found)

        for number in range(100):
            self.store.issue(f"{number:02x}", ticket(number))
        at_once(redeem)
        self.assertEqual(len(got), 100)
