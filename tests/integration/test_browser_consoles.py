"""Real servers in a real browser: their screens are seen, and what a person types arrives in them.

The API's stand-in speaks TLS, and the pages come from the proxy: ours, and stock noVNC with the link that
LabOrchestrator makes.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.chromium import Browser, BrowserTestCase
from tests.integration.person import click, screen_of, type_text
from tests.integration.programs import needs
from tests.integration.qemu import start_screen_echo
from tests.integration.web_clients import CLIENTS, NOVNC_INSTALLED, WebClient
from wsproxy.net.addresses import host_and_port
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.kubevirt.backends import UnixBackend
from wsproxy.testing.screen.image import Image

_SECONDS = 30.0
_CURSOR = 32  # pixels: what a server draws for a viewer that has no cursor of its own
_TEXT = "Hello, VM 42! a-b_c/d"


@needs("chromium", "chromium")
class BrowserConsoles(BrowserTestCase):
    """Each client in turn, in one browser."""

    def each_client(self, socket_path: str, look: Callable[[Browser, WebClient], None]) -> None:
        """Open the console of a server that listens at a Unix socket in each client."""
        browser = self.start_browser()
        # Two machines with one server behind: KubeVirt has one viewer for each.
        for vmi in ("machine", "witness"):
            self.api.add_vmi(vmi, self.namespace, backend=UnixBackend(socket_path))
        for client in CLIENTS:
            with self.subTest(client=client.name):
                proxy = self.start_proxy(**client.settings(self.directory))
                browser.open(client.url(proxy.address, proxy.address, self.token("machine"), "machine"))
                browser.wait_until(client.connected)
                self.witness = self.connect(self.url(proxy, "witness"))
                look(browser, client)
                self.witness.close()
                browser.open("about:blank")

    def assert_same_screen(self, browser: Browser, client: WebClient) -> Image:
        """Assert that a client comes to show what the server does, pixel by pixel, and return it."""
        deadline = Deadline(_SECONDS)
        while True:
            seen, there = screen_of(browser, client.canvas), self.witness.screenshot()
            area = seen.difference(there)
            if area is None or (seen.size == there.size and max(area[2:]) <= _CURSOR):
                return seen
            if deadline.passed:
                self.fail(f"{client.name} shows another picture than the server, in {area}")


@needs("chromium", "chromium")
class StockPage(BrowserTestCase):
    def test_short_link(self) -> None:
        """The link of stock noVNC needs neither host nor port where the page is from the proxy."""
        self.add_desktop("machine")
        proxy, browser = self.start_proxy(**NOVNC_INSTALLED.settings(self.directory)), self.start_browser()
        page = f"http://{host_and_port(*proxy.address)}/vnc.html"
        browser.open(f"{page}#path={self.token('machine')}/machine&autoconnect=1")
        browser.wait_until(NOVNC_INSTALLED.connected)


@needs("Xvnc", "tigervnc-standalone-server")
@needs("xterm", "xterm")
class TigerVNC(BrowserConsoles):
    def test_typing(self) -> None:
        """A terminal is seen, and the program in it reads what is typed."""
        _, display, socket_path = self.start_xvnc()
        read = self.start_terminal(display)
        lines: list[str] = []

        def look(browser: Browser, client: WebClient) -> None:
            before = self.assert_same_screen(browser, client)
            self.assertGreater(before.differing_pixels(Image(*before.size, bytes(len(before.rgb)))), 100_000)
            click(browser, client.canvas, 0.3, 0.3)  # without a window manager keys go to where the mouse is
            lines.append(f"{_TEXT} {len(lines)}")
            type_text(browser, f"{lines[-1]}\n")
            self.wait_for_file(read, "".join(f"{line}\n" for line in lines).encode())
            after = self.assert_same_screen(browser, client)
            self.assertGreater(after.differing_pixels(before), 10 * len(_TEXT))

        self.each_client(socket_path, look)


@needs("qemu-system-x86_64", "qemu-system-x86")
class QEMU(BrowserConsoles):
    def test_typing(self) -> None:
        """A machine that has booted shows what it says, and gets the keys."""
        socket_path, serial, typed = self.path("vnc"), self.path("serial"), ""
        start_screen_echo(self, socket_path, serial)

        def look(browser: Browser, client: WebClient) -> None:
            nonlocal typed
            before = self.assert_same_screen(browser, client)
            self.assertGreater(before.differing_pixels(Image(*before.size, bytes(len(before.rgb)))), 500)
            click(browser, client.canvas)
            typed += _TEXT
            type_text(browser, _TEXT)
            self.wait_for_file(serial, typed.encode())
            after = self.assert_same_screen(browser, client)
            self.assertGreater(after.differing_pixels(before), 5 * len(_TEXT))

        self.each_client(socket_path, look)
