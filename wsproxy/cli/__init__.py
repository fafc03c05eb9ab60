"""The program: wsproxy serve, check, token, sessions, state and demo."""

from __future__ import annotations

from .program import main

__all__ = ["main"]
