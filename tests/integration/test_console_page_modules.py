"""What the page's modules decide, asked in a browser: no console is open."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.console_page import ConsolePageTestCase
from tests.integration.programs import needs
from wsproxy import exceptions
from wsproxy.telemetry import causes

_HALF = "() => 0.5"  # no jitter


@needs("chromium", "chromium")
class ModulesTest(ConsolePageTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.browser = self.start_browser()
        self.visit(self.browser, self.start_proxy(), "")
        self.browser.wait_for_text("The link is not complete")

    def ask(self, module: str, call: str) -> Any:
        """Return the value of a call of what a module exports."""
        return self.browser.evaluate(f"import('./{module}').then(module => module.{call})")

    def plan(self, code: int, reason: str, lasted: float | None, **past: int) -> dict[str, Any]:
        """Return what is decided after an attempt."""
        end = json.dumps({"code": code, "reason": reason, "lasted": lasted})
        before = json.dumps({"failures": 0, "thrownOut": 0, **past})
        plan: dict[str, Any] = self.ask("session.js", f"plan({end}, {before}, {_HALF})")
        return plan

    def test_links(self) -> None:
        """A link names a token, perhaps a machine, and perhaps which of its consoles."""
        for fragment, link in (
            ("#a.b.c/ubuntu", {"token": "a.b.c", "vmi": "ubuntu", "subresource": ""}),
            ("#a.b.c", {"token": "a.b.c", "vmi": "", "subresource": ""}),
            ("#/a.b.c/ubuntu/console", {"token": "a.b.c", "vmi": "ubuntu", "subresource": "console"}),
            ("", None),
            ("#", None),
            ("#<b>/ubuntu", None),
            ("#%41/ubuntu", None),
        ):
            with self.subTest(fragment=fragment):
                self.assertEqual(self.ask("link.js", f"parseLink({json.dumps(fragment)})"), link)

    def test_every_cause_has_words(self) -> None:
        """For every refusal and end of the proxy's there are words of its own."""
        codes = {code for code, _ in _refusals()} | {4408, 4410, 4411, 4412, 4499, 1000, 1011, 1012}
        for code, slug in {*_refusals(), *((code, "embedders-own") for code in codes)}:
            with self.subTest(code=code, slug=slug):
                cause = self.ask("words.js", f"causeOf({code}, '{slug}: why', true)")
                self.assertNotEqual(cause, "unknown")
                words = self.ask("words.js", f"explain({json.dumps(cause)}, {code}, '{slug}: why')")
                self.assertTrue(words["title"] and words["text"])
                self.assertEqual(words["detail"], "Why.")

    def test_unknown_codes(self) -> None:
        """A code that is not ours is named, and the peer's reason is shown as it is."""
        for code, reason, detail in (
            (4900, "The machine says: goodbye", "The machine says: goodbye."),
            (3000, "", ""),
            (1015, "no: way!", "Way!"),
        ):
            with self.subTest(code=code):
                cause = self.ask("words.js", f"causeOf({code}, {json.dumps(reason)}, true)")
                words = self.ask("words.js", f"explain('{cause}', {code}, {json.dumps(reason)})")
                self.assertEqual(words["text"], f"The server gave the code {code}.")
                self.assertEqual(words["detail"], detail)

    def test_durations(self) -> None:
        """Seconds are said as a person says them."""
        for seconds, text in (
            (0, "0 s"),
            (-1, "0 s"),
            (59.2, "1 min 00 s"),
            (61, "1 min 01 s"),
            (7260, "2 h 01 min"),
        ):
            with self.subTest(seconds=seconds):
                self.assertEqual(self.ask("words.js", f"duration({seconds})"), text)

    def test_who_connects_again(self) -> None:
        """The page connects again by itself where waiting helps, and never to throw others out."""
        for code, reason, lasted, delay in (
            (1012, "restarting: the proxy stops", 99, 1),
            (4503, "draining: the proxy stops", None, 1),
            (4503, "busy: full", None, 5),
            (4500, "internal-error: the proxy failed", None, 3),
            (4429, "limit-user: too many", None, 5),
            (4420, "vmi-not-running: VMI is not running", None, 3),
            (4404, "vmi-not-found: not found", None, 3),
            (1011, "upstream-closed", 99, 2),
            (1006, "", 99, 1),
            (1006, "", None, 2),
            (1006, "no-websocket", None, 5),
            (4431, "head-too-large: too large", None, None),
            (4502, "upstream-refused: no", None, 3),
            (4410, "taken-over: the console was taken over by bob", 99, None),
            (4409, "console-busy: in use", None, None),
            (4411, "expired: over", 99, None),
            (4401, "token-expired: over", None, None),
            (4401, "token-not-yet-valid: tomorrow", None, None),
            (4408, "idle: nobody", 99, None),
            (4412, "max-age: too old", 99, None),
            (4499, "kicked", 99, None),
            (4403, "forbidden: no", None, None),
            (1000, "", 99, None),
            (4900, "", 99, None),
        ):
            with self.subTest(code=code, reason=reason):
                self.assertEqual(self.plan(code, reason, lasted)["delay"], delay)

    def test_back_off(self) -> None:
        """Each attempt that fails doubles the pause, up to half a minute; a console that worked resets it."""
        delays, past = [], {"failures": 0, "thrownOut": 0}
        for _ in range(6):
            plan = self.plan(4420, "vmi-not-running", None, **past)
            delays.append(plan["delay"])
            past = plan["past"]
        self.assertEqual(delays, [3, 6, 12, 24, 30, 30])
        self.assertEqual(self.plan(1006, "", 61, **past)["delay"], 1)
        self.assertEqual(self.plan(1006, "", 59, **past)["delay"], 30)

    def test_jitter(self) -> None:
        """Pages that were thrown out together do not come back together."""
        for random, delay in ((0, 0.75), (1, 1.25)):
            end = '{code: 1012, reason: "restarting", lasted: 1}'
            plan = self.ask("session.js", f"plan({end}, module.NOTHING_PAST, () => {random})")
            self.assertEqual(plan["delay"], delay)

    def test_contested_console(self) -> None:
        """A console that comes back at once and is closed again soon is somebody else's."""
        first = self.plan(1011, "upstream-closed", 600)
        self.assertEqual((first["cause"], first["delay"]), ("upstream-closed", 2))
        second = self.plan(1011, "upstream-closed", 5, **first["past"])
        self.assertEqual((second["cause"], second["delay"], second["mayRetry"]), ("contested", None, True))
        off = self.plan(4420, "vmi-not-running", None, **first["past"])
        self.assertEqual(self.plan(1011, "upstream-closed", 5, **off["past"])["cause"], "upstream-closed")
        late = self.plan(1011, "upstream-closed", 61, **first["past"])
        self.assertEqual(late["cause"], "upstream-closed")
        never_open = self.plan(1011, "upstream-closed", None, **first["past"])
        self.assertEqual(never_open["cause"], "upstream-closed")

    def test_nothing_to_retry(self) -> None:
        """No button is offered for what another attempt cannot change."""
        for code, reason, may_retry in (
            (4401, "bad-token", False),
            (4401, "token-expired", False),
            (4401, "token-not-yet-valid", True),
            (4411, "expired", False),
            (4421, "vmi-no-console", False),
            (4408, "idle", True),
            (4410, "taken-over", True),
            (4409, "console-busy", True),
        ):
            with self.subTest(reason=reason):
                self.assertEqual(self.plan(code, reason, None)["mayRetry"], may_retry)

    def test_countdown(self) -> None:
        """The rest is shown in the last five minutes, and said at some moments only."""
        for left, before, shown, said in (
            (301, 1000, "", False),
            (299.5, 301, "Access ends in 5 min 00 s", True),
            (299, 300, "Access ends in 4 min 59 s", False),
            (59.9, 61, "Access ends in 1 min 00 s", True),
            (9, 1000, "Access ends in 9 s", True),
            (8, 9, "Access ends in 8 s", False),
            (0, 1, "Access has ended", False),
            (-5, 0, "Access has ended", False),
        ):
            with self.subTest(left=left, before=before):
                expected = {"shown": shown, "said": shown if said else "", "soon": left <= 60}
                self.assertEqual(self.ask("expiry.js", f"remainder({left}, {before})"), expected)


def _refusals() -> set[tuple[int, str]]:
    """Return close code and slug of every refusal that a WebSocket can be told."""
    found: set[tuple[int, str]] = set()
    kinds = [exceptions.Refused]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.close_code is not None and kind.__module__ == exceptions.__name__:
            found.add((kind.close_code, kind.slug))
    return found | {(4429, slug) for slug in causes.REFUSALS if slug.startswith("limit-")}
