"""What a person sees in stock noVNC, unmodified, in a real browser."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from typing import Any

from tests.integration.chromium import Browser, BrowserTestCase
from tests.integration.programs import needs
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.desktop import Desktop
from wsproxy.testing.kubevirt_backends import SocketBackend

_NOVNC = "/usr/share/novnc"  # where Debian's package novnc puts it
_REJECTED = "New connection has been rejected with reason: "


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves noVNC's files and keeps the requests, which hold tokens, to itself."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@needs("chromium", "chromium")
class NoVNCTest(BrowserTestCase):
    def setUp(self) -> None:
        super().setUp()
        if not os.path.isdir(_NOVNC):
            self.skipTest("noVNC is not installed (Debian package novnc)")
        self.web = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(_Quiet, directory=_NOVNC)
        )
        thread = threading.Thread(target=self.web.serve_forever, name="novnc-files")
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.web.server_close)
        self.addCleanup(self.web.shutdown)

    def visit(self, browser: Browser, proxy: WebsocketProxy, path: str) -> None:
        """Open vnc.html with the parameters that LabOrchestrator builds."""
        host, port = proxy.address
        query = f"host={host}&port={port}&path={path}&autoconnect=1"
        browser.open(f"http://127.0.0.1:{self.web.server_port}/vnc.html?{query}")

    def test_console(self) -> None:
        """The console of a VM opens: noVNC says so, and its viewer arrived at the desktop."""
        with Desktop("ubuntu") as desktop:
            vmi = self.api.add_vmi("ubuntu", self.namespace, backend=SocketBackend(desktop.serve))
            browser = self.start_browser()
            self.visit(browser, self.start_proxy(), f"{self.token('ubuntu')}/ubuntu")
            browser.wait_for_text("Connected (unencrypted) to ubuntu")
            browser.wait_until("document.documentElement.classList.contains('noVNC_connected')")
            self.assertEqual(len(vmi.consoles), 1)
            browser.call("Browser.close")
            self.assertTrue(self.api.wait_until_idle())

    def test_refusals(self) -> None:
        """The reason of a refusal is on the page, in words."""
        self.api.add_vmi("stopped", self.namespace, phase="Scheduled")
        self.api.add_vmi("headless", self.namespace, display=False)
        proxy, browser = self.start_proxy(), self.start_browser()
        token, old = self.token("stopped", "headless", "gone"), self.token("stopped", expires_in=-5)
        for path, reason in (
            (f"{token}/stopped", "VMI is not running"),
            (f"{token}/headless", "No graphics devices are present."),
            (f"{token}/gone", 'virtualmachineinstance.kubevirt.io "gone" not found'),
            (f"{token}/other", "the token does not allow this VMI"),
            (f"{old}/stopped", "the token has expired"),
        ):
            with self.subTest(reason=reason):
                self.visit(browser, proxy, path)
                browser.wait_for_text(_REJECTED + reason)
