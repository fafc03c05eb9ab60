"""Runs one target under atheris: ``python -m tests.fuzz TARGET [LIBFUZZER-OPTION ...]``."""

from __future__ import annotations

import base64
import sys

import atheris

with atheris.instrument_imports(include=["wsproxy", "h11", "wsproto"]):
    from .targets import TARGETS

__all__: list[str] = []

_, target, *options = sys.argv


def _check(data: bytes) -> None:
    try:
        TARGETS[target](data)
    except BaseException:
        # Now, because the timer of libFuzzer can kill the process before it has written the input down.
        print("The input in Base64:", base64.b64encode(data).decode(), file=sys.stderr, flush=True)
        raise


atheris.Setup([sys.argv[0], *options], _check)
atheris.Fuzz()
