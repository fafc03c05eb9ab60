"""``wsproxy sessions`` without a proxy: its arguments, and how it shows answers."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import socket
import socketserver
import tempfile
import threading
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from wsproxy.cli import main
from wsproxy.cli.ends import end_time
from wsproxy.cli.operator_client import duration, printable
from wsproxy.cli.sessions import _size
from wsproxy.protocol.response import http_response
from wsproxy.testing.case import LeakTestCase

_SESSION = {
    "id": "0a0b0c0d",
    "user": "eve\x1b[2J\u202e",
    "namespace": "lab-1",
    "vmi": "ubuntu",
    "subresource": "vnc",
    "client": "",
    "token_id": "t-1",
    "since": "2026-01-02T03:00:00.000Z",
    "expires": "2026-01-02T03:40:00.500Z",
    "last_activity": "2026-01-02T03:04:00.000Z",
    "bytes_up": 1000,
    "bytes_down": 5_000_000,
    "replica": "pod-1",
}
_OF_ANOTHER = {"replica": "pod-2", "last_activity": None, "bytes_up": None, "bytes_down": None}
_LIST = {
    "time": "2026-01-02T03:05:03.000Z",
    "sessions": [_SESSION, {**_SESSION, "id": "11111111", "user": 5, "expires": None, **_OF_ANOTHER}],
}
_KICKED = {
    "sessions": ["a"],
    "tokens": ["t"],
    "kick": "k1",
    "until": "2030-01-31T18:00:00.000Z",
    "behind": [],
    "needs_iat": False,
}
_TABLE = """\
ID        USER                NAMESPACE  VMI     CONSOLE  CLIENT  OPEN   EXPIRES    IDLE   UP    DOWN  REPLICA
0a0b0c0d  eve\\u001b[2J\\u202e  lab-1      ubuntu  vnc      -       5m03s  in 34m57s  1m03s  1000  4.8M  pod-1
11111111  5                   lab-1      ubuntu  vnc      -       5m03s  never      -      -     -     pod-2
"""


class CommandTestCase(LeakTestCase):
    """Runs the command without the variables of the environment."""

    command = "sessions"

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WSPROXY_")}
        for patcher in (
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.object(tempfile, "tempdir", self.directory),
        ):
            patcher.start()
            self.addCleanup(patcher.stop)

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit status, output and errors."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                status = main([self.command, *arguments])
            except SystemExit as exc:
                status = int(exc.code or 0)
        return status, output.getvalue(), errors.getvalue()


class Faults(CommandTestCase):
    def assert_fault(self, fault: str, *arguments: str) -> None:
        with self.subTest(arguments):
            status, output, errors = self.run_command(*arguments)
            self.assertEqual((status, output), (2, ""))
            self.assertIn(fault, errors)

    def test_faults(self) -> None:
        """Wrong arguments are reported before the command connects."""
        self.assert_fault("WSPROXY_ADMIN is not set; it must be HOST:PORT, [IPV6]:PORT or unix:PATH")
        self.assert_fault("WSPROXY_ADMIN is 9100; it must be", "--admin", "9100")
        self.assert_fault("invalid choice", "end")
        here = ("--admin", "unix:/nowhere/at/all")
        for chosen in (("0a0b0c0d",), ("--user", "5"), ("--token-file", "-")):
            self.assert_fault("give IDs and options to kick only", *here, "list", *chosen)
        several: tuple[tuple[str, ...], ...] = (
            (),
            ("0a0b0c0d", "--user", "5"),
            ("--user", "5", "--token-file", "-"),
        )
        for arguments in several:
            self.assert_fault("kick needs IDs, or --token-file, or any of", *here, "kick", *arguments)

    def test_until(self) -> None:
        """The end of a kick must be in the future, and no other reading of it may be possible."""
        here = ("--admin", "unix:/nowhere/at/all")
        self.assert_fault("--until is for kick only", *here, "list", "--until", "2h")
        self.assert_fault("--until does not go with IDs", *here, "kick", "a", "--until", "2h")
        for until, fault in (
            ("2000-01-01T00:00:00Z", "it is over; give a time such as"),
            ("0s", "it is over"),
            ("2030-01-31T18:00:00", "it has no time zone"),
            ("2030-02-31T18:00:00Z", "there is no such time"),
            ("2030-01-31", "give a time such as 2030-01-31T18:00:00Z, or a duration such as 30m, 2h or 7d"),
            ("2", "give a time such as"),
            ("2 h", "give a time such as"),
            ("1.5h", "give a time such as"),
            ("tomorrow", "give a time such as"),
            ("", "give a time such as"),
        ):
            fault = f"--until is {until!r}; {fault}"
            self.assert_fault(fault, *here, "kick", "--user", "5", f"--until={until}")

    def test_token(self) -> None:
        """If a token cannot be read, the error names its file. A file of another user is not used."""
        directory = os.path.join(self.directory, f"wsproxy-{os.getuid()}")
        path = os.path.join(directory, "admin-token")
        self.assert_fault(
            f"the operator's token in {path}: No such file or directory; name another file in WSPROXY_ADMIN_",
            *("--admin", "127.0.0.1:1"),
        )
        nowhere = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
        with mock.patch("tempfile.gettempdir", side_effect=nowhere):
            self.assert_fault(
                "the operator's token: No usable temporary directory found in ['/tmp']; "
                "name another file in WSPROXY_ADMIN_TOKEN_FILE",
                *("--admin", "127.0.0.1:1"),
            )
        os.mkdir(directory)
        os.chmod(directory, 0o777)
        with open(path, "w", encoding="ascii") as file:
            file.write("x" * 32)
        self.assert_fault("the directory must belong to this user", "--admin", "127.0.0.1:1")
        self.assert_fault("/nowhere: No such file", "--admin", "unix:/x", "--admin-token-file", "/nowhere")


class _Proxy(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    block_on_close = True


class AnswerCase(CommandTestCase):
    """Asks a stand-in for a proxy, which gives one answer."""

    def setUp(self) -> None:
        super().setUp()
        self.answer = b""
        self.requests: list[tuple[bytes, bytes]] = []
        test = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line, size = self.rfile.readline(), 0
                while header := self.rfile.readline().strip().lower():
                    if header.startswith(b"content-length:"):
                        size = int(header[15:])
                test.requests.append((line.strip(), self.rfile.read(size)))
                self.wfile.write(test.answer)

        path = os.path.join(self.directory, "admin")
        server = _Proxy(path, Handler)
        self.addCleanup(server.server_close)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        os.environ["WSPROXY_ADMIN"] = f"unix:{path}"

    def reply(self, status: int, body: Any) -> None:
        self.answer = http_response(status, json.dumps(body).encode())


class Answers(AnswerCase):
    """The output for a proxy's answers."""

    def test_list(self) -> None:
        """The table is readable, and contains no control characters."""
        self.reply(200, _LIST)
        self.assertEqual(self.run_command(), (0, _TABLE, ""))
        self.assertEqual(self.run_command("list"), (0, _TABLE, ""))
        status, output, _ = self.run_command("--json")
        self.assertEqual((status, json.loads(output)), (0, _LIST))
        self.assertEqual(self.requests, [(b"GET /sessions HTTP/1.1", b"")] * 3)

    def test_kick(self) -> None:
        """Options choose together, IDs one by one, a token by itself."""
        self.reply(200, _KICKED)
        path = os.path.join(self.directory, "token")
        with open(path, "w", encoding="ascii") as file:
            file.write("a.b.c\n")
        bodies: list[dict[str, str]]
        for arguments, bodies, what in (
            (
                ("--user", "5", "--namespace", "lab-1"),
                [{"user": "5", "namespace": "lab-1"}],
                "tokens with user 5, namespace lab-1 that were issued until now are",
            ),
            (
                ("--namespace", "a", "--vmi", "b"),
                [{"namespace": "a", "vmi": "b"}],
                "tokens with namespace a, vmi b that were issued until now are",
            ),
            (("--token-id", "x\n"), [{"token_id": "x\n"}], "tokens with token_id x\\u000a are"),
            (("--token-file", path), [{"token": "a.b.c"}], "the token is"),
        ):
            with self.subTest(arguments):
                self.requests.clear()
                said = (
                    f"1 sessions ended\nkick k1: {what} refused from now on, until 2030-01-31T18:00:00.000Z\n"
                )
                self.assertEqual(self.run_command("kick", *arguments), (0, said, ""))
                self.assertEqual([json.loads(body) for _, body in self.requests], bodies)
                self.assertEqual({line for line, _ in self.requests}, {b"POST /kick HTTP/1.1"})
        one = "kick k1: the token of the session is refused from now on, until 2030-01-31T18:00:00.000Z\n"
        self.assertEqual(self.run_command("kick", "a", "b"), (0, f"2 sessions ended\n{one}{one}", ""))
        self.assertEqual(
            [json.loads(body) for _, body in self.requests[-2:]], [{"session": "a"}, {"session": "b"}]
        )
        with mock.patch("sys.stdin", io.StringIO(" d.e.f \n")):
            status, output, _ = self.run_command("kick", "--token-file", "-", "--json")
        kick = {name: value for name, value in _KICKED.items() if name not in ("sessions", "tokens")}
        expected = {"sessions": ["a"], "tokens": ["t"], "kicks": [kick]}
        self.assertEqual((status, json.loads(output)), (0, expected))
        self.assertEqual(json.loads(self.requests[-1][1]), {"token": "d.e.f"})

    def test_nobody_there(self) -> None:
        """A kick of a user without a session has done what it should."""
        self.reply(200, _KICKED | {"sessions": [], "tokens": [], "until": None, "needs_iat": True})
        self.assertEqual(
            self.run_command("kick", "--user", "5"),
            (
                0,
                "0 sessions ended\n"
                "kick k1: tokens with user 5 that were issued until now are refused from now on, until you "
                "lift the kick\n"
                "  tokens without iat are refused, too, if they are issued later; see "
                "WSPROXY_TOKEN_LIFETIME\n"
                "  to lift it: wsproxy revocations lift k1\n",
                "",
            ),
        )

    def test_until(self) -> None:
        """The end of a kick is a time, or a duration from now."""
        self.reply(200, _KICKED)
        with mock.patch("wsproxy.cli.sessions.unix_time", lambda: 1.7e9):
            for until, seconds in (("2h", 1.7e9 + 7200), ("2030-01-31T19:00:00.5+01:00", 1896112800.5)):
                status, output, _ = self.run_command("kick", "--user", "5", "--until", until)
                self.assertEqual(status, 0)
                self.assertIn(
                    "  the tokens of the sessions that ended are refused until they expire\n", output
                )
                self.assertEqual(json.loads(self.requests[-1][1]), {"user": "5", "until": seconds})

    def test_not_everywhere(self) -> None:
        """Processes that are behind, and a kick that is not saved, have exit statuses of their own."""
        self.reply(200, _KICKED | {"behind": ["pod-2", "pod\n3"], "unsaved": "No space left"})
        status, output, errors = self.run_command("kick", "--user", "5")
        self.assertEqual((status, output[:16]), (3, "1 sessions ended"))
        behind = "not applied yet by pod-2, pod\\u000a3; they admit nobody until they have"
        unsaved = "not saved, so a restart of the proxy forgets it: No space left"
        self.assertEqual(errors, f"wsproxy sessions: {behind}\nwsproxy sessions: {unsaved}\n")
        self.reply(200, _KICKED | {"unsaved": "No space left"})
        self.assertEqual(self.run_command("kick", "a")[0], 4)

    def test_no_such_session(self) -> None:
        """A kick that does nothing is a failure, so that a script notices."""
        self.reply(200, {"sessions": [], "tokens": [], "kick": "", "until": None, "behind": []})
        self.assertEqual(
            self.run_command("kick", "a", "b"),
            (1, "0 sessions ended\n", "wsproxy sessions: no session matches a, b\n"),
        )

    def test_refused(self) -> None:
        """A refusal, another server, and no server are each reported in one line."""
        self.reply(401, {"message": "no\nway"})
        self.assertEqual(self.run_command(), (1, "", "wsproxy sessions: 401: no\\u000away\n"))
        where = os.environ["WSPROXY_ADMIN"]
        for answer in (
            b"SSH-2.0-x\r\n",
            http_response(200, b"hello"),
            http_response(404, b"[]"),
            http_response(200, b'{"sessions": 5}'),
            http_response(200, b"{}"),
            http_response(200, b"[" * 200_000),
        ):
            with self.subTest(answer):
                self.answer = answer
                status, output, errors = self.run_command()
                self.assertEqual((status, output), (1, ""))
                self.assertEqual(
                    errors, f"wsproxy sessions: {where} is not the operator's listener of a wsproxy\n"
                )
                if b"404" not in answer:
                    self.assertEqual(self.run_command("kick", "a"), (1, "", errors))
        os.environ["WSPROXY_ADMIN"] = f"unix:{self.directory}/nobody"
        status, output, errors = self.run_command()
        self.assertEqual((status, output), (1, ""))
        self.assertIn("no answer from unix:", errors)


class BadAnswer(CommandTestCase):
    """A proxy, or whatever else has that address, that does not finish its answer."""

    def ask(self, serve: Callable[[socket.socket], None]) -> tuple[int, str]:
        """Return exit status and errors, without the address, while ``serve`` has the connection."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def run() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                serve(sock)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        token = os.path.join(self.directory, "token")
        with open(token, "w", encoding="ascii") as file:
            file.write("t" * 20)
        status, _, errors = self.run_command("--admin", where, "--admin-token-file", token)
        return status, errors.replace(where, "PROXY")

    def test_deadline(self) -> None:
        """One deadline bounds the whole answer, and not each piece of it."""
        stop = threading.Event()

        def trickle(sock: socket.socket) -> None:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not stop.wait(0.01):
                sock.sendall(b" ")

        self.addCleanup(stop.set)
        with mock.patch("wsproxy.cli.operator_client._SECONDS", 0.3):
            told = self.ask(trickle)
        stop.set()
        self.assertEqual(told, (1, "wsproxy sessions: no answer from PROXY in 0 seconds\n"))

    def test_reset(self) -> None:
        """A broken connection is told in the system's words, without their number."""

        def reset(sock: socket.socket) -> None:
            sock.recv(1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        told = "wsproxy sessions: no answer from PROXY: Connection reset by peer\n"
        self.assertEqual(self.ask(reset), (1, told))


class Figures(unittest.TestCase):
    def test_ends(self) -> None:
        for text, end in (
            ("30m", 1.7e9 + 1800),
            ("7d", 1.7e9 + 7 * 86400),
            ("1w2h3s", 1.7e9 + 7 * 86400 + 7203),
            ("2030-01-31T18:00:00Z", 1896112800),
            ("2030-01-31 18:00z", 1896112800),
            ("2030-01-31t18:00:00.25-00:30", 1896114600.25),
        ):
            self.assertEqual(end_time(text, 1.7e9), end, text)

    def test_durations(self) -> None:
        for seconds, text in (
            (-3.0, "0s"),
            (59.9, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (7384, "2h03m"),
            (3 * 86400 + 4 * 3600, "3d04h"),
        ):
            self.assertEqual(duration(seconds), text)

    def test_sizes(self) -> None:
        for size, text in (
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (20_000, "20K"),
            (1_030_000, "1.0M"),
            (2**31, "2.0G"),
            (2**60, "1024P"),
        ):
            self.assertEqual(_size(size), text)

    def testprintable(self) -> None:
        self.assertEqual(printable("Éva"), "Éva")
        self.assertEqual(printable(5), "5")
        self.assertEqual(printable("a\nb"), "a\\u000ab")


if __name__ == "__main__":
    unittest.main()
