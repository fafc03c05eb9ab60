"""What the embedding program is asked and told about sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..protocol.closing import Ending
from ..runtime.logs import get_logger
from .authorization import Authorize
from .sessions import SessionHandle

__all__ = ["Hooks", "OnClose", "OnOpen"]

logger = get_logger("wsproxy.hooks")

OnOpen = Callable[[SessionHandle], None]
"""Called once for each session that opens, after its 101 and before anything is relayed.

It is called in the session's thread, by several at once. What it raises is logged with its traceback and
changes nothing; its time delays the relaying, and nothing interrupts it. It may close the session, or others.
"""

OnClose = Callable[[SessionHandle, Ending], None]
"""Called once for each session that was opened, when it is over, whatever ended it or ``on_open`` did.

As :data:`OnOpen`; nobody is connected any more, and the handle's numbers are final. Its time delays
``stop_thread``, which waits for it no longer than the close timeout and a few seconds.
"""


@dataclass(frozen=True)
class Hooks:
    """The functions of the embedding program, None where there is none.

    :ivar authorize: decides, with a valid token at hand, before anything is dialled.
    :ivar on_open: told of each session that opens.
    :ivar on_close: told of each session that is over.
    """

    authorize: Authorize | None = None
    on_open: OnOpen | None = None
    on_close: OnClose | None = None

    def opened(self, session: SessionHandle) -> None:
        """Call ``on_open``. Blocks as long as that does; raises nothing."""
        if on_open := self.on_open:
            _call("on_open", session, lambda: on_open(session))

    def closed(self, session: SessionHandle, ending: Ending) -> None:
        """Call ``on_close``. Blocks as long as that does; raises nothing."""
        if on_close := self.on_close:
            _call("on_close", session, lambda: on_close(session, ending))


def _call(name: str, session: SessionHandle, hook: Callable[[], None]) -> None:
    try:
        hook()
    except (Exception, SystemExit):  # SystemExit: it would end the session's thread, and nothing else
        logger.exception("the %s hook failed for session %s", name, session.id)
