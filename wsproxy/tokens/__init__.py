"""Turns a JWT into a Grant, with keys, JWK Sets, signatures and claims. Also makes tokens."""

from __future__ import annotations

from .issue import make_token
from .verifier import MAX_TOKEN_SIZE, TokenVerifier

__all__ = ["MAX_TOKEN_SIZE", "TokenVerifier", "make_token"]
