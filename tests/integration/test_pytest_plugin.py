"""The fixtures, in real runs of pytest, which finds them by their entry point."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

from wsproxy.testing import pytest_plugin

_SECONDS = 120


class PytestTestCase(unittest.TestCase):
    def run_pytest(self, suite: str, *arguments: str, **files: str) -> subprocess.CompletedProcess[str]:
        """Run pytest over a suite in a directory of its own, its warnings as errors."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        for name, text in {"test_suite": suite, **files}.items():
            Path(directory.name, f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        return subprocess.run(
            command, cwd=directory.name, env=environ, capture_output=True, text=True, timeout=_SECONDS
        )

    def passes(self, tests: int, suite: str, **files: str) -> None:
        """Assert that a suite has so many tests, and that they pass."""
        done = self.run_pytest(suite, **files)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(f"{tests} passed", done.stdout)


class PluginTest(PytestTestCase):
    def test_unrelated_suite(self) -> None:
        """A run that uses no fixture of ours has loaded the plugin, and nothing behind it."""
        self.passes(
            1,
            """
            import sys

            def test_loaded():
                ours = {name for name in sys.modules if name.split(".")[0] == "wsproxy"}
                plugin = {"wsproxy.testing", "wsproxy.testing.pytest_plugin"}
                lazy = {"wsproxy.runtime", "wsproxy.runtime.lazy_imports"}
                assert ours == {"wsproxy", "wsproxy.version"} | lazy | plugin
                heavy = ("cryptography", "jwt", "h11", "wsproto", "websocket", "simple_websocket", "flask")
                assert not set(heavy) & set(sys.modules)
            """,
        )

    def test_console(self) -> None:
        """A desktop is looked at and typed into; tokens and requests are what they should be."""
        self.passes(
            3,
            """
            import pytest
            from wsproxy.testing import ConsoleRefused, assert_same_picture

            def test_typing(add_desktop, open_console, fake_kubevirt_api):
                desktop = add_desktop("ubuntu", facts={"lab": "1"})
                vm = open_console("ubuntu")
                vm.type("Hello")
                assert desktop.wait_for_text("Hello", 60)
                terminal = desktop.terminal_area
                expected = desktop.screenshot().crop(*terminal)
                assert_same_picture(vm.screenshot().crop(*terminal), expected)
                assert [request.status for request in fake_kubevirt_api.requests] == [101]

            def test_token_for_another(add_desktop, open_console, console_token):
                add_desktop("ubuntu")
                with pytest.raises(ConsoleRefused) as refused:
                    open_console("ubuntu", console_token("router", user="ada"))
                assert refused.value.slug == "forbidden"

            def test_namespaces(add_desktop, open_console, console_token):
                add_desktop("ubuntu", "lab-2")
                open_console("ubuntu", console_token("ubuntu", namespace="lab-2"), timeout=60)
            """,
        )

    def test_settings(self) -> None:
        """Settings that a suite redefines are those of the proxy, and of the URL that is opened."""
        self.passes(
            1,
            """
            def test_prefix(add_desktop, open_console, console_proxy):
                add_desktop("ubuntu")
                assert console_proxy.host_path_prefix == "a/b"
                assert open_console("ubuntu", origin="http://lab.example").name == "ubuntu"
            """,
            conftest="""
            import pytest

            @pytest.fixture
            def console_proxy_settings():
                return {"host_path_prefix": "a/b", "allow_origin": ["http://lab.example"]}
            """,
        )

    def test_leaks(self) -> None:
        """A test that leaves a thread, or whose thread dies, fails at its end, and says why."""
        done = self.run_pytest(
            """
            import threading

            def test_leaving(console_proxy):
                threading.Thread(target=threading.Event().wait, name="forgotten", daemon=True).start()

            def test_dying(console_proxy):
                thread = threading.Thread(target=lambda: 1 / 0, name="unlucky")
                thread.start()
                thread.join()
            """
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn("2 passed, 2 errors", done.stdout)
        self.assertIn("thread left: forgotten", done.stdout)
        self.assertIn("exception in a thread: unlucky: ZeroDivisionError", done.stdout)

    def test_leaks_are_nobodys_business(self) -> None:
        """A suite that redefines the fixture may leave what it likes."""
        self.passes(
            1,
            """
            import threading
            import pytest

            @pytest.fixture
            def console_leaks():
                pass

            def test_leaving(console_proxy):
                threading.Thread(target=threading.Event().wait, name="forgotten", daemon=True).start()
            """,
        )

    def test_allowed_leaks(self) -> None:
        """What a suite allows may be left, and the message of a leak says how."""
        suite = """
            from concurrent.futures import ThreadPoolExecutor

            pool = ThreadPoolExecutor(1)

            def test_leaving(console_proxy):
                pool.submit(int).result()
            """
        done = self.run_pytest(suite)
        self.assertIn("let the fixture console_allowed_leaks return ('ThreadPoolExecutor-*_*',)", done.stdout)
        conftest = """
            import pytest

            @pytest.fixture
            def console_allowed_leaks():
                return ["ThreadPoolExecutor-*"]
            """
        self.passes(1, suite, conftest=conftest)

    def test_failures(self) -> None:
        """A failure shows the line of the test and what the screen has; a refusal names the namespaces."""
        done = self.run_pytest(
            """
            def test_text(add_desktop, open_console):
                desktop = add_desktop("ubuntu")
                open_console("ubuntu").type("halo")
                assert desktop.vmi.namespace == "lab-1"
                desktop.assert_text("halo")
                desktop.assert_text("hello", timeout=0)

            def test_refused(fake_kubevirt_api, open_console):
                fake_kubevirt_api.add_vmi("ubuntu", "lab-2")
                open_console("ubuntu")
            """,
            "--tb=long",
        )
        self.assertIn("2 failed", done.stdout)
        self.assertIn("| halo", done.stdout)
        self.assertIn("(the simulated cluster has lab-2/ubuntu)", done.stdout)
        for ours in ("desktop.py", "rfb/client.py", "websocket"):
            self.assertNotIn(f"{ours}:", done.stdout)

    def test_failing_backend(self) -> None:
        """A bug in a suite's own backend fails the test that it served."""
        done = self.run_pytest(
            """
            from wsproxy.testing import Script, RawClient

            def test_bug(fake_kubevirt_api, console_proxy, console_token):
                fake_kubevirt_api.add_vmi("ubuntu", "lab-1", backend=Script(lambda console: 1 / 0))
                host, port = console_proxy.address
                with RawClient.open(f"ws://{host}:{port}/{console_token('ubuntu')}/ubuntu") as client:
                    client.recv_close()
            """
        )
        self.assertIn("1 passed, 1 error", done.stdout)
        self.assertIn("the simulated API failed: [ZeroDivisionError", done.stdout)

    def test_documented(self) -> None:
        """Every fixture is listed by pytest, with what it is."""
        done = self.run_pytest("", "--fixtures")
        fixtures = [name for name in pytest_plugin.__all__ if name.islower()]
        self.assertEqual(len(fixtures), 10)
        for name in fixtures:
            self.assertRegex(done.stdout, rf"(?m)^{name} -- .*pytest_plugin\.py:\d+\n    \w")
