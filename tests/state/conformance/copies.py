"""Copies of what members fetch for each other: one of them at a time."""

from __future__ import annotations

from wsproxy.state.membership import Copy

from .case import LEASE, StoreCase, TestMember, at_once

__all__ = ["Copies"]

_TURN = 10.0
_MINE, _THEIRS = Copy(is_turn=True), Copy()


class Copies(StoreCase):
    def borrow(self, member: TestMember, name: str = "x", max_age: float = 5.0) -> Copy:
        copy = self.store.borrow(member.id, name, max_age, _TURN)
        return copy._replace(age=round(copy.age, 6))

    def keep(
        self, member: TestMember, text: str | None, name: str = "x", seconds: float = 60.0, age: float = 0.0
    ) -> None:
        self.store.keep(member.id, name, text, seconds, age)

    def fetch(self, text: str, name: str = "x", seconds: float = 60.0) -> None:
        """Have a member get the turn, and keep a text."""
        self.assertEqual(self.borrow(self.a, name, -1.0), _MINE)
        self.keep(self.a, text, name, seconds)

    def test_one_fetches(self) -> None:
        """One member gets the turn. When it has kept the text, all have it."""
        self.assertEqual(self.borrow(self.a), _MINE)
        self.assertEqual(self.borrow(self.b), _THEIRS)
        self.keep(self.a, "text+/=")
        for member in (self.a, self.b):
            self.assertEqual(self.borrow(member), Copy("text+/="))

    def test_race(self) -> None:
        """Of many members that ask at once one gets the turn, for each name."""
        members = [self.join(f"m{number}") for number in range(8)]
        turns: list[tuple[int, int]] = []

        def ask(number: int) -> None:
            for name in range(30):
                if self.borrow(members[number], f"n{name}").is_turn:
                    turns.append((name, number))

        at_once(ask)
        self.assertEqual(sorted(name for name, _ in turns), list(range(30)))

    def test_names(self) -> None:
        """Each name has a copy and a turn of its own."""
        self.fetch("of x")
        self.assertEqual(self.borrow(self.b, "y"), _MINE)
        self.assertEqual(self.borrow(self.a, "x"), Copy("of x"))

    def test_age(self) -> None:
        """A copy serves those who take one of its age; its age is what the keeper said, and more."""
        self.borrow(self.a)
        self.keep(self.a, "text", age=1.5)
        self.passes(2.5)
        self.assertEqual(self.borrow(self.b, max_age=4.0), Copy("text", 4.0))
        self.assertEqual(self.borrow(self.b, max_age=3.5), _MINE)
        self.assertEqual(self.borrow(self.a, max_age=4.0), Copy("text", 4.0))
        self.assertEqual(self.borrow(self.a, max_age=3.5), _THEIRS)

    def test_replaced(self) -> None:
        self.fetch("old")
        self.fetch("new")
        self.assertEqual(self.borrow(self.b), Copy("new"))

    def test_failure(self) -> None:
        """Who cannot fetch it gives the turn back, and what was there stays."""
        self.fetch("old")
        self.assertEqual(self.borrow(self.a, max_age=-1.0), _MINE)
        self.keep(self.a, None)
        self.assertEqual(self.borrow(self.b, max_age=-1.0), _MINE)
        self.assertEqual(self.borrow(self.a), Copy("old"))

    def test_turn_is_over(self) -> None:
        """After its seconds another member gets the turn, and what the first one brings does not count."""
        self.borrow(self.a)
        self.passes(_TURN - 0.5)
        self.assertEqual(self.borrow(self.b), _THEIRS)
        self.passes(0.5)
        self.assertEqual(self.borrow(self.b), _MINE)
        self.keep(self.a, "late")
        self.assertEqual(self.borrow(self.a), _THEIRS)
        self.keep(self.b, "text")
        self.assertEqual(self.borrow(self.a), Copy("text"))

    def test_longest_turn(self) -> None:
        """No turn lasts longer than a minute."""
        self.store.borrow(self.a.id, "x", 5.0, 1e6)
        self.passes(59.5)
        self.assertEqual(self.borrow(self.b), _THEIRS)
        self.passes(0.5)
        self.assertEqual(self.borrow(self.b), _MINE)

    def test_asked_twice(self) -> None:
        """Who had no answer asks again, and has the turn; who keeps twice has kept once."""
        for _ in range(2):
            self.assertEqual(self.borrow(self.a), _MINE)
        for _ in range(2):
            self.keep(self.a, "text")
        self.assertEqual(self.borrow(self.b), Copy("text"))

    def test_without_turn(self) -> None:
        """Only the member whose turn it is can change a copy."""
        self.keep(self.b, "forged")
        self.assertEqual(self.borrow(self.a), _MINE)
        self.keep(self.b, "forged")
        self.keep(self.a, "text")
        self.keep(self.b, "forged")
        self.assertEqual(self.borrow(self.b), Copy("text"))

    def test_member_leaves(self) -> None:
        """A turn ends with its member, at once; what it has kept stays."""
        self.fetch("text", "y")
        self.borrow(self.a)
        self.store.leave(self.a.id)
        self.dies(self.a)
        self.assertEqual(self.borrow(self.b), _MINE)
        self.assertEqual(self.borrow(self.b, "y"), Copy("text"))

    def test_member_lapses(self) -> None:
        self.store.borrow(self.a.id, "x", 5.0, 60.0)
        self.dies(self.a)
        self.passes(LEASE - 0.5)
        self.assertEqual(self.borrow(self.b), _THEIRS)
        self.passes(0.5)
        self.assertEqual(self.borrow(self.b), _MINE)

    def test_without_publication(self) -> None:
        """A member that has published nothing has turns, too; they end when it leaves."""
        unknown = TestMember(self.harness, "unknown")
        self.assertEqual(self.borrow(unknown), _MINE)
        self.assertEqual(self.borrow(self.b), _THEIRS)
        self.store.leave(unknown.id)
        self.assertEqual(self.borrow(self.b), _MINE)

    def test_lifetime(self) -> None:
        """A copy is kept for as long as its keeper said."""
        self.fetch("text", seconds=5.0)
        self.passes(4.5)
        self.assertEqual(self.borrow(self.b, max_age=99.0), Copy("text", 4.5))
        self.passes(0.5)
        self.assertEqual(self.borrow(self.b, max_age=99.0), _MINE)
        self.assertEqual(self.harness.sizes()["copies"], 0)

    def test_long_text(self) -> None:
        """A text may have 4 MiB. A longer one is not kept, and ends the turn."""
        self.fetch("x" * (4 << 20))
        self.assertEqual(self.borrow(self.b), Copy("x" * (4 << 20)))
        self.fetch("x" * ((4 << 20) + 1), "y")
        self.assertEqual(self.borrow(self.b, "y"), _MINE)

    def test_room(self) -> None:
        """All texts have 32 MiB together; those that were kept first make room."""
        for number in range(9):
            self.fetch("x" * (4 << 20), f"n{number}")
        self.assertEqual(self.borrow(self.b, "n0"), _MINE)
        self.assertIsNotNone(self.borrow(self.b, "n1").text)
        self.assertIsNotNone(self.borrow(self.b, "n8").text)

    def test_number(self) -> None:
        """There are 256 copies at most; the one that was kept first makes room, whatever its name."""
        for number in range(256):
            self.fetch("x", f"n{number}")
        self.fetch("again", "n0")
        self.fetch("y", "more")
        self.assertEqual(self.borrow(self.b, "n0"), Copy("again"))
        self.assertEqual(self.borrow(self.b, "n1"), _MINE)
        self.assertEqual(self.harness.sizes()["copies"], 256)

    def test_number_of_turns(self) -> None:
        """Of 256 names somebody has the turn at most. For more names each member fetches for itself."""
        for number in range(256):
            self.assertEqual(self.borrow(self.a, f"n{number}"), _MINE)
        for member in (self.a, self.b):
            self.assertEqual(self.borrow(member, "more"), _MINE)
        self.keep(self.a, "text", "more")
        self.assertEqual(self.borrow(self.b, "n0"), _THEIRS)
        self.assertEqual(self.borrow(self.b, "more"), _MINE)

    def test_long_name(self) -> None:
        """For too long a name each member fetches for itself."""
        for member in (self.a, self.b):
            self.assertEqual(self.borrow(member, "n" * 201), _MINE)
        self.assertEqual(self.borrow(self.a, "n" * 200), _MINE)
        self.assertEqual(self.borrow(self.b, "n" * 200), _THEIRS)

    def test_epoch(self) -> None:
        """After a restart it is again somebody's turn, or the copy is still there."""
        self.fetch("text")
        self.harness.restart(data=True)
        self.assertIn(self.borrow(self.b), (Copy("text"), _MINE))
        self.harness.restart(data=False)
        self.assertEqual(self.borrow(self.b), _MINE)
