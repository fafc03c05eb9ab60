"""Packages whose names are imported when asked for."""

from __future__ import annotations

import subprocess
import sys
import types
import unittest

import wsproxy
import wsproxy.testing
from wsproxy.runtime.lazy_imports import lazy_names


class LazyNamesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.package = types.ModuleType("wsproxy_lazy_package")
        self.package.__path__ = []
        sys.modules[self.package.__name__] = self.package
        self.addCleanup(sys.modules.pop, self.package.__name__)

    def test_names(self) -> None:
        """A name is its home's, and stays; others are attribute errors that name the package."""
        home = types.ModuleType("wsproxy_lazy_package.home")
        vars(home)["answer"] = 42
        sys.modules[home.__name__] = home
        self.addCleanup(sys.modules.pop, home.__name__)
        get, names = lazy_names("wsproxy_lazy_package", {"answer": ".home"})
        self.assertIn("answer", names())
        self.assertEqual(get("answer"), 42)
        self.assertEqual(vars(self.package)["answer"], 42)
        with self.assertRaisesRegex(
            AttributeError, "module 'wsproxy_lazy_package' has no attribute 'question'"
        ):
            get("question")


class PackagesTest(unittest.TestCase):
    def test_every_name(self) -> None:
        """Every public name of both packages is there, for ``dir`` and for ``import *`` too."""
        for package in (wsproxy, wsproxy.testing):
            for name in package.__all__:
                with self.subTest(package=package.__name__, name=name):
                    self.assertIsNotNone(getattr(package, name))
                    self.assertIn(name, dir(package))

    def test_import(self) -> None:
        """To import the packages imports nothing behind them, and no other library."""
        code = "import sys; before = {*sys.modules}; import wsproxy.testing; print(*{*sys.modules} - before)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        loaded = {name for name in done.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names}
        self.assertEqual(
            loaded,
            {
                "wsproxy",
                "wsproxy.runtime",
                "wsproxy.runtime.lazy_imports",
                "wsproxy.testing",
                "wsproxy.version",
            },
        )
