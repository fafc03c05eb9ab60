"""The store within one process against a model, with members that crash and a clock that leaps."""

from __future__ import annotations

from hypothesis import settings

from tests.state.memory import Memory

from .profile import few
from .store_machine import StoreMachine

__all__ = ["StoreTest"]


class MemoryMachine(StoreMachine):
    make = Memory


class StoreTest(MemoryMachine.TestCase):  # type: ignore[misc, valid-type]
    """Takes some seconds; with more examples it is a search of its own."""

    settings = settings(few, max_examples=200, stateful_step_count=80)
