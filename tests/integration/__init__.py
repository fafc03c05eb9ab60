"""Tests against real servers and clients. They run when they are named, as ``scripts/integration`` does.

``python -m unittest`` without names leaves them out: they need programs that a bare machine does not have.
"""

from __future__ import annotations

from tests.support.named import loader_when_named

__all__ = ["load_tests"]

load_tests = loader_when_named(__name__, __path__)
