"""A console that KubeVirt still takes for one in use, because a session of ours has only just ended."""

from __future__ import annotations

import unittest

from tests.behaviour.test_abandoned_openings import _HANG, AbandonedCase
from tests.support.proxy_process import wait_until


class PageLoadedAnew(AbandonedCase):
    """A session of ours has ended, and KubeVirt, which may need a moment to see it, says that it is there."""

    def end_a_session(self) -> None:
        """Open the console, and leave it in good order; then KubeVirt takes it for one that is in use."""
        client = self.open("alice")
        self.assert_open(client)
        client.send_close()
        client.recv_close()
        client.wait_for_end()
        self.assertTrue(wait_until(lambda: not self.proxy.sessions()))
        self.vmi.in_use = True

    def asked(self) -> int:
        return len(self.api.requests)

    def test_free_in_a_moment(self) -> None:
        """A busy of the API is tried again, for whoever comes."""
        for user in ("alice", "bob"):
            with self.subTest(user=user):
                self.start()
                self.end_a_session()
                before = self.asked()
                client = self.ask(user)
                self.api.wait_for_requests(before + 2)
                self.vmi.in_use = False
                client.read_head()
                self.assert_open(client)
                client.close()
                self.proxy.stop_thread()
                self.assertTrue(self.api.wait_until_idle())

    def test_deadline(self) -> None:
        """That takes no longer than the dial may, and the answer is that the console is in use."""
        self.start(dial_timeout=1.5)
        self.end_a_session()
        client = self.open("bob")
        self.assertEqual(client.status, 409)
        self.assertIn(b'"console-busy"', client.body())
        self.assertLess(self.asked(), 12)  # with growing pauses

    def test_deadline_within_a_try(self) -> None:
        """The answer is the same if the last try has no answer when the deadline comes."""
        self.start(dial_timeout=2)
        self.end_a_session()
        before = self.asked()
        client = self.ask("bob")
        self.api.wait_for_requests(before + 2)
        self.vmi.behaviour = _HANG
        client.read_head()
        self.assertEqual(client.status, 409)
        self.assertIn(b'"console-busy"', client.body())

    def test_client_leaves(self) -> None:
        """Nobody is waited for who has left."""
        self.start()
        self.end_a_session()
        before = self.asked()
        client = self.ask("bob")
        self.api.wait_for_requests(before + 2)
        client.close()
        self.assert_nothing_left()

    def test_somebody_elses(self) -> None:
        """Without a session of ours before, it is refused at once."""
        self.start()
        self.vmi.in_use = True
        self.assertEqual(self.open("bob").status, 409)
        self.assertEqual(self.asked(), 1)

    def test_refused_for_another_reason(self) -> None:
        """Whatever else the API says is said at once."""
        self.start()
        self.end_a_session()
        self.vmi.in_use, self.vmi.phase = False, "Failed"
        before = self.asked()
        self.assertEqual(self.open("bob").status, 409)
        self.assertEqual(self.asked(), before + 1)

    def test_vague_answer(self) -> None:
        """KubeVirt 1.6.3 does not say why; it is tried again all the same, and is an error in the end."""
        self.api.kubevirt_version = "v1.6.3"
        self.start(dial_timeout=1.5)
        self.end_a_session()
        before = self.asked()
        self.assertEqual(self.open("bob").status, 502)
        self.assertGreater(self.asked(), before + 1)


if __name__ == "__main__":
    unittest.main()
