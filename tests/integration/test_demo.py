"""What a newcomer sees who clicks on what the demo prints."""

from __future__ import annotations

import re
import unittest

from tests.integration.console_page import CONNECTED
from tests.integration.demo import DemoTestCase
from tests.integration.programs import needs

_FIGURE = (530, 196, 240, 240)  # within the planets' window, whose place the facts and the size decide
_COUNTDOWN = "document.getElementById('countdown').textContent"


@needs("chromium", "chromium")
class Demo(DemoTestCase):
    """The demo's URLs in browsers."""

    def setUp(self) -> None:
        super().setUp()
        self.start_demo()

    def test_desktops(self) -> None:
        """The first URL shows a desktop that moves, the second another; the browser complains of nothing."""
        browser = self.open_screen(self.desktop)
        first = self.wait_for_screen(browser)
        self.wait_for_screen(browser, lambda image: image.crop(*_FIGURE) != first.crop(*_FIGURE))
        self.open_screen(self.second, browser)
        self.wait_for_screen(browser, lambda image: image.differing_pixels(first) > 100_000)
        self.assertEqual(browser.complaints, [])

    def test_stopped(self) -> None:
        """The page of a VM that is stopped says so, and connects by itself when it has started."""
        browser = self.start_browser()
        browser.open(self.stopped)
        self.wait_for_notice(browser, "The machine is not running")
        self.wait_for_screen(browser)

    def test_expiring(self) -> None:
        """A token that runs out is counted down, and then the page says that it has."""
        browser = self.open_screen(self.expiring)
        left = [self.seconds(browser.wait_until(_COUNTDOWN))]
        left.append(
            self.seconds(browser.wait_until(f"{_COUNTDOWN}.endsWith(' 30 s') && {_COUNTDOWN}", 120.0))
        )
        self.assertGreater(left[0], left[1])
        self.wait_for_notice(browser, "Your access has expired")
        self.assertFalse(browser.evaluate(CONNECTED))

    def seconds(self, text: str) -> int:
        """Return the time that a countdown shows."""
        found = re.fullmatch(r"Access ends in (?:(\d) min )?(\d+) s", text)
        assert found, text
        return 60 * int(found[1] or 0) + int(found[2])

    def test_takeover(self) -> None:
        """Whoever is taken over is told by whom."""
        browser = self.open_screen(self.desktop)
        self.open_screen(self.takeover)
        self.wait_for_notice(browser, "Someone else took over this console")
        browser.wait_for_text("teacher")

    def test_serial_and_forged(self) -> None:
        """A serial console asks for a user once Enter is pressed; a forged token is no good."""
        browser = self.start_browser()
        browser.open(self.serial)
        browser.wait_until(CONNECTED)
        self.press_button(browser, "Keys")
        self.press_button(browser, "Enter")
        browser.wait_for_text("login:")
        browser.open(self.forged)
        self.wait_for_notice(browser, "The link is not valid")


if __name__ == "__main__":
    unittest.main()
