"""Shows the numbers as Prometheus metrics. Only this module needs prometheus-client, the extra ``metrics``.

It imports prometheus-client at the first use. It does not touch the global registry: each proxy has its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..exceptions import ConfigError
from ..protocol.closing import Leg
from ..version import __version__
from .causes import ALL_LIMITS, REFUSALS
from .counters import Snapshot

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry as CollectorRegistry  # for others to name
    from prometheus_client.metrics_core import Metric as Family

__all__ = ["METRICS", "Metric", "check_metrics", "exposition", "registry"]

_VERSION = re.compile(r"version=[0-9]{1,3}(\.[0-9]{1,3}){0,2}")
_REMEDY = (
    "metrics need the package prometheus-client; run: pip install 'lab-orchestrator-ws-proxy-lib[metrics]'"
)


Samples = Iterator[tuple[tuple[str, ...], Any]]
"""Pairs of the values of a metric's labels, and the number or histogram for them."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    :ivar name: its name in the exposition; a counter's name ends in ``_total``.
    :ivar kind: "counter", "gauge" or "histogram".
    :ivar help: its help text.
    :ivar labels: names of its labels.
    :ivar samples: makes its samples from a snapshot.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Snapshot], Samples]


def _one(name: str) -> Callable[[Snapshot], Samples]:
    """Return a function that yields one attribute of a snapshot, without labels."""

    def samples(numbers: Snapshot) -> Samples:
        yield (), getattr(numbers, name)

    return samples


def _ended(numbers: Snapshot) -> Samples:
    """Yield only ends that have happened, because most combinations of side and cause never do."""
    for word, count in sorted(numbers.ended.counts.items()):
        by, _, cause = word.partition(" ")
        yield (by, cause), count


def _refused(numbers: Snapshot) -> Samples:
    for slug in sorted(REFUSALS):
        yield (slug,), numbers.refused.counts.get(slug, 0)


def _bytes(numbers: Snapshot) -> Samples:
    yield ("up",), numbers.bytes_up
    yield ("down",), numbers.bytes_down


def _pings(numbers: Snapshot) -> Samples:
    for leg in Leg:
        yield (leg.value,), getattr(numbers, f"{leg.value}_ping_seconds")


def _handshakes(numbers: Snapshot) -> Samples:
    for leg in Leg:
        yield (leg.value,), numbers.handshakes.counts.get(leg.value, 0)


def _limits(numbers: Snapshot) -> Samples:
    for name in sorted(ALL_LIMITS):
        yield (name,), numbers.limits.counts.get(name, 0)


def _lost_lines(numbers: Snapshot) -> Samples:
    for name in sorted(numbers.lost_lines.words):
        yield (name,), numbers.lost_lines.counts.get(name, 0)


def _processes(numbers: Snapshot) -> Samples:
    yield ("yes",), numbers.state.in_step
    yield ("no",), numbers.state.out_of_step


def _version(numbers: Snapshot) -> Samples:
    yield (__version__,), 1


METRICS = (
    Metric(
        "wsproxy_build_info",
        "gauge",
        "The version of wsproxy. The value is always 1.",
        ("version",),
        _version,
    ),
    Metric(
        "wsproxy_connections",
        "gauge",
        "Connections of clients, whether they have authenticated or not.",
        (),
        _one("connections"),
    ),
    Metric("wsproxy_sessions", "gauge", "Open sessions.", (), _one("sessions")),
    Metric(
        "wsproxy_sessions_opened_total", "counter", "Sessions that the proxy has opened.", (), _one("opened")
    ),
    Metric(
        "wsproxy_sessions_ended_total",
        "counter",
        "Sessions that have ended, by the side that ended them and the cause.",
        ("by", "cause"),
        _ended,
    ),
    Metric(
        "wsproxy_refused_total",
        "counter",
        "Clients that the proxy has refused, by the reason.",
        ("reason",),
        _refused,
    ),
    Metric(
        "wsproxy_limits_hit_total",
        "counter",
        "Times that a limit was reached: a client was refused or closed, or a frame was too big.",
        ("limit",),
        _limits,
    ),
    Metric(
        "wsproxy_failures_total",
        "counter",
        "Unexpected exceptions in the proxy or in a hook.",
        (),
        _one("failures"),
    ),
    Metric(
        "wsproxy_handshake_failures_total",
        "counter",
        "Failed TLS handshakes with clients, and failed dials to the API.",
        ("leg",),
        _handshakes,
    ),
    Metric(
        "wsproxy_log_lines_lost_total",
        "counter",
        "Log lines that the proxy could not write.",
        ("log",),
        _lost_lines,
    ),
    Metric(
        "wsproxy_received_bytes_total",
        "counter",
        "Bytes that the proxy has received in sessions: up from clients, down from the API.",
        ("direction",),
        _bytes,
    ),
    Metric(
        "wsproxy_session_duration_seconds",
        "histogram",
        "Time from the opening of a session to its end.",
        (),
        _one("session_seconds"),
    ),
    Metric(
        "wsproxy_dial_duration_seconds",
        "histogram",
        "Time that a successful dial took to open the console at the API.",
        (),
        _one("dial_seconds"),
    ),
    Metric(
        "wsproxy_first_byte_seconds",
        "histogram",
        "Time from the client's 101 to the first byte from the VM.",
        (),
        _one("first_byte_seconds"),
    ),
    Metric(
        "wsproxy_screenshot_duration_seconds",
        "histogram",
        "Time that the proxy took to get a screenshot from the API.",
        (),
        _one("screenshot_seconds"),
    ),
    Metric(
        "wsproxy_ping_round_trip_seconds",
        "histogram",
        "Time from a ping of the proxy to the pong that answers it.",
        ("leg",),
        _pings,
    ),
    Metric(
        "wsproxy_state_processes",
        "gauge",
        "Processes that share their state, by whether they are in step with the store.",
        ("in_step",),
        _processes,
    ),
    Metric(
        "wsproxy_state_away_seconds",
        "gauge",
        "Time since the process that is out of step longest was in step. 0 if all are in step.",
        (),
        lambda numbers: iter([((), numbers.state.longest_away)]),
    ),
    Metric(
        "wsproxy_state_failures_total",
        "counter",
        "Beats and reports that the store of the shared state has not answered.",
        (),
        lambda numbers: iter([((), numbers.state.failures)]),
    ),
    Metric(
        "wsproxy_state_beat_duration_seconds",
        "histogram",
        "Time of a beat: until the store of the shared state has answered, and what it said is done.",
        (),
        _one("state_seconds"),
    ),
)
"""Every metric."""


def check_metrics() -> None:
    """Check that the proxy can make metrics.

    :raises ConfigError: if prometheus-client is not installed.
    """
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise ConfigError([_REMEDY]) from None


def registry(read: Callable[[], Snapshot]) -> CollectorRegistry:
    """Return a new registry with every metric, for any function of prometheus-client that takes a registry.

    :param read: returns the numbers. Each scrape calls it, in the scrape's thread.
    :raises ConfigError: if prometheus-client is not installed.
    """
    check_metrics()
    from prometheus_client import CollectorRegistry

    made = CollectorRegistry(auto_describe=False)
    made.register(_Collector(read))
    return made


def exposition(numbers: Snapshot, accept: str) -> tuple[str, bytes]:
    """Return the content type and the body of the answer to a scrape.

    :param accept: the request's Accept header, "" without one. Elements that are not understood are ignored.
    :raises ConfigError: if prometheus-client is not installed.
    """
    made = registry(lambda: numbers)
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(_understood(accept))
    return content_type, encode(made)


def _understood(accept: str) -> str:
    """Return the elements of an Accept header that have no version, or a well-formed one.

    For a malformed version prometheus-client raises TypeError, or copies it into the answer's Content-Type.
    """

    def is_one(element: str) -> bool:
        versions = [part.strip() for part in element.split(";") if "version" in part]
        return element.isascii() and all(map(_VERSION.fullmatch, versions))

    return ",".join(filter(is_one, accept.split(",")))


class _Collector:
    """Makes the metrics from the numbers at each scrape, so that prometheus-client counts nothing itself."""

    def __init__(self, read: Callable[[], Snapshot]) -> None:
        self._read = read

    def collect(self) -> Iterator[Family]:
        numbers = self._read()
        for metric in METRICS:
            yield _family(metric, numbers)


def _family(metric: Metric, numbers: Snapshot) -> Family:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if metric.kind == "histogram":
        histograms = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in metric.samples(numbers):
            histograms.add_metric(labels, value.cumulative(), value.total)
        return histograms
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in metric.samples(numbers):
        family.add_metric(labels, value)
    return family
