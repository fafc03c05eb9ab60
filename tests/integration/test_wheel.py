"""The wheel: what is in it, and what somebody gets who has installed nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import unittest
import venv
import zipfile
from pathlib import Path
from typing import ClassVar

from tests.support.wheel import build_wheel

_ROOT = Path(__file__).parents[2]
_DOWNSTREAM = _ROOT / "tests" / "downstream"
_SECONDS = 600
_PACKAGES = ("lab_orchestrator_ws_proxy_lib", "wsproxy")
_PROGRAM = "lab_orchestrator_ws_proxy"

# A type checker has to find these: it finds nothing in the use of a package whose names are all Any.
_MISTAKES = """\
from wsproxy import Nothing, WebsocketProxy  # attr-defined
from wsproxy.testing import Image, ProxyTestCase, RFBClient, Screen  # attr-defined


def mistaken(proxy: WebsocketProxy, image: Image, vm: RFBClient) -> None:
    proxy.start()  # attr-defined
    WebsocketProxy("ws://api", "/", "yes", "secret")  # arg-type
    WebsocketProxy("ws://api", "/", True, "secret", timeout=5)  # call-arg
    vm.click("10", 20)  # arg-type
    image.find("red")  # arg-type


class Suite(ProxyTestCase):
    namespace = 5  # assignment
"""


# Prints the modules that cannot be imported, each with what is missing.
_IMPORT_ALL = """\
import importlib, pkgutil
import lab_orchestrator_ws_proxy, lab_orchestrator_ws_proxy_lib, wsproxy

for package in (wsproxy, lab_orchestrator_ws_proxy_lib):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("wsproxy.__main__"):
            try:
                importlib.import_module(found.name)
            except ModuleNotFoundError as exc:
                print(f"{found.name}:{exc.name}")
"""


def call(python: Path, directory: Path, *arguments: str, check: bool = True) -> str:
    """Run an environment's Python outside of the project, and return all that it prints."""
    done = subprocess.run(
        [str(python), *arguments], cwd=directory, capture_output=True, text=True, timeout=_SECONDS
    )
    if check and done.returncode:
        raise AssertionError(f"{arguments[:3]} exited with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


class WheelTest(unittest.TestCase):
    """One wheel, and one virtual environment with it and what checks it, for all tests."""

    directory: ClassVar[Path]
    wheel: ClassVar[Path]
    python: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)
        cls.wheel = build_wheel(cls.directory / "build")
        venv.create(cls.directory / "venv", with_pip=True)
        cls.python = cls.directory / "venv" / "bin" / "python"
        cls.call("-m", "pip", "install", "--quiet", f"{cls.wheel}[flask]", "mypy", "pytest")

    @classmethod
    def call(cls, *arguments: str, check: bool = True) -> str:
        return call(cls.python, cls.directory, *arguments, check=check)

    def test_contents(self) -> None:
        """It has the packages whole, each with its types, and nothing of the tests."""
        with zipfile.ZipFile(self.wheel) as wheel:
            names = set(wheel.namelist())
            entry_points = wheel.read(
                next(name for name in names if name.endswith("entry_points.txt"))
            ).decode()
        metadata = {name for name in names if ".dist-info/" in name}
        expected = {f"{package}/py.typed" for package in _PACKAGES} | {f"{_PROGRAM}.py"}
        for package in _PACKAGES:
            above = _ROOT if package == "wsproxy" else _ROOT / "compat"
            expected |= {path.relative_to(above).as_posix() for path in (above / package).rglob("*.py")}
        shared = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
        files = {
            path.relative_to(_ROOT).as_posix() for path in (_ROOT / "share").rglob("*") if path.is_file()
        }
        self.assertEqual(shared, files)
        names = {name for name in names if ".data/data/" not in name}
        data = {name for name in names - metadata if not name.endswith((".py", "/py.typed"))}
        self.assertEqual(names - metadata - data, expected)
        self.assertTrue(all(name.startswith("wsproxy/") for name in data), data)
        parts = (_ROOT / "wsproxy/web/console_page").iterdir()
        page = {f"wsproxy/web/console_page/{path.name}" for path in parts}
        self.assertIn("wsproxy/web/console_page/index.html", page)
        self.assertLessEqual(page, data)
        self.assertIn("wsproxy = wsproxy.cli:main", entry_points)
        self.assertIn("[pytest11]\nwsproxy = wsproxy.testing.pytest_plugin", entry_points)

    def test_types(self) -> None:
        """A platform that uses the library is found in order by mypy --strict."""
        for path in _DOWNSTREAM.glob("*.py"):
            shutil.copy2(path, self.directory)
        files = [path.name for path in _DOWNSTREAM.glob("*.py")]
        self.assertGreater(len(files), 2)
        self.call("-m", "mypy", "--strict", *files)

    def test_mistakes(self) -> None:
        """Mistakes in the use of the library are found by mypy, each in its line."""
        (self.directory / "mistakes.py").write_text(_MISTAKES, encoding="utf-8")
        told = self.call("-m", "mypy", "--strict", "mistakes.py", check=False)
        found = re.findall(r"^mistakes\.py:(\d+): error: .*\[([a-z-]+)\]$", told, re.MULTILINE)
        wrong = [
            (str(number), line.partition("# ")[2]) for number, line in enumerate(_MISTAKES.splitlines(), 1)
        ]
        self.assertEqual(found, [(number, kind) for number, kind in wrong if kind], told)

    def test_suite(self) -> None:
        """The platform's tests pass with it, by pytest, which finds the fixtures; warnings are errors."""
        shutil.copy2(_DOWNSTREAM / "test_platform.py", self.directory)
        told = self.call("-W", "error", "-X", "dev", "-m", "pytest", "-q", "-W", "error", "test_platform.py")
        self.assertIn("3 passed", told)

    def test_programs(self) -> None:
        """The program and both aliases are there."""
        version = self.call("-c", "import wsproxy; print(wsproxy.__version__)").strip()
        for module in ("wsproxy", _PROGRAM):
            self.assertIn("serve", self.call("-m", module, "--help"))
            self.assertEqual(self.call("-m", module, "--version"), f"wsproxy {version}\n")
        self.assertIn(version, self.wheel.name)

    def test_old_program(self) -> None:
        """The old program may be uninstalled before ours is installed, or after: its module is there."""
        old = _old_program(self.directory)
        for order in ((old, self.wheel), (self.wheel, old)):
            with self.subTest([path.name for path in order]):
                self.call("-m", "pip", "uninstall", "--quiet", "--yes", "lab-orchestrator-ws-proxy-lib")
                for path in order:
                    self.call("-m", "pip", "install", "--quiet", "--no-deps", str(path))
                self.assertEqual(self.call("-m", _PROGRAM), "the old program\n")
                self.call("-m", "pip", "uninstall", "--quiet", "--yes", "lab-orchestrator-ws-proxy")
                self.assertIn("wsproxy 2.", self.call("-m", _PROGRAM, "--version"))


class EmptyEnvironmentTest(unittest.TestCase):
    """The wheel where nothing else was installed: no extras, and nothing of the project's directory."""

    python: ClassVar[Path]
    directory: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)
        venv.create(cls.directory / "venv", with_pip=True)
        cls.python = cls.directory / "venv" / "bin" / "python"
        cls.call("-m", "pip", "install", "--quiet", str(build_wheel(cls.directory / "build")))

    @classmethod
    def call(cls, *arguments: str) -> str:
        return call(cls.python, cls.directory, *arguments)

    def test_every_module(self) -> None:
        """Every module can be imported, but a few, which name the package that they need."""
        told = self.call("-W", "error", "-c", _IMPORT_ALL).split()
        of_redis = [each for each in told if each.startswith("wsproxy.state.stores.redis.")]
        self.assertEqual({each.partition(":")[2] for each in of_redis}, {"redis"})
        others = [each for each in told if each not in of_redis]
        self.assertEqual(others, ["wsproxy.flask:flask", "wsproxy.testing.pytest_plugin:pytest"])

    def test_demo(self) -> None:
        """The demo runs."""
        told = self.call(
            "-m", "wsproxy", "demo", "--once", "--screenshot", str(self.directory / "screen.png")
        )
        self.assertTrue((self.directory / "screen.png").stat().st_size > 1000, told)


def _old_program(directory: Path) -> Path:
    """Return a wheel with the names that lab-orchestrator-ws-proxy 1.0.0 has in its own."""
    information = f"{_PROGRAM}-1.0.0.dist-info"
    files = {
        f"{_PROGRAM}/__init__.py": "",
        f"{_PROGRAM}/__main__.py": "print('the old program')\n",
        f"{information}/METADATA": "Metadata-Version: 2.1\nName: lab-orchestrator-ws-proxy\nVersion: 1.0.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{information}/RECORD"])
    path = directory / "old" / f"{_PROGRAM}-1.0.0-py3-none-any.whl"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, f"{information}/RECORD": record}.items():
            wheel.writestr(name, text)
    return path
