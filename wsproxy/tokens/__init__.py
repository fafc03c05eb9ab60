"""From a JWT to a Grant: keys, JWK Sets, signatures and claims; and making tokens."""

from __future__ import annotations

from .verifier import MAX_TOKEN_SIZE, TokenVerifier, make_token

__all__ = ["MAX_TOKEN_SIZE", "TokenVerifier", "make_token"]
