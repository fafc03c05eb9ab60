"""What the console page says when a console is refused or ends, and what it does then."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.integration.chromium import Browser
from tests.integration.console_page import CONNECTED, ConsolePageTestCase
from tests.integration.person import type_text
from tests.integration.programs import needs
from tests.support.proxy_process import wait_until
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.kubevirt.backends import SocketBackend
from wsproxy.testing.kubevirt.vmi import FakeVMI
from wsproxy.testing.screen.desktop import Desktop

_WITHIN = 60.0
_NEXT = "document.getElementById('notice-next')"
_STATE = "document.getElementById('state').textContent"


# Hears what a screen reader says.
_LISTEN = """self.said = [];
new MutationObserver(() => {
    const text = document.getElementById("said")?.textContent ?? "";
    if (text !== (said.at(-1) ?? "")) {
        said.push(text);
    }
}).observe(document, {subtree: true, childList: true, characterData: true});"""


class Case(ConsolePageTestCase):
    def add_machine(self, vmi: str) -> tuple[Desktop, FakeVMI]:
        """Add a VMI that shows a small desktop, and can be stopped."""
        desktop = Desktop(vmi)
        self.addCleanup(desktop.close)
        return desktop, self.api.add_vmi(vmi, self.namespace, backend=SocketBackend(desktop.serve))

    def assert_told(self, browser: Browser, title: str, *more: str, retry: str | None) -> None:
        """Assert that the notice comes, says more than its title, and has that button and no other one."""
        told = self.wait_for_notice(browser, title)
        for text in more:
            self.assertIn(text, told)
        buttons = browser.evaluate(
            "[...document.querySelectorAll('#notice button')].filter(button => button.checkVisibility())"
            ".map(({textContent}) => textContent)"
        )
        self.assertEqual(buttons, [retry] if retry else [])
        self.assertEqual(browser.evaluate(_STATE), "Not connected")

    def assert_stays(self, browser: Browser, proxy: WebsocketProxy, sessions: int) -> None:
        """Assert that the page has no plans, and that the proxy has so many sessions."""
        self.assertFalse(browser.evaluate(f"{_NEXT}.checkVisibility()"))
        self.assertEqual(len(proxy.sessions()), sessions)


@needs("chromium", "chromium")
class Ends(Case):
    """Of a console that was open, and does not open again by itself."""

    def open_console_page(self, **settings: Any) -> tuple[WebsocketProxy, Browser]:
        # A clock that goes on would be asked for each second, which is no idleness.
        self.add_desktop("ubuntu", now=lambda: datetime(2026, 1, 1))
        proxy = self.start_proxy(**settings)
        return proxy, self.open_page(proxy, f"{self.token('ubuntu')}/ubuntu")

    def test_expired(self) -> None:
        """The end of the token is counted down to, and then said; only a new link helps."""
        self.add_desktop("ubuntu")
        proxy, browser = self.start_proxy(), self.start_browser()
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=_LISTEN)
        self.visit(browser, proxy, f"{self.token('ubuntu', expires_in=15)}/ubuntu")
        browser.wait_until("/Access ends in \\d+ s/.test(document.getElementById('countdown').textContent)")
        self.assert_told(browser, "Your access has expired", retry=None)
        browser.wait_until("document.getElementById('countdown').textContent === 'Access has ended'")
        said = browser.evaluate("said")
        self.assertRegex("\n".join(said), r"\bAccess ends in \d+ s\b")
        self.assertLess(len(said), 10, "not every second")
        self.assert_stays(browser, proxy, 0)
        self.assertEqual(browser.complaints, [])

    def test_idle(self) -> None:
        """After an idle timeout the page says so, and a button connects again."""
        _, browser = self.open_console_page(idle_timeout=2)
        self.assert_told(
            browser,
            "The console was closed because nobody used it",
            "The client sent no data for 2 s.",
            retry="Connect again",
        )
        self.press_button(browser, "Connect again")
        browser.wait_until(CONNECTED)

    def test_max_age(self) -> None:
        """If the console reaches its maximum age, the page says so."""
        _, browser = self.open_console_page(max_age=3)
        self.assert_told(
            browser,
            "The console reached its time limit",
            "A session lasts 3 s at most.",
            retry="Connect again",
        )

    def test_kicked(self) -> None:
        """After a kick the page says so, with the operator's own message."""
        proxy, browser = self.open_console_page()
        [session] = proxy.sessions()
        session.close(4499, "kicked: the exam begins <b>now</b>")
        self.assert_told(
            browser,
            "An administrator closed the console",
            "The exam begins <b>now</b>.",
            retry="Connect again",
        )
        self.assert_stays(browser, proxy, 0)

    def test_other_code(self) -> None:
        """A code that the page does not know is named."""
        proxy, browser = self.open_console_page()
        [session] = proxy.sessions()
        session.close(4900, "Come back tomorrow")
        self.assert_told(
            browser,
            "The console was closed",
            "The server gave the code 4900.",
            "Come back tomorrow.",
            retry="Connect again",
        )

    def test_taken_over(self) -> None:
        """After a takeover the page names the other user, and reconnects by a button only."""
        self.add_desktop("ubuntu")
        proxy = self.start_proxy(console="takeover", show_user=True)
        links = {user: f"{self.token('ubuntu', user=user)}/ubuntu" for user in ("alice", "bob")}
        alice = self.open_page(proxy, links["alice"])
        bob = self.open_page(proxy, links["bob"])
        self.assert_told(
            alice,
            "Someone else took over this console",
            "It was taken over by bob.",
            retry="Take it back",
        )
        self.assert_stays(alice, proxy, 1)
        self.press_button(alice, "Take it back")
        # Not so soon: whoever only reconnects is not let in.
        told = self.wait_for_notice(alice, "Someone else is using this console")
        self.assertIn("Connect again", told)
        self.assertTrue(bob.evaluate(CONNECTED))
        self.assertEqual(alice.complaints + bob.complaints, [])

    def test_contested(self) -> None:
        """If the last client always drops the others, one of two pages stays and the other gives up."""
        self.add_desktop("ubuntu")
        proxy = self.start_proxy()
        first, second = (self.open_page(proxy, f"{self.token('ubuntu')}/ubuntu") for _ in range(2))
        title = "The machine keeps closing the console"
        told = wait_until(lambda: any(self.notice(page)[:1] == [title] for page in (first, second)), _WITHIN)
        self.assertTrue(told, [self.notice(first), self.notice(second)])
        loser, winner = (first, second) if self.notice(first)[:1] == [title] else (second, first)
        winner.wait_until(CONNECTED)
        self.assert_told(loser, title, retry="Connect again")
        self.assert_stays(loser, proxy, 1)


@needs("chromium", "chromium")
class Refusals(Case):
    """Of a console that is not opened."""

    def assert_refused(
        self, proxy: WebsocketProxy, link: str, title: str, *more: str, retry: str | None
    ) -> None:
        browser = self.start_browser()
        self.visit(browser, proxy, link)
        self.assert_told(browser, title, *more, retry=retry)
        self.assert_stays(browser, proxy, 0)

    def test_link_that_is_not_good(self) -> None:
        """The page says that a token is bad or old, or does not allow the machine."""
        proxy = self.start_proxy()
        good, old = self.token("ubuntu", "gone"), self.token("ubuntu", expires_in=-5)
        self.assert_refused(proxy, "e30.e30.e30/ubuntu", "The link is not valid", retry=None)
        self.assert_refused(
            proxy, f"{old}/ubuntu", "Your access has expired", "The token has expired.", retry=None
        )
        self.assert_refused(
            proxy,
            f"{good}/other",
            "You may not open this console",
            "The token does not allow this VMI.",
            retry=None,
        )

    def test_machine_without_a_screen(self) -> None:
        """The page says that a machine has no display."""
        self.api.add_vmi("headless", self.namespace, display=False)
        self.assert_refused(
            self.start_proxy(),
            f"{self.token('headless')}/headless",
            "The machine has no console of this kind",
            "No graphics devices are present.",
            retry=None,
        )

    def test_busy_console(self) -> None:
        """If a console is in use, the page says by whom, and a button tries again."""
        self.add_desktop("ubuntu")
        proxy = self.start_proxy(console="refuse", show_user=True)
        alice = self.open_page(proxy, f"{self.token('ubuntu', user='alice')}/ubuntu")
        browser = self.start_browser()
        self.visit(browser, proxy, f"{self.token('ubuntu', user='bob')}/ubuntu")
        self.assert_told(
            browser,
            "Someone else is using this console",
            "The console is in use by alice.",
            retry="Connect again",
        )
        self.press_button(alice, "Disconnect")
        self.assertTrue(wait_until(lambda: not proxy.sessions(), _WITHIN))
        self.press_button(browser, "Connect again")
        browser.wait_until(CONNECTED)

    def test_machine_that_refuses(self) -> None:
        """What the machine itself says in its own protocol is shown."""
        self.add_desktop("ubuntu", max_viewers=0)
        self.assert_refused(
            self.start_proxy(),
            f"{self.token('ubuntu')}/ubuntu",
            "The machine refused the console",
            "This desktop has as many viewers as it can take.",
            retry="Connect again",
        )


@needs("chromium", "chromium")
class Again(Case):
    """Consoles that open again by themselves."""

    def wait_for_attempt(self, browser: Browser, title: str) -> list[str]:
        """Wait until the next attempt is announced, and return all that is said."""
        self.wait_for_notice(browser, title)
        browser.wait_until(f"/^Next attempt in \\d+ s$/.test({_NEXT}.textContent)")
        return self.notice(browser)

    def wait_for_next_attempt(self, browser: Browser) -> None:
        """Wait until another attempt has been made in vain."""
        browser.wait_until(f"{_NEXT}.textContent === 'Trying to connect'")
        browser.wait_until(f"{_NEXT}.textContent.startsWith('Next attempt')")

    def test_restart(self) -> None:
        """When the proxy restarts the page says so, and goes on by itself."""
        desktop = self.add_desktop("ubuntu")
        proxy = self.start_proxy()
        browser = self.open_page(proxy, f"{self.token('ubuntu')}/ubuntu")
        host, port = proxy.address
        proxy.stop_thread()
        browser.wait_until(
            "['The server is restarting', 'The server cannot be reached']"
            ".includes(document.getElementById('notice-title').textContent)"
        )
        proxy.run_in_thread(host, port)
        browser.wait_until(CONNECTED)
        type_text(browser, "again")
        self.assertTrue(desktop.wait_for_text("again", _WITHIN))

    def test_stopped_machine(self) -> None:
        """The page waits for a machine that is stopped, and shows it as soon as it runs again."""
        desktop, vmi = self.add_machine("ubuntu")
        browser = self.open_page(self.start_proxy(), f"{self.token('ubuntu')}/ubuntu")
        vmi.phase = "Succeeded"
        vmi.drop_sessions()
        told = self.wait_for_attempt(browser, "The machine is not running")
        self.assertIn("VMI is not running.", told)
        self.assertEqual(told[-2:], ["Connect now", "Stop trying"])
        vmi.phase = "Running"
        browser.wait_until(CONNECTED)
        self.assert_shows(browser, desktop)
        self.assertEqual(browser.complaints, [])

    def test_machine_that_is_off(self) -> None:
        """If a machine is off, the user may connect now, or stop trying."""
        _, vmi = self.add_machine("ubuntu")
        vmi.phase = "Scheduled"
        proxy = self.start_proxy()
        browser = self.start_browser()
        self.visit(browser, proxy, f"{self.token('ubuntu')}/ubuntu")
        self.wait_for_attempt(browser, "The machine is not running")
        self.press_button(browser, "Stop trying")
        self.assert_told(browser, "Not connected", retry="Connect again")
        self.assert_stays(browser, proxy, 0)
        vmi.phase = "Running"
        self.press_button(browser, "Connect again")
        browser.wait_until(CONNECTED)

    def test_machine_that_is_not_there(self) -> None:
        """A machine that is stopped has no VMI; the page waits for it, too."""
        proxy = self.start_proxy()
        browser = self.start_browser()
        self.visit(browser, proxy, f"{self.token('ubuntu')}/ubuntu")
        told = self.wait_for_attempt(browser, "The machine was not found")
        self.assertIn('virtualmachineinstance.kubevirt.io "ubuntu" not found.', told)
        self.add_desktop("ubuntu")
        browser.wait_until(CONNECTED)

    def test_choice_meanwhile(self) -> None:
        """While the page waits for a machine, its attempts do not disturb the choice of another one."""
        _, vmi = self.add_machine("off")
        vmi.phase = "Scheduled"
        self.add_desktop("ubuntu")
        browser = self.start_browser()
        self.visit(browser, self.start_proxy(), f"{self.token('off', 'ubuntu')}/off")
        self.wait_for_attempt(browser, "The machine is not running")
        browser.evaluate("document.getElementById('stop-trying').focus()")
        self.wait_for_next_attempt(browser)
        self.assertEqual(browser.evaluate("document.activeElement.id"), "stop-trying")
        self.press_button(browser, "Machines")
        browser.evaluate("document.querySelector('[aria-label=\"Screen of ubuntu\"]').focus()")
        self.wait_for_next_attempt(browser)
        self.assertEqual(browser.evaluate("document.activeElement.ariaLabel"), "Screen of ubuntu")
        self.assertTrue(browser.evaluate("document.getElementById('machines').checkVisibility()"))

    def test_limit(self) -> None:
        """If the user has too many consoles, the page says so; when one closes, the other one opens."""
        for vmi in ("ubuntu", "windows"):
            self.add_desktop(vmi)
        proxy = self.start_proxy(max_sessions_per_user=1)
        token = self.token("ubuntu", "windows")
        first = self.open_page(proxy, f"{token}/ubuntu")
        second = self.start_browser()
        self.visit(second, proxy, f"{token}/windows")
        self.wait_for_attempt(second, "You have too many consoles open")
        self.press_button(first, "Disconnect")
        second.wait_until(CONNECTED)

    def test_refused_by_http(self) -> None:
        """If the browser hides the reason, the page does not tell the user to check the network."""
        self.add_desktop("ubuntu")
        self.add_machine("other")
        proxy = self.start_proxy(reject="http", max_sessions=1)
        token = self.token("ubuntu", "other")
        first, second = self.open_page(proxy, f"{token}/ubuntu"), self.start_browser()
        self.visit(second, proxy, f"{token}/other")
        told = self.wait_for_attempt(second, "The console was refused")
        self.assertTrue(any(text.startswith("The server, or one in front of it") for text in told), told)
        self.press_button(first, "Disconnect")
        second.wait_until(CONNECTED)

    def test_broken_network(self) -> None:
        """When the proxy is gone the page tries again, and says what it does."""
        self.add_desktop("ubuntu")
        proxy = self.start_proxy()
        browser = self.open_page(proxy, f"{self.token('ubuntu')}/ubuntu")
        proxy.stop_thread()
        told = self.wait_for_attempt(browser, "The server cannot be reached")
        self.assertEqual(told[-2:], ["Connect now", "Stop trying"])


@needs("chromium", "chromium")
class Accessible(Case):
    """What axe-core says of the page in each of its states."""

    def assert_accessible_everywhere(self, browser: Browser) -> None:
        for scheme in ("light", "dark"):
            for width, height in ((1280, 800), (320, 640)):
                with self.subTest(scheme=scheme, width=width):
                    browser.show_as(scheme, width, height)
                    self.assert_accessible(browser)
                    self.assert_fits(browser, width)

    def assert_fits(self, browser: Browser, width: int) -> None:
        """Assert that nothing has to be scrolled to sideways."""
        self.assertEqual(browser.evaluate("document.documentElement.scrollWidth"), width)

    def test_states(self) -> None:
        """axe-core finds no fault in any state, light or dark, wide or narrow."""
        _, vmi = self.add_machine("ubuntu")
        self.add_desktop("windows")
        proxy = self.start_proxy()
        browser = self.start_browser()
        self.visit(browser, proxy, "")
        self.wait_for_notice(browser, "The link is not complete")
        self.assert_accessible_everywhere(browser)
        token = self.token("ubuntu", "windows", expires_in=280)
        self.visit(browser, proxy, token)
        self.wait_for_notice(browser, "Choose a machine")
        self.assert_accessible_everywhere(browser)
        self.visit(browser, proxy, f"{token}/ubuntu")
        browser.wait_until(f"{CONNECTED} && document.getElementById('countdown').textContent !== ''")
        self.assert_accessible_everywhere(browser)
        for panel in ("Machines", "Keys", "Clipboard"):
            browser.show_as()
            self.press_button(browser, panel)
            self.assert_accessible_everywhere(browser)
        vmi.phase = "Failed"
        vmi.drop_sessions()
        self.wait_for_notice(browser, "The machine is not running")
        self.assert_accessible_everywhere(browser)
        browser.show_as()
        self.press_button(browser, "Stop trying")
        self.wait_for_notice(browser, "Not connected")
        self.assert_accessible_everywhere(browser)

    def test_focus(self) -> None:
        """The keyboard is in the screen once it is there, and at what is said when it is gone."""
        self.add_desktop("ubuntu")
        proxy = self.start_proxy()
        browser = self.open_page(proxy, f"{self.token('ubuntu')}/ubuntu")
        browser.wait_until("document.activeElement?.tagName === 'CANVAS'")
        self.assertEqual(browser.evaluate("document.activeElement.ariaLabel"), "Screen of ubuntu")
        [session] = proxy.sessions()
        session.close(4499, "kicked")
        browser.wait_until("document.activeElement?.id === 'notice-title'")
        browser.wait_for_text("An administrator closed the console. Ask them before you connect again.")
