"""What happens to the processes: hypothesis chooses. The history is checked at the end of each example."""

from __future__ import annotations

import itertools
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.members.history import Restart, faults, faults_now, timeline
from tests.members.processes import Command, Member, Observer, Session

__all__ = ["Place", "ProcessMachine"]

COUNT = 4
_ANSWER_SECONDS = 20.0
_ANSWERS_SECONDS = 1.2
_BEATS = 5  # of one process, which take more than a lease
_CALM_SECONDS = 20.0
_MOST_TROUBLES = 2  # at a time; otherwise nobody would ever be in step
_MINUTES = (-600.0, -180.0, 0.0, 180.0, 600.0)
_USERS = st.sampled_from(("alice", "bob", "carol", "dave", "eve", "fay"))
_VMIS = st.sampled_from(("take-1", "take-2", "keep-1", "share-1", "share-2", "share-3"))
_SLOTS = st.integers(0, COUNT - 1)
_PICK = st.integers(0, 50)
_WANTED = st.lists(st.tuples(_SLOTS, _USERS, _VMIS), min_size=1, max_size=6)
_Wanted = list[tuple[int, str, str]]


class Place(ABC):
    """Where the store of an example is, and what can happen to it. Each has its own."""

    can_cut = False

    @abstractmethod
    def url(self, slot: int) -> str:
        """Return where a process finds it."""

    @abstractmethod
    def end(self) -> None:
        """Kill it."""

    def save(self) -> bool:
        """Save what it has for :meth:`begin`, while it is not stopped; return whether that is possible."""
        return False

    @abstractmethod
    def begin(self, *, with_data: bool) -> None:
        """Start it again, with what was saved last or without data."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it (SIGSTOP)."""

    @abstractmethod
    def resume(self) -> None:
        """Let it go on."""

    def cut(self, slot: int) -> None:  # noqa: B027 - not all can
        """Cut the network between a process and the store."""

    def mend(self, slot: int) -> None:  # noqa: B027
        """Mend the network between a process and the store."""

    @abstractmethod
    def close(self) -> None:
        """End it. Idempotent."""


class ProcessMachine(RuleBasedStateMachine):
    """Subclasses say where the store is.

    :cvar steps: how many rules have been run in all examples.
    """

    place_kind: type[Place]
    steps = 0
    counts: ClassVar[Counter[str]]

    @initialize()
    def begin(self) -> None:
        self.names = itertools.count()
        self.observer = Observer()
        self.restarts: list[Restart] = []
        self.is_store_stopped = False
        self.cut: set[int] = set()
        self.place = self.place_kind()
        self.members: list[Member] = []
        for slot in range(COUNT):
            self.members.append(Member(self.observer, slot, self.place.url(slot)))
        self.calm_down()

    def note_step(self) -> None:
        type(self).steps += 1

    # Sessions

    def new(self, slot: int, user: str, vmi: str) -> Session:
        session = Session(self.members[slot], f"s{next(self.names)}", user, vmi, time.monotonic())
        with self.observer.changed:
            self.observer.sessions[session.id] = session
        return session

    @rule(wanted=_WANTED, waits=st.booleans())
    def opens(self, wanted: _Wanted, waits: bool) -> None:
        """Some users open consoles at the same moment."""
        self.note_step()
        self.open_all(wanted)
        if waits:
            self.wait_for_answers()

    def open_all(self, wanted: _Wanted, verb: str = "open") -> None:
        for slot, user, vmi in wanted:
            session = self.new(slot, user, vmi)
            session.member.tell(verb, session.id, user, vmi)

    @rule(slots=st.lists(_SLOTS, min_size=2, max_size=6), user=_USERS, vmi=_VMIS)
    def opens_one(self, slots: list[int], user: str, vmi: str) -> None:
        """One user opens one console at several processes at the same moment."""
        self.note_step()
        self.open_all([(slot, user, vmi) for slot in slots])

    @rule(wanted=_WANTED)
    def dials(self, wanted: _Wanted) -> None:
        """Some consoles are dialled, and that takes its time."""
        self.note_step()
        self.open_all(wanted, "admit")
        self.wait_for_answers()

    def picked(self, number: int, *, is_open: bool) -> Session | None:
        with self.observer.changed:
            found = [
                one
                for one in self.observer.sessions.values()
                if one.member.is_alive and one.is_open is is_open and not one.released and one.decided
            ]
        admitted = [one for one in found if is_open or not self.is_told(one)]
        return admitted[number % len(admitted)] if admitted else None

    def is_told(self, session: Session) -> bool:
        """Whether the end of an opening is not up to this test, or not yet."""
        told = [one for one in self.observer.commands if one.given[:1] == (session.id,)]
        return any(one.verb != "admit" or not one.is_done for one in told)

    @rule(ends=st.lists(st.tuples(_PICK, st.booleans()), min_size=1, max_size=4))
    def dials_end(self, ends: list[tuple[int, bool]]) -> None:
        """Dials are done, or their clients have left."""
        self.note_step()
        for number, is_done in ends:
            if one := self.picked(number, is_open=False):
                if is_done:
                    one.member.tell("confirm", one.id)
                else:
                    self.leave(one, "give_up")

    @rule(ends=st.lists(st.tuples(_PICK, st.sampled_from(("leave", "release"))), min_size=1, max_size=4))
    def ends(self, ends: list[tuple[int, str]]) -> None:
        """Sessions begin to end, or have ended."""
        self.note_step()
        for number, verb in ends:
            one = self.picked(number, is_open=True)
            if one and not (verb == "leave" and one.left):
                self.leave(one, verb)

    def leave(self, one: Session, verb: str) -> None:
        with self.observer.changed:
            one.left = min(one.left or time.monotonic(), time.monotonic())
            one.released = one.released or verb == "release"
        one.member.tell(verb, one.id)
        if verb == "give_up":
            one.member.tell("release", one.id)
            one.released = True

    # Tickets and kicks

    @rule(slot=_SLOTS, user=_USERS, others=st.lists(_SLOTS, min_size=0, max_size=3))
    def uses_ticket(self, slot: int, user: str, others: list[int]) -> None:
        """A ticket is issued, and others redeem it at the same moment; or it stays."""
        self.note_step()
        digest = f"{next(self.names):x}"
        issued = self.members[slot].tell("issue", digest, user)
        if not self.members[slot].is_stopped:
            self.wait_for(issued)
        for other in others:
            self.members[other].tell("redeem", digest)

    @rule(slots=st.lists(_SLOTS, min_size=1, max_size=4), number=_PICK)
    def redeems(self, slots: list[int], number: int) -> None:
        """Somebody redeems one of the last tickets, perhaps once more."""
        self.note_step()
        issued = [one for one in self.observer.commands if one.verb == "issue"][-8:]
        for slot in slots if issued else ():
            self.members[slot].tell("redeem", issued[number % len(issued)].given[0])

    @rule(slot=_SLOTS, user=_USERS, waits=st.booleans(), vmi=_VMIS)
    def kicks(self, slot: int, user: str, waits: bool, vmi: str) -> None:
        """A user is kicked, who comes again everywhere."""
        self.note_step()
        kick = self.members[slot].tell("kick", user)
        if waits and not self.members[slot].is_stopped:
            self.wait_for(kick)
        for member in self.members:
            member.tell("refuses", user)
        self.open_all([(slot, user, vmi) for slot in range(COUNT)])

    @rule(slot=_SLOTS)
    def lifts(self, slot: int) -> None:
        """All kicks are lifted at one process, which hears of them at last."""
        self.note_step()
        with self.observer.changed:
            lifted = {one.given[0] for one in self.observer.commands if one.verb == "lift"}
            kicks = {one.result[0] for one in self.observer.commands if one.verb == "kick" and one.succeeded}
        for kick in kicks - lifted:
            self.members[slot].tell("lift", kick)

    @rule(slot=_SLOTS, seconds=st.sampled_from(_MINUTES), user=_USERS)
    def clock_leaps(self, slot: int, seconds: float, user: str) -> None:
        self.note_step()
        self.members[slot].tell("skew", seconds)
        for member in self.members:
            member.tell("refuses", user)

    # What goes wrong

    @property
    def troubles(self) -> int:
        """How many things are wrong now."""
        return self.is_store_stopped + len(self.cut) + sum(member.is_stopped for member in self.members)

    @rule(wanted=_WANTED, all_leave=st.booleans())
    def recovers(self, wanted: _Wanted, all_leave: bool) -> None:
        """Everything is well again, all are in step, and users come, perhaps after all others have left."""
        self.note_step()
        self.calm_down()
        while all_leave and (one := self.picked(0, is_open=True)):
            self.leave(one, "release")
        self.open_all(wanted)
        self.wait_for_answers()

    @rule()
    def all_answer(self) -> None:
        """All that was asked of those who are not stopped is answered."""
        self.note_step()
        self.observer.wait_for(
            lambda: not any(one.is_busy and not one.is_stopped for one in self.members), 3.0
        )

    @precondition(lambda self: self.troubles < _MOST_TROUBLES)
    @rule(slot=_SLOTS, wanted=_WANTED)
    def stops(self, slot: int, wanted: _Wanted) -> None:
        self.note_step()
        self.members[slot].stop()
        self.open_all(wanted)

    @rule(slot=_SLOTS, wanted=_WANTED)
    def dies(self, slot: int, wanted: _Wanted) -> None:
        """A process is killed, and another takes its place."""
        self.note_step()
        self.open_all(wanted)
        self.members[slot].kill()
        self.members[slot] = Member(self.observer, slot, self.place.url(slot))

    @rule(data=st.sampled_from(("all", "old", "none")), waits=st.booleans())
    def store_restarts(self, data: str, waits: bool) -> None:
        self.note_step()
        keeps_all = data == "all" and not self.is_store_stopped and self.place.save()
        ended = time.monotonic()
        self.place.end()
        self.is_store_stopped = False
        if waits:
            self.wait_for_beats()
        self.place.begin(with_data=data != "none")
        self.restarts.append(Restart(ended, time.monotonic(), keeps_all))

    @rule()
    def store_saves(self) -> None:
        self.note_step()
        if not self.is_store_stopped:
            self.place.save()

    @precondition(lambda self: self.troubles < _MOST_TROUBLES)
    @rule(wanted=_WANTED)
    def store_stops(self, wanted: _Wanted) -> None:
        self.note_step()
        self.is_store_stopped = True
        self.place.stop()
        self.open_all(wanted)

    @precondition(lambda self: self.place.can_cut and self.troubles < _MOST_TROUBLES)
    @rule(slot=_SLOTS, wanted=_WANTED)
    def link_breaks(self, slot: int, wanted: _Wanted) -> None:
        """The network between a process and the store breaks."""
        self.note_step()
        self.place.cut(slot)
        self.cut.add(slot)
        self.open_all(wanted)

    @rule(wanted=_WANTED)
    def one_trouble_ends(self, wanted: _Wanted) -> None:
        self.note_step()
        stopped = [member for member in self.members if member.is_stopped]
        if self.is_store_stopped:
            self.place.resume()
            self.is_store_stopped = False
        elif stopped:
            stopped[0].resume()
        elif self.cut:
            self.place.mend(self.cut.pop())
        self.open_all(wanted)

    @rule(wanted=_WANTED)
    def time_passes(self, wanted: _Wanted) -> None:
        self.note_step()
        self.open_all(wanted)
        self.wait_for_beats()

    # Waiting

    def wait_for_answers(self) -> None:
        """Wait until all that was asked of those who are not stopped is answered."""
        self.observer.wait_for(
            lambda: not any(one.is_busy and not one.is_stopped for one in self.members), _ANSWERS_SECONDS
        )

    def wait_for(self, command: Command) -> None:
        done = self.observer.wait_for(lambda: command.is_done or not command.member.is_alive, _ANSWER_SECONDS)
        assert done, f"no answer to {command.verb} of {command.member}"

    def wait_for_beats(self) -> None:
        """Wait until a process has beaten for longer than a lease, or cannot."""
        has_beaten = self.has_beaten(_BEATS)
        self.observer.wait_for(lambda: any(map(has_beaten, self.members)), 1.0)

    def has_beaten(self, times: int) -> Callable[[Member], bool]:
        """Return what says whether a process has beaten so often since now."""
        before = {member: len(member.pulses) for member in self.members}
        return lambda member: len(member.pulses) >= before[member] + times

    def calm_down(self) -> None:
        """End everything that is wrong, and wait until all are in step."""
        if self.is_store_stopped:
            self.place.resume()
            self.is_store_stopped = False
        for slot in self.cut:
            self.place.mend(slot)
        self.cut.clear()
        for member in self.members:
            if member.is_stopped:
                member.resume()
        answered = self.observer.wait_for(lambda: not any(one.is_busy for one in self.members), _CALM_SECONDS)
        assert answered, f"no answer: {[member._waiting for member in self.members]}"
        deadline, seen = time.monotonic() + _CALM_SECONDS, []
        while True:
            asked = [member.tell("held") for member in self.members]
            for one in asked:
                self.wait_for(one)
            seen = [one.result for one in asked]
            if all(found and found[0] == found[1] and found[2] for found in seen):
                break
            assert time.monotonic() < deadline, f"not in step, or the store knows other sessions: {seen}"
            self.wait_for_beats()
        self.wait_for_messages()

    def wait_for_messages(self) -> None:
        """Wait until each process has done what the store had for it, such as end who lost a console.

        The next beat may have begun before now. The one after it brings the messages, and the third begins
        when they have been heeded.
        """
        has_beaten = self.has_beaten(3)
        come = self.observer.wait_for(lambda: all(map(has_beaten, self.members)), _CALM_SECONDS)
        assert come, "a process in step does not beat"

    # The end

    def teardown(self) -> None:
        try:
            self.calm_down()
            self.check()
        except AssertionError as exc:
            print(f"{timeline(self.observer, self.restarts)}\n{exc}", file=sys.stderr)
            raise
        finally:
            for member in self.members:
                member.kill()
            self.place.close()

    def check(self) -> None:
        self.count()
        found = list(faults(self.observer, self.restarts))
        with self.observer.changed:
            found += faults_now(self.observer)
        assert not found, "\n".join(found)

    def count(self) -> None:
        """Note what happened in the example, which says whether the test has tested anything."""
        for one in self.observer.commands:
            said = one.fault or ("no answer" if not one.is_done else one.result or "done")
            if one.verb != "held":
                self.counts[f"{one.verb}: {said if isinstance(said, str) else 'done'}"] += 1
