"""The console page's small pictures of the machines: what the user sees, and how many requests they cost."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any, ClassVar

from tests.integration.chromium import Browser
from tests.integration.console_page import CONNECTED, ConsolePageTestCase
from tests.integration.person import click, type_text
from tests.integration.programs import needs
from wsproxy.testing.screen.desktop import Desktop
from wsproxy.testing.screen.image import Image

_WITHIN = 60.0
_NOON = datetime(2026, 1, 1, 12)
_PLACE = "document.querySelector('li[data-vmi=%s] .thumbnail')"
_WHOLE = """(() => {
    const place = document.querySelector("li[data-vmi=%s] .thumbnail");
    const {height, bottom} = place.firstChild.getBoundingClientRect();
    return height > 0 && bottom <= place.getBoundingClientRect().bottom + 1;
})()"""
_PIXELS = """(() => {
    const image = document.querySelector("li[data-vmi=%s] .thumbnail img");
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
    const parts = [];
    for (let at = 0; at < data.length; at += 4) {
        parts.push(String.fromCharCode(data[at], data[at + 1], data[at + 2]));
    }
    return [canvas.width, canvas.height, btoa(parts.join(""))];
})()"""


@needs("chromium", "chromium")
class ThumbnailsTest(ConsolePageTestCase):
    proxy_settings: ClassVar[dict[str, Any]] = {"console_page": True, "screenshots": True}

    def still_desktop(self, vmi: str) -> Desktop:
        """Return a desktop whose clock stands, so that pictures can be compared."""
        return self.add_desktop(vmi, size=(320, 240), now=lambda: _NOON)

    def picture_of(self, browser: Browser, vmi: str) -> Image:
        """Return a machine's picture, as soon as there is one."""
        browser.wait_until(f"{_PLACE % vmi}.querySelector('img')")
        width, height, pixels = browser.evaluate(_PIXELS % vmi)
        return Image(width, height, base64.b64decode(pixels))

    def wait_for_words(self, browser: Browser, vmi: str, words: str) -> None:
        browser.wait_until(f"{_PLACE % vmi}.textContent === {json.dumps(words)}")

    def pictures_asked_of(self, vmi: str) -> int:
        """Return how many pictures KubeVirt was asked for."""
        return sum(request.target.endswith(f"/{vmi}/vnc/screenshot") for request in self.api.requests)

    def test_beside_an_open_console(self) -> None:
        """The other machines are seen, and seen again later; the console that is open lives on."""
        desktops = {vmi: self.still_desktop(vmi) for vmi in ("ubuntu", "windows", "debian")}
        self.api.add_vmi("off", self.namespace, phase="Succeeded")
        proxy = self.start_proxy()
        browser = self.open_page(proxy, f"{self.token(*desktops, 'off')}/ubuntu")
        self.assertEqual(browser.evaluate("document.images.length"), 0)
        self.press_button(browser, "Machines")
        for vmi in ("windows", "debian"):
            self.assertEqual(self.picture_of(browser, vmi), desktops[vmi].screenshot())
            self.assertEqual(browser.evaluate(f"{_PLACE % vmi}.firstChild.alt"), f"Screen of {vmi}")
            self.assertTrue(browser.evaluate(_WHOLE % vmi))
        self.wait_for_words(browser, "off", "Not running")
        self.wait_for_words(browser, "ubuntu", "Open here")
        self.assert_accessible(browser)

        before = self.picture_of(browser, "debian")
        with self.open_console("debian", proxy=proxy) as viewer:
            viewer.type("somebody works here")
            self.assertTrue(desktops["debian"].wait_for_text("somebody works here", _WITHIN))
            browser.evaluate(f"window.before = {_PLACE % 'debian'}.firstChild; 0")
            browser.wait_until(f"{_PLACE % 'debian'}.firstChild !== before")
            after = self.picture_of(browser, "debian")
            self.assertEqual(after, desktops["debian"].screenshot())
            self.assertNotEqual(after, before)
            viewer.type("!")
            self.assertTrue(desktops["debian"].wait_for_text("somebody works here!", _WITHIN))

        self.assertTrue(browser.evaluate(CONNECTED))
        click(browser, "#view")
        type_text(browser, "mine")
        self.assertTrue(desktops["ubuntu"].wait_for_text("mine", _WITHIN))
        opened = [console.name for console in self.api.consoles]
        self.assertEqual(opened, ["ubuntu", "debian"])
        self.assertEqual(self.pictures_asked_of("ubuntu"), 0)
        self.assertEqual(browser.complaints, [])

    def test_before_and_after_a_console(self) -> None:
        """All machines are seen while none is open; one that stops is said to have stopped."""
        desktops = {vmi: self.still_desktop(vmi) for vmi in ("ubuntu", "windows")}
        browser = self.start_browser()
        self.visit(browser, self.start_proxy(), self.token(*desktops))
        for vmi, desktop in desktops.items():
            self.assertEqual(self.picture_of(browser, vmi), desktop.screenshot())
        self.api.remove_vmi("windows", self.namespace)
        self.wait_for_words(browser, "windows", "Not found")
        click(browser, "[aria-label='Screen of ubuntu']")
        browser.wait_until(CONNECTED)
        self.press_button(browser, "Machines")
        self.wait_for_words(browser, "ubuntu", "Open here")
        self.press_button(browser, "Disconnect")
        self.assertEqual(self.picture_of(browser, "ubuntu"), desktops["ubuntu"].screenshot())
        self.assertEqual(browser.complaints, [])

    def test_switched_off(self) -> None:
        """If the proxy serves no pictures, the list has none, and the page requests none."""
        for vmi in ("ubuntu", "windows"):
            self.still_desktop(vmi)
        browser = self.open_page(
            self.start_proxy(screenshots=False), f"{self.token('ubuntu', 'windows')}/ubuntu"
        )
        self.press_button(browser, "Machines")
        browser.wait_until("document.querySelector('li[data-vmi=windows]').checkVisibility()")
        self.assertEqual(browser.evaluate("document.querySelectorAll('.thumbnail').length"), 0)
        self.assertEqual(browser.complaints, [])


# A server that answers as it is told, and a clock that stands; timers wait to be called.
_STAGE = """(async () => {
    const {Thumbnails} = await import("./thumbnails.js");
    const canvas = new OffscreenCanvas(2, 1);
    canvas.getContext("2d").fillRect(0, 0, 2, 1);
    const pixel = await canvas.convertToBlob();
    const list = document.createElement("ul");
    list.style.width = "200px";  // so that all of it is seen
    for (const vmi of ["one", "two"]) {
        list.append(document.createElement("li"));
        list.lastChild.dataset.vmi = vmi;
    }
    document.body.prepend(list);
    const stage = window.stage = {
        list, now: 0, asked: [], answers: {}, timer: null, urls: 0,
        thumbnails: new Thumbnails(list),
        server: {
            async screenshot(namespace, vmi) {
                stage.asked.push(`${namespace}/${vmi}`);
                document.body.dataset.asked = stage.asked.length;
                const code = stage.answers[vmi];
                if (code !== undefined) {
                    throw Object.assign(new Error(), {code});
                }
                return pixel;
            },
        },
        /** Let time pass; due timers are called. */
        pass(seconds) {
            stage.now += seconds * 1000;
            if (stage.timer !== null && stage.timer.at <= stage.now) {
                stage.timer.call();
            }
        },
        text: vmi => list.querySelector(`li[data-vmi=${vmi}] .thumbnail`).textContent,
        settled: () => stage.timer !== null && stage.timer.at > stage.now,
    };
    performance.now = () => stage.now;
    window.setTimeout = (call, delay) => { stage.timer = {call, at: stage.now + delay}; mark(); return 1; };
    window.clearTimeout = () => { stage.timer = null; mark(); };
    const mark = () => { document.body.dataset.timer = Math.random(); };
    const made = URL.createObjectURL, revoked = URL.revokeObjectURL;
    URL.createObjectURL = blob => { stage.urls++; return made.call(URL, blob); };
    URL.revokeObjectURL = url => { stage.urls--; revoked.call(URL, url); };
    stage.thumbnails.set(stage.server, "lab-1");
})()"""


@needs("chromium", "chromium")
class PaceTest(ConsolePageTestCase):
    """How often pictures are asked for, by a clock of the test's own."""

    def setUp(self) -> None:
        super().setUp()
        self.browser = self.start_browser()
        self.visit(self.browser, self.start_proxy(), "")
        self.browser.wait_for_text("The link is not complete")
        self.browser.evaluate(_STAGE)
        self.settle(2)

    def settle(self, asked: int) -> None:
        """Wait until so many pictures were asked for, and the next is not due yet."""
        self.browser.wait_until(f"stage.asked.length >= {asked} && stage.settled()")
        self.assertEqual(self.browser.evaluate("stage.asked.length"), asked)

    def pass_time(self, seconds: float, asked: int) -> None:
        """Let time pass; that many pictures in all have been asked for then."""
        self.browser.evaluate(f"stage.pass({seconds})")
        self.settle(asked)

    def test_renewed(self) -> None:
        """Each is renewed after ten seconds; no blob is kept alive."""
        self.assertEqual(self.browser.evaluate("stage.asked"), ["lab-1/one", "lab-1/two"])
        self.assertEqual(self.browser.evaluate("stage.list.querySelectorAll('img').length"), 2)
        self.pass_time(9.9, 2)
        self.pass_time(0.2, 4)
        self.assertEqual(self.browser.evaluate("stage.urls"), 0)

    def test_backing_off(self) -> None:
        """Refusals make it slower, up to two minutes; a machine that may start is looked for as before."""
        self.browser.evaluate("stage.answers = {one: 4502, two: 4420}; 0")
        asked = 2
        for seconds, one in ((10, 1), (10, 0), (10, 1), (10, 0), (10, 0), (10, 0), (10, 1)):
            asked += one + 1
            self.pass_time(seconds, asked)
        self.assertEqual(
            self.browser.evaluate("[stage.text('one'), stage.text('two')]"), ["No picture", "Not running"]
        )
        self.browser.evaluate("stage.answers = {}; 0")
        self.pass_time(200, asked + 2)
        self.assertEqual(self.browser.evaluate("stage.list.querySelectorAll('img').length"), 2)
        self.pass_time(10, asked + 4)

    def test_limited(self) -> None:
        """A picture stays while the proxy refuses a new one because of a limit."""
        self.browser.evaluate("stage.answers = {one: 4429}; 0")
        self.pass_time(10, 4)
        self.assertEqual(self.browser.evaluate("stage.list.querySelectorAll('img').length"), 2)

    def test_not_seen(self) -> None:
        """The page requests no picture of a hidden list, or of the machine that is open."""
        self.browser.evaluate("stage.thumbnails.open = 'one'; 0")
        self.assertEqual(self.browser.evaluate("stage.text('one')"), "Open here")
        self.pass_time(10, 3)
        self.browser.evaluate("stage.list.hidden = true; 0")
        self.browser.wait_until("stage.timer === null || stage.asked.length > 3")
        self.browser.evaluate("stage.pass(100)")
        self.assertEqual(self.browser.evaluate("stage.asked.length"), 3)
        self.browser.evaluate("stage.list.hidden = false; 0")
        self.settle(4)
        self.browser.evaluate("stage.thumbnails.open = ''; 0")
        self.settle(5)
        self.assertEqual(self.browser.evaluate("stage.asked.at(-1)"), "lab-1/one")

    def test_token_refused(self) -> None:
        """With a token that is refused nothing is asked for any more."""
        self.browser.evaluate("stage.answers = {one: 4401}; 0")
        self.browser.evaluate("stage.pass(10)")
        self.browser.wait_until("document.querySelectorAll('.thumbnail').length === 0")
        self.assertEqual(self.browser.evaluate("[stage.asked.length, stage.timer]"), [3, None])

    def test_another_token(self) -> None:
        """A picture that was requested with an earlier token is not shown."""
        self.browser.evaluate(
            "stage.server.screenshot = () => new Promise(resolve => { stage.resolve = resolve;"
            " document.body.dataset.held = 1; }); stage.pass(10)"
        )
        self.browser.wait_until("stage.resolve")
        self.browser.evaluate("stage.thumbnails.set(null, ''); stage.resolve(new Blob(['no picture'])); 0")
        self.browser.evaluate("new Promise(resolve => requestAnimationFrame(resolve))")
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('.thumbnail').length"), 0)
        self.assertEqual(self.browser.complaints, [])
