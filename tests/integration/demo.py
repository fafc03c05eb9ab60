"""The demo as a newcomer has it: a program, and the URLs that it prints, in a real browser."""

from __future__ import annotations

import re
import sys

from tests.integration.chromium import Browser, BrowserTestCase
from tests.integration.console_page import CANVAS, CONNECTED
from tests.integration.person import screen_of
from tests.integration.web_packages import web_package
from wsproxy.testing.image import Image

__all__ = ["DemoTestCase"]

_URL = re.compile(r"http://\S+/console/#\S+")
_STATE_SECONDS = 180.0


class DemoTestCase(BrowserTestCase):
    """Runs the demo.

    :ivar desktop: the URL of a desktop that moves; ``second``, ``stopped``, ``expiring``, ``takeover``,
        ``serial`` and ``forged`` alike.
    """

    def start_demo(self) -> None:
        """Start the program, and note its URLs."""
        path = self.path("said")
        directories = ("--novnc", web_package("novnc"), "--xterm", web_package("xterm"))
        with open(path, "wb") as said:
            self.start_program(
                sys.executable, "-m", "wsproxy", "demo", "--port", "0", *directories, stdout=said
            )
        self.wait_for_file(path, b"Ctrl-C")
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
        browser.open(url)
        self.wait_for_screen(browser)
        return browser

    def wait_for_screen(self, browser: Browser) -> Image:
        """Wait until the page is connected and its screen is not blank, and return that."""
        browser.wait_until(CONNECTED, _STATE_SECONDS)
        self.wait_for(lambda: len(set(screen_of(browser, CANVAS).rgb)) > 16, "a picture")
        return screen_of(browser, CANVAS)

    def wait_for_notice(self, browser: Browser, title: str) -> None:
        """Wait until the page says in large letters what has become of the console."""
        browser.wait_until(
            "!document.getElementById('notice').hidden"
            f" && document.getElementById('notice-title').textContent === {title!r}",
            _STATE_SECONDS,
        )
