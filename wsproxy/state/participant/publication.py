"""Divides what a member holds into the parts of a publication. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..membership import Member, Publication
from ..revocations import Rule
from ..store import PARTS
from ..values import Held

__all__ = ["publications"]


def publications(
    member: Member, sessions: Sequence[Held], rules: Sequence[Rule], knew: tuple[str, ...]
) -> Iterator[Publication]:
    """Yield the parts, of which there is at least one. Parameters are as for :class:`.Publication`."""
    last = max(len(sessions), len(rules), 1) - 1
    for start in range(0, last + 1, PARTS):
        end = start + PARTS
        held, known = tuple(sessions[start:end]), tuple(rules[start:end])
        yield Publication(member, start // PARTS, end > last, held, known, () if start else knew)
