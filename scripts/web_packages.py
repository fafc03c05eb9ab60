"""Fetches npm packages for browsers, each of one pinned version and content.

``python scripts/web_packages.py NAME ...`` prints the directory of each package, one a line. If a package is
missing, the npm client fetches it from its configured registry. The archive must have the SHA-512 in this
file. The script unpacks it, and moves it to its directory in one step, so that each directory is complete. If
it cannot fetch a package, it says why in one line on standard error, and the exit status is 1.

Requires only Python. scripts/demo, scripts/integration and tests/integration run it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from typing import IO, NamedTuple

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SECONDS = 120
# npm tries again only once, a second later, so that offline users do not wait long.
_OPTIONS = ("--ignore-scripts", "--prefer-offline", "--fetch-retries=1", "--fetch-retry-mintimeout=1000")


class NotFetched(Exception):
    """A package cannot be fetched. The text says why in one line."""


class Package(NamedTuple):
    """An npm package.

    :ivar name: its name in the registry, with its scope.
    :ivar integrity: ``sha512-`` and the base64 of the archive's SHA-512, as in lock files.
    """

    name: str
    version: str
    integrity: str

    @property
    def directory(self) -> str:
        """The name of its directory."""
        return f"{self.name.rpartition('/')[2]}-{self.version}"


PACKAGES = {
    "novnc": Package(
        "@novnc/novnc",
        "1.7.0",
        "sha512-ucEJOx4T2avIRCleodk7YobZj5O2Ga2AeLfQ69A/yjG9HHba2+PDgwSkN3FttrmG+70ZGx21sElNFouK13RzyA==",
    ),
    "xterm": Package(
        "@xterm/xterm",
        "6.0.0",
        "sha512-TQwDdQGtwwDt+2cgKDLn0IRaSxYu1tSUjgKarSDkUM0ZNiSRXFpjxEsvc/Zgc5kq5omJ+V0a8/kIM2WD3sMOYg==",
    ),
    "axe-core": Package(
        "axe-core",
        "4.14.1",
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    ),
}


def fetch(package: Package, into: str) -> str:
    """Return the directory of a package. If it is missing, fetch the package; blocks for two minutes at most.

    :param into: the directory for the directories of all packages. It is created if needed.
    :raises NotFetched: if the package cannot be fetched. Nothing is left of it then.
    """
    place = os.path.join(into, package.directory)
    if os.path.isdir(place):
        return place
    os.makedirs(into, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{package.directory}.", dir=into) as directory:
        with open(_pack(package, directory), "rb") as archive:
            _verify(package, archive)
            archive.seek(0)
            unpacked = os.path.join(directory, "unpacked")
            _unpack(archive, unpacked)
        try:
            os.rename(unpacked, place)
        except OSError:
            if not os.path.isdir(place):  # otherwise another process was faster
                raise
    return place


def _pack(package: Package, directory: str) -> str:
    """Let npm put the package's archive into a directory, and return the archive's path."""
    npm = shutil.which("npm")
    if npm is None:
        raise NotFetched("npm is not installed (Debian, Ubuntu: apt-get install npm)")
    command = [npm, "pack", *_OPTIONS, f"{package.name}@{package.version}"]
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotFetched(f"npm took longer than {_SECONDS} s") from None
    archives = [name for name in os.listdir(directory) if name.endswith(".tgz")]
    if done.returncode or len(archives) != 1:
        said = done.stderr.strip().partition("\n")[0] or f"npm ended with status {done.returncode}"
        raise NotFetched(said)
    return os.path.join(directory, archives[0])


def _verify(package: Package, archive: IO[bytes]) -> None:
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read()).digest()).decode()
    if found != package.integrity:
        raise NotFetched(f"its integrity should be {package.integrity}, but is {found}")


def _unpack(archive: IO[bytes], into: str) -> None:
    """Write the files of an archive below a directory, without their common top folder.

    It takes names, contents and folders only: no links, modes or owners, and no path outside.
    """
    try:
        with tarfile.open(fileobj=archive, mode="r:gz") as members:
            for member in members:
                folder, *parts = member.name.split("/")
                if member.isdir():
                    continue
                if not member.isfile() or not parts or {"", ".", ".."}.intersection((folder, *parts)):
                    raise NotFetched(f"its archive contains {member.name!r}, which is not a package's file")
                path = os.path.join(into, *parts)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                content = members.extractfile(member)
                assert content is not None  # it is a file
                with content, open(path, "xb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, FileExistsError, NotADirectoryError) as exc:
        raise NotFetched(f"its archive cannot be unpacked: {exc}") from None


def _named(text: str) -> Package:
    """Return a package by its name in this file. Tests name one as ``NAME@VERSION#INTEGRITY``."""
    if text in PACKAGES:
        return PACKAGES[text]
    named, _, integrity = text.partition("#")
    name, _, version = named.rpartition("@")
    if not (name and version and integrity):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(PACKAGES)}")
    return Package(name, version, integrity)


def main() -> int:
    """Fetch the packages that the command line names, and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/web_packages.py")
    parser.add_argument("packages", metavar="NAME", nargs="+", type=_named, help=", ".join(PACKAGES))
    parser.add_argument(
        "--into",
        default=os.path.join(_ROOT, ".web"),
        metavar="DIR",
        help="directory of the packages (default: %(default)s)",
    )
    options = parser.parse_args()
    for package in options.packages:
        try:
            print(fetch(package, options.into), flush=True)
        except (NotFetched, OSError) as exc:
            print(f"{package.name} {package.version} cannot be fetched: {exc}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
