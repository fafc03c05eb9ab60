"""Target: everything that becomes of a token before and after its signature is checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from typing import Any

from wsproxy.config import Config
from wsproxy.exceptions import BadToken, TokenExpired, TokenNotYetValid
from wsproxy.server.gateway import Gateway
from wsproxy.tokens.claims import Grant
from wsproxy.tokens.issue import make_token
from wsproxy.tokens.verifier import MAX_TOKEN_SIZE
from wsproxy.upstream.location import DEFAULT_API_PATH

from .texts import assert_own_text

__all__ = ["check"]

_SECRET = b"fuzzing-secret-of-32-bytes-and-more"
_OTHER = b"fuzzing-secret-of-somebody-else-...."
_VERIFIER = Gateway(
    Config(remote_url="ws://127.0.0.1:1", api_path=DEFAULT_API_PATH, local_dev_mode=True, secret_key=_SECRET)
).verifier
_GOOD = make_token(_SECRET, namespace="lab-1", vmis=["ubuntu"], expires_in=10**9)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check(data: bytes) -> None:
    """Verify the token that ``data`` describes; its first byte says how.

    ======= =================================================================
    ``s``   a line with the header, and the claims: signed rightly
    ``w``   the same, signed with somebody else's key
    ``n``   the same, with an empty signature
    ``m``   a good token; each three bytes overwrite one of its characters
    others  the rest is the token
    ======= =================================================================
    """
    kind, rest = data[:1], data[1:]
    if kind == b"m":
        token = _changed(rest)
    elif kind in (b"s", b"w", b"n"):
        token = _signed(rest, {b"s": _SECRET, b"w": _OTHER}.get(kind))
    else:
        token = rest.decode("latin-1")
    grant = _verified(token)
    assert _verified(token) == grant, "the second answer is another one"
    if grant is not None:
        assert kind not in (b"w", b"n"), "a forged token was accepted"
        _check_grant(grant, token)


def _changed(places: bytes) -> str:
    token = bytearray(_GOOD, "ascii")
    for index in range(0, len(places) - 2, 3):
        token[int.from_bytes(places[index : index + 2], "big") % len(token)] = places[index + 2]
    return token.decode("latin-1")


def _signed(rest: bytes, key: bytes | None) -> str:
    header, _, claims = rest.partition(b"\n")
    text = f"{_encoded(header)}.{_encoded(claims)}"
    return f"{text}.{_signature(text, key) if key else ''}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signature(text: str, key: bytes) -> str:
    return _encoded(hmac.digest(key, text.encode(), hashlib.sha256))


def _verified(token: str) -> Grant | None:
    try:
        return _VERIFIER.verify(token)
    except BadToken as refused:  # its kinds included; anything else is a finding
        assert_own_text(refused)
        if isinstance(refused, TokenExpired | TokenNotYetValid):
            assert _is_ours(token), "a forged token was told of its time"
        return None


def _is_ours(token: str) -> bool:
    text, _, signature = token.rpartition(".")
    expected = hmac.digest(_SECRET, text.encode(), hashlib.sha256)
    return hmac.compare_digest(_decoded(signature), expected)


def _decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _check_grant(grant: Grant, token: str) -> None:
    """What was accepted must be right by rules that are written down here once more."""
    assert len(token) <= MAX_TOKEN_SIZE and token.count(".") == 2 and _is_ours(token)
    header, claims = (json.loads(_decoded(segment)) for segment in token.split(".")[:2])
    assert header["alg"] == "HS256" and "crit" not in header
    now = time.time()  # noqa: TID251
    assert claims["exp"] > now - 5 and not claims.get("nbf", 0) > now + 5
    lab: dict[str, Any] = claims["lab_instance"]
    assert (grant.user, grant.namespace) == (claims["id"], lab["namespace_name"])
    assert _LABEL.fullmatch(grant.namespace)
    names = lab["allowed_vmi_names"] if "allowed_vmi_names" in lab else [lab["vmi_name"]]
    assert type(names) is list and list(grant.vmis) == names
    assert all(type(name) is str for name in grant.vmis)
