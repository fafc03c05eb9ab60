"""The targets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import (
    addresses,
    admin,
    channel,
    conversations,
    credentials,
    forwarded,
    frames,
    heads,
    jwks,
    proxy_protocol,
    routes,
    tokens,
)

__all__ = ["CORPUS", "TARGETS"]

CORPUS = Path(__file__).parent / "corpus"
"""One directory of small inputs for each target."""

TARGETS: dict[str, Callable[[bytes], None]] = {
    "addresses": addresses.check,
    "admin": admin.check,
    "channel": channel.check,
    "conversations": conversations.check,
    "credentials": credentials.check,
    "forwarded": forwarded.check,
    "frames": frames.check,
    "heads": heads.check,
    "jwks": jwks.check,
    "proxy_protocol": proxy_protocol.check,
    "routes": routes.check,
    "tokens": tokens.check,
}
