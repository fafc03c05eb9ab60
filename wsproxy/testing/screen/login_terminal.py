"""The machine's end of a serial line: it boots, asks for a login, and runs a few commands. No I/O."""

from __future__ import annotations

import codecs
import enum
import shlex
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime

from .line_editor import MAX_LINE, LineEditor

__all__ = ["LoginTerminal"]

_INTERRUPT, _END = "\x03", "\x04"
_LINE_ENDS = "\r\n"
_MAX_COMMANDS = 1000  # the number of typed lines that are kept
_MAX_NUMBERS = 1_000_000
_NUMBERS_AT_ONCE = 500
_KERNEL = "Linux {host} 6.1.0-wsproxy x86_64"
_BOOT = (
    "[    0.000000] Linux version 6.1.0-wsproxy",
    "[    0.000000] Command line: root=/dev/vda1 console=ttyS0,115200",
    "[    0.412345] Serial: 8250/16550 driver, 1 ports",
    "[    1.023456] EXT4-fs (vda1): mounted filesystem",
    "[  \x1b[32mOK\x1b[0m  ] Started Serial Getty on ttyS0.",
)
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


class _At(enum.Enum):
    """The purpose of the line that is being typed."""

    NOTHING = enum.auto()  # no client has pressed Enter yet
    LOGIN = enum.auto()
    PASSWORD = enum.auto()
    SHELL = enum.auto()


class LoginTerminal:
    """The machine's end of the line. Only one thread at a time may use it.

    :param host: the name of the machine.
    :param user: the user who may log in.
    :param password: the user's password.
    :param now: returns the time of day for ``date``.
    :ivar commands: the last thousand lines that were typed at the shell's prompt.
    """

    def __init__(self, host: str, user: str, password: str, now: Callable[[], datetime]) -> None:
        self.commands: deque[str] = deque(maxlen=_MAX_COMMANDS)
        self._host, self._user, self._password, self._now = host, user, password, now
        self._at = _At.NOTHING
        self._name = ""
        self._editor = LineEditor()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._shown: list[str] = []
        self._running: Iterator[str] | None = None
        self._ahead = ""  # the characters typed while a command runs
        self._commands = {
            "clear": (self._clear, "clear the screen"),
            "colours": (self._colours, "show the terminal's colours"),
            "date": (self._date, "print the time"),
            "echo": (self._echo, "print its arguments"),
            "exit": (self._exit, "log out, like Ctrl-D"),
            "help": (self._help, "print this list"),
            "seq": (self._seq, "count up to a number; Ctrl-C ends it"),
            "uname": (self._uname, "print the system's name; -a prints more"),
            "whoami": (self._whoami, "print the name of the user"),
        }

    @property
    def logged_in(self) -> bool:
        """Whether a user is logged in."""
        return self._at is _At.SHELL

    def receive(self, data: bytes) -> None:
        """Take typed bytes, which may be cut anywhere."""
        self._take(self._decoder.decode(data))

    def output(self) -> bytes:
        """Return the bytes to send next; empty if there are none until further keys come."""
        while self._running is not None and not self._shown:
            piece = next(self._running, None)
            if piece is not None:
                self._shown.append(piece)
            else:
                self._finish()
        shown, self._shown = "".join(self._shown), []
        return shown.encode()

    def hang_up(self) -> None:
        """Forget the client's unfinished input and output. A login session continues."""
        self._decoder.reset()
        if self._running is not None:
            self._interrupt()
        self._shown.clear()

    # --- keys ---

    def _take(self, text: str) -> None:
        for character in text:
            if self._running is None:
                self._press(character)
            elif character == _INTERRUPT:
                self._interrupt()
            elif len(self._ahead) < MAX_LINE:
                self._ahead += character

    def _press(self, character: str) -> None:
        if character in _LINE_ENDS:
            self._show("\r\n")
            self._enter(self._editor.take())
        elif self._at is _At.NOTHING:
            pass
        elif character == _INTERRUPT:
            self._interrupt()
        elif character == _END:
            if self._editor.empty:
                self._log_out()
                self._prompt()
        else:
            self._show(self._editor.press(character, echo=self._at is not _At.PASSWORD))

    def _interrupt(self) -> None:
        self._running, self._ahead = None, ""
        self._editor.take()
        self._show("^C\r\n")
        if self._at is _At.PASSWORD:
            self._at = _At.LOGIN
        self._prompt()

    def _enter(self, line: str) -> None:
        if self._at is _At.NOTHING:
            self._boot()
        elif self._at is _At.LOGIN:
            self._name = line.strip()
            self._at = _At.PASSWORD if self._name else _At.LOGIN
            self._prompt()
        elif self._at is _At.PASSWORD:
            self._log_in(line)
        else:
            self._run(line)

    def _show(self, text: str) -> None:
        if text:
            self._shown.append(text)

    # --- login ---

    def _boot(self) -> None:
        self._show("".join(f"{line}\r\n" for line in _BOOT))
        self._log_out()
        self._prompt()

    def _prompt(self) -> None:
        prompts = {
            _At.LOGIN: f"{self._host} login: ",
            _At.PASSWORD: "Password: ",
            _At.SHELL: f"{self._user}@{self._host}:~$ ",
        }
        self._show(prompts[self._at])

    def _log_in(self, password: str) -> None:
        if (self._name, password) != (self._user, self._password):
            self._show("\r\nLogin incorrect\r\n")
            self._at = _At.LOGIN
        else:
            self._show("\r\nWelcome. Type help for a list of commands.\r\n")
            self._at = _At.SHELL
        self._prompt()

    def _log_out(self) -> None:
        """Log out, so that the next prompt asks for a user."""
        if self._at is _At.SHELL:
            self._show("logout\r\n")
        self._at = _At.LOGIN
        self._show(f"\r\n{self._host} ttyS0 (log in as {self._user}, password {self._password})\r\n\r\n")

    # --- the shell ---

    def _run(self, line: str) -> None:
        try:
            words = shlex.split(line)
        except ValueError:
            self._show("sh: a quotation mark is missing\r\n")
            words = []
        if line.strip():
            self.commands.append(line)
        self._running = self._output_of(words)

    def _output_of(self, words: list[str]) -> Iterator[str]:
        if not words:
            return iter(())
        name, *arguments = words
        if name not in self._commands:
            return iter((f"sh: {name}: command not found\r\n",))
        return self._commands[name][0](arguments)

    def _finish(self) -> None:
        """End the command that has run, and take the characters that were typed meanwhile."""
        self._running = None
        ahead, self._ahead = self._ahead, ""
        self._prompt()
        self._take(ahead)

    def _clear(self, arguments: list[str]) -> Iterator[str]:
        yield "\x1b[H\x1b[2J\x1b[3J"

    def _colours(self, arguments: list[str]) -> Iterator[str]:
        for number, name in enumerate(_COLOURS):
            samples = (f"\x1b[{kind}{number}m{name:8}\x1b[0m" for kind in (3, 9, 4))  # dark, bright, behind
            yield " ".join(samples) + "\r\n"

    def _date(self, arguments: list[str]) -> Iterator[str]:
        yield f"{self._now():%Y-%m-%d %H:%M:%S}\r\n"

    def _echo(self, arguments: list[str]) -> Iterator[str]:
        yield " ".join(arguments) + "\r\n"

    def _exit(self, arguments: list[str]) -> Iterator[str]:
        self._log_out()
        yield from ()

    def _help(self, arguments: list[str]) -> Iterator[str]:
        yield "".join(f"{name:8} {purpose}\r\n" for name, (_, purpose) in self._commands.items())

    def _seq(self, arguments: list[str]) -> Iterator[str]:
        last = arguments[0] if arguments else ""
        if not (last.isascii() and last.isdigit() and len(last) < 9 and int(last) <= _MAX_NUMBERS):
            yield f"usage: seq LAST; LAST is {_MAX_NUMBERS} at most\r\n"
            return
        for first in range(1, int(last) + 1, _NUMBERS_AT_ONCE):
            numbers = range(first, min(first + _NUMBERS_AT_ONCE, int(last) + 1))
            yield "".join(f"{number}\r\n" for number in numbers)

    def _uname(self, arguments: list[str]) -> Iterator[str]:
        yield (_KERNEL.format(host=self._host) if arguments == ["-a"] else "Linux") + "\r\n"

    def _whoami(self, arguments: list[str]) -> Iterator[str]:
        yield f"{self._user}\r\n"
