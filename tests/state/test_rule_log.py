"""What the log of revocation rules forgets."""

from __future__ import annotations

import unittest

from wsproxy.state.revocations import Match, Rule
from wsproxy.state.shared.rule_log import RuleLog

NOW = 1_700_000_000.0


class RuleLogTest(unittest.TestCase):
    def test_kicked_and_lifted_for_ever(self) -> None:
        """What is lifted, or over, leaves nothing behind."""
        log = RuleLog()
        for day in range(400):
            now, kick = NOW + day * 86400, f"k{day}"
            rules = (Rule(f"{kick}.{n}", kick, now, now + 3600, Match(user=str(n))) for n in range(3))
            log.revoke(tuple(rules), now)
            if day % 2:
                log.lift(kick, now)
        self.assertLessEqual(len(log), 4)
        self.assertLessEqual(len(log._changes._versions), 4)
        self.assertLessEqual(len(log._changes._log), 100)

    def test_endless_lifts(self) -> None:
        """The lifts of endless rules go after thirty days."""
        log = RuleLog()
        for day in range(400):
            now, kick = NOW + day * 86400, f"k{day}"
            log.revoke((Rule(kick, kick, now, float("inf"), Match(user="a")),), now)
            log.lift(kick, now)
        self.assertLessEqual(len(log), 32)


if __name__ == "__main__":
    unittest.main()
