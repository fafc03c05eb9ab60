"""Takes the pictures of the demo, docs/demo-*.png: ``scripts/screenshots``. Not run with the tests."""

from __future__ import annotations

import os
import unittest

from tests.integration.chromium import Browser
from tests.integration.console_page import CANVAS
from tests.integration.demo import DemoTestCase
from tests.integration.person import click, type_text
from wsproxy.testing.screen.image import Image

_DOCS = os.path.join(os.path.dirname(__file__), "..", "..", "docs")
_SIZE = (960, 640)


class Screenshots(DemoTestCase):
    """One browser, from state to state."""

    def test_states(self) -> None:
        """The pictures are in docs, none of them large, and no two of them alike."""
        self.start_demo()
        browser = self.start_browser()
        browser.show_as("light", *_SIZE)
        pictures = [self.desktop_picture(browser), self.machines_picture(browser)]
        browser.show_as("dark", *_SIZE)
        pictures.append(self.stopped_picture(browser))
        self.assertEqual(len({Image.from_png(picture).rgb for picture in pictures}), len(pictures))
        for name, picture in zip(("desktop", "machines", "stopped"), pictures, strict=True):
            self.assertLess(len(picture), 150_000)
            with open(os.path.join(_DOCS, f"demo-{name}.png"), "wb") as file:
                file.write(picture)

    def desktop_picture(self, browser: Browser) -> bytes:
        """Type something into a desktop."""
        self.open_screen(self.desktop, browser)
        before = self.wait_for_screen(browser)
        click(browser, CANVAS, 0.3, 0.8)
        type_text(browser, "Hello from a browser, through wsproxy!")
        caret = (36, 222, 12, 20)  # in the terminal's second row, once the text has filled the first
        self.wait_for_screen(browser, lambda image: image.crop(*caret) != before.crop(*caret))
        browser.wait_until("document.getElementById('latency').textContent")
        return browser.screenshot()

    def machines_picture(self, browser: Browser) -> bytes:
        """Choose among the machines, of which small pictures are shown."""
        self.press_button(browser, "Machines")
        browser.wait_until("document.querySelector('#machine-list img')?.complete")
        browser.wait_until("document.getElementById('machine-list').textContent.includes('Not running')")
        return browser.screenshot()

    def stopped_picture(self, browser: Browser) -> bytes:
        """Open a machine that is stopped."""
        browser.open(self.stopped)
        self.wait_for_notice(browser, "The machine is not running")
        return browser.screenshot()


if __name__ == "__main__":
    unittest.main()
