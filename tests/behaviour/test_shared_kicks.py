"""Kicks and lifts of programs that share a store: made at one, they hold at the other."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any

from tests.support.jws import signed_token, unverified_claims
from tests.support.proxy_process import ProxyProcess, wait_until
from wsproxy.cli import main
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 30.0


class SharedKicksTest(ProxyTestCase):
    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.store = self.start_store()
        self.first, self.second = self.start("pod-1"), self.start("pod-2")

    def start_store(self) -> subprocess.Popen[bytes]:
        path = f"{self.directory}/state"
        store = subprocess.Popen(
            [sys.executable, "-m", "wsproxy", "state", "--listen", f"unix:{path}"], stderr=subprocess.DEVNULL
        )
        self.addCleanup(store.wait)
        self.addCleanup(store.kill)
        self.assertTrue(wait_until(lambda: os.path.exists(path), _TIMEOUT))
        return store

    def start(self, name: str) -> ProxyProcess:
        program = ProxyProcess(
            self.api,
            WSPROXY_STATE=f"local:{self.directory}/state",
            WSPROXY_STATE_LEASE="5",
            WSPROXY_REPLICA_NAME=name,
            WSPROXY_ADMIN=f"unix:{self.directory}/{name}",
        )
        self.addCleanup(program.close)
        return program

    def command(self, name: str, *arguments: str) -> tuple[int, str]:
        """Ask a program's listener; return exit status, output and errors."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = main([*arguments, "--admin", f"unix:{self.directory}/{name}"])
        return status, output.getvalue()

    def kicks(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.command(name, "revocations", "--json")[1])[
            "revocations"
        ]
        return found

    def token_without_iat(self) -> str:
        claims = unverified_claims(self.token("vm", user=5))
        claims.pop("iat", None)
        return signed_token(claims, SECRET)

    def knock(self, program: ProxyProcess, token: str) -> RawClient:
        client = RawClient.open(f"{program.url}/{token}/vm")
        self.addCleanup(client.close)
        return client

    def admitted(self, program: ProxyProcess, token: str) -> bool:
        with self.knock(program, token) as client:
            return client.status == 101

    def test_everywhere(self) -> None:
        """A kick at one ends the session at the other. Each lists it, and can lift it for both."""
        token = self.token_without_iat()
        self.assertTrue(wait_until(lambda: self.admitted(self.second, token), _TIMEOUT), "it is in step")
        client = self.knock(self.second, token)
        self.assertEqual(client.status, 101)
        client.send_frame(BINARY, b"x")
        client.recv_frame(_TIMEOUT)
        self.assertTrue(wait_until(lambda: " pod-2" in self.command("pod-1", "sessions")[1], _TIMEOUT))
        row = self.command("pod-1", "sessions")[1].splitlines()[-1]
        self.assertRegex(row, r"  -     -   -     pod-2$")

        status, told = self.command("pod-1", "sessions", "kick", "--user", "5")
        self.assertEqual(status, 0, told)
        self.assertEqual(client.recv_close(_TIMEOUT), (4499, "kicked"))
        for program in (self.first, self.second):
            self.assertEqual(self.knock(program, token).status, 401)
        for name in ("pod-1", "pod-2"):
            (kick,) = self.kicks(name)
            self.assertEqual(
                (kick["replica"], kick["matches"], kick["tokens"]), ("pod-1", [{"user": "5"}], 1)
            )

        status, told = self.command("pod-2", "revocations", "lift", kick["kick"])
        self.assertEqual((status, told), (0, "1 kicks lifted\n"))
        self.assertEqual((self.kicks("pod-1"), self.kicks("pod-2")), ([], []))
        for program in (self.first, self.second):
            self.assertEqual(self.knock(program, token).status, 101)

    def test_behind(self) -> None:
        """A program that does not answer is named, and the exit status says so."""
        self.assertTrue(wait_until(lambda: self.admitted(self.second, self.token_without_iat()), _TIMEOUT))
        self.second.process.send_signal(signal.SIGSTOP)
        try:
            status, told = self.command("pod-1", "sessions", "kick", "--user", "6")
        finally:
            self.second.process.send_signal(signal.SIGCONT)
        self.assertEqual(status, 3, told)
        self.assertIn("wsproxy sessions: not applied yet by pod-2; they admit nobody until they have\n", told)
