"""The small parts of a participant: its queue of reports, its gate, publications, and the rules it knows."""

from __future__ import annotations

import inspect
import math
import threading
import unittest
from typing import Any
from unittest import mock

from wsproxy.exceptions import StoreUnavailable
from wsproxy.runtime.deadline import since_boot
from wsproxy.state.console_policies import Policy
from wsproxy.state.membership import Member, publications
from wsproxy.state.participant.gate import Gate
from wsproxy.state.participant.known_rules import KnownRules, RevocationRules
from wsproxy.state.participant.outbox import Outbox
from wsproxy.state.participant.participant import Participant
from wsproxy.state.revocations import Match, Rule, RuleSet
from wsproxy.state.values import Event, EventKind, Held, Stage
from wsproxy.testing.case import LeakTestCase
from wsproxy.tokens.claims import Grant, TokenKey

from .fakes import shared

_LONG = 10.0


def ending(*ids: object) -> tuple[Event, ...]:
    return tuple(Event(EventKind.ENDING, str(id)) for id in ids)


class OutboxTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.outbox = Outbox()

    def post(self, *ids: object) -> None:
        for event in ending(*ids):
            self.outbox.post(event)

    def test_order(self) -> None:
        """Events go in the order in which they came."""
        self.post(1, 2)
        self.assertFalse(self.outbox.is_idle)
        batch = self.outbox.take(_LONG)
        self.assertEqual(batch.events, ending(1, 2))
        self.assertTrue(self.outbox.is_under_way)
        batch.done()
        self.assertTrue(self.outbox.is_idle)
        self.assertFalse(self.outbox.is_under_way)

    def test_empty(self) -> None:
        """A batch without events holds nobody up."""
        self.assertEqual(self.outbox.take(_LONG).events, ())
        self.assertFalse(self.outbox.is_under_way)
        self.post(1)
        self.assertEqual(self.outbox.take(_LONG).events, ending(1))

    def test_bound(self) -> None:
        self.post(*range(700))
        first = self.outbox.take(_LONG)
        first.done()
        second = self.outbox.take(_LONG)
        self.assertEqual(first.events + second.events, ending(*range(700)))
        self.assertEqual(len(second.events), 200)

    def test_failed(self) -> None:
        """What may not have arrived is reported again, before what came later."""
        self.post(1, 2)
        batch = self.outbox.take(_LONG)
        self.post(3)
        batch.failed()
        self.assertEqual(self.outbox.take(_LONG).events, ending(1, 2, 3))

    def test_age(self) -> None:
        """It knows how long the oldest event has waited. Those that a batch took do not count."""
        now = 5.0
        self.outbox = Outbox(lambda: now)
        self.assertEqual(self.outbox.seconds_until(2.0), math.inf)
        self.post(1)
        now = 6.0
        self.post(2)
        self.assertEqual(self.outbox.seconds_until(2.0), 1.0)
        now = 8.0
        self.assertEqual(self.outbox.seconds_until(2.0), -1.0)
        self.outbox.take(_LONG)
        self.assertEqual(self.outbox.seconds_until(2.0), math.inf)
        self.post(3)
        self.assertEqual(self.outbox.seconds_until(2.0), 2.0)

    def test_age_after_a_failure(self) -> None:
        """What has to be reported again is as old as before."""
        now = 5.0
        self.outbox = Outbox(lambda: now)
        self.post(1)
        batch = self.outbox.take(_LONG)
        now = 9.0
        batch.failed()
        self.assertEqual(self.outbox.seconds_until(2.0), -2.0)

    def test_clear(self) -> None:
        self.post(1)
        self.outbox.clear()
        self.assertTrue(self.outbox.is_idle)

    def waits(self, ask: Any) -> threading.Thread:
        """Begin a thread that asks; return it once it waits."""
        waiting, wait_for = threading.Event(), self.outbox._changed.wait_for

        def noted(*given: Any) -> Any:
            waiting.set()
            return wait_for(*given)

        patcher = mock.patch.object(self.outbox._changed, "wait_for", noted)
        patcher.start()
        self.addCleanup(patcher.stop)
        thread = threading.Thread(target=ask)
        thread.start()
        self.assertTrue(waiting.wait(_LONG))
        return thread

    def test_none_overtakes(self) -> None:
        """A later batch waits for the end of the one before; if that fails, it carries its events, too."""
        self.post(1)
        batch = self.outbox.take(_LONG)
        self.post(2)
        got: list[tuple[Event, ...]] = []
        thread = self.waits(lambda: got.append(self.outbox.take(_LONG).events))
        batch.failed()
        thread.join(_LONG)
        self.assertEqual(got, [ending(1, 2)])

    def test_wait_for_others(self) -> None:
        self.post(1)
        batch = self.outbox.take(_LONG)
        thread = self.waits(lambda: self.outbox.wait_for_others(_LONG))
        batch.done()
        thread.join(_LONG)
        self.assertFalse(thread.is_alive())

    def test_nobody_waits_for_ever(self) -> None:
        """If a batch does not end in time, the next one goes empty, and its events do not overtake."""
        self.post(1)
        first = self.outbox.take(0.0)
        self.post(2)
        self.outbox.wait_for_others(0.0)
        second = self.outbox.take(0.001)
        self.assertEqual((second.events, second.is_behind), ((), True))
        first.done()
        self.assertEqual(self.outbox.take(0.001).events, ending(2))

    def test_at_once(self) -> None:
        """Who does not wait carries nothing while a batch is under way."""
        self.post(1)
        first = self.outbox.take(0.0)
        self.post(2)
        second = self.outbox.take(0.0)
        self.assertEqual((second.events, second.is_behind), ((), True))
        second.failed()
        first.done()
        third = self.outbox.take(0.0)
        self.assertEqual((third.events, third.is_behind), (ending(2), False))


class GateTest(unittest.TestCase):
    def test_many_pass(self) -> None:
        gate = Gate(0.0)
        self.assertTrue(gate.is_empty)
        with gate.passing(), gate.passing():
            self.assertEqual((gate.entered, gate.is_empty), (2, False))
        self.assertEqual((gate.entered, gate.is_empty), (2, True))

    def test_alone(self) -> None:
        """While a publication is under way nobody passes; afterwards all do, also if it has failed."""
        gate = Gate(0.0)
        with self.assertRaises(ArithmeticError), gate.alone():
            with self.assertRaises(StoreUnavailable), gate.passing():
                self.fail("it was let through")
            raise ArithmeticError
        with self.assertRaises(ArithmeticError), gate.passing():
            raise ArithmeticError
        self.assertEqual((gate.entered, gate.is_empty), (1, True))

    def test_call_that_does_not_end(self) -> None:
        """A publication waits for the calls, but not for ever."""
        gate = Gate(0.0)
        with gate.passing(), gate.alone():
            self.assertFalse(gate.is_empty)


class PublicationTest(unittest.TestCase):
    member = Member("m", "", 15.0)

    def test_nothing(self) -> None:
        """There is one part at least."""
        [part] = publications(self.member, [], [], ("x",))
        self.assertEqual((part.part, part.last, part.sessions, part.rules), (0, True, (), ()))
        self.assertEqual((part.member, part.knew), (self.member, ("x",)))

    def test_parts(self) -> None:
        """All is in one part each, in order, of which only the last one says so."""
        for sessions, rules, count in ((500, 500, 1), (501, 0, 2), (3, 1001, 3), (1000, 2, 2)):
            with self.subTest(sessions=sessions, rules=rules):
                held = [Held(shared(str(number)), Stage.OPEN, Policy.TAKEOVER) for number in range(sessions)]
                known = [
                    Rule(str(number), "k", 0.0, math.inf, Match(user=str(number))) for number in range(rules)
                ]
                parts = list(publications(self.member, held, known, ("x",)))
                self.assertEqual([part.part for part in parts], list(range(count)))
                self.assertEqual([part.last for part in parts], [False] * (count - 1) + [True])
                self.assertEqual([one for part in parts for one in part.sessions], held)
                self.assertEqual([one for part in parts for one in part.rules], known)
                self.assertEqual([part.knew for part in parts], [("x",)] + [()] * (count - 1))


class ClockTest(unittest.TestCase):
    def test_suspended_machine(self) -> None:
        """A process sees that its lease has passed also if its machine was suspended meanwhile."""
        self.assertIs(inspect.signature(Participant).parameters["clock"].default, since_boot)


class KnownRulesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 1e9

    def known(self, **settings: Any) -> KnownRules:
        return KnownRules(RevocationRules(**settings), lambda: self.now)

    def rule(self, id: str = "r", until: float = math.inf, **match: str) -> Rule:
        return Rule(id, "k", 1e9, until, Match(**match))

    def grant(self, issued_at: float | None = 1e9, expires_at: float = 2e9) -> Grant:
        key = TokenKey(b"t", expires_at, issued_at)
        return Grant(5, "lab-1", ("vm",), expires_at, "id-t", token_key=key)

    def test_learn(self) -> None:
        """What is known already is not new; a lift is, and takes its kick's rules out of force."""
        known, rule = self.known(), self.rule(user="5")
        lift = Rule.lift("k", 1e9 + 1, math.inf)
        self.assertEqual(known.learn([rule, rule]), [rule])
        self.assertEqual(known.learn([rule]), [])
        self.assertTrue(known.is_revoked(self.grant(), "vm"))
        self.assertEqual(known.learn([lift]), [lift])
        self.assertEqual(known.learn([rule]), [])
        self.assertFalse(known.is_revoked(self.grant(), "vm"))
        self.assertEqual(list(known), [lift])

    def test_when_issued(self) -> None:
        """In doubt a token is from before the rule: within the leeway, and without ``iat``."""
        known = self.known()
        known.learn([self.rule(user="5")])
        found = [known.is_revoked(self.grant(issued), "vm") for issued in (1e9 - 9, 1e9 + 5, 1e9 + 5.1, None)]
        self.assertEqual(found, [True, True, False, True])

    def test_lifetime(self) -> None:
        """Without ``iat`` its end and the longest life tell; the leeway of the grant is no part of that."""
        known = self.known(lifetime=600.0, expiry_leeway=30.0)
        known.learn([self.rule(user="5")])
        self.now = 1e9 + 60
        found = [
            known.is_revoked(self.grant(None, end + 30), "vm")
            for end in (1e9 + 605, 1e9 + 606, 1e9 + 665, 1e9 + 666, math.inf)
        ]
        self.assertEqual(found, [True, False, False, True, True])  # nobody issues a token in the future

    def test_vmi(self) -> None:
        """A rule for a VMI refuses a token where that VMI is to be opened, and nowhere else."""
        known = self.known()
        known.learn([self.rule(namespace="lab-1", vmi="vm")])
        self.assertEqual(
            [known.is_revoked(self.grant(), vmi) for vmi in ("vm", "x", None)], [True, False, False]
        )

    def test_no_token(self) -> None:
        """Where there is no token, none is refused; the session ends if it began before the rule."""
        known, rule = self.known(), self.rule(user="5")
        known.learn([rule])
        grant = Grant(5, "lab-1", ("vm",), 2e9, "")
        self.assertFalse(known.is_revoked(grant, "vm"))
        chosen = RuleSet([rule])
        self.assertEqual(known.ended_by(chosen, grant, "vm", 1e9 - 1), rule)
        self.assertIsNone(known.ended_by(chosen, grant, "vm", 1e9 + 6))

    def test_forgotten(self) -> None:
        """A rule is forgotten an hour after its end."""
        known = self.known()
        known.learn([self.rule(until=1e9 + 10, user="5")])
        self.now += 11
        self.assertFalse(known.is_revoked(self.grant(), "vm"))
        known.learn([])
        self.assertEqual(len(list(known)), 1)
        self.now += 3600
        known.learn([])
        self.assertEqual(list(known), [])


if __name__ == "__main__":
    unittest.main()
