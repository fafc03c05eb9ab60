"""Visits to a console that come to an end, in a browser: with each page, and for each cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from typing import Any

from tests.integration.chromium import Browser, BrowserTestCase
from tests.integration.novnc import FileServer
from tests.integration.web_clients import WebClient
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.kubevirt.backends import SocketBackend
from wsproxy.testing.kubevirt.vmi import FakeVMI
from wsproxy.testing.rfb.client import RFBClient
from wsproxy.testing.screen.desktop import Desktop

__all__ = ["USER", "VMI", "ConsoleVisits", "Visit"]

VMI, USER = "ubuntu", "alice"
_WITHIN = 30.0
# Keeps all that a page says, from its beginning: it may say something else before anybody looks.
_RECORDER = """
const said = window.saidToPerson = [];
new MutationObserver(() => {
    try {
        const now = (%s);
        if (now !== said.at(-1)) said.push(now);
    } catch { }  // it is not all there yet
}).observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
"""
_AT_REST = "Promise.all(document.getAnimations().map(animation => animation.finished)).then(() => 0)"


class Visit:
    """One visit. As a context manager it leaves the page, and then ends what it has started.

    :ivar vmi: the stand-in's VMI, which runs a desktop that does not move.
    """

    def __init__(self, case: ConsoleVisits, browser: Browser, client: WebClient, vmi: FakeVMI) -> None:
        self.case = case
        self.browser = browser
        self.client = client
        self.vmi = vmi
        self._stack = ExitStack()

    def __enter__(self) -> Visit:
        source = _RECORDER % self.client.told
        recorder = self.browser.call("Page.addScriptToEvaluateOnNewDocument", source=source)
        self.on_exit(lambda: self.browser.call("Page.removeScriptToEvaluateOnNewDocument", **recorder))
        return self

    def __exit__(self, *_: object) -> None:
        self.browser.open("about:blank")
        self._stack.close()

    def on_exit(self, function: Callable[[], object]) -> None:
        """Have something called at the end of the visit."""
        self._stack.callback(function)

    def start_proxy(self, **options: Any) -> WebsocketProxy:
        """Start a proxy that serves the page, with further arguments of :class:`.WebsocketProxy`."""
        settings = {**self.client.settings(self.case.directory), **options}
        proxy = WebsocketProxy(**self.case.proxy_options(**settings)).run_in_thread("127.0.0.1", 0)
        self.on_exit(proxy.stop_thread)
        return proxy

    def token(self, **claims: Any) -> str:
        """Return a token for the visit's user and VMI."""
        return self.case.token(VMI, **{"user": USER, **claims})

    def open(
        self,
        proxy: WebsocketProxy,
        *,
        token: str | None = None,
        vmi: str = VMI,
        from_elsewhere: bool = False,
    ) -> None:
        """Open the console.

        :param token: by default the visit's.
        :param from_elsewhere: whether the page comes from a server of its own.
        """
        pages = self._serve_pages() if from_elsewhere else proxy.address
        where = pages, proxy.address
        self.browser.open(self.client.url(*where, token or self.token(), vmi))

    def _serve_pages(self) -> tuple[str, int]:
        files = FileServer(self.client.settings(self.case.directory)["web"])
        self.on_exit(files.close)
        return files.address

    def connect(self, proxy: WebsocketProxy) -> None:
        """Open the console and wait until it is there."""
        self.open(proxy)
        self.browser.wait_until(self.client.connected)

    def view(self, proxy: WebsocketProxy, vmi: str = VMI, user: str = "bob") -> None:
        """Have somebody look at a VMI until the end of the visit."""
        viewer = RFBClient(proxy, self.case.token(vmi, user=user), vmi, timeout=20.0)
        self.on_exit(viewer.close)

    def told(self, words: str) -> None:
        """Wait until the page says something, and nothing besides; it may have said something else since.

        :raises AssertionError: if it does not.
        """
        try:
            self.browser.wait_until(f"saidToPerson.includes({json.dumps(words)})", _WITHIN)
        except AssertionError:
            said = self.browser.evaluate("saidToPerson")
            raise AssertionError(f"{words!r} is not among what it says: {said!r}") from None

    def picture(self, words: str) -> bytes:
        """Return a picture of the page, which has come to rest.

        :raises AssertionError: if it does not say this any more.
        """
        self.browser.evaluate(_AT_REST)
        picture = self.browser.screenshot()
        self.case.assertEqual(self.browser.evaluate(self.client.told), words)
        return picture


class ConsoleVisits(BrowserTestCase):
    """Visits consoles with one browser."""

    def setUp(self) -> None:
        super().setUp()
        self.desktop = Desktop(VMI, size=(640, 360), now=lambda: datetime(2000, 1, 1, 12))
        self.addCleanup(self.desktop.close)
        self.browser = self.start_browser()
        self.browser.show_as(width=640, height=400)

    def visit(self, client: WebClient) -> Visit:
        """Begin a visit, with the stand-in as it should be."""
        self.api.forbid = False
        vmi = self.api.add_vmi(VMI, self.namespace, backend=SocketBackend(self.desktop.serve))
        return Visit(self, self.browser, client, vmi)
