"""The console page in a browser: screen, keys, clipboard and choices, and that no token leaks."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
from datetime import datetime
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from tests.behaviour.test_secrets import leaks
from tests.integration.chromium import Browser
from tests.integration.console_page import CANVAS, CONNECTED, ConsolePageTestCase, press
from tests.integration.person import click, type_text
from tests.integration.programs import needs
from tests.integration.web_packages import web_package
from tests.support.proxy_process import wait_until
from wsproxy.proxy import WebsocketProxy
from wsproxy.runtime.logs import TextFormatter
from wsproxy.testing.screen.desktop import Desktop

_WITHIN = 60.0
_NOON = datetime(2026, 1, 1, 12)
_WAY_OUT = (("Control", "ControlLeft"), ("Alt", "AltLeft"), ("Shift", "ShiftLeft"))
_FOCUSED = "document.activeElement.textContent"
_ON_SCREEN = f"document.activeElement === document.querySelector('{CANVAS}')"
_KEPT = """[document.documentElement.outerHTML, document.cookie, JSON.stringify(localStorage),
    JSON.stringify(sessionStorage), history.state]"""
_DELETE, _SHIFT, _CONTROL, _ALT = 0xFFFF, 0xFFE1, 0xFFE3, 0xFFE9


class Case(ConsolePageTestCase):
    def still_desktop(self, vmi: str, size: tuple[int, int] = (640, 480)) -> Desktop:
        """Return a desktop whose clock stands, so that pictures can be compared."""
        return self.add_desktop(vmi, size=size, now=lambda: _NOON)


@needs("chromium", "chromium")
class WithDebiansNoVNC(Case):
    """What noVNC does for the page, with the version that Debian has."""

    def open_screen(self, vmi: str, **settings: Any) -> Browser:
        return self.open_page(self.start_proxy(novnc=self.novnc(), **settings), f"{self.token(vmi)}/{vmi}")

    def novnc(self) -> str:
        return "/usr/share/novnc"

    def test_screen_and_typing(self) -> None:
        """Every pixel of the screen is the machine's, also after something was typed."""
        desktop = self.still_desktop("ubuntu")
        browser = self.open_screen("ubuntu")
        self.assert_shows(browser, desktop)
        browser.wait_until(_ON_SCREEN)
        type_text(browser, "Hello, VM 42!\n")
        self.assertTrue(desktop.wait_for_text("Hello, VM 42!\n", _WITHIN))
        self.assert_shows(browser, desktop)
        self.assertEqual(browser.complaints, [])

    def test_pointer_of_a_scaled_screen(self) -> None:
        """The screen fits into the window, whatever its size, and the pointer goes to where it is seen."""
        desktop = self.still_desktop("ubuntu", (1600, 1200))
        browser = self.open_screen("ubuntu")
        self.assert_shows(browser, desktop)
        fits = (
            "const box = document.querySelector('%s').getBoundingClientRect(); return box.%s <= inner%s + 0.5"
        )
        for side, length in (("right", "Width"), ("bottom", "Height")):
            self.assertTrue(browser.evaluate(f"(() => {{ {fits % (CANVAS, side, length)}; }})()"))
        click(browser, CANVAS, 0.25, 0.75)

        def is_there() -> bool:
            x, y = desktop.pointer
            return abs(x - 400) < 4 and abs(y - 900) < 4

        self.assertTrue(desktop.wait_for(is_there, _WITHIN), desktop.pointer)

    def test_keys(self) -> None:
        """A button sends keys that a browser keeps to itself."""
        desktop = self.add_desktop("ubuntu")
        browser = self.open_screen("ubuntu")
        keys = [_CONTROL, _ALT, _DELETE]
        expected = [*((True, key) for key in keys), *((False, key) for key in reversed(keys))]
        with mock.patch.object(desktop._served, "press", wraps=desktop._press) as pressed:
            self.press_button(browser, "Keys")
            self.press_button(browser, "Ctrl+Alt+Del")
            self.assertTrue(wait_until(lambda: pressed.call_count >= len(expected), _WITHIN))
            self.assertEqual([call.args for call in pressed.call_args_list], expected)

    def test_clipboard(self) -> None:
        """A button sends text to the machine; text from the machine is shown, and a button copies it."""
        desktop = self.add_desktop("ubuntu")
        browser = self.open_screen("ubuntu")
        browser.call(
            "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
        )
        browser.call("Emulation.setFocusEmulationEnabled", enabled=True)  # who has no window has no focus
        mine = "navigator.clipboard.readText()"
        browser.evaluate("navigator.clipboard.writeText('mine')")
        self.press_button(browser, "Clipboard")
        click(browser, "#outgoing")
        browser.call("Input.insertText", text="to the machine: <b>")
        self.press_button(browser, "Send to its clipboard")
        self.assertTrue(desktop.wait_for(lambda: desktop.clipboard == "to the machine: <b>", _WITHIN))
        self.assertEqual(desktop.text, "")
        evil = "<img src=x onerror=alert(1)>\nrm -rf /"
        desktop.cut(evil)
        browser.wait_until("!document.getElementById('copy').disabled")
        self.assertEqual(browser.evaluate("document.getElementById('incoming').value"), evil)
        self.assertEqual(browser.evaluate("document.images.length"), 0)
        self.assertEqual(browser.evaluate(mine), "mine")
        self.press_button(browser, "Copy")
        browser.wait_for_text("Copied")
        self.assertEqual(browser.evaluate(mine), evil)
        browser.evaluate("navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed'))")
        self.press_button(browser, "Copy")
        browser.wait_for_text("The text is selected: press Ctrl+C to copy it")
        self.assertEqual(browser.evaluate("document.getSelection().toString()"), evil)
        self.assertEqual(browser.complaints, [])

    def test_typing_a_text(self) -> None:
        """A text is typed into a machine that shares no clipboard, with Shift where a keyboard needs it."""
        desktop = self.add_desktop("ubuntu")
        browser = self.open_screen("ubuntu")
        self.press_button(browser, "Clipboard")
        click(browser, "#outgoing")
        browser.call("Input.insertText", text="sudo echo 'Größe: 10 €'\n")
        self.press_button(browser, "Type it")
        self.assertTrue(desktop.wait_for_text("sudo echo 'Größe: 10 €'\n", _WITHIN), desktop.text)
        self.assertEqual(desktop.clipboard, "")

    def test_view_only(self) -> None:
        """In view-only mode the page sends no keys, no pointer events and no text."""
        desktop = self.add_desktop("ubuntu")
        browser = self.open_screen("ubuntu")
        self.press_button(browser, "View only")
        self.assertEqual(browser.evaluate("document.getElementById('view-only').ariaPressed"), "true")
        before = desktop.pointer
        click(browser, CANVAS, 0.1, 0.1)
        type_text(browser, "no")
        for panel, button in (("Keys", "Esc"), ("Clipboard", "Type it")):
            self.press_button(browser, panel)
            disabled = "[...document.querySelectorAll(':disabled')].map(({textContent}) => textContent)"
            self.assertIn(button, browser.evaluate(disabled))
        self.press_button(browser, "View only")
        click(browser, CANVAS)
        type_text(browser, "yes")
        self.assertTrue(desktop.wait_for_text("yes", _WITHIN))
        self.assertEqual(desktop.text, "yes")
        self.assertNotEqual(before, desktop.pointer)

    def test_way_out_of_the_screen(self) -> None:
        """Tab goes to the machine; Ctrl+Alt+Shift leads out of it, and leaves no key pressed there."""
        desktop = self.add_desktop("ubuntu")
        browser = self.open_screen("ubuntu")
        browser.wait_until(_ON_SCREEN)
        press(browser, ("Tab", "Tab"))
        self.assertTrue(desktop.wait_for_text("\t", _WITHIN))
        self.assertTrue(browser.evaluate(_ON_SCREEN))
        press(browser, _WAY_OUT[0], _WAY_OUT[1], ("a", "KeyA"))
        self.assertTrue(desktop.wait_for_text("a", _WITHIN))
        self.assertTrue(browser.evaluate(_ON_SCREEN))
        with mock.patch.object(desktop._served, "press", wraps=desktop._press) as pressed:
            press(browser, *_WAY_OUT)
            browser.wait_until(f"{_FOCUSED} === 'Keys'")
            released = [mock.call(False, keysym) for keysym in (_SHIFT, _ALT, _CONTROL)]
            self.assertTrue(
                wait_until(lambda: pressed.call_args_list[-len(released) :] == released, _WITHIN),
                pressed.call_args_list,
            )
        press(browser, ("Tab", "Tab"))
        browser.wait_until(f"{_FOCUSED} === 'Clipboard'")
        self.assertEqual(desktop.text, "\ta")


@needs("chromium", "chromium")
class WithReleasedNoVNC(WithDebiansNoVNC):
    """The same with the version that npm has."""

    def novnc(self) -> str:
        return web_package("novnc")


@needs("chromium", "chromium")
class WholePage(Case):
    def test_choice(self) -> None:
        """If the token allows several machines, the user chooses one from a list, and then another one."""
        desktops = {vmi: self.still_desktop(vmi) for vmi in ("ubuntu", "windows")}
        browser = self.start_browser()
        self.visit(browser, self.start_proxy(), self.token(*desktops))
        self.assertEqual(self.wait_for_notice(browser, "Choose a machine"), ["Choose a machine"])
        for vmi in ("windows", "ubuntu"):
            name = json.dumps(f"Screen of {vmi}")
            browser.wait_until(f"document.querySelector('[aria-label={name}]').checkVisibility()")
            click(browser, f"[aria-label={name}]")
            browser.wait_until(f"{CONNECTED} && document.title === '{vmi} - console'")
            self.assert_shows(browser, desktops[vmi])
            self.press_button(browser, "Machines")
            current = browser.evaluate("document.querySelector('[aria-current=true]').ariaLabel")
            self.assertEqual(current, f"Screen of {vmi}")
        self.assertTrue(desktops["windows"].wait_for(lambda: desktops["windows"].viewers == 0, _WITHIN))

    def test_quick_choice(self) -> None:
        """If the user chooses another machine before the first one is open, only the other one opens."""
        other = self.api.add_vmi("other", self.namespace)
        self.add_desktop("ubuntu")
        browser = self.start_browser()
        self.visit(browser, self.start_proxy(), self.token("other", "ubuntu"))
        self.wait_for_notice(browser, "Choose a machine")
        name = "document.querySelector('[aria-label=\"Screen of %s\"]').click()"
        browser.evaluate("; ".join(name % vmi for vmi in ("other", "ubuntu")))
        browser.wait_until(CONNECTED)
        self.assertEqual(browser.evaluate("document.title"), "ubuntu - console")
        self.assertEqual(other.consoles, [])

    def test_only_machine(self) -> None:
        """A token for one machine opens its console, and offers no choice."""
        self.add_desktop("ubuntu")
        browser = self.open_page(self.start_proxy(), self.token("ubuntu"))
        self.assertEqual(browser.evaluate("document.getElementById('title').textContent"), "ubuntu")
        self.assertFalse(browser.evaluate("document.getElementById('open-machines').checkVisibility()"))

    def test_prefix(self) -> None:
        """The page finds its proxy behind a path prefix, too."""
        self.add_desktop("ubuntu")
        proxy = self.start_proxy(host_path_prefix="a/b")
        host, port = proxy.address
        browser = self.start_browser()
        browser.open(f"http://{host}:{port}/a/b/console/#{self.token('ubuntu')}/ubuntu")
        browser.wait_until(CONNECTED)

    def test_another_link(self) -> None:
        """A link that is pasted over the address of an open page takes its place."""
        self.still_desktop("ubuntu")
        desktop = self.still_desktop("windows")
        proxy = self.start_proxy()
        browser = self.open_page(proxy, f"{self.token('ubuntu')}/ubuntu")
        self.visit(browser, proxy, f"{self.token('windows')}/windows")
        browser.wait_until(f"{CONNECTED} && document.title.startsWith('windows')")
        self.assert_shows(browser, desktop)
        self.assertEqual(browser.evaluate("location.hash"), "")

    def test_round_trip(self) -> None:
        """The time that the proxy takes to answer is shown."""
        self.add_desktop("ubuntu")
        browser = self.open_page(self.start_proxy(), f"{self.token('ubuntu')}/ubuntu")
        shown = browser.wait_until("document.getElementById('latency').textContent")
        self.assertRegex(shown, r"^Delay \d+ ms$")

    def test_full_screen(self) -> None:
        """All of the display is used, and given back."""
        self.add_desktop("ubuntu")
        browser = self.open_page(self.start_proxy(), f"{self.token('ubuntu')}/ubuntu")
        self.press_button(browser, "Full screen")
        browser.wait_until("document.getElementById('full-screen').ariaPressed === 'true'")
        click(browser, CANVAS)
        bottom = "document.getElementById('bar').getBoundingClientRect().bottom"
        self.assertTrue(wait_until(lambda: browser.evaluate(bottom) < 30, _WITHIN), "the bar takes room")
        press(browser, *_WAY_OUT)
        self.assertTrue(wait_until(lambda: browser.evaluate(bottom) > 40, _WITHIN), "the bar stays away")
        browser.evaluate("document.exitFullscreen()")
        browser.wait_until("document.getElementById('full-screen').ariaPressed === 'false'")
        self.assertEqual(browser.complaints, [])

    def test_leaving(self) -> None:
        """If the user disconnects, the session ends; the user may connect again."""
        desktop = self.add_desktop("ubuntu")
        browser = self.open_page(self.start_proxy(), f"{self.token('ubuntu')}/ubuntu")
        self.press_button(browser, "Disconnect")
        self.assertIn("Connect again", self.wait_for_notice(browser, "You have left the console"))
        self.assertTrue(desktop.wait_for(lambda: desktop.viewers == 0, _WITHIN))
        self.press_button(browser, "Connect again")
        browser.wait_until(CONNECTED)

    def test_another_page(self) -> None:
        """If the user goes to another page, the session ends; on return the user may connect again."""
        self.add_desktop("ubuntu")
        proxy = self.start_proxy()
        browser = self.open_page(proxy, f"{self.token('ubuntu')}/ubuntu")
        browser.open(f"{self.page_url(proxy)}../healthz")
        self.assertTrue(wait_until(lambda: not proxy.sessions(), _WITHIN))

    def test_no_link(self) -> None:
        """Without a token the page shows how a link looks; after a reload it says that it forgot the link."""
        self.add_desktop("ubuntu")
        proxy = self.start_proxy()
        browser = self.start_browser()
        self.visit(browser, proxy, "")
        told = self.wait_for_notice(browser, "The link is not complete")
        self.assertEqual(told[2], f"A complete link looks like {self.page_url(proxy)}#TOKEN/MACHINE.")
        self.assertEqual(browser.complaints, [])
        self.visit(browser, proxy, f"{self.token('ubuntu')}/ubuntu")
        browser.wait_until(CONNECTED)
        browser.call("Page.reload")
        self.wait_for_notice(browser, "The page has forgotten your link")

    def test_no_novnc(self) -> None:
        """Where the proxy has no noVNC the page says how to get it."""
        self.add_desktop("ubuntu")
        partial = self.path("novnc")
        shutil.copytree("/usr/share/novnc", partial, symlinks=False)
        shutil.rmtree(f"{partial}/core/util")
        browser = self.start_browser()
        self.visit(browser, self.start_proxy(novnc=partial), f"{self.token('ubuntu')}/ubuntu")
        told = self.wait_for_notice(browser, "noVNC is missing")
        for remedy in ("package novnc", "npm package @novnc/novnc", "--novnc DIR"):
            self.assertIn(remedy, told[2])


@needs("chromium", "chromium")
class Secrets(Case):
    """What a visit leaves behind, and where it goes."""

    def visit_all(self, proxy: WebsocketProxy, token: str) -> Browser:
        """Open a console, type something, and leave it; return the browser."""
        desktop = self.add_desktop("ubuntu")
        browser = self.start_browser()
        browser.watch_requests()
        self.visit(browser, proxy, f"{token}/ubuntu")
        browser.wait_until(f"{CONNECTED} && document.getElementById('latency').textContent !== ''")
        type_text(browser, "x")
        self.assertTrue(desktop.wait_for_text("x", _WITHIN))
        return browser

    def test_no_other_host(self) -> None:
        """The page sends requests to its own proxy only, and no URL contains the token."""
        proxy, token = self.start_proxy(), self.token("ubuntu")
        browser = self.visit_all(proxy, token)
        hosts = {urlsplit(url).netloc for url in browser.requests if not url.startswith("data:")}
        self.assertEqual(hosts, {"{}:{}".format(*proxy.address)})
        # The fragment is known to the browser only, which puts it into no request.
        asked = [re.sub(r"#.*", "", url) for url in browser.requests]
        self.assertIn(f"ws://{hosts.pop()}/-/{self.namespace}/ubuntu/vnc", asked)
        self.assertEqual(leaks("\n".join(asked).encode(), [token]), [])
        self.assertEqual(browser.complaints, [])

    def test_no_trace_in_the_browser(self) -> None:
        """Address bar, the tab's history, storage and the referrer of a link hold no token."""
        proxy, token = self.start_proxy(), self.token("ubuntu")
        browser = self.visit_all(proxy, token)
        self.assertEqual(browser.evaluate("location.href"), self.page_url(proxy))
        # The browser's own list of visited pages, which it shows to nobody else, is out of a page's reach.
        entries = [entry["url"] for entry in browser.call("Page.getNavigationHistory")["entries"]]
        self.assertIn(self.page_url(proxy), entries)
        kept = [entries, browser.evaluate(_KEPT)]
        self.assertEqual(leaks(json.dumps(kept).encode(), [token]), [])
        browser.evaluate(
            "(() => { const link = document.createElement('a'); link.href = '../healthz';"
            " link.id = 'leave'; link.textContent = 'x'; document.getElementById('about').append(link); })()"
        )
        click(browser, "#leave")
        browser.wait_until("location.pathname === '/healthz'")
        self.assertEqual(browser.evaluate("document.referrer"), "")

    def test_no_trace_in_logs(self) -> None:
        """Neither the proxy's log at any level nor its audit log hold the token."""
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(TextFormatter())
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        self.addCleanup(root.setLevel, level)
        self.addCleanup(root.removeHandler, handler)
        audit = self.path("audit")
        proxy, token = self.start_proxy(audit_log=audit), self.token("ubuntu")
        browser = self.visit_all(proxy, token)
        browser.open("about:blank")
        self.assertTrue(wait_until(lambda: not proxy.sessions(), _WITHIN))
        proxy.stop_thread()
        with open(audit, "rb") as file:
            audited = file.read()
        self.assertIn(b"ubuntu", audited)
        self.assertIn("ubuntu", stream.getvalue())
        self.assertEqual(leaks(stream.getvalue().encode() + audited, [token]), [])
