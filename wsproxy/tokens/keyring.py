"""Which keys are tried for a token. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..runtime.deadline import Deadline
from .keys import VerificationKey

__all__ = ["KeySource", "Keyring"]


class Keyring:
    """The keys of one moment. Immutable, so that whoever has one can tell whether the keys are others now.

    :param keys: tried in this order.
    """

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self.keys = tuple(keys)
        self._by_algorithm: dict[str, list[VerificationKey]] = {}
        for key in self.keys:
            for algorithm in key.algorithms:
                self._by_algorithm.setdefault(algorithm, []).append(key)
        self._names = frozenset(key.kid for key in self.keys if key.kid is not None)

    def verifies(self, algorithm: str, kid: str | None, signed: bytes, signature: bytes) -> bool:
        """Whether a key made ``signature``.

        :param algorithm: what the token says; a key that is not for it is not tried.
        :param kid: what the token says. It rules out keys of other names, and is only compared.
        """
        return any(
            (kid is None or key.kid is None or key.kid == kid) and key.verifies(algorithm, signed, signature)
            for key in self._by_algorithm.get(algorithm, ())
        )

    def has(self, kid: str | None) -> bool:
        """Whether there is a key of this name; None is no name."""
        return kid in self._names

    # A keyring is its own source: keys that never change.

    def current(self) -> Keyring:
        """See :class:`KeySource`."""
        return self

    def await_key(self, kid: str | None, deadline: Deadline | None) -> None:
        """See :class:`KeySource`: there will be no others."""


class KeySource(Protocol):
    """Where the keys come from."""

    def current(self) -> Keyring:
        """Return the keys as they are now, the same object as long as they are the same. Any thread."""
        ...

    def await_key(self, kid: str | None, deadline: Deadline | None) -> None:
        """Look for a public key that :meth:`current` has not; return when it has it, or it is not to be had.

        :param kid: its name, None for any key at all.
        :param deadline: how long to block at most; None for not at all.
        :raises Draining: if the proxy stops meanwhile.
        """
        ...
