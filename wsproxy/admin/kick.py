"""Ending sessions on an operator's word, so that they do not come again."""

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
    """Which sessions are meant: those that all of it is true of.

    :ivar by: values, by any of session, user, namespace, vmi and token_id.
    :ivar token: a whole token instead; never shown.
    """

    by: tuple[tuple[str, str], ...] = ()
    token: str = field(default="", repr=False)

    @classmethod
    def parse(cls, wanted: object) -> Chosen:
        """Read a JSON object.

        :raises BadRequest: if it says nothing, or something else.
        """
        if not isinstance(wanted, dict) or not wanted or not wanted.keys() <= {*_NAMES, "token"}:
            raise BadRequest(f"the body must be a JSON object with any of {', '.join(_NAMES)}, or with token")
        values = {name: str(value) if type(value) is int else value for name, value in wanted.items()}
        if not all(isinstance(value, str) and value for value in values.values()):
            raise BadRequest("the values in the body must be texts")
        token = values.pop("token", "")
        if token and values:
            raise BadRequest("token stands alone: it names its sessions by itself")
        if "vmi" in values and "namespace" not in values:
            raise BadRequest("vmi needs its namespace")
        return cls(tuple(values.items()), token)

    def fits(self, session: SessionHandle) -> bool:
        """Whether a session is meant. None is if a token chooses."""
        said = {"session": session.id, **criteria_of(session)}
        return bool(self.by) and all(str(said[name]) == value for name, value in self.by)


@dataclass(frozen=True)
class Kicked:
    """What was done.

    :ivar sessions: ids of those that were ended.
    :ivar tokens: ids of the tokens that are refused from now on, until they expire.
    """

    sessions: tuple[str, ...]
    tokens: tuple[str, ...] = ()


class Kicks:
    """Ends sessions, and has their tokens refused. Safe from every thread; blocks as the log does.

    :ivar sessions: the open ones.
    :param verifier: of the tokens that are given whole.
    """

    def __init__(
        self, sessions: LiveSessions, denylist: Denylist, verifier: TokenVerifier, reports: Reports
    ) -> None:
        self.sessions = sessions
        self._denylist = denylist
        self._verifier = verifier
        self._reports = reports

    def end(self, id: str) -> Kicked:
        """End one session; its client may come again.

        :raises NotFound: if there is none with that id.
        """
        for session in self.sessions.all():
            if session.id == id:
                session.close()
                return self._report({"session": id}, [session])
        raise NotFound("there is no such session")

    def kick(self, chosen: Chosen) -> Kicked:
        """End sessions, and refuse their tokens, or the one that was given, until they expire.

        :raises BadRequest: if a token was given that is not valid.
        :raises Busy: if not so many tokens can be remembered; the sessions have been ended all the same.
        """
        return self._kick_token(chosen.token) if chosen.token else self._kick_chosen(chosen)

    def _kick_token(self, token: str) -> Kicked:
        grant = self._grant(token)
        assert grant.token_key is not None
        # First: whoever opens a session with it from now on finds that it is refused (see Session.relay).
        busy = self._refuse([grant])
        found = [one for one in self.sessions.all() if _digest(one.grant) == grant.token_key.digest]
        for session in found:
            session.close()
        return self._report({"token_id": grant.token_id}, found, [grant], busy)

    def _kick_chosen(self, chosen: Chosen) -> Kicked:
        found: dict[SessionHandle, None] = {}
        busy: Busy | None = None
        # Again, because others may have been opened while their tokens were not refused yet.
        while fresh := [one for one in self.sessions.all() if one not in found and chosen.fits(one)]:
            busy = self._refuse([one.grant for one in fresh]) or busy
            for session in fresh:
                session.close()
            found |= dict.fromkeys(fresh)
        tokens = {digest: one.grant for one in found if (digest := _digest(one.grant))}
        return self._report(dict(chosen.by), found, tokens.values(), busy)

    def _refuse(self, grants: Iterable[Grant]) -> Busy | None:
        """Refuse tokens from now on; return why not."""
        try:
            self._denylist.deny(grant.token_key for grant in grants if grant.token_key)
        except Busy as busy:
            return busy
        return None

    def _grant(self, token: str) -> Grant:
        """Return what a whole token grants; nobody is kicked on a forger's word."""
        try:
            return self._verifier.verify(token)
        except (BadToken, Forbidden) as exc:
            raise BadRequest(f"this token opens nothing here anyway: {exc.message}") from None

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
    """Return by what a grant's token is refused; an embedding program's own grants are of none."""
    return grant.token_key.digest if grant.token_key else None
