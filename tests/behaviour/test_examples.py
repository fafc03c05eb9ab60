"""The examples that need nothing but the product do what they are for."""

from __future__ import annotations

import signal
import subprocess
import sys
import unittest
from pathlib import Path

from tests.support.proxy_process import ProxyProcess
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.backends import SocketBackend
from wsproxy.testing.rfb.client import RFBClient, UpgradeRefused
from wsproxy.testing.screen.desktop import Desktop

_EXAMPLES = Path(__file__).parents[2] / "examples"


class ServeTest(ProxyTestCase):
    """``examples/serve.py``: a script launch."""

    tls = False

    def test_serve(self) -> None:
        """It shows a console, refuses a token that is none, and ends with SIGTERM."""
        desktop = Desktop("ubuntu")
        self.addCleanup(desktop.close)
        self.api.add_vmi("ubuntu", self.namespace, backend=SocketBackend(desktop.serve))
        with ProxyProcess(self.api, [str(_EXAMPLES / "serve.py")]) as program:
            with RFBClient(f"{program.url}/{self.token('ubuntu')}/ubuntu", timeout=30) as viewer:
                viewer.type("hello")
                self.assertTrue(desktop.wait_for_text("hello", 30))
                x, y, width, height = desktop.terminal_area
                typed = desktop.screenshot().crop(x, y, width, height)
                viewer.wait_until(lambda image: image.crop(x, y, width, height) == typed)
            with self.assertRaises(UpgradeRefused) as caught:
                RFBClient(f"{program.url}/{self.token('router')}/ubuntu", timeout=30)
            self.assertEqual(caught.exception.status, 403)
            self.assertEqual(program.stop(signal.SIGTERM), 0)


class PlatformTestsTest(unittest.TestCase):
    """``examples/platform_tests.py``: a platform's own suite."""

    def test_suite(self) -> None:
        """It is short, and passes."""
        path = _EXAMPLES / "platform_tests.py"
        self.assertLess(len(path.read_text(encoding="utf-8").splitlines()), 40)
        command = [sys.executable, "-W", "error", "-X", "dev", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Ran 2 tests", done.stderr)
