"""The sessions of one gateway, open or being opened, as the embedding program sees them."""

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
    """What a handle needs from a session, or from its relay."""

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
    """One session, open or being opened: its user and console, its numbers, and a way to end it.

    Any thread may use it, even after the session has ended. Nothing in it blocks. It holds no token.

    :ivar id: names the session in the log.
    :ivar grant: what the token allows, less what the ``authorize`` hook took away.
    :ivar vmi: name of the virtual machine instance.
    :ivar subresource: such as "vnc".
    :ivar client: the client's IP address; "" if it is not known.
    :ivar is_open: False from the verification of its token until its client gets the 101; True from then on.
    :ivar opened: UNIX time in seconds at which it was opened; while it is being opened, when that began.
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
        # None after the end, when _final has the numbers: a handle that a program keeps must keep no relay.
        self._relay: Relayed | None = relay
        self._final: tuple[int, int, Ending | None] = (0, 0, None)
        self._data_up, self._active = 0, self.opened
        in_forked_child(self, SessionHandle._forget)

    def note_opened(self, relay: Relayed, grant: Grant) -> None:
        """Record that the session is open now. Only the session calls this.

        :param relay: copies the session's bytes.
        :param grant: what the ``authorize`` hook has left of its grant.
        """
        self.grant = grant
        self.opened = self._active = time.time()
        self._relay, self.is_open = relay, True

    @property
    def user(self) -> str | int:
        """The user, as the token names it."""
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
        """Bytes received from the upstream so far, WebSocket headers included."""
        relay = self._relay
        return relay.bytes_down if relay else self._final[1]

    @property
    def last_activity(self) -> float:
        """UNIX time in seconds at which the client last sent data; that of the opening if it never did.

        The proxy looks for new data now, and otherwise once in each ping interval. So the time may be later
        than that of the data.
        """
        self.note_activity()
        return self._active

    def note_activity(self) -> None:
        """Check whether the client has sent data since the last check. Housekeeping calls this."""
        relay = self._relay
        if relay and (data := relay.data_up) != self._data_up:
            self._data_up, self._active = data, time.time()

    @property
    def ending(self) -> Ending | None:
        """Why the session is ending or has ended; None before that."""
        relay = self._relay
        return relay.ending if relay else self._final[2]

    def close(self, code: int = 4499, reason: str = "kicked") -> None:
        """End the session: its client gets a Close with this code and reason.

        If the session is still being opened, the proxy refuses its client with them. Returns at once. An open
        session ends within the close timeout, and ``on_close`` tells when. Any thread, hooks included.
        Idempotent: the first call counts. If the session has ended, this does nothing.

        :param code: one that may be sent (RFC 6455 section 7.4); 4000 to 4999 are free for applications.
        :param reason: at most 123 bytes of UTF-8 (RFC 6455 section 5.5), such as a slug.
        :raises ValueError: if the code may not be sent, or the reason is too long or not text; the session
            goes on then.
        """
        _check_close(code, reason)
        if relay := self._relay:
            relay.end(code, reason)

    def _forget(self) -> None:
        """Drop the session in a forked child, because it belongs to the parent."""
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
    """Lists every session from the verification of its token to its end.

    Safe from every thread; never blocks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the attribute below
        # The oldest first. Each value checks whether the session's client has left, and notes it if so.
        self._handles: dict[SessionHandle, Callable[[], bool]] = {}

    def begin(self, handle: SessionHandle, has_left: Callable[[], bool]) -> None:
        """Add a session that is being opened.

        :param has_left: checks whether its client has left, and notes it if so; must not block.
        """
        with self._lock:
            self._handles[handle] = has_left

    def add(self, handle: SessionHandle) -> None:
        """Add a session that is open, if it is not listed yet."""
        with self._lock:
            self._handles.setdefault(handle, _stays)

    def remove(self, handle: SessionHandle, ending: Ending) -> None:
        """Remove a session that has ended or was not opened. Its handle keeps the final numbers."""
        handle._finish(ending)
        with self._lock:
            self._handles.pop(handle, None)

    def all(self) -> list[SessionHandle]:
        """Return the sessions that are open or being opened now, the oldest first."""
        with self._lock:
            return list(self._handles)

    def note_departures(self, user: str | int, console: tuple[str, str, str]) -> bool:
        """Check each client of a user and each client of a console; return whether any of them has left.

        :param console: namespace, VMI and subresource.
        """
        with self._lock:
            looks = [
                has_left
                for handle, has_left in self._handles.items()
                if handle.user == user or (handle.namespace, handle.vmi, handle.subresource) == console
            ]
        return sum(has_left() for has_left in looks) > 0  # and not any(), because each must note it

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
        """End all sessions that match every given criterion, and return how many there were.

        The criteria are values of a handle. Code and reason are as for :meth:`SessionHandle.close`.

        :raises TypeError: if there is no criterion; no session has been ended then.
        :raises ValueError: as :meth:`SessionHandle.close`; no session has been ended then either.
        """
        _check_close(code, reason)
        said = {"user": user, "namespace": namespace, "vmi": vmi, "token_id": token_id}
        wanted = {name: value for name, value in said.items() if value is not None}
        if not wanted:
            raise TypeError("choose the sessions to end by user, namespace, vmi or token_id")
        found = [handle for handle in self.all() if wanted.items() <= criteria_of(handle).items()]
        for handle in found:
            handle.close(code, reason)
        return len(found)

    def __len__(self) -> int:
        return len(self._handles)


def _stays() -> bool:
    """Stand for a client that is never checked: it has not left."""
    return False


def criteria_of(handle: SessionHandle) -> dict[str, str | int]:
    """Return this session's values of the criteria that sessions may be chosen by, besides the id."""
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
