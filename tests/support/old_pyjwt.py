"""The oldest PyJWT that a user of wsproxy has, as a judge of tokens: what lab-orchestrator-lib-auth pins.

It runs in a process of its own, since two versions of a package do not fit into one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

__all__ = ["DIRECTORY", "OldPyJWT"]

VERSION = "2.1.0"
DIRECTORY = os.path.join(sys.prefix, "pyjwt", VERSION)
"""Where ``old_pyjwt`` of ``scripts/_venv`` installs it."""

_PROGRAM = """
import json, sys
import jwt
from jwt.algorithms import get_default_algorithms

def claims(token, key, algorithm):
    return jwt.decode(token, key, algorithms=[algorithm])

def token(claims, key, algorithm):
    return jwt.encode(claims, key, algorithm=algorithm)

def public_key(jwk, algorithm):
    key = get_default_algorithms()[algorithm].from_jwk(json.dumps(jwk))
    if isinstance(key, bytes):
        return key.hex()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()

print(jwt.__version__, flush=True)
for line in sys.stdin:
    name, arguments = json.loads(line)
    try:
        answer = [True, globals()[name](*arguments)]
    except Exception as exc:
        answer = [False, type(exc).__name__]
    print(json.dumps(answer), flush=True)
"""


class OldPyJWT:
    """The judge, from the start to :meth:`stop`. Its methods raise ValueError for what it refuses."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM],
            env=os.environ | {"PYTHONPATH": DIRECTORY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self._process.stdout
        version = self._process.stdout.readline().strip()
        assert version == VERSION, f"PyJWT {version} has come; scripts/property installs {VERSION}"

    def claims(self, token: str, key: str, algorithm: str) -> Any:
        """Return the claims of a token that it takes."""
        return self._ask("claims", token, key, algorithm)

    def token(self, claims: dict[str, Any], key: str, algorithm: str) -> str:
        """Return a token that it makes."""
        made: str = self._ask("token", claims, key, algorithm)
        return made

    def public_key(self, jwk: dict[str, Any], algorithm: str) -> bytes:
        """Return the key in a JWK as DER, or its bytes if it is a secret."""
        return bytes.fromhex(self._ask("public_key", jwk, algorithm))

    def _ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        done, answer = json.loads(self._process.stdout.readline())
        if not done:
            raise ValueError(answer)
        return answer

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)
