"""One process: a member of a store, with sessions that have neither clients nor consoles. It obeys a pipe."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from multiprocessing.connection import Connection
from typing import Any

from wsproxy.access.revoked_sessions import end_revoked
from wsproxy.access.sessions import LiveSessions, SessionHandle
from wsproxy.exceptions import Refused, StoreUnavailable, TransportClosed
from wsproxy.protocol.closing import Ending
from wsproxy.runtime.deadline import Deadline
from wsproxy.runtime.wall_clock import WallClock, unix_time
from wsproxy.state.console_policies import ConsolePolicies
from wsproxy.state.limits import LimitRules, Limits
from wsproxy.state.membership import Beat, Publication, Pulse
from wsproxy.state.participant.holding import Holding
from wsproxy.state.participant.participant import Participant, ParticipantRules
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.store import Store
from wsproxy.state.stores.choice import open_store
from wsproxy.state.stores.places import StatePlace, StateRules
from wsproxy.state.tickets import Ticket
from wsproxy.state.values import (
    Confirmed,
    Console,
    Decision,
    Event,
    EventKind,
    Message,
    Request,
    SharedSession,
    SlotLimits,
)
from wsproxy.tokens.claims import Grant, TokenKey

__all__ = ["LEASE", "LIMITS", "POLICIES", "be_a_member"]

LEASE = 0.3
LIMITS = SlotLimits(sessions=6, user=3, vmi=2)
POLICIES = ("*/take-*=takeover", "*/keep-*=refuse")

_AT_ONCE = 16
_WAIT = 1.0  # seconds for which an opening waits for another session
_EXPIRES = 4e9
_KICKED_FOR = 86400.0
_ENDED = Ending("proxy", 1000, "ended")

Tell = Callable[..., None]


class _Watched:
    """A store whose answers to one member are told. What is not here is as in the store.

    :param tell: gets the operation, when it began and ended, and what it came to.
    """

    def __init__(self, store: Store, tell: Tell) -> None:
        self._store, self._tell = store, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def beat(self, member: str, beat: Beat) -> Pulse:
        began = time.monotonic()
        pulse = self._store.beat(member, beat)
        self._tell("pulse", began, time.monotonic(), pulse.epoch, pulse.known, False)
        return pulse

    def publish(self, publication: Publication) -> Pulse:
        began = time.monotonic()
        pulse = self._store.publish(publication)
        self._tell("pulse", began, time.monotonic(), pulse.epoch, pulse.known, True)
        return pulse

    def admit(self, member: str, request: Request, events: tuple[Event, ...] = ()) -> Decision:
        began = time.monotonic()
        decision = self._store.admit(member, request, events)
        self._tell_opened(began, events)
        self._tell("decided", began, time.monotonic(), request.session.id, decision.outcome.value)
        return decision

    def report(self, member: str, events: tuple[Event, ...]) -> tuple[Message, ...]:
        began = time.monotonic()
        messages = self._store.report(member, events)
        self._tell_opened(began, events)
        return messages

    def _tell_opened(self, began: float, events: tuple[Event, ...]) -> None:
        for event in events:
            if event.kind is EventKind.OPENED:
                self._tell("reported", began, time.monotonic(), event.session)

    def opened(self, member: str, session: str) -> Confirmed:
        began = time.monotonic()
        confirmed = self._store.opened(member, session)
        self._tell("confirmed", began, time.monotonic(), session, confirmed.admitted)
        return confirmed


class _Session:
    """A session as its holding and the operator see it."""

    bytes_up = bytes_down = data_up = 0

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self.holding: Holding | None = None
        self.ending: Ending | None = None

    @property
    def is_ending(self) -> bool:
        return self.ending is not None

    def note_departure(self) -> bool:
        return False

    def expect_takeover(self, reason: str | None) -> None:
        pass

    def end(self, code: int, reason: str) -> None:
        assert self.holding
        with self._lock:
            if self.ending:
                return
            self.ending = Ending("proxy", code, reason)
        self._tell("ended", self.holding.id, code, time.monotonic())
        self.leave()

    def leave(self) -> None:
        """Begin to end: at the wish of the client, or of the proxy."""
        assert self.holding
        with self._lock:
            self.ending = self.ending or _ENDED
        self.holding.ending()
        self.holding.give_up_waiting()


class _Member:
    """What the process does. Each command has a method of its name; threads call them."""

    def __init__(self, url: str, name: str, tell: Tell) -> None:
        self._tell = tell
        self._skew = 0.0
        self._live = LiveSessions()
        self._sessions: dict[str, tuple[_Session, Holding, SessionHandle]] = {}
        rules = StateRules(StatePlace.parse(url), lease=LEASE)
        said = ParticipantRules(ConsolePolicies(POLICIES), LIMITS, name=name, lease=LEASE)
        watched: Any = _Watched(open_store(rules), tell)
        clock = WallClock(lambda: unix_time() + self._skew)
        limits = Limits(LimitRules())
        self.participant: Participant = Participant(watched, said, limits, self._end, wall_clock=clock)
        self.participant.start(self)

    def _end(self, rules: list[Rule]) -> list[Rule]:
        return end_revoked(self._live, self.participant.known, rules)

    def skew(self, seconds: float) -> None:
        """Set the clock of this process."""
        self._skew = seconds

    # Sessions

    def admit(self, id: str, user: str, vmi: str) -> str:
        """Ask for a session as an opening does before its dial; return why not, or ""."""
        grant = _grant(user)
        if self.participant.known.is_revoked(grant, vmi):
            return "revoked"
        session = _Session(self._tell)
        console = Console("lab", vmi, "vnc")
        shared = SharedSession(id, user, console, "198.51.100.7", "198.51.100.7", grant.token_id)
        session.holding = holding = self.participant.holding(session, shared)
        handle = SessionHandle(
            session, id=id, grant=grant, vmi=vmi, subresource="vnc", client="", is_open=False
        )
        self._sessions[id] = session, holding, handle
        self._live.begin(handle, session.note_departure)
        try:
            holding.admit(Deadline(_WAIT), lambda: None)
        except (Refused, TransportClosed) as exc:
            self._forget(id)
            return getattr(exc, "slug", "gone")
        return ""

    def confirm(self, id: str) -> str:
        """Let the client of an admitted session in, after the dial; return why not, or ""."""
        session, holding, handle = self._sessions[id]
        try:
            holding.opened()
        except Refused as exc:
            self.release(id)
            return exc.slug
        if session.is_ending or self.participant.known.is_revoked(handle.grant, handle.vmi):
            self.release(id)
            return "revoked"
        return ""

    def open(self, id: str, user: str, vmi: str) -> str:
        return self.admit(id, user, vmi) or self.confirm(id)

    def leave(self, id: str) -> None:
        """The client begins to leave."""
        self._sessions[id][0].leave()

    def give_up(self, id: str) -> None:
        self._sessions[id][1].given_up()

    def release(self, id: str) -> None:
        """Both legs are closed."""
        self._sessions[id][1].released()
        self._forget(id)

    def _forget(self, id: str) -> None:
        _, _, handle = self._sessions.pop(id)
        self._live.remove(handle, _ENDED)

    # The rest

    def issue(self, digest: str, user: str) -> str:
        """Return the limit that is reached, or ""."""
        return self.participant.issue(digest, Ticket(_grant(user), "vnc", None)).limit

    def redeem(self, digest: str) -> bool:
        return self.participant.redeem(digest) is not None

    def kick(self, user: str) -> tuple[str, tuple[str, ...]]:
        """Return the kick's id, and who is behind."""
        kick = self.participant.kick([Match(user=user)], self.participant.now + _KICKED_FOR)
        return kick.id, kick.behind

    def lift(self, kick: str) -> bool:
        return self.participant.lift(kick) is not None

    def refuses(self, user: str) -> bool:
        """Whether a token is refused, by a process in step or out of step."""
        link: Any = self.participant._link
        return self.participant.known.is_revoked(_grant(user), "take-1") or not link.is_in_step

    def held(self) -> tuple[set[str], set[str], bool] | None:
        """Return the sessions that the process has, those that the store has of it, and whether it admits.

        While the store is away, that is None.
        """
        link: Any = self.participant._link
        try:
            page = self.participant.store.sessions(self.participant.member.id)
        except StoreUnavailable:
            return None
        own = {one.session.id for one in link.holdings.held()}
        return own, {one.session.id for one in page.sessions}, link.is_in_step and link.is_settled


def _grant(user: str) -> Grant:
    """Return what a token says that was issued nobody knows when."""
    key = TokenKey(sha256(user.encode()).digest(), _EXPIRES)
    return Grant(user, "lab", ("*",), math.inf, f"token-of-{user}", token_key=key)


def be_a_member(pipe: Connection, url: str, name: str) -> None:
    """Be the process, until the pipe ends."""
    logging.disable()
    sending = threading.Lock()

    def tell(*what: object) -> None:
        with sending:
            pipe.send(what)

    member = _Member(url, name, tell)
    tell("ready")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while True:
            try:
                number, verb, *given = pipe.recv()
            except EOFError:
                break
            pool.submit(_obey, tell, number, partial(getattr(member, verb), *given))


def _obey(tell: Tell, number: int, work: Callable[[], object]) -> None:
    began = time.monotonic()
    try:
        result, fault = work(), ""
    except Refused as exc:
        result, fault = None, exc.slug
    except Exception as exc:  # noqa: BLE001 - told, and the test fails
        result, fault = None, f"fault: {exc!r}"
    tell("reply", number, began, time.monotonic(), result, fault)
