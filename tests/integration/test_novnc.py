"""What a person sees in stock noVNC, unmodified, in a real browser."""

from __future__ import annotations

from tests.integration.novnc import NoVNCTestCase
from tests.integration.programs import needs
from wsproxy.testing.kubevirt.backends import SocketBackend
from wsproxy.testing.screen.desktop import Desktop

_REJECTED = "New connection has been rejected with reason: "


@needs("chromium", "chromium")
class NoVNCTest(NoVNCTestCase):
    def test_console(self) -> None:
        """The console of a VM opens: noVNC says so, and its viewer arrived at the desktop."""
        with Desktop("ubuntu") as desktop:
            vmi = self.api.add_vmi("ubuntu", self.namespace, backend=SocketBackend(desktop.serve))
            browser = self.start_browser()
            self.visit(browser, self.start_proxy(), f"{self.token('ubuntu')}/ubuntu")
            browser.wait_for_text("Connected (unencrypted) to ubuntu")
            browser.wait_until("document.documentElement.classList.contains('noVNC_connected')")
            self.assertEqual(len(vmi.consoles), 1)
            browser.call("Browser.close")
            self.assertTrue(self.api.wait_until_idle())

    def test_refusals(self) -> None:
        """The reason of a refusal is on the page, in words."""
        self.api.add_vmi("stopped", self.namespace, phase="Scheduled")
        self.api.add_vmi("headless", self.namespace, display=False)
        proxy, browser = self.start_proxy(), self.start_browser()
        token, old = self.token("stopped", "headless", "gone"), self.token("stopped", expires_in=-5)
        for path, reason in (
            (f"{token}/stopped", "VMI is not running"),
            (f"{token}/headless", "No graphics devices are present."),
            (f"{token}/gone", 'virtualmachineinstance.kubevirt.io "gone" not found'),
            (f"{token}/other", "the token does not allow this VMI"),
            (f"{old}/stopped", "the token has expired"),
        ):
            with self.subTest(reason=reason):
                self.visit(browser, proxy, path)
                browser.wait_for_text(_REJECTED + reason)
