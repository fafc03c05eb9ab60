"""A kick at one of three replicas: the user's sessions end everywhere, and the tokens are refused everywhere.

It is so if notifications are lost, too. A replica that the store does not reach admits nobody.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from tests.integration.programs import needs
from tests.integration.replicas_case import LIFETIME, REPLICAS, ReplicasCase
from tests.shared.replicas import Replica
from tests.shared.stores import RedisBehindLinks
from tests.shared.visitors import Try, Wanted
from tests.support.proxy_process import wait_until
from wsproxy.runtime.wall_clock import unix_time

_KICKS = 100
_AT_ONCE = 5  # kicks that others hear of with their next beat: each takes up to half a second
_KICKS_DROPPED = 15
_WITHIN = 1.0
_LONG = 10.0
_KICKED = 4499
_AWAY = 503


class _RedisCase(ReplicasCase):
    """With a Redis, and a network of its own for each replica."""

    store: ClassVar[RedisBehindLinks]

    @classmethod
    def make_store(cls) -> RedisBehindLinks:
        cls.store = RedisBehindLinks(REPLICAS)
        return cls.store

    def setUp(self) -> None:
        super().setUp()
        for link in self.store.links:
            self.addCleanup(link.mend)

    def in_turn(self, count: int) -> Iterator[Replica]:
        """Yield each replica in turn."""
        return itertools.islice(itertools.cycle(self.replicas.all), count)

    def check_kick(self, kicked_at: Replica) -> float:
        """Kick a user who has sessions everywhere, and check that all is so everywhere a second later.

        :returns: how many seconds after the operator asked for it.
        """
        user, wanted = self.new_user()
        opened = self.open_everywhere(wanted)
        asked = time.monotonic()
        status, answer = kicked_at.kick(user=user)
        done = time.monotonic()
        self.assertEqual(status, 200, answer)
        refused = [401] * REPLICAS
        self.assertTrue(wait_until(lambda: self.statuses(wanted[0]) == refused, _WITHIN), user)
        self.assertEqual({self.close_code(one) for one in opened}, {_KICKED})
        left = max(_WITHIN - (time.monotonic() - done), 0.0)
        self.assertTrue(self.replicas.api.wait_for(lambda: self.replicas.api.live_in(user) == 0, left), user)
        return time.monotonic() - asked

    def show(self, what: str, seconds: list[float]) -> None:
        slowest, usual = max(seconds), sorted(seconds)[len(seconds) // 2]
        print(f"{what}: {len(seconds)} kicks, {usual:.3f} s, {slowest:.3f} s at most", file=sys.stderr)


@needs("redis-server", "redis-server")
class KickEverywhereTest(_RedisCase):
    def test_kicks(self) -> None:
        """A hundred kicks at one replica: all sessions are gone and the token is refused everywhere."""
        self.show("kicks", [self.check_kick(replica) for replica in self.in_turn(_KICKS)])

    def test_notifications_lost(self) -> None:
        """The same if Redis' messages reach nobody."""
        for link in self.store.links:
            link.lose_messages()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            self.show("messages lost", list(pool.map(self.check_kick, self.in_turn(_KICKS))))

    def test_subscriptions_dropped(self) -> None:
        """The same if the connections on which messages come are dropped before each kick."""
        seconds = []
        for replica in self.in_turn(_KICKS_DROPPED):
            for link in self.store.links:
                link.drop_subscribers()
            seconds.append(self.check_kick(replica))
        self.show("subscriptions dropped", seconds)

    def test_replica_cut_off(self) -> None:
        """A replica that is cut off admits nobody after a second, keeps sessions, and learns of the kick."""
        first, second, cut = self.replicas.all
        user, wanted = self.new_user()
        opened = self.open_everywhere(wanted)
        self.store.links[2].cut()
        self.check_admits_nobody(cut)
        status, answer = first.kick(user=user)
        self.assertEqual(status, 200, answer)
        api = self.replicas.api
        self.assertEqual([self.close_code(one) for one in opened[:2]], [_KICKED] * 2)
        self.assertTrue(api.wait_for(lambda: api.live_in(user) == 1, _WITHIN))
        for replica in (first, second):
            self.assertEqual(
                self.visitors.ask(self.anew(wanted[0])[0][1], replica.address).client.status, 401
            )
        self.assertEqual(self.visitors.ask(self.anew(wanted[0])[0][1], cut.address).client.status, _AWAY)
        self.store.links[2].mend()
        self.assertEqual(self.first_answer(wanted[0], cut), 401)
        self.assertEqual(self.close_code(opened[2]), _KICKED)
        self.assertTrue(api.wait_for(lambda: api.live_in(user) == 0, _WITHIN))
        for one in wanted:
            self.assertEqual(self.statuses(one), [401] * REPLICAS)

    def check_admits_nobody(self, cut: Replica) -> None:
        """Check that a replica admits nobody who comes later than a second after it was cut off."""
        _, [wanted, *_] = self.new_user()
        begin = time.monotonic()
        answers: list[tuple[float, Try]] = []

        def is_late() -> bool:
            came = time.monotonic() - begin
            answers.append((came, self.visitors.ask(wanted, cut.address)))
            return came > 2 * _WITHIN

        self.assertTrue(wait_until(is_late, _LONG))
        late = [one.client.status for came, one in answers if came > _WITHIN]
        self.assertEqual({*late}, {_AWAY})
        last = answers[-1][1]
        self.assertIsNotNone(last.client.header("Retry-After"))
        self.assertEqual(last.reason(), "state-unavailable")
        self.visitors.leave([one.client for _, one in answers if one.is_open])

    def first_answer(self, wanted: Wanted, replica: Replica) -> int:
        """Ask until a replica is back; return the status of the first answer that is not 503."""
        statuses: list[int] = []

        def is_back() -> bool:
            again = wanted._replace(forwarded=self.visitors.new_address())
            statuses.append(self.visitors.ask(again, replica.address).client.status)
            return statuses[-1] != _AWAY

        self.assertTrue(wait_until(is_back, _LONG))
        return statuses[-1]


class _AwayCases(_RedisCase):
    """A user who has no session is kicked. No leeway: the tests know when tokens were issued."""

    settings: ClassVar[dict[str, str]] = {"WSPROXY_LEEWAY": "0"}

    def issued_later(self, user: str, wanted: list[Wanted], *, has_iat: bool = False) -> Wanted:
        """Wait until a kicked user's token is refused everywhere. Then return the same with a new token."""
        self.assertTrue(wait_until(lambda: self.statuses(wanted[0]) == [401] * REPLICAS, _WITHIN))
        vmis = [one.vmi for one in wanted]
        claims = {"iat": unix_time()} if has_iat else {}
        return self.wanted(user, vmis, self.token(user, vmis, **claims))[0]


@needs("redis-server", "redis-server")
class KickOfAbsentUserTest(_AwayCases):
    def test_token_with_iat(self) -> None:
        """A token that was issued before the kick opens nothing; one that was issued later does."""
        user, wanted = self.new_user(iat=unix_time())
        status, answer = self.replicas.all[0].kick(user=user)
        self.assertEqual(status, 200, answer)
        later = self.issued_later(user, wanted, has_iat=True)
        self.assertEqual(self.statuses(later), [101] * REPLICAS)
        self.assertEqual(self.statuses(wanted[0]), [401] * REPLICAS)

    def test_token_without_iat(self) -> None:
        """If nobody knows how long tokens live, a token without iat opens nothing, whenever it was issued."""
        user, wanted = self.new_user()
        self.replicas.all[0].kick(user=user)
        later = self.issued_later(user, wanted)
        self.assertEqual(self.statuses(later), [401] * REPLICAS)

    def test_others(self) -> None:
        """Others come in as before."""
        user, _ = self.new_user()
        self.replicas.all[0].kick(user=user)
        _, [wanted, *_] = self.new_user()
        self.assertEqual(self.statuses(wanted), [101] * REPLICAS)


@needs("redis-server", "redis-server")
class KickWithKnownLifetimeTest(_AwayCases):
    settings: ClassVar[dict[str, str]] = {
        "WSPROXY_LEEWAY": "0",
        "WSPROXY_TOKEN_LIFETIME": str(LIFETIME),
    }

    def test_token_without_iat(self) -> None:
        """A token without iat was issued a lifetime before it expires."""
        user, wanted = self.new_user()
        self.replicas.all[0].kick(user=user)
        later = self.issued_later(user, wanted)
        self.assertEqual(self.statuses(later), [101] * REPLICAS)
