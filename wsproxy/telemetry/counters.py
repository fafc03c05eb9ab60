"""Counts one server's sessions, refusals and bytes, and observes durations."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from ..protocol.closing import Ending, Leg
from .causes import ALL_LIMITS, ENDINGS, REFUSALS, ending_cause, refusal_cause
from .histogram import Histogram, Observations, is_count
from .state_numbers import StateNumbers

__all__ = ["Counters", "LabelledCount", "SessionCounts", "Snapshot", "lost_lines"]

_SESSION_SECONDS = Histogram.empty(1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_QUICK_SECONDS = Histogram.empty(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LEGS = frozenset(leg.value for leg in Leg)
_ENDED_BY = (*_LEGS, "proxy")


@dataclass(frozen=True)
class LabelledCount:
    """How often each thing of a closed set of words has happened.

    :ivar words: the set.
    :ivar counts: by word; a word that is missing has the count 0.
    """

    words: frozenset[str]
    counts: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: LabelledCount) -> LabelledCount:
        return LabelledCount(self.words, dict(Counter(self.counts) + Counter(other.counts)))

    def to_json(self) -> dict[str, int]:
        """Return the value that :meth:`from_json` reads."""
        return dict(self.counts)

    def from_json(self, found: object) -> LabelledCount:
        """Read another count with the same words.

        :raises ValueError: if the value is not such a count.
        """
        if not isinstance(found, Mapping) or not found.keys() <= self.words:
            raise ValueError("this is not a labelled count")
        if not all(map(is_count, found.values())):
            raise ValueError("this is not a labelled count")
        return LabelledCount(self.words, dict(found))


_REFUSED = LabelledCount(REFUSALS)
_ENDED = LabelledCount(frozenset(f"{by} {cause}" for by in _ENDED_BY for cause in ENDINGS))
_LIMITS = LabelledCount(ALL_LIMITS)
_HANDSHAKES = LabelledCount(_LEGS)
_STATE = StateNumbers()
_LOST_LINES = LabelledCount(frozenset({"program", "audit"}))


def lost_lines(program: int, audit: int) -> LabelledCount:
    """Return a count of the lines that the program's own log and the audit log have lost."""
    return LabelledCount(_LOST_LINES.words, {"program": program, "audit": audit})


@dataclass(frozen=True)
class Snapshot:
    """All numbers at one moment.

    :ivar connections: connections of clients now, in any phase.
    :ivar sessions: sessions that are open now.
    :ivar opened: sessions that were opened so far.
    :ivar bytes_up: bytes received from clients so far, in sessions.
    :ivar bytes_down: bytes received from upstreams so far, in sessions.
    :ivar turned_away: connections closed so far because too many had not authenticated.
    :ivar failures: unexpected exceptions so far.
    :ivar refused: clients refused so far, by :data:`.REFUSALS`.
    :ivar ended: sessions that ended so far, by the side that ended them and :data:`.ENDINGS`.
    :ivar limits: how often each limit was hit so far, by :data:`.ALL_LIMITS`.
    :ivar handshakes: handshakes that failed so far, by leg.
    :ivar lost_lines: lines that could not be written so far, by log: "program" or "audit".
    :ivar session_seconds: durations of the sessions that have ended.
    :ivar dial_seconds: times to open the upstreams of opened sessions.
    :ivar first_byte_seconds: times from the client's 101 to the first byte of the upstream.
    :ivar screenshot_seconds: times to get screenshots from the API.
    :ivar client_ping_seconds: times until clients answered the proxy's pings.
    :ivar upstream_ping_seconds: times until upstreams answered the proxy's pings.
    :ivar state_seconds: times until the store of the shared state answered a beat, and what it said was done.
    :ivar state: whether processes are in step with that store.
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
    state_seconds: Histogram = _QUICK_SECONDS
    state: StateNumbers = _STATE

    def __add__(self, other: Snapshot) -> Snapshot:
        return Snapshot(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def __str__(self) -> str:
        return (
            f"{self.connections} connections, {self.sessions} sessions, {self.opened} opened so far, "
            f"{self.bytes_up} bytes up, {self.bytes_down} bytes down, "
            f"{self.turned_away} closed before authentication"
        )

    def totals(self) -> Snapshot:
        """Return the numbers without connections and sessions, for a process that has ended."""
        return replace(self, connections=0, sessions=0, state=self.state.totals())

    def to_json(self) -> dict[str, Any]:
        """Return the value that :meth:`from_json` reads."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value if type(value) is int else value.to_json() for name, value in values.items()}

    @classmethod
    def from_json(cls, found: object) -> Snapshot:
        """Read the numbers that another process has sent.

        :raises ValueError: if the value is not a snapshot.
        """
        if not isinstance(found, Mapping) or found.keys() != {item.name for item in fields(cls)}:
            raise ValueError("this is not a snapshot")
        return cls(**{item.name: _read(item.default, found[item.name]) for item in fields(cls)})


def _read(kind: Any, found: object) -> Any:
    """Read a number, or a value of the same kind as ``kind``."""
    if type(kind) is not int:
        return kind.from_json(found)
    if not is_count(found):
        raise ValueError("this is not a snapshot")
    return found


class SessionCounts(Protocol):
    """A session that is being relayed."""

    @property
    def bytes_up(self) -> int: ...

    @property
    def bytes_down(self) -> int: ...


class Counters:
    """Counts for one server. Safe from every thread; blocks only while another thread counts.

    :param hits: returns, by limit, the hits that are counted elsewhere.
    :param lost: returns the count of lost lines.
    :param state: returns what the server has seen of the store of the shared state.
    """

    def __init__(
        self,
        hits: Callable[[], Mapping[str, int]] = dict,
        lost: Callable[[], LabelledCount] = lambda: _LOST_LINES,
        state: Callable[[], StateNumbers] = lambda: _STATE,
    ) -> None:
        self._hits = hits
        self._state = state
        self._lost = lost
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._open: set[SessionCounts] = set()
        # By the names in Snapshot. The bytes are those of ended sessions only.
        self._values: dict[str, Any] = {item.name: item.default for item in fields(Snapshot)}
        self._observed = {
            name: Observations(value) for name, value in self._values.items() if isinstance(value, Histogram)
        }
        self._tallies = {name: Counter[str]() for name in ("refused", "ended", "handshakes")}

    def add(self, session: SessionCounts, dial_seconds: float) -> None:
        """Count a session as open.

        :param dial_seconds: the time that it took to open its upstream.
        """
        with self._lock:
            self._open.add(session)
            self._values["opened"] += 1
            self._observed["dial_seconds"].observe(dial_seconds)

    def remove(self, session: SessionCounts, ending: Ending, seconds: float) -> None:
        """Count a session as ended, with its bytes, the cause and its duration."""
        with self._lock:
            self._open.remove(session)
            self._values["bytes_up"] += session.bytes_up
            self._values["bytes_down"] += session.bytes_down
            self._tallies["ended"][f"{ending.by} {ending_cause(ending)}"] += 1
            self._observed["session_seconds"].observe(seconds)

    def turn_away(self) -> None:
        """Count a connection that was closed because too many had not authenticated."""
        with self._lock:
            self._values["turned_away"] += 1

    def fail(self) -> None:
        """Count an unexpected exception."""
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
        """Count the time that the proxy took to get a screenshot from the API."""
        with self._lock:
            self._observed["screenshot_seconds"].observe(seconds)

    def beat(self, seconds: float) -> None:
        """Count the time until the store of the shared state answered a beat, and what it said was done."""
        with self._lock:
            self._observed["state_seconds"].observe(seconds)

    def ping(self, leg: Leg, seconds: float) -> None:
        """Count the time from a ping of the proxy to its pong."""
        with self._lock:
            self._observed[f"{leg.value}_ping_seconds"].observe(seconds)

    def numbers(self, connections: int) -> Snapshot:
        """Return all numbers of this moment.

        :param connections: connections of clients now, which the caller counts.
        """
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
        values["lost_lines"], values["state"] = self._lost(), self._state()
        values["connections"], values["sessions"] = connections, len(sessions)
        values["bytes_up"] += sum(session.bytes_up for session in sessions)
        values["bytes_down"] += sum(session.bytes_down for session in sessions)
        return Snapshot(**values)
