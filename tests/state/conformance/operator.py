"""What the operator sees, and failed attempts."""

from __future__ import annotations

from wsproxy.state.membership import Beat, Failure
from wsproxy.state.values import Stage

from .case import StoreCase, session

__all__ = ["Failures", "Operator"]


class Operator(StoreCase):
    def test_list(self) -> None:
        """The list has the sessions of each member, as they were told, and how far they are."""
        self.a.open(session("s1"))
        self.a.admit(session("s2", 5, "other"))
        self.b.open(session("s1", "bob", "third"))
        self.b.ending("s1")
        self.assertEqual(self.store.members(), (self.a.member, self.b.member))
        self.assertEqual(self.a.held(), [("s1", Stage.OPEN, False), ("s2", Stage.DIALLING, False)])
        self.assertEqual(self.b.held(), [("s1", Stage.OPEN, True)])
        found = self.store.sessions(self.a.id).sessions
        self.assertEqual([one.session for one in found], [session("s1"), session("s2", 5, "other")])

    def test_pages(self) -> None:
        """A long list comes in pages."""
        for number in range(2500):
            self.a.admit(session(f"s{number}", number, str(number)))
        found: set[str] = set()
        after, pages = "", 0
        while after or not pages:
            page = self.store.sessions(self.a.id, after)
            self.assertLessEqual(len(page.sessions), 1000)
            found |= {one.session.id for one in page.sessions}
            after, pages = page.after, pages + 1
        self.assertEqual(len(found), 2500)


class Failures(StoreCase):
    def test_shared(self) -> None:
        """What one member pushes the others learn: the time until the bucket is full again."""
        self.a.beat(failures=(Failure("net-1", 20.0), Failure("net-2", 3.0)))
        pulse = self.b.beat()
        self.assertEqual(pulse.failures, (Failure("net-1", 20.0), Failure("net-2", 3.0)))
        since = pulse.failures_version
        self.assertEqual(self.b.beat(since=since).failures, ())
        self.harness.advance(1)
        self.b.beat(failures=(Failure("net-1", 5.0),), since=since)
        self.assertEqual(self.a.beat(since=since).failures, (Failure("net-1", 24.0),))

    def test_debt(self) -> None:
        """A bucket is full after two minutes at the latest, and as good as unknown then."""
        for _ in range(3):
            self.a.beat(failures=(Failure("net-1", 100.0), Failure("net-2", -5.0)))
        self.assertEqual(self.b.beat().failures[0], Failure("net-1", 120.0))
        self.passes(119)
        self.a.beat(failures=(Failure("net-1", 1.0),))
        [seconds] = [one.seconds for one in self.b.beat().failures if one.bucket == "net-1"]
        self.assertAlmostEqual(seconds, 2.0)

    def test_beat_repeated(self) -> None:
        """The failures of a beat count once, though it is said twice."""
        for _ in range(2):
            self.store.beat(self.a.id, Beat(77, failures=(Failure("net-1", 20.0),)))
        self.assertEqual(self.b.beat().failures, (Failure("net-1", 20.0),))

    def test_crowd(self) -> None:
        """A flood from many networks takes bounded room: those that failed first are forgotten."""
        since = 0
        for batch in range(70):
            self.a.beat(failures=tuple(Failure(f"net-{batch}-{n}", 100.0) for n in range(1000)))
        found, more = set(), True
        while more:
            pulse = self.b.beat(since=since)
            self.assertLessEqual(len(pulse.failures), 1000)
            found |= {failure.bucket for failure in pulse.failures}
            more, since = pulse.failures_version > since, pulse.failures_version
        self.assertLessEqual(len(found), 65_536)
        self.assertIn("net-69-999", found)
        self.assertNotIn("net-0-0", found)
