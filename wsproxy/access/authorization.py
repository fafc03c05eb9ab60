"""The embedding program's own say in who may open what. No I/O of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..exceptions import Forbidden, Refused
from ..runtime.logs import get_logger
from ..tokens.claims import Grant

__all__ = ["AccessRequest", "Authorize", "authorized"]

logger = get_logger("wsproxy.authorization")


@dataclass(frozen=True)
class AccessRequest:
    """What a client with a valid token asks for. Holds no token, and no path that has one in it.

    :ivar namespace: of the VMI.
    :ivar vmi: name of the virtual machine instance.
    :ivar subresource: such as "vnc".
    :ivar client: the client's IP address; "" if it is not known.
    :ivar origin: the Origin header, None for a client that is no browser.
    :ivar credential: "path", "header", "subprotocol", "query", "cookie", "ticket", or "grant" if the
        program passed the grant itself.
    :ivar user_agent: the User-Agent header, which can say anything; None without one.
    """

    namespace: str
    vmi: str
    subresource: str
    client: str
    origin: str | None
    credential: str
    user_agent: str | None


Authorize = Callable[[Grant, AccessRequest], Grant | None]
"""Called once for each session, after its token was verified and before anything is dialled.

Returns None to allow what the token grants, or a :class:`.Grant` that grants less; raises
:class:`.Forbidden`, or another :class:`.Refused`, whose text the client is shown. Any other exception
refuses, too. It is called in the session's thread, by several at once, and no deadline interrupts it: it
must be quick, and bound by itself whatever it waits for.
"""


def authorized(authorize: Authorize, grant: Grant, request: AccessRequest) -> Grant:
    """Ask the embedding program, and return what it leaves of a grant. Blocks as long as it does.

    :raises Refused: if it refuses, or fails, or answers with anything but None or a lesser grant.
    """
    try:
        answer: object = authorize(grant, request)
    except Refused:
        raise
    except (Exception, SystemExit):
        logger.exception("the authorize hook failed")
        raise Forbidden("the authorize hook failed") from None
    if answer is None:
        return grant
    if not isinstance(answer, Grant) or not _is_within(answer, grant):
        what = "more than the token does" if isinstance(answer, Grant) else type(answer).__name__
        logger.error("the authorize hook granted %s; it must return None or a grant of less", what)
        raise Forbidden("the authorize hook failed")
    return replace(answer, token_key=grant.token_key)


def _is_within(narrowed: Grant, grant: Grant) -> bool:
    """Whether a grant is another one with fewer VMIs, less time or no takeover, and nothing else changed."""
    same = replace(narrowed, vmis=grant.vmis, expires_at=grant.expires_at, may_take_over=grant.may_take_over)
    if same != grant or (narrowed.may_take_over and not grant.may_take_over):
        return False
    fewer = isinstance(narrowed.vmis, tuple) and all(_allows(grant, name) for name in narrowed.vmis)
    return fewer and narrowed.expires_at <= grant.expires_at


def _allows(grant: Grant, vmi: str) -> bool:
    try:
        grant.authorize(vmi)
    except Forbidden:
        return False
    return True
