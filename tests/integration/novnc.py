"""Stock noVNC, as Debian has it, in a real browser."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from typing import Any

from tests.integration.chromium import Browser, BrowserTestCase
from wsproxy.net.addresses import host_and_port
from wsproxy.proxy import WebsocketProxy

__all__ = ["FileServer", "NoVNCTestCase"]

_NOVNC = "/usr/share/novnc"  # where Debian's package novnc puts it


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves noVNC's files and keeps the requests, which hold tokens, to itself."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


class FileServer:
    """Serves the files of a directory on a port of its own.

    :ivar address: its host and port.
    """

    def __init__(self, directory: str) -> None:
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(_Quiet, directory=directory)
        )
        self.address = ("127.0.0.1", self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="novnc-files")
        self._thread.start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class NoVNCTestCase(BrowserTestCase):
    """Serves noVNC, and opens it in browsers."""

    def setUp(self) -> None:
        super().setUp()
        if not os.path.isdir(_NOVNC):
            self.skipTest("noVNC is not installed (Debian package novnc)")
        self.web = FileServer(_NOVNC)
        self.addCleanup(self.web.close)

    def visit(self, browser: Browser, proxy: WebsocketProxy, path: str, **settings: str) -> None:
        """Open vnc.html as LabOrchestrator does, with further settings of noVNC."""
        host, port = proxy.address
        further = "".join(f"&{name}={value}" for name, value in settings.items())
        query = f"host={host}&port={port}&path={path}&autoconnect=1{further}"
        browser.open(f"http://{host_and_port(*self.web.address)}/vnc.html?{query}")
