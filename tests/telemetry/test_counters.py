"""The counters, their snapshots, and sums of them."""

from __future__ import annotations

import json
import unittest
from dataclasses import dataclass
from typing import Any

from wsproxy.protocol.closing import Ending, Leg
from wsproxy.server.channel import MAX_MESSAGE
from wsproxy.telemetry.counters import Counters, LabelledCount, Snapshot
from wsproxy.telemetry.histogram import Histogram
from wsproxy.telemetry.state_numbers import StateNumbers


@dataclass(eq=False)
class SessionStub:
    bytes_up: int = 0
    bytes_down: int = 0


def scalars(numbers: Snapshot) -> list[int]:
    """Return the attributes that are plain numbers."""
    return [value for value in vars(numbers).values() if isinstance(value, int)]


def filled(count: int = 3) -> Snapshot:
    """Return a snapshot in which everything has happened ``count`` times."""
    empty, seconds = Snapshot(), 0.3
    values: dict[str, Any] = {}
    for name, value in vars(empty).items():
        if isinstance(value, int):
            values[name] = count
        elif isinstance(value, LabelledCount):
            values[name] = LabelledCount(value.words, dict.fromkeys(value.words, count))
        elif isinstance(value, StateNumbers):
            values[name] = StateNumbers(count, count, count, count)
        else:
            values[name] = Histogram(value.bounds, (count,) * len(value.counts), count * seconds)
    return Snapshot(**values)


class CountersTest(unittest.TestCase):
    def test_life(self) -> None:
        """Sessions are counted while they are open, and their bytes also afterwards."""
        counters = Counters()
        self.assertEqual(scalars(counters.numbers(3)), [3, 0, 0, 0, 0, 0, 0])
        first, second = SessionStub(1, 10), SessionStub(2, 20)
        counters.add(first, 0.02)
        counters.add(second, 0.5)
        self.assertEqual(scalars(counters.numbers(2)), [2, 2, 2, 3, 30, 0, 0])
        first.bytes_up = 5
        counters.remove(first, Ending("client", 1000, "client-gone"), 4)
        self.assertEqual(scalars(counters.numbers(1)), [1, 1, 2, 7, 30, 0, 0])
        counters.remove(second, Ending("proxy", 4499, "kicked"), 6)
        self.assertEqual(scalars(counters.numbers(0)), [0, 0, 2, 7, 30, 0, 0])
        counters.turn_away()
        counters.fail()
        counters.fail()
        numbers = counters.numbers(0)
        self.assertEqual(scalars(numbers), [0, 0, 2, 7, 30, 1, 2])
        self.assertEqual(numbers.ended.counts, {"client client-gone": 1, "proxy kicked": 1})
        self.assertEqual(dict(numbers.dial_seconds.cumulative())["0.025"], 1)
        self.assertEqual(numbers.dial_seconds.total, 0.52)
        self.assertEqual(numbers.session_seconds.cumulative()[:3], [("1", 0), ("5", 1), ("15", 2)])

    def test_what_happens_to_clients(self) -> None:
        """Refusals count by slug, handshakes and pings by leg; words that are not ours as other."""
        counters = Counters()
        for slug in ("forbidden", "forbidden", "limit-tickets", "an embedder's own"):
            counters.refuse(slug)
        counters.fail_handshake(Leg.UPSTREAM)
        counters.first_byte(0.2)
        counters.ping(Leg.CLIENT, 0.01)
        counters.ping(Leg.UPSTREAM, 100)
        numbers = counters.numbers(0)
        self.assertEqual(numbers.refused.counts, {"forbidden": 2, "limit-tickets": 1, "other": 1})
        self.assertEqual(numbers.handshakes.counts, {"upstream": 1})
        self.assertEqual(numbers.limits.counts, {"pending": 0, "tickets": 1, "screenshots": 0, "requests": 0})
        self.assertEqual(dict(numbers.first_byte_seconds.cumulative())["0.25"], 1)
        self.assertEqual(numbers.client_ping_seconds.total, 0.01)
        self.assertEqual(numbers.upstream_ping_seconds.counts[-1], 1)


class NumbersTest(unittest.TestCase):
    def test_sum(self) -> None:
        """Snapshots are added number by number; totals leave out what is open."""
        self.assertEqual(Snapshot(1, 2, 3, 4, 5) + Snapshot(10, 20, 30, 40, 50), Snapshot(11, 22, 33, 44, 55))
        self.assertEqual(Snapshot(1, 2, 3, 4, 5).totals(), Snapshot(0, 0, 3, 4, 5))
        one, two = filled(), filled()
        both = one + two
        self.assertEqual(both.refused.counts, {slug: 2 * count for slug, count in one.refused.counts.items()})
        self.assertEqual(sum(both.dial_seconds.counts), 2 * sum(one.dial_seconds.counts))
        self.assertEqual(both, two + one)
        self.assertEqual(one + Snapshot(), one)
        self.assertEqual(both.state, StateNumbers(6, 6, 3, 6))  # the longest time, and not their sum
        self.assertEqual(one.totals().state, StateNumbers(failures=3))

    def test_json(self) -> None:
        """Snapshots pass through JSON unchanged; other values are refused."""
        for numbers in (Snapshot(1, 2, 3, 4, 5), filled()):
            self.assertEqual(Snapshot.from_json(json.loads(json.dumps(numbers.to_json()))), numbers)
        good = numbers.to_json()
        counts, histogram = good["refused"], good["dial_seconds"]
        wrong: list[object] = [
            None,
            [],
            1,
            {},
            good | {"more": 1},
            good | {"opened": -1},
            good | {"opened": True},
            good | {"refused": []},
            good | {"refused": counts | {"a word of its own": 1}},
            good | {"refused": counts | {"forbidden": -1}},
            good | {"ended": {"nobody kicked": 1}},
            good | {"state": 1},
            good | {"state": good["state"] | {"more": 1}},
            good | {"state": good["state"] | {"failures": -1}},
            good | {"dial_seconds": 1},
            good | {"dial_seconds": histogram | {"more": 1}},
            good | {"dial_seconds": histogram | {"counts": [1]}},
            good | {"dial_seconds": histogram | {"counts": [-1] * len(histogram["counts"])}},
            good | {"dial_seconds": histogram | {"counts": "0" * len(histogram["counts"])}},
            good | {"dial_seconds": histogram | {"total": -1}},
            good | {"dial_seconds": histogram | {"total": float("nan")}},
            good | {"dial_seconds": histogram | {"total": "1"}},
            # Numbers that no metric can show, and that would spoil every sum from then on.
            good | {"opened": 10**400},
            good | {"opened": 2**63},
            good | {"refused": counts | {"forbidden": 2**63}},
            good | {"dial_seconds": histogram | {"counts": [2**63] * len(histogram["counts"])}},
            good | {"dial_seconds": histogram | {"total": 10**400}},
            good | {"dial_seconds": histogram | {"total": float("inf")}},
        ]
        for bad in wrong:
            with self.subTest(bad=bad), self.assertRaises(ValueError):
                Snapshot.from_json(bad)

    def test_fits_into_a_message(self) -> None:
        """All that can be counted, in numbers as large as can be, fits into one message between processes."""
        line = json.dumps({"numbers": filled(2**63).to_json()})
        self.assertLess(len(line), MAX_MESSAGE)


if __name__ == "__main__":
    unittest.main()
