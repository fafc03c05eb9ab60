"""What the shared state needs of a session. No I/O."""

from __future__ import annotations

from typing import Protocol

__all__ = ["HeldSession"]


class HeldSession(Protocol):
    """A session that has a console, or wants it. Any thread may use it; nothing in it blocks."""

    @property
    def is_ending(self) -> bool:
        """Whether the session is about to release the console, perhaps as its client has left."""
        ...

    def note_departure(self) -> bool:
        """Check whether the client has left; if so, end the session. Return whether it has left."""
        ...

    def expect_takeover(self, reason: str | None) -> None:
        """Treat a loss of the upstream from now on as a takeover of the console.

        Calls nothing back.

        :param reason: the close reason for the client; None takes this back.
        """
        ...

    def end(self, code: int, reason: str) -> None:
        """End the session with a Close from the proxy."""
        ...
