"""Two browsers that want the same console, and both reconnect by themselves."""

from __future__ import annotations

from tests.integration.chromium import Browser
from tests.integration.novnc import NoVNCTestCase
from tests.integration.programs import needs
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.kubevirt.backends import SocketBackend
from wsproxy.testing.screen.desktop import Desktop

_CONNECTED = "document.documentElement.classList.contains('noVNC_connected')"
_ATTEMPTS = 3


@needs("chromium", "chromium")
class ContestedConsoleTest(NoVNCTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tokens = {user: self.token("ubuntu", user=user) for user in ("alice", "bob")}
        desktop = Desktop("ubuntu")
        self.addCleanup(desktop.close)
        self.vmi = self.api.add_vmi("ubuntu", self.namespace, backend=SocketBackend(desktop.serve))

    def open(self, browser: Browser, proxy: WebsocketProxy, user: str) -> None:
        """Open the console in a page that opens it again half a second after it was lost."""
        path = f"{self.tokens[user]}/ubuntu"
        self.visit(browser, proxy, path, reconnect="1", reconnect_delay="500")

    def fight(self, proxy: WebsocketProxy) -> tuple[Browser, Browser]:
        """Let alice open the console, and then bob."""
        alice, bob = self.start_browser(), self.start_browser()
        self.open(alice, proxy, "alice")
        alice.wait_until(_CONNECTED)
        self.open(bob, proxy, "bob")
        return alice, bob

    def assert_settled(
        self, proxy: WebsocketProxy, kept: Browser, user: str, other: Browser, told: str
    ) -> None:
        """Assert that one browser keeps the console, whatever the other one does, which is told why."""
        other.wait_for_text(f"rejected with reason: {told}")
        kept.wait_until(_CONNECTED)
        [session] = proxy.sessions()
        self.assertEqual(session.user, user)
        for _ in range(_ATTEMPTS):
            other.open("about:blank")
            self.open(other, proxy, "alice" if user == "bob" else "bob")
            other.wait_for_text(f"rejected with reason: {told}")
        self.assertEqual([left.id for left in proxy.sessions()], [session.id])
        self.assertTrue(kept.evaluate(_CONNECTED))

    def assert_counted(self, proxy: WebsocketProxy, opened: int, taken_over: int) -> None:
        """Assert that the metrics say what the log does."""
        found = proxy.metrics_registry()
        how = {"by": "proxy", "cause": "taken-over"}
        self.assertEqual(found.get_sample_value("wsproxy_sessions"), 1)
        self.assertEqual(found.get_sample_value("wsproxy_sessions_opened_total"), opened)
        self.assertEqual(found.get_sample_value("wsproxy_sessions_ended_total", how) or 0, taken_over)
        refused = found.get_sample_value("wsproxy_refused_total", {"reason": "console-busy"})
        self.assertGreater(refused or 0, _ATTEMPTS)

    def test_takeover(self) -> None:
        """The newcomer keeps the console; the other one is told by whom it was taken over."""
        proxy = self.start_proxy(console="takeover", show_user=True)
        with self.assertLogs("wsproxy.state", "INFO") as logs:
            alice, bob = self.fight(proxy)
            self.assert_settled(proxy, bob, "bob", alice, "the console was taken over by bob")
        self.assertEqual(len(logs.output), 1)
        self.assertEqual(len(self.vmi.consoles), 2)
        self.assert_counted(proxy, opened=2, taken_over=1)

    def test_refuse(self) -> None:
        """The first one keeps the console; the newcomer is told who has it."""
        proxy = self.start_proxy(console="refuse", show_user=True)
        alice, bob = self.fight(proxy)
        self.assert_settled(proxy, alice, "alice", bob, "the console is in use by alice")
        self.assertEqual(len(self.vmi.consoles), 1)
        self.assert_counted(proxy, opened=1, taken_over=0)
