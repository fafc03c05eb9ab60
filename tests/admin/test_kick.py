"""Kicks: which sessions end, and which tokens are refused from then on."""

from __future__ import annotations

import unittest
from typing import Any, cast
from unittest import mock

from tests.access.test_sessions import FakeRelay
from wsproxy.access.sessions import LiveSessions, SessionHandle
from wsproxy.admin.kick import Chosen, Kicked, Kicks
from wsproxy.exceptions import BadRequest, BadToken, Busy, Forbidden, NotFound, TokenExpired
from wsproxy.state.denylist import Denylist
from wsproxy.tokens.claims import Grant, TokenKey


def grant_of(name: str, user: str | int = 5, expires_at: float = 2e9) -> Grant:
    key = TokenKey(name.encode(), expires_at) if name else None
    return Grant(user, "lab-1", ("vm",), expires_at, f"id-{name}", token_key=key)


class FakeReports:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, object, object]] = []

    def kicked(self, by: object, sessions: object, tokens: object) -> None:
        self.told.append((by, sessions, tokens))


class FakeVerifier:
    """Knows one token."""

    def __init__(self) -> None:
        self.answer: Grant | Exception = BadToken("the token is not valid")

    def verify(self, token: str) -> Grant:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class KicksTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 1e9
        self.sessions = LiveSessions()
        self.denylist = Denylist(lambda: self.now)
        self.verifier, self.reports = FakeVerifier(), FakeReports()
        self.kicks = Kicks(self.sessions, self.denylist, cast(Any, self.verifier), cast(Any, self.reports))
        self.relays: dict[str, FakeRelay] = {}

    def open(self, id: str, grant: Grant, vmi: str = "vm") -> SessionHandle:
        relay = self.relays[id] = FakeRelay()
        handle = SessionHandle(relay, id=id, grant=grant, vmi=vmi, subresource="vnc", client="192.0.2.1")
        self.sessions.add(handle)
        return handle

    def ended(self) -> list[str]:
        for relay in self.relays.values():
            self.assertIn(relay.ends, ([], [(4499, "kicked")]))
        return [id for id, relay in self.relays.items() if relay.ends]

    def denies(self, name: str) -> bool:
        return self.denylist.denies(TokenKey(name.encode(), 2e9))

    def test_end(self) -> None:
        """One session ends; its token is as good as before."""
        self.open("a", grant_of("t"))
        self.open("b", grant_of("t"))
        self.assertEqual(self.kicks.end("b"), Kicked(("b",)))
        self.assertEqual(self.ended(), ["b"])
        self.assertFalse(self.denies("t"))
        self.assertEqual(self.reports.told, [({"session": "b"}, ("b",), ())])
        self.assertRaises(NotFound, self.kicks.end, "c")

    def test_chosen(self) -> None:
        """The sessions that match end, and each of their tokens is refused once."""
        self.open("a", grant_of("t"))
        self.open("b", grant_of("t"), "vm-2")
        self.open("c", grant_of("u"))
        self.open("d", grant_of("v", user=6))
        self.open("e", grant_of("", user=5))
        done = self.kicks.kick(Chosen((("user", "5"),)))
        self.assertEqual(done, Kicked(("a", "b", "c", "e"), ("id-t", "id-u")))
        self.assertEqual(self.ended(), ["a", "b", "c", "e"])
        self.assertEqual([self.denies(name) for name in "tuv"], [True, True, False])
        self.assertEqual(self.reports.told, [({"user": "5"}, done.sessions, done.tokens)])

    def test_some_of_a_token(self) -> None:
        """Only the chosen sessions end, even if others have the same token, which is refused."""
        self.open("a", grant_of("t"))
        self.open("b", grant_of("t"), "vm-2")
        done = self.kicks.kick(Chosen((("namespace", "lab-1"), ("vmi", "vm-2"))))
        self.assertEqual(done, Kicked(("b",), ("id-t",)))
        self.assertEqual(self.ended(), ["b"])

    def test_opened_meanwhile(self) -> None:
        """A session that comes into the list before its token is refused ends, too."""
        self.open("a", grant_of("t"))
        deny = self.denylist.deny

        def open_and_deny(tokens: Any) -> None:
            if "b" not in self.relays:
                self.open("b", grant_of("t"))
                self.open("c", grant_of("u"))
            deny(tokens)

        with mock.patch.object(self.denylist, "deny", open_and_deny):
            done = self.kicks.kick(Chosen((("user", "5"),)))
        self.assertEqual(done, Kicked(("a", "b", "c"), ("id-t", "id-u")))
        self.assertTrue(self.denies("u"))

    def test_token(self) -> None:
        """A whole token is refused with and without sessions, and before these are looked for."""
        self.verifier.answer = grant_of("t")
        self.open("a", grant_of("t", expires_at=1.5e9))
        self.open("b", grant_of("u"))
        self.open("c", grant_of(""))
        all_sessions = self.sessions.all

        def look() -> list[SessionHandle]:
            self.assertTrue(self.denies("t"))
            return all_sessions()

        with mock.patch.object(self.sessions, "all", look):
            done = self.kicks.kick(Chosen(token="x.y.z"))
        self.assertEqual(done, Kicked(("a",), ("id-t",)))
        self.assertEqual(self.ended(), ["a"])
        self.assertEqual(self.reports.told, [({"token_id": "id-t"}, ("a",), ("id-t",))])
        self.verifier.answer = grant_of("w")
        self.assertEqual(self.kicks.kick(Chosen(token="x.y.z")), Kicked((), ("id-w",)))

    def test_token_that_opens_nothing(self) -> None:
        self.open("a", grant_of("t"))
        for error in (BadToken("no"), TokenExpired("too late"), Forbidden("not here")):
            self.verifier.answer = error
            with self.assertRaisesRegex(BadRequest, f"does not accept the token anyway: {error}"):
                self.kicks.kick(Chosen(token="x.y.z"))
        self.assertEqual((self.ended(), self.reports.told), ([], []))

    def test_full(self) -> None:
        """If the denylist is full, the sessions end all the same, and the report lists no tokens."""
        self.open("a", grant_of("t"))
        with mock.patch("wsproxy.state.denylist.MAX_DENIED", 0):
            self.assertRaises(Busy, self.kicks.kick, Chosen((("user", "5"),)))
            self.assertEqual(self.ended(), ["a"])
            self.verifier.answer = grant_of("u")
            self.open("b", grant_of("u", user=6))
            self.assertRaises(Busy, self.kicks.kick, Chosen(token="x.y.z"))
        self.assertEqual(self.ended(), ["a", "b"])
        self.assertEqual(self.reports.told[0], ({"user": "5"}, ("a",), ()))

    def test_nobody_chosen(self) -> None:
        """A choice without criteria matches no session."""
        self.open("a", grant_of("t"))
        self.assertEqual(self.kicks.kick(Chosen()), Kicked(()))
        self.assertEqual(self.ended(), [])


class ChosenTest(unittest.TestCase):
    def test_parse(self) -> None:
        """Each value is a string, or an integer that counts as its string."""
        self.assertEqual(Chosen.parse({"user": 5}), Chosen((("user", "5"),)))
        self.assertEqual(Chosen.parse({"token": "a.b.c"}), Chosen(token="a.b.c"))
        found = Chosen.parse({"namespace": "a", "vmi": "b", "session": "c", "token_id": "d"})
        self.assertEqual(len(found.by), 4)

    def test_token_is_not_shown(self) -> None:
        self.assertNotIn("a.b.c", repr(Chosen.parse({"token": "a.b.c"})))


if __name__ == "__main__":
    unittest.main()
