"""Makes tokens (RFC 7519), for platforms and for tests."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..exceptions import ConfigError
from . import base64url
from .algorithms import PrivateKey, algorithms_of, sign
from .keys import check_algorithms, check_secret, octets
from .public_keys import private_key_of_pem

__all__ = ["make_token"]


def make_token(
    secret: str | bytes,
    *,
    namespace: str,
    vmis: Sequence[str],
    user: str | int = 0,
    expires_in: float = 600,
    lab_id: str | int = 0,
    lab_instance_id: str | int = 0,
    algorithm: str = "HS256",
    additional_data: Mapping[str, Any] | None = None,
) -> str:
    """Return a signed token with LabOrchestrator's claims, for a user that the caller has authenticated.

    Any thread; does not block. The claims are not checked here, but by the proxy that gets the token.

    :param secret: HMAC secret, or a PEM private key for the other algorithms.
    :param namespace: namespace of the VMIs.
    :param vmis: names of the VMIs that the user may open; a text is a single name.
    :param user: name or id of the user, for logs, limits and hooks.
    :param expires_in: seconds until the token expires, which ends its sessions; negative for an expired one.
    :param lab_id: the platform's id of the lab; the proxy ignores it.
    :param lab_instance_id: the platform's id of the lab's instance; the proxy ignores it.
    :param algorithm: JWS algorithm, one of the key's.
    :param additional_data: further data of the platform, valid in JSON; the proxy ignores it.
    :raises ConfigError: if the secret or key cannot be used, or does not fit the algorithm.
    """
    lab = {
        "lab_id": lab_id,
        "lab_instance_id": lab_instance_id,
        "namespace_name": namespace,
        "allowed_vmi_names": [vmis] if isinstance(vmis, str) else list(vmis),
        "additional_data": dict(additional_data) if additional_data is not None else None,
    }
    now = time.time()
    # A kick of the user tells older tokens from newer ones by iat. Whole seconds are never in the future.
    claims = {"id": user, "iat": int(now), "exp": now + expires_in, "lab_instance": lab}
    return _signed(claims, _signing_key(octets(secret, "secret"), algorithm), algorithm)


def _signed(claims: Mapping[str, Any], key: bytes | PrivateKey, algorithm: str) -> str:
    parts = ({"alg": algorithm, "typ": "JWT"}, claims)
    text = ".".join(
        base64url.encode(json.dumps(part, separators=(",", ":"), allow_nan=False).encode()) for part in parts
    )
    return f"{text}.{base64url.encode(sign(algorithm, key, text.encode()))}"


def _signing_key(secret: bytes, algorithm: str) -> bytes | PrivateKey:
    check_algorithms([algorithm])
    if algorithm in algorithms_of(b""):
        check_secret(secret, "secret")
        return secret
    try:
        key = private_key_of_pem(secret)
    except ValueError as exc:
        raise ConfigError([f"secret holds {exc}; {algorithm} needs a private key"]) from None
    if algorithm not in algorithms_of(key):
        raise ConfigError([f"secret holds a private key that is not for {algorithm}"])
    return key
