"""What a machine does at its serial line: it boots, asks who is there, and runs a few commands. No I/O."""

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
_MAX_COMMANDS = 1000  # kept
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
    """What the line that is being typed is for."""

    NOTHING = enum.auto()  # nobody has pressed Enter yet
    LOGIN = enum.auto()
    PASSWORD = enum.auto()
    SHELL = enum.auto()


class LoginTerminal:
    """The machine's end of the line. Not safe for several threads.

    :param host: name of the machine.
    :param user: who may log in; ``password`` alike.
    :param now: the time of day for ``date``.
    :ivar commands: the lines that were typed at the shell's prompt, the last thousand.
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
        self._ahead = ""  # typed while a command runs
        self._commands = {
            "clear": (self._clear, "clear the screen"),
            "colours": (self._colours, "show the terminal's colours"),
            "date": (self._date, "tell the time"),
            "echo": (self._echo, "print the words that follow"),
            "exit": (self._exit, "log out; so does Ctrl-D"),
            "help": (self._help, "print this list"),
            "seq": (self._seq, "count up to a number: much output, which Ctrl-C ends"),
            "uname": (self._uname, "name the system; with -a more of it"),
            "whoami": (self._whoami, "tell who is logged in"),
        }

    @property
    def logged_in(self) -> bool:
        """Whether somebody is logged in."""
        return self._at is _At.SHELL

    def receive(self, data: bytes) -> None:
        """Take what was typed, however it was cut into pieces."""
        self._take(self._decoder.decode(data))

    def output(self) -> bytes:
        """Return what is to be sent next; nothing if that takes further keys."""
        while self._running is not None and not self._shown:
            piece = next(self._running, None)
            if piece is not None:
                self._shown.append(piece)
            else:
                self._finish()
        shown, self._shown = "".join(self._shown), []
        return shown.encode()

    def hang_up(self) -> None:
        """Forget what only the one at the other end knew of; who was logged in stays so."""
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
            self._show("\r\nWelcome. Type help for what can be done here.\r\n")
            self._at = _At.SHELL
        self._prompt()

    def _log_out(self) -> None:
        """Ask for a user again, at the next prompt."""
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
        """End the command that has run, and take what was typed meanwhile."""
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
            yield f"usage: seq LAST, which is {_MAX_NUMBERS} at most\r\n"
            return
        for first in range(1, int(last) + 1, _NUMBERS_AT_ONCE):
            numbers = range(first, min(first + _NUMBERS_AT_ONCE, int(last) + 1))
            yield "".join(f"{number}\r\n" for number in numbers)

    def _uname(self, arguments: list[str]) -> Iterator[str]:
        yield (_KERNEL.format(host=self._host) if arguments == ["-a"] else "Linux") + "\r\n"

    def _whoami(self, arguments: list[str]) -> Iterator[str]:
        yield f"{self._user}\r\n"
