"""The program behind ``scripts/bench``."""

from __future__ import annotations

import argparse
import fnmatch
import json
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.tokens.issue import make_token

from .measures import IDLE_2000, MEASURES, Measure, Pace
from .opening import measure_opening, opening_table
from .peers import MODES, Ours, Peer, Running, Surroundings, all_peers
from .processes import raise_descriptor_limit
from .program import run, say
from .report import Header, Results, to_json, to_markdown
from .siege import NEEDED_DESCRIPTORS, measure_siege
from .tools import LoadFailed, Tools, Upstream

_SECRET = "the benchmark's secret: thirty-two bytes or more"
_PACE = Pace(warmup=0.3, seconds=2.0)
_QUICK = Pace(warmup=0.1, seconds=0.6)
_RUNS = 3


class Bench:
    """Measures peers.

    :param tools: the compiled programs.
    :param around: the upstream, the token and the files for all peers.
    :param peers: the peers to measure.
    :param pace: how long each measure takes.
    """

    def __init__(self, tools: Tools, around: Surroundings, peers: Sequence[Peer], pace: Pace) -> None:
        self._tools = tools
        self._around = around
        self._peers = peers
        self._pace = pace
        self.results = Results()

    def run(self, measures: Sequence[Measure], label: str) -> None:
        """Make every measure once, each with all peers in turn. Every run begins with another peer."""
        self._peers = [*self._peers[1:], self._peers[0]]
        shared = [measure for measure in measures if not measure.fresh]
        with ExitStack() as stack:
            running = {peer: one for peer in self._peers if shared and (one := self._start(stack, peer))}
            for measure in shared:
                say(f"{label}: {measure.title}")
                for peer, one in running.items():
                    self._measure(measure, peer, one)
        for measure in measures:
            if measure.fresh:
                say(f"{label}: {measure.title}")
                self._run_fresh(measure)

    def _run_fresh(self, measure: Measure) -> None:
        """Make a measure once, and start every peer for it."""
        for peer in self._peers:
            if measure.applies(peer):
                with ExitStack() as stack:
                    if one := self._start(stack, peer):
                        self._measure(measure, peer, one)

    def _start(self, stack: ExitStack, peer: Peer) -> Running | None:
        try:
            running = peer.start(self._around)
        except RuntimeError as exc:
            self._failed(f"{peer.name}: {exc}")
            return None
        stack.callback(running.stop)
        return running

    def _measure(self, measure: Measure, peer: Peer, running: Running) -> None:
        if not measure.applies(peer):
            return
        try:
            values = measure.run(self._tools, running, self._pace)
        except LoadFailed as exc:
            self._failed(f"{measure.key}, {peer.name}: {exc}")
            return
        self.results.add(measure, peer, values)
        shown = ", ".join(f"{values[f.key]:.2f} {f.unit}" for f in measure.figures if f.key in values)
        say(f"    {peer.name:<18} {shown}")

    def _failed(self, what: str) -> None:
        self.results.failures.append(what)
        say(f"    failed: {what}")


def set_up(stack: ExitStack) -> tuple[Tools, Surroundings]:
    """Compile the tools and start the upstream. The stack cleans up."""
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="wsproxy-bench-"))
    tools = Tools(directory)
    authority = CertificateAuthority(directory)
    upstream = Upstream(tools, *authority.issue())
    stack.callback(upstream.stop)
    token = make_token(_SECRET, namespace="lab-1", vmis=MODES, user=5, expires_in=86400)
    around = Surroundings(directory, upstream.ports, _SECRET, token, authority.ca_file, f"{directory}/token")
    around.write("token", "a-service-account")
    return tools, around


def _chosen(names: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Return the names that a pattern matches. A pattern that matches no name may be a part of a name."""
    chosen: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
        chosen |= matched or {name for name in names if pattern in name}
    return chosen


def _patterns(text: str) -> list[str]:
    return [pattern.strip() for pattern in text.split(",") if pattern.strip()]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures wsproxy, the original, nginx, haproxy, websockify and the direct connection in "
        "one run, and prints a table in Markdown. Requires a C compiler, OpenSSL's headers and the peers. It "
        "names what is missing.",
        epilog=f"Measures: {', '.join(measure.key for measure in (*MEASURES, IDLE_2000))}. "
        f"Peers: {', '.join(peer.name for peer in all_peers())}.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help=f"one run of {_QUICK.seconds:g} s each: under 3 minutes")
    add("--runs", type=int, metavar="N", help=f"how often to measure (default: {_RUNS})")
    add("--seconds", type=float, metavar="S", help=f"length of each measure (default: {_PACE.seconds:g})")
    add("--only", type=_patterns, default=[""], metavar="PATTERN,...", help="only measures that match")
    add("--peers", type=_patterns, default=[""], metavar="NAME,...", help="only peers that match")
    add("--idle-2000", action="store_true", help=f"also measure the CPU time of {IDLE_2000.title}")
    add("--opening", action="store_true", help="measure instead the CPU time of each step of an opening")
    add("--siege", action="store_true", help="measure instead sessions during a flood of 4,000 connections")
    add("--json", metavar="FILE", help="also write every sample to a file")
    return parser.parse_args(arguments)


def _pace(options: argparse.Namespace) -> Pace:
    pace = _QUICK if options.quick else _PACE
    return Pace(pace.warmup, options.seconds or pace.seconds)


def _select(options: argparse.Namespace) -> tuple[list[Measure], list[Peer], list[str]]:
    """Return the chosen measures, the chosen peers that are installed, and why the others are not."""
    keys = _chosen([measure.key for measure in MEASURES], options.only)
    measures = [measure for measure in MEASURES if measure.key in keys]
    names = _chosen([peer.name for peer in all_peers()], options.peers)
    peers, missing = [], {}
    for peer in all_peers():
        if peer.name not in names:
            continue
        if why := peer.missing():
            missing[peer.column] = f"{peer.column}: {why}"
        else:
            peers.append(peer)
    if not peers or not (measures or options.idle_2000):
        raise SystemExit("\n".join(["bench: nothing to measure", *missing.values()]))
    return measures, peers, list(missing.values())


def _versions(peers: Sequence[Peer]) -> list[str]:
    first = {peer.column: peer for peer in reversed(peers)}
    return list(dict.fromkeys(version for peer in reversed(first.values()) if (version := peer.version())))


def _besiege(descriptors: int) -> int:
    """Measure a siege, print the result, and return the exit status: 1 if a bound does not hold."""
    if descriptors < NEEDED_DESCRIPTORS:
        raise SystemExit(
            f"bench: --siege needs {NEEDED_DESCRIPTORS} open files (ulimit -Hn says {descriptors})"
        )
    ours = next(peer for peer in all_peers() if isinstance(peer, Ours) and not peer.tls)
    header = Header(runs=1, seconds=0, quick=False, versions=_versions([ours]), missing=[])
    with ExitStack() as stack:
        tools, around = set_up(stack)
        running = ours.start(around)
        stack.callback(running.stop)
        try:
            outcome = measure_siege(tools, running, around.log(ours))
        except LoadFailed as exc:
            raise SystemExit(f"bench: {exc}") from exc
    print("\n".join([*(f"- {line}" for line in header.machine()), *outcome.lines()]))
    return 1 if outcome.broken else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status: 1 if a measure failed.

    :param arguments: without the program's name; ``sys.argv`` if None.
    """
    options = _parse(arguments)
    descriptors = raise_descriptor_limit()
    if options.opening:
        with ExitStack() as stack:
            print(opening_table(measure_opening(set_up(stack)[1])))
        return 0
    if options.siege:
        return _besiege(descriptors)
    measures, peers, missing = _select(options)
    runs = options.runs or (1 if options.quick else _RUNS)
    pace = _pace(options)
    header = Header(runs, pace.seconds, options.quick, _versions(peers), missing)
    with ExitStack() as stack:
        tools, around = set_up(stack)
        bench = Bench(tools, around, peers, pace)
        for number in range(runs):
            bench.run(measures, f"run {number + 1} of {runs}")
        if options.idle_2000:
            bench.run([IDLE_2000], "once")
            measures.append(IDLE_2000)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(to_json(header, bench.results), file, indent=1)
    print(to_markdown(header, measures, peers, bench.results))
    return 1 if bench.results.failures else 0


if __name__ == "__main__":
    run(main)
