"""The store within one process, by itself and behind JSON, does what every store must."""

from __future__ import annotations

import json
import unittest
from typing import Any
from unittest import mock

from wsproxy.state.membership import Beat, Member, Publication
from wsproxy.state.store import SCHEMA
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.stores.remote import RemoteCalls, answer_call

from .conformance import conformance
from .conformance.case import LEASE
from .memory import Memory


class Behind(RemoteCalls):
    """A store that is spoken to in JSON only."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(self._ask_by_text)
        self._memory = memory

    def _ask_by_text(self, operation: str, arguments: list[Any]) -> Any:
        sent = json.loads(json.dumps(arguments, allow_nan=False))
        return json.loads(json.dumps(answer_call(self._memory.memory, operation, sent), allow_nan=False))

    def listen(self, member: str, seconds: float) -> bool:
        return self._memory.memory.listen(member, seconds)

    def close(self) -> None:
        self._memory.memory.close()


class MemoryBehindJson(Memory):
    """The same, with every argument and result as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Behind(self)

    def restart(self, *, data: bool) -> None:
        super().restart(data=data)
        self.store = Behind(self)


class SchemaTest(unittest.TestCase):
    def test_in_use(self) -> None:
        """In use is the newest schema that the store and all its members know."""
        store = MemoryStore()

        def joined(id: str, schema: int) -> int:
            return store.publish(Publication(Member(id, id, LEASE, schema))).schema

        with mock.patch("wsproxy.state.shared.roster.SCHEMA", SCHEMA + 1):
            self.assertEqual(joined("a", SCHEMA + 2), SCHEMA + 1)
            self.assertEqual(joined("b", SCHEMA), SCHEMA)
            self.assertEqual(store.beat("a", Beat(1)).schema, SCHEMA)
            store.leave("b")
            self.assertEqual(store.beat("a", Beat(2)).schema, SCHEMA + 1)


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    behind_json = conformance(loader, MemoryBehindJson, without="test_bound")
    return unittest.TestSuite([tests, conformance(loader, Memory), behind_json])
