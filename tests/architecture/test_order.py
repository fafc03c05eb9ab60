"""Who may import whom: one list, one rule; and who may touch the outside."""

from __future__ import annotations

import re
import unittest
from collections.abc import Iterator

from .sources import PACKAGE, Source, sources

ORDER = (
    "exceptions",
    "version",
    "kinds",
    "protocol",
    "runtime",
    "net",
    "tokens",
    "upstream",
    "telemetry",
    "state",
    "access",
    "relay",
    "web",
    "admin",
    "settings",
    "config",
    "server",
    "wsgi",
    "proxy",
    "testing",
    "cli",
    "flask",
    "__init__",
    "__main__",
)
"""Each folder, and each file at the top, imports only what stands above it here."""

NO_IO = (
    "exceptions",
    "version",
    "kinds",
    "protocol/",
    "access/control",
    "access/credentials",
    "access/hooks",
    "access/pending",
    "access/sessions",
    "admin/routes",
    "state/",
    "state/shared/",
    "state/stores/memory",
    "state/stores/remote",
    "tokens/",
    "net/addresses",
    "net/shared_copy",
    "relay/lifetime",
    "relay/liveness",
    "runtime/deadline",
    "runtime/logs",
    "runtime/wall_clock",
    "telemetry/causes",
    "telemetry/record",
    "telemetry/histogram",
    "upstream/errors",
    "upstream/location",
    "web/csp",
    "web/endpoints",
    "web/in_flight",
    "web/screenshot_cache",
    "web/urls",
    "wsgi/environ",
)
"""What takes bytes or values, and gives values or bytes. A folder stands for all that is in it."""

DOES_IO = ("tokens/jwks_client", "tokens/key_store")
"""What does I/O in those folders all the same."""

HARMLESS = ("runtime/forks",)
"""What they may use beside each other: it needs ``os``, to be called in a forked child."""

SETTINGS = ("config", "settings/")
"""What touches nothing outside, either, but hands rules to parts that do. One file reads a file."""

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
    }
)

LIBRARIES = {
    "websocket": "upstream/handshake",
    "h11": "protocol/handshake protocol/request",
    "cryptography": "net/certificates tokens/algorithms tokens/public_keys",
    "prometheus_client": "telemetry/metrics",
    "simple_websocket": "wsgi/connection",
    "redis": "state/stores/redis/finders state/stores/redis/link state/stores/redis/servers",
    "flask": "flask",
    "werkzeug": "flask",
    "ssl": "net/tls net/tls_context",
    "select": "net/sockets relay/poller",
    "tomli": "settings/config_file",
    "tomllib": "settings/config_file",
}
"""The only files that may import a library, or a part of the standard one that has its traps."""


def product() -> Iterator[Source]:
    """Yield the files of the product itself, without the test doubles that it ships."""
    return (source for source in sources() if source.room != "testing")


def does_no_io(name: str) -> bool:
    """Whether a file is kept free of I/O."""
    folder = f"{name.rpartition('/')[0]}/"
    return (name in NO_IO or folder in NO_IO) and name not in DOES_IO


class OrderTest(unittest.TestCase):
    def test_list_is_whole(self) -> None:
        """The list has every folder and every file at the top, and nothing else."""
        self.assertEqual(sorted(ORDER), sorted({source.room for source in sources()}))

    def test_imports_go_upwards(self) -> None:
        """What is imported stands in the same folder, or above it in the list."""
        for source in sources():
            for name in source.product:
                other = name.partition("/")[0]
                with self.subTest(source=source.name, imports=name):
                    self.assertLessEqual(ORDER.index(other), ORDER.index(source.room))

    def test_no_circles(self) -> None:
        """No file imports itself, over whatever others."""
        left = {source.name: set(source.product) for source in sources()}
        while free := {name for name, imported in left.items() if not imported & left.keys()}:
            left = {name: imported for name, imported in left.items() if name not in free}
        self.assertEqual(left, {})

    def test_only_the_demo_uses_test_doubles(self) -> None:
        """Nothing in the product imports wsproxy.testing, but the demo."""
        users = {
            source.name for source in product() if any(name.startswith("testing/") for name in source.product)
        }
        self.assertLessEqual(users, {"cli/demo", "cli/demo_machines"})


class PageTest(unittest.TestCase):
    def test_tree(self) -> None:
        """The page on architecture names the same folders and files in the same order."""
        page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
        table = page.partition("## The tree")[2].partition("\n\nFour rules")[0]
        first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        self.assertEqual(tuple(re.findall(r"`([a-z_]+)/?`", " ".join(first))), ORDER)


class OutsideTest(unittest.TestCase):
    def test_decisions_without_io(self) -> None:
        """What decides touches neither sockets nor files, nor anything that does."""
        for source in product():
            if does_no_io(source.name):
                with self.subTest(source=source.name):
                    self.assertEqual(source.foreign & OUTSIDE, set())
                    others = {name for name in source.product if not does_no_io(name)}
                    self.assertLessEqual(others, set(HARMLESS))

    def test_settings_without_io(self) -> None:
        """The settings are checked without touching anything."""
        for source in product():
            if source.name.startswith(SETTINGS):
                with self.subTest(source=source.name):
                    self.assertEqual(source.foreign & OUTSIDE, set())

    def test_lists_are_whole(self) -> None:
        """Both lists name only what is there."""
        names = {source.name for source in sources()}
        folders = {f"{name.rpartition('/')[0]}/" for name in names}
        self.assertEqual({*NO_IO, *DOES_IO} - names - folders, set())

    def test_libraries_stand_behind_one_module(self) -> None:
        """Each library is imported where it belongs only."""
        for library, places in LIBRARIES.items():
            with self.subTest(library=library):
                users = {source.name for source in product() if library in source.foreign}
                self.assertLessEqual(users, set(places.split()))
                self.assertTrue(users, "nobody imports it")
