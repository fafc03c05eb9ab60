"""A headless Chromium that tests drive through its DevTools protocol, and that tells when something is so."""

from __future__ import annotations

import base64
import http.client
import json
import tempfile
from typing import Any

import websocket

from tests.integration.programs import ProgramTestCase
from wsproxy.runtime.deadline import Deadline

__all__ = ["Browser", "BrowserTestCase"]

_START_SECONDS = 60.0
_WAIT_SECONDS = 60.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,800",
    "--remote-debugging-port=0",
)
# Resolves as soon as the condition holds; looked at whenever the page changes.
_WHEN = """new Promise(resolve => {
    const look = () => {
        let found = false;
        try { found = (%s); } catch (error) { found = false; }
        if (found) { observer.disconnect(); resolve(found); }
    };
    const observer = new MutationObserver(look);
    observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
    look();
})"""
# What is said of a promise whose page is no more.
_LEFT = ("Inspected target navigated or closed", "Execution context was destroyed.")
_TEXT = "document.documentElement ? document.documentElement.textContent : ''"


class PageLeft(RuntimeError):
    """The page that was asked something has given way to another one."""


class Browser:
    """One page of a Chromium. Not safe for several threads; each call blocks for at most a minute.

    :param devtools: WebSocket URL of the page's DevTools target.
    :ivar complaints: errors that the page or the browser wrote to the browser's log so far.
    :ivar requests: URLs of all requests and WebSockets since :meth:`watch_requests`.
    """

    def __init__(self, devtools: str) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._socket = websocket.create_connection(devtools, timeout=_START_SECONDS, suppress_origin=True)
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Leave the browser; its process is ended elsewhere."""
        self._socket.close(timeout=0)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a DevTools method and return its result.

        :raises RuntimeError: if the browser reports an error.
        """
        return self._call(method, parameters, _WAIT_SECONDS)

    def watch_requests(self) -> None:
        """Note in :attr:`requests` what the page asks for from now on."""
        self.call("Network.enable")

    def screenshot(self) -> bytes:
        """Return a PNG of what is to be seen of the page."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def show_as(self, scheme: str = "light", width: int = 1280, height: int = 800) -> None:
        """Be a window of another size, in pixels, of somebody who wants light or dark pages."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, url: str) -> None:
        """Open a page; returns when it is this page that the browser shows, loaded or not."""
        failed = self.call("Page.navigate", url=url).get("errorText")
        if failed:
            raise RuntimeError(f"the page does not open: {failed}")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; of a promise what it resolves to."""
        return self._evaluate(expression, _WAIT_SECONDS)

    @property
    def text(self) -> str:
        """All text of the page, hidden parts included."""
        return str(self.evaluate(_TEXT))

    def wait_until(self, condition: str, seconds: float = _WAIT_SECONDS) -> Any:
        """Wait until a JavaScript expression about the document is truthy, and return its value.

        The page may give way to another one meanwhile.

        :raises AssertionError: if that does not happen in time; it shows the page's text.
        """
        deadline = Deadline(seconds)
        try:
            while True:
                try:
                    return self._evaluate(_WHEN % condition, deadline.remaining())
                except PageLeft:
                    continue
        except TimeoutError:
            raise AssertionError(f"not so in {seconds:.0f} s: {condition}; the page: {self.text}") from None

    def wait_for_text(self, text: str) -> None:
        """Wait until a text stands on the page."""
        self.wait_until(f"({_TEXT}).includes({json.dumps(text)})")

    def _evaluate(self, expression: str, seconds: float) -> Any:
        parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        result = self._call("Runtime.evaluate", parameters, seconds)
        if "exceptionDetails" in result:
            raise RuntimeError(f"JavaScript failed: {_words(result['exceptionDetails'])}")
        return result["result"].get("value")

    def _call(self, method: str, parameters: dict[str, Any], seconds: float) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        deadline = Deadline(seconds)
        while (message := self._receive(deadline)).get("id") != self._number:
            self._note(message)
        if "error" in message:
            if message["error"]["message"] in _LEFT:
                raise PageLeft(method)
            raise RuntimeError(f"{method} failed: {message['error']['message']}")
        result: dict[str, Any] = message["result"]
        return result

    def _receive(self, deadline: Deadline) -> dict[str, Any]:
        self._socket.settimeout(deadline.remaining())
        try:
            message: dict[str, Any] = json.loads(self._socket.recv())
        except websocket.WebSocketTimeoutException:
            raise TimeoutError("the browser does not answer") from None
        return message

    def _note(self, message: dict[str, Any]) -> None:
        """Keep what is an error, and what was asked for."""
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(_words(parameters["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(str(parameters["entry"]["text"]))
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(str(parameters["request"]["url"]))
        elif message.get("method") == "Network.webSocketCreated":
            self.requests.append(str(parameters["url"]))


def _words(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])


class BrowserTestCase(ProgramTestCase):
    """Starts browsers, each with a profile of its own."""

    def start_browser(self) -> Browser:
        """Start a Chromium with an empty page; it is ended with the test."""
        profile = tempfile.mkdtemp(prefix="profile-", dir=self.directory)
        self.start_program("chromium", *_FLAGS, f"--user-data-dir={profile}", "about:blank")
        told = f"{profile}/DevToolsActivePort"
        self.wait_for_file(told, b"/devtools/browser/", _START_SECONDS)
        with open(told, encoding="ascii") as file:
            port = int(file.readline())
        browser = Browser(_empty_page(port))
        self.addCleanup(browser.close)
        return browser


def _empty_page(port: int) -> str:
    """Return the DevTools URL of a browser's first page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_SECONDS)
    try:
        connection.request("GET", "/json/list")
        targets = json.load(connection.getresponse())
    finally:
        connection.close()
    return next(str(target["webSocketDebuggerUrl"]) for target in targets if target["type"] == "page")
