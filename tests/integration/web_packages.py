"""What browsers need and no Debian package has in the version that tests want."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from functools import cache

__all__ = ["web_package"]

_PROGRAM = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "web_packages.py")
_SECONDS = 300


@cache
def web_package(name: str) -> str:
    """Return the directory of an npm package that ``scripts/web_packages.py`` knows; fetched if need be.

    Blocks for some minutes at most.

    :param name: ``novnc``, ``xterm`` or ``axe-core``.
    :raises unittest.SkipTest: if it cannot be had.
    """
    done = subprocess.run(
        [sys.executable, _PROGRAM, name], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        raise unittest.SkipTest(done.stderr.strip())
    return done.stdout.strip()
