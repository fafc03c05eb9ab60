"""How a program ends that has started a proxy and has nothing more to do, or that is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

from tests.behaviour.test_drop_in import DropInTestCase
from tests.support.proxy_process import ProxyProcess
from wsproxy.runtime.program_end import starts_no_threads
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 60.0
_RESTARTING = 1012
_INTERRUPTED = 130

_BEGINNING = """
import atexit, logging, os, signal, sys, threading, time
from lab_orchestrator_ws_proxy_lib.ws_proxy_lib import WebsocketProxy
logging.basicConfig(level="INFO")
API_PATH = "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{vmi_name}/vnc"
p = WebsocketProxy(os.environ["WS_REMOTE_URL"], API_PATH, True, os.environ["SECRET_KEY"], close_timeout=1)

def say():
    print("listening on {}:{}".format(*p.address), flush=True)

"""
_LAST_LINE = """
p.run_in_thread("127.0.0.1", 0)
say()
"""
_DONE = b"the main thread is done"


class EndTestCase(DropInTestCase):
    def start(self, script: str, stdin: int = subprocess.DEVNULL) -> ProxyProcess:
        """Start a program that begins as an old one did, and go on when it serves."""
        program = ProxyProcess(self.api, ("-c", _BEGINNING + textwrap.dedent(script)), stdin)
        self.addCleanup(program.close)
        return program

    def go_on(self, program: ProxyProcess) -> None:
        """Send a line to a program that waits for one."""
        assert program.process.stdin
        os.write(program.process.stdin.fileno(), b"\n")

    def assert_ends(self, program: ProxyProcess, status: int) -> bytes:
        """Check the status of a program that is about to end, and return what it has written."""
        self.assertEqual(program.process.wait(_TIMEOUT), status, program.output)
        program.stop()
        return program.output

    def assert_restarts(self, client: RawClient) -> None:
        """Check that the client is told to come again, and say goodbye."""
        self.assertEqual(client.recv_close(_TIMEOUT)[0], _RESTARTING)
        client.send_close(_RESTARTING)
        client.wait_for_end(_TIMEOUT)


class LastLine(EndTestCase):
    """``run_in_thread`` is the last line, as in scripts for 1.0.0."""

    def kept_up(self, script: str = _LAST_LINE, stdin: int = subprocess.DEVNULL) -> ProxyProcess:
        """Start a program, and go on when its main thread is done."""
        program = self.start(script, stdin)
        program.wait_for(_DONE)
        return program

    def test_ctrl_c(self) -> None:
        """It goes on serving; Ctrl-C tells clients 1012 and ends it with status 130, without a traceback."""
        program = self.kept_up()
        client = self.assert_echoes(program.address)
        program.process.send_signal(signal.SIGINT)
        self.assert_restarts(client)
        self.assertNotIn(b"Traceback", self.assert_ends(program, _INTERRUPTED))

    def test_end_of_the_program(self) -> None:
        """Ctrl-C lets the program's exit functions run once, and what open files have buffered is written."""
        with tempfile.NamedTemporaryFile() as file:
            script = f"""
            file = open({file.name!r}, "w")
            file.write("buffered")
            atexit.register(lambda: print("exit function"))
            threading.Thread(target=threading.Event().wait).start()  # is not waited for, as in 1.0.0
            """
            program = self.kept_up(textwrap.dedent(script) + _LAST_LINE)
            program.process.send_signal(signal.SIGINT)
            self.assertEqual(self.assert_ends(program, _INTERRUPTED).count(b"exit function"), 1)
            self.assertEqual(file.read(), b"buffered")

    def test_exit(self) -> None:
        """An exit, or an exception, in the main thread ends it as little as in 1.0.0."""
        for end in ("sys.exit(3)", "raise ValueError"):
            with self.subTest(end=end):
                program = self.kept_up(_LAST_LINE + end)
                client = self.assert_echoes(program.address)
                program.process.send_signal(signal.SIGINT)
                self.assert_restarts(client)
                self.assert_ends(program, _INTERRUPTED)

    def test_stopped_by_another_thread(self) -> None:
        """When another thread stops the proxy, the program ends with the status of its main thread."""
        stopper = """
        def stop():
            sys.stdin.readline()
            p.stop_thread()
        threading.Thread(target=stop, daemon=True).start()
        """
        program = self.kept_up(textwrap.dedent(stopper) + _LAST_LINE + "sys.exit(3)", subprocess.PIPE)
        client = self.assert_echoes(program.address)
        self.go_on(program)
        self.assert_restarts(client)
        self.assertNotIn(b"Traceback", self.assert_ends(program, 3))

    def test_sigterm(self) -> None:
        """SIGTERM ends it at once, as in 1.0.0, if the program has no handler."""
        program = self.kept_up()
        client = self.assert_echoes(program.address)
        program.process.send_signal(signal.SIGTERM)
        self.assert_ends(program, -signal.SIGTERM)
        client.wait_for_end(_TIMEOUT)

    def test_handlers(self) -> None:
        """The program's own handlers go on working: they exit, or fail, or stop the proxy."""
        for handler, status in (
            ("sys.exit(7)", 7),
            ("sys.exit('why')", 1),
            ("1 / 0", 1),
            ("p.stop_thread()", 0),
        ):
            with self.subTest(handler=handler):
                lines = f"signal.signal(signal.SIGTERM, lambda *_: {handler})\n"
                program = self.kept_up(lines + _LAST_LINE)
                client = self.assert_echoes(program.address)
                program.process.send_signal(signal.SIGTERM)
                self.assert_restarts(client)
                output = self.assert_ends(program, status)
                self.assertEqual(b"ZeroDivisionError" in output, handler == "1 / 0")

    def test_forked_child(self) -> None:
        """A child that the program forks ends by itself, and waits for nobody."""
        script = """
        p.run_in_thread("127.0.0.1", 0)
        child = os.fork()
        if child == 0:
            sys.exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        say()
        """
        program = self.kept_up(script)
        self.assert_echoes(program.address).close()

    def test_said(self) -> None:
        """``daemon=False`` keeps a program up where it would not be by default: in a thread, in a loop."""
        script = """
        import asyncio

        async def start():
            p.run_in_thread("127.0.0.1", 0, daemon=False)

        asyncio.run(start())
        say()
        """
        self.assert_echoes(self.kept_up(script).address).close()


if starts_no_threads():
    del LastLine  # its clients come when the main thread is done

    class LastLineWithoutThreads(EndTestCase):
        """The same on a Python that starts no thread when the main one is done."""

        def test_says_so(self) -> None:
            """It stays up, says that it serves no new client, and Ctrl-C ends it with status 130."""
            program = self.start(_LAST_LINE)
            program.wait_for(b"serves no new client")
            self.assertIsNone(program.process.poll())
            program.process.send_signal(signal.SIGINT)
            self.assertNotIn(b"Traceback", self.assert_ends(program, _INTERRUPTED))


class EndsAtOnce(EndTestCase):
    """The program ends before its proxy, which is stopped in good order."""

    def assert_told(self, script: str, status: int) -> bytes:
        """Open a session, let the program's main thread go on, and check how both end."""
        program = self.start(script, subprocess.PIPE)
        client = self.assert_echoes(program.address)
        self.go_on(program)
        self.assert_restarts(client)
        return self.assert_ends(program, status)

    def test_daemon(self) -> None:
        """A proxy that is a daemon ends with the program's main thread, however that ends."""
        for end, status in (("pass", 0), ("sys.exit(3)", 3), ("raise ValueError", 1)):
            script = 'p.run_in_thread("127.0.0.1", 0, daemon=True)\nsay()\nsys.stdin.readline()\n'
            with self.subTest(end=end):
                self.assertNotIn(_DONE, self.assert_told(script + end, status))

    def test_with(self) -> None:
        """A proxy that ``with`` has entered ends with the block, and its thread lives until then."""
        script = """
        with p.run_in_thread("127.0.0.1", 0):
            say()
            sys.stdin.readline()
            assert p.thread.is_alive()
        assert not p.thread.is_alive()
        """
        self.assertNotIn(_DONE, self.assert_told(script, 0))

    def test_with_that_never_ends(self) -> None:
        """One whose ``with`` is left open is stopped at the end."""
        script = """
        import contextlib
        stack = contextlib.ExitStack()
        stack.enter_context(p)
        p.run_in_thread("127.0.0.1", 0)
        say()
        sys.stdin.readline()
        """
        self.assertNotIn(_DONE, self.assert_told(script, 0))

    def test_elsewhere(self) -> None:
        """A proxy that another thread, or an event loop, has started is a daemon."""
        thread = """
        thread = threading.Thread(target=p.run_in_thread, args=("127.0.0.1", 0))
        thread.start()
        thread.join()
        """
        loop = """
        import asyncio

        async def start():
            p.run_in_thread("127.0.0.1", 0)

        asyncio.run(start())
        """
        for script in (thread, loop):
            with self.subTest(script):
                script = textwrap.dedent(script) + "say()\nsys.stdin.readline()\n"
                self.assertNotIn(_DONE, self.assert_told(script, 0))

    def test_foreground_in_a_daemon(self) -> None:
        """``run`` in a thread that the interpreter does not wait for tells its clients, too."""
        script = """
        run = lambda: p.run("127.0.0.1", 0, on_ready=lambda _: say())
        threading.Thread(target=run, daemon=True).start()
        sys.stdin.readline()
        """
        self.assertNotIn(b"Traceback", self.assert_told(script, 0))


class Waiting(EndTestCase):
    """The main thread waits for something itself."""

    def test_join(self) -> None:
        """``p.thread`` can be joined; Ctrl-C tells clients 1012, and ends the program as Python does."""
        for wait in ("p.thread.join()", "time.sleep(1000)"):
            with self.subTest(wait=wait):
                program = self.start(_LAST_LINE + wait)
                client = self.assert_echoes(program.address)
                program.process.send_signal(signal.SIGINT)
                self.assert_restarts(client)
                self.assertNotIn(_DONE, self.assert_ends(program, -signal.SIGINT))

    def test_joined_until_stopped(self) -> None:
        """A join ends when all sessions have been closed."""
        script = """
        def stop():
            sys.stdin.readline()
            p.stop_thread()

        p.run_in_thread("127.0.0.1", 0)
        threading.Thread(target=stop, daemon=True).start()
        say()
        p.thread.join()
        print("joined", p.connections)
        """
        program = self.start(script, subprocess.PIPE)
        client = self.assert_echoes(program.address)
        self.go_on(program)
        self.assert_restarts(client)
        self.assertIn(b"joined 0", self.assert_ends(program, 0))


class Suites(unittest.TestCase):
    """A suite of somebody else's that starts proxies and never stops one."""

    _SUITE = """
    import unittest
    from wsproxy import WebsocketProxy

    class Suite(unittest.TestCase):
        def setUp(self):
            self.proxy = WebsocketProxy("ws://127.0.0.1:9", "/{namespace}/{vmi_name}/vnc", True, "secret")
            self.proxy.run_in_thread("127.0.0.1", 0)
            self.fail("before there is a clean-up")

        def test(self):
            pass
    """

    def test_unittest(self) -> None:
        """It ends."""
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "test_it.py").write_text(textwrap.dedent(self._SUITE))
            command = [sys.executable, "-m", "unittest", "test_it"]
            ended = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)
        self.assertEqual(ended.returncode, 1, ended.stderr)
        self.assertIn("before there is a clean-up", ended.stderr)
