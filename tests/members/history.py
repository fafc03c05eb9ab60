"""Checks what happened between processes: at every moment, not only at the end.

An operation happened at one moment between its begin and its end. So a check says that something is wrong
only if it is so whatever those moments were.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tests.members.child import LEASE, LIMITS
from tests.members.processes import Command, Member, Observer, Pulse, Session

__all__ = ["Restart", "faults", "faults_now", "timeline"]

_OUT_OF_STEP = 1.0
_TAKEN_OVER, _KICKED = 4410, 4499


@dataclass
class Restart:
    """A restart of the store.

    :ivar ended: when it was about to be killed.
    :ivar began: when it was there again.
    :ivar keeps_all: whether it had all of its data.
    """

    ended: float
    began: float
    keeps_all: bool


def faults(observer: Observer, restarts: list[Restart]) -> Iterator[str]:
    """Yield what must not have happened."""
    with observer.changed:
        history = _History(observer, restarts)
        yield from history.of_commands()
        yield from history.of_admissions()
        yield from history.of_openings()
        yield from history.of_ends()
        yield from history.of_tickets()
        yield from history.of_kicks()


def faults_now(observer: Observer) -> Iterator[str]:
    """Yield what is wrong when all are in step: sessions of kicked users, and consoles that two have."""
    there = [
        one for one in observer.sessions.values() if one.is_open and not one.left and one.member.is_alive
    ]
    lifted = {one.given[0] for one in observer.commands if one.verb == "lift"}
    kicks = [one for one in observer.commands if one.verb == "kick" and one.succeeded]
    kicked = {one.given[0] for one in kicks if one.result[0] not in lifted}
    yield from (f"{one.id} of {one.user} is still open after a kick" for one in there if one.user in kicked)
    held = [one for one in there if not one.vmi.startswith("share") and _is_whole(one)]
    for one, other in itertools.combinations(held, 2):
        if one.vmi == other.vmi:
            yield f"{one.id} and {other.id} have {one.vmi}"


class _History:
    def __init__(self, observer: Observer, restarts: list[Restart]) -> None:
        self._members, self._commands, self._restarts = observer.members, observer.commands, restarts
        self._sessions = list(observer.sessions.values())

    def of_commands(self) -> Iterator[str]:
        for command in self._commands:
            if command.fault.startswith("fault:"):
                yield f"{command.member} failed to {command.verb} {command.given}: {command.fault}"

    # Limits and consoles

    def of_admissions(self) -> Iterator[str]:
        for one in self._sessions:
            if one.decided is None:
                continue
            began, ended = one.decided
            if not any(began - _OUT_OF_STEP <= pulse.began <= ended for pulse in one.member.pulses):
                yield f"{one.member} was out of step and admitted {one.id}"
            others = [other for other in self._sessions if other is not one and _counts(other, one)]
            yield from _above_limits(one, others, self._predecessors(one))
            if not one.vmi.startswith("share"):
                yield from self._of_console(one)

    def of_openings(self) -> Iterator[str]:
        """Whoever does not ask whether a session has its console knows that its lease has not passed."""
        for one in self._sessions:
            if not one.opened or one.confirmed:
                continue
            began, ended = one.opened
            if not any(began - LEASE < pulse.began <= ended for pulse in one.member.pulses):
                yield f"{one.member} had not heard from the store for a lease and let {one.id} in"
            if one.decided and any(
                pulse.is_publication and one.decided[1] < pulse.began and pulse.ended < began
                for pulse in one.member.pulses
            ):
                yield f"{one.member} had published since it admitted {one.id}, and did not ask"

    def _predecessors(self, one: Session) -> list[Session]:
        """Return the sessions whose slots it may have inherited, because it took their console over."""
        if one.decided is None or not one.vmi.startswith("take"):
            return []
        began, ended = one.decided
        return [
            other
            for other in self._sessions
            if other is not one and other.vmi == one.vmi and other.decided and other.decided[0] <= ended
            if self._gone(other) >= began
        ]

    def _gone(self, session: Session) -> float:
        """Return when a session certainly was no more, as seen by the store."""
        releases = [
            one.ended for one in self._commands if one.verb == "release" and one.given[0] == session.id
        ]
        return min((when for when in releases if when), default=session.member.killed + LEASE)

    def _of_console(self, one: Session) -> Iterator[str]:
        assert one.decided
        began, ended = one.decided
        for other in self._sessions:
            if other is one or other.vmi != one.vmi or other.decided is None or other.decided[1] > began:
                continue
            if not (_holds(other, *one.decided) and _unbroken(other, *one.decided)):
                continue
            if other.confirmed is None and not self._was_told(other, ("confirm", "open"), ended):
                yield f"{one.id} was admitted to {one.vmi} while {other.id} reached for it"
            if other.opened and other.opened[1] <= began and one.vmi.startswith("keep"):
                yield f"{one.id} was admitted to {one.vmi} while {other.id} had it"

    def _was_told(self, session: Session, verbs: tuple[str, ...], until: float) -> bool:
        return any(
            one.verb in verbs and one.given[0] == session.id and one.sent <= until for one in self._commands
        )

    def of_ends(self) -> Iterator[str]:
        """Open sessions end only because of a takeover or a kick, whatever becomes of the store.

        With the rule refuse, a session loses its console to one that was admitted while its process was away.
        """
        for one in self._sessions:
            if one.code is None:
                continue
            kicks = [kick for kick in self._commands if kick.verb == "kick" and kick.sent <= one.ended]
            rivals = [
                other
                for other in self._sessions
                if other is not one and other.vmi == one.vmi and other.decided
            ]
            if one.code == _KICKED and any(kick.given[0] == one.user for kick in kicks):
                continue
            was_away = one.vmi.startswith("keep") and not _is_whole(one, one.ended)
            if one.code == _TAKEN_OVER and rivals and (one.vmi.startswith("take") or was_away):
                continue
            yield f"{one.id} of {one.member} ended with {one.code}, and nobody is to blame"

    # Tickets

    def of_tickets(self) -> Iterator[str]:
        issues = {one.given[0]: one for one in self._commands if one.verb == "issue"}
        tries = [one for one in self._commands if one.verb == "redeem"]
        for digest, issue in issues.items():
            mine = [one for one in tries if one.given[0] == digest]
            used = [one for one in mine if one.succeeded and one.result]
            if len(used) > 1:
                yield f"ticket {digest} was redeemed {len(used)} times"
            for one in used:
                if issue.ended and any(
                    issue.ended < restart.ended and restart.began < (one.began or 0)
                    for restart in self._restarts
                ):
                    yield f"ticket {digest} outlived a restart of the store"
            if issue.succeeded and issue.result == "" and len(mine) == 1 and mine[0].succeeded and not used:
                assert issue.began and issue.ended and mine[0].began and mine[0].ended
                was_there = issue.ended <= mine[0].began  # a stopped process issues it late
                if was_there and self._was_quiet(issue.began, mine[0].ended):
                    yield f"ticket {digest} was refused, and nobody had used it"

    def _was_quiet(self, begin: float, end: float) -> bool:
        """Whether all pulses of a time, and of a moment before and after it, have one epoch."""
        found = {
            pulse.epoch
            for member in self._members
            for pulse in member.pulses
            if begin - LEASE <= pulse.ended and pulse.began <= end + _OUT_OF_STEP
        }
        return len(found) == 1

    # Kicks

    def of_kicks(self) -> Iterator[str]:
        for kick in self._commands:
            if kick.verb == "kick" and kick.succeeded:
                yield from self._of_kick(kick)

    def _of_kick(self, kick: Command) -> Iterator[str]:
        assert kick.ended
        id, _ = kick.result
        lifts = [one.sent for one in self._commands if one.verb == "lift" and one.given[0] == id]
        lifted = min(lifts, default=float("inf"))
        for command in self._commands:
            if not command.succeeded or command.verb not in ("open", "refuses", "confirm"):
                continue
            began, ended = command.began or 0.0, command.ended or 0.0
            if ended >= lifted or began < kick.ended or not self._has_let_in(command, kick.given[0]):
                continue
            if self._must_know(command.member, kick, began, asks_store=command.verb != "refuses"):
                yield f"{command.member} let {kick.given[0]} in ({command.verb}) after the kick {id}"

    def _has_let_in(self, command: Command, user: str) -> bool:
        if command.verb == "refuses":
            return command.given[0] == user and command.result is False
        session = next(one for one in self._sessions if one.id == command.given[0])
        return session.user == user and command.result == ""

    def _must_know(self, member: Member, kick: Command, when: float, *, asks_store: bool) -> bool:
        """Whether a process that is in step has to know a kick that has returned.

        :param asks_store: whether it asks the store. If not, one whose lease has passed without a word has
            the second to notice.
        """
        assert kick.ended and kick.began
        _, behind = kick.result
        unknown = any(name.startswith("all others") for name in behind)
        was_away = any("away" in name for name in behind)
        was_there = member.born < kick.began and any(pulse.ended < kick.began for pulse in member.pulses)
        if member is kick.member:
            return True
        was_asked = was_there and not unknown and member.name not in behind
        if was_asked and (asks_store or _is_counted(member, kick.began, kick.ended)):
            return True
        if any(kick.began < one.began and one.ended < when and not one.keeps_all for one in self._restarts):
            return False  # whoever knew it may have died or be cut off: they publish it when they are back
        return when > kick.ended + _OUT_OF_STEP and not was_away


def _above_limits(one: Session, others: list[Session], predecessors: list[Session]) -> Iterator[str]:
    """Yield the limits that a session exceeds. An inherited slot is one that was taken before."""
    if any(other.user == one.user for other in predecessors):
        return
    mine = [other for other in others if other.user == one.user]
    there = [other for other in others if other.vmi == one.vmi]
    for name, most, counted in (
        ("sessions", LIMITS.sessions, others),
        ("user", LIMITS.user, mine),
        ("vmi", LIMITS.vmi, there),
    ):
        if len(counted) >= most and not (predecessors and name != "user"):
            ids = ", ".join(other.id for other in counted)
            yield f"{one.id} of {one.user} was admitted above the limit {name!r} beside {ids}"


def _counts(other: Session, newcomer: Session) -> bool:
    """Whether a session certainly counted while a newcomer was admitted, and left it no slot."""
    assert newcomer.decided
    began, ended = newcomer.decided
    if other.decided is None or other.decided[1] > began:
        return False
    if other.vmi == newcomer.vmi and not newcomer.vmi.startswith("share"):
        return False  # who takes a console over inherits its slots
    return _holds(other, began, ended) and _is_counted(other.member, began, ended)


def _holds(session: Session, began: float, ended: float) -> bool:
    """Whether a session certainly was there all that time."""
    until = min(session.left or float("inf"), session.member.killed)
    return not session.released and until > ended


def _is_counted(member: Member, began: float, ended: float) -> bool:
    """Whether the store certainly counted, all that time, what a member held before."""
    before = [pulse for pulse in member.pulses if pulse.ended <= began and pulse.known]
    if not before:
        return False
    last = before[-1]
    return last.began + LEASE > ended or _goes_on(member, last, ended)


def _goes_on(member: Member, last: Pulse, ended: float) -> bool:
    """Whether the member's lease did not pass after a pulse, as a later one says."""
    for pulse in member.pulses:
        if pulse.began < last.ended:
            continue
        if not pulse.known or pulse.is_publication or pulse.epoch != last.epoch:
            return False
        if pulse.began >= ended:
            return True
    return False


def _unbroken(session: Session, began: float, ended: float) -> bool:
    """Whether the store has certainly known a session from when it admitted it to the end of that time."""
    return _is_whole(session, ended) and _is_counted(session.member, began, ended)


def _is_whole(session: Session, until: float = float("inf")) -> bool:
    """Whether the store has known a session's member all the while since it admitted the session."""
    assert session.decided
    since = session.decided[0]
    pulses = [one for one in session.member.pulses if one.ended >= since and one.began <= until]
    return all(pulse.known and not pulse.is_publication for pulse in pulses)


def timeline(observer: Observer, restarts: list[Restart]) -> str:
    """Return what happened, a line for each event in the order of their begins, in seconds."""
    lines: list[tuple[float, str]] = []
    for member in observer.members:
        lines.append((member.born, f"{member} is started"))
        lines.append((member.killed, f"{member} is killed"))
        lines += [(pulse.began, _described(member, pulse)) for pulse in member.pulses]
    for one in observer.sessions.values():
        known = ("decided", one.decided), ("confirmed", one.confirmed), ("reported", one.reported)
        for what, interval in known:
            if interval:
                lines.append((interval[0], f"{one.member}: {one.id} {what}, until {interval[1]:.3f}"))
        if one.code:
            lines.append((one.ended, f"{one.member}: {one.id} ends with {one.code}"))
    for told in observer.commands:
        if told.verb != "held":
            when = (
                f"{told.began:.3f} to {told.ended:.3f}" if told.began and told.ended else "without an answer"
            )
            said = f"{told.verb} {told.given}, {when}: {told.fault or told.result!r}"
            lines.append((told.sent, f"{told.member} is told to {said}"))
    lines += [(again.ended, f"the store ends, until {again.began:.3f}") for again in restarts]
    return "\n".join(f"{at:.3f} {text}" for at, text in sorted(lines))


def _described(member: Member, pulse: Pulse) -> str:
    kind = "publishes" if pulse.is_publication else "beats"
    return f"{member} {kind}, until {pulse.ended:.3f}: {pulse.epoch[:6]}{'' if pulse.known else ', unknown'}"
