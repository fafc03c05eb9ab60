"""Base class of tests with three replicas that have one store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar

from tests.shared.cluster import NAMESPACE
from tests.shared.replicas import Replica, Replicas
from tests.shared.stores import Store
from tests.shared.visitors import GONE, Try, Visitors, Wanted
from tests.support.jws import signed_token
from wsproxy.runtime.wall_clock import unix_time
from wsproxy.testing.case import SECRET, LeakTestCase

__all__ = ["LIFETIME", "REPLICAS", "ReplicasCase"]

REPLICAS = 3
LIFETIME = 600.0
_CLOSE_WITHIN = 10.0


class ReplicasCase(LeakTestCase):
    """Three replicas for all tests of the class.

    :cvar settings: of all replicas.
    """

    settings: ClassVar[dict[str, str]] = {}
    replicas: ClassVar[Replicas]
    _numbers: ClassVar[Iterator[int]] = itertools.count()

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.replicas = Replicas(REPLICAS, cls.make_store(), cls.settings)
        cls.addClassCleanup(cls.replicas.close)

    @classmethod
    def make_store(cls) -> Store:
        """Return what the replicas have in common. It is closed with them."""
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        self.visitors = Visitors(self.replicas)
        self.addCleanup(self.visitors.close)

    def new_user(self, **claims: object) -> tuple[str, list[Wanted]]:
        """Return a user with a token for as many VMs as there are replicas; and what they may ask for."""
        group = f"kick-{next(self._numbers)}"
        vmis = self.replicas.api.add_group(group, REPLICAS)
        return group, self.wanted(group, vmis, self.token(group, vmis, **claims))

    def token(self, user: str, vmis: list[str], **claims: object) -> str:
        """Return a token of which the tests know when it was issued."""
        lab = {"namespace_name": NAMESPACE, "allowed_vmi_names": vmis}
        said = {"id": user, "exp": unix_time() + LIFETIME, "lab_instance": lab}
        return signed_token(said | claims, SECRET)

    def wanted(self, user: str, vmis: list[str], token: str) -> list[Wanted]:
        return [Wanted(vmi, token, self.visitors.new_address()) for vmi in vmis]

    def open_everywhere(self, wanted: list[Wanted]) -> list[Try]:
        """Open one session at each replica."""
        pairs = zip(self.replicas.all, wanted, strict=True)
        opened = [self.visitors.ask(one, replica.address) for replica, one in pairs]
        self.assertEqual([one.client.status for one in opened], [101] * REPLICAS)
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

    def close_code(self, one: Try) -> int:
        """Return the code of the Close that a client gets, 0 for none."""
        try:
            code = one.client.recv_close(_CLOSE_WITHIN)[0]
        except GONE:
            return 0
        self.visitors.leave([one.client])
        return code
