"""Public names: every module says which they are, and each of them is documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import unittest
from collections.abc import Iterator
from types import GenericAlias, ModuleType

import wsproxy

NOT_IMPORTED = ("__main__", "wsproxy.flask", "pytest_plugin")
"""What runs a program, and what needs Flask or pytest, which tests/integration has."""


def modules() -> Iterator[ModuleType]:
    """Yield every module of the package, the package itself included, but those."""
    yield wsproxy
    for found in pkgutil.walk_packages(wsproxy.__path__, "wsproxy."):
        if not found.name.endswith(NOT_IMPORTED):
            yield importlib.import_module(found.name)


def is_definition(value: object) -> bool:
    """Whether this is a class or a function, and no alias of a type."""
    if isinstance(value, GenericAlias):  # which Python 3.10 takes for a class
        return False
    return inspect.isclass(value) or inspect.isfunction(value)


def exported(module: ModuleType) -> list[str]:
    names: list[str] = module.__all__
    return names


class ExportsTest(unittest.TestCase):
    def test_all(self) -> None:
        """Every module has a list of its public names, sorted out of doubles, all of which exist."""
        for module in modules():
            if module.__name__ == "wsproxy.testing":
                continue  # an empty package: its modules are imported by their own names
            with self.subTest(module.__name__):
                self.assertTrue(hasattr(module, "__all__"))
                names = exported(module)
                self.assertEqual(len(names), len(set(names)))
                for name in names:
                    self.assertTrue(hasattr(module, name), name)

    def test_one_home(self) -> None:
        """A public name lives in one module of the product; only the package itself repeats some."""
        homes: dict[str, str] = {}
        for module in modules():
            if module is wsproxy or module.__name__.startswith("wsproxy.testing"):
                continue
            for name in exported(module):
                with self.subTest(name):
                    self.assertNotIn(name, homes)
                homes[name] = module.__name__

    def test_package(self) -> None:
        """What the package re-exports is public where it lives, and is the same object."""
        homes = {
            name: module
            for module in modules()
            if module is not wsproxy and not module.__name__.startswith("wsproxy.testing")
            for name in exported(module)
        }
        for name in wsproxy.__all__:
            with self.subTest(name):
                self.assertIn(name, homes)
                self.assertIs(getattr(wsproxy, name), getattr(homes[name], name))

    def test_defined_here(self) -> None:
        """A public class or function is defined in the module that exports it."""
        for module in modules():
            if module is wsproxy or module.__name__.startswith("wsproxy.testing"):
                continue  # which may repeat names for their users' comfort
            for name in exported(module):
                value = getattr(module, name)
                if is_definition(value):
                    with self.subTest(f"{module.__name__}.{name}"):
                        self.assertEqual(value.__module__, module.__name__)

    def test_docstrings(self) -> None:
        """Every module, and every public class and function, says what it is."""
        for module in modules():
            self.assertTrue(module.__doc__, module.__name__)
            for name in getattr(module, "__all__", ()):
                value = getattr(module, name)
                if is_definition(value):
                    with self.subTest(f"{module.__name__}.{name}"):
                        self.assertTrue(value.__doc__, "it has no docstring")
                        if inspect.isclass(value):  # a dataclass gets one made of its fields otherwise
                            self.assertFalse((value.__doc__ or "").startswith(f"{name}("))
