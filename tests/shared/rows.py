"""The rows of the table: what users and operators see, asked of a deployment from outside.

Each row has users, VMIs and addresses of its own, so the rows may run one after the other in any order. The
first half of its clients comes before the column's ``turn``, the second half afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tests.integration.wsgi_servers import get
from tests.shared.columns import Column, GunicornMemory, ask_operator
from tests.shared.visitors import GONE, Try, Visitors, Wanted
from tests.support.proxy_process import wait_until

__all__ = ["ROWS", "Row", "Seen", "fault_without_store"]

_USER_LIMIT, _LIMIT, _VMI_LIMIT, _FAILURES = 2, 12, 3, 5
_FILL_WITHIN = 5.0
_CLOSE_WITHIN = 10.0
_PAIRS = 10
_LISTED = 8
_TICKETS = 20
_ATTEMPTS = 20
_TOLD_WITHIN = 3.0  # seconds, in which processes have told each other of failed attempts
_TRIES_OF_ALL = 12  # so many that each process gets one
_TAKEN_OVER, _KICKED = 4410, 4499

_rounds = itertools.count()


class Seen(NamedTuple):
    """What a row saw.

    :ivar text: for the table.
    :ivar good: whether it is what one process shows.
    """

    text: str
    good: bool


class Row(NamedTuple):
    """A row.

    :ivar key: a word for it.
    :ivar title: what is asked.
    :ivar look: asks it.
    """

    key: str
    title: str
    look: Callable[[Column], Seen]


def _group(name: str) -> str:
    """Return a name for VMIs and users that no earlier row had."""
    return f"{name}-{next(_rounds)}"


def _half_each(column: Column, visitors: Visitors, wanted: list[Wanted]) -> list[Try]:
    """Have half of the clients ask at the same moment, then the column take its turn, then the others ask."""
    half = len(wanted) // 2
    first = visitors.ask_all(wanted[:half])
    column.turn()
    return first + visitors.ask_all(wanted[half:])


def _fill(visitors: Visitors, tries: list[Try], reached: Callable[[], int], limit: int) -> int:
    """Have refused clients ask again while the limit is not reached; return how many sessions there are.

    Slots of earlier sessions may count for a moment longer.
    """
    again = itertools.cycle([one.wanted for one in tries if not one.is_open] or [tries[0].wanted])

    def is_full() -> bool:
        return reached() >= limit or visitors.ask(next(again)) is None or reached() >= limit

    wait_until(is_full, _FILL_WITHIN)
    return reached()


def _of(count: int, whole: int) -> Seen:
    return Seen(f"{count} of {whole}", count == whole)


def _count(count: int, expected: int) -> Seen:
    return Seen(str(count), count == expected)


# Limits


def _let_in(column: Column, group: str, wanted: Sequence[tuple[str, str]], limit: int) -> Seen:
    """Users ask for VMIs at the same time; see how many reach the API.

    :param wanted: pairs of a VMI and a user.
    """
    with Visitors(column) as visitors:
        tries = _half_each(column, visitors, [visitors.wanted(vmi, user) for vmi, user in wanted])
        return _count(_fill(visitors, tries, lambda: column.api.reached(group), limit), limit)


def sessions_of_a_user(column: Column) -> Seen:
    """A user asks for ten VMIs at the same time."""
    group = _group("user")
    return _let_in(column, group, [(vmi, group) for vmi in column.api.add_group(group, 10)], _USER_LIMIT)


def sessions_in_all(column: Column) -> Seen:
    """Forty users ask for forty VMIs at the same time."""
    group = _group("all")
    return _let_in(column, group, [(vmi, vmi) for vmi in column.api.add_group(group, 40)], _LIMIT)


def sessions_of_a_vmi(column: Column) -> Seen:
    """Ten users ask for one VMI at the same time."""
    group = _group("vmi")
    vmi = f"{group}-0"
    column.api.add_shared_vmi(vmi)
    return _let_in(column, group, [(vmi, f"{group}-{number}") for number in range(10)], _VMI_LIMIT)


# Tickets


def tickets(column: Column) -> Seen:
    """Twenty users exchange tokens for tickets. Each ticket opens one session, and no second one."""
    group = _group("ticket")
    with Visitors(column) as visitors:
        wanted = [visitors.wanted(vmi, vmi) for vmi in column.api.add_group(group, _TICKETS)]
        issued = [one._replace(credential=visitors.issue_ticket(one)) for one in wanted]
        column.turn()
        return _of(sum(_works_once(visitors, one) for one in issued if one.credential), _TICKETS)


def _works_once(visitors: Visitors, wanted: Wanted) -> bool:
    first = visitors.ask(wanted)
    if not first.is_open:
        return False
    visitors.leave([first.client])
    return visitors.ask(wanted).client.status == 401


# Consoles


def told_of_takeover(column: Column) -> Seen:
    """Ten users open consoles, and ten others take them over: the first ones are told so."""
    with Visitors(column) as visitors:
        ends = [end for _, _, end in _contests(column, visitors)]
        return _of(ends.count(_TAKEN_OVER), _PAIRS)


def stays_out(column: Column) -> Seen:
    """Who lost a console asks for it again, four times: each time they are refused."""
    with Visitors(column) as visitors:
        out = 0
        for first, second, _ in _contests(column, visitors):
            out += second.is_open and _is_refused(visitors, [first.wanted] * 4, 409)
            visitors.leave([second.client])
        return _of(out, _PAIRS)


def _contests(column: Column, visitors: Visitors) -> Iterator[tuple[Try, Try, int]]:
    """Have ten users open a console each, and then ten others the same consoles, one after the other.

    Yields the first client, the second one, and the code with which the first one's session ended.
    """
    names = column.api.add_group(_group("contested"), _PAIRS)
    opened = [visitors.open(visitors.wanted(name, f"first-{name}")) for name in names]
    column.turn()
    for first in opened:
        name = first.wanted.vmi
        second = visitors.ask_patiently(visitors.wanted(name, f"second-{name}"))
        yield first, second, _end(first) if second.is_open else 0


def _end(one: Try) -> int:
    """Return the code of the Close that ends a session, 0 if none comes; end the connection."""
    try:
        code = one.client.recv_close(_CLOSE_WITHIN)[0]
        one.client.send_close(code)
        one.client.wait_for_end(_CLOSE_WITHIN)
    except GONE:
        return 0
    return code


# What an operator does


def kicked_tokens(column: Column) -> Seen:
    """Ten users are kicked at one process: their sessions end, and their tokens open none anywhere."""
    group = _group("kicked")
    with Visitors(column) as visitors:
        opened = [visitors.open(visitors.wanted(vmi, vmi)) for vmi in column.api.add_group(group, 10)]
        for one in opened:
            ask_operator(column.admin, "POST", "/kick", {"user": one.wanted.vmi})
        # Refused from now on: nothing is waited for, the kick has returned.
        column.turn()
        out = sum(_is_locked_out(visitors, one) for one in opened)
        return _of(out, len(opened))


def _is_locked_out(visitors: Visitors, kicked: Try) -> bool:
    again = [kicked.wanted._replace(forwarded=visitors.new_address()) for _ in range(4)]
    # Who is not locked out may have got the session's place at the console.
    return _is_refused(visitors, again, 401) and _end(kicked) == _KICKED


def _is_refused(visitors: Visitors, wanted: list[Wanted], status: int) -> bool:
    """Ask as often as told; return whether each answer has a status. Stops at the first other one."""
    for one in wanted:
        answer = visitors.ask_patiently(one)
        if answer.is_open:
            visitors.leave([answer.client])
        if answer.client.status != status:
            return False
    return True


def listed(column: Column) -> Seen:
    """Eight users have sessions: one process lists them all."""
    group = _group("listed")
    with Visitors(column) as visitors:
        names = column.api.add_group(group, _LISTED)
        wanted = [visitors.wanted(vmi, vmi) for vmi in names]
        half = len(wanted) // 2
        for one in wanted[:half]:
            visitors.open(one)
        column.turn()
        for one in wanted[half:]:
            visitors.open(one)
        status, answer = ask_operator(column.admin, "GET", "/sessions")
        if status != 200:
            return Seen(str(status), False)
        return _count(len({one["vmi"] for one in answer["sessions"]} & {*names}), _LISTED)


# Failed attempts


def failed_attempts(column: Column) -> Seen:
    """An address fails at one process until the answer is 429. Soon no process lets that address in.

    A server with workers has one address. Its processes tell each other once a second of the addresses that
    have failed often. So several may answer more attempts than one, until one of them refuses.
    """
    group = _group("failed")
    [vmi] = column.api.add_group(group, 1)
    with Visitors(column) as visitors:
        valid = visitors.wanted(vmi, group)
        attempt = valid._replace(credential="e30.e30.")
        answers = [visitors.ask(attempt, column.one_address).client.status]
        while answers[-1] == 401 and len(answers) <= _ATTEMPTS:
            answers.append(visitors.ask(attempt, column.one_address).client.status)
        column.turn()
        out = wait_until(lambda: _is_refused(visitors, [valid] * _TRIES_OF_ALL, 429), _TOLD_WITHIN)
        failed = answers.count(401)
        text = f"{failed}, then refused" if out else f"{failed}, then let in"
        return Seen(text, out and _FAILURES <= failed <= column.processes * _FAILURES)


def fault_without_store(column: GunicornMemory) -> Seen:
    """Clients of processes without a store in common get 500, and the log says what to set. Pages work."""
    [vmi] = column.api.add_group(_group("fault"), 1)
    with Visitors(column) as visitors:
        answers = [visitors.ask(visitors.wanted(vmi, vmi)).client.status for _ in range(_TRIES_OF_ALL)]
    pages = {get(column.address(), "/page")[0] for _ in range(_TRIES_OF_ALL)}
    lines = [line for line in column.output().splitlines() if "WSPROXY_STATE" in line]
    good = {*answers} == {500} and pages == {200} and 1 <= len(lines) <= column.processes
    text = f"consoles {sorted({*answers})}, pages {sorted(pages)}, {len(lines)} lines in the log"
    return Seen(text, good and column.api.live == 0)


ROWS: tuple[Row, ...] = (
    Row("user", f"at most {_USER_LIMIT} sessions of one user, 10 tried", sessions_of_a_user),
    Row("all", f"at most {_LIMIT} in all, 40 tried", sessions_in_all),
    Row("vmi", f"at most {_VMI_LIMIT} of one VM, 10 tried", sessions_of_a_vmi),
    Row("tickets", f"{_TICKETS} tickets, each redeemed once and refused afterwards", tickets),
    Row("takeover", "rule `takeover`: the first client is told 4410", told_of_takeover),
    Row("hold-off", "a client that lost a console stays out for the hold-off", stays_out),
    Row("kick", "a kicked token is refused from then on", kicked_tokens),
    Row("list", f"the list shows all {_LISTED} sessions", listed),
    Row("failures", f"failed attempts before 429, {_FAILURES} a minute allowed", failed_attempts),
)
