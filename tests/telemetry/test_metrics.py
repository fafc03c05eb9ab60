"""The metrics' names, and their documentation; what Prometheus gets to see is in ``integration``."""

from __future__ import annotations

import re
import sys
import unittest
from pathlib import Path
from unittest import mock

from tests.telemetry.test_counters import filled
from wsproxy import WebsocketProxy
from wsproxy.exceptions import ConfigError
from wsproxy.telemetry.causes import ENDINGS
from wsproxy.telemetry.counters import Snapshot
from wsproxy.telemetry.metrics import METRICS, exposition
from wsproxy.telemetry.state_numbers import StateNumbers
from wsproxy.testing.case import SECRET

_DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
_ROW = re.compile(r"^\| `(wsproxy_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", re.MULTILINE)


class Names(unittest.TestCase):
    def test_conventions(self) -> None:
        """Names are as Prometheus wants them: a unit, and _total for counters only."""
        for metric in METRICS:
            with self.subTest(name=metric.name):
                self.assertRegex(metric.name, r"^wsproxy_[a-z_]+$")
                self.assertEqual(metric.name.endswith("_total"), metric.kind == "counter")
                if metric.kind == "histogram":
                    self.assertRegex(metric.name, "_seconds$")
                self.assertRegex(metric.help, r"^[A-Z].*\.$")
        self.assertEqual(len({metric.name for metric in METRICS}), len(METRICS))

    def test_samples(self) -> None:
        """Every sample has a value for each label, and no labels twice; together they tell all numbers."""
        told = 0
        for metric in METRICS:
            samples = list(metric.samples(filled()))
            with self.subTest(name=metric.name):
                self.assertEqual({len(labels) for labels, _ in samples}, {len(metric.labels)})
                self.assertEqual(len({labels for labels, _ in samples}), len(samples))
                told += len(samples)
        tallied = sum(
            len(getattr(filled(), name).words)
            for name in ("refused", "ended", "limits", "handshakes", "lost_lines")
        )
        others = len(vars(Snapshot())) - 6 + len(vars(StateNumbers()))
        # turned_away is a limit; the version is no number.
        self.assertEqual(told, tallied + others - 1 + 1)


class Documentation(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.text = _DOCUMENT.read_text(encoding="utf-8")

    def test_metrics(self) -> None:
        """The page lists every metric, with kind, labels and meaning, and no other."""
        documented = [
            (name, kind, tuple(re.findall(r"`(\w+)`", labels)), text)
            for name, kind, labels, text in _ROW.findall(self.text)
        ]
        self.assertEqual(
            documented, [(metric.name, metric.kind, metric.labels, metric.help) for metric in METRICS]
        )

    def test_causes(self) -> None:
        """The page lists every cause of an end."""
        table = self.text.partition("| cause | what happened |")[2].partition("\n\n")[0]
        named = [
            name for row in table.splitlines() for name in re.findall(r"`([\w-]+)`", row.split(" | ")[0])
        ]
        self.assertEqual(sorted(named), sorted(ENDINGS))


class WithoutTheExtra(unittest.TestCase):
    def test_says_what_to_install(self) -> None:
        """Without prometheus-client only a request for metrics fails, and names the package."""
        proxy = WebsocketProxy("ws://127.0.0.1:9", "/{namespace}/{vmi_name}/vnc", True, SECRET)
        with mock.patch.dict(sys.modules, {"prometheus_client": None}):
            for ask in (lambda: exposition(Snapshot(), ""), proxy.metrics_registry):
                with self.assertRaisesRegex(ConfigError, r"pip install '.*\[metrics\]'"):
                    ask()


if __name__ == "__main__":
    unittest.main()
