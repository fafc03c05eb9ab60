"""The machine's end of a serial line: login and shell, without any connection."""

from __future__ import annotations

import unittest
from datetime import datetime

from wsproxy.testing.screen.login_terminal import LoginTerminal

NOON = datetime(2026, 1, 1, 12, 0, 0)
ABOVE = "\r\nvm ttyS0 (log in as ann, password pw)\r\n\r\n"
PROMPT = "ann@vm:~$ "


class TerminalTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.terminal = LoginTerminal("vm", "ann", "pw", lambda: NOON)

    def send(self, data: str | bytes) -> str:
        """Type something; return all that is shown until the machine waits for more."""
        self.terminal.receive(data.encode() if isinstance(data, str) else data)
        shown = b""
        while piece := self.terminal.output():
            shown += piece
        return shown.decode()


class LoginTest(TerminalTestCase):
    def test_silent_until_enter(self) -> None:
        """Nothing is shown before Enter. Then the boot is shown once, with the user who may log in."""
        self.assertEqual(self.send("abc\x03\x04"), "")
        shown = self.send("\r")
        self.assertTrue(shown.startswith("\r\n[    0.000000] Linux version"), shown)
        self.assertTrue(shown.endswith(f"{ABOVE}vm login: "), shown)
        self.assertEqual(self.send("\r"), "\r\nvm login: ")

    def test_login(self) -> None:
        """The user's name is shown, the password is not."""
        self.send("\r")
        self.assertEqual(self.send("ann\r"), "ann\r\nPassword: ")
        self.assertFalse(self.terminal.logged_in)
        shown = self.send("pw\r")
        self.assertEqual(shown, f"\r\n\r\nWelcome. Type help for a list of commands.\r\n{PROMPT}")
        self.assertTrue(self.terminal.logged_in)

    def test_all_at_once(self) -> None:
        """The result does not depend on how the keys are cut, or on the line end."""
        self.send("\n")
        for key in "ann\npw":
            self.send(key)
        self.assertIn(PROMPT, self.send("\recho a\r"))
        self.assertEqual(list(self.terminal.commands), ["echo a"])

    def test_wrong(self) -> None:
        """After a wrong name or password the machine says so, and asks for the name again."""
        self.send("\r")
        for name, password in (("ann", "PW"), ("bob", "pw"), ("ann", ""), ("ann", "pw pw")):
            with self.subTest(name=name, password=password):
                shown = self.send(f"{name}\r{password}\r")
                self.assertEqual(shown, f"{name}\r\nPassword: \r\n\r\nLogin incorrect\r\nvm login: ")
                self.assertFalse(self.terminal.logged_in)

    def test_interrupted(self) -> None:
        """Ctrl-C gives the name or the password up."""
        self.send("\r")
        self.assertEqual(self.send("an\x03"), "an^C\r\nvm login: ")
        self.assertEqual(self.send("ann\rp\x03"), "ann\r\nPassword: ^C\r\nvm login: ")
        self.assertEqual(self.send("\x04"), f"{ABOVE}vm login: ")


class ShellTest(TerminalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.send("\rann\rpw\r")

    def run_command(self, line: str) -> str:
        """Type a command; return what it prints."""
        shown = self.send(f"{line}\r")
        self.assertTrue(shown.startswith(f"{line}\r\n") and shown.endswith(PROMPT), shown)
        return shown[len(line) + 2 : -len(PROMPT)]

    def test_commands(self) -> None:
        """Each command prints what it is for."""
        for line, printed in (
            ("echo a  'b  c' ü", "a b  c ü\r\n"),
            ("echo", "\r\n"),
            ("uname", "Linux\r\n"),
            ("uname -a", "Linux vm 6.1.0-wsproxy x86_64\r\n"),
            ("date", "2026-01-01 12:00:00\r\n"),
            ("whoami", "ann\r\n"),
            ("clear", "\x1b[H\x1b[2J\x1b[3J"),
            ("seq 3", "1\r\n2\r\n3\r\n"),
            ("seq 0", ""),
            ("", ""),
            ("   ", ""),
            ("rm -rf /", "sh: rm: command not found\r\n"),
            ("echo 'a", "sh: a quotation mark is missing\r\n"),
        ):
            with self.subTest(line=line):
                self.assertEqual(self.run_command(line), printed)

    def test_help(self) -> None:
        """Help names every command, and each that it names is one."""
        names = [line.split()[0] for line in self.run_command("help").splitlines()]
        self.assertIn("echo", names)
        for name in names:
            if name != "exit":
                self.assertNotIn("not found", self.run_command(name))

    def test_colours(self) -> None:
        """The colours are those of ECMA-48, and each line ends with the usual one."""
        shown = self.run_command("colours")
        self.assertEqual(len(shown.splitlines()), 8)
        self.assertIn("\x1b[31mred     \x1b[0m \x1b[91mred     \x1b[0m", shown)
        self.assertTrue(all(line.endswith("\x1b[0m") for line in shown.splitlines()))

    def test_much_output(self) -> None:
        """Many lines come in pieces, none is missing, and there is a bound."""
        self.terminal.receive(b"seq 20000\r")
        pieces = []
        while piece := self.terminal.output():
            pieces.append(piece)
        self.assertLess(max(map(len, pieces)), 10_000)
        numbers = b"".join(pieces).split(b"\r\n")[1:-1]
        self.assertEqual(numbers, [b"%d" % number for number in range(1, 20_001)])
        for last in ("", "x", "-1", "1000001", "9" * 5000, "²"):
            with self.subTest(last=last[:9]):
                self.assertIn("usage: seq", self.send(f"seq {last}\r"))

    def test_interrupt(self) -> None:
        """Ctrl-C ends what runs, at once, and drops what was typed ahead."""
        self.terminal.receive(b"seq 1000000\r")
        first = self.terminal.output() + self.terminal.output()
        self.assertIn(b"500\r\n", first)
        self.assertEqual(self.send("echo ahead\r\x03"), f"^C\r\n{PROMPT}")
        self.assertEqual(self.send("half a line\x03"), f"half a line^C\r\n{PROMPT}")
        self.assertEqual(list(self.terminal.commands), ["seq 1000000"])

    def test_typed_ahead(self) -> None:
        """What is typed while a command runs is taken after it, up to a line's length."""
        self.terminal.receive(b"seq 1000\r")
        self.terminal.output()
        self.assertTrue(self.send("echo a\recho b\r").endswith(f"echo b\r\nb\r\n{PROMPT}"))
        self.terminal.receive(b"seq 1000\r")
        self.terminal.output()
        self.send("x" * 1000)
        self.assertEqual(self.send("\r").count("x"), 256)

    def test_logging_out(self) -> None:
        """The command exit and Ctrl-D on an empty line log out; Ctrl-D behind text does nothing."""
        self.assertEqual(self.send("exit\r"), f"exit\r\nlogout\r\n{ABOVE}vm login: ")
        self.assertFalse(self.terminal.logged_in)
        self.send("ann\rpw\r")
        self.assertEqual(self.send("a\x04"), "a")
        self.assertEqual(self.send("\b\x04"), f"\b \blogout\r\n{ABOVE}vm login: ")

    def test_cut_characters(self) -> None:
        """A character whose bytes come one by one is one character; what is no UTF-8 is replaced."""
        shown = "".join(self.send(bytes([byte])) for byte in "echo ü€漢\r".encode())
        self.assertEqual(shown, f"echo ü€漢\r\nü€漢\r\n{PROMPT}")
        self.assertIn("a\N{REPLACEMENT CHARACTER}b\r\n", self.send(b"echo a\xffb\r"))

    def test_hang_up(self) -> None:
        """A new client inherits the login session, but no output and no running command."""
        self.terminal.receive(b"seq 1000000\r\xc3")
        self.terminal.output()
        self.terminal.hang_up()
        self.assertEqual(self.send(""), "")
        self.assertEqual(self.send("\r"), f"\r\n{PROMPT}")

    def test_commands_that_are_kept(self) -> None:
        """Commands are kept as they were typed, but no more than a thousand."""
        for number in range(1001):
            self.run_command(f"echo  {number}")
        self.assertEqual(len(self.terminal.commands), 1000)
        self.assertEqual(self.terminal.commands[-1], "echo  1000")
