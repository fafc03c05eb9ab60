"""The project's wheel, built as for PyPI."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["build_wheel"]

_ROOT = Path(__file__).parents[2]
_SOURCES = ("wsproxy", "compat", "share", "setup.py", "setup.cfg", "README.md", "LICENSE")
_SECONDS = 600


def build_wheel(directory: Path) -> Path:
    """Build it in a directory that is made, from a copy of the sources: a build leaves files beside them."""
    source = directory / "source"
    source.mkdir(parents=True)
    for name in _SOURCES:
        copy = shutil.copytree if (_ROOT / name).is_dir() else shutil.copy2
        copy(_ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory)]
    subprocess.run([*pip, str(source)], check=True, timeout=_SECONDS)
    [wheel] = directory.glob("*.whl")
    return wheel
