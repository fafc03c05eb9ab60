"""Histograms."""

from __future__ import annotations

import unittest

from wsproxy.telemetry.histogram import Histogram, Observations


class HistogramTest(unittest.TestCase):
    def test_observe(self) -> None:
        """A number counts in the first range whose bound is not below it; earlier results do not change."""
        empty = Histogram.empty(0.1, 1)
        observations = Observations(empty)
        before = observations.histogram()
        for number in (0.05, 0.1, 0.5, 7):
            observations.observe(number)
        seen = observations.histogram()
        self.assertEqual(seen.counts, (2, 1, 1))
        self.assertAlmostEqual(seen.total, 7.65)
        self.assertEqual((empty, before), (Histogram((0.1, 1), (0, 0, 0)),) * 2)

    def test_cumulative(self) -> None:
        """Prometheus's buckets are cumulative."""
        seen = Histogram((0.1, 1), (2, 1, 4))
        self.assertEqual(seen.cumulative(), [("0.1", 2), ("1", 3), ("+Inf", 7)])

    def test_sum(self) -> None:
        """Histograms of the same ranges are added range by range."""
        self.assertEqual(
            Histogram((1,), (1, 2), 3.5) + Histogram((1,), (10, 20), 1.5), Histogram((1,), (11, 22), 5.0)
        )


if __name__ == "__main__":
    unittest.main()
