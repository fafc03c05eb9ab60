"""The demo as a newcomer has it: one command, and the URLs that it prints, in a real browser."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from tests.integration.chromium import Browser
from tests.integration.console_page import CANVAS, CONNECTED, ConsolePageTestCase
from tests.integration.person import screen_of
from tests.integration.web_packages import web_package
from wsproxy.testing.screen.image import Image

__all__ = ["DemoTestCase"]

_URL = re.compile(r"http://\S+/console/#\S+")
_PROGRAM = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "demo")
_INSTALL_SECONDS = 300.0
_STATE_SECONDS = 180.0


class DemoTestCase(ConsolePageTestCase):
    """Runs the demo.

    :ivar desktop: the URL of a desktop that moves; ``second``, ``stopped``, ``expiring``, ``takeover``,
        ``serial`` and ``forged`` alike.
    """

    def start_demo(self) -> None:
        """Start the program, and note its URLs."""
        for name in ("novnc", "xterm"):
            web_package(name)  # skips the test if it cannot be had
        path = self.path("said")
        with open(path, "wb") as said:
            self.start_program(_PROGRAM, "--port", "0", stdout=said)
        self.wait_for_file(path, b"Ctrl-C", _INSTALL_SECONDS)
        with open(path, encoding="utf-8") as file:
            (
                self.desktop,
                self.second,
                self.stopped,
                self.expiring,
                self.takeover,
                self.serial,
                self.forged,
            ) = _URL.findall(file.read())

    def open_screen(self, url: str, browser: Browser | None = None) -> Browser:
        """Open a URL in a browser, a new one if none is given, and wait until its screen is there."""
        browser = browser or self.start_browser()
        browser.open("about:blank")  # so that it is not the page from before, with another fragment
        browser.open(url)
        self.wait_for_screen(browser)
        return browser

    def wait_for_screen(
        self, browser: Browser, condition: Callable[[Image], bool] = lambda image: True
    ) -> Image:
        """Wait until the page is connected, and its screen is not blank and as it should be; return that."""
        browser.wait_until(CONNECTED, _STATE_SECONDS)
        seen: list[Image] = []

        def look() -> bool:
            seen[:] = [screen_of(browser, CANVAS)]
            return len(set(seen[0].rgb)) > 16 and condition(seen[0])

        self.wait_for(look, "the screen", _STATE_SECONDS)
        return seen[0]
