"""The page that says what holds behind which server is what the suite would write."""

from __future__ import annotations

import unittest

from tests.conformance.differences import DIFFERENCES
from tests.conformance.suites import AREAS, test_names
from tests.conformance.table import DOCUMENT, expected, render
from tests.conformance.wsgi_servers import FRONTS


class ConformancePage(unittest.TestCase):
    def test_page(self) -> None:
        """The page has every test and every difference; ``scripts/conformance`` writes it."""
        self.assertEqual(DOCUMENT.read_text(encoding="utf-8"), render(expected()))

    def test_differences(self) -> None:
        """Each difference is one of a test that there is, through a server that there is."""
        self.assertEqual(set(DIFFERENCES), {front.name for front in FRONTS})
        tests = {
            f"{suite.__name__}.{name}"
            for suites in AREAS.values()
            for suite in suites
            for name in test_names(suite)
        }
        for front, differences in DIFFERENCES.items():
            for name in differences:
                with self.subTest(front=front, name=name):
                    self.assertIn(name.partition("[")[0], tests)


if __name__ == "__main__":
    unittest.main()
