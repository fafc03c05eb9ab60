"""Which clients are pending, and which make room: by hand, and against a model that searches a list."""

from __future__ import annotations

import random
import time
import unittest

from wsproxy.access.pending import PATIENCE, Pending
from wsproxy.protocol.client import Peer


class Model:
    """The same rules, by searching through a list."""

    def __init__(self) -> None:
        self.clients: list[tuple[int, str, float]] = []

    def count(self, network: str) -> int:
        return sum(1 for _, other, _ in self.clients if other == network)

    def most(self) -> int:
        return max((self.count(network) for _, network, _ in self.clients), default=0)

    def may_be_taken(self, network: str, now: float) -> set[int]:
        """Return the clients that may have to make room; empty if the newcomer must go."""
        own, most = self.count(network), self.most()
        fullest = [network] if own == most else [other for _, other, _ in self.clients]
        victims = set()
        for name in fullest:
            if self.count(name) == most:
                client, _, since = next(entry for entry in self.clients if entry[1] == name)
                if own + 1 < most or now >= since + PATIENCE:
                    victims.add(client)
        return victims

    def remove(self, client: int) -> None:
        self.clients = [entry for entry in self.clients if entry[0] != client]


class PendingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.pending: Pending[str] = Pending(4, lambda: self.now)

    def fill(self, *clients: str) -> None:
        """Take clients in, each a network and a number, a tenth of a second apart."""
        for client in clients:
            self.pending.add(client, client[0])
            self.now += 0.1

    def test_full(self) -> None:
        """There is room below the limit; a client counts until it is removed, however often."""
        self.fill("a1", "a2", "b1")
        self.assertFalse(self.pending.full)
        self.fill("c1")
        self.assertTrue(self.pending.full)
        self.assertEqual((len(self.pending), self.pending.most), (4, 2))
        for _ in range(2):
            self.pending.remove("a1")
        self.assertEqual((len(self.pending), self.pending.most), (3, 1))

    def test_flood_from_one(self) -> None:
        """The oldest client of the network that has most makes room for another network's first."""
        self.fill("a1", "a2", "a3", "a4")
        self.assertEqual(self.pending.take_victim("b"), "a1")
        self.assertEqual(len(self.pending), 3)

    def test_newcomer_of_the_fullest(self) -> None:
        """A newcomer whose own network has most must go, if that network's oldest client is young."""
        self.fill("a1", "a2", "a3", "b1")
        self.assertIsNone(self.pending.take_victim("a"))
        self.now = PATIENCE
        self.assertEqual(self.pending.take_victim("a"), "a1")

    def test_tie(self) -> None:
        """A newcomer whose network would then have as many as any other is treated the same."""
        self.fill("a1", "a2", "b1", "b2")
        self.fill("c1")
        self.assertIsNone(self.pending.take_victim("c"))
        self.now = PATIENCE
        self.assertEqual(self.pending.take_victim("c"), "a1")
        self.assertIsNone(self.pending.take_victim("c"))  # b1 has been here for 0.8 s

    def test_everybody_has_one(self) -> None:
        """Clients from many networks keep a newcomer out for at most the patience."""
        self.fill("a1", "b1", "c1", "d1")
        self.assertIsNone(self.pending.take_victim("e"))
        self.now = PATIENCE
        self.assertEqual(self.pending.take_victim("e"), "a1")

    def test_quiet_network_is_left_alone(self) -> None:
        """However many come, those of a network that has fewer than others are not touched."""
        self.fill("q1", "a1", "a2", "a3")
        for number in range(100):
            self.now += PATIENCE
            network = "abc"[number % 3]
            self.assertIsNotNone(self.pending.take_victim(network))
            self.fill(f"{network}{number + 10}")
        self.pending.remove("q1")
        self.assertEqual(len(self.pending), 3)

    def test_random(self) -> None:
        """On random input it picks the same client as a search through a list."""
        for seed in range(30):
            dice, model = random.Random(seed), Model()
            pending: Pending[int] = Pending(12, lambda: self.now)
            for client in range(300):
                self.now += dice.choice((0.0, 0.01, 0.3))
                if model.clients and dice.random() < 0.3:
                    gone = dice.choice(model.clients)[0]
                    pending.remove(gone)
                    model.remove(gone)
                network = dice.choice("aaaabbcdefghijklmnop")
                self.assertEqual(pending.full, len(model.clients) >= 12)
                if pending.full:
                    allowed = model.may_be_taken(network, self.now)
                    victim = pending.take_victim(network)
                    if victim is None:  # one of the networks that have most was looked at, not all of them
                        own = model.count(network)
                        self.assertGreaterEqual(own + 1, model.most())
                        self.assertTrue(not allowed or own < model.most(), (seed, client))
                        continue
                    self.assertIn(victim, allowed, (seed, client))
                    model.remove(victim)
                pending.add(client, network)
                model.clients.append((client, network, self.now))
                self.assertEqual((len(pending), pending.most), (len(model.clients), model.most()))

    def test_cost(self) -> None:
        """Forty thousand clients cost about as much each as a thousand: nothing is searched."""

        def seconds_each(limit: int) -> float:
            pending: Pending[int] = Pending(limit, lambda: self.now)
            for client in range(limit):
                pending.add(client, str(client % (limit // 4)))
            rounds, started = 400, time.thread_time()
            for client in range(rounds):
                self.assertIsNotNone(pending.take_victim("quiet"))
                pending.add(limit + client, str(client % (limit // 4)))
            return (time.thread_time() - started) / rounds

        small = min(seconds_each(1000) for _ in range(3))
        self.assertLess(min(seconds_each(40_000) for _ in range(3)), 10 * small)


class NetworkTest(unittest.TestCase):
    def test_networks(self) -> None:
        """An IPv4 address counts by itself, in whatever form; an IPv6 address by its /64."""
        for address, network in (
            (("192.0.2.7", 4711), "192.0.2.7"),
            (("::ffff:192.0.2.7", 4711, 0, 0), "192.0.2.7"),
            (("2001:db8:1:2:3:4:5:6", 4711, 0, 0), "2001:db8:1:2::/64"),
            (("2001:db8:1:2::1", 4711, 0, 0), "2001:db8:1:2::/64"),
            (("2001:db8:1:3::1", 4711, 0, 0), "2001:db8:1:3::/64"),
            (("fe80::1%eth0", 4711, 0, 2), "fe80::/64"),
            (("::1", 4711, 0, 0), "::/64"),
            ("", "unknown"),
            (None, "unknown"),
            (("no:address", 1), "unknown"),
        ):
            with self.subTest(address=address):
                self.assertEqual(Peer.accepted(address).network, network)


if __name__ == "__main__":
    unittest.main()
