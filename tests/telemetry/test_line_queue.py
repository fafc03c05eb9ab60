"""Waiting lines, and the count of lost ones."""

from __future__ import annotations

import unittest
from unittest import mock

from wsproxy.telemetry import line_queue
from wsproxy.telemetry.line_queue import LineQueue


class LineQueueTest(unittest.TestCase):
    def setUp(self) -> None:
        self.queue = LineQueue()

    def taken(self) -> list[bytes | int]:
        """Take all items out."""
        items = []
        while self.queue:
            items.append(self.queue.take())
        return items

    @mock.patch.object(line_queue, "_MOST_BYTES", 4)
    @mock.patch.object(line_queue, "_ENOUGH_BYTES", 2)
    def test_no_room(self) -> None:
        """A full queue takes lines again once half is left; a number stands where lines were lost."""
        self.assertEqual([self.queue.add(line) for line in (b"a\n", b"b\n", b"c\n", b"d\n")], [0, 0, 1, 0])
        self.assertEqual(self.queue.take(), b"a\n")
        self.assertFalse(self.queue.add(b"e\n"))
        self.assertEqual(self.taken(), [b"b\n", 2, b"e\n"])
        self.assertEqual(self.queue.lost, 2)

    def test_all_are_lost(self) -> None:
        """``lose_all`` leaves one number for waiting and begun lines; lines lost before count once."""
        self.queue.add(b"a\n")
        self.assertTrue(self.queue.lose_all(b"begun\n"))
        self.assertTrue(self.queue.only_says_lost)
        self.assertEqual((self.queue.lost, self.queue.take()), (2, 2))
        self.assertFalse(self.queue.lose_all(2))
        self.assertEqual((self.queue.lost, self.taken()), (2, [2]))
        self.assertFalse(self.queue.lose_all(b""))
        self.assertEqual(self.taken(), [])

    def test_several(self) -> None:
        """After the log has told the number of lost lines, the next lost line begins a new series."""
        firsts = []
        for _ in range(2):
            firsts += [self.queue.lose_all(b"x\n"), self.queue.lose_all(b"x\n")]
            self.queue.note_told()
        self.assertEqual(firsts, [True, False, True, False])
