"""Stock noVNC, as Debian has it, in a real browser."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from typing import Any

from tests.integration.chromium import Browser, BrowserTestCase
from wsproxy.proxy import WebsocketProxy

__all__ = ["NoVNCTestCase"]

_NOVNC = "/usr/share/novnc"  # where Debian's package novnc puts it


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves noVNC's files and keeps the requests, which hold tokens, to itself."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


class NoVNCTestCase(BrowserTestCase):
    """Serves noVNC, and opens it in browsers."""

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

    def visit(self, browser: Browser, proxy: WebsocketProxy, path: str, **settings: str) -> None:
        """Open vnc.html as LabOrchestrator does, with further settings of noVNC."""
        host, port = proxy.address
        further = "".join(f"&{name}={value}" for name, value in settings.items())
        query = f"host={host}&port={port}&path={path}&autoconnect=1{further}"
        browser.open(f"http://127.0.0.1:{self.web.server_port}/vnc.html?{query}")
