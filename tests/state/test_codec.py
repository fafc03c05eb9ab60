"""The JSON form of values, and two versions that read each other."""

from __future__ import annotations

import json
import math
import unittest
from typing import NamedTuple

from wsproxy.state.codec import from_json, to_json
from wsproxy.state.console_policies import Policy
from wsproxy.state.membership import Beat, Failure, Publication
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.stores.remote import answer_call
from wsproxy.state.tickets import Ticket
from wsproxy.state.values import (
    Console,
    Decision,
    Message,
    MessageKind,
    Outcome,
    Request,
    SessionRef,
    SlotLimits,
)

from .conformance.case import session
from .conformance.tickets import ticket


class Newer(NamedTuple):
    """A :class:`.SlotLimits` of a later version."""

    sessions: int = 0
    user: int = 0
    vmi: int = 0
    namespace: int = 0


class CodecTest(unittest.TestCase):
    def test_there_and_back(self) -> None:
        """A value comes back as it was, also as text."""
        for value in (
            Request(session("s1", 5), Policy.TAKEOVER, SlotLimits(1, 2, 3), False),
            Decision(Outcome.WAIT, by="5", in_way=(SessionRef("a", "s1"), SessionRef("b", "s2"))),
            Beat(1, "e", failures=(Failure("net", 0.5),)),
            ticket(),
            ticket(2**62),
        ):
            with self.subTest(type(value).__name__):
                text = json.dumps(to_json(value), allow_nan=False)
                self.assertEqual(from_json(type(value), json.loads(text)), value)

    def test_for_ever(self) -> None:
        """JSON has no infinity: it is a word."""
        data = to_json(ticket().grant.token_key)
        self.assertEqual(data["expires_at"], "inf")
        found = from_json(Ticket, to_json(ticket())).grant.token_key
        self.assertEqual(found and found.expires_at, math.inf)

    def test_whole_seconds(self) -> None:
        """Lua writes 1.0 as 1."""
        found = from_json(Failure, {"bucket": "net", "seconds": 1})
        self.assertIs(type(found.seconds), float)

    def test_two_versions(self) -> None:
        """What one version does not know it leaves out, and has its default."""
        self.assertEqual(from_json(SlotLimits, to_json(Newer(1, 2, 3, 4))), SlotLimits(1, 2, 3))
        self.assertEqual(from_json(Newer, to_json(SlotLimits(1, 2, 3))), Newer(1, 2, 3, 0))

    def test_later_criterion(self) -> None:
        """A rule with a criterion of a later version is left out, as it would refuse more than was meant."""
        rule = to_json(Rule("r", "k", 1.0, 2.0, Match(user="5")))
        later = [rule | {"match": rule["match"] | {"team": value}} for value in ("", "blue")]
        self.assertEqual(from_json(tuple[Rule, ...], later), (Rule("r", "k", 1.0, 2.0, Match(user="5")),))

    def test_words_of_a_later_version(self) -> None:
        """An item with an unknown word is left out, an unknown rule is none, and other words are wrong."""
        message = to_json(Message(1, MessageKind.END, "s1"))
        found = from_json(tuple[Message, ...], [message, message | {"kind": "dance"}])
        self.assertEqual(found, (Message(1, MessageKind.END, "s1"),))
        request = to_json(Request(session("s1"), Policy.REFUSE))
        self.assertIs(from_json(Request, request | {"policy": "share"}).policy, Policy.PASSTHROUGH)
        with self.assertRaises(ValueError):
            from_json(Message, message | {"kind": "dance"})

    def test_wrong(self) -> None:
        """What does not fit is a ValueError, and nothing else."""
        console = {"namespace": "n", "vmi": "v", "subresource": "vnc"}
        for kind, data in (
            (Console, None),
            (Console, []),
            (Console, {"namespace": "n", "vmi": "v"}),
            (Console, console | {"vmi": 5}),
            (SlotLimits, {"user": True}),
            (SlotLimits, {"user": "5"}),
            (SessionRef, {"member": "m", "session": {}}),
            (Decision, {"outcome": "perhaps"}),
            (Decision, {"outcome": []}),
            (Decision, {"outcome": "wait", "in_way": {}}),
            (Decision, {"outcome": "wait", "by": 1.5}),
            (Failure, {"bucket": "b", "seconds": "many"}),
            (Publication, {"member": "m"}),
        ):
            with self.subTest(kind=kind, data=data), self.assertRaises(ValueError):
                from_json(kind, data)


class AnswerTest(unittest.TestCase):
    def test_wrong_calls(self) -> None:
        """Only the operations of a store can be called, with as many arguments as they have."""
        store = MemoryStore()
        for operation, arguments in (
            ("close", []),
            ("_notify", []),
            ("nothing", []),
            ("leave", []),
            ("leave", ["a", "b"]),
            ("leave", [5]),
        ):
            with self.subTest(operation=operation), self.assertRaises(ValueError):
                answer_call(store, operation, arguments)

    def test_call(self) -> None:
        self.assertEqual(answer_call(MemoryStore(), "members", []), [])


if __name__ == "__main__":
    unittest.main()
