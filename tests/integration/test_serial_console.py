"""The serial console on our console page, in a real browser: xterm.js, and what the page makes of it."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

from tests.integration.chromium import Browser
from tests.integration.console_page import CONNECTED, ConsolePageTestCase, press
from tests.integration.person import click
from tests.integration.programs import needs
from tests.integration.qemu import start_serial_echo
from tests.integration.web_packages import web_package
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.kubevirt.backends import Backend, SocketBackend, UnixBackend
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.screen.login_shell import LoginShell

_TIMEOUT = 30.0
_CTRL = 2  # of the DevTools protocol's modifiers
_KEYS = {"Enter": (13, "\r"), "ArrowUp": (38, ""), "c": (67, "")}  # code and text
# What the terminal shows, line by line.
_SHOWN = """[...document.querySelectorAll(".xterm-rows > div")]
    .map(row => row.textContent.replaceAll("\\u00a0", " ").trimEnd()).join("\\n")"""
# How many lines the terminal has, how wide they and their place are, and the size of characters, in pixels.
_SIZE = """(() => {
    const view = document.getElementById("view").getBoundingClientRect();
    const row = document.querySelector(".xterm-rows > div").getBoundingClientRect();
    const font = parseFloat(getComputedStyle(document.querySelector(".xterm-rows")).fontSize);
    return [document.querySelectorAll(".xterm-rows > div").length, row.width, view.width, font];
})()"""
# Gives a terminal that is beside the page's own three messages, before it has time to show the first one.
_FLOOD = """(async () => {
    const {Serial} = await import("./serial.js");
    const socket = Object.assign(new EventTarget(), {readyState: WebSocket.OPEN, close: () => {}});
    const place = document.body.appendChild(document.createElement("div"));
    place.style.height = "200px";
    window.flooded = new Serial(place, socket, {viewOnly: false, label: "flooded", description: "way-out"});
    for (const megabytes of [8, 9, 10]) {
        const data = new Uint8Array(megabytes * 1024 * 1024).fill(46).buffer;
        socket.dispatchEvent(new MessageEvent("message", {data}));
    }
})()"""
_PASTE = """text => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", text);
    const paste = new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true});
    document.querySelector(".xterm-helper-textarea").dispatchEvent(paste);
}"""
_SECOND_ROW = """(() => {
    const {x, y, height} = document.querySelectorAll(".xterm-rows > div")[1].getBoundingClientRect();
    return [x + 20, y + height / 2];
})()"""
_COPY = """(() => {
    let copied = "";
    document.addEventListener("copy", ({clipboardData}) => { copied = clipboardData.getData("text/plain"); });
    document.execCommand("copy");
    return copied;
})()"""
_FOCUS_IN_TERMINAL = "document.getElementById('view').contains(document.activeElement)"


class Recorder:
    """A machine that keeps what is typed, and shows what a test tells it to.

    :param shown: is shown at the start, each piece as a message of its own.
    """

    def __init__(self, *shown: bytes) -> None:
        self._shown = shown
        self._changed = threading.Condition()
        self._typed = b""

    def serve(self, console: FakeConsole) -> None:
        """See :class:`.Backend`."""
        for message in self._shown:
            console.send_message(message)
        console.read_data(self._keep)

    def _keep(self, payload: bytes, fin: bool) -> None:
        with self._changed:
            self._typed += payload
            self._changed.notify_all()

    def take(self, size: int) -> bytes:
        """Wait until so many bytes have been typed, and return all that have been."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._typed) >= size, _TIMEOUT)
            typed, self._typed = self._typed, b""
            return typed


class SerialTestCase(ConsolePageTestCase):
    """Opens serial consoles in browsers."""

    def setUp(self) -> None:
        super().setUp()
        self.xterm = web_package("xterm")

    def start(self, **options: Any) -> WebsocketProxy:
        """Start a proxy that opens serial consoles, and whose page has xterm.js."""
        return self.start_proxy(**{"subresources": ("console",), "xterm": self.xterm, **options})

    def add_shell(self, vmi: str = "vm") -> LoginShell:
        """Add a VM with a login at its serial console, and something that echoes as its display."""
        shell = LoginShell(vmi)
        self.addCleanup(shell.close)
        self.api.add_vmi(vmi, self.namespace, console_backend=SocketBackend(shell.serve))
        return shell

    def add_recorder(self, *shown: bytes) -> Recorder:
        """Add a VM with a recorder as its serial console."""
        recorder = Recorder(*shown)
        backend: Backend = recorder
        self.api.add_vmi("vm", self.namespace, console_backend=backend)
        return recorder

    def open(self, proxy: WebsocketProxy) -> Browser:
        """Open the serial console of "vm" in a new browser, and wait until it is there."""
        return self.open_page(proxy, f"{self.token('vm')}/vm/console")

    def wait_shown(self, browser: Browser, text: str) -> None:
        """Wait until the terminal shows a text, which may have several lines."""
        browser.wait_until(f"({_SHOWN}).includes({json.dumps(text)})")

    def press(self, browser: Browser, key: str, modifiers: int = 0) -> None:
        """Press a key, which is in ``_KEYS``, and release it; xterm.js goes by their old codes."""
        code, text = _KEYS[key]
        about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        browser.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        browser.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type_line(self, browser: Browser, text: str) -> None:
        """Type a line into what has the focus."""
        if text:
            browser.call("Input.insertText", text=text)
        self.press(browser, "Enter")

    def log_in(self, browser: Browser) -> None:
        """Log in at a shell's serial console."""
        self.type_line(browser, "")
        self.wait_shown(browser, "vm login:")
        self.type_line(browser, "student")
        self.wait_shown(browser, "vm login: student\nPassword:")
        self.type_line(browser, "student")
        self.wait_shown(browser, "student@vm:~$")

    def press_in(self, browser: Browser, panel: str, button: str) -> None:
        """Open a panel of the page, press a button in it, and close the panel."""
        for name in (panel, button, panel):
            self.press_button(browser, name)


@needs("chromium", "chromium")
class TerminalTest(SerialTestCase):
    """What is shown and typed."""

    def test_login(self) -> None:
        """A user logs in and runs a command by keys alone; the browser's log has no errors."""
        shell = self.add_shell()
        browser = self.open(self.start())
        self.wait_shown(browser, "Connected. If you see nothing, press Enter.")
        self.log_in(browser)
        self.type_line(browser, "echo hello there ü€")
        self.wait_shown(browser, "student@vm:~$ echo hello there ü€\nhello there ü€\nstudent@vm:~$")
        self.assertEqual(shell.commands, ("echo hello there ü€",))
        self.type_line(browser, "seq 2000")
        self.wait_shown(browser, "1999\n2000\nstudent@vm:~$")
        self.assertEqual(browser.complaints, [])

    def test_interrupt(self) -> None:
        """Ctrl+C is a key, and a button too; neither copies."""
        shell = self.add_shell()
        browser = self.open(self.start())
        self.log_in(browser)
        browser.call("Input.insertText", text="first")
        self.press(browser, "c", _CTRL)
        self.wait_shown(browser, "first^C")
        browser.call("Input.insertText", text="second")
        self.wait_shown(browser, "second")
        self.press_in(browser, "Keys", "Ctrl+C")
        self.wait_shown(browser, "second^C")
        self.assertEqual(shell.commands, ())

    def test_characters(self) -> None:
        """Characters that are cut between messages are shown whole, and colours of no palette are seen."""
        self.add_recorder(b"\xe2", b"\x82", b"\xac\r\n\x1b[38;2;0;", b"160;0mgreen\x1b[0m\r\n")
        browser = self.open(self.start())
        self.wait_shown(browser, "€\ngreen")
        colour = (
            "getComputedStyle([...document.querySelectorAll('.xterm-rows span')]"
            ".find(span => span.textContent === 'green')).color"
        )
        red, green, blue = json.loads(browser.evaluate(colour).replace("rgb(", "[").replace(")", "]"))
        self.assertGreater(green, 2 * max(red, blue))
        self.assertEqual(browser.complaints, [])

    def test_keys(self) -> None:
        """Keys and buttons are what a terminal sends, and follow the mode that the machine has set."""
        recorder = self.add_recorder(b"plain")
        browser = self.open(self.start())
        self.wait_shown(browser, "plain")
        for button, sent in (("Ctrl+D", b"\x04"), ("Ctrl+]", b"\x1d"), ("Esc", b"\x1b"), ("F5", b"\x1b[15~")):
            self.press_in(browser, "Keys", button)
            self.assertEqual(recorder.take(len(sent)), sent)
        self.press_in(browser, "Keys", "Up")
        self.assertEqual(recorder.take(3), b"\x1b[A")
        self.api.consoles[-1].send_message(b"\x1b[?1happlication")
        self.wait_shown(browser, "application")
        self.press_in(browser, "Keys", "Up")
        self.assertEqual(recorder.take(3), b"\x1bOA")
        browser.evaluate("document.querySelector('.xterm-helper-textarea').focus()")
        self.press(browser, "ArrowUp")
        self.assertEqual(recorder.take(3), b"\x1bOA")

    def test_paste(self) -> None:
        """A paste is text alone, and one piece where the machine asked for that."""
        recorder = self.add_recorder(b"plain")
        browser = self.open(self.start())
        self.wait_shown(browser, "plain")
        self.paste(browser, "one\ntwo\x1b[201~\x03\x9b ü")
        self.assertEqual(recorder.take(15), "one\rtwo[201~ ü".encode())
        self.api.consoles[-1].send_message(b"\x1b[?2004hbracketed")
        self.wait_shown(browser, "bracketed")
        self.paste(browser, "one\x1b[201~two")
        self.assertEqual(recorder.take(23), b"\x1b[200~one[201~two\x1b[201~")
        browser.evaluate("document.getElementById('outgoing').value = 'three\\x1b[201~'")
        self.press_in(browser, "Clipboard", "Paste")
        self.assertEqual(recorder.take(22), b"\x1b[200~three[201~\x1b[201~")

    def paste(self, browser: Browser, text: str) -> None:
        """Paste a text into the terminal, as the browser's menu does."""
        browser.evaluate(f"({_PASTE})({json.dumps(text)})")

    def test_copy(self) -> None:
        """What is selected with the mouse is what the browser copies."""
        self.add_recorder(b"first line\r\nsecond line\r\n")
        browser = self.open(self.start())
        self.wait_shown(browser, "second line")
        x, y = browser.evaluate(_SECOND_ROW)
        for count in (1, 2, 3):  # the third click selects the line
            for kind in ("mousePressed", "mouseReleased"):
                browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)
        self.assertEqual(browser.evaluate(_COPY), "second line")

    def test_too_much(self) -> None:
        """If bytes come far too fast to be shown, the page drops some, and the terminal says so."""
        self.add_shell()
        browser = self.open(self.start())
        browser.evaluate(_FLOOD)
        self.wait_shown(browser, f"[{10 * 1024 * 1024} bytes were skipped: they came too fast]")
        browser.evaluate("window.flooded.dispose()")

    def test_view_only(self) -> None:
        """In view-only mode keys, buttons and pastes send nothing."""
        recorder = self.add_recorder(b"plain")
        browser = self.open(self.start())
        click(browser, "#view-only")
        browser.wait_until("document.getElementById('view-only').getAttribute('aria-pressed') === 'true'")
        browser.evaluate("document.querySelector('.xterm-helper-textarea').focus()")
        self.type_line(browser, "a")
        self.press(browser, "c", _CTRL)
        self.paste(browser, "b")
        self.press_in(browser, "Keys", "Esc")
        self.api.consoles[-1].send_message(b"\x1b[c\x1b[6nseen")  # asks for answers
        self.wait_shown(browser, "seen")
        click(browser, "#view-only")
        browser.wait_until("document.getElementById('view-only').getAttribute('aria-pressed') === 'false'")
        self.press_in(browser, "Keys", "Ctrl+D")
        self.assertEqual(recorder.take(1), b"\x04")

    def test_machine_has_no_say(self) -> None:
        """What the machine sends reaches no clipboard, opens no page, and changes no title by itself."""
        text = base64.b64encode("geheim ü".encode()).decode()
        self.add_recorder(
            b"\x1b]52;c;" + text.encode() + b"\x07\x1b]52;c;?\x07\x1b]52;c;~\x07",
            b"\x1b]0;evil title\x07\x1b]2;evil title\x07",
            b"\x1b]8;;http://evil.example/\x07somewhere\x1b]8;;\x07 http://evil.example/\r\nend",
        )
        proxy = self.start()
        browser = self.start_browser()
        self.visit(browser, proxy, f"{self.token('vm')}/vm/console")
        browser.wait_until(CONNECTED)
        browser.evaluate("navigator.clipboard.writeText = () => { throw new Error('the clipboard'); }")
        browser.evaluate("window.open = window.confirm = () => { document.title = 'opened'; }")
        self.wait_shown(browser, "end")
        self.assertEqual(browser.evaluate("document.title"), "vm - console")
        browser.evaluate(
            "[...document.querySelectorAll('.xterm-rows span')]"
            ".find(span => span.textContent === 'somewhere').id = 'link'"
        )
        click(browser, "#link")
        self.api.consoles[-1].send_message(b"\r\nafter")
        self.wait_shown(browser, "after")
        self.assertEqual(browser.evaluate("document.title"), "vm - console")
        self.assertEqual(browser.complaints, [])

    def test_offered_text(self) -> None:
        """A text that the machine offers is shown in the clipboard's panel, and copied on a click."""
        self.add_recorder()
        browser = self.open(self.start())
        browser.evaluate("navigator.clipboard.writeText = text => { document.title = text; }")
        text = base64.b64encode("geheim ü".encode())
        self.api.consoles[-1].send_message(b"\x1b]52;c;" + text + b"\x07")
        browser.wait_until("document.getElementById('copy').disabled === false")
        self.assertEqual(browser.evaluate("document.getElementById('incoming').value"), "geheim ü")
        self.assertEqual(browser.evaluate("document.title"), "vm - console")
        self.press_in(browser, "Clipboard", "Copy")
        browser.wait_until("document.title === 'geheim ü'")


@needs("chromium", "chromium")
class PageTest(SerialTestCase):
    """How the page treats a terminal."""

    def test_way_out(self) -> None:
        """The terminal takes Tab; Ctrl, Alt and Shift together lead the keyboard out of it."""
        self.add_shell()
        browser = self.open(self.start())
        browser.wait_until(_FOCUS_IN_TERMINAL)
        press(browser, ("Control", "ControlLeft"), ("Alt", "AltLeft"), ("Shift", "ShiftLeft"))
        browser.wait_until("document.activeElement.closest('#tools') !== null")
        description = "document.querySelector('.xterm-helper-textarea').getAttribute('aria-describedby')"
        self.assertIn(
            "Ctrl, Alt and Shift", browser.evaluate(f"document.getElementById({description}).textContent")
        )

    def test_screen_reader(self) -> None:
        """What is shown is told to screen readers once that is asked for, and not before."""
        self.add_shell()
        browser = self.open(self.start())
        self.assertIsNone(browser.evaluate("document.querySelector('.xterm-accessibility')"))
        self.assertEqual(
            browser.evaluate("document.querySelector('.xterm-helper-textarea').getAttribute('aria-label')"),
            "Serial console of vm",
        )
        click(browser, "#screen-reader")
        browser.wait_until("document.querySelector('.xterm-accessibility')")
        self.press_in(browser, "Keys", "Enter")
        browser.wait_until("document.querySelector('.xterm-accessibility').textContent.includes('vm login:')")
        click(browser, "#screen-reader")
        browser.wait_until("document.querySelector('.xterm-accessibility') === null")

    def test_size(self) -> None:
        """The terminal fills its place; on a narrow page its characters get smaller, for 80 columns."""
        self.add_shell()
        browser = self.open(self.start())
        lines, width, room, font = browser.evaluate(_SIZE)
        self.assertGreater(width, room - 40)
        self.assertEqual(font, 15)
        browser.show_as(width=600, height=400)
        browser.wait_until(f"({_SIZE})[0] < {lines} && ({_SIZE})[3] < 15")
        lines, width, room, font = browser.evaluate(_SIZE)
        self.assertLessEqual(width, room)
        browser.show_as(width=360, height=640)
        browser.wait_until(f"({_SIZE})[3] === 9 && ({_SIZE})[1] <= ({_SIZE})[2]")
        overflows = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        self.assertFalse(browser.evaluate(overflows))

    def test_themes(self) -> None:
        """The terminal is light or dark as the browser is, also when that changes."""
        self.add_shell()
        browser = self.open(self.start())
        background = "getComputedStyle(document.getElementById('view')).backgroundColor"
        for scheme, colour in (("dark", "rgb(16, 18, 20)"), ("light", "rgb(255, 255, 255)")) * 2:
            browser.show_as(scheme)
            browser.wait_until(f"{background} === '{colour}'")
        self.assertEqual(browser.complaints, [])

    def test_accessibility(self) -> None:
        """axe-core finds nothing wrong with the page, with and without its mode for screen readers."""
        self.add_shell()
        browser = self.open(self.start())
        self.log_in(browser)
        self.assert_accessible(browser)
        click(browser, "#screen-reader")
        browser.wait_until("document.querySelector('.xterm-accessibility')")
        self.assert_accessible(browser)

    def test_switching(self) -> None:
        """Each machine has both consoles to choose from, and one gives way to the other."""
        self.add_shell()
        vnc = self.add_desktop("other")
        browser = self.start_browser()
        self.visit(browser, self.start(), f"{self.token('vm', 'other')}/vm/console")
        browser.wait_until(CONNECTED)
        self.choose(browser, "Screen of other")
        self.assertTrue(vnc.wait_for(lambda: vnc.viewers == 1, _TIMEOUT))
        browser.wait_until("document.querySelector('#view canvas') && !document.querySelector('.xterm')")
        self.assertEqual(browser.evaluate("document.adoptedStyleSheets.length"), 0)
        self.assertTrue(browser.evaluate("document.getElementById('screen-reader').hidden"))
        self.choose(browser, "Serial console of vm")
        browser.wait_until("document.querySelector('.xterm') && !document.querySelector('#view canvas')")
        self.log_in(browser)
        self.assertTrue(vnc.wait_for(lambda: vnc.viewers == 0, _TIMEOUT))

    def choose(self, browser: Browser, label: str) -> None:
        """Choose a console in the panel of machines."""
        click(browser, "#open-machines")
        click(browser, f"#machine-list button[aria-label='{label}']")
        browser.wait_until(CONNECTED)

    def test_not_fetched(self) -> None:
        """Without xterm.js the page says how to get it."""
        self.add_shell()
        browser = self.start_browser()
        self.visit(browser, self.start(xterm=None), f"{self.token('vm')}/vm/console")
        self.wait_for_notice(browser, "xterm.js is missing")
        browser.wait_for_text("npm package @xterm/xterm")


@needs("chromium", "chromium")
class EndsTest(SerialTestCase):
    """What the page says of refusals and ends, which a serial console is told by Close codes."""

    def test_refused(self) -> None:
        """Each refusal is told in words, and the terminal shows nothing of RFB."""
        self.api.add_vmi("vm", self.namespace)
        self.api.add_vmi("off", self.namespace, phase="Scheduled")
        self.api.add_vmi("mute", self.namespace, serial=False)
        proxy, browser = self.start(), self.start_browser()
        good = self.token("vm", "off", "mute", "none")
        for link, title in (
            (f"{self.token('vm', secret='x' * 32)}/vm/console", "The link is not valid"),
            (f"{self.token('vm', expires_in=-60)}/vm/console", "Your access has expired"),
            (f"{good}/off/console", "The machine is not running"),
            (f"{good}/mute/console", "The machine has no console of this kind"),
            (f"{good}/none/console", "The machine was not found"),
            (f"{good}/foreign/console", "You may not open this console"),
        ):
            with self.subTest(title=title):
                self.visit(browser, proxy, link)
                self.wait_for_notice(browser, title)
                self.assertNotIn("RFB 003", browser.text)

    def test_not_enabled(self) -> None:
        """A serial console that the proxy does not open is told in words, too."""
        self.api.add_vmi("vm", self.namespace)
        browser = self.start_browser()
        self.visit(browser, self.start(subresources=()), f"{self.token('vm')}/vm/console")
        self.wait_for_notice(browser, "There is no console at this address")

    def test_waits_for_the_machine(self) -> None:
        """A machine that starts later is connected to then, without being asked."""
        self.add_shell()
        [vmi] = self.api._vmis.values()
        vmi.phase = "Scheduled"
        browser = self.start_browser()
        self.visit(browser, self.start(), f"{self.token('vm')}/vm/console")
        self.wait_for_notice(browser, "The machine is not running")
        vmi.phase = "Running"
        browser.wait_until(CONNECTED)

    def test_kicked(self) -> None:
        """After a kick the page says so, and reconnects only when the user asks."""
        self.add_shell()
        proxy = self.start()
        browser = self.open(proxy)
        [session] = proxy.sessions()
        session.close()
        self.wait_for_notice(browser, "An administrator closed the console")
        self.assertEqual(browser.evaluate("document.querySelector('.xterm')"), None)
        self.assertEqual(browser.evaluate("document.adoptedStyleSheets.length"), 0)
        click(browser, "#try-now")
        browser.wait_until(CONNECTED)

    def test_taken_over(self) -> None:
        """With the policy takeover, the page of the client that loses a serial console says so."""
        self.add_shell()
        proxy = self.start(console="takeover")
        first = self.open(proxy)
        self.log_in(first)
        second = self.open(proxy)
        self.wait_for_notice(first, "Someone else took over this console")
        self.type_line(second, "")
        self.wait_shown(second, "student@vm:~$")


@needs("chromium", "chromium")
@needs("qemu-system-x86_64", "qemu-system-x86")
class RealMachineTest(SerialTestCase):
    """The serial port of a machine in QEMU, behind the stand-in with TLS."""

    def test_typing(self) -> None:
        """What is typed comes back from the machine."""
        start_serial_echo(self, self.path("serial"))
        self.api.add_vmi("vm", self.namespace, console_backend=UnixBackend(self.path("serial")))
        browser = self.open(self.start())
        browser.call("Input.insertText", text="HelloFromOutside")
        self.wait_shown(browser, "hELLOfROMoUTSIDE")
        self.assertEqual(browser.complaints, [])
