"""The program with a file of revocations: what a crash leaves, and when it does not start."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.proxy_process import ProxyProcess, environment_for
from wsproxy.cli import main
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 60


class StateFileTest(ProxyTestCase):
    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.file = Path(directory.name, "revocations")
        self.admin = f"unix:{directory.name}/admin"

    def start(self) -> ProxyProcess:
        program = ProxyProcess(self.api, WSPROXY_STATE_FILE=str(self.file), WSPROXY_ADMIN=self.admin)
        self.addCleanup(program.close)
        return program

    def not_started(self) -> str:
        """Start the program, which must refuse to; return what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "wsproxy"],
            env=environment_for(self.api) | {"WSPROXY_STATE_FILE": str(self.file)},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
        self.assertEqual(done.returncode, 2, done.stderr)
        return done.stderr

    def status(self, program: ProxyProcess, token: str) -> int:
        with RawClient.open(f"{program.url}/{token}/vm") as client:
            return client.status

    def command(self, *arguments: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.assertEqual(main([*arguments, "--admin", self.admin]), 0)
        return output.getvalue()

    def test_killed(self) -> None:
        """A kick that was answered holds after a SIGKILL, and so does a lift."""
        token, other = self.token("vm", user=5), self.token("vm", user=6)
        first = self.start()
        for user in ("5", "6"):
            self.command("sessions", "kick", "--user", user)
        newest = self.command("revocations").split("\n")[1].split()[0]
        self.command("revocations", "lift", newest)
        self.assertEqual(first.stop(signal.SIGKILL), -signal.SIGKILL)
        second = self.start()
        self.assertEqual((self.status(second, token), self.status(second, other)), (401, 101))
        self.assertIn("user=5", self.command("revocations"))
        self.assertEqual(os.stat(self.file).st_mode & 0o777, 0o600)

    def test_wrong_file(self) -> None:
        """With a file that it cannot understand, or that another process has, the program does not start."""
        self.file.write_bytes(b'{"schema": 2}')
        self.assertIn("a later version of wsproxy has written it (schema 2)", self.not_started())
        self.file.unlink()
        self.start()
        self.assertIn("another process has it; stop that one first", self.not_started())

    def test_address_in_use(self) -> None:
        """A proxy that cannot listen leaves the file to the next one at once."""
        settings = self.proxy_options(state_file=str(self.file))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            try:
                WebsocketProxy(**settings).run_in_thread("127.0.0.1", taken.getsockname()[1])
            except OSError:  # while it is handled, the first proxy's objects are still there
                with WebsocketProxy(**settings).run_in_thread("127.0.0.1", 0) as proxy:
                    self.assertEqual(proxy.sessions(), [])
            else:
                self.fail("two listen at one address")
