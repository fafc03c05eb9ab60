"""The scripts of the store in a Redis, as texts. No Redis is needed."""

from __future__ import annotations

import re
import unittest
from importlib.resources import files

from wsproxy.state.stores.redis.scripts import OPERATIONS, load_scripts

_LUA = files("wsproxy.state.stores.redis") / "lua"
_FUNCTION = re.compile(r"^local function (\w+)", re.MULTILINE)


class ScriptsTest(unittest.TestCase):
    def test_functions(self) -> None:
        """A script has each function that it calls."""
        paths = [path for path in _LUA.iterdir() if path.is_file()]
        names = {name for path in paths for name in _FUNCTION.findall(path.read_text())}
        self.assertGreater(len(names), 90)
        for operation, script in load_scripts().items():
            called = set(re.findall(r"(?<![.\w])(\w+)\(", re.sub(r"--.*", "", script.text)))
            with self.subTest(operation):
                self.assertEqual(names & called - {*_FUNCTION.findall(script.text)}, set())

    def test_no_others(self) -> None:
        """It has no function that only other operations need: each costs time with each call."""
        scripts = load_scripts()
        self.assertEqual(sorted(scripts), sorted(OPERATIONS))
        for operation, function in (("opened", "sweep_rules"), ("beat", "take_ticket"), ("report", "join")):
            self.assertNotIn(f"local function {function}(", scripts[operation].text)
        self.assertIn("local function take_ticket(", scripts["redeem"].text)


if __name__ == "__main__":
    unittest.main()
