"""How hypothesis runs here: always with the same examples, so that no run fails which says nothing new."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["few", "many"]

few = settings(derandomize=True, database=None, deadline=None, max_examples=250)
many = settings(few, max_examples=1000)
