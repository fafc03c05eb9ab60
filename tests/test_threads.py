"""Starting threads: their stack, their name, their owner."""

from __future__ import annotations

import threading
from unittest import mock

from wsproxy import threads
from wsproxy.testing.case import LeakTestCase
from wsproxy.threads import current_owner, start_thread


class StartThreadTest(LeakTestCase):
    def test_runs_the_target(self) -> None:
        """The target runs in a daemon thread of the given name, which the caller can join."""
        seen: list[str] = []
        thread = start_thread("wsproxy-x", lambda: seen.append(threading.current_thread().name), self)
        thread.join()
        self.assertEqual(seen, ["wsproxy-x"])
        self.assertTrue(thread.daemon)

    def test_owner(self) -> None:
        """A thread knows what it works for, and only that thread does."""
        seen: list[object | None] = []
        owner = object()
        start_thread("wsproxy-x", lambda: seen.append(current_owner()), owner).join()
        self.assertEqual(seen, [owner])
        self.assertIsNone(current_owner())

    def test_foreign_threads_have_no_owner(self) -> None:
        """A thread that was started elsewhere has no owner."""
        seen: list[object | None] = []
        thread = threading.Thread(target=lambda: seen.append(current_owner()))
        thread.start()
        thread.join()
        self.assertEqual(seen, [None])

    def test_stack_size_is_given_back(self) -> None:
        """The process's setting for the stack is small during the start only."""
        before = threading.stack_size()
        sizes: list[int] = []
        start = threading.Thread.start

        def watched(thread: threading.Thread) -> None:
            sizes.append(threading.stack_size())
            start(thread)

        with mock.patch.object(threading.Thread, "start", watched):
            start_thread("wsproxy-x", lambda: None, self).join()
        self.assertEqual(sizes, [threads.STACK_SIZE])
        self.assertEqual(threading.stack_size(), before)

    def test_no_thread_left(self) -> None:
        """If the system starts no more threads that is raised, and the stack setting is given back."""
        before = threading.stack_size()
        with (
            mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")),
            self.assertRaises(RuntimeError),
        ):
            start_thread("wsproxy-x", lambda: None, self)
        self.assertEqual(threading.stack_size(), before)
