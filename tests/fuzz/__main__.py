"""Runs one target under atheris: ``python -m tests.fuzz TARGET [LIBFUZZER-OPTION ...]``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["wsproxy", "h11", "wsproto", "jwt"]):
    from .targets import TARGETS

__all__: list[str] = []

_, target, *options = sys.argv
atheris.Setup([sys.argv[0], *options], TARGETS[target])
atheris.Fuzz()
