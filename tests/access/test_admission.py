"""Admission: which clients are admitted, shut down and counted; a flood writes few lines to the log."""

from __future__ import annotations

import logging
import unittest

from wsproxy.access.admission import Admission
from wsproxy.runtime.timers import Housekeeping
from wsproxy.telemetry.counters import Counters

_LIMIT = 8


class ClientStub:
    aborted = 0

    def abort(self) -> None:
        self.aborted += 1


class AdmissionTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.counters = Counters()
        self.housekeeping = Housekeeping(lambda: self.now)
        self.admission = Admission(_LIMIT, self.counters, self.housekeeping, lambda: self.now)

    def come(self, network: str) -> ClientStub | None:
        """Return the client that was let in, None if it was not."""
        if not self.admission.admits(network):
            return None
        client = ClientStub()
        self.admission.add(client, network)
        return client

    def fill(self, network: str = "10.0.0.1") -> list[ClientStub]:
        clients = [self.come(network) for _ in range(_LIMIT)]
        return [client for client in clients if client]

    @property
    def turned_away(self) -> int:
        return self.counters.numbers(0).turned_away

    def test_newcomer_has_to_go(self) -> None:
        """A newcomer of a network that has all the places is not let in, and counted."""
        flood = self.fill()
        self.assertEqual(len(flood), _LIMIT)
        self.assertIsNone(self.come("10.0.0.1"))
        self.assertEqual(sum(client.aborted for client in flood), 0)
        self.assertEqual(self.turned_away, 1)

    def test_another_makes_room(self) -> None:
        """A newcomer from elsewhere is let in, and the oldest of the flood is shut down."""
        flood = self.fill()
        self.assertIsNotNone(self.come("10.0.0.2"))
        self.assertEqual([client.aborted for client in flood], [1] + [0] * (_LIMIT - 1))
        self.assertEqual(self.turned_away, 1)

    def test_room_again(self) -> None:
        """A client that has authenticated, or has ended, is not pending any more."""
        first, second, *_ = self.fill()
        self.assertTrue(self.admission.prove(first))
        self.admission.remove(second)
        self.assertIsNotNone(self.come("10.0.0.1"))
        self.assertIsNotNone(self.come("10.0.0.1"))
        self.assertIsNone(self.come("10.0.0.1"))
        self.admission.remove(first)  # its session ends
        self.assertIsNone(self.come("10.0.0.1"))

    def test_too_late(self) -> None:
        """If a client was shut down before it authenticated, ``prove`` says so."""
        first = self.fill()[0]
        self.come("10.0.0.2")
        self.assertFalse(self.admission.prove(first))

    def test_leaving(self) -> None:
        """If as many threads as the limit are still ending, no newcomer is admitted."""
        flood = self.fill()
        for number in range(_LIMIT):
            self.now += 10
            self.assertIsNotNone(self.come(f"10.1.0.{number}"))
        self.now += 10
        self.assertIsNone(self.come("10.2.0.1"))
        self.admission.remove(flood[0])
        self.assertIsNotNone(self.come("10.2.0.1"))

    def test_summary(self) -> None:
        """A flood is one line a second; when it is over there is no further line, and no further call."""
        self.fill()
        for _ in range(1000):
            self.come("10.0.0.1")
        self.come("10.0.0.2")
        with self.assertLogs("wsproxy", "INFO") as logs:
            self.assertEqual(self.admission.tick(5.0), 6.0)
        (line,) = logs.output
        self.assertIn("1001 connections closed before authentication, the last because of 10.0.0.2", line)
        self.assertIn(f"{_LIMIT} were pending, {_LIMIT} of them from one address", line)
        self.assertEqual(len(self.housekeeping), 1)
        with self.assertNoLogs("wsproxy"):
            self.admission.tick(6.0)
        self.assertEqual(len(self.housekeeping), 0)
        self.come("10.0.0.1")
        self.assertEqual(len(self.housekeeping), 1)
        with self.assertLogs("wsproxy", "INFO") as logs:
            self.admission.tick(7.0)
        self.assertIn("1 connections closed", logs.output[0])

    def test_refusals_are_bounded(self) -> None:
        """A hundred refusals a second are logged, the others summed up; then it begins anew."""
        levels = [self.admission.refusal_level() for _ in range(250)]
        self.assertEqual(levels, [logging.INFO] * 100 + [logging.DEBUG] * 150)
        with self.assertLogs("wsproxy", "INFO") as logs:
            self.admission.tick(1.0)
        self.assertEqual([record.getMessage() for record in logs.records], ["150 more connections refused"])
        self.assertEqual(self.admission.refusal_level(), logging.INFO)
        with self.assertNoLogs("wsproxy"):
            self.admission.tick(2.0)


if __name__ == "__main__":
    unittest.main()
