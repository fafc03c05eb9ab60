"""Our own console page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from tests.integration.chromium import Browser, BrowserTestCase
from tests.integration.person import click, screen_of
from tests.integration.web_packages import web_package
from tests.support.proxy_process import wait_until
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.screen.desktop import Desktop

__all__ = ["CANVAS", "CONNECTED", "ConsolePageTestCase", "press"]

CANVAS = "#view canvas"
CONNECTED = "document.getElementById('state').textContent === 'Connected'"
_WITHIN = 60.0
_MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
_SHOWN = """[...document.querySelectorAll("#notice :is(h2, p, button)")]
    .filter(element => element.checkVisibility()).map(element => element.textContent)"""
_VIOLATIONS = """axe.run(document, {resultTypes: ["violations"]}).then(({violations}) =>
    violations.flatMap(({id, nodes}) => nodes.map(({html}) => `${id}: ${html}`)))"""


class ConsolePageTestCase(BrowserTestCase):
    """Opens the page in browsers, as a proxy serves it. Proxies have it unless they are told otherwise."""

    proxy_settings: ClassVar[Mapping[str, Any]] = MappingProxyType({"console_page": True})

    def page_url(self, proxy: WebsocketProxy) -> str:
        """Return where the page is."""
        host, port = proxy.address
        return f"http://{host}:{port}/console/"

    def visit(self, browser: Browser, proxy: WebsocketProxy, link: str) -> None:
        """Open a link, such as ``TOKEN/VMI``."""
        browser.open(f"{self.page_url(proxy)}#{link}")

    def open_page(self, proxy: WebsocketProxy, link: str) -> Browser:
        """Start a browser, open a link, and wait until the console is there."""
        browser = self.start_browser()
        self.visit(browser, proxy, link)
        browser.wait_until(CONNECTED)
        return browser

    def press_button(self, browser: Browser, name: str) -> None:
        """Click on the button of this text, as soon as it is there.

        :raises AssertionError: if it does not come, or cannot be clicked.
        """
        found = (
            f"[...document.querySelectorAll('button')].find(({{textContent}}) => textContent === {name!r})"
        )
        browser.wait_until(f"{found}?.checkVisibility() && !{found}.disabled")
        browser.evaluate(f"{found}.dataset.tested = {name!r}")
        click(browser, f"[data-tested={json.dumps(name)}]")

    def notice(self, browser: Browser) -> list[str]:
        """Return the texts and buttons that stand in place of the console."""
        shown: list[str] = browser.evaluate(_SHOWN)
        return shown

    def wait_for_notice(self, browser: Browser, title: str) -> list[str]:
        """Wait until it says why there is no console, and return all that it says."""
        title = json.dumps(title)
        browser.wait_until(
            f"document.getElementById('notice-title').textContent === {title}"
            " && document.getElementById('notice').checkVisibility()"
        )
        return self.notice(browser)

    def assert_shows(self, browser: Browser, desktop: Desktop) -> None:
        """Assert that the canvas comes to show the desktop, in every pixel."""

        def is_same() -> bool:
            before = desktop.screenshot()
            return screen_of(browser, CANVAS) == before

        self.assertTrue(wait_until(is_same, _WITHIN), "the canvas differs from the desktop")

    def assert_accessible(self, browser: Browser) -> None:
        """Assert that axe-core finds nothing to complain about in the page as it is now."""
        if not browser.evaluate("'axe' in window"):
            browser.evaluate(Path(web_package("axe-core"), "axe.min.js").read_text("utf-8") + "; 0")
        self.assertEqual(browser.evaluate(_VIOLATIONS), [])


def press(browser: Browser, *keys: tuple[str, str]) -> None:
    """Press keys, one after the other, and release them in the opposite order.

    :param keys: of each its key and its code (UI Events).
    """
    modifiers = 0
    for key, code in keys:
        modifiers |= _MODIFIERS.get(key, 0)
        browser.call("Input.dispatchKeyEvent", type="rawKeyDown", key=key, code=code, modifiers=modifiers)
    for key, code in reversed(keys):
        modifiers &= ~_MODIFIERS.get(key, 0)
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code, modifiers=modifiers)
