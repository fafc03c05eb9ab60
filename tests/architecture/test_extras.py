"""What the extras of the package ask for, as the documents have it."""

from __future__ import annotations

import configparser
import re
import unittest
from pathlib import Path

_ROOT = Path(__file__).parents[2]


class ExtrasTest(unittest.TestCase):
    def test_flask(self) -> None:
        """The extra for Flask lets stay what works: the guide names the same version, and tells of it."""
        setup = configparser.ConfigParser()
        setup.read(_ROOT / "setup.cfg", encoding="utf-8")
        [requirement] = setup["options.extras_require"]["flask"].split("\n")[1:]
        floor = requirement.removeprefix("Flask >=")
        guide = (_ROOT / "docs/guides/wsgi.md").read_text(encoding="utf-8")
        self.assertIn(f"Flask {floor} or later", guide)
        tried = re.findall(r"(?m)^\| ([0-9., ]+) \| [a-z0-9. ]+ \|", guide)
        self.assertIn(floor, ", ".join(tried).split(", "))
