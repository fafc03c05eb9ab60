"""What the programs of this folder do alike: they say how far they are, and end what they have started."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

__all__ = ["run", "say"]


def say(text: str) -> None:
    """Write a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def run(main: Callable[[], int]) -> None:
    """Call ``main``, and exit with its status. SIGTERM ends all started processes, like Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
