"""The store in a process of its own against the model, with real deaths of that process."""

from __future__ import annotations

from hypothesis import settings

from tests.state.local import Local

from .profile import few
from .store_machine import StoreMachine

__all__ = ["LocalStoreTest"]


class LocalMachine(StoreMachine):
    make = Local


class LocalStoreTest(LocalMachine.TestCase):  # type: ignore[misc, valid-type]
    """Takes some seconds; with more examples it is a search of its own."""

    settings = settings(few, max_examples=40, stateful_step_count=50)
