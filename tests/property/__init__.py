"""Properties that must hold for everything that hypothesis thinks of. They run when they are named.

``scripts/property`` does so. ``python -m unittest`` without names leaves them out: they need packages that
the product does not.
"""

from __future__ import annotations

from tests.support.named import loader_when_named

__all__ = ["load_tests"]

load_tests = loader_when_named(__name__, __path__)
