"""Which tests make up the suite, and how one of its classes goes through another front."""

from __future__ import annotations

import functools
import unittest
from collections.abc import Callable, Iterator
from typing import Any

from tests.behaviour import (
    test_back_pressure,
    test_byte_identity,
    test_leaks,
    test_refusals,
    test_session_ends,
)
from tests.conformance.differences import DIFFERENCES
from tests.conformance.fronts import ConformanceTestCase, impatience
from tests.conformance.wsgi_servers import WSGIServer

__all__ = ["AREAS", "Suite", "test_names", "through"]

Suite = type[ConformanceTestCase]

AREAS: dict[str, tuple[Suite, ...]] = {
    "How sessions end": (
        test_session_ends.Ends,
        test_session_ends.StuckLegs,
        test_session_ends.Liveness,
        test_session_ends.ExpiredSession,
        test_session_ends.Stop,
    ),
    "Byte identity": (test_byte_identity.ByteIdentity,),
    "Back-pressure": (test_back_pressure.SlowClient, test_back_pressure.SlowUpstream),
    "Refusals": (
        test_refusals.Table,
        test_refusals.ByHTTPOnly,
        test_refusals.HostileHeads,
        test_refusals.Routes,
        test_refusals.Endpoints,
    ),
    "Leaks": (test_leaks.Leaks,),
}
"""The suite's classes, as they are for the socket server."""


def test_names(suite: Suite) -> Iterator[str]:
    """Yield the names of a class's tests in the order in which they are written."""
    for owner in reversed(suite.__mro__):
        yield from (name for name in vars(owner) if name.startswith("test"))


def through(front: type[WSGIServer], suite: Suite, module: str) -> Suite:
    """Return a class of the suite that goes through a front.

    A test that is among the front's differences has to fail, and one of whose sub-tests some are, holds
    for the others only.
    """
    differences = DIFFERENCES[front.name]
    members: dict[str, Any] = {
        "front_type": front,
        "client_tls": front.tls,
        "differences": frozenset(differences),
        "__doc__": f"{suite.__name__}, through {front.name}.",
        "__module__": module,
    }
    for name in test_names(suite):
        if f"{suite.__name__}.{name}" in differences:
            members[name] = unittest.expectedFailure(_impatient(getattr(suite, name)))
    return type(f"{front.__name__}{suite.__name__}", (suite,), members)


def _impatient(test: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a test that gives up soon, and can be marked without marking the original."""

    @functools.wraps(test)
    def run(self: Any) -> None:
        with impatience():
            test(self)

    return run
