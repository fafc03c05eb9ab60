"""Three replicas are updated to a version with another schema, and rolled back, one by one.

At each step sessions go on, and limits, tickets, kicks and revoked tokens are true for all three.
"""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar

from tests.integration.programs import needs
from tests.integration.replicas_case import REPLICAS, ReplicasCase
from tests.shared.newer_program import NEWER, OLDER
from tests.shared.newer_program import __name__ as newer_program
from tests.shared.replicas import LEASE, Replica
from tests.shared.stores import LocalStore, RedisBehindLinks
from tests.shared.visitors import Try, Wanted
from tests.support.proxy_process import wait_until
from wsproxy.testing.kubevirt.frames import BINARY

_OLD, _NEW = ("-m", "wsproxy"), ("-m", newer_program)
_LIMIT = 3
_WITHIN = 1.0
_LONG = 15.0
_LEASE_AND_MORE = float(LEASE) + 3.0
_KICKED = 4499


class _RollingCase(ReplicasCase):
    """A user has as many sessions as one may, one at each replica; others come and go."""

    settings: ClassVar[dict[str, str]] = {
        "WSPROXY_MAX_SESSIONS_PER_USER": str(_LIMIT),
        "WSPROXY_TICKETS": "true",
    }

    def setUp(self) -> None:
        super().setUp()
        self.user = f"lasting-{next(self._numbers)}"
        self.vmis = self.replicas.api.add_group(self.user, REPLICAS + 1)
        *self.own, self.further = self.wanted(self.user, self.vmis, self.token(self.user, self.vmis))
        self.lasting = self.open_everywhere(self.own)
        self.kicked: list[Wanted] = []
        self.newer: set[Replica] = set()

    def roll(self, command: tuple[str, ...], expected: Callable[[int], int]) -> None:
        """Replace the replicas one by one, and check after each that all is as with one process.

        :param expected: returns the schema in use when so many are replaced.
        """
        for number, replica in enumerate(self.replicas.all):
            self.visitors.leave([self.lasting[number].client])
            with self.newcomers_at(self.replicas.all[number - 1], f"{number + 1} run {command[-1]}"):
                others = [one for one in self.replicas.all if one is not replica]
                _, wanted = self.new_user()
                opened = [self.open_at(*pair) for pair in zip(wanted, others, strict=False)]
                self.restart(replica, command)
                self.check_kick_amid(wanted, opened, others[0])
                self.wait_until_all_admit()
            self.check_kicked_before(replica)
            self.check_limit(number, replica)
            self.wait_for_schema(expected(number + 1))
            self.check_lasting()
            self.check_tickets(replica)
            self.check_kick(replica)
            self.check_kick(self.replicas.all[number - 1])

    def restart(self, replica: Replica, command: tuple[str, ...]) -> None:
        """Replace a replica by one of another version."""
        replica.restart(*command)
        self.newer -= {replica}
        if command == _NEW:
            self.newer |= {replica}

    def wait_until_all_admit(self) -> None:
        """Wait until each replica admits somebody."""
        for replica in self.replicas.all:
            _, [wanted, *_] = self.new_user()
            self.visitors.leave([self.open_at(wanted, replica).client])

    @contextmanager
    def newcomers_at(self, replica: Replica, what: str) -> Iterator[None]:
        """Context manager: have clients come to a replica, and check how long they had to wait."""
        over = threading.Event()
        _, [wanted, *_] = self.new_user()
        refused = [0.0]

        def come_and_go() -> None:
            admitted = time.monotonic()
            while not over.is_set():
                one = self.open_at(wanted, replica)
                refused.append(time.monotonic() - admitted)
                self.visitors.leave([one.client])
                admitted = time.monotonic()

        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(come_and_go)
            try:
                yield
            finally:
                over.set()
            coming.result()
        print(f"{what}: {len(refused)} newcomers, one waited {max(refused):.1f} s", file=sys.stderr)
        self.assertLess(max(refused), _LEASE_AND_MORE)

    def open_at(self, wanted: Wanted, replica: Replica) -> Try:
        """Open a session at a replica. Meanwhile it may say 503, as clients are told, and nothing else."""
        tries: list[Try] = []

        def is_decided() -> bool:
            tries.append(self.visitors.ask(wanted, replica.address))
            return tries[-1].client.status != 503

        self.assertTrue(wait_until(is_decided, _LONG))
        self.assertTrue(tries[-1].is_open, tries[-1].client.head)
        self.assertEqual({one.reason() for one in tries[:-1]} - {"state-unavailable"}, set())
        return tries[-1]

    def check_limit(self, number: int, replica: Replica) -> None:
        """The user may open what ended with the old process, and no more, at any replica."""
        self.lasting[number] = self.open_at(self.own[number], replica)
        for one in self.replicas.all:
            self.assertEqual(self.visitors.ask(self.further, one.address).client.status, 429)
        self.assertEqual(self.replicas.api.live_in(self.user), _LIMIT)

    def check_lasting(self) -> None:
        """The sessions that began before still serve their clients."""
        for one in self.lasting:
            one.client.send_frame(BINARY, b"still here")
            self.assertEqual(one.client.recv_frame().payload, b"still here")

    def check_tickets(self, replica: Replica) -> None:
        """A ticket that one replica issues opens a session at another one, once."""
        _, [wanted, *_] = self.new_user()
        ticket = self.visitors.issue_ticket(wanted, replica.address)
        self.assertNotEqual(ticket, "")
        with_ticket = wanted._replace(credential=ticket)
        other = next(one for one in self.replicas.all if one is not replica)
        opened = self.visitors.ask(with_ticket, other.address)
        self.assertTrue(opened.is_open, opened.client.head)
        self.assertEqual(self.visitors.ask(with_ticket, replica.address).client.status, 401)
        self.visitors.leave([opened.client])

    def check_kick(self, kicked_at: Replica) -> None:
        """A kick ends sessions everywhere. The token is refused everywhere, as are all that were before."""
        user, wanted = self.new_user()
        opened = self.open_everywhere(wanted)
        status, answer = kicked_at.kick(user=user)
        self.assertEqual((status, answer["behind"]), (200, []))
        refused = [401] * REPLICAS
        self.assertTrue(wait_until(lambda: self.statuses(wanted[0]) == refused, _WITHIN))
        self.assertEqual([self.close_code(one) for one in opened], [_KICKED] * REPLICAS)
        self.kicked.append(wanted[0])

    def check_kick_amid(self, wanted: list[Wanted], opened: list[Try], kicked_at: Replica) -> None:
        """A kick while the schema may be changing: nobody is let in, and the sessions end."""
        status, answer = kicked_at.kick(token=wanted[0].credential)
        self.assertEqual(status, 200, answer)
        self.assertTrue(wait_until(lambda: 101 not in self.statuses(wanted[-1]), _WITHIN))
        self.assertEqual([self.close_code(one) for one in opened], [_KICKED] * len(opened))
        self.assertTrue(wait_until(lambda: self.statuses(wanted[-1]) == [401] * REPLICAS, _LONG))
        self.kicked.append(wanted[-1])

    def check_kicked_before(self, replica: Replica) -> None:
        """A replica that has just begun refuses the tokens that were revoked before."""
        for one in self.kicked:
            again = one._replace(forwarded=self.visitors.new_address())
            self.assertEqual(self.visitors.ask(again, replica.address).client.status, 401)

    def wait_for_schema(self, schema: int) -> None:
        raise NotImplementedError


@needs("redis-server", "redis-server")
class RollingRedisTest(_RollingCase):
    store: ClassVar[RedisBehindLinks]

    @classmethod
    def make_store(cls) -> RedisBehindLinks:
        cls.store = RedisBehindLinks(REPLICAS)
        return cls.store

    def wait_for_schema(self, schema: int) -> None:
        with self.store.server.client() as client:
            self.assertEqual(client.get("{wsproxy}:0:schema"), b"%d" % schema)

    def test_update_and_rollback(self) -> None:
        """The older schema is in use while anybody knows no other; the older ones come back at any time."""
        self.roll(_NEW, lambda replaced: NEWER if replaced == REPLICAS else OLDER)
        self.roll(_OLD, lambda replaced: OLDER)


class RollingLocalTest(_RollingCase):
    store: ClassVar[LocalStore]

    @classmethod
    def make_store(cls) -> LocalStore:
        cls.store = LocalStore()
        return cls.store

    def wait_for_schema(self, schema: int) -> None:
        """Wait until all replicas of the newer version have said so last; the others never say so."""
        self.assertTrue(
            wait_until(lambda: all(_said(one) == b"%d" % schema for one in self.newer), _LONG),
            [one.proxy.output for one in self.newer],
        )

    def test_update_and_rollback(self) -> None:
        """The store that an older process has started stays, until somebody ends it."""
        store = self.store.pid
        self.roll(_NEW, lambda replaced: OLDER)
        self.assertEqual(self.store.pid, store)
        self.store.signal(signal.SIGTERM)
        self.assertTrue(wait_until(lambda: self.is_another(store), _LONG))
        self.wait_until_all_admit()
        self.wait_for_schema(NEWER)
        self.check_lasting()
        self.check_kick(self.replicas.all[0])
        self.roll(_OLD, lambda replaced: OLDER)

    def is_another(self, store: int) -> bool:
        try:
            return self.store.pid != store
        except OSError:
            return False


def _said(replica: Replica) -> bytes:
    """Return the schema that a replica has last said to be in use; b"" if it has not."""
    return b"".join(re.findall(rb"schema of the shared state is (\d+);", replica.proxy.output)[-1:])
