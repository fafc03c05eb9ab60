"""``wsproxy revocations`` without a proxy: its arguments, and how it shows answers."""

from __future__ import annotations

import json
import os
import unittest
from typing import Any

from tests.cli.test_sessions import AnswerCase, CommandTestCase

_KICK = {
    "kick": "k1",
    "matches": [{"user": "eve\x1b[2J"}],
    "made_at": "2026-01-02T03:00:00.000Z",
    "until": "2026-01-02T03:40:00.500Z",
    "replica": "pod-1",
    "tokens": 2,
    "needs_iat": False,
}
_LIST = {
    "time": "2026-01-02T03:05:03.000Z",
    "revocations": [
        _KICK,
        {
            **_KICK,
            "kick": "k2",
            "matches": [{"namespace": "lab-1", "vmi": "ubuntu"}],
            "until": None,
            "needs_iat": True,
        },
        {**_KICK, "kick": "k3", "matches": [{"token": "aa"}, {"token_id": "b"}], "replica": ""},
        {**_KICK, "kick": "k4", "matches": []},
    ],
    "next": None,
}
_TABLE = """\
KICK  REFUSES                     MADE       ENDS         LATER     TOKENS  REPLICA
k1    user=eve\\u001b[2J           5m03s ago  in 34m57s    all       2       pod-1
k2    namespace=lab-1 vmi=ubuntu  5m03s ago  when lifted  with iat  2       pod-1
k3    token=aa; token_id=b        5m03s ago  in 34m57s    -         2       -
k4    -                           5m03s ago  in 34m57s    -         2       pod-1
"""


class Faults(CommandTestCase):
    command = "revocations"

    def test_faults(self) -> None:
        """Wrong arguments are reported before the command connects."""
        here = ("--admin", "unix:/nowhere/at/all")
        for arguments, fault in (
            ((), "WSPROXY_ADMIN is not set"),
            ((*here, "list", "k1"), "list always lists all kicks; give IDs to lift only"),
            ((*here, "lift"), "lift needs IDs of kicks; list shows them"),
            ((*here, "end"), "invalid choice"),
        ):
            with self.subTest(arguments):
                status, output, errors = self.run_command(*arguments)
                self.assertEqual((status, output), (2, ""))
                self.assertIn(fault, errors)


class Answers(AnswerCase):
    command = "revocations"

    def test_list(self) -> None:
        """The table is readable, and contains no control characters."""
        self.reply(200, _LIST)
        self.assertEqual(self.run_command(), (0, _TABLE, ""))
        self.assertEqual(self.run_command("list"), (0, _TABLE, ""))
        status, output, _ = self.run_command("--json")
        expected: dict[str, Any] = {"time": _LIST["time"], "revocations": _LIST["revocations"]}
        self.assertEqual((status, json.loads(output)), (0, expected))
        self.assertEqual(self.requests, [(b"GET /revocations HTTP/1.1", b"")] * 3)

    def test_pages(self) -> None:
        """The pages of a list come one after the other, and do not come without end."""
        self.reply(200, {**_LIST, "revocations": [], "next": "1.5e+9-k\r\nX: y"})
        status, output, errors = self.run_command()
        self.assertEqual((status, output), (1, ""))
        self.assertIn("is not the operator's listener of a wsproxy", errors)
        self.assertEqual(len(self.requests), 1000)
        self.assertEqual(self.requests[1][0], b"GET /revocations?before=1.5e+9-k%0D%0AX%3A%20y HTTP/1.1")

    def test_lift(self) -> None:
        self.reply(200, {"kick": "k1", "behind": []})
        self.assertEqual(self.run_command("lift", "k1", "k2"), (0, "2 kicks lifted\n", ""))
        self.assertEqual(
            [line for line, _ in self.requests],
            [b"DELETE /revocations/k1 HTTP/1.1", b"DELETE /revocations/k2 HTTP/1.1"],
        )
        status, output, _ = self.run_command("lift", "k1", "--json")
        self.assertEqual((status, json.loads(output)), (0, {"lifted": [{"kick": "k1", "behind": []}]}))

    def test_not_everywhere(self) -> None:
        """Processes that are behind, and a lift that is not saved, have exit statuses of their own."""
        self.reply(200, {"kick": "k1", "behind": ["pod-2"]})
        told = "wsproxy revocations: not applied yet by pod-2; they admit nobody until they have\n"
        self.assertEqual(self.run_command("lift", "k1"), (3, "1 kicks lifted\n", told))
        self.reply(200, {"kick": "k1", "behind": [], "unsaved": "No space left"})
        self.assertEqual(self.run_command("lift", "k1")[0], 4)

    def test_missing(self) -> None:
        """Kicks that are not there are named, and the others are lifted all the same."""
        self.reply(404, {"message": "there is no such kick"})
        told = "wsproxy revocations: no kick has the ID k1, a/../b, k\\u000a\n"
        self.assertEqual(self.run_command("lift", "k1", "a/../b", "k\n"), (1, "0 kicks lifted\n", told))
        self.assertEqual(len(self.requests), 1, "what can be no ID is not sent")

    def test_refused(self) -> None:
        """A refusal, another server, and no server are each reported in one line."""
        self.reply(401, {"message": "no way"})
        for arguments in ((), ("lift", "k1")):
            self.assertEqual(self.run_command(*arguments), (1, "", "wsproxy revocations: 401: no way\n"))
        bodies: tuple[dict[str, Any], ...] = (
            {},
            {**_LIST, "revocations": 5},
            {**_LIST, "revocations": [{}]},
            {**_LIST, "time": "x"},
        )
        for body in bodies:
            with self.subTest(body):
                self.reply(200, body)
                status, output, errors = self.run_command()
                self.assertEqual((status, output), (1, ""))
                self.assertIn("is not the operator's listener of a wsproxy", errors)
        os.environ["WSPROXY_ADMIN"] = f"unix:{self.directory}/nobody"
        self.assertIn("no answer from unix:", self.run_command()[2])


if __name__ == "__main__":
    unittest.main()
