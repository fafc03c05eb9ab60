"""Several real processes with one store, which tests stop, kill and cut off, and what they did."""

from __future__ import annotations
