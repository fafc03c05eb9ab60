"""What a store tells members of their sessions, and how often."""

from __future__ import annotations

import threading

from wsproxy.state.console_policies import Policy
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.values import Held, MessageKind, Stage

from .case import StoreCase, session

__all__ = ["Messages"]


class Messages(StoreCase):
    def test_until_acknowledged(self) -> None:
        """A message is repeated in every answer until a beat acknowledges it."""
        self.a.open(session("s1"))
        self.assertTrue(self.store.tell(self.a.id, "s1", 4499, "kicked"))
        first = self.store.report(self.a.id, ())
        [message] = first
        self.assertEqual(message[1:5], (MessageKind.END, "s1", 4499, "kicked"))
        self.assertEqual(self.a.admit(session("s2", "bob")).messages, first)
        self.assertEqual(self.a.opened("s2").messages, first)
        self.assertEqual(self.a.beat().messages, ())
        self.assertEqual(self.store.report(self.a.id, ()), ())

    def test_only_what_was_seen(self) -> None:
        """Acknowledging one message keeps a later one."""
        for id in ("s1", "s2"):
            self.a.open(session(id))
        self.store.tell(self.a.id, "s1", 4499, "kicked")
        self.a.beat()
        self.store.tell(self.a.id, "s2", 4499, "kicked")
        self.assertEqual([message.session for message in self.a.beat().messages], ["s2"])

    def test_later_one_replaces(self) -> None:
        """A later message of a kind replaces the earlier one, and stands in the order of the numbers."""
        for id in ("s1", "s2"):
            self.a.open(session(id))
        for id, reason in (("s1", "kicked"), ("s2", "kicked"), ("s1", "again")):
            self.store.tell(self.a.id, id, 4499, reason)
        found = self.store.report(self.a.id, ())
        self.assertEqual([(one.session, one.reason) for one in found], [("s2", "kicked"), ("s1", "again")])
        numbers = [one.number for one in found]
        self.assertEqual(numbers, sorted(set(numbers)))

    def test_of_nobody(self) -> None:
        """There is nothing to tell a session that is not there, and nothing is left of one that is gone."""
        self.assertFalse(self.store.tell(self.a.id, "s1", 4499, "kicked"))
        self.assertFalse(self.store.tell("nobody", "s1", 4499, "kicked"))
        self.a.open(session("s1"))
        self.store.tell(self.a.id, "s1", 4499, "kicked")
        self.a.released("s1")
        self.assertEqual(self.store.report(self.a.id, ()), ())

    def test_after_a_cut(self) -> None:
        """A member that comes again cannot acknowledge what it has not seen."""
        self.a.open(session("s1"))
        for _ in range(3):
            self.store.tell(self.a.id, "s1", 4499, "kicked")
            self.a.beat()
        self.store.leave(self.a.id)
        self.a.publish(Held(session("s1"), Stage.OPEN, Policy.PASSTHROUGH))
        self.store.tell(self.a.id, "s1", 4499, "kicked")
        self.assertEqual(len(self.a.beat().messages), 1)
        self.assertEqual(len(self.a.messages), 4)

    def test_listening(self) -> None:
        """Who listens learns of a message, and of a rule, before the time is over."""
        self.a.open(session("s1"))
        for news in (
            lambda: self.store.tell(self.a.id, "s1", 4499, "kicked"),
            lambda: self.store.revoke((Rule("r", "k", 1.7e9, 1.8e9, Match(user="alice")),)),
        ):
            heard: list[bool] = []

            def listen(heard: list[bool] = heard) -> None:
                heard.append(self.store.listen(self.a.id, 20))

            thread = threading.Thread(target=listen)
            thread.start()
            news()
            thread.join(10)
            self.assertEqual(heard, [True])

    def test_nothing_to_hear(self) -> None:
        """Without news it is silent until the time is over."""
        self.assertFalse(self.store.listen(self.b.id, 0.01))
