"""A simulated machine with a serial console: a login and a small shell."""

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
    """A simulated machine whose serial line one client at a time holds.

    At the first Enter it shows the last lines of its boot and a login prompt. After the login the user may
    type a few harmless commands, which ``help`` lists. As on a real serial line, a new client takes the line
    over and does not see earlier output. It inherits the login session if the previous user did not log out.

    Any thread may call the methods. Only :meth:`serve` and the methods that wait block. At the end of
    ``with`` it closes.

    :param name: the machine's name, which its prompts show.
    :param user: the user who may log in.
    :param password: the user's password. The machine shows it above the login prompt.
    :param now: returns the time of day.
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
        """Hold the line for a connected plain socket until the client disconnects or loses the line.

        Blocks without a timeout: the next client, or :meth:`close`, ends it. The socket becomes blocking, and
        is closed at the end.
        """
        with connection:
            try:
                connection.settimeout(None)
                self._take_line(connection)
                self._copy(connection)
            except OSError:
                pass  # the client vanished, which is an ordinary end
            finally:
                self._give_line(connection)

    def close(self) -> None:
        """Disconnect the client, and refuse new ones. Idempotent. Does not wait for :meth:`serve`."""
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
        """Whether a client holds the line."""
        with self._changed:
            return self._holder is not None

    @property
    def commands(self) -> tuple[str, ...]:
        """The last thousand lines that were typed at the shell's prompt."""
        with self._changed:
            return tuple(self._terminal.commands)

    @property
    def text(self) -> str:
        """The last 65,536 characters that the machine has sent on its line, escape sequences included."""
        with self._changed:
            return self._text

    def wait_for_text(self, text: str, timeout: float) -> bool:
        """Block until the machine has shown a text, ``timeout`` seconds at most; return whether it has."""
        return self.wait_for(lambda: text in self._text, timeout)

    def assert_text(self, text: str, timeout: float = 10.0) -> None:
        """Wait until the machine has shown a text. Blocks for ``timeout`` seconds at most.

        :raises AssertionError: if it has not; quotes what the machine has shown.
        """
        __tracebackhide__ = True
        if not self.wait_for_text(text, timeout):
            raise text_missing(f"{text!r} was not shown", timeout, self.text, self._state())

    def assert_command(self, command: str, timeout: float = 10.0) -> None:
        """Wait until a command was typed. Blocks for ``timeout`` seconds at most.

        :raises AssertionError: if it was not; quotes the commands that were typed.
        """
        __tracebackhide__ = True
        if not self.wait_for_command(command, timeout):
            typed = "\n".join(self.commands)
            raise text_missing(f"{command!r} was not typed at the prompt", timeout, typed, self._state())

    def wait_for_command(self, command: str, timeout: float) -> bool:
        """Block until a command was typed, ``timeout`` seconds at most; return whether it was."""
        return self.wait_for(lambda: command in self._terminal.commands, timeout)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Block until a condition holds, ``timeout`` seconds at most; return whether it does.

        :param condition: is called after each change, with the machine's lock held, so it must not block. It
            may read the properties.
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
            # While there is output, read only bytes that are there already, such as Ctrl-C.
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
        """Make the thread that serves the holder end. The caller holds the condition. Does not block."""
        if self._holder is not None:
            self._terminal.hang_up()
            with suppress(OSError):  # the connection has ended already
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
            raise ConnectionAbortedError("another client has the line")


def _received(connection: socket.socket, flags: int) -> bytes | None:
    """Return received bytes; b"" at the end of the stream; None if there are none yet."""
    try:
        return connection.recv(_CHUNK, flags)
    except BlockingIOError:
        return None
