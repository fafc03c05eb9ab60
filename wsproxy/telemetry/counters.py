"""How many sessions one server has and had, how they went, and how much they carried."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from ..protocol.closing import Ending, Leg
from .causes import ALL_LIMITS, ENDINGS, REFUSALS, ending_cause, refusal_cause
from .histogram import Histogram, Observations, is_count

__all__ = ["Counters", "LabelledCount", "SessionCounts", "Snapshot", "lost_lines"]

_SESSION_SECONDS = Histogram.empty(1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_QUICK_SECONDS = Histogram.empty(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LEGS = frozenset(leg.value for leg in Leg)
_ENDED_BY = (*_LEGS, "proxy")


@dataclass(frozen=True)
class LabelledCount:
    """How often what happened, by one word of a closed set.

    :ivar words: the set.
    :ivar counts: what is missing has not happened.
    """

    words: frozenset[str]
    counts: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: LabelledCount) -> LabelledCount:
        return LabelledCount(self.words, dict(Counter(self.counts) + Counter(other.counts)))

    def to_json(self) -> dict[str, int]:
        """Return what :meth:`from_json` takes."""
        return dict(self.counts)

    def from_json(self, found: object) -> LabelledCount:
        """Read another one of the same words.

        :raises ValueError: if it is something else.
        """
        if not isinstance(found, Mapping) or not found.keys() <= self.words:
            raise ValueError("this is no tally")
        if not all(map(is_count, found.values())):
            raise ValueError("this is no tally")
        return LabelledCount(self.words, dict(found))


_REFUSED = LabelledCount(REFUSALS)
_ENDED = LabelledCount(frozenset(f"{by} {cause}" for by in _ENDED_BY for cause in ENDINGS))
_LIMITS = LabelledCount(ALL_LIMITS)
_HANDSHAKES = LabelledCount(_LEGS)
_LOST_LINES = LabelledCount(frozenset({"program", "audit"}))


def lost_lines(program: int, audit: int) -> LabelledCount:
    """Return how many lines were lost of the program's own log, and of the audit log."""
    return LabelledCount(_LOST_LINES.words, {"program": program, "audit": audit})


@dataclass(frozen=True)
class Snapshot:
    """What was counted, at one moment.

    :ivar connections: clients that are connected, in whatever phase.
    :ivar sessions: sessions that are open.
    :ivar opened: sessions that were opened so far.
    :ivar bytes_up: bytes received from clients so far, in sessions.
    :ivar bytes_down: bytes received from upstreams so far, in sessions.
    :ivar turned_away: connections closed so far because too many had not proved themselves.
    :ivar failures: exceptions so far that nobody expected.
    :ivar refused: clients refused so far, by :data:`.REFUSALS`.
    :ivar ended: sessions that ended so far, by who ended them and :data:`.ENDINGS`.
    :ivar limits: how often each limit was hit so far, by :data:`.ALL_LIMITS`.
    :ivar handshakes: handshakes that failed so far, by leg.
    :ivar lost_lines: lines that could not be written so far, by log: "program" or "audit".
    :ivar session_seconds: how long the sessions were that have ended.
    :ivar dial_seconds: how long it took to open the upstreams of those that opened.
    :ivar first_byte_seconds: how long it then took until the first byte came from them.
    :ivar screenshot_seconds: how long it took to get the pictures of screens.
    :ivar client_ping_seconds: how long clients took to answer our pings.
    :ivar upstream_ping_seconds: how long upstreams did.
    """

    connections: int = 0
    sessions: int = 0
    opened: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    turned_away: int = 0
    failures: int = 0
    refused: LabelledCount = _REFUSED
    ended: LabelledCount = _ENDED
    limits: LabelledCount = _LIMITS
    handshakes: LabelledCount = _HANDSHAKES
    lost_lines: LabelledCount = _LOST_LINES
    session_seconds: Histogram = _SESSION_SECONDS
    dial_seconds: Histogram = _QUICK_SECONDS
    first_byte_seconds: Histogram = _QUICK_SECONDS
    screenshot_seconds: Histogram = _QUICK_SECONDS
    client_ping_seconds: Histogram = _QUICK_SECONDS
    upstream_ping_seconds: Histogram = _QUICK_SECONDS

    def __add__(self, other: Snapshot) -> Snapshot:
        return Snapshot(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def __str__(self) -> str:
        return (
            f"{self.connections} connections, {self.sessions} sessions, {self.opened} opened so far, "
            f"{self.bytes_up} bytes up, {self.bytes_down} bytes down, "
            f"{self.turned_away} closed before authentication"
        )

    def totals(self) -> Snapshot:
        """Return what remains true when all that is open has ended."""
        return replace(self, connections=0, sessions=0)

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value if type(value) is int else value.to_json() for name, value in values.items()}

    @classmethod
    def from_json(cls, found: object) -> Snapshot:
        """Read what another process sent.

        :raises ValueError: if it is something else.
        """
        if not isinstance(found, Mapping) or found.keys() != {item.name for item in fields(cls)}:
            raise ValueError("these are no numbers")
        return cls(**{item.name: _read(item.default, found[item.name]) for item in fields(cls)})


def _read(kind: Any, found: object) -> Any:
    """Read a number, or a value of the same kind as ``kind``."""
    if type(kind) is not int:
        return kind.from_json(found)
    if not is_count(found):
        raise ValueError("these are no numbers")
    return found


class SessionCounts(Protocol):
    """A session that is being relayed."""

    @property
    def bytes_up(self) -> int: ...

    @property
    def bytes_down(self) -> int: ...


class Counters:
    """Counts the sessions of one server. Safe from every thread; waits for nothing but others that count.

    :param hits: returns how often each limit was hit that is counted elsewhere.
    :param lost: returns what lines were lost.
    """

    def __init__(
        self,
        hits: Callable[[], Mapping[str, int]] = dict,
        lost: Callable[[], LabelledCount] = lambda: _LOST_LINES,
    ) -> None:
        self._hits = hits
        self._lost = lost
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._open: set[SessionCounts] = set()
        # By the names in Snapshot; without what the open sessions have carried so far.
        self._values: dict[str, Any] = {item.name: item.default for item in fields(Snapshot)}
        self._observed = {
            name: Observations(value) for name, value in self._values.items() if isinstance(value, Histogram)
        }
        self._tallies = {name: Counter[str]() for name in ("refused", "ended", "handshakes")}

    def add(self, session: SessionCounts, dial_seconds: float) -> None:
        """Count a session from now on.

        :param dial_seconds: how long it took to open its upstream.
        """
        with self._lock:
            self._open.add(session)
            self._values["opened"] += 1
            self._observed["dial_seconds"].observe(dial_seconds)

    def remove(self, session: SessionCounts, ending: Ending, seconds: float) -> None:
        """Count a session as ended, with what it carried and how long it was."""
        with self._lock:
            self._open.remove(session)
            self._values["bytes_up"] += session.bytes_up
            self._values["bytes_down"] += session.bytes_down
            self._tallies["ended"][f"{ending.by} {ending_cause(ending)}"] += 1
            self._observed["session_seconds"].observe(seconds)

    def turn_away(self) -> None:
        """Count a connection that was closed because too many had not proved themselves."""
        with self._lock:
            self._values["turned_away"] += 1

    def fail(self) -> None:
        """Count an exception that nobody expected."""
        with self._lock:
            self._values["failures"] += 1

    def refuse(self, slug: str) -> None:
        """Count a client that was refused."""
        with self._lock:
            self._tallies["refused"][refusal_cause(slug)] += 1

    def fail_handshake(self, leg: Leg) -> None:
        """Count a handshake that failed: TLS with a client, or anything up to the 101 of an upstream."""
        with self._lock:
            self._tallies["handshakes"][leg.value] += 1

    def first_byte(self, seconds: float) -> None:
        """Count the time from the client's 101 to the first byte of its upstream."""
        with self._lock:
            self._observed["first_byte_seconds"].observe(seconds)

    def take_screenshot(self, seconds: float) -> None:
        """Count a picture that the API was asked for, and how long that took."""
        with self._lock:
            self._observed["screenshot_seconds"].observe(seconds)

    def ping(self, leg: Leg, seconds: float) -> None:
        """Count the time from a ping of ours to its answer."""
        with self._lock:
            self._observed[f"{leg.value}_ping_seconds"].observe(seconds)

    def numbers(self, connections: int) -> Snapshot:
        """Return everything at this moment; ``connections`` is counted elsewhere."""
        with self._lock:
            values, sessions = dict(self._values), list(self._open)
            for name, tally in self._tallies.items():
                values[name] = LabelledCount(values[name].words, dict(tally))
            for name, observed in self._observed.items():
                values[name] = observed.histogram()
        refused = values["refused"].counts
        hits = {name: refused.get(f"limit-{name}", 0) for name in ("tickets", "screenshots", "requests")}
        hits["pending"] = values["turned_away"]
        values["limits"] = LabelledCount(ALL_LIMITS, {**self._hits(), **hits})
        values["lost_lines"] = self._lost()
        values["connections"], values["sessions"] = connections, len(sessions)
        values["bytes_up"] += sum(session.bytes_up for session in sessions)
        values["bytes_down"] += sum(session.bytes_down for session in sessions)
        return Snapshot(**values)
