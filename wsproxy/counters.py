"""How many sessions one server has and had, and how much they carried."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Protocol

__all__ = ["Counters", "Numbers"]


@dataclass(frozen=True)
class Numbers:
    """What was counted, at one moment.

    :ivar connections: clients that are connected, in whatever phase.
    :ivar sessions: sessions that are open.
    :ivar opened: sessions that were opened so far.
    :ivar bytes_up: bytes received from clients so far, in sessions.
    :ivar bytes_down: bytes received from upstreams so far, in sessions.
    :ivar turned_away: connections closed so far because too many had not proved themselves.
    """

    connections: int = 0
    sessions: int = 0
    opened: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    turned_away: int = 0

    def __add__(self, other: Numbers) -> Numbers:
        return Numbers(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def __str__(self) -> str:
        return (
            f"{self.connections} connections, {self.sessions} sessions, {self.opened} opened so far, "
            f"{self.bytes_up} bytes up, {self.bytes_down} bytes down, "
            f"{self.turned_away} closed before authentication"
        )

    def totals(self) -> Numbers:
        """Return what remains true when all that is open has ended."""
        return replace(self, connections=0, sessions=0)

    def to_json(self) -> dict[str, int]:
        """Return what :meth:`from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: object) -> Numbers:
        """Read what another process sent.

        :raises ValueError: if it is something else.
        """
        names = {item.name for item in fields(cls)}
        if not isinstance(found, Mapping) or found.keys() != names:
            raise ValueError("these are no numbers")
        if not all(type(value) is int and value >= 0 for value in found.values()):
            raise ValueError("these are no numbers")
        return cls(**found)


class Counted(Protocol):
    """A session that is being relayed."""

    @property
    def bytes_up(self) -> int: ...

    @property
    def bytes_down(self) -> int: ...


class Counters:
    """Counts the sessions of one server. Safe from every thread, never blocks."""

    def __init__(self) -> None:
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._open: set[Counted] = set()
        self._opened = 0
        self._bytes_up = self._bytes_down = 0  # of sessions that are open no more
        self._turned_away = 0

    def add(self, session: Counted) -> None:
        """Count a session from now on."""
        with self._lock:
            self._open.add(session)
            self._opened += 1

    def remove(self, session: Counted) -> None:
        """Count a session as ended, with what it carried."""
        with self._lock:
            self._open.remove(session)
            self._bytes_up += session.bytes_up
            self._bytes_down += session.bytes_down

    def turn_away(self) -> None:
        """Count a connection that was closed because too many had not proved themselves."""
        with self._lock:
            self._turned_away += 1

    def numbers(self, connections: int) -> Numbers:
        """Return everything at this moment; ``connections`` is counted elsewhere."""
        with self._lock:
            return Numbers(
                connections=connections,
                sessions=len(self._open),
                opened=self._opened,
                bytes_up=self._bytes_up + sum(session.bytes_up for session in self._open),
                bytes_down=self._bytes_down + sum(session.bytes_down for session in self._open),
                turned_away=self._turned_away,
            )
