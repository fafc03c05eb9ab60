"""How sessions end: every row of the table, what can happen at once, and a walk over all sequences."""

from __future__ import annotations

import random
import unittest
from collections.abc import Callable, Iterator

from wsproxy.protocol.closing import Action, Closing, Ending, Finish, ForwardClose, Leg, SendClose
from wsproxy.protocol.frames import close_payload, may_be_sent

CLIENT, UPSTREAM = Leg.CLIENT, Leg.UPSTREAM
BOTH = (CLIENT, UPSTREAM)
ENDS = [
    (4411, "expired: the token's time is over"),
    (4408, "idle"),
    (4412, "maximum-age"),
    (4410, "taken-over"),
    (4499, "kicked"),
    (1012, "restarting"),
]


class LegTest(unittest.TestCase):
    def test_other(self) -> None:
        """``other`` of each leg is the opposite leg."""
        self.assertIs(CLIENT.other, UPSTREAM)
        self.assertIs(UPSTREAM.other, CLIENT)


class OneSideClosesTest(unittest.TestCase):
    def test_forwarded(self) -> None:
        """A Close of either side is forwarded, and its own answer is left to the other side."""
        for leg in BOTH:
            for code, reason in ((1000, ""), (4000, "why"), (None, "")):
                with self.subTest(leg=leg, code=code):
                    closing = Closing()
                    self.assertEqual(closing.close_received(leg, code, reason), [ForwardClose(leg.other)])
                    self.assertEqual(closing.ending, Ending(leg.value, code, reason))
                    self.assertFalse(closing.finished)

    def test_answer_is_forwarded_back(self) -> None:
        """The other side's answer is forwarded back; once both are written, the session is finished."""
        for leg in BOTH:
            with self.subTest(leg=leg):
                closing = Closing()
                closing.close_received(leg, 1000, "bye")
                self.assertEqual(closing.close_written(leg.other), [])
                self.assertEqual(closing.close_received(leg.other, 1000, "bye"), [ForwardClose(leg)])
                self.assertEqual(closing.close_written(leg), [Finish()])
                self.assertEqual(closing.ending, Ending(leg.value, 1000, "bye"))
                self.assertEqual(closing.unsent, [])

    def test_deadline_answers_ourselves(self) -> None:
        """If no answer came by the deadline, we answer with what the closer said, and finish."""
        for leg in BOTH:
            for code, reason in ((1001, "leaving"), (None, "")):
                with self.subTest(leg=leg, code=code):
                    closing = Closing()
                    closing.close_received(leg, code, reason)
                    closing.close_written(leg.other)
                    self.assertEqual(closing.deadline(), [SendClose(leg, code, reason), Finish()])

    def test_second_close_is_ignored(self) -> None:
        """A second Close of the same side changes nothing."""
        for leg in BOTH:
            closing = Closing()
            closing.close_received(leg, 1000, "")
            self.assertEqual(closing.close_received(leg, 1002, "again"), [])
            self.assertEqual(closing.ending, Ending(leg.value, 1000, ""))

    def test_other_side_lost_instead_of_answering(self) -> None:
        """If the other side drops its connection instead of answering, the closer is answered at once."""
        closing = Closing()
        closing.close_received(CLIENT, 1000, "bye")
        closing.close_written(UPSTREAM)
        self.assertEqual(closing.lost(UPSTREAM), [SendClose(CLIENT, 1000, "bye")])
        self.assertEqual(closing.close_written(CLIENT), [Finish()])
        self.assertEqual(closing.ending, Ending("client", 1000, "bye"))

        closing = Closing()
        closing.close_received(UPSTREAM, 4000, "full")
        self.assertEqual(closing.lost(CLIENT), [SendClose(UPSTREAM, 4000, "full"), Finish()])
        self.assertEqual(closing.ending, Ending("upstream", 4000, "full"))

    def test_client_closes_and_leaves(self) -> None:
        """A client that closes and leaves at once still lets the upstream answer its Close."""
        closing = Closing()
        closing.close_received(CLIENT, 1000, "")
        self.assertEqual(closing.lost(CLIENT), [])
        self.assertEqual(closing.close_written(UPSTREAM), [])
        self.assertEqual(closing.close_received(UPSTREAM, 1000, ""), [Finish()])

    def test_client_closes_and_leaves_after_the_answer(self) -> None:
        """If the upstream has answered, the session is finished as soon as the client leaves."""
        closing = Closing()
        closing.close_received(CLIENT, 1000, "")
        closing.close_received(UPSTREAM, 1000, "")
        self.assertEqual(closing.lost(CLIENT), [Finish()])

    def test_upstream_leaves_after_its_answer(self) -> None:
        """If the upstream answers and closes TCP at once, the client still gets the answer."""
        closing = Closing()
        closing.close_received(CLIENT, 1000, "")
        closing.close_written(UPSTREAM)
        self.assertEqual(closing.close_received(UPSTREAM, 1000, ""), [ForwardClose(CLIENT)])
        self.assertEqual(closing.lost(UPSTREAM), [])
        self.assertEqual(closing.close_written(CLIENT), [Finish()])

    def test_upstream_closes_and_leaves(self) -> None:
        """An upstream that closes and leaves: the client still gets that Close, and may answer."""
        closing = Closing()
        self.assertEqual(closing.close_received(UPSTREAM, 1001, "going"), [ForwardClose(CLIENT)])
        self.assertEqual(closing.lost(UPSTREAM), [])
        self.assertEqual(closing.close_written(CLIENT), [])
        self.assertEqual(closing.close_received(CLIENT, 1001, "going"), [Finish()])


class BothCloseTest(unittest.TestCase):
    def test_each_answers_the_other(self) -> None:
        """If both close at once, each one's Close is forwarded and answers the other's."""
        for first in BOTH:
            with self.subTest(first=first):
                closing = Closing()
                self.assertEqual(closing.close_received(first, 1000, "a"), [ForwardClose(first.other)])
                self.assertEqual(closing.close_received(first.other, 1001, "b"), [ForwardClose(first)])
                self.assertEqual(closing.close_written(first), [])
                self.assertEqual(closing.close_written(first.other), [Finish()])
                self.assertEqual(closing.ending, Ending(first.value, 1000, "a"))


class LostTest(unittest.TestCase):
    def test_upstream_drops(self) -> None:
        """An upstream that drops its connection: the client gets 1011 and the time to answer."""
        closing = Closing()
        self.assertEqual(closing.lost(UPSTREAM), [SendClose(CLIENT, 1011, "upstream-closed")])
        self.assertEqual(closing.ending, Ending("upstream", 1011, "upstream-closed"))
        self.assertEqual(closing.close_written(CLIENT), [])
        self.assertEqual(closing.close_received(CLIENT, 1011, ""), [Finish()])

    def test_upstream_never_spoke(self) -> None:
        """An upstream that ends before its first byte has refused: 4502."""
        closing = Closing()
        actions = closing.lost(UPSTREAM, heard=False)
        assert closing.ending
        self.assertEqual((closing.ending.by, closing.ending.code), ("upstream", 4502))
        self.assertTrue(closing.ending.reason.startswith("upstream-refused: "), closing.ending.reason)
        self.assertLessEqual(len(closing.ending.reason), 123)  # RFC 6455 section 5.5
        self.assertEqual(actions, [SendClose(CLIENT, 4502, closing.ending.reason)])

    def test_client_vanishes(self) -> None:
        """A client that vanishes: the upstream gets 1000 if that is possible at once, then all is down."""
        for heard in (True, False):
            closing = Closing()
            self.assertEqual(
                closing.lost(CLIENT, heard=heard), [SendClose(UPSTREAM, 1000, "client-gone"), Finish()]
            )
            self.assertEqual(closing.ending, Ending("client", 1000, "client-gone"))

    def test_both_lost(self) -> None:
        """When both are gone the session is finished, and nothing is sent to either."""
        for first in BOTH:
            closing = Closing()
            closing.lost(first)
            self.assertNotIn(
                SendClose, {type(action) for action in closing.lost(first.other)}, f"{first} was lost first"
            )
            self.assertTrue(closing.finished)
            self.assertEqual(closing.unsent, [])

    def test_stranded(self) -> None:
        """A leg inside a frame that can never be completed is not waited for; its Close is not sent."""
        closing = Closing()
        actions = closing.lost(UPSTREAM, stranded=True)
        self.assertEqual(actions, [SendClose(CLIENT, 1011, "upstream-closed"), Finish()])
        self.assertEqual(closing.unsent, [CLIENT])

    def test_upstream_lost_and_client_never_answers(self) -> None:
        """A client that never answers is shut down at the deadline."""
        closing = Closing()
        closing.lost(UPSTREAM)
        closing.close_written(CLIENT)
        self.assertEqual(closing.deadline(), [Finish()])


class ProxyEndsTest(unittest.TestCase):
    def test_codes(self) -> None:
        """When we end it, the client gets our code and reason and the upstream gets 1000."""
        for code, reason in ENDS:
            with self.subTest(code=code):
                closing = Closing()
                self.assertEqual(
                    closing.end(code, reason),
                    [SendClose(CLIENT, code, reason), SendClose(UPSTREAM, 1000, "")],
                )
                self.assertEqual(closing.ending, Ending("proxy", code, reason))

    def test_finished_by_answers(self) -> None:
        """The proxy waits for both answers, and forwards neither."""
        for first in BOTH:
            closing = Closing()
            closing.end(4411, "expired")
            closing.close_written(CLIENT)
            closing.close_written(UPSTREAM)
            self.assertEqual(closing.close_received(first, 1000, ""), [])
            self.assertEqual(closing.close_received(first.other, 1000, ""), [Finish()])

    def test_answer_before_written(self) -> None:
        """A Close that crosses ours on the wire counts as its answer once ours is written."""
        closing = Closing()
        closing.end(4411, "expired")
        closing.close_received(CLIENT, 1000, "")
        closing.close_received(UPSTREAM, 1000, "")
        self.assertEqual(closing.close_written(UPSTREAM), [])
        self.assertEqual(closing.close_written(CLIENT), [Finish()])

    def test_upstream_hangs_up_on_our_close(self) -> None:
        """An upstream that hangs up on our 1000, as KubeVirt does, changes nothing for the client."""
        closing = Closing()
        closing.end(4411, "expired")
        self.assertEqual(closing.lost(UPSTREAM), [])
        closing.close_written(CLIENT)
        self.assertEqual(closing.close_received(CLIENT, 4411, ""), [Finish()])
        self.assertEqual(closing.ending, Ending("proxy", 4411, "expired"))

    def test_ended_twice(self) -> None:
        """A second end changes nothing."""
        closing = Closing()
        closing.end(4411, "expired")
        self.assertEqual(closing.end(1012, "restarting"), [])
        self.assertEqual(closing.ending, Ending("proxy", 4411, "expired"))

    def test_ended_while_closing(self) -> None:
        """An end while one side's Close is under way answers that side, and no leg gets two Closes."""
        closing = Closing()
        closing.close_received(CLIENT, 1000, "bye")
        self.assertEqual(closing.end(1012, "restarting"), [SendClose(CLIENT, 1012, "restarting")])
        closing = Closing()
        closing.close_received(UPSTREAM, 1000, "bye")
        self.assertEqual(closing.end(1012, "restarting"), [SendClose(UPSTREAM, 1000, "")])

    def test_cut(self) -> None:
        """The proxy does not wait for an upstream inside a frame, and reports that it got no Close."""
        closing = Closing()
        closing.end(4411, "expired")
        self.assertEqual(closing.cut(UPSTREAM), [])
        self.assertEqual(closing.lost(UPSTREAM), [])
        closing.close_written(CLIENT)
        self.assertEqual(closing.close_received(CLIENT, 4411, ""), [Finish()])
        self.assertEqual(closing.unsent, [UPSTREAM])

    def test_deadline_with_unsent_closes(self) -> None:
        """At the deadline both are shut down, and the log names the legs that took no Close."""
        closing = Closing()
        closing.end(4411, "expired")
        closing.close_written(UPSTREAM)
        self.assertEqual(closing.deadline(), [Finish()])
        self.assertEqual(closing.unsent, [CLIENT])


class ViolatedTest(unittest.TestCase):
    def test_client(self) -> None:
        """A client that breaks RFC 6455 gets the code, and the upstream 1000."""
        for code, slug in ((1002, "protocol-error"), (1009, "message-too-big")):
            with self.subTest(code=code):
                closing = Closing()
                actions = closing.violated(CLIENT, code, "why")
                self.assertEqual(
                    actions, [SendClose(CLIENT, code, f"{slug}: why"), SendClose(UPSTREAM, 1000, "")]
                )
                self.assertEqual(closing.ending, Ending("client", code, f"{slug}: why"))

    def test_upstream(self) -> None:
        """An upstream that breaks RFC 6455 gets the code, and the client 1011."""
        for code, slug in ((1002, "protocol-error"), (1009, "message-too-big")):
            with self.subTest(code=code):
                closing = Closing()
                actions = closing.violated(UPSTREAM, code, "why")
                self.assertEqual(
                    actions,
                    [
                        SendClose(UPSTREAM, code, f"{slug}: why"),
                        SendClose(CLIENT, 1011, "upstream-protocol-error"),
                    ],
                )
                self.assertEqual(closing.ending, Ending("upstream", code, f"{slug}: why"))

    def test_offender_is_lost(self) -> None:
        """The offender's answer is never understood; its end, and the other's answer, finish."""
        for offender in BOTH:
            closing = Closing()
            closing.violated(offender, 1002, "why")
            for leg in BOTH:
                self.assertEqual(closing.close_written(leg), [])
            actions = closing.close_received(offender.other, 1000, "") + closing.lost(offender)
            self.assertEqual(actions, [Finish()])

    def test_offender_stays(self) -> None:
        """An offender that does not hang up is shut down at the deadline."""
        for offender in BOTH:
            closing = Closing()
            closing.violated(offender, 1002, "why")
            self.assertEqual(closing.deadline(), [Finish()])

    def test_violation_of_a_close(self) -> None:
        """A bad Close after our own Close changes nothing any more."""
        closing = Closing()
        closing.end(4411, "expired")
        self.assertEqual(closing.violated(CLIENT, 1002, "close code 1005 may not be sent"), [])
        self.assertEqual(closing.ending, Ending("proxy", 4411, "expired"))


Event = tuple[str, Leg | None, Callable[[Closing], list[Action]]]


def _event(name: str, leg: Leg | None, call: Callable[[Closing], list[Action]]) -> Event:
    return name, leg, call


EVENTS: list[Event] = [
    _event("end", None, lambda closing: closing.end(4411, "expired")),
    _event("deadline", None, lambda closing: closing.deadline()),
]
for _leg in BOTH:
    EVENTS += [
        _event("close", _leg, lambda closing, leg=_leg: closing.close_received(leg, 1000, "bye")),  # type: ignore[misc]
        _event("lost", _leg, lambda closing, leg=_leg: closing.lost(leg)),  # type: ignore[misc]
        _event("violated", _leg, lambda closing, leg=_leg: closing.violated(leg, 1002, "why")),  # type: ignore[misc]
        _event("written", _leg, lambda closing, leg=_leg: closing.close_written(leg)),  # type: ignore[misc]
    ]
EVENTS.append(_event("cut", UPSTREAM, lambda closing: closing.cut(UPSTREAM)))
MORE_EVENTS: list[Event] = [*EVENTS, _event("abort", None, lambda closing: closing.abort())]
for _leg in BOTH:
    MORE_EVENTS += [
        _event("close", _leg, lambda closing, leg=_leg: closing.close_received(leg, None, "")),  # type: ignore[misc]
        _event("violated", _leg, lambda closing, leg=_leg: closing.violated(leg, 1009, "big")),  # type: ignore[misc]
        _event("lost", _leg, lambda closing, leg=_leg: closing.lost(leg, heard=False)),  # type: ignore[misc]
        _event("lost", _leg, lambda closing, leg=_leg: closing.lost(leg, stranded=True)),  # type: ignore[misc]
    ]


class Walk:
    """One session under events that can happen, and all that must hold after each of them."""

    def __init__(self, case: unittest.TestCase) -> None:
        self.case = case
        self.closing = Closing()
        self.names: list[str] = []
        self.told: dict[Leg, Action] = {}  # the one Close for each leg
        self.happened: set[tuple[str, Leg | None]] = set()
        self.finishes = 0

    def possible(self, event: Event) -> bool:
        """Whether the relay could report ``event`` now."""
        name, leg, _ = event
        if name == "deadline":
            return self.closing.ending is not None
        if name in ("written", "cut"):
            return (
                leg in self.told
                and (name == "written" or isinstance(self.told[leg], SendClose))
                and not any((word, leg) in self.happened for word in ("written", "cut", "lost"))
            )
        if leg is None:
            return True
        last_words = {"lost": ("lost",), "close": ("lost", "close", "violated")}
        return not any(
            (word, leg) in self.happened for word in last_words.get(name, ("lost", "close", "violated"))
        )

    def apply(self, event: Event) -> None:
        """Report ``event`` and check the answer."""
        name, leg, call = event
        before, finished = self.closing.ending, self.closing.finished
        self.names.append(f"{name} {leg.value if leg else ''}")
        self.happened.add((name, leg))
        actions = call(self.closing)
        self.check_actions(name, leg, actions)
        self.check_ending(before)
        if finished:
            self.check(not actions, "something was to be done after the finish")
        self.check_waiting()

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.case.fail(f"{what}: {', '.join(self.names)}")

    def check_actions(self, name: str, leg: Leg | None, actions: list[Action]) -> None:
        for place, action in enumerate(actions):
            if isinstance(action, Finish):
                self.finishes += 1
                self.check(place == len(actions) - 1, "Finish was not the last thing to do")
                continue
            self.check(action.leg not in self.told, f"a second Close for {action.leg}")
            self.check(("lost", action.leg) not in self.happened, f"a Close for {action.leg}, which is lost")
            self.told[action.leg] = action
            if isinstance(action, ForwardClose):
                self.check(name == "close" and leg is action.leg.other, "forwarded what did not come")
            else:
                self.check(
                    action.code is None or may_be_sent(action.code), f"code {action.code} may not be sent"
                )
                close_payload(action.code, action.reason)
        self.check(self.finishes == self.closing.finished, "Finish exactly once")

    def check_ending(self, before: Ending | None) -> None:
        if before is not None:
            self.check(self.closing.ending is before, "the first cause was replaced")
        else:
            self.check((self.closing.ending is not None) == bool(self.happened), "no cause was noted")

    def check_waiting(self) -> None:
        """Check that it is finished only if waiting is useless, and that no leg misses a Close."""
        lost = [leg for leg in BOTH if ("lost", leg) in self.happened]
        closed = [leg for leg in BOTH if ("close", leg) in self.happened]
        cut = [leg for leg in BOTH if ("cut", leg) in self.happened]
        done = [
            leg
            for leg in BOTH
            if leg in lost or leg in cut or (leg in closed and ("written", leg) in self.happened)
        ]
        if len(done) == 2 or ("deadline", None) in self.happened:
            self.check(self.closing.finished, "there is nothing to wait for")
        if ("abort", None) in self.happened:
            self.check(self.closing.finished, "an abort waits for nothing")
            return
        for leg in BOTH:
            answer_awaited = leg in closed and leg.other not in lost and not self.closing.finished
            if self.closing.ending and leg not in self.told and leg not in lost and not answer_awaited:
                self.check(False, f"{leg} is left without a Close")
        expected = [
            leg
            for leg in BOTH
            if leg in self.told and ("written", leg) not in self.happened and (leg in cut or leg not in lost)
        ]
        self.check(self.closing.unsent == expected, "unsent is wrong")


def sequences(case: unittest.TestCase, length: int) -> Iterator[list[Event]]:
    """Yield every sequence of possible events of the given length, or that allows no more events."""
    pending: list[list[Event]] = [[]]
    while pending:
        prefix = pending.pop()
        walk = Walk(case)
        for event in prefix:
            walk.apply(event)
        following = [event for event in EVENTS if walk.possible(event)] if len(prefix) < length else []
        if not following:
            yield prefix
        pending += [[*prefix, event] for event in following]


class AbortTest(unittest.TestCase):
    def test_abort(self) -> None:
        """An abort finishes at once, without a Close; nothing is to be done for what happens after it."""
        closing = Closing()
        self.assertEqual(closing.abort(), [Finish()])
        self.assertEqual(closing.ending, Ending("proxy", None, "aborted"))
        self.assertEqual(closing.unsent, [])
        for leg in BOTH:
            self.assertEqual(closing.close_received(leg, 1000, ""), [])
            self.assertEqual(closing.lost(leg), [])
        self.assertEqual(closing.abort(), [])

    def test_cause_from_before(self) -> None:
        """An abort does not replace the cause of an end that had begun."""
        closing = Closing()
        closing.end(1012, "restarting")
        self.assertEqual(closing.abort(), [Finish()])
        self.assertEqual(closing.ending, Ending("proxy", 1012, "restarting"))


class InvariantsTest(unittest.TestCase):
    def test_all_sequences(self) -> None:
        """After every possible sequence of up to six events all guarantees hold."""
        count = sum(1 for _ in sequences(self, 6))
        self.assertGreater(count, 5000)

    def test_random_sequences(self) -> None:
        """The same holds for long random sequences with all variants of the events."""
        dice = random.Random(5)
        for _ in range(10000):
            walk = Walk(self)
            for _ in range(12):
                event = dice.choice(MORE_EVENTS)
                if walk.possible(event):
                    walk.apply(event)

    def test_deadline_always_finishes(self) -> None:
        """If an event has ended the session, the deadline finishes it from every state."""
        dice = random.Random(6)
        deadline = EVENTS[1]
        for _ in range(3000):
            walk = Walk(self)
            for _ in range(dice.randrange(1, 6)):
                event = dice.choice(MORE_EVENTS)
                if walk.possible(event):
                    walk.apply(event)
            if walk.closing.ending:
                walk.apply(deadline)
                self.assertTrue(walk.closing.finished)


class TakeoverTest(unittest.TestCase):
    def test_loss_while_taken_over(self) -> None:
        """An upstream that is lost while another client takes over was taken over, heard or not."""
        for heard in (True, False):
            with self.subTest(heard=heard):
                closing = Closing()
                closing.taken_over = (4410, "taken-over")
                self.assertEqual(closing.lost(UPSTREAM, heard=heard), [SendClose(CLIENT, 4410, "taken-over")])
                self.assertEqual(closing.ending, Ending("proxy", 4410, "taken-over"))

    def test_loss_after_a_failed_takeover(self) -> None:
        """After a failed takeover, a loss of the upstream is a plain loss again."""
        closing = Closing()
        closing.taken_over = (4410, "taken-over")
        closing.taken_over = None
        self.assertEqual(closing.lost(UPSTREAM), [SendClose(CLIENT, 1011, "upstream-closed")])

    def test_client_lost_while_taken_over(self) -> None:
        """If the client leaves during a takeover, the cause is the client, not the takeover."""
        closing = Closing()
        closing.taken_over = (4410, "taken-over")
        closing.lost(CLIENT)
        self.assertEqual(closing.ending, Ending("client", 1000, "client-gone"))
