"""What one process, or several together, have seen of the store of the shared state. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from .histogram import is_count

__all__ = ["StateNumbers"]


@dataclass(frozen=True)
class StateNumbers:
    """All of them are 0 if processes share no store.

    :ivar in_step: processes that know all revocation rules, and whose store answers.
    :ivar out_of_step: the other processes.
    :ivar longest_away: seconds since the process that is away longest was in step.
    :ivar failures: beats and reports that the store has not answered so far.
    """

    in_step: int = 0
    out_of_step: int = 0
    longest_away: int = 0
    failures: int = 0

    def __add__(self, other: StateNumbers) -> StateNumbers:
        return StateNumbers(
            self.in_step + other.in_step,
            self.out_of_step + other.out_of_step,
            max(self.longest_away, other.longest_away),
            self.failures + other.failures,
        )

    def totals(self) -> StateNumbers:
        """Return the numbers of a process that has ended."""
        return replace(StateNumbers(), failures=self.failures)

    def to_json(self) -> dict[str, int]:
        """Return the value that :meth:`from_json` reads."""
        return asdict(self)

    def from_json(self, found: object) -> StateNumbers:
        """Read other numbers.

        :raises ValueError: if the value does not have such numbers.
        """
        if not isinstance(found, Mapping) or found.keys() != asdict(self).keys():
            raise ValueError("these are not the numbers of the shared state")
        if not all(map(is_count, found.values())):
            raise ValueError("these are not the numbers of the shared state")
        return StateNumbers(**found)
