"""Limits, tickets, console rules, kicks and the list are true for all processes, however many serve.

Each class is a column of the table that ``scripts/one-truth`` prints, and each test a cell of it.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable
from contextlib import closing
from typing import ClassVar

from tests.shared import columns
from tests.shared.rows import ROWS, fault_without_store
from wsproxy.testing.case import LeakTestCase

__all__: list[str] = []


class _Rows(LeakTestCase):
    """The rows, asked of one deployment for all tests of the class.

    :cvar kind: the column.
    """

    kind: ClassVar[type[columns.Column]]
    column: ClassVar[columns.Column]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if missing := cls.kind.missing():
            raise unittest.SkipTest(f"{', '.join(missing)} is not installed (Debian packages of these names)")
        cls.column = cls.kind()
        cls.addClassCleanup(cls.column.close)

    def look(self, key: str) -> None:
        """Check that a row shows what it shows with one process."""
        [row] = [row for row in ROWS if row.key == key]
        seen = row.look(self.column)
        self.assertTrue(seen.good, f"{row.title}: {seen.text}")


class _AllRows:
    """A test for each row."""

    look: Callable[[str], None]

    def test_sessions_of_a_user(self) -> None:
        """A user gets as many sessions as allowed, with all processes together."""
        self.look("user")

    def test_sessions_in_all(self) -> None:
        """All users together get as many sessions as allowed."""
        self.look("all")

    def test_sessions_of_a_vmi(self) -> None:
        """A VM gets as many sessions as allowed."""
        self.look("vmi")

    def test_tickets(self) -> None:
        """A ticket that one process has issued opens one session, at any process."""
        self.look("tickets")

    def test_told_of_takeover(self) -> None:
        """Who loses a console to a client of another process is told so."""
        self.look("takeover")

    def test_stays_out(self) -> None:
        """Who has lost a console does not get it back at another process."""
        self.look("hold-off")

    def test_kicked_tokens(self) -> None:
        """A kick at one process ends sessions everywhere, and its tokens are refused everywhere."""
        self.look("kick")

    def test_listed(self) -> None:
        """One process lists the sessions of all."""
        self.look("list")

    def test_failed_attempts(self) -> None:
        """An address that has failed too often is refused everywhere."""
        self.look("failures")


class OneProcessTest(_AllRows, _Rows):
    kind = columns.OneProcess


class WorkersTest(_AllRows, _Rows):
    kind = columns.Workers


class TwoReplicasTest(_AllRows, _Rows):
    kind = columns.TwoReplicas


class GunicornByItselfTest(_AllRows, _Rows):
    kind = columns.GunicornByItself


class GunicornInFrontTest(_AllRows, _Rows):
    kind = columns.GunicornInFront


class GunicornBesideTest(_AllRows, _Rows):
    kind = columns.GunicornBeside


class GunicornLocalTest(_AllRows, _Rows):
    kind = columns.GunicornLocal


class TwoProgramsTest(_AllRows, _Rows):
    kind = columns.TwoPrograms


class HandoverTest(_AllRows, _Rows):
    kind = columns.Handover


class WithoutStoreTest(LeakTestCase):
    def test_gunicorn(self) -> None:
        """Several processes that have nothing in common refuse consoles, and say what to set."""
        with closing(columns.GunicornMemory()) as column:
            seen = fault_without_store(column)
            self.assertTrue(seen.good, f"{seen.text}\n{column.output()}")


class EveryColumnTest(unittest.TestCase):
    def test_columns(self) -> None:
        """No column of the table is without tests."""
        tested = {kind.kind for kind in _Rows.__subclasses__()}
        self.assertEqual(tested, {*columns.COLUMNS})
