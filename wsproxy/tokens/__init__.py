"""From a JWT to a Grant: keys, JWK Sets, signatures and claims; and making tokens."""

from __future__ import annotations

from .issue import make_token
from .verifier import MAX_TOKEN_SIZE, TokenVerifier

__all__ = ["MAX_TOKEN_SIZE", "TokenVerifier", "make_token"]
