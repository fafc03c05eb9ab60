"""Each published lab-orchestrator-lib-auth in one environment with wsproxy, as platforms have it.

All of them pin PyJWT 2.1.0. The wheels are fetched once; then pip works without an index, and decides as with
one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import unittest
import venv
from pathlib import Path
from typing import ClassVar

from tests.support.wheel import build_wheel

_VERSIONS = (
    *("0.0.0", "0.0.1", "0.0.2", "0.0.3", "0.0.4", "0.0.5", "1.0.0"),
    *("2.0.0", "2.0.1", "2.0.2", "2.0.3", "2.1.0", "2.1.1", "2.2.0"),
)
_NAME = "lab-orchestrator-lib-auth"
_OURS = "lab-orchestrator-ws-proxy-lib"
_SECONDS = 300

# What a platform does: its tokens are that package's, and open consoles; and that package reads ours.
_PLATFORM = """
import inspect
import sys
import unittest
from importlib.metadata import version

from lab_orchestrator_lib_auth import auth
from wsproxy.testing import ProxyTestCase
from wsproxy.testing.case import SECRET


class PlatformTest(ProxyTestCase):
    tls = False

    def made(self, secret=SECRET, **more):
        names = inspect.signature(auth.LabInstanceTokenParams).parameters
        values = {
            "lab_id": 1,
            "lab_instance_id": 2,
            "namespace_name": self.namespace,
            "allowed_vmi_names": ["ubuntu"],
            "vmi_name": "ubuntu",
            "additional_data": {"a": 1},
        }
        params = auth.LabInstanceTokenParams(**{name: values[name] for name in names})
        return auth.generate_auth_token(5, params, secret, **more)

    def test_console(self):
        desktop = self.add_desktop("ubuntu")
        self.assertEqual(self.open_console("ubuntu", token=self.made()).name, desktop.name)

    def test_refused(self):
        self.add_desktop("ubuntu")
        for token in (self.made(SECRET[::-1]), self.made(expires_in=-60)):
            with self.assertRaisesRegex(Exception, "token"):
                self.open_console("ubuntu", token=token)

    @unittest.skipUnless(hasattr(auth, "decode_auth_token"), "it has no reader that works")
    def test_its_reader(self):
        found = auth.decode_auth_token(self.token("ubuntu"), SECRET)
        self.assertEqual((found.namespace_name, found.allowed_vmi_names), (self.namespace, ["ubuntu"]))


expected = sys.argv.pop()
assert version("lab-orchestrator-lib-auth") == expected
assert version("PyJWT") == "2.1.0"
unittest.main()
"""


class BesideLibAuthTest(unittest.TestCase):
    """One virtual environment for each order of installation, in which the versions take turns."""

    directory: ClassVar[Path]
    wheels: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)
        cls.wheels = cls.directory / "wheels"
        ours = build_wheel(cls.directory / "build")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(cls.wheels)]
        cls.run_bounded(*pip, str(ours), "PyJWT==2.1.0")
        for version in _VERSIONS:
            cls.run_bounded(*pip, "--no-deps", f"{_NAME}=={version}")
        shutil.copy2(ours, cls.wheels)
        (cls.directory / "platform_test.py").write_text(_PLATFORM, encoding="utf-8")

    @classmethod
    def run_bounded(cls, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command outside of the project."""
        done = subprocess.run(command, cwd=cls.directory, capture_output=True, text=True, timeout=_SECONDS)
        if check and done.returncode:
            raise AssertionError(f"{command} exited with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def environment(self, name: str) -> str:
        """Return the Python of a new virtual environment."""
        venv.create(self.directory / name, with_pip=True)
        return str(self.directory / name / "bin" / "python")

    def pip(self, python: str, *arguments: str) -> str:
        return self.run_bounded(python, "-m", "pip", "--quiet", *arguments).stdout

    def install(self, python: str, *names: str, dry: bool = False) -> None:
        options = ["--no-index", "--find-links", str(self.wheels), *(["--dry-run"] if dry else [])]
        self.pip(python, "install", *options, *names)

    def assert_works(self, python: str, version: str) -> None:
        """Assert that this version is there, with what it pins, and that the platform's tests pass."""
        self.pip(python, "check")
        done = self.run_bounded(python, "-W", "ignore", "platform_test.py", version, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Ran 3 tests", done.stderr)

    def test_wsproxy_first(self) -> None:
        """Where wsproxy is, each version can be added; the PyJWT that it pins disturbs nothing."""
        python = self.environment("first")
        self.install(python, _OURS)
        for version in _VERSIONS:
            with self.subTest(version=version):
                self.install(python, f"{_NAME}=={version}")
                self.assert_works(python, version)

    def test_wsproxy_last(self) -> None:
        """Where a version is, wsproxy can be added, and leaves it as it is."""
        python = self.environment("last")
        for version in _VERSIONS:
            with self.subTest(version=version):
                self.install(python, f"{_NAME}=={version}")
                self.install(python, _OURS)
                self.assert_works(python, version)
                self.pip(python, "uninstall", "--yes", _OURS, _NAME, "PyJWT")

    def test_at_once(self) -> None:
        """One command resolves for both."""
        python = self.environment("once")
        for version in _VERSIONS:
            with self.subTest(version=version):
                self.install(python, _OURS, f"{_NAME}=={version}", dry=True)
        self.install(python, _NAME, _OURS)
        self.assert_works(python, _VERSIONS[-1])
