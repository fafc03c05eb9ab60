"""What has changed since when."""

from __future__ import annotations

import unittest

from wsproxy.state.shared.change_log import ChangeLog


class ChangeLogTest(unittest.TestCase):
    def setUp(self) -> None:
        self.log = ChangeLog()

    def names(self, since: int = 0) -> list[str]:
        return self.log.page(since, 100)[0]

    def test_order(self) -> None:
        """A name stands where it changed last."""
        for name in "abca":
            self.log.note(name)
        self.assertEqual(self.names(), ["b", "c", "a"])
        self.assertEqual(self.names(3), ["a"])
        self.assertEqual(self.names(4), [])
        self.assertEqual(self.log.oldest(), "b")

    def test_forgotten(self) -> None:
        """What is forgotten is no change."""
        for name in "ab":
            self.log.note(name)
        self.log.forget("a")
        self.log.forget("x")
        self.assertEqual((self.names(), self.log.oldest(), self.log.version), (["b"], "b", 2))
        self.log.forget("b")
        self.assertIsNone(self.log.oldest())
        self.assertEqual(self.log.page(0, 100), ([], 2, False))

    def test_pages(self) -> None:
        """Page by page all is read, and the version in the end is that of the log."""
        for number in range(10):
            self.log.note(str(number))
        self.log.note("3")
        found, since, more = [], 0, True
        while more:
            names, since, more = self.log.page(since, 4)
            self.assertLessEqual(len(names), 4)
            found += names
        self.assertEqual("".join(found), "0124567893")
        self.assertEqual(since, self.log.version)

    def test_room(self) -> None:
        """However often names change, the log stays small, and says the same."""
        for number in range(10_000):
            self.log.note(str(number % 5))
        self.assertLessEqual(len(self.log._log), 2 * 5 + 65)
        self.assertEqual(self.names(), list("01234"))
        self.assertEqual(self.names(9_998), list("34"))


if __name__ == "__main__":
    unittest.main()
