"""Tests of a lab platform: its tokens open the consoles that they should, and no others."""

import unittest

from wsproxy.testing import SECRET, ConsoleRefused, ProxyTestCase, RFBClient
from wsproxy.tokens.issue import make_token


def lab_token(student: str, machine: str) -> str:
    """In place of the platform's own code."""
    return make_token(SECRET, namespace="lab-1", vmis=[machine], user=student)


class LabConsoleTest(ProxyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_proxy(host_path_prefix="consoles")
        self.desktop = self.add_desktop("ubuntu", facts={"lab": "1"})

    def test_student_works(self) -> None:
        with RFBClient(self.proxy, lab_token("ada", "ubuntu"), "ubuntu") as vm:
            vm.type("echo Hello\n")
            self.desktop.assert_text("echo Hello\n")
            terminal = self.desktop.terminal_area
            vm.assert_same_picture(self.desktop.screenshot().crop(*terminal), area=terminal)

    def test_student_stays_out(self) -> None:
        with self.assertRaises(ConsoleRefused) as refused:
            RFBClient(self.proxy, lab_token("ada", "router"), "ubuntu")
        self.assertEqual(refused.exception.slug, "forbidden")


if __name__ == "__main__":
    unittest.main()
