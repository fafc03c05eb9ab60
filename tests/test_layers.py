"""The architecture as a table: who may import whom, and who may touch the outside."""

from __future__ import annotations

import ast
import unittest
from collections.abc import Iterator
from pathlib import Path

import wsproxy

PACKAGE = Path(wsproxy.__file__).parent

LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "affinity",
            "certificates",
            "channel",
            "closing",
            "deadline",
            "exceptions",
            "forks",
            "histogram",
            "lazy",
            "lifetime",
            "liveness",
            "logs",
            "nesting",
            "rfb",
            "signals",
            "threads",
            "version",
        }
    ),
    frozenset(
        {
            "audit",
            "content_policy",
            "demo_machines",
            "denylist",
            "frames",
            "housekeeping",
            "keys",
            "limits",
            "origin",
            "pending",
            "poller",
            "registry",
            "reloaded",
            "routing",
            "screenshots",
            "sockets",
            "strict_json",
            "systemd",
            "upgrade",
        }
    ),
    frozenset(
        {
            "admin",
            "causes",
            "claims",
            "credentials",
            "environ",
            "forwarded",
            "jwks",
            "keyring",
            "listeners",
            "operator_token",
            "representation",
            "resolver",
            "transport",
            "upstream_url",
        }
    ),
    frozenset(
        {
            "arbitration",
            "authorization",
            "counters",
            "live_sessions",
            "refusal",
            "response",
            "sessions_command",
            "tickets",
            "tokens",
            "writer",
            "wsgi_server",
        }
    ),
    frozenset({"admission", "config", "demo_guide", "hooks", "metrics", "pump", "reports"}),
    frozenset({"access", "admin_api", "kicks", "links", "pump_threads", "settings", "tls", "web_files"}),
    frozenset({"admin_sessions", "fetch", "http", "relay", "upstream"}),
    frozenset({"jwks_source", "readiness", "screenshot_source"}),
    frozenset({"live_keys"}),
    frozenset({"check", "gateway"}),
    frozenset({"session"}),
    frozenset({"exchange"}),
    frozenset({"connection", "wsgi_exchange"}),
    frozenset({"server", "wsgi_process"}),
    frozenset({"proxy", "worker", "wsgi"}),
    frozenset({"__init__", "demo", "flask", "supervisor"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""Each module imports modules of lower layers only; a new module gets its place here."""

NO_IO = frozenset(
    {
        "claims",
        "access",
        "arbitration",
        "authorization",
        "causes",
        "closing",
        "config",
        "content_policy",
        "credentials",
        "deadline",
        "denylist",
        "environ",
        "exceptions",
        "forwarded",
        "frames",
        "histogram",
        "http",
        "jwks",
        "keyring",
        "keys",
        "lifetime",
        "limits",
        "links",
        "liveness",
        "logs",
        "nesting",
        "pending",
        "origin",
        "representation",
        "rfb",
        "routing",
        "screenshots",
        "settings",
        "strict_json",
        "tickets",
        "tokens",
        "upgrade",
        "upstream_url",
        "version",
    }
)
OUTSIDE = frozenset(
    {
        "asyncio",
        "os",
        "pathlib",
        "select",
        "selectors",
        "shutil",
        "socket",
        "socketserver",
        "ssl",
        "subprocess",
        "threading",
    }
)


class Module:
    """What one source file imports."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.product: set[str] = set()  # modules of this package
        self.foreign: set[str] = set()  # top-level names of everything else
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.add(alias.name)
            elif isinstance(node, ast.ImportFrom):
                self.add_from(node)

    def add(self, name: str) -> None:
        top, _, rest = name.partition(".")
        if top != PACKAGE.name:
            self.foreign.add(top)
        else:
            self.product.add(rest.partition(".")[0] or "__init__")

    def add_from(self, node: ast.ImportFrom) -> None:
        name = node.module or ""
        if node.level:
            name = f"{PACKAGE.name}.{name}" if name else PACKAGE.name
        if name != PACKAGE.name:
            return self.add(name)
        for alias in node.names:  # "from . import x": a module, or a name of the package itself
            inside = (PACKAGE / f"{alias.name}.py").exists() or (PACKAGE / alias.name).is_dir()
            self.product.add(alias.name if inside else "__init__")


def modules() -> Iterator[Module]:
    """Yield every module of the product."""
    for path in sorted(PACKAGE.glob("*.py")):
        yield Module(path)


def layer_of(name: str) -> int | None:
    """Return a module's layer, None if it has none."""
    return next((number for number, names in enumerate(LAYERS) if name in names), None)


class LayersTest(unittest.TestCase):
    def test_every_module_has_one_layer(self) -> None:
        """Every module stands in the table, once, and the table names no module that is gone."""
        found = sorted(module.name for module in modules())
        self.assertEqual(sorted(name for names in LAYERS for name in names), found)

    def test_imports_go_downwards(self) -> None:
        """A module imports modules of lower layers only."""
        for module in modules():
            own = layer_of(module.name)
            for name in module.product - {"testing"}:
                other = layer_of(name)
                with self.subTest(module=module.name, imports=name):
                    self.assertIsNotNone(other, "it has no layer")
                    assert own is not None and other is not None
                    self.assertLess(other, own)

    def test_layers_are_as_low_as_they_can_be(self) -> None:
        """The table is the finest that is true: each module stands right above what it imports."""
        for module in modules():
            below = [layer for name in module.product if (layer := layer_of(name)) is not None]
            with self.subTest(module=module.name):
                self.assertEqual(layer_of(module.name), max(below, default=-1) + 1)

    def test_core_does_no_io(self) -> None:
        """What decides does not touch sockets, threads or files."""
        for module in modules():
            if module.name in NO_IO:
                with self.subTest(module=module.name):
                    self.assertEqual(module.foreign & OUTSIDE, set())
                    self.assertLessEqual(module.product, NO_IO)

    def test_few_modules_touch_tls_and_poll(self) -> None:
        """One module imports ssl; two import select: one waits for one socket, the other for many."""
        for library, place in (("ssl", {"tls"}), ("select", {"sockets", "poller"})):
            self.assertEqual({module.name for module in modules() if library in module.foreign}, place)

    def test_testing_stays_outside(self) -> None:
        """Nothing in the product imports wsproxy.testing, but the demo."""
        users = {module.name for module in modules() if "testing" in module.product}
        self.assertLessEqual(users, {"demo", "demo_machines"})

    def test_libraries_stand_behind_one_module(self) -> None:
        """Each library is imported where it belongs only, as far as it is imported at all."""
        for library, place in (
            ("websocket", {"upstream"}),
            ("jwt", {"keys", "tokens"}),
            ("h11", {"upgrade"}),
            ("cryptography", {"certificates", "keys"}),
            ("prometheus_client", {"metrics"}),
            ("simple_websocket", {"wsgi_exchange"}),
            ("flask", {"flask"}),
            ("werkzeug", {"flask"}),
        ):
            with self.subTest(library=library):
                users = {module.name for module in modules() if library in module.foreign}
                self.assertLessEqual(users, place)
