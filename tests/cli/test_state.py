"""``wsproxy state``: the store in the foreground, for a service manager."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile

from tests.support.processes import python
from wsproxy.state.membership import Member, Publication
from wsproxy.state.stores.local.store import LocalStore
from wsproxy.testing.case import LeakTestCase

_ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "wsproxy", "state"])
"""


def ended(process: subprocess.Popen[str]) -> str:
    """Return what a process said until its end."""
    assert process.stdout
    output = process.stdout.read()
    process.wait()
    return output


class StateCommandTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix="wsproxy-")
        self.addCleanup(directory.cleanup)
        self.path = f"{directory.name}/store"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(f"{directory.name}/notify")
        self.manager.settimeout(30)
        self.env = dict(os.environ, NOTIFY_SOCKET=f"{directory.name}/notify")

    def publish(self, store: LocalStore) -> bool:
        """Publish as a member; return whether the store is settled."""
        return store.publish(Publication(Member("a", "a", 0.3))).settled

    def test_service(self) -> None:
        """It says that it is ready, answers, keeps others out, and ends in good order."""
        command = ("-m", "wsproxy", "state", "--listen", f"unix:{self.path}")
        store = LocalStore(self.path, timeout=20)
        self.addCleanup(store.close)
        with python(*command, env=self.env) as process:
            self.assertEqual(self.manager.recv(100), b"READY=1")
            self.assertFalse(self.publish(store), "nobody knows whether there were members")
            with python(*command, env=self.env) as second:
                output = ended(second)
            self.assertEqual(second.returncode, 1)
            self.assertIn("another store runs at", output)
            process.send_signal(signal.SIGTERM)
            output = ended(process)
        self.assertEqual(process.returncode, 0, output)
        self.assertIn("the store answers at", output)
        self.assertFalse(os.path.exists(self.path))

    def test_activated(self) -> None:
        """It serves at the socket that the service manager passes, and leaves its path alone."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen()
            listener.set_inheritable(True)
            arguments = [sys.executable, "-c", _ACTIVATE, str(listener.fileno())]
            process = subprocess.Popen(
                arguments, env=self.env, pass_fds=(listener.fileno(),), stderr=subprocess.DEVNULL
            )
            store = LocalStore(self.path, timeout=20)
            try:
                self.publish(store)
                self.assertEqual([member.id for member in store.members()], ["a"])
            finally:
                store.close()
                process.terminate()
                status = process.wait()
        self.assertEqual(status, 0)
        self.assertTrue(os.path.exists(self.path))

    def test_faults(self) -> None:
        """What is wrong with the options is said, and nothing is started."""
        for options, fault in (
            ((), "--listen is missing"),
            (("--listen", "127.0.0.1:80"), "must be unix:PATH"),
            (("--listen", "unix:" + 101 * "x"), "100 bytes"),
            (("--listen", f"unix:{self.path}", "--group", "no-such-group"), "no such group"),
        ):
            with self.subTest(options), python("-m", "wsproxy", "state", *options) as process:
                output = ended(process)
                self.assertIn(fault, output)
                self.assertEqual(process.returncode, 2)

    def test_no_directory(self) -> None:
        with python("-m", "wsproxy", "state", "--listen", f"unix:{self.path}/missing/store") as process:
            output = ended(process)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(output, r"\Awsproxy state: .*No such file or directory: .*missing/store.*\n\Z")
