"""Kicks: which sessions end, and which tokens are refused from then on."""

from __future__ import annotations

import json
import math
import unittest
from dataclasses import replace
from typing import Any, cast
from unittest import mock

from tests.access.test_sessions import FakeRelay
from wsproxy.access.revoked_sessions import end_revoked
from wsproxy.access.sessions import LiveSessions, SessionHandle
from wsproxy.admin.endpoints import session_endpoints
from wsproxy.admin.kick import Chosen, Kicked, Kicks
from wsproxy.admin.routes import AdminRequest
from wsproxy.exceptions import (
    BadRequest,
    BadToken,
    Busy,
    Forbidden,
    NotFound,
    StateUnavailable,
    StoreUnavailable,
    TokenExpired,
)
from wsproxy.protocol.request import RequestHead
from wsproxy.state.console_policies import ConsolePolicies, Policy
from wsproxy.state.limits import LimitRules, Limits
from wsproxy.state.membership import Member, Publication
from wsproxy.state.participant.participant import Participant, ParticipantRules
from wsproxy.state.revocations import Rule
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.values import Console, Event, EventKind, Held, MessageKind, SharedSession, Stage
from wsproxy.tokens.claims import Grant, TokenKey

_NOW = 1e9
_MINUTES = 600.0


def grant_of(name: str, user: str | int = 5, expires_at: float = 2e9) -> Grant:
    key = TokenKey(name.encode(), expires_at, issued_at=_NOW - 100) if name else None
    return Grant(user, "lab-1", ("vm",), expires_at, f"id-{name}", token_key=key)


class FakeReports:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, object, object]] = []

    def kicked(self, by: object, sessions: object, tokens: object, *rest: object) -> None:
        self.told.append((by, sessions, tokens))


class FakeVerifier:
    """Knows one token."""

    def __init__(self) -> None:
        self.answer: Grant | Exception = BadToken("the token is not valid")

    def verify(self, token: str) -> Grant:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class KicksCase(unittest.TestCase):
    """Kicks of one process, whose time stands still."""

    store: MemoryStore | None = None

    def setUp(self) -> None:
        self.now = _NOW
        self.sessions = LiveSessions()
        self.verifier, self.reports = FakeVerifier(), FakeReports()
        self.participant = Participant(
            self.store,
            ParticipantRules(ConsolePolicies([])),
            Limits(LimitRules()),
            self.end_revoked,
            wall_clock=lambda: self.now,
        )
        self.kicks = Kicks(self.sessions, self.participant, cast(Any, self.verifier), cast(Any, self.reports))
        self.relays: dict[str, FakeRelay] = {}

    def end_revoked(self, rules: list[Rule]) -> list[Rule]:
        return end_revoked(self.sessions, self.participant.known, rules)

    def open(self, id: str, grant: Grant, vmi: str = "vm") -> SessionHandle:
        relay = self.relays[id] = FakeRelay()
        handle = SessionHandle(relay, id=id, grant=grant, vmi=vmi, subresource="vnc", client="192.0.2.1")
        self.sessions.add(handle)
        return handle

    def ended(self) -> list[str]:
        for relay in self.relays.values():
            self.assertLessEqual(set(relay.ends), {(4499, "kicked")})
        return [id for id, relay in self.relays.items() if relay.ends]

    def is_refused(self, name: str, user: str | int = 5, vmi: str = "vm") -> bool:
        return self.participant.known.is_revoked(grant_of(name, user), vmi)

    def assert_kicked(
        self, done: Kicked, sessions: tuple[str, ...], tokens: tuple[str, ...], until: float
    ) -> None:
        self.assertEqual((done.sessions, done.tokens, done.until), (sessions, tokens, until))
        self.assertEqual((bool(done.kick), done.behind), (True, ()))


class KicksTest(KicksCase):
    def test_end(self) -> None:
        """One session ends; its token is as good as before."""
        self.open("a", grant_of("t"))
        self.open("b", grant_of("t"))
        self.assertEqual(self.kicks.end("b"), Kicked(("b",)))
        self.assertEqual(self.ended(), ["b"])
        self.assertFalse(self.is_refused("t"))
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
        self.assert_kicked(done, ("a", "b", "c", "e"), ("id-t", "id-u"), math.inf)
        self.assertEqual(self.ended(), ["a", "b", "c", "e"])
        self.assertEqual([self.is_refused(name) for name in "tu"], [True, True])
        self.assertFalse(self.is_refused("v", user=6))
        self.assertEqual(self.reports.told, [({"user": "5"}, done.sessions, done.tokens)])

    def test_nobody_there(self) -> None:
        """A kick is a stored rule: a token without a session is refused, if it was issued before."""
        self.assert_kicked(self.kicks.kick(Chosen((("user", "5"),))), (), (), math.inf)
        self.assertTrue(self.is_refused("t"))
        later = TokenKey(b"t", 2e9, issued_at=_NOW + 5.1)
        self.assertFalse(self.participant.known.is_revoked(replace(grant_of("t"), token_key=later), "vm"))
        self.assertFalse(self.is_refused("t", user=6))

    def test_until(self) -> None:
        """The operator may say until when tokens are refused; a time that has passed is a fault."""
        self.assertRaises(BadRequest, self.kicks.kick, Chosen((("user", "5"),), until=_NOW))
        done = self.kicks.kick(Chosen((("user", "5"),), until=_NOW + _MINUTES))
        self.assertEqual(done.until, _NOW + _MINUTES)
        self.assertTrue(self.is_refused("t"))
        self.now += _MINUTES
        self.assertFalse(self.is_refused("t"))

    def test_session(self) -> None:
        """A kick of one session refuses its token, until that expires, and no other one of its user."""
        self.open("a", grant_of("t", expires_at=1.5e9))
        self.open("b", grant_of("t", expires_at=1.5e9), "vm-2")
        self.open("c", grant_of("u"))
        done = self.kicks.kick(Chosen((("session", "a"),)))
        self.assert_kicked(done, ("a",), ("id-t",), 1.5e9)
        self.assertEqual((self.is_refused("t"), self.is_refused("u")), (True, False))
        self.assertNotIn("c", self.ended())

    def test_session_without_token(self) -> None:
        """A session without a token ends; there is nothing to refuse."""
        self.open("a", grant_of(""))
        self.assertEqual(self.kicks.kick(Chosen((("session", "a"),))), Kicked(("a",)))
        self.assertEqual(self.ended(), ["a"])
        self.assertEqual(self.kicks.kick(Chosen((("session", "z"),))), Kicked(()))

    def test_some_of_a_token(self) -> None:
        """Only the chosen sessions end, even if others have the same token, which is refused."""
        self.open("a", grant_of("t"))
        self.open("b", grant_of("t"), "vm-2")
        done = self.kicks.kick(Chosen((("namespace", "lab-1"), ("vmi", "vm-2"))))
        self.assert_kicked(done, ("b",), ("id-t",), math.inf)
        self.assertEqual(self.ended(), ["b"])
        self.assertTrue(self.is_refused("t"))

    def test_opened_meanwhile(self) -> None:
        """A session that comes into the list before its token is refused ends, too."""
        self.open("a", grant_of("t"))
        kick = self.participant.kick

        def open_and_kick(*given: Any) -> Any:
            self.open("b", grant_of("t"))
            self.open("c", grant_of("u"))
            return kick(*given)

        with mock.patch.object(self.participant, "kick", open_and_kick):
            done = self.kicks.kick(Chosen((("user", "5"),)))
        self.assert_kicked(done, ("a", "b", "c"), ("id-t", "id-u"), math.inf)
        self.assertEqual(self.ended(), ["a", "b", "c"])
        self.assertTrue(self.is_refused("u"))

    def test_token(self) -> None:
        """A whole token is refused with and without sessions; they are looked for once more after that."""
        self.verifier.answer = grant_of("t")
        self.open("a", grant_of("t", expires_at=2e9))
        self.open("b", grant_of("u"))
        self.open("c", grant_of(""))
        all_sessions, refused = self.sessions.all, []

        def look() -> list[SessionHandle]:
            refused.append(self.is_refused("t"))
            return all_sessions()

        with mock.patch.object(self.sessions, "all", look):
            done = self.kicks.kick(Chosen(token="x.y.z"))
        self.assertTrue(refused[-1])
        self.assert_kicked(done, ("a",), ("id-t",), 2e9)
        self.assertEqual(self.ended(), ["a"])
        self.assertEqual(self.reports.told, [({"token_id": "id-t"}, ("a",), ("id-t",))])
        self.assertFalse(self.is_refused("u"))
        self.verifier.answer = grant_of("w")
        self.assert_kicked(self.kicks.kick(Chosen(token="x.y.z")), (), ("id-w",), 2e9)

    def test_token_that_opens_nothing(self) -> None:
        self.open("a", grant_of("t"))
        for error in (BadToken("no"), TokenExpired("too late"), Forbidden("not here")):
            self.verifier.answer = error
            with self.assertRaisesRegex(BadRequest, f"does not accept the token anyway: {error}"):
                self.kicks.kick(Chosen(token="x.y.z"))
        self.assertEqual((self.ended(), self.reports.told), ([], []))

    def test_full(self) -> None:
        """If there are too many rules, the sessions end all the same, and the report lists no tokens."""
        self.open("a", grant_of("t"))
        with mock.patch("wsproxy.state.shared.rule_log.MAX_RULES", 0):
            self.assertRaises(Busy, self.kicks.kick, Chosen((("user", "5"),)))
            self.assertEqual(self.ended(), ["a"])
            self.verifier.answer = grant_of("u", user=6)
            self.open("b", grant_of("u", user=6))
            self.assertRaises(Busy, self.kicks.kick, Chosen(token="x.y.z"))
            self.open("c", grant_of("v"))
            self.assertRaises(Busy, self.kicks.kick, Chosen((("session", "c"),)))
        self.assertEqual(self.ended(), ["a", "b", "c"])
        self.assertEqual(self.reports.told[0], ({"user": "5"}, ("a",), ()))

    def test_nobody_chosen(self) -> None:
        """A choice without criteria matches no session."""
        self.open("a", grant_of("t"))
        self.assertEqual(self.kicks.kick(Chosen()), Kicked(()))
        self.assertEqual(self.ended(), [])
        self.assertFalse(self.is_refused("t"))


class AwayStore(MemoryStore):
    """May be away."""

    is_away = False

    def __getattribute__(self, name: str) -> Any:
        if name in ("revoke", "members", "tell") and self.is_away:
            raise StoreUnavailable("nobody answers")
        return super().__getattribute__(name)


class SharedKicks(KicksCase):
    """Another process has sessions, too."""

    def setUp(self) -> None:
        self.store = self.shared = AwayStore()
        super().setUp()
        session = SharedSession("x", 5, Console("lab-1", "vm", "vnc"), token_id="id-t", expires_at=1.5e9)
        there = Held(session, Stage.OPEN, Policy.PASSTHROUGH)
        self.other = Member("other", "replica-2", 15.0)
        self.shared.publish(Publication(self.other, sessions=(there,)))
        sleeping = mock.patch("wsproxy.state.participant.participant._KICK_SECONDS", 0.0)
        sleeping.start()
        self.addCleanup(sleeping.stop)

    def told(self) -> list[tuple[MessageKind, str, int]]:
        messages = self.shared.report("other", (Event(EventKind.ENDING, "none"),))
        return [(message.kind, message.session, message.code) for message in messages]

    def test_chosen(self) -> None:
        """Sessions of all processes are reported, and so is who has not applied the rule."""
        self.open("a", grant_of("u"))
        done = self.kicks.kick(Chosen((("user", "5"),)))
        self.assertEqual((done.sessions, done.tokens), (("a", "x"), ("id-u", "id-t")))
        self.assertEqual(done.behind, ("replica-2",))

    def test_session(self) -> None:
        """The process that has the session is told to end it."""
        done = self.kicks.kick(Chosen((("session", "x"),)))
        self.assertEqual((done.sessions, done.tokens, done.until), (("x",), ("id-t",), 1.5e9))
        self.assertEqual(self.told(), [(MessageKind.END, "x", 4499)])

    def test_end(self) -> None:
        self.assertEqual(self.kicks.end("x"), Kicked(("x",)))
        self.assertEqual(self.told(), [(MessageKind.END, "x", 4499)])
        self.assertRaises(NotFound, self.kicks.end, "y")

    def test_list(self) -> None:
        """The oldest session comes first, whichever process has it."""
        self.open("a", grant_of("u"))
        answers: list[bytes] = []
        request = AdminRequest(RequestHead("GET", "/sessions", "1.1", []), "/sessions")
        endpoint = session_endpoints(None, self.kicks)["/sessions"]
        endpoint.handle(request, lambda make: answers.append(make()))
        listed = json.loads(answers[0].partition(b"\r\n\r\n")[2])["sessions"]
        self.assertEqual([(one["id"], one["replica"]) for one in listed], [("x", "replica-2"), ("a", "")])

    def test_full(self) -> None:
        """If there are too many rules, the sessions of all processes end all the same."""
        self.open("a", grant_of("u"))
        with mock.patch("wsproxy.state.shared.rule_log.MAX_RULES", 0):
            self.assertRaises(Busy, self.kicks.kick, Chosen((("user", "5"),)))
        self.assertEqual(self.ended(), ["a"])
        self.assertEqual(self.told(), [(MessageKind.END, "x", 4499)])
        self.assertEqual(self.reports.told, [({"user": "5"}, ("a", "x"), ())])

    def test_away_when_the_rule_is_added(self) -> None:
        """Sessions of other processes that nobody could tell are not reported as ended."""
        others = self.kicks.others()
        with mock.patch.object(self.kicks, "others", lambda: others):
            self.shared.is_away = True
            self.assertRaises(StateUnavailable, self.kicks.kick, Chosen((("user", "5"),)))
        self.assertEqual(self.reports.told, [({"user": "5"}, (), ())])

    def test_away(self) -> None:
        """While the store is away, this process's sessions end, and it refuses the tokens all the same."""
        self.open("a", grant_of("t"))
        self.open("b", grant_of("u", user=6))
        self.shared.is_away = True
        for chosen in (Chosen((("user", "5"),)), Chosen((("session", "b"),)), Chosen((("session", "x"),))):
            with self.assertRaises(StateUnavailable):
                self.kicks.kick(chosen)
        self.assertEqual(self.ended(), ["a", "b"])
        self.assertEqual((self.is_refused("t"), self.is_refused("u", user=6)), (True, True))
        self.assertEqual([told[1] for told in self.reports.told], [("a",), ("b",)])
        self.assertRaises(StateUnavailable, self.kicks.end, "x")

    def test_away_meanwhile(self) -> None:
        """A store that goes before another process is told of an end is no bug."""
        others = self.kicks.others()
        with mock.patch.object(self.kicks, "others", lambda: others):
            self.shared.is_away = True
            self.assertRaises(StateUnavailable, self.kicks.end, "x")


class ChosenTest(unittest.TestCase):
    def test_parse(self) -> None:
        """Each value is a string, or an integer that counts as its string."""
        self.assertEqual(Chosen.parse({"user": 5}), Chosen((("user", "5"),)))
        self.assertEqual(Chosen.parse({"token": "a.b.c"}), Chosen(token="a.b.c"))
        found = Chosen.parse({"namespace": "a", "vmi": "b", "session": "c", "token_id": "d"})
        self.assertEqual(len(found.by), 4)

    def test_until(self) -> None:
        """``until`` is a time, beside other criteria, and not with a session."""
        self.assertEqual(Chosen.parse({"user": "5", "until": 7}), Chosen((("user", "5"),), until=7.0))
        for until in (True, "7", None, math.inf):
            with self.subTest(until=until), self.assertRaises(BadRequest):
                Chosen.parse({"user": "5", "until": until})
        for wanted in ({"until": 7}, {"session": "a", "until": 7}):
            with self.subTest(wanted=wanted), self.assertRaises(BadRequest):
                Chosen.parse(wanted)

    def test_token_is_not_shown(self) -> None:
        self.assertNotIn("a.b.c", repr(Chosen.parse({"token": "a.b.c"})))


if __name__ == "__main__":
    unittest.main()
