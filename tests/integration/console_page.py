"""Our own console page in a real browser."""

from __future__ import annotations

from tests.integration.chromium import Browser, BrowserTestCase
from wsproxy.proxy import WebsocketProxy

__all__ = ["CANVAS", "CONNECTED", "ConsolePageTestCase"]

CANVAS = "#view canvas"
CONNECTED = "document.getElementById('state').textContent === 'Connected'"


class ConsolePageTestCase(BrowserTestCase):
    """Opens the page in browsers, as a proxy serves it. Proxies have it unless they are told otherwise."""

    proxy_settings = {"console_page": True}

    def page_url(self, proxy: WebsocketProxy) -> str:
        """Return where the page is."""
        host, port = proxy.address
        return f"http://{host}:{port}/console/"

    def visit(self, browser: Browser, proxy: WebsocketProxy, link: str) -> None:
        """Open a link, such as ``TOKEN/VMI``."""
        browser.open(f"{self.page_url(proxy)}#{link}")
