"""What is counted."""

from __future__ import annotations

import json
import unittest
from dataclasses import dataclass

from wsproxy.counters import Counters, Numbers


@dataclass(eq=False)
class SessionStub:
    bytes_up: int = 0
    bytes_down: int = 0


class CountersTest(unittest.TestCase):
    def test_life(self) -> None:
        """Sessions are counted while they are open, and what they carried also afterwards."""
        counters = Counters()
        self.assertEqual(counters.numbers(3), Numbers(connections=3))
        first, second = SessionStub(1, 10), SessionStub(2, 20)
        counters.add(first)
        counters.add(second)
        self.assertEqual(counters.numbers(2), Numbers(2, 2, 2, 3, 30))
        first.bytes_up = 5
        counters.remove(first)
        self.assertEqual(counters.numbers(1), Numbers(1, 1, 2, 7, 30))
        counters.remove(second)
        self.assertEqual(counters.numbers(0), Numbers(0, 0, 2, 7, 30))
        counters.turn_away()
        self.assertEqual(counters.numbers(0), Numbers(0, 0, 2, 7, 30, 1))


class NumbersTest(unittest.TestCase):
    def test_sum(self) -> None:
        """Numbers are added one by one; what is open does not count among what has ended."""
        self.assertEqual(Numbers(1, 2, 3, 4, 5) + Numbers(10, 20, 30, 40, 50), Numbers(11, 22, 33, 44, 55))
        self.assertEqual(Numbers(1, 2, 3, 4, 5).totals(), Numbers(0, 0, 3, 4, 5))

    def test_json(self) -> None:
        """Numbers pass through JSON; what is something else is refused."""
        numbers = Numbers(1, 2, 3, 4, 5)
        self.assertEqual(Numbers.from_json(json.loads(json.dumps(numbers.to_json()))), numbers)
        good = numbers.to_json()
        wrong: list[object] = [
            None,
            [],
            1,
            {},
            good | {"more": 1},
            good | {"opened": -1},
            good | {"opened": True},
        ]
        for bad in wrong:
            with self.subTest(bad=bad), self.assertRaises(ValueError):
                Numbers.from_json(bad)


if __name__ == "__main__":
    unittest.main()
