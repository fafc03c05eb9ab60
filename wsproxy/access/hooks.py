"""The hooks by which the proxy asks and tells the embedding program about sessions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..exceptions import ConfigError, Forbidden, Refused
from ..protocol.closing import Ending
from ..protocol.frames import may_be_sent
from ..protocol.response import refusal_response
from ..runtime.logs import get_logger
from ..tokens.claims import Grant
from .sessions import SessionHandle

__all__ = ["AccessRequest", "Authorize", "Hooks", "OnClose", "OnOpen", "Report", "authorized"]

logger = get_logger("wsproxy.hooks")
authorization_logger = get_logger("wsproxy.authorization")


@dataclass(frozen=True)
class AccessRequest:
    """What a client with a valid token asks for. Holds no token, and no path that contains one.

    :ivar namespace: of the VMI.
    :ivar vmi: name of the virtual machine instance.
    :ivar subresource: such as "vnc".
    :ivar client: the client's IP address; "" if it is not known.
    :ivar origin: the Origin header; None without one, as from a client that is not a browser.
    :ivar credential: "path", "header", "subprotocol", "query", "cookie", "ticket", or "grant" if the
        embedding program passed the grant itself.
    :ivar user_agent: the User-Agent header, which a client chooses freely; None without one.
    """

    namespace: str
    vmi: str
    subresource: str
    client: str
    origin: str | None
    credential: str
    user_agent: str | None


Authorize = Callable[[Grant, AccessRequest], Grant | None]
"""Called once for each session, after its token was verified and before the proxy dials the API.

It returns None to allow what the token grants, or a :class:`.Grant` that grants less. To refuse, it raises
:class:`.Forbidden` or another :class:`.Refused`, whose text the client is shown. Any other exception refuses,
too. Each session calls it in its own thread, so several calls may run at once. No deadline interrupts it, so
it must be quick, and must bound every wait itself.
"""

OnOpen = Callable[[SessionHandle], None]
"""Called once for each session that opens, after its 101 and before the proxy relays anything.

Each session calls it in its own thread, so several calls may run at once. If it raises, the proxy logs the
traceback and goes on. The relay waits until it returns, and nothing interrupts it. It may close this session
or others.
"""

OnClose = Callable[[SessionHandle, Ending], None]
"""Called once for each session that was opened, when the session is over, even if ``on_open`` raised.

Threads and exceptions are as for :data:`OnOpen`. Both sides are disconnected by then, and the handle's
numbers are final. ``stop_thread`` waits for it, for the close timeout and a few seconds at most.
"""


Report = Callable[[logging.Logger, str], None]
"""Reports the exception that is being handled. Takes the logger that it belongs to, and one line of text."""


def _log(logger: logging.Logger, message: str) -> None:
    logger.error("%s", message, exc_info=True)


@dataclass(frozen=True)
class Hooks:
    """The hooks of the embedding program; None for a hook that it does not set.

    :ivar authorize: decides about a client with a valid token, before the proxy dials the API.
    :ivar on_open: told of each session that opens.
    :ivar on_close: told of each session that is over.
    :raises ConfigError: if one of them is not a function.
    """

    authorize: Authorize | None = None
    on_open: OnOpen | None = None
    on_close: OnClose | None = None

    def __post_init__(self) -> None:
        given = vars(self).items()
        if wrong := [name for name, hook in given if hook is not None and not callable(hook)]:
            raise ConfigError(f"{name} must be a function" for name in wrong)

    def opened(self, session: SessionHandle, report: Report = _log) -> None:
        """Call ``on_open``. Blocks for as long as the hook does; raises nothing.

        :param report: told of what the hook raises.
        """
        if on_open := self.on_open:
            _call("on_open", session, lambda: on_open(session), report)

    def closed(self, session: SessionHandle, ending: Ending, report: Report = _log) -> None:
        """Call ``on_close``. Blocks for as long as the hook does; raises nothing.

        :param report: told of what the hook raises.
        """
        if on_close := self.on_close:
            _call("on_close", session, lambda: on_close(session, ending), report)


def _call(name: str, session: SessionHandle, hook: Callable[[], None], report: Report) -> None:
    try:
        hook()
    except BaseException:  # noqa: BLE001 - SystemExit, for example, would only end the session's thread
        report(logger, f"the {name} hook failed for session {session.id}")


def authorized(authorize: Authorize, grant: Grant, request: AccessRequest, report: Report = _log) -> Grant:
    """Call the ``authorize`` hook, and return what it leaves of a grant. Blocks for as long as the hook does.

    :param report: told of what the hook raises, unless that is a refusal.
    :raises Refused: if the hook refuses or fails, or returns neither None nor a grant of the same or less.
    """
    try:
        answer: object = authorize(grant, request)
    except Refused as refused:
        if not (fault := _refusal_fault(refused)):
            raise
        authorization_logger.error(
            "the authorize hook raised %s, which the proxy cannot send: %s", type(refused).__name__, fault
        )
        raise Forbidden("the authorize hook failed") from None
    except BaseException:  # noqa: BLE001 - whatever it is, the client gets an answer
        report(authorization_logger, "the authorize hook failed")
        raise Forbidden("the authorize hook failed") from None
    if answer is None:
        return grant
    if fault := _fault(answer, grant):
        authorization_logger.error(
            "the authorize hook granted %s; it must return None or a grant of less", fault
        )
        raise Forbidden("the authorize hook failed")
    assert isinstance(answer, Grant)
    return replace(answer, token_key=grant.token_key)


def _refusal_fault(refused: Refused) -> str | None:
    """Return why the proxy cannot send a refusal, which may have the embedding program's own class."""
    code = refused.close_code
    if type(refused.status) is not int or not 400 <= refused.status < 600:
        return f"its status is {refused.status!r}"
    if code is not None and (type(code) is not int or not may_be_sent(code)):
        return f"its close code is {code!r}"
    if not isinstance(refused.slug, str):
        return f"its slug is {refused.slug!r}"
    try:
        refusal_response(refused)
    except (TypeError, ValueError) as exc:
        return str(exc)
    return None


def _fault(answer: object, grant: Grant) -> str | None:
    """Return what an answer is, if it is not a grant of the same or less."""
    if not isinstance(answer, Grant):
        return type(answer).__name__
    if fault := answer.fault:
        return f"what may be more than the token grants: {fault}"
    return None if _is_within(answer, grant) else "more than the token grants"


def _is_within(narrowed: Grant, grant: Grant) -> bool:
    """Whether ``narrowed`` differs from ``grant`` at most by fewer VMIs, less time or no takeover."""
    same = replace(narrowed, vmis=grant.vmis, expires_at=grant.expires_at, may_take_over=grant.may_take_over)
    if same != grant or (narrowed.may_take_over and not grant.may_take_over):
        return False
    fewer = all(_allows(grant, name) for name in narrowed.vmis)
    return fewer and narrowed.expires_at <= grant.expires_at


def _allows(grant: Grant, vmi: str) -> bool:
    try:
        grant.authorize(vmi)
    except Forbidden:
        return False
    return True
