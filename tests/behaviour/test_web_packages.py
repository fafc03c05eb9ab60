"""Tests of ``scripts/web_packages.py``: a stand-in for the npm client packs what the tests want."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
_PROGRAM = os.path.join(_ROOT, "scripts", "web_packages.py")
_TIMEOUT = 60.0
_FILES = {"package/core/rfb.js": b"export {};\n", "package/package.json": b"{}\n"}
# Notes how it was called, and puts the archive where npm pack does: into the working directory.
_NPM = """\
#!{python}
import shutil, sys
with open({calls!r}, "a") as calls:
    print(*sys.argv[1:], file=calls)
if {error!r}:
    sys.exit({error!r})
shutil.copy({archive!r}, "packed.tgz")
"""


def archive(files: dict[str, bytes], *further: tarfile.TarInfo) -> bytes:
    """Return a package's archive with these files and further, empty members."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as members:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
        for member in further:
            members.addfile(member)
    return written.getvalue()


def integrity(content: bytes) -> str:
    """Return an archive's integrity as lock files have it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


class WebPackages(unittest.TestCase):
    """Fetching a package."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.into = os.path.join(directory.name, "web")
        self.programs = os.path.join(directory.name, "bin")
        os.mkdir(self.programs)
        self.calls = os.path.join(directory.name, "calls")
        self.archive = os.path.join(directory.name, "archive")

    def install_npm(self, content: bytes, error: str = "") -> None:
        """Put a stand-in for npm on the path.

        :param content: the archive it packs.
        :param error: what it says instead, on standard error.
        """
        with open(self.archive, "wb") as file:
            file.write(content)
        npm = os.path.join(self.programs, "npm")
        text = _NPM.format(python=sys.executable, calls=self.calls, error=error, archive=self.archive)
        with open(npm, "w", encoding="utf-8") as program:
            program.write(text)
        os.chmod(npm, 0o755)

    def fetch(self, expected: str) -> tuple[int, str, str]:
        """Fetch ``@web/thing`` 1.2.3 of an expected integrity; return exit status, output and errors."""
        done = subprocess.run(
            [sys.executable, _PROGRAM, "--into", self.into, f"@web/thing@1.2.3#{expected}"],
            env={**os.environ, "PATH": self.programs},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        return done.returncode, done.stdout.strip(), done.stderr

    def refused(self, content: bytes) -> str:
        """Return why an archive is refused that has the integrity it should have."""
        self.install_npm(content)
        return self.refusal(integrity(content))

    def refusal(self, expected: str) -> str:
        """Return why nothing is fetched; one line, and nothing is left."""
        status, out, err = self.fetch(expected)
        self.assertEqual((status, out), (1, ""), err)
        self.assertTrue(err.startswith("@web/thing 1.2.3 cannot be fetched: "), err)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertEqual(os.listdir(self.into), [])
        return err

    def test_fetched_once(self) -> None:
        """It is unpacked without its outer folder, and the second time nobody asks npm."""
        content = archive(_FILES)
        self.install_npm(content)
        for _ in range(2):
            status, place, err = self.fetch(integrity(content))
            self.assertEqual((status, err), (0, ""))
        self.assertEqual(place, os.path.join(self.into, "thing-1.2.3"))
        for name, expected in _FILES.items():
            with open(os.path.join(place, name.partition("/")[2]), "rb") as file:
                self.assertEqual(file.read(), expected)
        self.assertEqual(os.listdir(self.into), ["thing-1.2.3"])
        with open(self.calls, encoding="utf-8") as calls:
            (call,) = calls.read().splitlines()
        self.assertRegex(call, r"^pack .* @web/thing@1\.2\.3$")

    def test_folders(self) -> None:
        """A folder in the archive does no harm, and its mode does not count."""
        folder = tarfile.TarInfo("package/core")
        folder.type, folder.mode = tarfile.DIRTYPE, 0
        content = archive(_FILES, folder)
        self.install_npm(content)
        self.assertEqual(self.fetch(integrity(content))[0], 0)

    def test_another_content(self) -> None:
        """An archive that is not the one that was pinned is refused."""
        self.install_npm(archive({**_FILES, "package/core/rfb.js": b"evil();\n"}))
        self.assertIn("integrity", self.refusal(integrity(archive(_FILES))))

    def test_outside(self) -> None:
        """An archive with files that would come to lie elsewhere is refused."""
        for name in (
            "package/../../evil.js",
            "../evil.js",
            "package/..",
            "/tmp/evil.js",
            "package//tmp/evil.js",
            "package/./evil.js",
            "evil.js",
        ):
            with self.subTest(name):
                self.assertIn(repr(name), self.refused(archive({**_FILES, name: b"evil();\n"})))
        self.assertNotIn("evil.js", os.listdir(os.path.dirname(self.into)))

    def test_links(self) -> None:
        """Links and devices are refused."""
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo("package/link")
            member.type, member.linkname = kind, "/etc/hostname"
            with self.subTest(kind):
                self.assertIn("'package/link'", self.refused(archive(_FILES, member)))

    def test_no_archive(self) -> None:
        """What is no archive, is cut short, or has a file twice or below a file is refused."""
        twice = archive(_FILES, tarfile.TarInfo("package/package.json"))
        below = archive(_FILES, tarfile.TarInfo("package/package.json/file"))
        for content in (b"not found", archive(_FILES)[:100], twice, below):
            with self.subTest(content[:20]):
                self.assertIn("cannot be unpacked", self.refused(content))

    def test_no_npm(self) -> None:
        """Without npm it is said how to get it."""
        self.assertIn("apt-get install npm", self.refusal(integrity(b"")))

    def test_offline(self) -> None:
        """Where npm fails the first line of what it says is passed on."""
        self.install_npm(b"", error="npm error code ENOTFOUND\nnpm error syscall getaddrinfo")
        self.assertIn("npm error code ENOTFOUND\n", self.refusal(integrity(b"")))

    def test_unknown_name(self) -> None:
        """A name that is not known is told with those that are."""
        done = subprocess.run(
            [sys.executable, _PROGRAM, "jquery"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        self.assertEqual(done.returncode, 2)
        self.assertIn("novnc, xterm, axe-core", done.stderr)


if __name__ == "__main__":
    unittest.main()
