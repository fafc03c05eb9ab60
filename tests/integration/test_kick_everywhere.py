"""A kick at one of three replicas: the user's sessions end everywhere, and the tokens are refused everywhere.

It is so if notifications are lost, too. A replica that the store does not reach admits nobody.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from typing import ClassVar

from tests.integration.programs import needs
from tests.shared.cluster import NAMESPACE
from tests.shared.replicas import Replica, Replicas
from tests.shared.stores import RedisBehindLinks
from tests.shared.visitors import GONE, Try, Visitors, Wanted
from tests.support.jws import signed_token
from tests.support.proxy_process import wait_until
from wsproxy.runtime.wall_clock import unix_time
from wsproxy.testing.case import SECRET, LeakTestCase

_REPLICAS = 3
_KICKS = 100
_KICKS_UNHEARD = 30  # each takes up to half a second
_WITHIN = 1.0
_LIFETIME = 600.0
_CLOSE_WITHIN = 10.0
_KICKED = 4499
_AWAY = 503


class _ReplicasTest(LeakTestCase):
    """Three replicas for all tests of the class.

    :cvar settings: of all replicas.
    """

    settings: ClassVar[dict[str, str]] = {}
    store: ClassVar[RedisBehindLinks]
    replicas: ClassVar[Replicas]
    _numbers: ClassVar[Iterator[int]] = itertools.count()

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.store = RedisBehindLinks(_REPLICAS)
        cls.allowed_leaks = cls.store.connections  # the replicas open and close them as they like
        cls.replicas = Replicas(_REPLICAS, cls.store, cls.settings)
        cls.addClassCleanup(cls.replicas.close)

    def setUp(self) -> None:
        super().setUp()
        self.visitors = Visitors(self.replicas)
        self.addCleanup(self.visitors.close)
        for link in self.store.links:
            self.addCleanup(link.mend)

    def new_user(self, **claims: object) -> tuple[str, list[Wanted]]:
        """Return a user with a token for as many VMs as there are replicas; and what they may ask for."""
        group = f"kick-{next(self._numbers)}"
        vmis = self.replicas.api.add_group(group, _REPLICAS)
        return group, self.wanted(group, vmis, self.token(group, vmis, **claims))

    def token(self, user: str, vmis: list[str], **claims: object) -> str:
        """Return a token of which the tests know when it was issued."""
        lab = {"namespace_name": NAMESPACE, "allowed_vmi_names": vmis}
        said = {"id": user, "exp": unix_time() + _LIFETIME, "lab_instance": lab}
        return signed_token(said | claims, SECRET)

    def wanted(self, user: str, vmis: list[str], token: str) -> list[Wanted]:
        return [Wanted(vmi, token, self.visitors.new_address()) for vmi in vmis]

    def open_everywhere(self, wanted: list[Wanted]) -> list[Try]:
        """Open one session at each replica."""
        pairs = zip(self.replicas.all, wanted, strict=True)
        opened = [self.visitors.ask(one, replica.address) for replica, one in pairs]
        self.assertEqual([one.client.status for one in opened], [101] * _REPLICAS)
        return opened

    def statuses(self, wanted: Wanted) -> list[int]:
        """Ask each replica for a session; end those that open."""
        answers = [self.visitors.ask(one, replica.address) for replica, one in self.anew(wanted)]
        self.visitors.leave([one.client for one in answers if one.is_open])
        return [one.client.status for one in answers]

    def anew(self, wanted: Wanted) -> list[tuple[Replica, Wanted]]:
        """Return the same for each replica, from addresses that have not failed before."""
        return [
            (replica, wanted._replace(forwarded=self.visitors.new_address())) for replica in self.replicas.all
        ]

    def check_kick(self, kicked_at: Replica) -> float:
        """Kick a user who has sessions everywhere; return how many seconds later that is so everywhere."""
        user, wanted = self.new_user()
        opened = self.open_everywhere(wanted)
        status, answer = kicked_at.kick(user=user)
        begin = time.monotonic()
        self.assertEqual(status, 200, answer)
        refused = [401] * _REPLICAS
        self.assertTrue(wait_until(lambda: self.statuses(wanted[0]) == refused, _WITHIN), user)
        self.assertEqual({self.close_code(one) for one in opened}, {_KICKED})
        left = max(_WITHIN - (time.monotonic() - begin), 0.0)
        self.assertTrue(self.replicas.api.wait_for(lambda: self.replicas.api.live_in(user) == 0, left), user)
        return time.monotonic() - begin

    def close_code(self, one: Try) -> int:
        """Return the code of the Close that a client gets, 0 for none."""
        try:
            code = one.client.recv_close(_CLOSE_WITHIN)[0]
        except GONE:
            return 0
        self.visitors.leave([one.client])
        return code

    def show(self, what: str, seconds: list[float]) -> None:
        slowest, usual = max(seconds), sorted(seconds)[len(seconds) // 2]
        print(f"{what}: {len(seconds)} kicks, {usual:.3f} s, {slowest:.3f} s at most", file=sys.stderr)


@needs("redis-server", "redis-server")
class KickEverywhereTest(_ReplicasTest):
    def test_kicks(self) -> None:
        """A hundred kicks at one replica: all sessions are gone and the token is refused everywhere."""
        first = self.replicas.all[0]
        self.show("kicks", [self.check_kick(first) for _ in range(_KICKS)])

    def test_notifications_lost(self) -> None:
        """The same if Redis' messages reach nobody."""
        for link in self.store.links:
            link.lose_messages()
        first = self.replicas.all[0]
        self.show("messages lost", [self.check_kick(first) for _ in range(_KICKS_UNHEARD)])

    def test_subscriptions_dropped(self) -> None:
        """The same if the connections on which messages come are dropped before each kick."""
        seconds = []
        for _ in range(_KICKS_UNHEARD):
            for link in self.store.links:
                link.drop_subscribers()
            seconds.append(self.check_kick(self.replicas.all[0]))
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

    def check_admits_nobody(self, cut: Replica) -> None:
        """Check that a replica admits nobody who comes later than a second after it was cut off."""
        _, [wanted, *_] = self.new_user()
        begin = time.monotonic()
        answers: list[tuple[float, Try]] = []

        def is_late() -> bool:
            came = time.monotonic() - begin
            answers.append((came, self.visitors.ask(wanted, cut.address)))
            return came > 2 * _WITHIN

        self.assertTrue(wait_until(is_late, _CLOSE_WITHIN))
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

        self.assertTrue(wait_until(is_back, _CLOSE_WITHIN))
        return statuses[-1]


class _AwayCases(_ReplicasTest):
    """A user who has no session is kicked. No leeway: the tests know when tokens were issued."""

    settings: ClassVar[dict[str, str]] = {"WSPROXY_LEEWAY": "0"}


@needs("redis-server", "redis-server")
class KickOfAbsentUserTest(_AwayCases):
    def test_token_with_iat(self) -> None:
        """A token that was issued before the kick opens nothing; one that was issued later does."""
        user, wanted = self.new_user(iat=unix_time())
        status, answer = self.replicas.all[0].kick(user=user)
        self.assertEqual(status, 200, answer)
        self.assertTrue(wait_until(lambda: self.statuses(wanted[0]) == [401] * _REPLICAS, _WITHIN))
        vmis = [one.vmi for one in wanted]
        [later, *_] = self.wanted(user, vmis, self.token(user, vmis, iat=unix_time()))
        self.assertEqual(self.statuses(later), [101] * _REPLICAS)
        self.assertEqual(self.statuses(wanted[0]), [401] * _REPLICAS)

    def test_token_without_iat(self) -> None:
        """If nobody knows how long tokens live, a token without iat opens nothing, whenever it was issued."""
        user, wanted = self.new_user()
        self.replicas.all[0].kick(user=user)
        self.assertTrue(wait_until(lambda: self.statuses(wanted[0]) == [401] * _REPLICAS, _WITHIN))
        vmis = [one.vmi for one in wanted]
        [later, *_] = self.wanted(user, vmis, self.token(user, vmis))
        self.assertEqual(self.statuses(later), [401] * _REPLICAS)

    def test_others(self) -> None:
        """Others come in as before."""
        user, _ = self.new_user()
        self.replicas.all[0].kick(user=user)
        _, [wanted, *_] = self.new_user()
        self.assertEqual(self.statuses(wanted), [101] * _REPLICAS)


@needs("redis-server", "redis-server")
class KickWithKnownLifetimeTest(_AwayCases):
    settings: ClassVar[dict[str, str]] = {
        "WSPROXY_LEEWAY": "0",
        "WSPROXY_TOKEN_LIFETIME": str(_LIFETIME),
    }

    def test_token_without_iat(self) -> None:
        """A token without iat was issued a lifetime before it expires."""
        user, wanted = self.new_user()
        self.replicas.all[0].kick(user=user)
        self.assertTrue(wait_until(lambda: self.statuses(wanted[0]) == [401] * _REPLICAS, _WITHIN))
        vmis = [one.vmi for one in wanted]
        [later, *_] = self.wanted(user, vmis, self.token(user, vmis))
        self.assertEqual(self.statuses(later), [101] * _REPLICAS)
