"""The sessions of one gateway, open or being opened, as the program around it sees them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..protocol.closing import Ending
from ..protocol.frames import MAX_CLOSE_REASON, may_be_sent
from ..runtime.forks import in_forked_child
from ..tokens.claims import Grant

__all__ = ["LiveSessions", "SessionHandle", "criteria_of"]

_FORKED = Ending("proxy", None, "forked")


class Relayed(Protocol):
    """What a handle needs of a session, or of its relay."""

    @property
    def ending(self) -> Ending | None: ...

    @property
    def bytes_up(self) -> int: ...

    @property
    def bytes_down(self) -> int: ...

    @property
    def data_up(self) -> int: ...

    def end(self, code: int, reason: str) -> None: ...


class SessionHandle:
    """One session, open or being opened: who it is, how it goes, and a way to end it.

    Any thread may use it, also after the session has ended; nothing in it blocks. It holds no token.

    :ivar id: names the session in the log.
    :ivar grant: what its token, less what the ``authorize`` hook took away, allows.
    :ivar vmi: name of the virtual machine instance.
    :ivar subresource: such as "vnc".
    :ivar client: the client's IP address; "" if it is not known.
    :ivar is_open: False from when its token was verified until its client is let in, and True from then on.
    :ivar opened: UNIX time at which it was opened, seconds; while it is being opened, when that began.
    """

    def __init__(
        self,
        relay: Relayed,
        *,
        id: str,
        grant: Grant,
        vmi: str,
        subresource: str,
        client: str,
        is_open: bool = True,
    ) -> None:
        self.id = id
        self.grant = grant
        self.vmi = vmi
        self.subresource = subresource
        self.client = client
        self.is_open = is_open
        self.opened = time.time()
        # None after the end, when the rest is final: a handle that is kept must not keep a relay alive.
        self._relay: Relayed | None = relay
        self._final: tuple[int, int, Ending | None] = (0, 0, None)
        self._data_up, self._active = 0, self.opened
        in_forked_child(self, SessionHandle._forget)

    def note_opened(self, relay: Relayed, grant: Grant) -> None:
        """Take note that a session is open now. For the session.

        :param relay: carries it.
        :param grant: what the ``authorize`` hook has left of its grant.
        """
        self.grant = grant
        self.opened = self._active = time.time()
        self._relay, self.is_open = relay, True

    @property
    def user(self) -> str | int:
        """Who the user is, as the token says it."""
        return self.grant.user

    @property
    def namespace(self) -> str:
        """The VMI's namespace."""
        return self.grant.namespace

    @property
    def bytes_up(self) -> int:
        """Bytes received from the client so far, WebSocket headers included."""
        relay = self._relay
        return relay.bytes_up if relay else self._final[0]

    @property
    def bytes_down(self) -> int:
        """Bytes received from the virtual machine's side so far, WebSocket headers included."""
        relay = self._relay
        return relay.bytes_down if relay else self._final[1]

    @property
    def last_activity(self) -> float:
        """When the client last sent data, UNIX time in seconds; the opening if it never did.

        It is looked at now, and otherwise once in a ping interval, so it may be said later than it was.
        """
        self.note_activity()
        return self._active

    def note_activity(self) -> None:
        """Look whether the client has sent data since the last look. For housekeeping."""
        relay = self._relay
        if relay and (data := relay.data_up) != self._data_up:
            self._data_up, self._active = data, time.time()

    @property
    def ending(self) -> Ending | None:
        """Why the session ends or has ended; None while nothing ends it."""
        relay = self._relay
        return relay.ending if relay else self._final[2]

    def close(self, code: int = 4499, reason: str = "kicked") -> None:
        """End the session: the client gets a Close with this code and reason.

        One that is still being opened is refused with them. Returns at once; an open session has ended
        within the close timeout, and ``on_close`` tells when. Any thread, hooks included. Idempotent: the
        first one counts, and on a session that has ended it does nothing.

        :param code: one that may be sent (RFC 6455 section 7.4): 4000 to 4999 are free for applications.
        :param reason: at most 123 bytes of UTF-8 (RFC 6455 section 5.5), such as a slug.
        :raises ValueError: if the code may not be sent, or the reason is too long or no text; nothing has
            been done then.
        """
        _check_close(code, reason)
        if relay := self._relay:
            relay.end(code, reason)

    def _forget(self) -> None:
        """In a forked child: the session is the parent's."""
        self._finish(_FORKED)

    def _finish(self, ending: Ending) -> None:
        if relay := self._relay:
            self._final = relay.bytes_up, relay.bytes_down, ending
            self._relay = None

    def __repr__(self) -> str:
        state = "ended" if self.ending else "open" if self.is_open else "being opened"
        where = f"{self.namespace}/{self.vmi} {self.subresource}"
        return f"<SessionHandle {self.id} {state}: user {self.user!r}, {where}>"


class LiveSessions:
    """Knows every session, from when its token was verified to its end.

    Safe from every thread; never blocks.
    """

    def __init__(self) -> None:
        # Guards the dict, whose keys stand in the order in which they came. With each, what looks whether its
        # client has left, and takes note if so.
        self._lock = threading.Lock()
        self._handles: dict[SessionHandle, Callable[[], bool]] = {}

    def begin(self, handle: SessionHandle, has_left: Callable[[], bool]) -> None:
        """Take a session in that is being opened.

        :param has_left: looks whether its client has left, and takes note then; must not block.
        """
        with self._lock:
            self._handles[handle] = has_left

    def add(self, handle: SessionHandle) -> None:
        """Take a session in that is open, if it is not known yet."""
        with self._lock:
            self._handles.setdefault(handle, _stays)

    def remove(self, handle: SessionHandle, ending: Ending) -> None:
        """Forget a session that has ended, or was not opened; its handle says what was."""
        handle._finish(ending)
        with self._lock:
            self._handles.pop(handle, None)

    def all(self) -> list[SessionHandle]:
        """Return the sessions that are open, or being opened, at this moment, the oldest first."""
        with self._lock:
            return list(self._handles)

    def note_departures(self, user: str | int, console: tuple[str, str, str]) -> bool:
        """Look at the clients of a user, and of a console: return whether any of them has left.

        :param console: namespace, VMI and subresource.
        """
        with self._lock:
            looks = [
                has_left
                for handle, has_left in self._handles.items()
                if handle.user == user or (handle.namespace, handle.vmi, handle.subresource) == console
            ]
        return sum(has_left() for has_left in looks) > 0  # all are asked

    def end(
        self,
        *,
        user: str | int | None = None,
        namespace: str | None = None,
        vmi: str | None = None,
        token_id: str | None = None,
        code: int = 4499,
        reason: str = "kicked",
    ) -> int:
        """End all sessions that all of this is true of, and return how many that were.

        Parameters are what a handle says, and those of :meth:`SessionHandle.close`.

        :raises TypeError: if nothing says which; then nothing has been done.
        :raises ValueError: as :meth:`SessionHandle.close`; then nothing has been done either.
        """
        _check_close(code, reason)
        said = {"user": user, "namespace": namespace, "vmi": vmi, "token_id": token_id}
        wanted = {name: value for name, value in said.items() if value is not None}
        if not wanted:
            raise TypeError("say which sessions are to be ended: of a user, namespace, vmi or token_id")
        found = [handle for handle in self.all() if wanted.items() <= criteria_of(handle).items()]
        for handle in found:
            handle.close(code, reason)
        return len(found)

    def __len__(self) -> int:
        return len(self._handles)


def _stays() -> bool:
    """Of one whose client nobody looks at."""
    return False


def criteria_of(handle: SessionHandle) -> dict[str, str | int]:
    """Return what sessions may be chosen by, besides the id, as it is of this one."""
    return {
        "user": handle.user,
        "namespace": handle.namespace,
        "vmi": handle.vmi,
        "token_id": handle.grant.token_id,
    }


def _check_close(code: int, reason: str) -> None:
    if type(code) is not int or not may_be_sent(code):
        raise ValueError(f"close code {code!r} may not be sent; use one from 4000 to 4999")
    try:
        size = len(reason.encode())
    except (AttributeError, UnicodeEncodeError):
        raise ValueError("the close reason must be text that UTF-8 can express") from None
    if size > MAX_CLOSE_REASON:
        raise ValueError(f"the close reason is {size} bytes of UTF-8; it must be {MAX_CLOSE_REASON} or fewer")
