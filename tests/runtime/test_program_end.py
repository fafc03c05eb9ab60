"""What keeps a program up, and what does not; tests/behaviour/test_program_end.py has whole programs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import unittest
from types import ModuleType
from unittest import mock

from tests.support.processes import python
from wsproxy.runtime import program_end
from wsproxy.runtime.program_end import Service, keeps_program_up
from wsproxy.testing.case import LeakTestCase

_TIMEOUT = 60.0
_SERVICE = """
import sys, threading
from wsproxy.runtime.program_end import Service, keeps_program_up
service = Service(lambda: (print("stopped"), service.end()), "one", keeps_up=keeps_program_up())
"""
# As a Python would be without the function that only CPython itself is meant to use.
_NO_HOOK = "import threading\ndel threading._register_atexit\n"


class Default(unittest.TestCase):
    """Whether a program is kept up if it does not say."""

    def setUp(self) -> None:
        patcher = mock.patch.object(program_end, "_OWN_END", ())  # what runs these tests is in it
        patcher.start()
        self.addCleanup(patcher.stop)

    def test_main_thread(self) -> None:
        """It is by what its main thread starts, and not by other threads or in an event loop."""
        found: list[bool] = []

        async def ask() -> None:
            found.append(keeps_program_up())

        ask_in_thread = threading.Thread(target=lambda: found.append(keeps_program_up()))
        ask_in_thread.start()
        ask_in_thread.join()
        asyncio.run(ask())
        self.assertEqual(found, [False, False])
        self.assertTrue(keeps_program_up())

    def test_callers(self) -> None:
        """It is not by what a server or a test runner has called, by whatever detours."""
        for name, kept_up in (
            ("unittest", False),
            ("unitte", True),
            ("unittest.case", False),
            ("case", True),
        ):
            with self.subTest(name), mock.patch.object(program_end, "_OWN_END", ("asyncio", name)):
                self.assertEqual(keeps_program_up(), kept_up)

    def test_embedding(self) -> None:
        """It is not where Python is a part of a server."""
        for name in ("uwsgi", "mod_wsgi"):
            with self.subTest(name), mock.patch.dict(sys.modules, {name: ModuleType(name)}):
                self.assertFalse(keeps_program_up())

    def test_reloaders(self) -> None:
        """It is not where a reloader ends the program when its code has changed."""
        for name in ("RUN_MAIN", "WERKZEUG_RUN_MAIN"):
            for value, kept_up in (("true", False), ("false", True)):
                with self.subTest(name, value=value), mock.patch.dict(os.environ, {name: value}):
                    self.assertEqual(keeps_program_up(), kept_up)


class Threads(LeakTestCase):
    def test_thread(self) -> None:
        """The thread of a service ends with it; a service without one has none."""
        for keeps_up in (True, False):
            service = Service(lambda: None, "one", keeps_up=keeps_up)
            assert service.thread
            service.release()
            self.assertTrue(service.thread.is_alive())
            service.end()
            self.assertFalse(service.thread.is_alive())
            service.end()
        service = Service(lambda: None)
        self.assertIsNone(service.thread)
        service.end()


class Programs(unittest.TestCase):
    def run_program(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=_TIMEOUT, check=True
        )

    def test_released(self) -> None:
        """What has released the program is stopped at its end."""
        for before in ("", _NO_HOOK):
            with self.subTest(before):
                done = self.run_program(before + _SERVICE + "service.release()\nprint('main')")
                self.assertEqual((done.stdout, done.stderr), ("main\nstopped\n", ""))

    def test_prompt(self) -> None:
        """A user who leaves an interpreter's prompt does not have to wait."""
        done = self.run_program(_SERVICE + "sys.ps1 = '>>> '")
        self.assertEqual((done.stdout, done.stderr), ("stopped\n", ""))

    def test_no_descriptors(self) -> None:
        """Where there are no descriptors to wait with, the program is kept up all the same."""
        script = """
import errno, socket
def fail():
    print("main", flush=True)
    raise OSError(errno.EMFILE, "no descriptors")
socket.socketpair = fail
threading.Thread(target=lambda: (sys.stdin.readline(), service.end()), daemon=True).start()
"""
        with python("-c", _SERVICE + script, stdin=subprocess.PIPE) as process:
            assert process.stdout
            lines = iter(process.stdout.readline, "")
            self.assertIn("main\n", lines)  # some Pythons say before that they serve no new client
            self.assertIsNone(process.poll())
            self.assertEqual(process.communicate("\n", timeout=_TIMEOUT), ("", None))
            self.assertEqual(process.returncode, 0)

    def test_stop_that_fails(self) -> None:
        """One that cannot be stopped keeps no other from it."""
        script = "def fail(): raise ValueError\nService(fail)\nservice.release()"
        done = self.run_program(_SERVICE + script)
        self.assertEqual(done.stdout, "stopped\n")
        self.assertIn("ValueError", done.stderr)

    def test_without_the_hook(self) -> None:
        """Where Python does not call us in time, it waits for the thread itself."""
        with python("-c", _NO_HOOK + _SERVICE + "print('main', flush=True)") as process:
            assert process.stdout
            self.assertEqual(process.stdout.readline(), "main\n")
            with self.assertRaises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGINT)
            self.assertIn("stopped\n", process.communicate(timeout=_TIMEOUT)[0])
