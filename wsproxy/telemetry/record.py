"""What the proxy knows of one client and its session, for the log and the audit log. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..protocol.client import Client
from ..protocol.routing import Route
from ..tokens.claims import Grant

__all__ = ["Admitted", "SessionRecord"]


class Admitted(NamedTuple):
    """What a client may open, after its token was accepted."""

    user: str | int
    namespace: str
    vmi: str
    subresource: str
    token_id: str

    @classmethod
    def by(cls, grant: Grant, route: Route) -> Admitted:
        """Return what a grant allows on the route that it was accepted for."""
        return cls(grant.user, grant.namespace, route.vmi, route.subresource, grant.token_id)


@dataclass
class SessionRecord:
    """What the proxy knows of a client and its session, for the log. The session's own thread fills it.

    :ivar session: the session's id, or the connection's if there is no session.
    :ivar peer: the client's address, as the log shows it.
    :ivar client: its IP address, "" if it has none; None before its request was read.
    :ivar admitted: None before its token was accepted.
    """

    session: str
    peer: str
    client: str | None = None
    admitted: Admitted | None = None

    def identify(self, client: Client) -> None:
        """Note the client's address, as found in its request."""
        self.peer, self.client = str(client), client.address

    def fields(self) -> dict[str, Any]:
        """Return what is known so far, by the field names of the log and the audit log."""
        known: dict[str, Any] = {"session": self.session, "peer": self.peer}
        if self.client is not None:
            known["client"] = self.client
        return known | self.admitted._asdict() if self.admitted else known

    def __str__(self) -> str:
        text = f"client {self.peer}"
        if who := self.admitted:
            text += f" user {who.user!r} vmi {who.namespace}/{who.vmi}"
        return text
