"""The closed sets of words for refusals and ends."""

from __future__ import annotations

import ast
import unittest
from pathlib import Path

import wsproxy
from wsproxy import exceptions
from wsproxy.protocol.closing import Ending
from wsproxy.telemetry.causes import ALL_LIMITS, ENDINGS, OTHER, REFUSALS, ending_cause, refusal_cause


class Refusals(unittest.TestCase):
    def test_all_of_ours(self) -> None:
        """Every refusal of the table counts as what it is."""
        for name in exceptions.__all__:
            kind = getattr(exceptions, name)
            if issubclass(kind, exceptions.Refused) and kind is not exceptions.LimitExceeded:
                self.assertEqual(refusal_cause(kind.slug), kind.slug)

    def test_all_limits(self) -> None:
        """Every limit that is named in the code counts as what it is."""
        named = set()
        for path in Path(wsproxy.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "LimitExceeded":
                    named |= {
                        argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)
                    }
        self.assertIn("tickets", named)
        self.assertLessEqual(named, ALL_LIMITS)
        for name in ("tickets", "user", "vmi", "address", "failures"):
            self.assertEqual(refusal_cause(f"limit-{name}"), f"limit-{name}")

    def test_others(self) -> None:
        """All of an embedding program's own refusals count as one."""
        for slug in ("limit-of-mine", "", "forbidden: x"):
            self.assertEqual(refusal_cause(slug), OTHER)
        self.assertIn(OTHER, REFUSALS)


class Endings(unittest.TestCase):
    CASES = (
        (Ending("client", 1000, "client-gone"), "client-gone"),
        (Ending("client", 1000, ""), "close-1000"),
        (Ending("client", 1001, "the tab was closed"), "close-1001"),
        (Ending("client", None, ""), "close-none"),
        (Ending("client", 3999, "x"), "close-3xxx"),
        (Ending("upstream", 4000, "x"), "close-4xxx"),
        (Ending("client", 4411, "expired"), "close-4xxx"),
        (Ending("client", 1002, "protocol-error: a reserved bit"), "protocol-error"),
        (Ending("client", 1009, "message-too-big: x"), "message-too-big"),
        (Ending("upstream", 1011, "upstream-closed"), "upstream-closed"),
        (Ending("upstream", 4502, "upstream-refused"), "upstream-refused"),
        (Ending("proxy", 1012, "restarting"), "restarting"),
        (Ending("proxy", 4411, "expired: x"), "expired"),
        (Ending("proxy", 4408, "idle: x"), "idle"),
        (Ending("proxy", 4412, "max-age: x"), "max-age"),
        (Ending("proxy", 4410, "taken-over"), "taken-over"),
        (Ending("proxy", 4499, "go home"), "kicked"),
        (Ending("proxy", 4000, "an embedder's own"), OTHER),
        (Ending("proxy", 1000, "client-gone"), OTHER),
        (Ending("proxy", None, "aborted"), "aborted"),
        (Ending("proxy", None, "failed"), "failed"),
        (Ending("proxy", None, "anything"), OTHER),
    )

    def test_table(self) -> None:
        """The side, the code and the proxy's own reasons decide the cause; a peer's own reason does not."""
        for ending, cause in self.CASES:
            with self.subTest(ending=ending):
                self.assertEqual(ending_cause(ending), cause)

    def test_every_code(self) -> None:
        """Whatever a peer's code is, the cause is one of a few."""
        for by in ("client", "upstream", "proxy"):
            found = {ending_cause(Ending(by, code, f"reason {code}")) for code in range(65536)}
            self.assertLessEqual(found, ENDINGS)


if __name__ == "__main__":
    unittest.main()
