"""base64url without padding (RFC 7515 section 2). No I/O."""

from __future__ import annotations

import base64

__all__ = ["decode", "encode"]


def encode(raw: bytes) -> str:
    """Return the canonical encoding of some bytes."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Decode the canonical encoding: no padding, no other characters, unused bits zero.

    :raises ValueError: for any other text. The error's text does not quote it.
    """
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise ValueError("it is not base64url") from None
    if encode(raw) != text:
        raise ValueError("it is not canonical base64url")
    return raw
