"""Ends sessions for the operator, and refuses their tokens, so that the clients cannot return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ..access.sessions import LiveSessions, SessionHandle, criteria_of
from ..exceptions import BadRequest, BadToken, Busy, Forbidden, NotFound, StateUnavailable, StoreUnavailable
from ..state.membership import Member
from ..state.participant.participant import Kick, Participant
from ..state.revocations import Match, rule_end
from ..state.values import Held, SharedSession
from ..telemetry.reports import Reports
from ..tokens.claims import Grant
from ..tokens.verifier import TokenVerifier
from .revocations import RevocationPage, needs_iat, page_of

__all__ = ["Chosen", "Kicked", "Kicks"]

_LAST_TIME = 253402300799  # the end of the year 9999, which the texts of times can say
_MOST_ID = 64
_NAMES = ("session", "user", "namespace", "vmi", "token_id")
_KICKED = 4499, "kicked"
_NOTHING = Kick("", 0.0)


@dataclass(frozen=True)
class Chosen:
    """What the operator has chosen: the sessions and tokens that match all criteria.

    :ivar by: pairs of name and value; names are session, user, namespace, vmi and token_id.
    :ivar token: a whole token instead; "" for none. Nothing shows it.
    :ivar until: UNIX time until which tokens are refused; None for as long as any of them may be valid.
    """

    by: tuple[tuple[str, str], ...] = ()
    token: str = field(default="", repr=False)
    until: float | None = None

    @classmethod
    def parse(cls, wanted: object) -> Chosen:
        """Read the criteria from a parsed JSON body.

        :raises BadRequest: if it is not an object with known names and values, or is empty.
        """
        if not isinstance(wanted, dict) or not wanted or not wanted.keys() <= {*_NAMES, "token", "until"}:
            raise BadRequest(f"the body must be a JSON object with any of {', '.join(_NAMES)}, or with token")
        until = _until(wanted)
        values = {name: str(value) if type(value) is int else value for name, value in wanted.items()}
        values.pop("until", None)
        if not values or not all(isinstance(value, str) and value for value in values.values()):
            raise BadRequest("the values in the body must be non-empty strings")
        token = values.pop("token", "")
        if token and values:
            raise BadRequest("token cannot be combined with other criteria")
        if "vmi" in values and "namespace" not in values:
            raise BadRequest("vmi needs its namespace")
        if "session" in values and until is not None:
            raise BadRequest("until cannot be combined with session, whose token is refused until it expires")
        return cls(tuple(values.items()), token, until)

    @property
    def names_session(self) -> bool:
        """Whether it is about one session, and not about tokens in general."""
        return "session" in dict(self.by)

    @property
    def match(self) -> Match:
        """The tokens that it is about."""
        by = dict(self.by)
        return Match(by.get("user", ""), by.get("namespace", ""), by.get("vmi", ""), by.get("token_id", ""))

    def fits(self, session: SessionHandle) -> bool:
        """Whether a session matches all criteria; False if a token chooses instead."""
        return self._fits({"session": session.id, **criteria_of(session)})

    def fits_held(self, held: Held) -> bool:
        """Whether a session of another process matches all criteria."""
        session = held.session
        return self._fits(
            {
                "session": session.id,
                "user": session.user,
                "namespace": session.console.namespace,
                "vmi": session.console.vmi,
                "token_id": session.token_id,
            }
        )

    def _fits(self, said: dict[str, str | int]) -> bool:
        return bool(self.by) and all(str(said[name]) == value for name, value in self.by)


def _until(wanted: dict[str, object]) -> float | None:
    until = wanted.get("until")
    if until is None and "until" not in wanted:
        return None
    if isinstance(until, bool) or not isinstance(until, int | float) or not 0 <= until <= _LAST_TIME:
        raise BadRequest("until must be a UNIX time in seconds, before the year 10000")
    return float(until)


@dataclass(frozen=True)
class Kicked:
    """What a kick has done.

    :ivar sessions: ids of the sessions that it ended, in all processes.
    :ivar tokens: ids of the tokens of those sessions, or of the given token, which are refused from now on.
    :ivar kick: names the kick in the list of revocations; "" if it refuses no token.
    :ivar until: UNIX time until which it refuses tokens; infinite until somebody lifts it.
    :ivar behind: names of the processes that have not applied it yet. They admit nobody until they have.
    :ivar needs_iat: whether it refuses tokens that are issued later, too, if they have no ``iat``.
    :ivar unsaved: why a restart of this process forgets it; "" if that is not so.
    """

    sessions: tuple[str, ...]
    tokens: tuple[str, ...] = ()
    kick: str = ""
    until: float = 0.0
    behind: tuple[str, ...] = ()
    needs_iat: bool = False
    unsaved: str = ""


class Kicks:
    """Lists and ends sessions, and refuses tokens. Safe from every thread.

    If processes share their state, its methods block for the store's timeouts, and a kick for one more second
    at most. Otherwise they block on nothing but the log, and on the file system if there is a file of rules.

    :ivar sessions: the sessions of this gateway, open or being opened.
    :ivar participant: knows the other processes.
    :param verifier: verifies a whole token.
    :param reports: told of each kick.
    """

    def __init__(
        self, sessions: LiveSessions, participant: Participant, verifier: TokenVerifier, reports: Reports
    ) -> None:
        self.sessions = sessions
        self.participant = participant
        self._verifier = verifier
        self._reports = reports

    def others(self) -> list[tuple[Member, Held]]:
        """Return the sessions of the other processes, with who has them.

        :raises Busy: if the store is away.
        """
        try:
            return list(self.participant.others())
        except StoreUnavailable as exc:
            raise _away(exc) from None

    def end(self, id: str) -> Kicked:
        """End one session. Its client may open a new one.

        :raises NotFound: if no session has that id.
        """
        own = [session for session in self.sessions.all() if session.id == id]
        for session in own:
            session.close()
        others = [] if own else [(one, held) for one, held in self.others() if held.session.id == id]
        told = [self._tell(member, held) for member, held in others]
        if not own and True not in told:
            raise NotFound("there is no such session")
        return self._report({"session": id}, own, [held.session for _, held in others])

    def _tell(self, member: Member, held: Held) -> bool:
        try:
            return self.participant.store.tell(member.id, held.session.id, *_KICKED)
        except StoreUnavailable as exc:
            raise _away(exc) from None

    def _tell_if_there(self, member: Member, held: Held) -> bool:
        try:
            return self._tell(member, held)
        except Busy:
            return False

    def revocations(self, before: str = "") -> RevocationPage:
        """Return the kicks that are in force, as far as this process knows; the newest first.

        :param before: as for :func:`.page_of`.
        :raises BadRequest: if ``before`` is not from a page.
        """
        return page_of(self.participant.known, self.participant.now, before)

    def needs_iat(self, match: Match) -> bool:
        """See :func:`.needs_iat`."""
        return needs_iat(match, self.participant.known.settings)

    def lift(self, kick: str) -> Kick:
        """Accept the tokens again that a kick refuses, in all processes. A second time changes nothing more.

        :raises NotFound: if no rule of that kick is known.
        :raises StateUnavailable: if the store is away.
        """
        is_id = len(kick) <= _MOST_ID and kick.isascii() and kick.isalnum()
        lifted = self.participant.lift(kick) if is_id else None
        if lifted is None:
            raise NotFound("there is no such kick")
        self._reports.lifted(kick, lifted.behind)
        return lifted

    def kick(self, chosen: Chosen) -> Kicked:
        """Refuse tokens, and end their sessions, in all processes.

        With a session, its token is refused until it expires. Otherwise every token that matches, and was
        issued before, whether or not it has a session now.

        :raises BadRequest: if the given token is not valid.
        :raises Busy: if there are too many revocation rules. The sessions have ended all the same.
        :raises StateUnavailable: if the store is away. The sessions of this process have ended all the same.
        """
        if chosen.until is not None and chosen.until <= self.participant.now:
            raise BadRequest("until must be in the future")
        if chosen.token:
            return self._kick_token(chosen)
        return self._kick_session(chosen) if chosen.names_session else self._kick_chosen(chosen)

    def _kick_token(self, chosen: Chosen) -> Kicked:
        grant = self._grant(chosen.token)
        key = grant.token_key
        assert key is not None
        return self._kick_all(
            {"token_id": grant.token_id},
            Match(digest=key.digest.hex()),
            chosen.until or grant.expires_at,
            lambda session: session.grant.token_key == key,
            lambda held: held.session.token_id == grant.token_id,
            (grant.token_id,),
        )

    def _kick_chosen(self, chosen: Chosen) -> Kicked:
        until = self._end_of(chosen)
        return self._kick_all(dict(chosen.by), chosen.match, until, chosen.fits, chosen.fits_held)

    def _kick_all(
        self,
        by: dict[str, str],
        match: Match,
        until: float,
        fits: Callable[[SessionHandle], bool],
        fits_held: Callable[[Held], bool],
        tokens: tuple[str, ...] = (),
    ) -> Kicked:
        own = dict.fromkeys(one for one in self.sessions.all() if fits(one))
        others = [(member, held) for member, held in self._others_if_there() if fits_held(held)]
        kick, busy = self._refuse([match], until)
        if busy:  # no rule ends them
            others = [(member, held) for member, held in others if self._tell_if_there(member, held)]
        # Clients may have opened sessions before their tokens were refused.
        own |= dict.fromkeys(one for one in self.sessions.all() if fits(one))
        for session in own:  # also one without a token
            session.close()
        needs_iat = kick is not _NOTHING and self.needs_iat(match)
        return self._report(by, own, [held.session for _, held in others], tokens, kick, busy, needs_iat)

    def _kick_session(self, chosen: Chosen) -> Kicked:
        own = [one for one in self.sessions.all() if chosen.fits(one)]
        others = [] if own else [(member, held) for member, held in self.others() if chosen.fits_held(held)]
        matches = [Match(digest=key.digest.hex()) for one in own if (key := one.grant.token_key)]
        matches += [Match(token_id=held.session.token_id) for _, held in others if held.session.token_id]
        expiries = [one.grant.expires_at for one in own] + [held.session.expires_at for _, held in others]
        kick, busy = self._refuse(matches, max(expiries, default=0.0))
        for session in own:  # also one without a token
            session.close()
        for member, held in others:
            self._tell(member, held)
        return self._report(dict(chosen.by), own, [held.session for _, held in others], (), kick, busy)

    def _refuse(self, matches: Sequence[Match], until: float) -> tuple[Kick, Busy | None]:
        """Refuse tokens from now on. If not all processes do so, return also why."""
        if not any(map(any, matches)):
            return _NOTHING, None
        try:
            return self.participant.kick(matches, until), None
        except Busy as busy:
            return _NOTHING, busy

    def _others_if_there(self) -> list[tuple[Member, Held]]:
        """Return what :meth:`others` does, or nothing: the kick itself then says that the store is away."""
        try:
            return self.others()
        except Busy:
            return []

    def _end_of(self, chosen: Chosen) -> float:
        rules = self.participant.known.settings
        if chosen.until is not None:
            return chosen.until
        return rule_end(self.participant.now, rules.lifetime, rules.leeway, rules.eternal)

    def _grant(self, token: str) -> Grant:
        """Return what a whole token grants. Verify it, so that a forged token kicks no session."""
        try:
            return self._verifier.verify(token)
        except (BadToken, Forbidden) as exc:
            raise BadRequest(f"this proxy does not accept the token anyway: {exc.message}") from None

    def _report(
        self,
        by: dict[str, str],
        own: Iterable[SessionHandle],
        others: Iterable[SharedSession] = (),
        tokens: Iterable[str] = (),
        kick: Kick = _NOTHING,
        busy: Busy | None = None,
        needs_iat: bool = False,
    ) -> Kicked:
        sessions = [*(one.id for one in own), *(one.id for one in others)]
        refused = [*tokens, *(one.grant.token_id for one in own if one.grant.token_key)]
        refused += [one.token_id for one in others]
        if kick is _NOTHING:
            refused = []
        kicked = Kicked(
            tuple(dict.fromkeys(sessions)),
            tuple(dict.fromkeys(refused)),
            kick.id,
            kick.until,
            kick.behind,
            needs_iat,
            kick.unsaved,
        )
        until = kicked.until if kicked.kick else None
        self._reports.kicked(by, kicked.sessions, kicked.tokens, kicked.kick, until, kicked.behind)
        if busy:
            raise busy
        return kicked


def _away(exc: StoreUnavailable) -> Busy:
    return StateUnavailable(f"the state that processes share is away: {exc}")
