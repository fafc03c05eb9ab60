"""A machine with a serial console, in place of a virtual one: a login and a small shell."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import final

from .login_terminal import LoginTerminal
from .text_asserts import MAX_TEXT, text_missing

__all__ = ["LoginShell"]

__unittest = True  # a failed assertion ends at the line of the test
_CHUNK = 16384


@final
class LoginShell:
    """The machine, whose serial line one client holds at a time.

    Enter shows the last lines of its boot and a login prompt, as a machine does on which nothing happens; the
    user may then type a few harmless commands, which ``help`` lists. The line is a real one: whoever comes
    next takes it over, finds logged in who has not logged out, and is not shown what was sent before.

    All methods may be called from any thread, and none blocks but :meth:`serve` and those that wait. As a
    context manager it closes itself.

    :param name: of the machine, which its prompts show.
    :param user: who may log in.
    :param password: with what; it stands above the login prompt.
    :param now: gives the time of day.
    """

    def __init__(
        self,
        name: str,
        user: str = "student",
        password: str = "student",
        *,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.name = name
        self.user = user
        self._changed = threading.Condition()  # guards all below
        self._terminal = LoginTerminal(name, user, password, now)
        self._holder: socket.socket | None = None
        self._text = ""
        self._closed = False

    def __enter__(self) -> LoginShell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def serve(self, connection: socket.socket) -> None:
        """Hold the line for a connected plain socket until the peer leaves or loses the line; blocks.

        The socket becomes blocking and is closed at the end. No timeout: the next client, or :meth:`close`,
        ends it.
        """
        with connection:
            try:
                connection.settimeout(None)
                self._take_line(connection)
                self._copy(connection)
            except OSError:
                pass  # a vanished peer is an ordinary end
            finally:
                self._give_line(connection)

    def close(self) -> None:
        """End the client and refuse new ones. Idempotent; does not wait for :meth:`serve` to return."""
        with self._changed:
            self._closed = True
            self._drop_holder()

    # --- for tests ---

    @property
    def logged_in(self) -> bool:
        """Whether the user is logged in."""
        with self._changed:
            return self._terminal.logged_in

    @property
    def connected(self) -> bool:
        """Whether somebody holds the line."""
        with self._changed:
            return self._holder is not None

    @property
    def commands(self) -> tuple[str, ...]:
        """What was typed at the shell's prompt, line by line; the last thousand."""
        with self._changed:
            return tuple(self._terminal.commands)

    @property
    def text(self) -> str:
        """What the machine has shown at its line, escape sequences too; the last 65,536 characters."""
        with self._changed:
            return self._text

    def wait_for_text(self, text: str, timeout: float) -> bool:
        """Block until the machine has shown a text, at most ``timeout`` seconds; return whether it has."""
        return self.wait_for(lambda: text in self._text, timeout)

    def assert_text(self, text: str, timeout: float = 10.0) -> None:
        """Assert that the machine has shown a text, or shows it within ``timeout`` seconds; blocks.

        :raises AssertionError: quoting what it has shown.
        """
        __tracebackhide__ = True
        if not self.wait_for_text(text, timeout):
            raise text_missing(f"{text!r} was not shown", timeout, self.text, self._state())

    def assert_command(self, command: str, timeout: float = 10.0) -> None:
        """Assert that a command was typed, or is within ``timeout`` seconds; blocks.

        :raises AssertionError: quoting the commands that were.
        """
        __tracebackhide__ = True
        if not self.wait_for_command(command, timeout):
            typed = "\n".join(self.commands)
            raise text_missing(f"{command!r} was not typed at the prompt", timeout, typed, self._state())

    def wait_for_command(self, command: str, timeout: float) -> bool:
        """Block until a command was typed, at most ``timeout`` seconds; return whether it was."""
        return self.wait_for(lambda: command in self._terminal.commands, timeout)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Block until a condition holds, at most ``timeout`` seconds; return whether it does.

        It is asked under the machine's lock after each change: be quick in it. It may read the properties.
        """
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def _state(self) -> str:
        user = f"{self.user} is logged in" if self.logged_in else "nobody is logged in"
        return f"{user}, and {'a client' if self.connected else 'nobody'} holds the line"

    # --- the line ---

    def _copy(self, connection: socket.socket) -> None:
        while True:
            output = self._output(connection)
            connection.sendall(output)
            # Between two pieces of output only what is there already: it may be Ctrl-C.
            data = _received(connection, socket.MSG_DONTWAIT if output else 0)
            if data == b"":
                return
            if data:
                self._receive(connection, data)

    def _take_line(self, connection: socket.socket) -> None:
        with self._changed:
            if self._closed:
                raise ConnectionAbortedError("the machine is switched off")
            self._drop_holder()
            self._holder = connection
            self._changed.notify_all()

    def _give_line(self, connection: socket.socket) -> None:
        with self._changed:
            if self._holder is connection:
                self._terminal.hang_up()
                self._holder = None
            self._changed.notify_all()

    def _drop_holder(self) -> None:
        """Let the thread that serves the holder end. Under the condition; does not block."""
        if self._holder is not None:
            self._terminal.hang_up()
            with suppress(OSError):  # already gone
                self._holder.shutdown(socket.SHUT_RDWR)
            self._holder = None

    def _receive(self, connection: socket.socket, data: bytes) -> None:
        with self._changed:
            self._check_holds(connection)
            self._terminal.receive(data)
            self._changed.notify_all()

    def _output(self, connection: socket.socket) -> bytes:
        with self._changed:
            self._check_holds(connection)
            output = self._terminal.output()
            self._text = (self._text + output.decode())[-MAX_TEXT:]
            self._changed.notify_all()
            return output

    def _check_holds(self, connection: socket.socket) -> None:
        if self._holder is not connection:
            raise ConnectionAbortedError("somebody else has the line")


def _received(connection: socket.socket, flags: int) -> bytes | None:
    """Return received bytes, none at the end of the stream; None if there is nothing yet."""
    try:
        return connection.recv(_CHUNK, flags)
    except BlockingIOError:
        return None
