"""Which policy the settings have for which console."""

from __future__ import annotations

import unittest

from wsproxy.exceptions import ConfigError
from wsproxy.state.console_policies import ConsolePolicies, Policy


class Policies(unittest.TestCase):
    def test_none(self) -> None:
        """Without a rule KubeVirt decides."""
        policies = ConsolePolicies(())
        self.assertIs(policies.of("lab-1", "ubuntu", "vnc"), Policy.PASSTHROUGH)
        self.assertFalse(policies.arbitrate)

    def test_first_that_fits(self) -> None:
        """The first rule that fits a console counts, and the subresource may be left out."""
        policies = ConsolePolicies(
            ["exam-*/*/vnc=refuse", "exam-*/*=passthrough", " */web-*=takeover ", "refuse"]
        )
        for names, policy in (
            (("exam-3", "ubuntu", "vnc"), Policy.REFUSE),
            (("exam-3", "web-1", "console"), Policy.PASSTHROUGH),
            (("lab-1", "web-1", "console"), Policy.TAKEOVER),
            (("lab-1", "ubuntu", "vnc"), Policy.REFUSE),
        ):
            with self.subTest(names=names):
                self.assertIs(policies.of(*names), policy)
        self.assertTrue(policies.arbitrate)
        self.assertFalse(ConsolePolicies(["a/b=passthrough", "passthrough"]).arbitrate)

    def test_faults(self) -> None:
        """One error lists all wrong rules, and says how to write them."""
        wrong = ["steal", "a=refuse", "a/b/c/d=refuse", "a//vnc=refuse", "a/b=", "=refuse", ""]
        with self.assertRaises(ConfigError) as caught:
            ConsolePolicies(["refuse", *wrong])
        self.assertEqual(len(caught.exception.faults), len(wrong))
        self.assertIn("'steal'", str(caught.exception))
        self.assertIn("write passthrough, takeover or refuse", str(caught.exception))
