"""Admissions of a store by themselves: without sessions, sockets of clients, and dials.

An admission is what an opening asks: ``admit``, with the reports of earlier sessions.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections import deque

from wsproxy.state.console_policies import Policy
from wsproxy.state.membership import Beat, Member, Publication
from wsproxy.state.store import SCHEMA, Store
from wsproxy.state.stores.choice import open_store
from wsproxy.state.stores.places import StatePlace, StateRules
from wsproxy.state.values import Console, Event, EventKind, Outcome, Request, SharedSession, SlotLimits

__all__ = ["admissions_per_second"]

_LEASE = 10.0
_SETTLING_SECONDS = 30.0
_BEAT = 0.45
_LIVE = 100  # sessions that each process has open
_LIMITS = SlotLimits(100_000, 10, 10)


def admissions_per_second(url: str, processes: int, seconds: float) -> float:
    """Return how many admissions so many processes make of a store.

    :param url: ``memory`` for one in each process.
    """
    command = [sys.executable, "-m", "benchmark.state.alone", url, str(seconds)]
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        for client in clients:
            assert client.stdout
            client.stdout.readline()  # it is admitted
        for client in clients:
            assert client.stdin
            client.stdin.write("\n")
            client.stdin.flush()
        found = [client.communicate(timeout=seconds + 30)[0] for client in clients]
        return sum(float(text) for text in found)
    finally:
        for client in clients:
            client.kill()
            client.communicate()


class _Client:
    """One member."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._member = Member(secrets.token_hex(8), "bench", _LEASE, SCHEMA)
        self._live: deque[str] = deque()
        self._events: tuple[Event, ...] = ()
        self._beaten = 0.0
        self._number = 0
        self._pulse = store.publish(Publication(self._member))

    def admit(self) -> bool:
        """Admit a session, and report that the last one is open, and the end of the oldest one."""
        now = time.monotonic()
        if now - self._beaten >= _BEAT:
            self._beaten = now
            self._beat()
        self._number += 1
        session, user = f"{self._number}", self._number % 1000
        console = Console(f"{self._member.id}-{user}", "idle", "vnc")
        shared = SharedSession(
            session, user, console, "10.1.2.3", "10.1.2.3", "a-token", True, now, now + 3600
        )
        events = self._events
        if len(self._live) >= _LIVE:
            events += (Event(EventKind.RELEASED, self._live.popleft()),)
        decision = self._store.admit(self._member.id, Request(shared, Policy.TAKEOVER, _LIMITS), events)
        if decision.outcome is not Outcome.ADMITTED:
            return False
        assert decision.decided, "somebody else is at the console"
        self._live.append(session)
        self._events = (Event(EventKind.OPENED, session),)
        return True

    def _beat(self) -> None:
        self._number += 1
        pulse, version = self._pulse, self._pulse.version
        self._pulse = self._store.beat(
            self._member.id, Beat(self._number, pulse.epoch, version, 0, pulse.roster)
        )

    def leave(self) -> None:
        self._store.leave(self._member.id)
        self._store.close()


def main(url: str, seconds: float) -> None:
    """Print a line when the store admits, and after a line of input, how many admissions a second it made."""
    client = _Client(open_store(StateRules(place=StatePlace.parse(url))))
    deadline = time.monotonic() + _SETTLING_SECONDS
    while not client.admit():
        if time.monotonic() > deadline:
            raise SystemExit("the store admits nobody")
        time.sleep(0.1)
    print("ready", flush=True)
    sys.stdin.readline()
    count, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        if not client.admit():
            raise SystemExit("the store has refused a session")
        count += 1
    print(count / (time.monotonic() - begun))
    client.leave()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
