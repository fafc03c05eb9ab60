"""Files that run side by side count and report as they do in one process, however they end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest
import venv
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_HEAD = "import os, resource, signal, socket, subprocess, sys, threading, unittest, warnings\n\n"
_CASE = "class Case(unittest.TestCase):\n    def test(self):\n        "
_RUNNER = ("-m", "tests.support.parallel", "--jobs", "2")
_SUMMARY = re.compile(r"^Ran \d+ tests? in|^OK.*|^FAILED.*", re.MULTILINE)
_PATIENCE = 60.0  # seconds

_OF_EVERY_KIND = {
    "suite/test_ends.py": """
        class Ends(unittest.TestCase):
            def test_passes(self): pass
            def test_fails(self): self.assertEqual(1, 2)
            def test_raises(self): raise KeyError("k")
            @unittest.skip("why")
            def test_skipped(self): pass
            @unittest.expectedFailure
            def test_expected(self): self.fail()
            @unittest.expectedFailure
            def test_unexpected(self): pass
            def test_parts(self):
                for part in range(3):
                    with self.subTest(part=part):
                        self.assertEqual(part, 0)
        """,
    "suite/test_classes.py": """
        class Class(unittest.TestCase):
            @classmethod
            def setUpClass(cls): raise OSError("set up")
            def test_never(self): pass
        class Another(unittest.TestCase):
            @classmethod
            def tearDownClass(cls): raise OSError("tear down")
            def test_passes(self): pass
        @unittest.skip("all")
        class Skipped(unittest.TestCase):
            def test_never(self): pass
        """,
    "suite/test_module.py": """
        def setUpModule(): raise OSError("set up")
        class Case(unittest.TestCase):
            def test_never(self): pass
        """,
    "suite/test_import.py": "import nothing_of_this_name",
    "suite/test_syntax.py": "def",
    "suite/test_skipped.py": "raise unittest.SkipTest('not here')",
    "suite/test_empty.py": "",
    "suite/test_loads.py": """
        class Case(unittest.TestCase):
            def runTest(self): pass
        def load_tests(loader, tests, pattern):
            return unittest.TestSuite([Case() for _ in pattern])
        """,
    "suite/inner/__init__.py": "",
    "suite/inner/test_ends.py": _CASE + "pass",
    "suite/named/__init__.py": "def load_tests(loader, tests, pattern): return tests",
    "suite/named/test_named.py": _CASE + "self.fail()",
    "suite/own/__init__.py": """
        def load_tests(loader, tests, pattern):
            return loader.discover(os.path.dirname(__file__), pattern, loader._top_level_dir)
        """,
    "suite/own/test_own.py": _CASE + "pass",
    "suite/broken/__init__.py": "import nothing_of_this_name",
    "suite/broken/test_never.py": _CASE + "pass",
    "suite/no_package/test_never.py": _CASE + "self.fail()",
}


class Parallel(unittest.TestCase):
    """Runs of a small project in a directory of the test's own."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.base = Path(directory.name).resolve()
        self.write("suite/__init__.py", "")

    def write(self, name: str, content: str) -> None:
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_HEAD + textwrap.dedent(content), encoding="utf-8")

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the project."""
        process = subprocess.Popen(
            command,
            cwd=self.base,
            # Bytecode goes by seconds and size: a file written again within a second would not be seen.
            env=os.environ | {"PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def run_python(self, *arguments: str) -> tuple[int, str]:
        """Run this Python to its end; return its exit status and what it printed."""
        process = self.start(sys.executable, *arguments)
        text, _ = process.communicate(timeout=_PATIENCE)
        return process.returncode, text

    def run_tests(self, *arguments: str) -> tuple[int, str]:
        """Run the project's tests side by side; return the exit status and what was printed."""
        return self.run_python(*_RUNNER, *arguments)

    def assert_summary(self, text: str, *expected: str) -> None:
        """Assert that a run's last lines are these, but for its time."""
        self.assertEqual(_SUMMARY.findall(text), list(expected), text)

    def assert_process_fails(self, pattern: str, *arguments: str) -> str:
        """Assert that a run has one error, the end of test_bad.py's process; return what the run printed."""
        self.write("suite/test_good.py", _CASE + "pass")
        status, text = self.run_tests(*arguments)
        self.assertEqual(status, 1)
        self.assertEqual(_SUMMARY.findall(text)[1:], ["FAILED (errors=1)"], text)
        self.assertRegex(text, rf"ERROR: suite/test_bad\.py\n-+\nThe process of this file {pattern}\.\n")
        return text

    def hang(self) -> socket.socket:
        """Write a test that waits for another process for ever; return where that process will connect."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        listener.settimeout(_PATIENCE)
        connect = f"connection = socket.create_connection({listener.getsockname()!r})"
        wait = "subprocess.run(['sh', '-c', 'echo; exec sleep 600'], stdout=connection)"
        self.write("suite/test_bad.py", f"{_CASE}{connect}; {wait}")
        return listener

    def accept(self, listener: socket.socket) -> socket.socket:
        """Wait until the process of :meth:`hang` runs; return its connection."""
        connection, _ = listener.accept()
        self.addCleanup(connection.close)
        connection.settimeout(_PATIENCE)
        self.assertEqual(connection.recv(9), b"\n")
        return connection

    def test_same_as_unittest(self) -> None:
        """Tests of every kind are found, counted and shown as unittest itself does."""
        for name, content in _OF_EVERY_KIND.items():
            self.write(name, content)
        _, expected = self.run_python("-m", "unittest")
        status, text = self.run_tests()
        self.assertEqual(status, 1)
        self.assert_summary(text, *_SUMMARY.findall(expected))
        self.assertEqual(*(sorted(each.partition("\n")[0]) for each in (text, expected)))
        ours, unittests = (
            re.findall(r"^\w+: (?!suite|Failed to import).*", each, re.MULTILINE) for each in (text, expected)
        )
        self.assertEqual(sorted(ours), sorted(unittests))

    def test_quiet(self) -> None:
        """What passing tests print is not shown, nor what their processes print."""
        noise = "print('noise'); subprocess.run(['sh', '-c', 'echo noise >&2'], check=True)"
        for name in "ab":
            self.write(f"suite/test_{name}.py", _CASE + noise)
        status, text = self.run_tests()
        self.assertEqual(status, 0)
        self.assertRegex(text, r"\A\.\.\n-{70}\nRan 2 tests in [\d.]+s\n\nOK\n\Z")

    def test_failure(self) -> None:
        """A failure has the test's name, its first line, its traceback and what it printed, once."""
        self.write("suite/test_bad.py", _CASE + "'''Says why.'''; print('clue'); self.fail('no')")
        status, text = self.run_tests()
        self.assertEqual(status, 1)
        self.assert_summary(text, "Ran 1 test in", "FAILED (failures=1)")
        self.assertRegex(text, r"FAIL: test \(suite\.test_bad\.Case(\.test)?\)\nSays why\.\n-+\nTraceback")
        for part in ("Traceback", "AssertionError: no\n", "\nOutput of suite/test_bad.py:\nclue\n"):
            self.assertEqual(text.count(part), 1, text)

    def test_exits(self) -> None:
        """A process that exits in a test is an error, even if it says that all is well."""
        for status in (0, 3):
            self.write("suite/test_bad.py", f"{_CASE}os._exit({status})")
            self.assert_process_fails(
                rf"ended with exit status {status}, in test \(suite\.test_bad\.Case.*\)"
            )

    def test_crashes(self) -> None:
        """What a process had to tell before it died is told, and where it died."""
        self.write(
            "suite/test_bad.py",
            """
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            class Case(unittest.TestCase):
                def test_1(self): self.fail("the first")
                def test_2(self): os.kill(os.getpid(), signal.SIGSEGV)
            """,
        )
        status, text = self.run_tests()
        self.assertEqual(status, 1)
        self.assert_summary(text, "Ran 2 tests in", "FAILED (failures=1, errors=1)")
        self.assertRegex(text, r"was ended by signal 11 \(.*\), in test_2 \(suite\.test_bad\.Case.*\)\.\n")
        for part in ("AssertionError: the first\n", "Fatal Python error: Segmentation fault\n"):
            self.assertEqual(text.count(part), 1, text)

    def test_dies_outside_of_tests(self) -> None:
        """A process that dies while it imports the file, or after the last test, is an error too."""
        self.write("suite/test_bad.py", "os.kill(os.getpid(), signal.SIGKILL)")
        self.assert_process_fails(r"was ended by signal 9 \(.*\), outside of a test")
        self.write("suite/test_bad.py", f"import atexit\natexit.register(os._exit, 4)\n{_CASE}pass")
        self.assert_process_fails("ended with exit status 4, outside of a test")

    def test_hangs(self) -> None:
        """A file that takes too long is killed with its processes, and shows where it hung."""
        listener = self.hang()
        text = self.assert_process_fails(
            r"did not end within 10 s and was killed, in test \(suite\.test_bad\.Case.*\)", "--limit=10"
        )
        self.assertRegex(text, r"Fatal Python error: Aborted(?s:.*)test_bad\.py")
        self.assertEqual(self.accept(listener).recv(9), b"")

    def test_interrupted(self) -> None:
        """All processes end at a signal, and what has failed so far is shown."""
        self.write("suite/test_first.py", _CASE + "self.fail('so far')")
        listener = self.hang()
        for signum in (signal.SIGINT, signal.SIGTERM):
            runner = self.start(sys.executable, *_RUNNER)
            connection = self.accept(listener)
            assert runner.stdout
            self.assertEqual(runner.stdout.read(1), "F")
            runner.send_signal(signum)
            text, _ = runner.communicate(timeout=_PATIENCE)
            self.assertEqual(runner.returncode, 130)
            self.assertEqual(text.count("AssertionError: so far\n"), 1, text)
            self.assertEqual(connection.recv(9), b"")

    def test_warnings(self) -> None:
        """Warnings are errors, and Python is in development mode, where they are so in the runner."""
        self.write("suite/test_a.py", _CASE + "warnings.warn('noticed')")
        self.write("suite/test_b.py", _CASE + "self.assertFalse(sys.flags.dev_mode)")
        self.assertEqual(self.run_tests()[0], 0)
        _, text = self.run_python("-W", "error", "-X", "dev", *_RUNNER)
        self.assert_summary(text, "Ran 2 tests in", "FAILED (failures=1, errors=1)")
        self.assertIn("UserWarning: noticed", text)

    def test_arguments(self) -> None:
        """With arguments it is unittest, in the same mode."""
        self.write("suite/test_a.py", _CASE + "self.assertTrue(sys.flags.dev_mode)")
        self.write("suite/test_b.py", _CASE + "self.fail()")
        status, text = self.run_python("-X", "dev", *_RUNNER, "-v", "suite.test_a")
        self.assertEqual(status, 0)
        self.assertRegex(text, r"\Atest \(suite\.test_a\.Case(\.test)?\) \.\.\. ok\n")

    def test_files(self) -> None:
        """Only the files that are named run."""
        self.write("suite/test_a.py", _CASE + "pass")
        self.write("suite/test_b.py", _CASE + "self.skipTest('s')")
        self.write("suite/test_c.py", _CASE + "self.fail()")
        status, text = self.run_tests("--files", "suite/test_a.py", "suite/test_b.py")
        self.assertEqual(status, 0)
        self.assert_summary(text, "Ran 2 tests in", "OK (skipped=1)")

    def test_order(self) -> None:
        """Large files begin first, but before them those that took long in the last run."""
        self.write("suite/test_long.py", _CASE + "self.skipTest('s')")
        self.write("suite/test_large.py", f"{_CASE}pass{'#' * 99}")
        venv.create(self.base / ".venv", symlinks=True)
        kept = self.base / ".venv/test-seconds.json"
        for marks in (".s", "s."):
            python = self.start(str(self.base / ".venv/bin/python"), *_RUNNER, "--jobs", "1")
            text, _ = python.communicate(timeout=_PATIENCE)
            self.assertEqual(text.partition("\n")[0], marks, text)
            seconds = json.loads(kept.read_bytes())
            self.assertEqual(seconds.keys(), {"suite/test_long.py", "suite/test_large.py"})
            kept.write_text(json.dumps(seconds | {"suite/test_long.py": 9.0}), encoding="ascii")

    def test_nothing(self) -> None:
        """No test is no success."""
        self.assertEqual(self.run_tests()[0], 1)
