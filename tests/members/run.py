"""Runs the machine: for a while in each run of the tests, and for long if ``WSPROXY_STEPS`` says so."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
import unittest
from collections import Counter
from typing import ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.members.machine import ProcessMachine

__all__ = ["MachineTest"]

_STEPS = int(os.environ.get("WSPROXY_STEPS", "150"))  # of each test; there are two
_IN_EXAMPLE = 30
_SEED = 20260714


class MachineTest(unittest.TestCase):
    """The same steps as always, and other ones each time. ``WSPROXY_SEED`` gives the seed of the latter.

    :cvar machine: what to run; None in the base class.
    """

    machine: ClassVar[type[ProcessMachine] | None] = None

    def test_fixed_seed(self) -> None:
        """The steps that were chosen once; but processes never take exactly as long as before."""
        self.run_with(_SEED)

    def test_fresh_seed(self) -> None:
        """Other steps in each run."""
        self.run_with(int(os.environ.get("WSPROXY_SEED") or random.randrange(2**32)))

    def run_with(self, number: int) -> None:
        if self.machine is None:
            self.skipTest("has no store")

        class Machine(self.machine):  # type: ignore[name-defined, misc]
            steps = 0
            counts: ClassVar[Counter[str]] = Counter()

        begin = time.monotonic()
        try:
            for more in itertools.count():  # an example may have fewer steps than it might
                if Machine.steps >= _STEPS:
                    break
                examples = -(-(_STEPS - Machine.steps) // _IN_EXAMPLE)
                run_state_machine_as_test(seed(number + more)(Machine), settings=_settings(examples))
        finally:
            seconds = time.monotonic() - begin
            print(f"seed {number}: {Machine.steps} steps in {seconds:.0f} s", file=sys.stderr)
            if "WSPROXY_STEPS" in os.environ:
                print(dict(sorted(Machine.counts.items())), file=sys.stderr)


def _settings(examples: int) -> settings:
    """Return settings for so many examples. None is kept or made simpler, as no two runs are the same."""
    return settings(
        max_examples=examples,
        stateful_step_count=_IN_EXAMPLE,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
