"""Public names: every module says which they are, and each of them is documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import unittest
from collections.abc import Iterator
from importlib.util import find_spec
from types import GenericAlias, ModuleType
from typing import ClassVar

import wsproxy

NOT_IMPORTED = ("__main__", "wsproxy.flask", "pytest_plugin")
"""What runs a program, and what needs Flask or pytest, which tests/integration has."""

OF_REDIS = "wsproxy.state.stores.redis."
"""What needs redis-py. It is looked at where that is installed, see tests/integration/test_redis_modules."""


def modules() -> Iterator[ModuleType]:
    """Yield every module of the package, the package itself included, but those."""
    yield wsproxy
    has_redis = find_spec("redis") is not None
    for found in pkgutil.walk_packages(wsproxy.__path__, "wsproxy."):
        if not found.name.endswith(NOT_IMPORTED) and (has_redis or not found.name.startswith(OF_REDIS)):
            yield importlib.import_module(found.name)


def is_definition(value: object) -> bool:
    """Whether this is a class or a function, and no alias of a type."""
    if isinstance(value, GenericAlias):  # which Python 3.10 takes for a class
        return False
    return inspect.isclass(value) or inspect.isfunction(value)


def exported(module: ModuleType) -> list[str]:
    names: list[str] = module.__all__
    return names


def is_package(module: ModuleType) -> bool:
    """Whether this is a folder, which defines nothing itself."""
    return hasattr(module, "__path__")


def homes() -> dict[str, ModuleType]:
    """Return the module of the product that each public name lives in."""
    return {
        name: module
        for module in modules()
        if not is_package(module) and not module.__name__.startswith("wsproxy.testing")
        for name in exported(module)
    }


class ExportsTest(unittest.TestCase):
    def test_all(self) -> None:
        """Every module has a list of its public names, sorted out of doubles, all of which exist."""
        for module in modules():
            with self.subTest(module.__name__):
                if is_package(module) and not hasattr(module, "__all__"):
                    continue  # which hands nothing on
                names = exported(module)
                self.assertEqual(len(names), len(set(names)))
                for name in names:
                    self.assertTrue(hasattr(module, name), name)

    def test_one_home(self) -> None:
        """A public name lives in one module of the product."""
        found = homes()
        for module in modules():
            if is_package(module) or module.__name__.startswith("wsproxy.testing"):
                continue
            for name in exported(module):
                with self.subTest(f"{module.__name__}.{name}"):
                    self.assertIs(found[name], module)

    def test_packages(self) -> None:
        """What a folder hands on is public where it lives, and is the same object."""
        found = homes()
        for module in modules():
            if not is_package(module) or module.__name__.startswith("wsproxy.testing"):
                continue
            for name in getattr(module, "__all__", ()):
                with self.subTest(f"{module.__name__}.{name}"):
                    self.assertIn(name, found)
                    self.assertIs(getattr(module, name), getattr(found[name], name))

    def test_defined_here(self) -> None:
        """A public class or function is defined in the module that exports it."""
        for module in modules():
            if is_package(module) or module.__name__.startswith("wsproxy.testing"):
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


class PublicPathsTest(unittest.TestCase):
    """Where programs import names from, whatever folders are called inside."""

    PATHS: ClassVar[dict[str, str]] = {
        "wsproxy": (
            "AccessRequest Authorize Config ConfigError Ending Forbidden Grant OnClose OnOpen SessionHandle "
            "WSProxyError WebsocketProxy __version__ config_from_env config_from_mapping make_token"
        ),
        "wsproxy.cli": "main",
        "wsproxy.config": "Config",
        "wsproxy.exceptions": "BadToken Busy ConfigError Forbidden LimitExceeded Refused WSProxyError",
        "wsproxy.testing": (
            "Answer ApplicationServer Backend Behaviour CertificateAuthority ConsoleClosed ConsoleRefused "
            "Desktop Echo FakeConsole FakeKubeVirtAPI FakeVMI Image KEYSYMS LeakCheck LeakTestCase "
            "LoginShell PictureTimeout ProxyTestCase RFBClient RFBRefused RFBViewer RawClient "
            "RecordedRequest SECRET Script SocketBackend Stream TCPBackend UnixBackend UpgradeRefused "
            "assert_same_picture assert_shows assert_shows_colour client_context make_token proxy_options "
            "status_answer"
        ),
        "wsproxy.tokens": "make_token",
        "wsproxy.wsgi": "ConsoleApp",
        "lab_orchestrator_ws_proxy": "__version__ main",
        "lab_orchestrator_ws_proxy_lib": "__version__",
        "lab_orchestrator_ws_proxy_lib.ws_proxy_lib": "WebsocketProxy",
    }

    def test_paths(self) -> None:
        """Each public name can be imported from where it always could."""
        for module, names in self.PATHS.items():
            for name in names.split():
                with self.subTest(module=module, name=name):
                    self.assertTrue(hasattr(importlib.import_module(module), name))
