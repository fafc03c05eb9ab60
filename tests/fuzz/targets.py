"""The targets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import conversations, frames, heads, routes, tokens

__all__ = ["CORPUS", "TARGETS"]

CORPUS = Path(__file__).parent / "corpus"
"""One directory of small inputs for each target."""

TARGETS: dict[str, Callable[[bytes], None]] = {
    "conversations": conversations.check,
    "frames": frames.check,
    "heads": heads.check,
    "routes": routes.check,
    "tokens": tokens.check,
}
