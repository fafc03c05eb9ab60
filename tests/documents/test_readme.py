"""The examples of the README do what it says."""

from __future__ import annotations

import contextlib
import io
import re
import unittest
from typing import Any
from unittest import mock

from wsproxy.testing import SECRET

from .pages import ROOT


class ExamplesTest(unittest.TestCase):
    def setUp(self) -> None:
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        self.library, self.test = re.findall(r"```python\n(.*?)```", text, re.DOTALL)

    def test_library(self) -> None:
        """The program prints the URL of a console, and serves until Enter is pressed."""
        output = io.StringIO()
        with mock.patch("builtins.input"), contextlib.redirect_stdout(output):
            exec(self.library, {"SECRET": SECRET})
        self.assertRegex(output.getvalue(), r"\Aws://127\.0\.0\.1:\d+/[\w.-]+/ubuntu\n\Z")

    def test_test_case(self) -> None:
        """The test runs, and passes."""
        names: dict[str, Any] = {"__name__": "example"}
        exec(self.test, names)
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(names["ConsoleTest"]).run(result)
        self.assertEqual((result.testsRun, result.failures, result.errors), (1, [], []))


if __name__ == "__main__":
    unittest.main()
