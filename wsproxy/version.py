"""The version, alone in a module so that the build can read it without importing anything else."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "2.0.0"
