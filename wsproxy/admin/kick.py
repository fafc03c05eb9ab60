"""Ends sessions for the operator, and refuses their tokens, so that the clients cannot return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..access.sessions import LiveSessions, SessionHandle, criteria_of
from ..exceptions import BadRequest, BadToken, Busy, Forbidden, NotFound
from ..state.denylist import Denylist
from ..telemetry.reports import Reports
from ..tokens.claims import Grant
from ..tokens.verifier import TokenVerifier

__all__ = ["Chosen", "Kicked", "Kicks"]

_NAMES = ("session", "user", "namespace", "vmi", "token_id")


@dataclass(frozen=True)
class Chosen:
    """Which sessions the operator has chosen: those that match all criteria.

    :ivar by: pairs of name and value; names are session, user, namespace, vmi and token_id.
    :ivar token: a whole token instead; "" for none. Nothing shows it.
    """

    by: tuple[tuple[str, str], ...] = ()
    token: str = field(default="", repr=False)

    @classmethod
    def parse(cls, wanted: object) -> Chosen:
        """Read the criteria from a parsed JSON body.

        :raises BadRequest: if it is not an object with known names and values, or is empty.
        """
        if not isinstance(wanted, dict) or not wanted or not wanted.keys() <= {*_NAMES, "token"}:
            raise BadRequest(f"the body must be a JSON object with any of {', '.join(_NAMES)}, or with token")
        values = {name: str(value) if type(value) is int else value for name, value in wanted.items()}
        if not all(isinstance(value, str) and value for value in values.values()):
            raise BadRequest("the values in the body must be non-empty strings")
        token = values.pop("token", "")
        if token and values:
            raise BadRequest("token cannot be combined with other criteria")
        if "vmi" in values and "namespace" not in values:
            raise BadRequest("vmi needs its namespace")
        return cls(tuple(values.items()), token)

    def fits(self, session: SessionHandle) -> bool:
        """Whether a session matches all criteria; False if a token chooses instead."""
        said = {"session": session.id, **criteria_of(session)}
        return bool(self.by) and all(str(said[name]) == value for name, value in self.by)


@dataclass(frozen=True)
class Kicked:
    """What a kick has done.

    :ivar sessions: ids of the sessions that it ended.
    :ivar tokens: ids of the tokens that the proxy refuses from now on, until they expire.
    """

    sessions: tuple[str, ...]
    tokens: tuple[str, ...] = ()


class Kicks:
    """Ends sessions, and refuses their tokens. Safe from every thread; blocks on nothing but the log.

    :ivar sessions: the sessions of this gateway, open or being opened.
    :param denylist: the tokens that the proxy refuses.
    :param verifier: verifies a whole token.
    :param reports: told of each kick.
    """

    def __init__(
        self, sessions: LiveSessions, denylist: Denylist, verifier: TokenVerifier, reports: Reports
    ) -> None:
        self.sessions = sessions
        self._denylist = denylist
        self._verifier = verifier
        self._reports = reports

    def end(self, id: str) -> Kicked:
        """End one session. Its client may open a new one.

        :raises NotFound: if no session has that id.
        """
        for session in self.sessions.all():
            if session.id == id:
                session.close()
                return self._report({"session": id}, [session])
        raise NotFound("there is no such session")

    def kick(self, chosen: Chosen) -> Kicked:
        """End sessions, and refuse their tokens, or the given token, until they expire.

        :raises BadRequest: if the given token is not valid.
        :raises Busy: if the denylist cannot hold so many tokens; the sessions have ended all the same.
        """
        return self._kick_token(chosen.token) if chosen.token else self._kick_chosen(chosen)

    def _kick_token(self, token: str) -> Kicked:
        grant = self._grant(token)
        assert grant.token_key is not None
        # Refuse the token first: a session that opens with it meanwhile then ends by itself (Session.relay).
        busy = self._refuse([grant])
        found = [one for one in self.sessions.all() if _digest(one.grant) == grant.token_key.digest]
        for session in found:
            session.close()
        return self._report({"token_id": grant.token_id}, found, [grant], busy)

    def _kick_chosen(self, chosen: Chosen) -> Kicked:
        found: dict[SessionHandle, None] = {}
        busy: Busy | None = None
        # Repeat, because clients may have opened sessions before their tokens were refused.
        while fresh := [one for one in self.sessions.all() if one not in found and chosen.fits(one)]:
            busy = self._refuse([one.grant for one in fresh]) or busy
            for session in fresh:
                session.close()
            found |= dict.fromkeys(fresh)
        tokens = {digest: one.grant for one in found if (digest := _digest(one.grant))}
        return self._report(dict(chosen.by), found, tokens.values(), busy)

    def _refuse(self, grants: Iterable[Grant]) -> Busy | None:
        """Refuse tokens from now on. If the denylist is full, return the reason."""
        try:
            self._denylist.deny(grant.token_key for grant in grants if grant.token_key)
        except Busy as busy:
            return busy
        return None

    def _grant(self, token: str) -> Grant:
        """Return what a whole token grants. Verify it, so that a forged token kicks no session."""
        try:
            return self._verifier.verify(token)
        except (BadToken, Forbidden) as exc:
            raise BadRequest(f"this proxy does not accept the token anyway: {exc.message}") from None

    def _report(
        self,
        by: Mapping[str, str],
        found: Iterable[SessionHandle],
        tokens: Iterable[Grant] = (),
        busy: Busy | None = None,
    ) -> Kicked:
        refused = () if busy else tuple(grant.token_id for grant in tokens)
        kicked = Kicked(tuple(session.id for session in found), refused)
        self._reports.kicked(by, kicked.sessions, kicked.tokens)
        if busy:
            raise busy
        return kicked


def _digest(grant: Grant) -> bytes | None:
    """Return the digest by which the denylist knows a grant's token; None for a grant without a token."""
    return grant.token_key.digest if grant.token_key else None
