"""Revocations at the operator's listener: the list, lifts, and the ends of kicks."""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
import unittest
from typing import Any
from unittest import mock

from tests.admin.test_endpoints import OperatorCase
from tests.support.jws import signed_token, unverified_claims
from wsproxy.admin.kick import Chosen, Kicks
from wsproxy.admin.revocations import Revocation, page_of
from wsproxy.cli import main
from wsproxy.exceptions import BadRequest, NotFound, StateUnavailable, StoreUnavailable
from wsproxy.runtime.wall_clock import unix_time
from wsproxy.state.console_policies import ConsolePolicies
from wsproxy.state.limits import LimitRules, Limits
from wsproxy.state.membership import Member, Revoked
from wsproxy.state.participant.participant import Kick, Participant, ParticipantRules
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.store import Store
from wsproxy.telemetry.audit import AuditLog
from wsproxy.telemetry.counters import Counters
from wsproxy.telemetry.reports import Reports
from wsproxy.testing.case import SECRET

_NOW = 1.7e9


def rule(kick: str, made_at: float = _NOW, until: float = math.inf, **match: str) -> Rule:
    return Rule(f"r-{kick}-{len(match)}", kick, made_at, until, Match(**(match or {"user": "5"})), "pod-1")


class Pages(unittest.TestCase):
    """What becomes of rules in the list."""

    def kicks(self, *rules: Rule, now: float = _NOW + 1) -> list[str]:
        return [one.kick for one in page_of(rules, now).kicks]

    def test_folded(self) -> None:
        """A kick stands once, with all that it matches, and the number of tokens of ended sessions."""
        one, two = rule("k", until=_NOW + 9, user="5"), rule("k", until=_NOW + 8, namespace="a", vmi="b")
        tokens = [Rule.of_token(one, digest, 2e9) for digest in ("aa", "bb")]
        (found,) = page_of([*tokens, one, two], _NOW).kicks
        self.assertEqual(
            found,
            Revocation("k", _NOW, _NOW + 9, "pod-1", (one.match, two.match), 2),  # type: ignore[arg-type]
        )

    def test_in_force(self) -> None:
        """Lifts, and rules that are over, are not in the list; a kick is as long as one of its tokens is."""
        over = rule("over", until=_NOW)
        lift = Rule.lift("lifted", _NOW, math.inf)
        kept = Rule.of_token(over, "aa", _NOW + 5)
        self.assertEqual(self.kicks(over, lift), [])
        (found,) = page_of([over, lift, kept], _NOW + 1).kicks
        self.assertEqual((found.until, found.matches, found.tokens), (_NOW + 5, (), 1))
        self.assertEqual(self.kicks(kept, now=_NOW + 5), [])

    def test_order(self) -> None:
        """The newest stand first. Pages come to the same, and a lift of the last one changes nothing."""
        rules = [rule(f"k{n}", _NOW + n // 3) for n in range(25)]
        expected = [one.kick for one in sorted(rules, key=lambda one: (one.made_at, one.kick), reverse=True)]
        self.assertEqual(self.kicks(*rules), expected)
        found: list[str] = []
        before = ""
        while True:
            page = page_of(rules, _NOW, before, 10)
            found += [one.kick for one in page.kicks]
            rules = [one for one in rules if one.kick != found[-1]]
            if not (before := page.next):
                break
        self.assertEqual(found, expected)

    def test_wrong_page(self) -> None:
        for before in ("x", "-", "1e5x-k", "k-1"):
            with self.subTest(before), self.assertRaises(BadRequest):
                page_of([], _NOW, before)
        self.assertEqual(page_of([rule("k")], _NOW, "nan-k").kicks, ())

    def test_size(self) -> None:
        """A page of as many rules as there may be takes less than a second."""
        one = rule("k")
        many = [rule(f"k{n}", _NOW + n) for n in range(50_000)]
        many += [Rule.of_token(one, f"{n:064x}", 2e9) for n in range(50_000)]
        before = time.thread_time()
        page = page_of(many, _NOW)
        self.assertLess(time.thread_time() - before, 1.0)
        self.assertEqual((len(page.kicks), page.kicks[0].kick), (1000, "k49999"))


class Ends(unittest.TestCase):
    """``until`` of a kick."""

    def test_parsed(self) -> None:
        for until in (0, 1.5, _NOW, 253402300799):
            self.assertEqual(Chosen.parse({"user": "5", "until": until}).until, float(until))
        self.assertIsNone(Chosen.parse({"user": "5"}).until)

    def test_wrong(self) -> None:
        wrong: tuple[Any, ...] = (None, True, "2h", [], -1, 253402300800, 10**400, 1e308, math.nan, math.inf)
        for until in wrong:
            with self.subTest(until), self.assertRaisesRegex(BadRequest, "until must be a UNIX time"):
                Chosen.parse({"user": "5", "until": until})
        with self.assertRaisesRegex(BadRequest, "until cannot be combined with session"):
            Chosen.parse({"session": "a", "until": _NOW})
        with self.assertRaisesRegex(BadRequest, "non-empty strings"):
            Chosen.parse({"until": _NOW})


class Reported(unittest.TestCase):
    """What the logs have of kicks and lifts."""

    def logged(self, method: str, *arguments: object) -> tuple[str, dict[str, Any]]:
        audit = mock.create_autospec(AuditLog, instance=True)
        with self.assertLogs("wsproxy.admin", "INFO") as logs:
            getattr(Reports(Counters(), audit), method)(*arguments)
        ((event, fields), _) = audit.write.call_args
        self.assertEqual(event, method)
        (record,) = logs.records
        self.assertEqual(record.fields, fields)  # type: ignore[attr-defined]
        json.dumps(fields, allow_nan=False)
        return record.getMessage(), fields

    def test_kick(self) -> None:
        told, fields = self.logged("kicked", {"user": "5"}, ("a", "b"), ("t",), "k1", 0.5, ("pod-1", "p\n"))
        self.assertEqual(
            told,
            "kicked 2 sessions by user '5'; kick k1 refuses tokens until 1970-01-01T00:00:00.500Z; "
            "not applied yet by 'pod-1', 'p\\n'",
        )
        expected = {"by": {"user": "5"}, "sessions": ["a", "b"], "tokens": ["t"], "kick": "k1"}
        self.assertEqual(fields, expected | {"until": "1970-01-01T00:00:00.500Z", "behind": ["pod-1", "p\n"]})

    def test_no_end(self) -> None:
        told, fields = self.logged("kicked", {"user": "5"}, (), (), "k1", math.inf)
        self.assertEqual(
            told, "kicked 0 sessions by user '5'; kick k1 refuses tokens for ever, until it is lifted"
        )
        self.assertIsNone(fields["until"])

    def test_no_token(self) -> None:
        told, fields = self.logged("kicked", {"session": "a"}, ("a",), ())
        self.assertEqual(told, "kicked 1 sessions by session 'a'; no token is refused")
        self.assertIsNone(fields["kick"])

    def test_lift(self) -> None:
        self.assertEqual(self.logged("lifted", "k1", ()), ("lifted kick k1", {"kick": "k1", "behind": []}))
        told, _ = self.logged("lifted", "k1", ("pod-2",))
        self.assertEqual(told, "lifted kick k1; not applied yet by 'pod-2'")


class Lifts(unittest.TestCase):
    """What lifting asks of the state."""

    def kicks(self, lifted: Kick | None) -> tuple[Kicks, mock.Mock, mock.Mock]:
        participant = mock.create_autospec(Participant, instance=True)
        participant.lift.return_value = lifted
        reports = mock.create_autospec(Reports, instance=True)
        return Kicks(mock.Mock(), participant, mock.Mock(), reports), participant, reports

    def test_behind(self) -> None:
        done = Kick("k1", _NOW, ("pod-2",))
        kicks, _, reports = self.kicks(done)
        self.assertEqual(kicks.lift("k1"), done)
        reports.lifted.assert_called_once_with("k1", ("pod-2",))

    def test_processes_behind(self) -> None:
        """A lift waits for the other processes as a kick does, and names those that are left."""
        store = mock.create_autospec(Store, instance=True)
        store.lift.return_value = Revoked(True, 7)
        rules = ParticipantRules(ConsolePolicies(()), name="pod-1")
        participant = Participant(store, rules, Limits(LimitRules()), lambda fresh: [])
        others = [Member("b", "pod-2", 15.0), Member("c", "", 15.0)]
        store.behind.side_effect = [(participant.member, *others), tuple(others), ()]
        self.assertEqual(participant.lift("k1"), Kick("k1", 0.0))
        self.assertEqual([call.args for call in store.behind.mock_calls], [(7,)] * 3)
        store.behind.side_effect = [(participant.member, *others)]
        with mock.patch("wsproxy.state.participant.participant._KICK_SECONDS", 0.0):
            self.assertEqual(participant.lift("k1"), Kick("k1", 0.0, ("pod-2", "c")))
        store.lift.side_effect = StoreUnavailable("it is away")
        self.assertRaises(StateUnavailable, participant.lift, "k1")

    def test_unknown(self) -> None:
        """What cannot be an id is not asked for, nor reported."""
        kicks, participant, reports = self.kicks(None)
        self.assertRaises(NotFound, kicks.lift, "k1")
        participant.lift.assert_called_once_with("k1")
        for id in ("", "k1.lift", "k1.aa", "a" * 65, "%6b1", "\u00e9", "a b"):
            self.assertRaises(NotFound, kicks.lift, id)
        participant.lift.assert_called_once()
        self.assertEqual(reports.mock_calls, [])


class AtTheListener(OperatorCase):
    """With a running proxy, whose clock the test sets."""

    def setUp(self) -> None:
        super().setUp()
        self.skew = 0.0
        patcher = mock.patch("time.time", lambda: time.time_ns() / 1e9 + self.skew)
        patcher.start()
        self.addCleanup(patcher.stop)

    def revocations(self, query: str = "") -> list[dict[str, Any]]:
        status, found = self.ask("GET", f"/revocations{query}")
        self.assertEqual(status, 200, found)
        self.assertEqual(found.keys(), {"time", "revocations", "next"})
        listed: list[dict[str, Any]] = found["revocations"]
        return listed

    def token_without_iat(self, vmi: str = "vm", **claims: Any) -> str:
        found = unverified_claims(self.token(vmi, **claims))
        found.pop("iat", None)
        return signed_token(found, SECRET)

    def status(self, token: str, vmi: str = "vm") -> int:
        return self.knock(vmi, token).status

    def test_nobody_there(self) -> None:
        """A kick of a user who has no session refuses their tokens, until it is lifted."""
        self.start(replica_name="pod-1")
        token = self.token_without_iat(user=5)
        kicked = self.kick(user="5")
        self.assertEqual((kicked["sessions"], kicked["until"], kicked["behind"]), ([], None, []))
        self.assert_revoked("vm", token)
        (found,) = self.revocations()
        made_at = found.pop("made_at")
        self.assertTrue(made_at.endswith("Z"))
        expected = {"kick": kicked["kick"], "matches": [{"user": "5"}], "until": None, "replica": "pod-1"}
        self.assertEqual(found, expected | {"tokens": 0, "needs_iat": True})
        status, lifted = self.ask("DELETE", f"/revocations/{kicked['kick']}")
        self.assertEqual((status, lifted), (200, {"kick": kicked["kick"], "behind": []}))
        self.assertEqual(self.revocations(), [])
        self.assertEqual(self.status(token), 101)

    def test_sessions(self) -> None:
        """The list counts the tokens of ended sessions, and a lift accepts these again as well."""
        self.start()
        token = self.token("vm", user=5)
        client = self.client("vm", token)
        kicked = self.kick(namespace=self.namespace, vmi="vm")
        self.assert_kicked(client)
        self.assert_revoked("vm", token)
        (found,) = self.revocations()
        self.assertEqual(found["matches"], [{"namespace": self.namespace, "vmi": "vm"}])
        self.assertEqual(found["tokens"], 1)
        self.ask("DELETE", f"/revocations/{kicked['kick']}")
        self.assertEqual(self.status(token), 101)

    def test_digests(self) -> None:
        """A kick of a token shows no more of its hash than a token's id has."""
        self.start()
        token = self.token_without_iat()
        client = self.client("vm", token)
        (handle,) = self.proxy.sessions()
        self.kick(token=token)
        self.assert_kicked(client)
        (found,) = self.revocations()
        self.assertEqual(found["matches"], [{"token": handle.grant.token_id}])
        self.assertFalse(found["needs_iat"])
        assert handle.grant.token_key
        self.assertNotIn(handle.grant.token_key.digest.hex()[:17], json.dumps(found))

    def test_later_tokens(self) -> None:
        """A token that is issued after the kick, and says so, is accepted."""
        self.start(leeway=0.0)
        kicked = self.kick(user="5")
        self.assertTrue(kicked["needs_iat"])
        now = unix_time()
        early = signed_token(unverified_claims(self.token("vm", user=5)) | {"iat": now - 60}, SECRET)
        self.assert_revoked("vm", early)
        self.skew = 60
        late = signed_token(unverified_claims(self.token("vm", user=5)) | {"iat": now + 30}, SECRET)
        self.assertEqual(self.status(late), 101)

    def test_lifetime(self) -> None:
        """With the tokens' lifetime, a later token needs no ``iat``, and the kick has an end."""
        self.start(token_lifetime=600.0)
        now = unix_time()
        old, new, long = (self.token_without_iat(user=5, expires_in=more) for more in (500, 660, 900))
        kicked = self.kick(user="5")
        self.assertFalse(kicked["needs_iat"])
        self.assertGreater(str(kicked["until"]), time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now + 600)))
        self.assert_revoked("vm", old)
        self.skew = 60  # when the later token is issued
        self.assertEqual(self.status(new), 101)
        self.assert_revoked("vm", long)  # it lives longer than it may, so nobody knows when it was issued
        self.assertFalse(self.revocations()[0]["needs_iat"])

    def test_until(self) -> None:
        """A kick ends when the operator says."""
        self.start()
        self.assertEqual(self.ask("POST", "/kick", {"user": "5", "until": 5})[0], 400)
        self.assertEqual(self.ask("POST", "/kick", b'{"user": "5", "until": 1e999}')[0], 400)
        token, until = self.token_without_iat(user=5, expires_in=7200), unix_time() + 3600
        kicked = self.kick(user="5", until=until)
        self.assertEqual(self.revocations()[0]["until"], kicked["until"])
        self.assert_revoked("vm", token)
        self.skew = 3601
        self.assertEqual(self.revocations(), [])
        self.assertEqual(self.status(token), 101)

    def test_pages(self) -> None:
        """Many kicks come in several answers."""
        self.start()
        ids = [self.kick(user=str(user))["kick"] for user in range(5)]
        with mock.patch("wsproxy.admin.revocations.page_of.__defaults__", ("", 2)):
            found: list[str] = []
            query = ""
            while True:
                _, page = self.ask("GET", f"/revocations{query}")
                found += [one["kick"] for one in page["revocations"]]
                if page["next"] is None:
                    break
                query = f"?before={page['next']}"
        self.assertEqual(found, ids[::-1])

    def command(self, *arguments: str) -> tuple[int, str]:
        """Return exit status and output of a command."""
        with contextlib.redirect_stdout(io.StringIO()) as output:
            status = main([*arguments, "--admin", f"unix:{self.path}"])
        return status, output.getvalue()

    def test_commands(self) -> None:
        """What the commands say of a user who is away."""
        self.start(replica_name="pod-1")
        token = self.token_without_iat(user=5)
        status, told = self.command("sessions", "kick", "--user", "5", "--until", "2h")
        self.assertEqual(status, 0)
        self.assertIn("tokens with user 5 that were issued until now are refused from now on, until 20", told)
        self.assertIn("tokens without iat are refused, too, if they are issued later", told)
        self.assert_revoked("vm", token)
        status, told = self.command("revocations")
        self.assertRegex(
            told.splitlines()[1], r"^[0-9a-f]{16}  user=5   \d+s ago  in 1h59m  with iat  0       pod-1$"
        )
        self.assertEqual(self.command("revocations", "lift", told.split()[7]), (0, "1 kicks lifted\n"))
        self.client("vm", token)
        self.assertRegex(self.command("sessions")[1].splitlines()[1], "  pod-1$")

    def test_refused(self) -> None:
        """Wrong requests, and requests of strangers, do nothing."""
        token = self.start_with_token()
        headers = {"Authorization": f"Bearer {token}"}
        kick = self.ask("POST", "/kick", {"user": "5"}, headers)[1]["kick"]
        for method, path, given, status in (
            ("GET", "/revocations", {}, 401),
            ("DELETE", f"/revocations/{kick}", {}, 401),
            ("DELETE", f"/revocations/{kick}", headers | {"Origin": "http://localhost"}, 403),
            ("DELETE", f"/revocations/{kick}", headers | {"Host": "evil.example"}, 403),
            ("DELETE", "/revocations/0123456789abcdef", headers, 404),
            ("DELETE", "/revocations/", headers, 404),
            ("DELETE", "/revocations", headers, 405),
            ("GET", f"/revocations/{kick}", headers, 405),
            ("GET", "/revocations?before=", headers, 400),
            ("GET", "/revocations?before=x", headers, 400),
            ("GET", "/revocations?after=1-x", headers, 400),
        ):
            with self.subTest((method, path, given)):
                self.assertEqual(self.ask(method, path, None, given)[0], status)
        listed = self.ask("GET", "/revocations", None, headers)[1]["revocations"]
        self.assertEqual([one["kick"] for one in listed], [kick])

    def start_with_token(self) -> str:
        """Start the proxy; return the operator's token."""
        token = "0123456789abcdef-the-operator's"
        path = f"{self.directory}/operator"
        with open(path, "w", encoding="ascii") as file:
            file.write(token)
        self.start(admin_token_file=path)
        return token

    def test_not_saved(self) -> None:
        """If the file cannot be written, the answers say so."""
        self.start()
        done = mock.patch.object(
            Participant, "_done", lambda _, kick, until, version: Kick(kick, until, (), "full")
        )
        with done:
            kicked = self.kick(user="5")
            self.assertEqual(kicked["unsaved"], "full")
            status, lifted = self.ask("DELETE", f"/revocations/{kicked['kick']}")
        self.assertEqual((status, lifted["unsaved"]), (200, "full"))


if __name__ == "__main__":
    unittest.main()
