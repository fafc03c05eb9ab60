"""Tokens that nobody makes by ``make_token``."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from wsproxy.testing.case import SECRET

__all__ = ["early"]


def early(token: str, secret: str = SECRET) -> str:
    """Return an HS256 token that says the same, and that it is not valid before it has expired."""
    header, payload, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    signed = f"{header}.{_encoded(json.dumps(claims | {'nbf': claims['exp']}).encode())}"
    return f"{signed}.{_encoded(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
