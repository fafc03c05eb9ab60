"""Running a Python process of a test's own, for a bounded time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["python"]


@contextmanager
def python(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stderr: int = subprocess.STDOUT,
    seconds: float = 60.0,
) -> Iterator[subprocess.Popen[str]]:
    """Run this Python with ``arguments`` and text pipes; it is killed after ``seconds``, or at the end."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=env,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    killer = threading.Timer(seconds, process.kill)
    killer.start()
    try:
        yield process
    finally:
        killer.cancel()
        killer.join()
        process.kill()
        process.communicate()
