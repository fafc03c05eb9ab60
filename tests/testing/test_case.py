"""What ProxyTestCase does for a suite: one namespace, and refusals that say what a test needs to know."""

from __future__ import annotations

import unittest
from collections.abc import Callable

from wsproxy import WebsocketProxy
from wsproxy.testing import (
    SECRET,
    ConsoleRefused,
    Desktop,
    FakeKubeVirtAPI,
    LeakTestCase,
    ProxyTestCase,
    RFBClient,
    proxy_options,
)


class OptionsTest(LeakTestCase):
    def test_settings(self) -> None:
        """Every setting may be an argument of proxy_options, or stand beside its result."""
        with FakeKubeVirtAPI() as api:
            options = proxy_options(api, SECRET)
            reach = {"remote_url", "api_path", "local_dev_mode", "secret_key", "sslopt", "token_file"}
            self.assertEqual(set(options), reach)
            self.assertEqual(WebsocketProxy(**options, close_timeout=2).config.close_timeout, 2)
            self.assertEqual(proxy_options(api, SECRET, close_timeout=2), {**options, "close_timeout": 2})
            self.assertEqual(proxy_options(api, SECRET, secret_key="x")["secret_key"], "x")


class NamespaceTest(ProxyTestCase):
    namespace = "lab-7"
    tls = False

    def test_one(self) -> None:
        """A VMI without a namespace is added to the namespace of the tokens, and removed from it."""
        vmi = self.api.add_vmi("ubuntu")
        self.assertEqual(vmi.namespace, "lab-7")
        desktop = self.add_desktop("debian")
        self.open_console("debian")
        self.assertEqual(desktop.viewers, 1)
        self.api.remove_vmi("ubuntu")
        self.assertEqual([vmi.name for vmi in self.api.vmis], ["debian"])

    def test_desktop(self) -> None:
        """A desktop has its VMI, which a test may make misbehave. Without a VMI there is an error."""
        desktop = self.add_desktop("ubuntu")
        self.assertIs(desktop.vmi, self.api.vmis[0])
        self.open_console("ubuntu")
        self.assertEqual(desktop.vmi.wait_for_session().name, "ubuntu")
        desktop.vmi.phase = "Scheduled"
        with self.assertRaises(ConsoleRefused) as refused:
            self.open_console("ubuntu")
        self.assertEqual(refused.exception.slug, "vmi-not-running")
        with self.assertRaisesRegex(LookupError, r"no VMI shows the desktop spare; api\.add_desktop"):
            Desktop("spare").vmi  # noqa: B018

    def test_stand_in(self) -> None:
        """A separate FakeKubeVirtAPI has the given namespace, or Kubernetes' default."""
        self.assertEqual(FakeKubeVirtAPI(namespace="a").add_vmi("ubuntu").namespace, "a")
        self.assertEqual(FakeKubeVirtAPI().add_vmi("ubuntu").namespace, "default")

    def test_refusal(self) -> None:
        """If a VMI is not found, the refusal names the namespace of the token, and the existing VMIs."""
        self.api.add_vmi("ubuntu", "lab-8")
        with self.assertRaises(ConsoleRefused) as refused:
            RFBClient(self.console_proxy, self.token("ubuntu"), "ubuntu")
        self.assertEqual(refused.exception.slug, "vmi-not-found")
        self.assertIn("(the token is for the namespace lab-7)", str(refused.exception))
        with self.assertRaisesRegex(ConsoleRefused, r"lab-7\) \(the simulated cluster has lab-8/ubuntu\)"):
            self.open_console("ubuntu")
        self.api.remove_vmi("ubuntu", "lab-8")
        with self.assertRaisesRegex(ConsoleRefused, "the simulated cluster has no VMIs"):
            self.open_console("ubuntu", origin="http://a.example")

    def test_traceback(self) -> None:
        """The traceback of a refusal has the line of the test, and no line of wsproxy or its dependencies."""
        ways: tuple[Callable[[], object], ...] = (
            lambda: self.open_console("ubuntu"),
            lambda: RFBClient(self.console_proxy, self.token("ubuntu"), "ubuntu"),
        )
        for open_console in ways:
            with self.subTest(), self.assertRaises(ConsoleRefused) as refused:
                open_console()
            error = refused.exception
            self.assertIsNone(error.__cause__)
            self.assertTrue(error.__suppress_context__)
            result = unittest.TestResult()
            unittest.FunctionTestCase(open_console).run(result)
            [(_, text)] = result.errors
            self.assertEqual(text.count("  File "), 2, text)  # of the test, and the method that it called
            self.assertIn("test_case.py", text.splitlines()[1])
            self.assertEqual(text.count("Traceback"), 1)
