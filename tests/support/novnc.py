"""A noVNC for tests that serve the console page but show no screen with it."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

__all__ = ["stand_in_novnc"]


def stand_in_novnc(case: unittest.TestCase) -> str:
    """Return a directory that the setting ``novnc`` accepts. It is there until the end of the test.

    Without noVNC a proxy with the console page warns, and not every machine has it.
    """
    directory = tempfile.TemporaryDirectory()
    case.addCleanup(directory.cleanup)
    Path(directory.name, "core").mkdir()
    Path(directory.name, "core", "rfb.js").touch()
    return directory.name
